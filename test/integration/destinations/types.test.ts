import pg from 'pg'
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest'
import { TYPE_ROWS } from '../../../src/destinations/duckdb/type-mapping.ts'
import { type Query, readFile } from '../../support/comparison.ts'
import { specOf, TestPipeline } from '../../support/pipeline.ts'
import { createDatabase, type TestDatabase } from '../../support/servers.ts'
import { TYPE_CASE_DDL, TYPE_CASES, type TypeCase, withoutTrailingZeros } from '../../support/type-cases.ts'

/** Arrays of every type that has a list type, with the array's own odd values. */
const LIST_CASES = TYPE_CASES.filter(({ hasList }) => hasList !== false).map((element): TypeCase => {
  const all = element.values.join(', ')
  const type = `${element.type}[]`
  const [first = 'NULL'] = element.values
  return {
    name: `array of ${element.name}`,
    type,
    destination: `${element.destination}[]`,
    values: ["'{}'", `ARRAY[NULL]::${type}`, `ARRAY[${all}]::${type}`, `ARRAY[NULL, ${first}, NULL]::${type}`],
    widening: [
      ...(element.widening === undefined ? [] : [`ARRAY[${element.widening.join(', ')}]::${type}`]),
      `ARRAY[ARRAY[${first}], ARRAY[${first}]]::${type}`,
      `array_fill((${first})::${element.type}, ARRAY[2], ARRAY[5])`,
    ],
    shown: (value) => `to_json(list_transform(${value}, lambda x: ${element.shown?.('x') ?? 'x::VARCHAR'}))::VARCHAR`,
    normal: (text) => JSON.stringify(itemsOf(text).map((item) => (item === null ? null : (element.normal?.(item) ?? item)))),
    ...(element.since === undefined ? {} : { since: element.since }),
  }
})

/** The items of PostgreSQL's text of a one-dimensional array, or of a JSON list. */
function itemsOf(text: string): readonly (string | null)[] {
  if (text.startsWith('[') && text.endsWith(']')) return JSON.parse(text) as (string | null)[]
  const items = text.slice(1, -1).match(/"(?:[^"\\]|\\.)*"|[^,]+/gs) ?? []
  return items.map((item) => (item === 'NULL' ? null : item.startsWith('"') ? item.slice(1, -1).replaceAll(/\\(.)/gs, '$1') : item))
}

interface PlacedCase extends TypeCase {
  readonly table: string
}

const CASES: readonly PlacedCase[] = [...TYPE_CASES, ...LIST_CASES].map((given, index) => ({ ...given, table: `case_${String(index)}` }))

interface Column {
  readonly type: string
  /** By id. */
  readonly texts: ReadonlyMap<number, string | null>
}

/** Copied rows are taken as the server writes them, but where one of the columns is of a type like this: then cell by cell. */
const BY_CELLS = ', by_cells interval'

/** Rows of the snapshot have ids from 1, rows of the stream from here … */
const FIRST_STREAMED = 1_000
/** … and rows that widen their column from here. */
const FIRST_WIDENING = 2_000

let database: TestDatabase
let pipeline: TestPipeline
let cases: readonly PlacedCase[] = []
const source = new Map<string, ReadonlyMap<number, string | null>>()
const fitting = new Map<string, Column>()
const widened = new Map<string, Column>()
const widenedBySnapshot = new Map<string, Column>()
const fittingByCells = new Map<string, Column>()
const widenedByCells = new Map<string, Column>()

beforeAll(async () => {
  database = await createDatabase(inject('postgresUrl'))
  pipeline = new TestPipeline(database.url, specOf({ slotName: 'types', tableNames: null }))
  const version = await pipeline.source.query<{ v: string }>("SELECT current_setting('server_version_num') AS v").then(({ rows }) => Number(rows[0]?.v))
  cases = CASES.filter(({ since }) => since === undefined || version >= since * 10_000)
  await pipeline.sql(TYPE_CASE_DDL)
  for (const { table, type, values, widening } of cases) {
    const create = async (suffix: string, firstId: number, rows: readonly string[], more = ''): Promise<void> => {
      await pipeline.sql(`CREATE TABLE ${table}${suffix} (id int PRIMARY KEY, v ${type}${more}); ${insertion(`${table}${suffix}`, firstId, rows)}`)
    }
    await create('', 1, ['NULL', ...values])
    await create('_c', 1, ['NULL', ...values], BY_CELLS)
    if (widening === undefined) continue
    await create('_w', FIRST_WIDENING, [...widening, ...values, 'NULL'])
    await create('_cw', FIRST_WIDENING, [...widening, ...values, 'NULL'], BY_CELLS)
  }
  await pipeline.initialize()
  await pipeline.copy()
  for (const { table, values } of cases) await pipeline.sql(insertion(table, FIRST_STREAMED, ['NULL', ...values]))
  // A label that comes while the table is replicated.
  await pipeline.sql("ALTER TYPE mood ADD VALUE 'later' BEFORE 'ok'")
  const enumTable = cases.find(({ name }) => name === 'enum')?.table ?? ''
  await pipeline.sql(`INSERT INTO ${enumTable} VALUES (${String(FIRST_WIDENING - 1)}, 'later')`)
  await pipeline.catchUp()
  await readAll('', fitting)
  await readAll('_c', fittingByCells)
  await readAll('_w', widenedBySnapshot)
  await readAll('_cw', widenedByCells)
  // Beside rows that change: a widened column keeps what was in it.
  for (const { table, widening } of cases) if (widening !== undefined) await pipeline.sql(`UPDATE ${table} SET id = id WHERE id = 1; ${insertion(table, FIRST_WIDENING, widening)}`)
  await pipeline.catchUp()
  await readAll('', widened)
  await readSource()
})

