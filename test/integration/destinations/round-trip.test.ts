import fc from 'fast-check'
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { quoteText } from '../../../src/destinations/duckdb/sql.ts'
import { toPostgresText } from '../../../src/destinations/duckdb/type-mapping.ts'
import { type Query, readFile } from '../../support/comparison.ts'
import { specOf, TestPipeline } from '../../support/pipeline.ts'
import { ChangingPipeline } from '../../support/schema-changes.ts'
import { createDatabase, type TestDatabase } from '../../support/servers.ts'
import { GENERATED_DDL, GENERATED_TYPES, type GeneratedType } from '../../support/type-arbitraries.ts'
import { testServers } from '../../support/test-servers.ts'

/** `ROUND_TRIP_VALUES`: of each type by each way (long mode: 5000), `ROUND_TRIP_SEED` where it begins. */
const VALUES = Number(process.env['ROUND_TRIP_VALUES'] ?? '60')
const SEED = Number(process.env['ROUND_TRIP_SEED'] ?? '22')
/** Rows of the snapshot have ids below it. */
const FIRST_STREAMED = 1_000_000

type Case = GeneratedType & { readonly table: string }

const CASES = GENERATED_TYPES.map((given, index): Case => ({ ...given, table: `generated_${String(index)}` }))

/** How long a failing value is made smaller. */
const SHRINK_MS = 60_000

describe.each(testServers())('random values of $name', ({ url }) => {
  let database: TestDatabase
  const types = new Map<string, string>()
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
      for (const { table } of CASES) {
        types.set(table, await heldType(query, table))
        held.set(table, await heldTexts(query, table, types.get(table) ?? ''))
      }
    })
    for (const { table } of CASES) wanted.set(table, await sourceTexts(pipeline, table))
  }, 600_000 + VALUES * 400)

  afterAll(async () => {
    await database.drop()
  })

  it.each(CASES)('$type, held as $held', async (given) => {
    const { table } = given
    const source = wanted.get(table) ?? new Map<string, string>()
    const destination = held.get(table) ?? new Map<string, string>()
    expect(source.size).toBe(2 * VALUES + (given.widening === undefined ? 0 : 1))
    expect(destination.size).toBe(source.size)
    const different = differing(given, source, destination)
    const smallest = different.length === 0 ? '' : await smallestOf(database.url, given, new Set(different.map(({ id }) => id)))
    expect(different.slice(0, 5), `${smallest}, seed ${String(SEED)}`).toEqual([])
    expect(types.get(table), `the type of ${given.type}, seed ${String(SEED)}`).toBe(given.held)
  })
})

function sampleOf({ values }: GeneratedType, firstId: number): readonly string[] {
  return fc.sample(values, { numRuns: VALUES, seed: SEED + firstId })
}

/** Different values for copy and stream. */
async function insert(pipeline: TestPipeline, given: Case, firstId: number): Promise<void> {
  const { table, type, widening } = given
  const rows = firstId === FIRST_STREAMED && widening !== undefined ? [...sampleOf(given, firstId), widening] : sampleOf(given, firstId)
  await pipeline.sql(`INSERT INTO ${table} SELECT $2::int + n::int - 1, v::${type} FROM unnest($1::text[]) WITH ORDINALITY AS given(v, n)`, [rows, firstId])
}

interface Difference {
  readonly id: string
  readonly source: string
  readonly destination: string
}

function differing({ normal }: GeneratedType, source: ReadonlyMap<string, string>, destination: ReadonlyMap<string, string>): readonly Difference[] {
  const shown = (hex: string | undefined): string => {
    const text = Buffer.from(hex ?? '', 'hex').toString()
    return normal?.(text) ?? text
  }
  return [...source]
    .filter(([id, hex]) => hex !== destination.get(id) && shown(hex) !== shown(destination.get(id)))
    .map(([id, hex]) => ({ id, source: shown(hex).slice(0, 200), destination: shown(destination.get(id)).slice(0, 200) }))
}

/** The smallest value that differs by itself, copied or streamed; what differed among the others is where the search begins. */
async function smallestOf(url: string, given: Case, ids: ReadonlySet<string>): Promise<string> {
  const firstId = [...ids].some((id) => Number(id) < FIRST_STREAMED) ? 1 : FIRST_STREAMED
  const known = new Map(sampleOf(given, firstId).map((text, index) => [text, ids.has(String(firstId + index))]))
  const tried = await fc.check(
    fc.asyncProperty(given.values, async (text) => !(known.get(text) ?? (await differsAlone(url, given, text)))),
    { seed: SEED + firstId, numRuns: VALUES, interruptAfterTimeLimit: SHRINK_MS },
  )
  const smallest = tried.counterexample?.[0]
  return smallest === undefined ? 'no value of these differs' : `the smallest that differs: ${JSON.stringify(smallest)}${(await differsAlone(url, given, smallest)) ? '' : ' (not by itself)'}`
}

async function differsAlone(url: string, { table, type, ...given }: Case, text: string): Promise<boolean> {
  const alone = `${table}_alone`
  const insertion = (id: number): string => `INSERT INTO ${alone} VALUES (${String(id)}, ${quoteText(text)}::${type})`
  try {
    await using pipeline = await ChangingPipeline.over(url, alone, `CREATE TABLE ${alone} (id int PRIMARY KEY, v ${type}); ${insertion(1)}`)
    await pipeline.sql(insertion(2))
    await pipeline.catchUp()
    await pipeline.release()
    const held = await readFile(pipeline.file, async (query) => heldTexts(query, alone, await heldType(query, alone)))
    return differing({ type, ...given }, await sourceTexts(pipeline, alone), held).length > 0
  } finally {
    const client = new pg.Client({ connectionString: url })
    await client.connect()
    await client.query(`DROP TABLE IF EXISTS ${alone}`)
    await client.end()
  }
}

async function heldType(query: Query, table: string): Promise<string> {
  const [row] = await query(`SELECT data_type FROM duckdb_columns() WHERE schema_name = 'public' AND table_name = '${table}' AND column_name = 'v'`)
  return String(row?.[0])
}

async function heldTexts(query: Query, table: string, type: string): Promise<ReadonlyMap<string, string>> {
  return new Map((await query(`SELECT id::VARCHAR, hex(encode(${toPostgresText(shortType(type), 'v')})) FROM public.${table}`)) as [string, string][])
}

async function sourceTexts(pipeline: TestPipeline, table: string): Promise<ReadonlyMap<string, string>> {
  const client = await pipeline.source.connect()
  try {
    await client.query("SET TimeZone = 'UTC'; SET DateStyle = 'ISO, MDY'; SET IntervalStyle = 'postgres'; SET bytea_output = 'hex'; SET extra_float_digits = 1")
    const { rows } = await client.query<[string, string]>({
      text: `SELECT id::text, encode(convert_to(pg_catalog.format('%s', v), 'UTF8'), 'hex') FROM ${table}`,
      rowMode: 'array',
      types: { getTypeParser: () => (text: string) => text },
    })
    return new Map(rows.map(([id, hex]) => [id, hex.toUpperCase()]))
  } finally {
    client.release()
  }
}

/** information_schema's spelling → ours. */
function shortType(type: string): string {
  return type.replace('TIMESTAMP WITH TIME ZONE', 'TIMESTAMPTZ').replace('TIME WITH TIME ZONE', 'TIMETZ')
}
