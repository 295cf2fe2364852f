import type { TargetColumn } from '../../model/destination.ts'
import { type Cast, CellKind, type CellEncoding, valueOfText } from './cell-encoding.ts'
import { CellWriter } from './cell-writer.ts'
import { quoteText } from './sql.ts'
import { encodingFor } from './type-mapping.ts'

type ColumnType = Pick<TargetColumn, 'shape' | 'type' | 'isPinned'>

/**
 * A DuckDB expression for one value given as PostgreSQL's text: for defaults and single looked-up values, by the same checks and
 * rewritings as staged cells. Null where the column's type cannot hold it exactly, as far as that shows without DuckDB.
 */
export function literalOf(column: ColumnType, text: string | null, cast: Cast = 'CAST'): string | null {
  if (text === null) return 'NULL'
  const encoding = encodingFor(column)
  const staged = stagedTextOf(encoding, text)
  if (staged === null) return null
  return valueOfText(encoding, quoteText(staged), cast)
}

/** The same as a string that DuckDB casts to the column's type by itself; null where more than such a cast makes the value of it. */
export function stringOf(column: ColumnType, text: string): string | null {
  const encoding = encodingFor(column)
  const staged = stagedTextOf(encoding, text)
  return staged === null || encoding.csvType !== column.type || encoding.fromCsv('x') !== 'x' ? null : quoteText(staged)
}

function stagedTextOf(encoding: CellEncoding, text: string): string | null {
  if (encoding.kind === CellKind.Text) return text
  const bytes = Buffer.from(text, 'utf8')
  const writer = new CellWriter(bytes.length * 2 + 64)
  return writer.cell(encoding, bytes, 0, bytes.length) ? writer.buffer.toString('utf8', 0, writer.position) : null
}
