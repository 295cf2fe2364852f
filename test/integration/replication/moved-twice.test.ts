import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest'
import { specOf, TestPipeline } from '../../support/pipeline.ts'
import { createDatabase, type TestDatabase } from '../../support/servers.ts'

const MODES = [
  ['merge', {}, 'true'],
  ['soft', { deleteMode: 'soft' }, '_deleted_at IS NULL'],
  ['scd2', { writeMode: 'scd2' }, '_is_current'],
  ['append', { writeMode: 'append' }, "_op <> 'delete' QUALIFY row_number() OVER (PARTITION BY id ORDER BY _lsn DESC, _seq DESC) = 1"],
] as const

/** What of an `append` history stands for a row that is there: its key's newest change, where that is no delete. */
const present = (table: string, where: string): string =>
  where.includes('QUALIFY') ? `(SELECT * FROM (SELECT * FROM public.${table} QUALIFY row_number() OVER (PARTITION BY id ORDER BY _lsn DESC, _seq DESC) = 1) WHERE _op <> 'delete')` : `(SELECT * FROM public.${table} WHERE ${where})`

describe('values that the stream leaves out and nobody has, of rows that move on', () => {
  let database: TestDatabase

  beforeAll(async () => {
    database = await createDatabase(inject('postgresUrl'))
  })

  afterAll(async () => {
    await database.drop()
  })

  async function over(table: string, given: Partial<Parameters<typeof specOf>[0]>): Promise<TestPipeline> {
    const pipeline = new TestPipeline(database.url, specOf({ slotName: table, tableNames: [table], snapshotMode: 'never', ...given }))
    await pipeline.sql(`CREATE TABLE ${table} (id int PRIMARY KEY, n int, big text); ALTER TABLE ${table} ALTER big SET STORAGE EXTERNAL; INSERT INTO ${table} SELECT g, 0, repeat(chr(96 + g), 9000) FROM generate_series(1, 6) g`)
    await pipeline.initialize()
    return pipeline
  }

  async function expectPresent(pipeline: TestPipeline, where: string): Promise<unknown[][]> {
    const table = pipeline.spec.slotName
    const { rows } = await pipeline.source.query<unknown[]>({ text: `SELECT id, n, left(big, 1), length(big)::text FROM ${table} WHERE n > 0 ORDER BY id`, rowMode: 'array' })
    expect(await pipeline.query(`SELECT id, n, left(big, 1), length(big) FROM ${present(table, where)} ORDER BY id`)).toEqual(rows)
    return rows
  }

  // Cause: what the source said of a key was of the row that had come there since, and was taken along by the one that left it.
  it.each(MODES)('takes along nothing that was read of a row which has come to the key since, in one run (%s)', async (mode, given, where) => {
    await using pipeline = await over(`twice_${mode}`, given)
    const table = pipeline.spec.slotName
    for (const change of ['n = 1 WHERE id = 1', 'id = 30, n = 2 WHERE id = 1', 'id = 1, n = 3 WHERE id = 2', 'id = 40, n = 4 WHERE id = 30', 'id = 30, n = 5 WHERE id = 1', 'id = 1, n = 6 WHERE id = 3']) {
      await pipeline.sql(`UPDATE ${table} SET ${change}`)
    }
    await pipeline.sql(`BEGIN; UPDATE ${table} SET n = 7 WHERE id = 5; UPDATE ${table} SET id = 50 WHERE id = 5; UPDATE ${table} SET id = 5, n = 8 WHERE id = 6; UPDATE ${table} SET id = 60 WHERE id = 5; UPDATE ${table} SET id = 5 WHERE id = 50; COMMIT`)
    await pipeline.catchUp()
    expect(await expectPresent(pipeline, where)).toHaveLength(5)
  })

  it.each(MODES)('and across runs, killed in between, while the source is ahead (%s)', async (mode, given, where) => {
    await using pipeline = await over(`ahead_${mode}`, given)
    const table = pipeline.spec.slotName
    const positions: string[] = []
    for (const change of ['n = 1 WHERE id = 1', 'id = 30, n = 2 WHERE id = 1', 'id = 1, n = 3 WHERE id = 2', 'id = 40, n = 4 WHERE id = 30']) {
      await pipeline.sql(`UPDATE ${table} SET ${change}`)
      const { rows } = await pipeline.sql('SELECT pg_current_wal_insert_lsn()::text AS lsn')
      positions.push((rows as { lsn: string }[])[0]?.lsn ?? '')
    }
    for (const untilLsn of positions) {
      await pipeline.engine.runSlice({ spec: { ...pipeline.spec, targetBatchSize: 1 }, mode: 'stream', tableNames: null, untilLsn, maxBusyMs: 60_000, maxIdleMs: 60_000 }, pipeline.context())
      await pipeline.release()
    }
    await pipeline.catchUp()
    expect(await expectPresent(pipeline, where)).toHaveLength(2)
  })
})
