import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest'
import { differences, type TestPipelineOptions } from '../../support/pipeline.ts'
import { createDatabase, type TestDatabase } from '../../support/servers.ts'
import { XminPipeline } from '../../support/xmin.ts'
import type { XminSpec } from '../../../src/model/spec.ts'

const EQUAL = { missing: [], extra: [] }

describe('reading by xmin', () => {
  let database: TestDatabase

  beforeAll(async () => {
    database = await createDatabase(inject('postgresUrl'))
  })

  afterAll(async () => {
    await database.drop()
  })

  function open(spec: Partial<XminSpec> & Pick<XminSpec, 'tableNames'>, options?: TestPipelineOptions): XminPipeline {
    return new XminPipeline(database.url, spec, options)
  }

  async function compare(pipeline: XminPipeline, table: string): Promise<unknown> {
    return differences(await pipeline.destinationRows(table), await pipeline.sourceRows(table))
  }

  it('takes every row first, then what was inserted and updated since, and nothing twice where nothing was', async () => {
    await using pipeline = open({ tableNames: ['plain'] })
    await pipeline.sql(`CREATE TABLE plain (id int PRIMARY KEY, v text, n numeric); INSERT INTO plain SELECT i, 'v' || i, i / 3.0 FROM generate_series(1, 1000) i`)
    await pipeline.settle()
    const first = await pipeline.sync()
    expect(first.tables['public.plain']?.rows).toBe(1000)
    expect(first.warnings.join()).toContain('deletes are not seen')
    expect(await compare(pipeline, 'plain')).toEqual(EQUAL)
    expect((await pipeline.sync()).tables['public.plain']?.rows).toBe(0)
    await pipeline.sql(`UPDATE plain SET v = 'changed' WHERE id % 100 = 0; INSERT INTO plain VALUES (2000, NULL, 'NaN')`)
    const second = await pipeline.sync()
    expect(second.tables['public.plain']?.rows).toBe(11)
    expect(BigInt(second.tables['public.plain']?.watermark ?? 0)).toBeGreaterThan(BigInt(first.tables['public.plain']?.watermark ?? 0))
    expect(await compare(pipeline, 'plain')).toEqual(EQUAL)
    expect(await pipeline.query(`SELECT state, snapshot_rows::INTEGER, inserts::INTEGER, updates::INTEGER FROM _replication.tables`)).toEqual([['streaming', 1000, 1, 10]])
  })

  it('takes rows, of savepoints too, whose transaction was open at the last run', async () => {
    await using pipeline = open({ tableNames: ['opened'] })
    await pipeline.sql(`CREATE TABLE opened (id int PRIMARY KEY, v text); INSERT INTO opened VALUES (1, 'a'), (2, 'b')`)
    const client = await pipeline.source.connect()
    try {
      await client.query('BEGIN')
      await client.query(`INSERT INTO opened VALUES (10, 'in the transaction')`)
      await client.query('SAVEPOINT s')
      await client.query(`INSERT INTO opened VALUES (11, 'in a savepoint'); UPDATE opened SET v = 'b2' WHERE id = 2`)
      // Later ids commit before the run: the open one is not the newest.
      await pipeline.sql(`INSERT INTO opened VALUES (20, 'c')`)
      await pipeline.sync()
      await pipeline.sql(`INSERT INTO opened VALUES (21, 'd')`)
      await pipeline.sync()
      expect((await pipeline.destinationRows('opened')).length).toBe(4)
      await client.query('COMMIT')
    } finally {
      client.release()
    }
    await pipeline.sync()
    expect(await compare(pipeline, 'opened')).toEqual(EQUAL)
  })

  it('is not misled by row locks, rewrites of the file and frozen rows', async () => {
    await using pipeline = open({ tableNames: ['rewritten'] })
    await pipeline.sql(`CREATE TABLE rewritten (id int PRIMARY KEY, v text); INSERT INTO rewritten SELECT i, 'v' FROM generate_series(1, 100) i`)
    await pipeline.settle()
    await pipeline.sync()
    await pipeline.sql('VACUUM FREEZE rewritten')
    await pipeline.sql('VACUUM FULL rewritten')
    await pipeline.sql('CLUSTER rewritten USING rewritten_pkey')
    await pipeline.sql('BEGIN; SELECT * FROM rewritten FOR UPDATE; COMMIT')
    expect((await pipeline.sync()).tables['public.rewritten']?.rows).toBe(0)
    await pipeline.sql(`INSERT INTO rewritten VALUES (5, 'x') ON CONFLICT (id) DO UPDATE SET v = excluded.v; INSERT INTO rewritten VALUES (6, 'x') ON CONFLICT DO NOTHING`)
    await pipeline.sql('VACUUM FREEZE rewritten')
    expect((await pipeline.sync()).tables['public.rewritten']?.rows).toBe(1)
    expect(await compare(pipeline, 'rewritten')).toEqual(EQUAL)
  })

  it('leaves deleted rows and old keys, and removes them when keys are compared', async () => {
    await using pipeline = open({ tableNames: ['shrinking'] })
    await pipeline.sql(`CREATE TABLE shrinking (a int, b text, v int, PRIMARY KEY (a, b)); INSERT INTO shrinking SELECT i, 'k' || i, i FROM generate_series(1, 50) i`)
    await pipeline.sync()
    await pipeline.sql(`DELETE FROM shrinking WHERE a <= 10; UPDATE shrinking SET a = a + 1000 WHERE a > 45; INSERT INTO shrinking VALUES (3, 'k3', 33)`)
    await pipeline.sync()
    expect(await compare(pipeline, 'shrinking')).toMatchObject({ missing: [], extra: { length: 5 } })
    pipeline.xmin = { ...pipeline.xmin, deletes: 'compare' }
    const compared = await pipeline.sync()
    expect(compared.warnings).toEqual([])
    expect(await compare(pipeline, 'shrinking')).toEqual(EQUAL)
    await pipeline.sql(`TRUNCATE shrinking; INSERT INTO shrinking VALUES (7, 'again', 1)`)
    await pipeline.sync()
    expect(await compare(pipeline, 'shrinking')).toEqual(EQUAL)
    await pipeline.sql('DELETE FROM shrinking')
    await pipeline.sync()
    expect(await pipeline.destinationRows('shrinking')).toEqual([])
  })

  it('append keeps every version that a run saw, once, and notes deletes that are found by comparing', async () => {
    await using pipeline = open({ tableNames: ['history'], writeMode: 'append', deletes: 'compare' })
    await pipeline.sql(`CREATE TABLE history (id int PRIMARY KEY, v float8); INSERT INTO history VALUES (1, 0), (2, 2), (3, 3)`)
    await pipeline.sync()
    // An open transaction holds the watermark back: what is read again is not added again.
    const client = await pipeline.source.connect()
    try {
      await client.query(`BEGIN; INSERT INTO history VALUES (9, 9)`)
      await pipeline.sql(`UPDATE history SET v = '-0' WHERE id = 1; INSERT INTO history VALUES (4, 4); DELETE FROM history WHERE id = 3`)
      await pipeline.sync()
      await pipeline.sync()
      await client.query('COMMIT')
    } finally {
      client.release()
    }
    await pipeline.sql(`INSERT INTO history VALUES (3, 33)`)
    await pipeline.sync()
    await pipeline.sync()
    expect(await pipeline.query(`SELECT id, v::VARCHAR, _op FROM history ORDER BY id, _lsn, rowid`.replace('FROM history', 'FROM public.history'))).toEqual([
      [1, '0.0', 'snapshot'],
      [1, '-0.0', 'update'],
      [2, '2.0', 'snapshot'],
      [3, '3.0', 'snapshot'],
      [3, null, 'delete'],
      [3, '33.0', 'insert'],
      [4, '4.0', 'insert'],
      [9, '9.0', 'insert'],
    ])
  })

  // Cause: it hides DuckDB's own, by which the newest row of a key is found.
  it('append refuses a column named rowid, upsert does not', async () => {
    await using pipeline = open({ tableNames: ['hidden'], writeMode: 'append' })
    await pipeline.sql('CREATE TABLE hidden (id int PRIMARY KEY, rowid int); INSERT INTO hidden VALUES (1, 7)')
    await expect(pipeline.sync()).rejects.toThrow(/"rowid" has the name of DuckDB's own/)
    await using other = open({ tableNames: ['hidden'] })
    await other.sync()
    expect(await compare(other, 'hidden')).toEqual(EQUAL)
  })

  it('follows columns that come, go, are renamed or retyped between two runs', async () => {
    for (const writeMode of ['merge', 'append'] as const) {
      const table = `shaped_${writeMode}`
      await using pipeline = open({ tableNames: [table], writeMode })
      await pipeline.sql(`CREATE TABLE ${table} (id int PRIMARY KEY, old text, renamed int, typed int); INSERT INTO ${table} VALUES (1, 'o', 1, 1), (2, 'p', 2, 2)`)
      await pipeline.sync()
      await pipeline.sql(`ALTER TABLE ${table} ADD COLUMN added int DEFAULT 7; ALTER TABLE ${table} DROP COLUMN old; ALTER TABLE ${table} RENAME COLUMN renamed TO named; ALTER TABLE ${table} ALTER COLUMN typed TYPE bigint USING typed * 10000000000`)
      await pipeline.sql(`INSERT INTO ${table} VALUES (3, 3, 3, 3)`)
      await pipeline.settle()
      const { warnings } = await pipeline.sync()
      expect(warnings.join()).toContain('all its rows are read again')
      if (writeMode === 'merge') expect(await compare(pipeline, table)).toEqual(EQUAL)
      else {
        expect(await pipeline.query(`SELECT id, old, named, typed::VARCHAR, added, _op FROM public.${table} ORDER BY id, rowid`)).toEqual([
          [1, 'o', 1, '1', null, 'snapshot'],
          [1, null, 1, '10000000000', 7, 'update'],
          [2, 'p', 2, '2', null, 'snapshot'],
          [2, null, 2, '20000000000', 7, 'update'],
          [3, null, 3, '3', 3, 'insert'],
        ])
      }
      expect((await pipeline.sync()).tables[`public.${table}`]?.rows).toBe(0)
      // Cause: columns of one type under each other's names were nothing that a history could follow, so that no run came to an end any more.
      await pipeline.sql(`ALTER TABLE ${table} RENAME COLUMN added TO between; ALTER TABLE ${table} RENAME COLUMN named TO added; ALTER TABLE ${table} RENAME COLUMN between TO named; UPDATE ${table} SET named = 8 WHERE id = 1`)
      await pipeline.sync()
      if (writeMode === 'merge') expect(await compare(pipeline, table)).toEqual(EQUAL)
      else expect(await pipeline.query(`SELECT named, added, _op FROM public.${table} WHERE id IN (1, 3) ORDER BY id, rowid`)).toEqual([[null, 1, 'snapshot'], [7, 1, 'update'], [8, 1, 'update'], [3, 3, 'insert']])
      pipeline.xmin = { ...pipeline.xmin, schemaChanges: 'refuse' }
      await pipeline.sql(`ALTER TABLE ${table} ADD COLUMN more int`)
      await expect(pipeline.sync()).rejects.toThrow('SchemaChangeRefused')
      pipeline.xmin = { ...pipeline.xmin, schemaChanges: 'apply' }
      await pipeline.sync()
      if (writeMode === 'merge') expect(await compare(pipeline, table)).toEqual(EQUAL)
    }
  })

  it('copies again a partition tree that a partition with old rows was attached to', async () => {
    await using pipeline = open({ tableNames: ['parts'] })
    await pipeline.sql(`CREATE TABLE parts (id int PRIMARY KEY, v text) PARTITION BY RANGE (id); CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (100);
      INSERT INTO parts VALUES (1, 'a'); CREATE TABLE parts_2 (id int PRIMARY KEY, v text); INSERT INTO parts_2 VALUES (101, 'old')`)
    await pipeline.sync()
    await pipeline.sql(`ALTER TABLE parts ATTACH PARTITION parts_2 FOR VALUES FROM (100) TO (200)`)
    await pipeline.settle()
    await pipeline.sync()
    expect(await compare(pipeline, 'parts')).toEqual(EQUAL)
    await pipeline.sql(`INSERT INTO parts VALUES (2, 'b'), (150, 'c')`)
    expect((await pipeline.sync()).tables['public.parts']?.rows).toBe(2)
    expect(await compare(pipeline, 'parts')).toEqual(EQUAL)
  })

  it('reads by ranges, goes on after a kill in any of them, and counts a row once', { timeout: 600_000 }, async () => {
    let left = 0
    let killed = 0
    await using pipeline = open({ tableNames: ['ranged'], targetBatchSize: 4000, deletes: 'compare' }, {
      around: (destination) => {
        const commit = async <T>(run: () => Promise<T>): Promise<T> => {
          if (left-- !== 0) return run()
          killed += 1
          if (killed % 2 === 0) await run()
          throw new Error('killed')
        }
        return new Proxy(destination, {
          get(_, property) {
            const value: unknown = Reflect.get(destination, property)
            if (typeof value !== 'function') return value
            const call = value.bind(destination) as (...given: unknown[]) => unknown
            if (!['applyChunks', 'saveTables', 'swapCopy', 'applyKeys', 'prepareCopies', 'register', 'dropTables'].includes(String(property))) return call
            return async (...args: unknown[]) => commit(async () => call(...args) as Promise<unknown>)
          },
        })
      },
    })
    await pipeline.sql(`CREATE TABLE ranged (id int PRIMARY KEY, v int); INSERT INTO ranged SELECT i, i FROM generate_series(1, 20000) i; ANALYZE ranged`)
    await pipeline.settle()
    const runWithKills = async (runId: string): Promise<number> => {
      for (let place = 0; ; place++) {
        left = place
        try {
          const result = await pipeline.call(runId)
          return result.tables['public.ranged']?.rows ?? -1
        } catch (error) {
          expect((error as Error).message).toBe('killed')
          // Each call is killed a little later than the one before it.
          if (place > 100) throw error
        }
      }
    }
    expect(await runWithKills('load')).toBe(20_000)
    expect(killed).toBeGreaterThan(4)
    expect(await compare(pipeline, 'ranged')).toEqual(EQUAL)
    await pipeline.sql('UPDATE ranged SET v = -v WHERE id % 10 = 0; DELETE FROM ranged WHERE id % 1000 = 7')
    left = -1
    expect(await runWithKills('pass')).toBe(2_000)
    expect(await compare(pipeline, 'ranged')).toEqual(EQUAL)
    expect((await pipeline.query('SELECT count(*)::INTEGER FROM public.ranged'))[0]).toEqual([19_980])
  })

  it('ends when its time is over, and goes on in the next call of the same run', async () => {
    await using pipeline = open({ tableNames: ['slow_a', 'slow_b'] })
    await pipeline.sql(`CREATE TABLE slow_a (id int PRIMARY KEY); CREATE TABLE slow_b (id int PRIMARY KEY); INSERT INTO slow_a SELECT generate_series(1, 10); INSERT INTO slow_b SELECT generate_series(1, 10)`)
    const first = await pipeline.call('slow', 0)
    expect(first).toMatchObject({ ended: 'time', tables: { 'public.slow_a': { rows: 0, watermark: null } } })
    expect(await pipeline.call('slow')).toMatchObject({ ended: 'done', tables: { 'public.slow_a': { rows: 10 }, 'public.slow_b': { rows: 10 } } })
    // Again for the same run (its answer was lost): nothing is left to do.
    await pipeline.sql('INSERT INTO slow_a VALUES (11)')
    expect(await pipeline.call('slow')).toMatchObject({ ended: 'done', tables: { 'public.slow_a': { rows: 10 } } })
  })

  it('reads a whole schema with the tables that came since, and lets dropped ones go', async () => {
    await using pipeline = open({ tableNames: null, schemaName: 'whole', datasetName: 'copy' })
    await pipeline.sql(`CREATE SCHEMA whole; CREATE TABLE whole.a (id int PRIMARY KEY); CREATE UNLOGGED TABLE whole.b (id int PRIMARY KEY); INSERT INTO whole.a VALUES (1); INSERT INTO whole.b VALUES (1)`)
    await pipeline.settle()
    expect(Object.keys((await pipeline.sync()).tables)).toEqual(['whole.a', 'whole.b'])
    await pipeline.sql('CREATE TABLE whole.c (id int PRIMARY KEY); ALTER TABLE whole.a RENAME TO a2; INSERT INTO whole.a2 VALUES (2); DROP TABLE whole.b')
    const { tables, warnings } = await pipeline.sync()
    expect(Object.keys(tables).sort()).toEqual(['whole.a2', 'whole.c'])
    expect(tables['whole.a2']?.rows).toBe(1)
    expect(warnings.join()).toContain('whole.a is named whole.a2')
    expect(warnings.join()).toContain('whole.b was dropped')
    expect(await pipeline.query(`SELECT table_name FROM information_schema.tables WHERE table_schema = 'copy' ORDER BY 1`)).toEqual([['a2'], ['b'], ['c']])
    await pipeline.sql('CREATE TABLE whole.keyless (id int)')
    await expect(pipeline.sync()).rejects.toMatchObject({ kind: 'TableNotReplicable', message: expect.stringContaining('whole.keyless') as string })
  })

  it('reads named columns, pins hinted ones, and stops a table alone whose value does not fit', async () => {
    await using pipeline = open({ tableNames: ['hinted', 'beside'], includeColumns: { hinted: ['n'] }, columns: { hinted: { n: { dataType: 'bigint' } } } })
    await pipeline.sql(`CREATE TABLE hinted (id int PRIMARY KEY, n numeric, secret text); CREATE TABLE beside (id int PRIMARY KEY); INSERT INTO hinted VALUES (1, 1, 's'); INSERT INTO beside VALUES (1)`)
    await pipeline.sync()
    expect(await pipeline.destinationRows('hinted')).toEqual(['1 | 1'])
    await pipeline.sql(`UPDATE hinted SET n = 1.5; INSERT INTO beside VALUES (2)`)
    await expect(pipeline.sync()).rejects.toThrow('UnrepresentableValue')
    expect(await pipeline.destinationRows('beside')).toEqual(['1', '2'])
    expect(await pipeline.destinationRows('hinted')).toEqual(['1 | 1'])
    await pipeline.sql(`UPDATE hinted SET n = 2`)
    await pipeline.sync()
    expect(await pipeline.destinationRows('hinted')).toEqual(['1 | 2'])
  })

  it('widens a column for a value that comes later', async () => {
    await using pipeline = open({ tableNames: ['widened'], deletes: 'compare' })
    await pipeline.sql(`CREATE TABLE widened (id numeric PRIMARY KEY, n numeric); INSERT INTO widened VALUES (1, 1), (2, 2.50)`)
    await pipeline.sync()
    await pipeline.sql(`INSERT INTO widened VALUES (123456789012345678901234567890123456789012.5, 'NaN'); DELETE FROM widened WHERE id = 2`)
    await pipeline.sync()
    await pipeline.sync()
    expect(await compare(pipeline, 'widened')).toEqual(EQUAL)
  })

  it('does not take a table that a slot fills, nor leave its own to a slot', async () => {
    await using pipeline = open({ tableNames: ['owned'] })
    await pipeline.sql('CREATE TABLE owned (id int PRIMARY KEY); INSERT INTO owned VALUES (1)')
    pipeline.spec = { ...pipeline.spec, slotName: 'xmin_owned', publicationName: 'xmin_owned' }
    await pipeline.initialize()
    await pipeline.copy()
    await expect(pipeline.sync()).rejects.toMatchObject({ kind: 'InvalidInput', message: expect.stringContaining(`is fed by slot ${pipeline.spec.slotName}`) as string })
    await pipeline.engine.drop({ source: 'shop', destination: 'warehouse', slotName: pipeline.spec.slotName, publicationName: 'xmin_owned', dropDestination: false }, pipeline.context())
    await pipeline.sync()
    const refusal = await pipeline.initialize().then(() => null, (error: unknown) => error as { remedy: string; message: string })
    expect(refusal).toMatchObject({ kind: 'InvalidInput', message: expect.stringContaining('is fed by syncByXmin of source shop') as string })
    // Its way out works.
    await pipeline.write(refusal?.remedy.split('\n').find((line) => line.includes('UPDATE')) ?? '')
    await pipeline.initialize()
    await pipeline.engine.drop({ source: 'shop', destination: 'warehouse', slotName: pipeline.spec.slotName, publicationName: 'xmin_owned', dropDestination: true }, pipeline.context())
  })

  it('is refused while another workflow reads into the same destination, and takes over from one that has ended', async () => {
    let isHeld = true
    await using pipeline = open({ tableNames: ['claimed'] }, {})
    await pipeline.sql('CREATE TABLE claimed (id int PRIMARY KEY); INSERT INTO claimed VALUES (1)')
    expect((await pipeline.call('one', 0)).ended).toBe('time')
    const other = { ...pipeline.context(), owner: 'another', isWorkflowOpen: async () => Promise.resolve(isHeld) }
    const again = async (): Promise<unknown> => pipeline.engine.syncByXmin({ spec: pipeline.xmin, runId: 'two', maxMs: 60_000 }, other)
    await expect(again()).rejects.toMatchObject({ kind: 'AlreadyReplicating', message: 'syncByXmin of source shop is being done by workflow test-workflow' })
    isHeld = false
    expect(await again()).toMatchObject({ ended: 'done', tables: { 'public.claimed': { rows: 1 } } })
  })

  it('reset copies the named tables anew, under other options too, and leaves the others', async () => {
    await using pipeline = open({ tableNames: ['again', 'left'] })
    await pipeline.sql('CREATE TABLE again (id int PRIMARY KEY); CREATE TABLE "left" (id int PRIMARY KEY); INSERT INTO again VALUES (1), (2); INSERT INTO "left" VALUES (1); ')
    await pipeline.settle()
    await pipeline.sync()
    await pipeline.sql('DELETE FROM again WHERE id = 2')
    pipeline.xmin = { ...pipeline.xmin, tableNames: ['again'], writeMode: 'append' }
    await expect(pipeline.sync()).rejects.toMatchObject({ kind: 'InvalidInput', message: expect.stringContaining('writeMode') as string, remedy: 'start with the former value, or with "reset": true to load everything anew' })
    pipeline.xmin = { ...pipeline.xmin, reset: true }
    expect((await pipeline.sync()).tables).toMatchObject({ 'public.again': { rows: 1 } })
    expect(await pipeline.query('SELECT id, _op FROM public.again')).toEqual([[1, 'snapshot']])
    pipeline.xmin = { ...pipeline.xmin, tableNames: ['left'], writeMode: 'merge', reset: false }
    expect((await pipeline.sync()).tables).toMatchObject({ 'public.left': { rows: 0 } })
  })

  it('needs no right but SELECT, and says which is missing', async () => {
    await using owner = open({ tableNames: ['granted'] })
    const role = 'xmin_reader'
    await owner.sql(`CREATE TABLE granted (id int PRIMARY KEY); INSERT INTO granted VALUES (1); DROP ROLE IF EXISTS ${role}; CREATE ROLE ${role} LOGIN PASSWORD 'x'`)
    const url = new URL(database.url)
    url.username = role
    url.password = 'x'
    try {
      await using pipeline = new XminPipeline(url.href, { tableNames: ['granted'] })
      await expect(pipeline.sync()).rejects.toMatchObject({ kind: 'PrivilegeMissing', remedy: expect.stringContaining('GRANT SELECT') as string })
      await owner.sql(`GRANT SELECT ON granted TO ${role}`)
      expect((await pipeline.sync()).tables).toMatchObject({ 'public.granted': { rows: 1 } })
    } finally {
      await owner.sql(`DROP OWNED BY ${role}; DROP ROLE ${role}`)
    }
  })

  it('waits for a server that shows less than what has been read', async () => {
    await using pipeline = open({ tableNames: ['ahead'] })
    await pipeline.sql('CREATE TABLE ahead (id int PRIMARY KEY); INSERT INTO ahead VALUES (1)')
    const { tables } = await pipeline.sync()
    const watermark = tables['public.ahead']?.watermark ?? ''
    await pipeline.write(`UPDATE _replication.tables SET definition = json_merge_patch(definition, '{"xmin": {"watermark": "${String(BigInt(watermark) + 1_000_000n)}"}}')`)
    await expect(pipeline.sync()).rejects.toMatchObject({ kind: 'SourceUnavailable', isRetryable: true })
  })
})
