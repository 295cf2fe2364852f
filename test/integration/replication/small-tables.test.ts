import { afterAll, beforeAll, expect, inject, it } from 'vitest'
import type { Destination } from '../../../src/model/destination.ts'
import { CommitKiller, survive } from '../../support/commit-killer.ts'
import { differences, specOf, TestPipeline } from '../../support/pipeline.ts'
import { createDatabase } from '../../support/servers.ts'

/** Small tables are copied many with one commit. */
let database: Awaited<ReturnType<typeof createDatabase>>

beforeAll(async () => {
  database = await createDatabase(inject('postgresUrl'))
})
afterAll(async () => {
  await database.drop()
})

const NAMES = ['a', 'b', 'c', 'd', 'e', 'f'] as const

async function makeTables(pipeline: TestPipeline, schema: string): Promise<void> {
  const tables = NAMES.map((name) => `CREATE TABLE ${schema}.${name} (id int PRIMARY KEY, v numeric(6,2), t text); INSERT INTO ${schema}.${name} SELECT g, g, 'x' FROM generate_series(1, 50) g`)
  await pipeline.sql(`CREATE SCHEMA ${schema}; ${tables.join('; ')}`)
}

async function expectEqual(pipeline: TestPipeline, schema: string, names: readonly string[], message = ''): Promise<void> {
  for (const name of names) {
    expect(differences(await pipeline.destinationRows(name, schema), await pipeline.sourceRows(name, schema)), `${name} ${message}`).toEqual({ missing: [], extra: [] })
  }
}

/** Tells the tables of each commit of copied rows before it is made. */
function watched(destination: Destination, hooks: { readonly onRead?: () => void; readonly onApply: (names: readonly string[]) => Promise<void> }): Destination {
  return new Proxy(destination, {
    get: (target, property) => {
      if (property === 'newChunk') {
        return (...given: Parameters<Destination['newChunk']>) => {
          hooks.onRead?.()
          return target.newChunk(...given)
        }
      }
      if (property === 'applyChunks') {
        return async (...given: Parameters<Destination['applyChunks']>) => {
          await hooks.onApply(given[1].map(({ table }) => table.source.name))
          return target.applyChunks(...given)
        }
      }
      const value: unknown = Reflect.get(target, property, target)
      return typeof value === 'function' ? (value.bind(target) as unknown) : value
    },
  })
}

it('copies them in one commit, with what changes meanwhile, wherever the worker was killed', { timeout: 300_000 }, async () => {
  let commits: (readonly string[])[] = []
  const killer = new CommitKiller()
  const schema = 'killed'
  const write = async (): Promise<void> => {
    const changes = NAMES.map((name) => `INSERT INTO ${schema}.${name} SELECT 1000 + count(*) + max(id), 0, 'new' FROM ${schema}.${name}; UPDATE ${schema}.${name} SET v = v + 1 WHERE id % 3 = 0; UPDATE ${schema}.${name} SET id = -id WHERE id = 7; DELETE FROM ${schema}.${name} WHERE id % 17 = 2`)
    await pipeline.sql(changes.join('; '))
  }
  const around = (destination: Destination): Destination => watched(killer.around(destination), {
    onApply: async (names) => {
      commits.push(names)
      // Behind the copy's snapshots.
      await write()
    },
  })
  await using pipeline = new TestPipeline(database.url, specOf({ slotName: 'small_killed', schemaName: schema, tableNames: NAMES }), { around })
  await makeTables(pipeline, schema)
  await pipeline.initialize()
  await pipeline.catchUp()
  expect(commits.flat().sort()).toEqual(NAMES)
  expect(commits.length).toBeLessThan(NAMES.length / 2)
  // What was written during the copy came later than the end that the first had in view.
  await pipeline.catchUp()
  await expectEqual(pipeline, schema, NAMES)
  for (const isAfter of [false, true]) {
    for (let index = 0, isOver = false; !isOver; index++) {
      await pipeline.order({ tag: 'resync', tableNames: NAMES })
      commits = []
      killer.arm(index, isAfter)
      await survive(async () => pipeline.catchUp())
      isOver = killer.disarm()
      await pipeline.catchUp()
      await expectEqual(pipeline, schema, NAMES, String(killer.victims.at(-1)))
    }
  }
  expect(killer.victims.filter((victim) => victim.endsWith('applyChunks')).length).toBeGreaterThan(0)
})

it('stops the one whose value does not fit, and widens another, while the rest is copied', async () => {
  const schema = 'misfits'
  await using pipeline = new TestPipeline(database.url, specOf({ slotName: 'small_misfits', schemaName: schema, tableNames: NAMES, columns: { c: { t: { dataType: 'bigint' } } } }))
  await makeTables(pipeline, schema)
  await pipeline.sql(`UPDATE ${schema}.e SET v = 'NaN' WHERE id = 9`)
  await pipeline.initialize()
  const { progress } = await pipeline.copy()
  expect(Object.fromEntries(Object.entries(progress.tables).map(([name, { state }]) => [name, state]))).toEqual(
    Object.fromEntries(NAMES.map((name) => [`${schema}.${name}`, name === 'c' ? 'failed' : 'streaming'])))
  expect(progress.tables[`${schema}.c`]?.error?.type).toBe('UnrepresentableValue')
  await pipeline.catchUp()
  await expectEqual(pipeline, schema, NAMES.filter((name) => name !== 'c'))
})

it('brings those that are read into force while another is locked', async () => {
  const schema = 'locked'
  const applied: string[] = []
  let locking: Promise<{ readonly end: () => Promise<void> }> | null = null
  const lock = async (): Promise<{ readonly end: () => Promise<void> }> => {
    const client = await pipeline.source.connect()
    await client.query(`BEGIN; LOCK TABLE ${schema}.d IN ACCESS EXCLUSIVE MODE`)
    return { end: async () => { await client.query('ROLLBACK'); client.release() } }
  }
  const onApply = async (names: readonly string[]): Promise<void> => {
    applied.push(...names)
    // Were they waiting for the locked one, this would never come.
    const held = locking
    locking = null
    await (await held)?.end()
  }
  let hasLocked = false
  const onRead = (): void => {
    if (!hasLocked) locking = lock()
    hasLocked = true
  }
  await using pipeline = new TestPipeline(database.url, specOf({ slotName: 'small_locked', schemaName: schema, tableNames: NAMES }), { around: (destination) => watched(destination, { onRead, onApply }) })
  await makeTables(pipeline, schema)
  await pipeline.initialize()
  await pipeline.copy()
  expect(applied).toEqual(NAMES)
  await pipeline.catchUp()
  await expectEqual(pipeline, schema, NAMES)
})