afterAll(async () => {
  await pipeline[Symbol.asyncDispose]()
  await database.drop()
})

function insertion(table: string, firstId: number, values: readonly string[]): string {
  return `INSERT INTO ${table} VALUES ${values.map((value, index) => `(${String(firstId + index)}, ${value})`).join(', ')}`
}

/** The values' text as their types' output functions give it. */
async function readSource(): Promise<void> {
  const client = new pg.Client({ connectionString: database.url, types: { getTypeParser: () => (text: string) => text } })
  await client.connect()
  await client.query("SET TimeZone = 'UTC'; SET DateStyle = 'ISO, MDY'; SET IntervalStyle = 'postgres'; SET bytea_output = 'hex'; SET extra_float_digits = 1")
  for (const { table, widening } of cases) {
    for (const name of [table, `${table}_c`, ...(widening === undefined ? [] : [`${table}_w`, `${table}_cw`])]) {
      const { rows } = await client.query<[string, string | null]>({ text: `SELECT id, v FROM ${name}`, rowMode: 'array' })
      source.set(name, new Map(rows.map(([id, text]) => [Number(id), text])))
    }
  }
  await client.end()
}

async function readAll(suffix: string, into: Map<string, Column>): Promise<void> {
  await pipeline.release()
  await readFile(pipeline.file, async (query) => {
    for (const { table, shown, widening } of cases) {
      if (suffix.endsWith('w') && widening === undefined) continue
      into.set(`${table}${suffix}`, await readColumn(query, `${table}${suffix}`, shown))
    }
  })
}

async function readColumn(query: Query, table: string, shown: TypeCase['shown']): Promise<Column> {
  const [[found] = []] = await query(`SELECT data_type FROM duckdb_columns() WHERE schema_name = 'public' AND table_name = '${table}' AND column_name = 'v'`)
  const type = String(found)
  const expression = type === 'VARCHAR' || shown === undefined ? 'v::VARCHAR' : shown('v')
  // As bytes: the client would take a leading byte order mark for its own.
  const rows = await query(`SELECT id, CASE WHEN v IS NOT NULL THEN hex(encode(${expression})) END FROM public.${table}`)
  return { type, texts: new Map((rows as [number, string | null][]).map(([id, hex]) => [id, hex === null ? null : Buffer.from(hex, 'hex').toString()])) }
}

/** Rows that are not the source's, as `id: source ≠ destination`. */
function mismatches({ normal }: TypeCase, wanted: ReadonlyMap<number, string | null> | undefined, held: Column | undefined): readonly string[] {
  const ids = new Set([...(wanted?.keys() ?? []), ...(held?.texts.keys() ?? [])])
  const same = (text: string | null | undefined): string => (text == null ? String(text) : JSON.stringify(normal?.(text) ?? text)).slice(0, 120)
  return [...ids].flatMap((id) => {
    const [left, right] = [same(wanted?.get(id)), same(held?.texts.get(id))]
    return left === right ? [] : [`${String(id)}: ${left} ≠ ${right}`]
  })
}

it('has a case for each row of the type table', () => {
  const named = new Set(TYPE_CASES.map(({ name }) => name))
  expect(TYPE_ROWS.flatMap(({ names }) => names).filter((name) => !named.has(name))).toEqual([])
})

describe.each(CASES)('$name', (given) => {
  const { table, destination, widening } = given
  const isHere = (): boolean => cases.includes(given)

  it(`is held as ${destination}, by snapshot and by stream`, (context) => {
    if (!isHere()) context.skip(`PostgreSQL ${String(given.since)} has it first`)
    const rows = new Map([...(source.get(table) ?? [])].filter(([id]) => id < FIRST_WIDENING))
    expect(rows.size).toBeGreaterThan(2)
    expect(fitting.get(table)?.type).toBe(destination)
    expect(mismatches(given, rows, fitting.get(table))).toEqual([])
    expect(fittingByCells.get(`${table}_c`)?.type).toBe(destination)
    expect(mismatches(given, source.get(`${table}_c`), fittingByCells.get(`${table}_c`))).toEqual([])
  })

  if (widening === undefined) return
  it('becomes VARCHAR for what does not fit, by snapshot and by stream, and keeps what was there', (context) => {
    if (!isHere()) context.skip(`PostgreSQL ${String(given.since)} has it first`)
    // A widened column holds PostgreSQL's own text.
    const isNumeric = given.destination.startsWith('DECIMAL')
    const asText = { ...given, normal: (text: string) => (isNumeric ? text.replaceAll(/-?\d+\.\d+/g, withoutTrailingZeros) : text) }
    expect(widened.get(table)?.type).toBe('VARCHAR')
    expect(mismatches(asText, source.get(table), widened.get(table))).toEqual([])
    expect(widenedBySnapshot.get(`${table}_w`)?.type).toBe('VARCHAR')
    expect(mismatches(asText, source.get(`${table}_w`), widenedBySnapshot.get(`${table}_w`))).toEqual([])
    expect(widenedByCells.get(`${table}_cw`)?.type).toBe('VARCHAR')
    expect(mismatches(asText, source.get(`${table}_cw`), widenedByCells.get(`${table}_cw`))).toEqual([])
  })
})
