import { DuckDBInstance } from '@duckdb/node-api'
import type pg from 'pg'
import { toPostgresText } from '../../src/destinations/duckdb/type-mapping.ts'

/** Stands for NULL in a row's text. */
const NULL_TEXT = '∅'
const BETWEEN_CELLS = ' | '

export type Query = (sql: string) => Promise<unknown[][]>

/** Opens a DuckDB file read-only, as any reader would, for as long as `work` takes. Nobody may have it open for writing. */
export async function readFile<T>(file: string, work: (query: Query) => Promise<T>): Promise<T> {
  const instance = await DuckDBInstance.create(file, { access_mode: 'READ_ONLY' })
  try {
    const connection = await instance.connect()
    await connection.run("SET TimeZone = 'UTC'")
    const result = await work(async (sql) => (await connection.runAndReadAll(sql)).getRowsJson())
    connection.closeSync()
    return result
  } finally {
    instance.closeSync()
  }
}

/** One row of an append table. */
export interface AppendRow {
  readonly op: string
  readonly lsn: bigint
  readonly sequence: bigint
  readonly cells: Readonly<Record<string, string>>
}

interface TextColumn {
  readonly name: string
  /** The PostgreSQL text of the value; NULL as {@link NULL_TEXT}. */
  readonly expression: string
}

/** The source's own columns of a destination table by name; ours begin with an underscore. */
async function textColumns(query: Query, table: string, schema: string): Promise<readonly TextColumn[]> {
  const columns = await query(`SELECT column_name, data_type FROM information_schema.columns WHERE table_schema = '${schema}' AND table_name = '${table}' ORDER BY column_name`)
  return columns
    .map(([name, type]) => ({ name: String(name), type: shortType(String(type)) }))
    .filter(({ name }) => !name.startsWith('_'))
    .map(({ name, type }) => ({ name, expression: `coalesce((${toPostgresText(type, `"${name}"`)})::VARCHAR, '${NULL_TEXT}')` }))
}

/** All rows of a destination table as PostgreSQL's text, sorted; columns of ours left out. `from` gives its rows another way. */
export async function destinationRows(
  query: Query,
  table: string,
  schema = 'public',
  { where = 'true', from = `"${schema}"."${table}"` }: { readonly where?: string; readonly from?: string } = {},
): Promise<string[]> {
  const columns = await textColumns(query, table, schema)
  const expressions = columns.length === 0 ? ["''"] : columns.map(({ expression }) => expression)
  const rows = await query(`SELECT ${expressions.join(', ')} FROM ${from} WHERE ${where}`)
  return rows.map((row) => rowText(row.map(String))).sort()
}

/** All rows of an append table in the order of the changes. */
export async function appendRows(query: Query, table: string, schema = 'public'): Promise<readonly AppendRow[]> {
  const columns = await textColumns(query, table, schema)
  const rows = await query(
    `SELECT _op, _lsn::VARCHAR, _seq::VARCHAR, ${columns.map(({ expression }) => expression).join(', ')} FROM "${schema}"."${table}" ORDER BY _lsn, _seq`,
  )
  return rows.map(([op, lsn, sequence, ...cells]) => ({
    op: String(op),
    lsn: BigInt(String(lsn)),
    sequence: BigInt(String(sequence)),
    cells: Object.fromEntries(columns.map(({ name }, index) => [name, String(cells[index])])),
  }))
}

/** Plays an append table's changes in their order: the rows that must stand at the source, as {@link sourceRows} shows them. */
export function foldAppendRows(rows: readonly AppendRow[], key: readonly string[]): string[] {
  const present: { identity: string; text: string }[] = []
  const remove = (identity: string): void => {
    const index = present.findIndex((row) => row.identity === identity)
    if (index >= 0) present.splice(index, 1)
  }
  for (const { op, cells } of rows) {
    const names = key.length === 0 ? Object.keys(cells).sort() : key
    const identity = rowText(names.map((name) => cells[name] ?? NULL_TEXT))
    if (op === 'truncate') present.length = 0
    // Without a key equal rows stand beside each other.
    else if (op === 'delete' || key.length > 0) remove(identity)
    if (op !== 'truncate' && op !== 'delete') present.push({ identity, text: rowText(Object.keys(cells).sort().map((name) => cells[name] ?? NULL_TEXT)) })
  }
  return present.map(({ text }) => text).sort()
}

