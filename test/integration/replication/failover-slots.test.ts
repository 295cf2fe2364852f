import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { afterAll, beforeAll, expect, inject, it, vi } from 'vitest'
import { startPostgres, type PostgresServer } from '../../../src/embedded/postgres-server.ts'
import type { Destination } from '../../../src/model/destination.ts'
import { documentOf, run } from '../../support/command-line.ts'
import { differences, specOf, TestPipeline } from '../../support/pipeline.ts'
import { createDatabase, type TestDatabase } from '../../support/servers.ts'

let server: PostgresServer
/** Of a server that has no failover slots. */
let older: TestDatabase
let started: PostgresServer | undefined
beforeAll(async () => {
  server = await startPostgres({ major: 18 })
  const fifteen = inject('postgres15Url')
  if (fifteen === null) started = await startPostgres({ major: 16 })
  older = await createDatabase(fifteen ?? started?.url ?? '')
}, 180_000)
afterAll(async () => {
  await older.drop()
  await Promise.all([server.stop(), started?.stop()])
})

const makesFailoverSlots = (): boolean => true

async function isFailover(pipeline: TestPipeline): Promise<boolean | undefined> {
  return (await pipeline.source.query<{ failover: boolean }>('SELECT failover FROM pg_replication_slots WHERE slot_name = $1', [pipeline.spec.slotName])).rows[0]?.failover
}

it.each(['initial', 'persisted'] as const)('makes a failover slot where the source asks for them, snapshotMode %s, and it replicates as any other', async (snapshotMode) => {
  const name = `failing_${snapshotMode}`
  await using pipeline = new TestPipeline(server.url, specOf({ slotName: name, publicationName: name, tableNames: [name], snapshotMode }), { makesFailoverSlots })
  await pipeline.sql(`CREATE TABLE ${name} (id int PRIMARY KEY, v text); INSERT INTO ${name} SELECT g, 'copied' FROM generate_series(1, 100) g`)
  await pipeline.initialize()
  expect(await isFailover(pipeline)).toBe(true)
  await pipeline.sql(`INSERT INTO ${name} VALUES (200, 'streamed'); DELETE FROM ${name} WHERE id < 10`)
  await pipeline.catchUp()
  expect(differences(await pipeline.destinationRows(name), await pipeline.sourceRows(name))).toEqual({ missing: [], extra: [] })
})

// Cause: a slot with snapshots is made by two statements; cut off between them init went on with an ordinary one.
it('makes it a failover slot when init goes on that was cut off before it was one', async () => {
  let isAsked = false
  let isKilled = true
  const around = (destination: Destination): Destination =>
    new Proxy(destination, {
      get: (target, name) => {
        if (name === 'register' && isKilled) return async () => Promise.reject(new Error('killed'))
        const value: unknown = Reflect.get(target, name)
        return typeof value === 'function' ? (value.bind(target) as unknown) : value
      },
    })
  const spec = specOf({ slotName: 'cut_off', publicationName: 'cut_off', tableNames: ['cut_off'], snapshotMode: 'persisted' })
  await using pipeline = new TestPipeline(server.url, spec, { makesFailoverSlots: () => isAsked, around })
  await pipeline.sql("CREATE TABLE cut_off (id int PRIMARY KEY, v text); INSERT INTO cut_off SELECT g, 'kept' FROM generate_series(1, 100) g")
  // What a kill between the two statements leaves: a slot that is none, with its snapshots.
  await expect(pipeline.initialize()).rejects.toThrow('killed')
  expect(await isFailover(pipeline)).toBe(false)
  isAsked = true
  isKilled = false
  const { warnings, created } = await pipeline.initialize()
  expect(created.slot).toBe(false)
  expect(await isFailover(pipeline)).toBe(true)
  expect(warnings.join()).not.toContain('failoverSlots')
  await pipeline.sql("INSERT INTO cut_off VALUES (200, 'streamed'); DELETE FROM cut_off WHERE id < 10")
  await pipeline.catchUp()
  expect(differences(await pipeline.destinationRows('cut_off'), await pipeline.sourceRows('cut_off'))).toEqual({ missing: [], extra: [] })
})

