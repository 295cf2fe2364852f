import fc from 'fast-check'
import type pg from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { toPostgresText } from '../../../src/destinations/duckdb/type-mapping.ts'
import { readFile } from '../../support/comparison.ts'
import { specOf, TestPipeline } from '../../support/pipeline.ts'
import { createDatabase, type TestDatabase } from '../../support/servers.ts'
import { GENERATED_DDL, GENERATED_TYPES, type GeneratedType } from '../../support/type-arbitraries.ts'
import { testServers } from '../../support/test-servers.ts'

/** `ROUND_TRIP_VALUES`: of each type by each way (long mode: 5000), `ROUND_TRIP_SEED` where it begins. */
const VALUES = Number(process.env['ROUND_TRIP_VALUES'] ?? '60')
const SEED = Number(process.env['ROUND_TRIP_SEED'] ?? '22')
/** Rows of the snapshot have ids below it. */
const FIRST_STREAMED = 1_000_000

const CASES = GENERATED_TYPES.map((given, index) => ({ ...given, table: `generated_${String(index)}` }))

describe.each(testServers())('random values of $name', ({ url }) => {
  let database: TestDatabase
  const held = new Map<string, ReadonlyMap<string, string>>()
  const wanted = new Map<string, ReadonlyMap<string, string>>()

  beforeAll(async () => {
    database = await createDatabase(url)
    await using pipeline = new TestPipeline(database.url, specOf({ slotName: 'round_trip', tableNames: null }))
    await pipeline.sql(GENERATED_DDL)
    for (const { table, type } of CASES) await pipeline.sql(`CREATE TABLE ${table} (id int PRIMARY KEY, v ${type})`)
    for (const given of CASES) await insert(pipeline, given, 1)
    await pipeline.initialize()
    await pipeline.copy()
    for (const given of CASES) await insert(pipeline, given, FIRST_STREAMED)
    await pipeline.catchUp()
    await pipeline.release()
    await readFile(pipeline.file, async (query) => {
      const types = new Map((await query(`SELECT table_name, data_type FROM duckdb_columns() WHERE schema_name = 'public' AND column_name = 'v'`)) as [string, string][])
      for (const { table } of CASES) {
        const text = toPostgresText(shortType(types.get(table) ?? ''), 'v')
        held.set(table, new Map((await query(`SELECT id::VARCHAR, hex(encode(${text})) FROM public.${table}`)) as [string, string][]))
      }
    })
    const client = await pipeline.source.connect()
    await client.query("SET TimeZone = 'UTC'; SET DateStyle = 'ISO, MDY'; SET IntervalStyle = 'postgres'; SET bytea_output = 'hex'; SET extra_float_digits = 1")
    for (const { table } of CASES) wanted.set(table, await sourceTexts(client, table))
    client.release()
  }, 600_000 + VALUES * 400)

  afterAll(async () => {
    await database.drop()
  })

  it.each(CASES)('$type', ({ table, normal }) => {
    const source = wanted.get(table) ?? new Map<string, string>()
    const destination = held.get(table) ?? new Map<string, string>()
    expect(source.size).toBe(2 * VALUES)
    expect(destination.size).toBe(source.size)
    const shown = (hex: string | undefined): string => {
      const text = Buffer.from(hex ?? '', 'hex').toString()
      return normal?.(text) ?? text
    }
    const different = [...source].filter(([id, hex]) => hex !== destination.get(id) && shown(hex) !== shown(destination.get(id)))
    expect(different.slice(0, 5).map(([id, hex]) => ({ id, source: shown(hex).slice(0, 200), destination: shown(destination.get(id)).slice(0, 200) }))).toEqual([])
  })
})

/** Different values for copy and stream. */
async function insert(pipeline: TestPipeline, { table, type, values }: GeneratedType & { readonly table: string }, firstId: number): Promise<void> {
  const sample = fc.sample(values, { numRuns: VALUES, seed: SEED + firstId })
  await pipeline.sql(`INSERT INTO ${table} SELECT $2::int + n::int - 1, v::${type} FROM unnest($1::text[]) WITH ORDINALITY AS given(v, n)`, [sample, firstId])
}

async function sourceTexts(client: pg.PoolClient, table: string): Promise<ReadonlyMap<string, string>> {
  const { rows } = await client.query<[string, string]>({
    text: `SELECT id::text, encode(convert_to(pg_catalog.format('%s', v), 'UTF8'), 'hex') FROM ${table}`,
    rowMode: 'array',
    types: { getTypeParser: () => (text: string) => text },
  })
  return new Map(rows.map(([id, hex]) => [id, hex.toUpperCase()]))
}

/** information_schema's spelling → ours. */
function shortType(type: string): string {
  return type.replace('TIMESTAMP WITH TIME ZONE', 'TIMESTAMPTZ').replace('TIME WITH TIME ZONE', 'TIMETZ')
}