/**
 * What an append table's changes make elsewhere: versions (one for each row that a transaction leaves, of those that it wrote), and keys that were
 * ever there, those of rows that one transaction inserted and deleted included.
 */
export function countVersions(rows: readonly AppendRow[], key: readonly string[]): { readonly versions: number; readonly keys: number } {
  const keys = new Set<string>()
  const left = new Map<string, boolean>()
  let versions = 0
  let transaction: bigint | null = null
  const end = (): void => {
    versions += [...left.values()].filter((isLeft) => isLeft).length
    left.clear()
  }
  for (const { op, lsn, cells } of rows) {
    if (op !== 'snapshot' && lsn !== transaction) end()
    transaction = op === 'snapshot' ? transaction : lsn
    const identity = rowText(key.map((name) => cells[name] ?? NULL_TEXT))
    if (op === 'truncate') {
      left.clear()
      continue
    }
    if (op === 'snapshot') versions += 1
    else left.set(identity, op !== 'delete')
    if (op !== 'delete') keys.add(identity)
  }
  end()
  return { versions, keys: keys.size }
}

/**
 * Changes that stand more than once, by their place in the stream; and copied rows that say of a key what its last change had said. A table that is copied
 * again has a copied row of what was not sent, or came while it was copied: then it says something else.
 */
export function doubledChanges(rows: readonly AppendRow[], key: readonly string[]): readonly string[] {
  const seen = new Set<string>()
  const last = new Map<string, string>()
  const doubled: string[] = []
  for (const { op, lsn, sequence, cells } of rows) {
    const named = key.map((name) => cells[name]).join(BETWEEN_CELLS)
    const said = op === 'delete' ? '' : JSON.stringify(Object.entries(cells).sort())
    const place = `${String(lsn)}/${String(sequence)}`
    if (op === 'snapshot' ? key.length > 0 && last.get(named) === said : seen.has(place)) doubled.push(`${op} ${op === 'snapshot' ? named : place}`)
    if (op !== 'snapshot') seen.add(place)
    if (op === 'truncate') last.clear()
    else last.set(named, said)
  }
  return doubled
}

/** Changes that say of a key what one before had said, where each write changes some column: see {@link countsWrites}. */
export function repeatedChanges(rows: readonly AppendRow[], key: readonly string[]): readonly string[] {
  if (key.length === 0) return []
  const said = new Set<string>()
  return rows.flatMap(({ op, lsn, sequence, cells }) => {
    if (op === 'truncate' || op === 'delete') return []
    const text = JSON.stringify(Object.entries(cells).sort())
    const isRepeated = said.has(text)
    said.add(text)
    return isRepeated ? [`${op} ${key.map((name) => cells[name]).join(BETWEEN_CELLS)} at ${String(lsn)}/${String(sequence)}`] : []
  })
}

/**
 * Versions that no write has made, of a table in which each write changes some column: one that has the values of the version of its key before it, one that
 * begins before that ends, or a second one that is current. Without a key: one that begins in the transaction that closed another with its values.
 */