it('makes an ordinary one where it does not, and leaves a slot that is there what it is', async () => {
  const spec = specOf({ slotName: 'ordinary', publicationName: 'ordinary', tableNames: ['ordinary'] })
  await using pipeline = new TestPipeline(server.url, spec)
  await pipeline.sql('CREATE TABLE ordinary (id int PRIMARY KEY)')
  await pipeline.initialize()
  expect(await isFailover(pipeline)).toBe(false)
  await pipeline.release()
  await using asked = new TestPipeline(server.url, { ...spec, slotName: 'asked', publicationName: 'asked' }, { makesFailoverSlots })
  await asked.sql("SELECT pg_create_logical_replication_slot('asked', 'pgoutput')")
  await asked.initialize()
  expect(await isFailover(asked)).toBe(false)
})

it('is refused before anything is made on a server that has none', async () => {
  await using pipeline = new TestPipeline(older.url, specOf({ slotName: 'older', publicationName: 'older', tableNames: ['older'] }), { makesFailoverSlots })
  await pipeline.sql('CREATE TABLE older (id int PRIMARY KEY)')
  await expect(pipeline.initialize()).rejects.toMatchObject({ kind: 'SourceNotReady', message: expect.stringContaining('failover slots came with PostgreSQL 17') as string, remedy: expect.stringContaining('failoverSlots') as string })
  expect((await pipeline.source.query("SELECT 1 FROM pg_replication_slots WHERE slot_name = 'older' UNION ALL SELECT 1 FROM pg_publication")).rowCount).toBe(0)
})

it('is checked by doctor: what a slot that is there is, what one will be that is made, and on a server that has none', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'doctor-'))
  const client = new pg.Client({ connectionString: server.url })
  await client.connect()
  vi.stubEnv('TEMPORAL_ADDRESS', '127.0.0.1:1')
  const doctor = async (url: string, ...args: readonly string[]): Promise<readonly unknown[]> => {
    const file = join(directory, 'replication.toml')
    writeFileSync(file, `[sources.shop]\ncredentials = ${JSON.stringify(url)}\nfailoverSlots = "on"\n[destinations.warehouse]\npath = "w.duckdb"\n`)
    vi.stubEnv('REPLICATION_CONFIG', file)
    const { checks } = documentOf(await run('doctor', ...args, '--json')) as { readonly checks: readonly { readonly name: string; readonly state: string; readonly message: string; readonly remedy: string | null }[] }
    return checks.filter(({ name }) => name === 'failover slot').map(({ state, message, remedy }) => [state, message, remedy])
  }
  const named = ['--publication', 'seen', '--tables', 'seen', '--slot'] as const
  try {
    await client.query('CREATE TABLE seen (id int PRIMARY KEY)')
    await client.query("SELECT pg_create_logical_replication_slot('seen', 'pgoutput')")
    expect(await doctor(server.url)).toEqual([['ok', 'the slot will be a failover slot', null]])
    expect(await doctor(server.url, ...named, 'unseen')).toEqual([['ok', 'the slot will be a failover slot', null]])
    const [[state, message, remedy] = []] = (await doctor(server.url, ...named, 'seen')) as readonly string[][]
    expect([state, message]).toEqual(['warning', 'failoverSlots is on for this source, and slot "seen" is none: standbys do not have it'])
    // What it says to run makes it one.
    const walsender = new pg.Client({ connectionString: server.url, replication: 'database' } as pg.ClientConfig)
    await walsender.connect()
    await walsender.query(remedy?.split('\n').at(-1) ?? '')
    await walsender.end()
    expect(await doctor(server.url, ...named, 'seen')).toEqual([['ok', 'slot "seen" is a failover slot', null]])

    await using pipeline = new TestPipeline(older.url, specOf({ slotName: 'old_seen', tableNames: ['seen'] }))
    await pipeline.sql('CREATE TABLE seen (id int PRIMARY KEY)')
    await pipeline.sql("SELECT pg_create_logical_replication_slot('old_seen', 'pgoutput')")
    const off = 'Set failoverSlots of this source to "off".'
    expect(await doctor(older.url)).toEqual([['failure', 'failoverSlots is on for this source; failover slots came with PostgreSQL 17', off]])
    expect(await doctor(older.url, ...named, 'old_seen')).toEqual([['warning', 'failoverSlots is on for this source; failover slots came with PostgreSQL 17: slot "old_seen" stays an ordinary one', off]])
    await pipeline.sql("SELECT pg_drop_replication_slot('old_seen')")
  } finally {
    await client.end()
    vi.unstubAllEnvs()
    rmSync(directory, { recursive: true, force: true })
  }
})
