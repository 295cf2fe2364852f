import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest'
import pg from 'pg'
import type { Destination } from '../../../src/model/destination.ts'
import { snapshotTableName } from '../../../src/postgres/kept-snapshots.ts'
import { runPreflight } from '../../../src/postgres/preflight.ts'
import { parseCredentials } from '../../../src/postgres/credentials.ts'
import { differences, specOf, TestPipeline, type TestPipelineOptions } from '../../support/pipeline.ts'
import { createDatabase, type TestDatabase } from '../../support/servers.ts'

const EQUAL = { missing: [], extra: [] }

it('names of snapshot tables are cut to what PostgreSQL holds, and stay different', () => {
  expect(snapshotTableName('shop_slot', 'orders')).toBe('_snapshot_shop_slot_orders')
  const long = snapshotTableName('s'.repeat(63), 'a')
  expect(Buffer.byteLength(long)).toBe(63)
  expect(long).not.toBe(snapshotTableName('s'.repeat(63), 'b'))
  expect(Buffer.byteLength(snapshotTableName('slot', 'ü'.repeat(31)))).toBeLessThanOrEqual(63)
})

describe('snapshotMode persisted', () => {
  let database: TestDatabase

  beforeAll(async () => {
    database = await createDatabase(inject('postgresUrl'))
  })

  afterAll(async () => {
    await database.drop()
  })

  function open(name: string, given: Partial<Parameters<typeof specOf>[0]> = {}, options: TestPipelineOptions = {}): TestPipeline {
    return new TestPipeline(database.url, specOf({ slotName: `${name}_persisted`, publicationName: name, tableNames: [name], snapshotMode: 'persisted', ...given }), options)
  }

  async function kept(pipeline: TestPipeline): Promise<string[]> {
    const { rows } = await pipeline.sql(`SELECT c.relname AS name, c.relpersistence AS persistence FROM pg_class c WHERE starts_with(c.relname, $1) AND c.relkind = 'r' ORDER BY 1`, [`_snapshot_${pipeline.spec.slotName}_`])
    return (rows as { name: string; persistence: string }[]).map(({ name, persistence }) => `${name} ${persistence}`)
  }

  async function drop(pipeline: TestPipeline): Promise<readonly string[]> {
    const { slotName, publicationName } = pipeline.spec
    const { dropped } = await pipeline.engine.drop({ source: 'shop', destination: 'warehouse', slotName, publicationName, dropDestination: true }, pipeline.context())
    return dropped
  }

  it('keeps the rows of the very consistent point, loads them, then goes on with every change, and drops the tables', async () => {
    await using pipeline = open('exact', { tableNames: ['exact', 'exact_parts'] })
    await pipeline.sql(`CREATE TABLE exact (id int PRIMARY KEY, v text, n numeric(10,2)); INSERT INTO exact SELECT i, 'v' || i, i / 4.0 FROM generate_series(1, 500) i;
      CREATE TABLE exact_parts (id int PRIMARY KEY, v text) PARTITION BY RANGE (id); CREATE TABLE exact_parts_1 PARTITION OF exact_parts FOR VALUES FROM (0) TO (100); INSERT INTO exact_parts VALUES (1, 'p')`)
    const { consistentPoint, created } = await pipeline.initialize()
    expect(created.slot).toBe(true)
    expect(await kept(pipeline)).toEqual([`_snapshot_${pipeline.spec.slotName}_exact u`, `_snapshot_${pipeline.spec.slotName}_exact_parts u`])
    const { rows } = await pipeline.sql('SELECT confirmed_flush_lsn::text AS lsn, temporary FROM pg_replication_slots WHERE slot_name = $1', [pipeline.spec.slotName])
    expect(rows).toEqual([{ lsn: consistentPoint, temporary: false }])
    // What comes after the slot is not in the snapshot, and comes by the stream.
    await pipeline.sql(`UPDATE exact SET v = 'later' WHERE id <= 10; DELETE FROM exact WHERE id > 490; INSERT INTO exact VALUES (1000, 'new', 1)`)
    const { copied } = await pipeline.copy()
    expect(copied).toMatchObject({ 'public.exact': { rows: 500 }, 'public.exact_parts': { rows: 1 } })
    expect(await pipeline.query(`SELECT count(*)::INTEGER, count(*) FILTER (v = 'later')::INTEGER FROM public.exact`)).toEqual([[500, 0]])
    expect(await kept(pipeline)).toEqual([])
    const { changes } = await pipeline.catchUp()
    expect(changes['public.exact']).toEqual({ inserts: 1, updates: 10, deletes: 10, truncates: 0 })
    expect(differences(await pipeline.destinationRows('exact'), await pipeline.sourceRows('exact'))).toEqual(EQUAL)
    expect(await drop(pipeline)).not.toContainEqual(expect.stringContaining('snapshot'))
  })

  it('loads before it streams, in ranges, and goes on after a kill at any commit; every change counts once', async () => {
    let left = -1
    const around = (destination: Destination): Destination =>
      new Proxy(destination, {
        get(_, property) {
          if (property === 'chunkRows') return 700
          const value: unknown = Reflect.get(destination, property)
          if (typeof value !== 'function') return value
          const call = value.bind(destination) as (...given: unknown[]) => unknown
          if (!['applyChunks', 'saveTables', 'prepareCopies', 'swapCopy', 'register'].includes(String(property))) return call
          return async (...given: unknown[]) => {
            const isKilled = left-- === 0
            const result = await (call(...given) as Promise<unknown>)
            if (isKilled) throw new Error('killed')
            return result
          }
        },
      })
    await using pipeline = open('resumed', { writeMode: 'append' }, { around })
    await pipeline.sql(`CREATE TABLE resumed (id int PRIMARY KEY, v text); INSERT INTO resumed SELECT i, repeat('x', 60) FROM generate_series(1, 3000) i`)
    let kills = 0
    const again = async <T>(work: () => Promise<T>): Promise<T> => {
      for (let place = 0; ; place++) {
        left = place
        try {
          return await work()
        } catch (error) {
          if (!(error instanceof Error) || error.message !== 'killed' || place > 40) throw error
          kills += 1
          await pipeline.release()
        }
      }
    }
    // The first kill comes behind the slot, and before the destination knows of it.
    await again(async () => pipeline.initialize())
    await pipeline.sql(`UPDATE resumed SET v = 'later' WHERE id % 100 = 0`)
    await again(async () => pipeline.catchUp())
    expect(kills).toBeGreaterThan(3)
    left = -1
    expect(await pipeline.query(`SELECT _op, count(*)::INTEGER, count(DISTINCT id)::INTEGER FROM public.resumed GROUP BY _op ORDER BY _op`)).toEqual([
      ['snapshot', 3000, 3000],
      ['update', 30, 30],
    ])
    expect(await kept(pipeline)).toEqual([])
    await drop(pipeline)
  })

  it('is loaded in as many slices as it takes, with orders carried out between two of them', async () => {
    const around = (destination: Destination): Destination =>
      new Proxy(destination, {
        get(_, property) {
          if (property === 'chunkRows') return 700
          const value: unknown = Reflect.get(destination, property)
          return typeof value === 'function' ? (value.bind(destination) as unknown) : value
        },
      })
    await using pipeline = open('sliced', {}, { around })
    await pipeline.sql(`CREATE TABLE sliced (id int PRIMARY KEY, v text); INSERT INTO sliced SELECT i, repeat('x', 60) FROM generate_series(1, 3000) i; CREATE TABLE sliced_later (id int PRIMARY KEY); INSERT INTO sliced_later VALUES (1)`)
    await pipeline.initialize()
    await pipeline.sql(`UPDATE sliced SET v = 'later' WHERE id <= 10`)
    const slice = async () => pipeline.engine.runSlice({ spec: pipeline.spec, mode: 'stream', tableNames: null, untilLsn: 'now', maxBusyMs: 0, maxIdleMs: 60_000 }, pipeline.context())
    // A slice without time loads one range, and leaves the stream alone.
    const first = await slice()
    expect(first).toMatchObject({ ended: 'time', hasTablesToCopy: true, transactions: 0, progress: { tables: { 'public.sliced': { state: 'snapshotting' } } } })
    expect(first.copied['public.sliced']?.rows).toBeLessThan(1_500)
    await pipeline.order({ tag: 'add', tableNames: ['sliced_later'] })
    expect(await slice()).toMatchObject({ ended: 'time', transactions: 0, progress: { tables: { 'public.sliced': { state: 'snapshotting' } } } })
    expect(await kept(pipeline)).toHaveLength(1)
    await pipeline.catchUp()
    expect(await kept(pipeline)).toEqual([])
    for (const table of ['sliced', 'sliced_later']) expect(differences(await pipeline.destinationRows(table), await pipeline.sourceRows(table))).toEqual(EQUAL)
    await drop(pipeline)
  })

  it('is refused with a slot that exists, with a name that is taken, and without CREATE in the schema; the size is told before', async () => {
    await using pipeline = open('needy')
    await pipeline.sql(`CREATE TABLE needy (id int PRIMARY KEY)`)
    const { slotName } = pipeline.spec
    const request = { ...pipeline.spec, destinationId: null, destinationHasState: false }
    expect((await runPreflight(parseCredentials(database.url), { request, makesFailoverSlots: false })).findings).toContainEqual(expect.objectContaining({ name: 'snapshot tables', state: 'ok', message: expect.stringMatching(/take about \d+ (bytes|kB|MB) of the source's disk/) as string }))
    await pipeline.sql(`CREATE TABLE "_snapshot_${slotName}_needy" (id int)`)
    await expect(pipeline.initialize()).rejects.toMatchObject({ kind: 'InvalidInput', message: expect.stringContaining('not ours') as string, remedy: expect.stringContaining('DROP TABLE') as string })
    await pipeline.sql(`DROP TABLE "_snapshot_${slotName}_needy"`)
    await pipeline.sql(`SELECT pg_create_logical_replication_slot('${slotName}', 'pgoutput')`)
    await expect(pipeline.initialize()).rejects.toMatchObject({ kind: 'InvalidInput', message: expect.stringContaining('exists already') as string })
    await pipeline.sql(`SELECT pg_drop_replication_slot('${slotName}')`)
    const role = 'persisted_reader'
    await pipeline.sql(`DROP ROLE IF EXISTS ${role}; CREATE ROLE ${role} LOGIN REPLICATION PASSWORD 'x'; REVOKE CREATE ON SCHEMA public FROM PUBLIC; GRANT CREATE ON DATABASE ${database.name} TO ${role}; ALTER TABLE needy OWNER TO ${role}`)
    try {
      const url = new URL(database.url)
      url.username = role
      url.password = 'x'
      await using other = new TestPipeline(url.href, pipeline.spec)
      await expect(other.initialize()).rejects.toMatchObject({ kind: 'PrivilegeMissing', remedy: expect.stringContaining('GRANT CREATE ON SCHEMA "public"') as string })
    } finally {
      await pipeline.sql(`DROP OWNED BY ${role} CASCADE; DROP ROLE ${role}`)
    }
  })

  it('is dropped by reset and by dropReplication before it was loaded, and is no table of a whole schema', async () => {
    await using pipeline = open('unloaded', { tableNames: null, schemaName: 'persisted' })
    await pipeline.sql(`CREATE SCHEMA persisted; CREATE TABLE persisted.unloaded (id int PRIMARY KEY); INSERT INTO persisted.unloaded VALUES (1), (2)`)
    const { tables, warnings } = await pipeline.initialize()
    expect(Object.keys(tables)).toEqual(['persisted.unloaded'])
    expect(warnings.join()).not.toContain('_snapshot_')
    pipeline.spec = { ...pipeline.spec, reset: true }
    await pipeline.sql('INSERT INTO persisted.unloaded VALUES (3)')
    await pipeline.initialize()
    pipeline.spec = { ...pipeline.spec, reset: false }
    expect(await kept(pipeline)).toHaveLength(1)
    expect(Object.keys((await pipeline.initialize()).tables)).toEqual(['persisted.unloaded'])
    const { copied } = await pipeline.copy()
    expect(copied).toEqual({ 'persisted.unloaded': { rows: 3 } })
    await pipeline.sql('CREATE TABLE persisted.later (id int PRIMARY KEY); INSERT INTO persisted.later VALUES (1)')
    await pipeline.catchUp()
    expect(await pipeline.query(`SELECT count(*)::INTEGER FROM information_schema.tables WHERE table_name LIKE '%snapshot%'`)).toEqual([[0]])
    pipeline.spec = { ...pipeline.spec, reset: true }
    await pipeline.initialize()
    expect((await drop(pipeline)).filter((name) => name.startsWith('snapshot table')).length).toBeGreaterThan(0)
    expect(await kept(pipeline)).toEqual([])
  })

  it('copies the table as it is where the snapshot cannot be used any more', async () => {
    await using pipeline = open('altered', { tableNames: ['altered', 'emptied'] })
    await pipeline.sql(`CREATE TABLE altered (id int PRIMARY KEY, v text); INSERT INTO altered VALUES (1, 'a'), (2, 'b'); CREATE TABLE emptied (id int PRIMARY KEY); INSERT INTO emptied VALUES (1), (2)`)
    await pipeline.initialize()
    // As a crash of the server leaves it.
    await pipeline.sql(`TRUNCATE "_snapshot_${pipeline.spec.slotName}_emptied"; ALTER TABLE "_snapshot_${pipeline.spec.slotName}_altered" DROP COLUMN v; INSERT INTO emptied VALUES (3)`)
    await pipeline.copy()
    const { progress } = await pipeline.catchUp()
    expect(progress.warnings.join()).toContain('not usable any more')
    for (const table of ['altered', 'emptied']) expect(differences(await pipeline.destinationRows(table), await pipeline.sourceRows(table))).toEqual(EQUAL)
    expect(await kept(pipeline)).toEqual([])
    await drop(pipeline)
  })

  // Cause: another mode loads no snapshots, and nobody dropped them.
  it('is dropped where the mode is another before it was loaded', async () => {
    await using pipeline = open('other_mode')
    await pipeline.sql('CREATE TABLE other_mode (id int PRIMARY KEY); INSERT INTO other_mode VALUES (1)')
    await pipeline.initialize()
    expect(await kept(pipeline)).toHaveLength(1)
    pipeline.spec = { ...pipeline.spec, snapshotMode: 'initial' }
    await pipeline.release()
    await pipeline.sql('INSERT INTO other_mode VALUES (2)')
    await pipeline.initialize()
    await pipeline.catchUp()
    expect(differences(await pipeline.destinationRows('other_mode'), await pipeline.sourceRows('other_mode'))).toEqual(EQUAL)
    expect(await kept(pipeline)).toEqual([])
    await drop(pipeline)
  })

  // Cause: we waited for a transaction that waited for our lock, in a way that PostgreSQL cannot see: for ever, and all of the table's users behind it.
  it('lets its tables go for a transaction that it waits for, and is made when it is tried again', async () => {
    await using pipeline = open('entangled')
    await pipeline.sql('CREATE TABLE entangled (id int PRIMARY KEY); CREATE TABLE entangled_other (id int); INSERT INTO entangled VALUES (1)')
    const client = new pg.Client({ connectionString: database.url })
    await client.connect()
    try {
      await client.query('BEGIN; INSERT INTO entangled_other VALUES (1)')
      const seen: string[] = []
      const waiting = pipeline.engine.initialize({ spec: pipeline.spec }, { ...pipeline.context(), report: ({ activity }) => seen.push(activity) })
      const refused = expect(waiting).rejects.toMatchObject({ kind: 'SourceUnavailable', message: expect.stringContaining('waits for a transaction that waits for') as string })
      const deadlineMs = Date.now() + 60_000
      while (!seen.some((text) => text.includes('waits for transactions')) && Date.now() < deadlineMs) await pipeline.sql('SELECT pg_sleep(0.1)')
      await client.query('ALTER TABLE entangled ADD COLUMN v text')
      await refused
      await client.query('COMMIT')
    } finally {
      await client.end()
    }
    await pipeline.initialize()
    expect((await pipeline.copy()).copied).toEqual({ 'public.entangled': { rows: 1 } })
    await drop(pipeline)
  })

  it('waits for open transactions, keeps what they have written, and takes what commits later by the stream', async () => {
    await using pipeline = open('open_at_start')
    await pipeline.sql(`CREATE TABLE open_at_start (id int PRIMARY KEY, v text); INSERT INTO open_at_start VALUES (1, 'a')`)
    const client = new pg.Client({ connectionString: database.url })
    await client.connect()
    try {
      await client.query(`BEGIN; INSERT INTO open_at_start VALUES (2, 'open')`)
      const seen: string[] = []
      const waiting = pipeline.engine.initialize({ spec: pipeline.spec }, { ...pipeline.context(), report: ({ activity }) => seen.push(activity) })
      const deadlineMs = Date.now() + 60_000
      while (!seen.some((text) => text.includes('waits for transactions')) && Date.now() < deadlineMs) await pipeline.sql('SELECT pg_sleep(0.1)')
      await client.query('COMMIT')
      await waiting
      expect(seen.join()).toContain('waits for transactions')
    } finally {
      await client.end()
    }
    await pipeline.sql(`INSERT INTO open_at_start VALUES (3, 'after')`)
    const { copied } = await pipeline.copy()
    expect(copied).toEqual({ 'public.open_at_start': { rows: 2 } })
    await pipeline.catchUp()
    expect(differences(await pipeline.destinationRows('open_at_start'), await pipeline.sourceRows('open_at_start'))).toEqual(EQUAL)
    await drop(pipeline)
  })
})
