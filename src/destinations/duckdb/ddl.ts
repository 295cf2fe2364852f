import { isBeside, shapingThere, type TableRecord, type TargetColumn } from '../../model/destination.ts'
import { kindsOf, type Shape, type Shaping, shapesOf } from '../../model/shapes.ts'
import { tableKey, type TableName } from '../../model/table-schema.ts'
import { ADDED_COLUMNS, addedNames, columnsOf } from './added-columns.ts'
import { createAsOf, dropAsOf } from './as-of.ts'
import type { DatabaseSession } from './database.ts'
import type { OlderRowsValue } from './older-rows.ts'
import { quoteName, quoteTable, quoteText } from './sql.ts'
import { toPostgresText } from './type-mapping.ts'

/**
 * The tables that have a record's columns: those that its changes go to, and beside a running copy those that hold what it cannot bring back.
 */
export function tablesOf(record: TableRecord): readonly Shape[] {
  const { target, copy } = record
  return [...shapesOf(record, copy?.into ?? target), ...(isBeside(record) ? keptShapes(record) : [])]
}

/** The tables under the table's name that hold what no copy can bring back, and that will go on holding it. */
export function keptShapes(record: TableRecord): readonly Shape[] {
  if (record.copy?.isReplacing === true) return []
  const kinds = kindsOf(record)
  return shapesOf(shapingThere(record), record.target).filter(({ kind }) => kind !== 'merge' && kinds.includes(kind))
}

/** Creates the tables of a record's shapes; the first gets the given name. */
export async function createTables(session: DatabaseSession, base: TableName, record: TableRecord): Promise<void> {
  await session.run(`CREATE SCHEMA IF NOT EXISTS ${quoteName(base.schema)}`)
  for (const { kind, table } of shapesOf(record, base)) {
    const columns = [...columnsOf(kind, record.columns).map(({ name, type }) => [name, type] as const), ...ADDED_COLUMNS[kind]]
    await session.run(`CREATE TABLE IF NOT EXISTS ${quoteTable(table)} (${columns.map(([column, type]) => `${quoteName(column)} ${type}`).join(', ')})`)
  }
  if (tableKey(base) === tableKey(record.target)) await createAsOf(session, record, base)
}

/** Drops the tables of all shapes, where they are there. Tells which were. */
export async function dropTables(session: DatabaseSession, base: TableName, shaping: Shaping): Promise<readonly TableName[]> {
  const dropped: TableName[] = []
  await dropAsOf(session, shaping, base)
  for (const { table } of shapesOf(shaping, base)) {
    if (await hasTable(session, table)) dropped.push(table)
    await dropTable(session, table)
  }
  return dropped
}

/** Drops everything of a table: what readers see, and what is copied beside it. Tells which of the former there were. */
export async function dropAll(session: DatabaseSession, record: TableRecord): Promise<readonly TableName[]> {
  if (record.copy !== null && isBeside(record)) await dropTables(session, record.copy.into, record)
  return dropTables(session, record.target, shapingThere(record))
}

export async function dropTable(session: DatabaseSession, name: TableName): Promise<void> {
  await session.run(`DROP TABLE IF EXISTS ${quoteTable(name)}`)
}

/**
 * Gives a table another name; in another schema it is written anew, as DuckDB 1.5.5 has no `ALTER TABLE … SET SCHEMA`. Not for a table that
 * the same transaction has deleted rows from, see `renameTables`.
 */
export async function moveTable(session: DatabaseSession, from: TableName, to: TableName): Promise<void> {
  for (const statement of moveStatements(from, to)) await session.run(statement)
}

export function moveStatements(from: TableName, to: TableName): readonly string[] {
  if (from.schema === to.schema) return [`ALTER TABLE ${quoteTable(from)} RENAME TO ${quoteName(to.name)}`]
  return [
    `CREATE SCHEMA IF NOT EXISTS ${quoteName(to.schema)}`,
    `CREATE TABLE ${quoteTable(to)} AS SELECT * FROM ${quoteTable(from)}`,
    `DROP TABLE ${quoteTable(from)}`,
  ]
}

/** DuckDB takes two names for one that differ in the case of ASCII letters only. */
function isNamed(column: string, name: string): string {
  const folded = name.replaceAll(/[A-Z]/g, (letter) => letter.toLowerCase())
  return `translate(${column}, 'ABCDEFGHIJKLMNOPQRSTUVWXYZ', 'abcdefghijklmnopqrstuvwxyz') = ${quoteText(folded)}`
}

/** Does the table exist, in whatever case? */
export async function hasTable(session: DatabaseSession, name: TableName): Promise<boolean> {
  const rows = await session.rows(
    `SELECT 1 FROM duckdb_tables() WHERE ${isNamed('schema_name', name.schema)} AND ${isNamed('table_name', name.name)} AND NOT temporary AND database_name = current_database()`,
  )
  return rows.length > 0
}

/**
 * How a table is altered. DuckDB 1.5.5 refuses to commit an ALTER TABLE of a table that the same transaction has deleted rows from
 * ("another transaction has altered this table"): then the table is rewritten under its own name instead.
 */
export type AlterMode = 'inPlace' | 'rewrite'

