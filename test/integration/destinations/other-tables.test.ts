import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest'
import { specOf, TestPipeline } from '../../support/pipeline.ts'
import { createDatabase, type TestDatabase } from '../../support/servers.ts'

const ROWS = 5_000

/** Types that DuckDB holds in part, with a value that it holds and one that it does not. */
const PARTLY_HELD = [
  ['timestamp', "'2024-02-29 12:00:00'", "'294276-12-31 23:59:59'"],
  ['timestamptz', "'2024-02-29 12:00:00+02'", "'294276-12-31 23:59:59+00'"],
  ['numeric', '12.5', '0.12345678901234567890'],
  ['numeric[]', "'{12.5,-1}'", "'{0.12345678901234567890}'"],
  ['timestamp[]', "'{2024-02-29 12:00:00}'", "'{294276-12-31 23:59:59,infinity}'"],
] as const

describe('a value that its column cannot hold', () => {
  let database: TestDatabase

  beforeAll(async () => {
    database = await createDatabase(inject('postgresUrl'))
  })

  afterAll(async () => {
    await database.drop()
  })

  it('widens its column, and leaves the memory of all other tables alone', async () => {
    await using pipeline = new TestPipeline(database.url, specOf({ slotName: 'others', tableNames: null }))
    const others = Array.from({ length: 40 }, (_, index) => `z_${String(index).padStart(2, '0')}`)
    const held = PARTLY_HELD.map((_, index) => `a_${String(index)}`)
    const fill = async (first: number): Promise<void> => {
      for (const [index, [type, fits, fitsNot]] of PARTLY_HELD.entries()) {
        await pipeline.sql(`INSERT INTO a_${String(index)} SELECT n, (CASE WHEN n % 100 = 7 THEN NULL WHEN n % 1000 = 500 THEN ${fitsNot} ELSE ${fits} END)::${type} FROM generate_series($1::int, $2) n`, [first, first + ROWS - 1])
      }
      for (const table of others) await pipeline.sql(`INSERT INTO ${table} SELECT n, n * 3 FROM generate_series($1::int, $2) n`, [first, first + ROWS - 1])
    }
    for (const [index, [type]] of PARTLY_HELD.entries()) await pipeline.sql(`CREATE TABLE a_${String(index)} (id int PRIMARY KEY, v ${type})`)
    for (const table of others) await pipeline.sql(`CREATE TABLE ${table} (id int PRIMARY KEY, v bigint)`)
    await fill(1)
    await pipeline.initialize()
    await pipeline.copy()
    await fill(1_000_000)
    await pipeline.catchUp()
    for (const table of [...held, ...others]) {
      const rows = await pipeline.query(`SELECT count(*)::INTEGER, count(id)::INTEGER, count(_lsn)::INTEGER, count(v)::INTEGER FROM public.${table}`)
      const values = held.includes(table) ? 2 * ROWS * 0.99 : 2 * ROWS
      expect([table, ...(rows[0] ?? [])]).toEqual([table, 2 * ROWS, 2 * ROWS, 2 * ROWS, values])
    }
    expect(await pipeline.destinationRows('a_0')).toEqual(await pipeline.sourceRows('a_0'))
    expect(await pipeline.query("SELECT table_name, data_type FROM duckdb_columns() WHERE column_name = 'v' AND table_name LIKE 'a_%' ORDER BY 1")).toEqual(held.map((table) => [table, 'VARCHAR']))
  })
})
