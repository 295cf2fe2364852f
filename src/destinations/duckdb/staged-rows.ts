import type { TableRecord } from '../../model/destination.ts'
import { columnsOf } from './added-columns.ts'
import type { ShapeKind } from '../../model/shapes.ts'
import type { RowsStep } from './steps.ts'
import { stagingColumns } from './steps.ts'
import { toPostgresText } from './type-mapping.ts'
import { quoteName, quoteText } from './sql.ts'

/** Lines up to here are read with the same buffer; DuckDB asks for a buffer of more than one line. */
const USUAL_MAX_LINE_BYTES = 2_097_152

/** The name of the temporary table that staged rows are put into when they cannot go straight to their table. */
export const STAGED = 'temp.staged_rows'

/** What `readStaged` needs to know of a staging file. */
export type StagingFile = Pick<RowsStep, 'path' | 'isParquet' | 'longestRowBytes' | 'common'>

/** A FROM item that reads a staging file; a Parquet file has types of its own. */
export function readStaged(file: StagingFile, columns: readonly (readonly [name: string, type: string])[]): string {
  if (file.isParquet) return `read_parquet(${quoteText(file.path)})`
  const types = columns.map(([name, type]) => `${quoteText(name)}: ${quoteText(type)}`).join(', ')
  // Of its own accord DuckDB takes 32 MB of buffer, for several buffers of each reader.
  const maxLineBytes = Math.max(USUAL_MAX_LINE_BYTES, file.longestRowBytes + 1024)
  const sizes = `, max_line_size = ${String(maxLineBytes)}, buffer_size = ${String(maxLineBytes * 2)}`
  return `read_csv(${quoteText(file.path)}, auto_detect = false, header = false, skip = ${file.common === null ? '0' : '1'}, delim = '\x1f', quote = '\x1e', escape = '\x1e', new_line = '\\n',
    nullstr = '', allow_quoted_nulls = false${sizes}, columns = {${types}})`
}

/**
 * The expression of staged column `index` for the table as it is now: a column that was widened after the row was staged takes the
 * staged value's PostgreSQL text.
 */
export function stagedValue(step: Pick<RowsStep, 'columns' | 'encodings'>, index: number, record: TableRecord): string {
  const column = step.columns[index]
  const encoding = step.encodings[index]
  if (column === undefined || encoding === undefined) throw new RangeError('no such staged column')
  const value = encoding.fromCsv(`c${String(index)}`)
  const now = record.columns.find(({ name }) => name === column.name)
  return now === undefined || now.type === column.type ? value : toPostgresText(column.type, value)
}

/** `SELECT` of a rows step's file with typed values under the staging names. */
export function selectStaged(step: RowsStep, record: TableRecord): string {
  const meta = stagingColumns(step)
    .slice(0, stagingColumns(step).length - step.encodings.length)
    .map(([name]) => (name === 'u' && step.misfits.size > 0 ? "nullif(regexp_replace(u, '!.*', ''), '') AS u" : name))
  const values = step.encodings.map((_, index) => `${stagedValue(step, index, record)} AS c${String(index)}`)
  return `SELECT ${[...meta, ...values, ...(step.misfits.size > 0 ? [`${misfitOf(step)} AS bad`] : [])].join(', ')} FROM ${readStaged(step, stagingColumns(step))}`
}

/** The index of a column whose staged value does not fit; NULL = all fit. */
function misfitOf(step: RowsStep): string {
  const tried = [...step.tried].map((index) => {
    const name = `c${String(index)}`
    return `WHEN ${name} IS NOT NULL AND ${step.encodings[index]?.fromCsv(name) ?? ''} IS NULL THEN ${String(index)}`
  })
  const marked = `TRY_CAST(regexp_extract(u, '!([0-9]+)!', 1) AS INTEGER)`
  return tried.length === 0 ? marked : `coalesce(${marked}, CASE ${tried.join(' ')} END)`
}

/** `a.c0 = b."id" AND …` over the key columns. */
export function keysMatch(step: Pick<RowsStep, 'columns' | 'keyIndexes'>, staged: string, table: string): string {
  return step.keyIndexes.map((index) => `${staged}.c${String(index)} = ${table}.${quoteName(step.columns[index]?.name ?? '')}`).join(' AND ')
}

/** The key columns' staging names. */
export function keyNames(step: Pick<RowsStep, 'keyIndexes'>): string {
  return step.keyIndexes.map((index) => `c${String(index)}`).join(', ')
}

/** A shape's own columns, quoted, in staging order. */
export function targetNames(step: Pick<RowsStep, 'columns'>, kind: ShapeKind): readonly string[] {
  return columnsOf(kind, step.columns).map(({ name }) => quoteName(name))
}

/** The types of columns that the source has, in the order of their quoted names. */
export function targetTypes(names: readonly string[], record: TableRecord): readonly string[] {
  return names.map((quoted) => record.columns.find(({ name, isDropped }) => !isDropped && quoteName(name) === quoted)?.type ?? '')
}

/** Where these are staged. */
export function valueNames(step: Pick<RowsStep, 'columns'>, kind: ShapeKind): readonly string[] {
  return columnsOf(kind, step.columns.map(({ isDropped }, index) => ({ isDropped, name: `c${String(index)}` }))).map(({ name }) => name)
}
