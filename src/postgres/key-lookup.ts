import type pg from 'pg'
import { z } from 'zod'
import { DomainError } from '../model/errors.ts'
import type { KeyRange } from '../model/source.ts'
import { tableKey, type TableSchema } from '../model/table-schema.ts'
import { readKeyColumns } from './key-ranges.ts'
import { quoteIdentifier, quoteLiteral, queryRows, type SqlClient } from './sql.ts'
import { findStoredTable } from './stored-table.ts'
import { toDomainError } from './sqlstate.ts'

type Key = readonly string[]

/** Keys per statement: enough to save round trips, few enough for the comparisons with every bound. */
const KEYS_PER_STATEMENT = 5_000

const KEY_COLUMN_ROW = z.object({ name: z.string(), typeName: z.string(), collation: z.string().nullable() })

/**
 * For each key (text of the key columns) the index of its range in `ranges` (in key order, `lower < key ≤ upper`, covering everything).
 * Asked of the source: only its types, with their collations, know the order.
 */
export async function locateKeys(
  client: SqlClient,
  table: TableSchema,
  request: { readonly ranges: readonly KeyRange[]; readonly keys: readonly Key[] },
): Promise<readonly number[]> {
  const uppers = request.ranges.map((range) => range.upper).filter((upper) => upper !== null)
  if (uppers.length === 0 || request.keys.length === 0) return request.keys.map(() => 0)
  const columns = await readTypedKey(client, asNamedNow(table, await presentNames(client, table)))
  const width = columns.length
  const text = `
    SELECT (SELECT count(*)::int FROM ${unnest('u', width, width)} WHERE ${isLess(columns, 'u', 'k')}) AS range
    FROM ${unnest('k', width, 0)} ORDER BY k.ordinal`
  const located: number[] = []
  for (let from = 0; from < request.keys.length; from += KEYS_PER_STATEMENT) {
    const rows = await queryRows(client, z.object({ range: z.number() }), {
      text,
      values: [...transpose(request.keys.slice(from, from + KEYS_PER_STATEMENT), width), ...transpose(uppers, width)],
      subject: subjectOf(table),
    })
    located.push(...rows.map((row) => row.range))
  }
  return located
}

/** A table or column that is renamed between two statements is looked up again so often. */
const MAX_LOOKUPS = 5

/**
 * The text (by the type output functions, as in copy and stream) of `columns` of the rows with these keys, as they are now. Rows that are
 * not there are left out; the others come in the order of their keys. Columns may have other names by now than the table is known with; those that are gone are NULL, and
 * without one of the key's no row is there.
 */
export async function readRows(
  client: SqlClient,
  table: TableSchema,
  request: { readonly keys: readonly Key[]; readonly columns: readonly string[] },
): Promise<readonly (readonly (string | null)[])[]> {
  if (request.keys.length === 0 || request.columns.length === 0) return []
  for (let lookups = 1; ; lookups++) {
    try {
      return await readRowsNow(client, table, request)
    } catch (error) {
      const isUnknownName = error instanceof DomainError && error.kind === 'InvalidInput'
      if (!isUnknownName || lookups === MAX_LOOKUPS) throw error
    }
  }
}

async function readRowsNow(client: SqlClient, table: TableSchema, request: { readonly keys: readonly Key[]; readonly columns: readonly string[] }): Promise<readonly (readonly (string | null)[])[]> {
  if (table.key.length === 0) {
    throw new DomainError({
      kind: 'TableNotReplicable',
      message: `rows of ${JSON.stringify(tableKey(table))} cannot be read by key: it has none`,
      remedy: 'Give the table a primary key.',
    })
  }
  const names = await presentNames(client, table)
  if (!table.key.every((name) => names.has(name))) return []
  const keyColumns = await readTypedKey(client, asNamedNow(table, names))
  const width = keyColumns.length
  // By its oid: the table may have another name by now.
  const stored = await findStoredTable(client, table)
  if (stored === null) return []
  const matches = keyColumns.map((column, index) => `t.${quoteIdentifier(column.name)} ${operator(column, '=')} ${castTo(`k.v${index}`, column)}`)
  const text = `
    SELECT ${request.columns.map((name) => valueOf(names.get(name))).join(', ')}
    FROM ${unnest('k', width, 0)} JOIN ${stored.from} t ON ${matches.join(' AND ')}
    ORDER BY k.ordinal`
  const found: (string | null)[][] = []
  try {
    for (let from = 0; from < request.keys.length; from += KEYS_PER_STATEMENT) {
      const values = transpose(request.keys.slice(from, from + KEYS_PER_STATEMENT), width)
      const result = await client.query<(string | null)[]>({ text, values, rowMode: 'array', types: TEXT_ONLY })
      found.push(...result.rows)
    }
  } catch (error) {
    throw toDomainError(error, { subject: subjectOf(table) })
  }
  return found
}

function valueOf(name: string | undefined): string {
  return name === undefined ? 'NULL' : `t.${quoteIdentifier(name)}`
}