export async function falseVersions(query: Query, table: string, key: readonly string[], schema = 'public'): Promise<readonly string[]> {
  const columns = await textColumns(query, table, schema)
  const rows = await query(`SELECT _lsn::VARCHAR, coalesce(_closed_lsn::VARCHAR, ''), ${columns.map(({ expression }) => expression).join(', ')} FROM "${schema}"."${table}" ORDER BY _lsn`)
  const keyPlaces = key.map((name) => columns.findIndex((column) => column.name === name))
  const lasts = new Map<string, { readonly closed: string; readonly text: string }>()
  const found: string[] = []
  if (key.length === 0) {
    const closings = new Set(rows.map(([, closed, ...cells]) => JSON.stringify([closed, ...cells])))
    return rows.filter(([lsn, , ...cells]) => closings.has(JSON.stringify([lsn, ...cells]))).map(([lsn]) => `a row without a key at ${String(lsn)}: closed and begun by the same transaction`)
  }
  for (const [lsn, closed, ...cells] of rows) {
    const named = keyPlaces.map((place) => String(cells[place])).join(BETWEEN_CELLS)
    const last = lasts.get(named)
    const text = JSON.stringify(cells)
    const tell = (what: string): number => found.push(`${named} at ${String(lsn)}: ${what}`)
    if (last?.text === text) tell('as the version before it')
    if (last?.closed === '') tell('a second current version')
    else if (last !== undefined && BigInt(last.closed) > BigInt(String(lsn))) tell('begins before the version before it ends')
    lasts.set(named, { closed: String(closed), text })
  }
  return found
}

/**
 * What makes each write of `table` change a column, `w`: updates that set what was there, and rows that come again, included. So a change or a version that
 * nobody made is seen by its values alone.
 */
export function countsWrites(table: string): string {
  return `ALTER TABLE ${table} ADD COLUMN w bigserial;
    CREATE OR REPLACE FUNCTION count_write() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN NEW.w := nextval(pg_get_serial_sequence(TG_RELID::regclass::text, 'w')); RETURN NEW; END $f$;
    CREATE TRIGGER count_writes BEFORE INSERT OR UPDATE ON ${table} FOR EACH ROW EXECUTE FUNCTION count_write()`
}

/** All rows of a source table as text, sorted, its columns in the order of {@link destinationRows}. */
export async function sourceRows(client: pg.Client | pg.PoolClient, table: string, schema = 'public'): Promise<string[]> {
  await client.query("SET TimeZone = 'UTC'; SET DateStyle = 'ISO'; SET IntervalStyle = 'postgres'; SET bytea_output = 'hex'; SET extra_float_digits = 1")
  const found = await client.query<{ column_name: string }>('SELECT column_name FROM information_schema.columns WHERE table_schema = $1 AND table_name = $2', [schema, table])
  const names = found.rows.map((row) => row.column_name).sort()
  const cells = names.map((name, index) => `coalesce("${name}"::text, '${NULL_TEXT}') AS c${String(index)}`)
  const { rows } = await client.query<string[]>({ text: `SELECT ${cells.join(', ')} FROM "${schema}"."${table}"`, rowMode: 'array' })
  return rows.map(rowText).sort()
}

function rowText(cells: readonly string[]): string {
  return cells.map(withoutTrailingZeros).join(BETWEEN_CELLS)
}

/** Digits behind the last one that counts are no part of a number: DECIMAL and numeric show as many as their scale says. */
function withoutTrailingZeros(cell: string): string {
  return /^-?\d+\.\d+$/.test(cell) ? cell.replace(/\.?0+$/, '') : cell
}

/** information_schema's spelling → ours. */
function shortType(type: string): string {
  return type.replace('TIMESTAMP WITH TIME ZONE', 'TIMESTAMPTZ').replace('TIME WITH TIME ZONE', 'TIMETZ')
}

/** The first rows that one side has and the other has not, counted as a multiset; long cells are cut. */
export function differences(destination: readonly string[], source: readonly string[]): { missing: string[]; extra: string[] } {
  const counts = new Map<string, number>()
  for (const row of source) counts.set(row, (counts.get(row) ?? 0) + 1)
  for (const row of destination) counts.set(row, (counts.get(row) ?? 0) - 1)
  const shown = (isWanted: (count: number) => boolean): string[] =>
    [...counts]
      .filter(([, count]) => isWanted(count))
      .slice(0, 5)
      .map(([row, count]) => `${String(Math.abs(count))} × ${row.replaceAll(/[^|]{60,}/g, (cell) => `${cell.slice(0, 30)}… (${String(cell.length)})`)}`)
  return { missing: shown((count) => count > 0), extra: shown((count) => count < 0) }
}

/** What {@link differences} gives for equal sides. */
export const NO_DIFFERENCES = { missing: [], extra: [] } as const