/**
 * Turns a column into VARCHAR that holds PostgreSQL's text of the values that were there. Always by a rewrite: DuckDB 1.5.5 cannot replay
 * `ALTER COLUMN … TYPE … USING` from its WAL ("GetDefaultDatabase with no default database set"), so that after a kill the file
 * could not be opened any more.
 */
export async function widenColumn(session: DatabaseSession, table: TableName, column: TargetColumn): Promise<void> {
  const name = quoteName(column.name)
  await rewriteTable(session, table, [`* REPLACE (${toPostgresText(column.type, name)} AS ${name})`])
}

/** From one set of columns to the next. */
export interface TableAlteration {
  readonly before: readonly TargetColumn[]
  readonly after: readonly TargetColumn[]
  /** By attribute number. */
  readonly values: ReadonlyMap<number, OlderRowsValue>
  readonly mode: AlterMode
}

/**
 * Brings a table from one set of columns to the next. Columns are told apart by attribute number; those that only `before` has go,
 * those that only `after` has come last, with the given values in the rows that are there, NULL where there are none.
 *
 * A value comes as the column's DEFAULT, which is dropped again: so DuckDB fills 10 million rows in 3 s and 60 MB, an UPDATE takes 13 s and
 * 380 MB. Only a string is safe as DEFAULT: with `['a']` DuckDB 1.5.5 fails in a way that ends the whole database.
 */
export async function alterTable(session: DatabaseSession, shape: Shape, alteration: TableAlteration): Promise<void> {
  for (const statement of alterStatements(shape, alteration).statements) await session.run(statement)
}

/** What {@link alterTable} runs; `writesRows`: is something written into the rows that are there? */
export function alterStatements({ kind, table }: Shape, change: TableAlteration): { readonly statements: readonly string[]; readonly writesRows: boolean } {
  const { values: older, mode } = change
  const [before, after] = [columnsOf(kind, change.before), columnsOf(kind, change.after)]
  const isSame = (a: TargetColumn) => (b: TargetColumn) => a.attributeNumber === b.attributeNumber
  const kept = before.flatMap((column) => {
    const now = after.find(isSame(column))
    return now === undefined ? [] : [{ column, now }]
  })
  const added = after.filter((column) => !before.some(isSame(column)))
  const valueOf = ({ column, now }: { column: TargetColumn; now: TargetColumn }): string =>
    column.type === now.type ? quoteName(column.name) : toPostgresText(column.type, quoteName(column.name))
  const isSameAsBefore = added.length === 0 && kept.length === before.length && kept.every(({ column, now }) => column.name === now.name && column.type === now.type)
  if (isSameAsBefore) return { statements: [], writesRows: false }
  const isByString = added.every(({ attributeNumber }) => older.get(attributeNumber)?.string !== null)
  if (mode === 'rewrite' || !isByString || kept.some(({ column, now }) => column.type !== now.type)) {
    const ours = addedNames(kind)
    const values = kept.map((pair) => `${valueOf(pair)} AS ${quoteName(pair.now.name)}`)
    const grown = added.map(({ name, type, attributeNumber }) => `CAST(${older.get(attributeNumber)?.expression ?? 'NULL'} AS ${type}) AS ${quoteName(name)}`)
    return { statements: rewriteStatements(table, [...values, ...ours, ...grown]), writesRows: true }
  }
  const alter = `ALTER TABLE ${quoteTable(table)}`
  const statements = [
    ...before.filter((column) => !after.some(isSame(column))).map(({ name }) => `${alter} DROP COLUMN ${quoteName(name)}`),
    // Two columns may have changed their names for each other's.
    ...kept.filter(({ column, now }) => column.name !== now.name).map(({ column }) => `${alter} RENAME COLUMN ${quoteName(column.name)} TO ${quoteName(`__renamed_${String(column.attributeNumber)}`)}`),
    ...kept.filter(({ column, now }) => column.name !== now.name).map(({ now }) => `${alter} RENAME COLUMN ${quoteName(`__renamed_${String(now.attributeNumber)}`)} TO ${quoteName(now.name)}`),
    ...added.flatMap(({ name, type, attributeNumber }) => {
      const value = older.get(attributeNumber)?.string ?? null
      const add = `${alter} ADD COLUMN ${quoteName(name)} ${type}`
      return value === null ? [add] : [`${add} DEFAULT ${value}`, `${alter} ALTER COLUMN ${quoteName(name)} DROP DEFAULT`]
    }),
  ]
  return { statements, writesRows: added.some(({ attributeNumber }) => older.has(attributeNumber)) }
}

/** Writes a table anew under its own name, with `columns` selected from the old one. */
export async function rewriteTable(session: DatabaseSession, table: TableName, columns: readonly string[]): Promise<void> {
  for (const statement of rewriteStatements(table, columns)) await session.run(statement)
}

function rewriteStatements(table: TableName, columns: readonly string[]): readonly string[] {
  const rewritten = quoteTable({ schema: table.schema, name: `${table.name}__rewritten` })
  return [
    `CREATE TABLE ${rewritten} AS SELECT ${columns.join(', ')} FROM ${quoteTable(table)}`,
    `DROP TABLE ${quoteTable(table)}`,
    `ALTER TABLE ${rewritten} RENAME TO ${quoteName(table.name)}`,
  ]
}