/** By the names that the table is known with, those that its columns have now, told by attribute number: the stream may be behind a schema change. */
async function presentNames(client: SqlClient, table: TableSchema): Promise<ReadonlyMap<string, string>> {
  const rows = await queryRows(client, z.object({ attributeNumber: z.number(), name: z.string() }), {
    subject: subjectOf(table),
    values: [table.oid],
    text: 'SELECT a.attnum AS "attributeNumber", a.attname::text AS name FROM pg_attribute a WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped',
  })
  const now = new Map(rows.map(({ attributeNumber, name }) => [attributeNumber, name]))
  return new Map(table.columns.flatMap((column) => {
    const name = now.get(column.attributeNumber)
    return name === undefined ? [] : [[column.name, name] as const]
  }))
}

function asNamedNow(table: TableSchema, names: ReadonlyMap<string, string>): TableSchema {
  const now = (name: string): string => names.get(name) ?? name
  return { ...table, key: table.key.map(now), columns: table.columns.map((column) => ({ ...column, name: now(column.name) })) }
}

/** A condition on the rows of `alias` that have one of these keys, for statements that take no parameters. */
export async function keyListPredicate(client: SqlClient, table: TableSchema, { alias, keys }: { readonly alias: string; readonly keys: readonly Key[] }): Promise<string> {
  const columns = await readTypedKey(client, table)
  if (keys.length === 0 || columns.length === 0) return 'false'
  const arrays = transpose(keys, columns.length).map((values) => `ARRAY[${values.map(quoteLiteral).join(', ')}]::text[]`)
  const names = columns.map((_, index) => `v${index}`).join(', ')
  const matches = columns.map((column, index) => `${alias}.${quoteIdentifier(column.name)} ${operator(column, '=')} ${castTo(`k.v${index}`, column)}`)
  return `EXISTS (SELECT FROM unnest(${arrays.join(', ')}) k(${names}) WHERE ${matches.join(' AND ')})`
}

/** A key column with its type for casts, and where its order's operators live (see {@link readKeyColumns}). */
type TypedKeyColumn = z.infer<typeof KEY_COLUMN_ROW> & { readonly operatorSchema: string }

/** Hands every value over as the server wrote it. */
const TEXT_ONLY: pg.CustomTypesConfig = { getTypeParser: () => (value: unknown) => value }

/**
 * `left < right` in the key's own order, written out from its last column: a row comparison has one operator, and a key of several types
 * may need several.
 */
function isLess(columns: readonly TypedKeyColumn[], left: string, right: string): string {
  return columns.reduceRight((rest, column, index) => {
    const compare = (name: '<' | '='): string => `${castTo(`${left}.v${index}`, column)} ${operator(column, name)} ${castTo(`${right}.v${index}`, column)}`
    return rest === '' ? compare('<') : `(${compare('<')} OR (${compare('=')} AND ${rest}))`
  }, '')
}

function operator(column: TypedKeyColumn, name: '<' | '='): string {
  return `OPERATOR(${quoteIdentifier(column.operatorSchema)}.${name})`
}

async function readTypedKey(client: SqlClient, table: TableSchema): Promise<readonly TypedKeyColumn[]> {
  const operators = await readKeyColumns(client, table)
  const rows = await queryRows(client, KEY_COLUMN_ROW, {
    subject: subjectOf(table),
    values: [table.oid, [...table.key]],
    text: `
      SELECT a.attname::text AS name, format_type(a.atttypid, a.atttypmod) AS "typeName",
        CASE WHEN a.attcollation <> 0 THEN quote_ident(n.nspname) || '.' || quote_ident(c.collname) END AS collation
      FROM unnest($2::text[]) WITH ORDINALITY k(name, ordinal)
      JOIN pg_attribute a ON a.attrelid = $1 AND a.attname = k.name AND NOT a.attisdropped
      LEFT JOIN pg_collation c ON c.oid = a.attcollation LEFT JOIN pg_namespace n ON n.oid = c.collnamespace
      ORDER BY k.ordinal`,
  })
  if (rows.length === table.key.length) return rows.map((row, index) => ({ ...row, operatorSchema: operators[index]?.operatorSchema ?? 'pg_catalog' }))
  throw new DomainError({
    kind: 'SourceUnavailable',
    message: `the key of ${JSON.stringify(tableKey(table))} is another than a moment ago`,
    remedy: 'The schema change is on its way in the stream. It is tried again.',
  })
}

function castTo(expression: string, column: TypedKeyColumn): string {
  const cast = `${expression}::${column.typeName}`
  return column.collation === null ? cast : `(${cast} COLLATE ${column.collation})`
}

/** `unnest` of one text array per key column, from parameter `$(offset + 1)` on. */
function unnest(alias: string, width: number, offset: number): string {
  const parameters = Array.from({ length: width }, (_, index) => `$${offset + index + 1}::text[]`)
  const names = parameters.map((_, index) => `v${index}`)
  return `unnest(${parameters.join(', ')}) WITH ORDINALITY ${alias}(${names.join(', ')}, ordinal)`
}

function transpose(keys: readonly Key[], width: number): string[][] {
  return Array.from({ length: width }, (_, index) => keys.map((key) => key[index] ?? ''))
}

function subjectOf(table: TableSchema): string {
  return `table ${JSON.stringify(tableKey(table))}`
}
