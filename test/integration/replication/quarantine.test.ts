import { readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest'
import { type Lsn, parseLsn } from '../../../src/model/lsn.ts'
import type { SliceResult } from '../../../src/model/replication.ts'
import type { TableStatus } from '../../../src/model/status.ts'
import { differences, specOf, TestPipeline, type TestPipelineOptions } from '../../support/pipeline.ts'
import { createDatabase } from '../../support/servers.ts'

let database: Awaited<ReturnType<typeof createDatabase>>

beforeAll(async () => {
  database = await createDatabase(inject('postgresUrl'))
})

afterAll(async () => {
  await database.drop()
})

type Given = Partial<Parameters<typeof specOf>[0]>

/** Two tables, `name` with a column `v` that a hint pins to DECIMAL(5,2), and `name_other`; initialized and copied. */
async function pinnedPipeline(name: string, given: Given = {}, options: TestPipelineOptions = {}): Promise<TestPipeline> {
  const other = `${name}_other`
  const pipeline = new TestPipeline(
    database.url,
    specOf({ slotName: name, tableNames: [name, other], columns: { [name]: { v: { dataType: 'decimal', precision: 5, scale: 2 } } }, ...given }),
    options,
  )
  await pipeline.sql(`CREATE TABLE ${name} (id int PRIMARY KEY, v numeric, big text); ALTER TABLE ${name} ALTER big SET STORAGE EXTERNAL;
    CREATE TABLE ${other} (id int PRIMARY KEY); INSERT INTO ${name} VALUES (1, 1.25, repeat('one', 3000)), (2, 2.5, NULL)`)
  await pipeline.initialize()
  await pipeline.catchUp()
  return pipeline
}

async function drop(pipeline: TestPipeline): Promise<void> {
  const { slotName, publicationName } = pipeline.spec
  await pipeline.engine.drop({ source: 'shop', destination: 'warehouse', slotName, publicationName, dropDestination: true }, pipeline.context())
  await pipeline[Symbol.asyncDispose]()
}

async function expectEqual(pipeline: TestPipeline, ...tables: string[]): Promise<void> {
  for (const table of tables) {
    expect(differences(await pipeline.destinationRows(table), await pipeline.sourceRows(table)), table).toEqual({ missing: [], extra: [] })
  }
}

/** Stops, and starts again with another input: as the workflow does it, with another try for what had failed. */
async function restartWith(pipeline: TestPipeline, given: Given): Promise<void> {
  await pipeline.release()
  pipeline.spec = { ...pipeline.spec, ...given }
  await pipeline.initialize()
  await retry(pipeline)
}

const retry = async (pipeline: TestPipeline): Promise<void> => pipeline.engine.retryTables({ spec: pipeline.spec, owner: pipeline.owner, tableNames: null })

const tableOf = ({ progress }: SliceResult, name: string): TableStatus => {
  const table = progress.tables[`public.${name}`]
  if (table === undefined) throw new Error(`no table ${name} in the progress`)
  return table
}

const spoolFiles = (pipeline: TestPipeline): string[] => {
  const folder = join(`${pipeline.file}.spool`, `shop.${pipeline.spec.slotName}`)
  return readdirSync(folder)
}

describe('a table that a value stops in the stream', () => {
  it('keeps its changes while the others go on, and goes on with them once the source is mended, without a fresh copy', async () => {
    const pipeline = await pinnedPipeline('q_merge')
    try {
      await pipeline.sql('INSERT INTO q_merge VALUES (3, 3), (4, 98765.4321); INSERT INTO q_merge_other VALUES (1)')
      const stopped = await pipeline.catchUp()
      expect(tableOf(stopped, 'q_merge')).toMatchObject({ state: 'failed', inserts: 0, error: { type: 'UnrepresentableValue' } })
      expect(tableOf(stopped, 'q_merge_other')).toMatchObject({ state: 'streaming', inserts: 1 })
      expect(spoolFiles(pipeline)).toHaveLength(1)
      await pipeline.sql(`BEGIN; INSERT INTO q_merge_other VALUES (2); INSERT INTO q_merge VALUES (5, 5, repeat('five', 2500)); UPDATE q_merge SET v = 7 WHERE id = 1; COMMIT;
        UPDATE q_merge SET id = 20 WHERE id = 2; UPDATE q_merge SET id = 50, v = 6 WHERE id = 5; DELETE FROM q_merge WHERE id = 3`)
      const others = await pipeline.catchUp()
      expect(tableOf(others, 'q_merge')).toMatchObject({ state: 'failed', inserts: 0 })
      expect(tableOf(others, 'q_merge_other')).toMatchObject({ inserts: 2 })
      await expectEqual(pipeline, 'q_merge_other')
      // Not mended yet: it stops at the same place.
      await retry(pipeline)
      expect(tableOf(await pipeline.catchUp(), 'q_merge')).toMatchObject({ state: 'failed', inserts: 0 })
      await pipeline.sql('UPDATE q_merge SET v = 9.5 WHERE id = 4; INSERT INTO q_merge_other VALUES (3)')
      await retry(pipeline)
      const mended = await pipeline.catchUp()
      expect(tableOf(mended, 'q_merge')).toMatchObject({ state: 'streaming', snapshotRows: 2, inserts: 3, updates: 4, deletes: 1 })
      expect(tableOf(mended, 'q_merge')).not.toHaveProperty('error')
      expect(mended.copied).toEqual({})
      expect(mended.changes['public.q_merge']).toEqual({ inserts: 3, updates: 4, deletes: 1, truncates: 0 })
      await expectEqual(pipeline, 'q_merge', 'q_merge_other')
      expect(spoolFiles(pipeline)).toEqual([])
      await pipeline.sql('INSERT INTO q_merge VALUES (6, 6); UPDATE q_merge SET v = 8 WHERE id = 1')
      await pipeline.catchUp()
      await expectEqual(pipeline, 'q_merge')
    } finally {
      await drop(pipeline)
    }
  })

  it('names table, key, column and commit, and no value; an append table stops at any version', async () => {
    const pipeline = await pinnedPipeline('q_named', { writeMode: { q_named: ['append'] } })
    try {
      const insertLsn = async (): Promise<Lsn> => parseLsn(String(((await pipeline.sql('SELECT pg_current_wal_insert_lsn()::text AS lsn')).rows as { lsn: string }[])[0]?.lsn))
      await pipeline.sql('INSERT INTO q_named VALUES (30, 30)')
      const before = await insertLsn()
      await pipeline.sql('BEGIN; INSERT INTO q_named VALUES (3, 31415.9265); UPDATE q_named SET v = 3 WHERE id = 3; COMMIT')
      const after = await insertLsn()
      await pipeline.sql('INSERT INTO q_named VALUES (31, 31)')
      const { error } = tableOf(await pipeline.catchUp(), 'q_named')
      expect(error?.message).toMatch(/^public\.q_named \(key "id"\): a value of column "v" in the transaction committed at [0-9A-F]+\/[0-9A-F]+ does not fit DECIMAL\(5,2\), which a hint asks for$/)
      expect(JSON.stringify(error)).not.toContain('31415')
      expect(error?.remedy).toContain('exactly where the table stopped')
      const named = parseLsn(/committed at ([0-9A-F/]+)/.exec(error?.message ?? '')?.[1] ?? '')
      expect(named > before && named < after).toBe(true)
    } finally {
      await drop(pipeline)
    }
  })

  it('goes on under another hint with its history as if it had never stopped', async () => {
    const pipeline = await pinnedPipeline('q_append', { writeMode: 'append' })
    await using reference = new TestPipeline(database.url, specOf({ slotName: 'q_append_ref', tableNames: ['q_append', 'q_append_other'], writeMode: 'append' }))
    try {
      await reference.initialize()
      await reference.catchUp()
      const rounds = [
        "BEGIN; INSERT INTO q_append VALUES (3, 3, 'three'); INSERT INTO q_append_other VALUES (1); INSERT INTO q_append VALUES (4, 98765.4321, 'four'); INSERT INTO q_append_other VALUES (2); COMMIT",
        'BEGIN; UPDATE q_append SET id = 40 WHERE id = 4; UPDATE q_append SET v = 8 WHERE id = 1; INSERT INTO q_append_other VALUES (3); DELETE FROM q_append WHERE id = 3; COMMIT',
        "TRUNCATE q_append, q_append_other; INSERT INTO q_append VALUES (5, 5, repeat('five', 3000)); UPDATE q_append SET v = 55 WHERE id = 5",
      ]
      for (const round of rounds) {
        await pipeline.sql(round)
        expect(tableOf(await pipeline.catchUp(), 'q_append')).toMatchObject({ state: 'failed' })
      }
      await retry(pipeline)
      expect(tableOf(await pipeline.catchUp(), 'q_append')).toMatchObject({ state: 'failed', inserts: 0 })
      await restartWith(pipeline, { columns: {} })
      await pipeline.sql('INSERT INTO q_append VALUES (6, 12345.678)')
      const mended = await pipeline.catchUp()
      expect(mended.copied).toEqual({})
      expect(tableOf(mended, 'q_append')).toMatchObject({ state: 'streaming', inserts: 4, updates: 3, deletes: 1, truncates: 1 })
      await reference.catchUp()
      const history = async (of: TestPipeline, table: string): Promise<unknown[][]> =>
        of.query(`SELECT COLUMNS(c -> c NOT LIKE '\\_%' ESCAPE '\\')::VARCHAR, _op, _lsn, _seq, _committed_at FROM public.${table} WHERE _op <> 'snapshot' ORDER BY _lsn, _seq`)
      expect(await history(pipeline, 'q_append')).toEqual(await history(reference, 'q_append'))
      expect(await history(pipeline, 'q_append_other')).toEqual(await history(reference, 'q_append_other'))
      expect(await pipeline.query("SELECT count(*)::INTEGER FROM public.q_append WHERE _op = 'snapshot'")).toEqual([[2]])
    } finally {
      await reference.engine.drop({ source: 'shop', destination: 'warehouse', slotName: 'q_append_ref', publicationName: 'q_append_ref_pub', dropDestination: true }, reference.context())
      await drop(pipeline)
    }
  })

  it('goes on under another hint with its versions as if it had never stopped', async () => {
    const pipeline = await pinnedPipeline('q_scd2', { writeMode: 'scd2' })
    await using reference = new TestPipeline(database.url, specOf({ slotName: 'q_scd2_ref', tableNames: ['q_scd2', 'q_scd2_other'], writeMode: 'scd2' }))
    try {
      await reference.initialize()
      await reference.catchUp()
      const rounds = [
        "BEGIN; UPDATE q_scd2 SET v = 98765.4321 WHERE id = 1; INSERT INTO q_scd2 VALUES (3, 3, 'three'), (4, 98765.4321, repeat('four', 3000)); INSERT INTO q_scd2_other VALUES (1); COMMIT",
        'BEGIN; UPDATE q_scd2 SET id = 40 WHERE id = 4; UPDATE q_scd2 SET v = 8 WHERE id = 1; DELETE FROM q_scd2 WHERE id IN (2, 3); DELETE FROM q_scd2_other; COMMIT; INSERT INTO q_scd2 VALUES (2, 22.5)',
        "UPDATE q_scd2 SET v = 40 WHERE id = 40; BEGIN; TRUNCATE q_scd2; INSERT INTO q_scd2 VALUES (1, 1.5, 'again'), (5, 5, NULL); COMMIT; UPDATE q_scd2 SET v = v * 1000 WHERE id = 5",
      ]
      for (const round of rounds) {
        await pipeline.sql(round)
        expect(tableOf(await pipeline.catchUp(), 'q_scd2')).toMatchObject({ state: 'failed' })
      }
      await restartWith(pipeline, { columns: {} })
      await pipeline.sql('UPDATE q_scd2 SET v = 12345.678 WHERE id = 1')
      const mended = await pipeline.catchUp()
      expect(mended.copied).toEqual({})
      expect(tableOf(mended, 'q_scd2')).toMatchObject({ state: 'streaming', truncates: 1 })
      await reference.catchUp()
      const versions = async (of: TestPipeline): Promise<unknown[][]> =>
        of.query(`SELECT id, v::VARCHAR, md5(big), length(big)::INTEGER, _is_current, _valid_to, CASE WHEN _lsn > (SELECT min(_lsn) FROM public.q_scd2) THEN (_lsn, _valid_from)::VARCHAR END FROM public.q_scd2 ORDER BY _valid_from, id, _lsn`)
      const found = await versions(pipeline)
      expect(found.length).toBeGreaterThan(10)
      expect(found).toEqual(await versions(reference))
    } finally {
      await reference.engine.drop({ source: 'shop', destination: 'warehouse', slotName: 'q_scd2_ref', publicationName: 'q_scd2_ref_pub', dropDestination: true }, reference.context())
      await drop(pipeline)
    }
  })

  it.each([
    ['deleted', 'DELETE FROM %t WHERE id = 4'],
    ['truncated', "TRUNCATE %t; INSERT INTO %t VALUES (7, 7, 'seven')"],
    ['mended behind another column', 'ALTER TABLE %t ADD COLUMN later text; UPDATE %t SET v = 4 WHERE id = 4'],
    ['mended under another key', 'UPDATE %t SET id = 44 WHERE id = 4; UPDATE %t SET v = 44 WHERE id = 44'],
    ['given no value', 'UPDATE %t SET v = NULL WHERE id = 4'],
  ])('goes on once the row is %s', async (how, mend) => {
    const name = `q_${how.replaceAll(' ', '_')}`
    const pipeline = await pinnedPipeline(name)
    try {
      await pipeline.sql(`INSERT INTO ${name} VALUES (4, 98765.4321, repeat('four', 3000)); UPDATE ${name} SET big = 'x' WHERE id = 1`)
      expect(tableOf(await pipeline.catchUp(), name).state).toBe('failed')
      await pipeline.sql(mend.replaceAll('%t', name))
      await retry(pipeline)
      const mended = await pipeline.catchUp()
      expect(tableOf(mended, name).state).toBe('streaming')
      expect(mended.copied).toEqual({})
      await expectEqual(pipeline, name)
    } finally {
      await drop(pipeline)
    }
  })

  it('tells values apart that only DuckDB can judge, and never leaves NULL in their place', async () => {
    const pipeline = await pinnedPipeline('q_json')
    try {
      await pipeline.sql("CREATE TABLE q_doc (id int, kind text, doc text, n int, PRIMARY KEY (kind, id)); ALTER TABLE q_doc ALTER doc SET STORAGE EXTERNAL; INSERT INTO q_doc VALUES (1, 'a', '{}', 0)")
      await restartWith(pipeline, { tableNames: ['q_doc', 'q_json', 'q_json_other'], columns: { ...pipeline.spec.columns, q_doc: { doc: { dataType: 'json' } } } })
      await pipeline.catchUp()
      await pipeline.sql(`INSERT INTO q_doc VALUES (2, 'b', '{' || repeat('broken', 2000), 0); INSERT INTO q_doc VALUES (3, 'c', 'null', 0)`)
      const { state, error } = tableOf(await pipeline.catchUp(), 'q_doc')
      expect(state).toBe('failed')
      expect(error?.message).toContain('public.q_doc (key "kind", "id"): a value of column "doc"')
      // The update leaves the value as it was: the stream does not carry it, and nobody has it.
      await pipeline.sql('UPDATE q_doc SET n = 1 WHERE id = 2')
      await retry(pipeline)
      expect(tableOf(await pipeline.catchUp(), 'q_doc').state).toBe('failed')
      await restartWith(pipeline, { columns: { ...pipeline.spec.columns, q_doc: { doc: { dataType: 'text' } } } })
      const mended = await pipeline.catchUp()
      expect(tableOf(mended, 'q_doc').state).toBe('streaming')
      expect(mended.copied).toEqual({})
      await expectEqual(pipeline, 'q_doc')
    } finally {
      await drop(pipeline)
    }
  })

  it('is copied anew where more changes came than are kept, and says so before; nothing of them is left', async () => {
    const pipeline = await pinnedPipeline('q_bound', {}, { tableSpoolBytes: 100_000 })
    try {
      await pipeline.sql('INSERT INTO q_bound VALUES (4, 98765.4321)')
      expect(tableOf(await pipeline.catchUp(), 'q_bound').error?.remedy).toContain('goes on exactly')
      await pipeline.sql(`INSERT INTO q_bound SELECT g, 1, repeat('x', 3000) FROM generate_series(10, 100) g; INSERT INTO q_bound_other VALUES (1)`)
      const over = await pipeline.catchUp()
      expect(tableOf(over, 'q_bound')).toMatchObject({ state: 'failed', inserts: 0, error: { type: 'UnrepresentableValue', remedy: expect.stringContaining('copies the table anew') as string } })
      expect(spoolFiles(pipeline)).toEqual([])
      await pipeline.sql('UPDATE q_bound SET v = 4 WHERE id = 4; INSERT INTO q_bound_other VALUES (2)')
      await pipeline.catchUp()
      await retry(pipeline)
      expect(tableOf(await pipeline.catchUp(), 'q_bound')).toMatchObject({ state: 'streaming', snapshotRows: 94 })
      await expectEqual(pipeline, 'q_bound', 'q_bound_other')
    } finally {
      await drop(pipeline)
    }
  })

  it('joins the stream while writers go on, whatever its backlog is', async () => {
    const pipeline = await pinnedPipeline('q_live', { targetBatchSize: 500 })
    try {
      await pipeline.sql('INSERT INTO q_live VALUES (4, 98765.4321)')
      await pipeline.catchUp()
      await pipeline.sql('UPDATE q_live SET v = 4 WHERE id = 4; INSERT INTO q_live SELECT g, g % 1000, md5(g::text) FROM generate_series(10, 5000) g; DELETE FROM q_live WHERE id % 7 = 0')
      await pipeline.catchUp()
      let isWriting = true
      const write = async (first: number): Promise<void> => {
        for (let id = first; isWriting; id += 2) {
          await pipeline.sql('INSERT INTO q_live VALUES ($1, 1)', [id])
          await pipeline.sql('UPDATE q_live SET v = v + 1, id = id + 1000000 WHERE id = $1', [id])
          await pipeline.sql('BEGIN; DELETE FROM q_live WHERE id = $1; INSERT INTO q_live_other VALUES ($1); COMMIT'.replaceAll('$1', String(id + 1_000_000)))
        }
      }
      const writers = [write(100_001), write(100_002)]
      await retry(pipeline)
      const joined = await pipeline.catchUp()
      isWriting = false
      await Promise.all(writers)
      expect(tableOf(joined, 'q_live').state).toBe('streaming')
      expect(joined.copied).toEqual({})
      await pipeline.catchUp()
      await expectEqual(pipeline, 'q_live', 'q_live_other')
    } finally {
      await drop(pipeline)
    }
  })

  it('is copied anew where its kept changes are gone, and says so before', async () => {
    const pipeline = await pinnedPipeline('q_lost')
    try {
      await pipeline.sql('INSERT INTO q_lost VALUES (4, 98765.4321)')
      await pipeline.catchUp()
      await pipeline.sql('UPDATE q_lost SET v = 4 WHERE id = 4')
      await pipeline.catchUp()
      await pipeline.release()
      rmSync(`${pipeline.file}.spool`, { recursive: true })
      const { error } = tableOf(await pipeline.catchUp(), 'q_lost')
      expect(error).toMatchObject({ type: 'DestinationLost', remedy: expect.stringContaining('copies the table anew') as string })
      await retry(pipeline)
      expect(tableOf(await pipeline.catchUp(), 'q_lost')).toMatchObject({ state: 'streaming', snapshotRows: 3 })
      await expectEqual(pipeline, 'q_lost')
    } finally {
      await drop(pipeline)
    }
  })
})

describe('a refused schema change', () => {
  it('stops the table at its place; started again with apply, it goes on there', async () => {
    const pipeline = await pinnedPipeline('q_ddl', { schemaChanges: 'refuse', columns: {} })
    try {
      await pipeline.sql("INSERT INTO q_ddl VALUES (3, 3); ALTER TABLE q_ddl ADD COLUMN extra int; INSERT INTO q_ddl VALUES (4, 4, 'four', 4); INSERT INTO q_ddl_other VALUES (1)")
      const stopped = await pipeline.catchUp()
      expect(tableOf(stopped, 'q_ddl')).toMatchObject({ state: 'failed', error: { type: 'SchemaChangeRefused' } })
      expect(tableOf(stopped, 'q_ddl_other').inserts).toBe(1)
      await pipeline.sql('UPDATE q_ddl SET extra = 1 WHERE id = 1; DELETE FROM q_ddl WHERE id = 2')
      await pipeline.catchUp()
      await retry(pipeline)
      expect(tableOf(await pipeline.catchUp(), 'q_ddl').state).toBe('failed')
      await restartWith(pipeline, { schemaChanges: 'apply' })
      const mended = await pipeline.catchUp()
      expect(tableOf(mended, 'q_ddl')).toMatchObject({ state: 'streaming', inserts: 2, updates: 1, deletes: 1, snapshotRows: 2 })
      expect(mended.copied).toEqual({})
      await expectEqual(pipeline, 'q_ddl', 'q_ddl_other')
    } finally {
      await drop(pipeline)
    }
  })

  it('is copied anew where nothing in the stream tells what old rows hold, and what was kept is forgotten', async () => {
    const pipeline = await pinnedPipeline('q_rewrite', { schemaChanges: 'refuse', columns: {} })
    try {
      await pipeline.sql('ALTER TABLE q_rewrite ALTER v TYPE text USING v::text; UPDATE q_rewrite SET v = $$new$$ WHERE id = 1')
      expect(tableOf(await pipeline.catchUp(), 'q_rewrite').state).toBe('failed')
      await restartWith(pipeline, { schemaChanges: 'apply' })
      await pipeline.sql('INSERT INTO q_rewrite VALUES (3, $$more$$)')
      expect(tableOf(await pipeline.catchUp(), 'q_rewrite')).toMatchObject({ state: 'streaming' })
      await expectEqual(pipeline, 'q_rewrite')
      expect(spoolFiles(pipeline)).toEqual([])
    } finally {
      await drop(pipeline)
    }
  })
})
