import type { TargetColumn } from '../../model/destination.ts'
import type { TypeShape } from '../../model/table-schema.ts'
import { CellKind, type CellEncoding, valueOfText } from './cell-encoding.ts'
import { decimalOf, encodingFor } from './type-mapping.ts'

/**
 * How columns are read whose cells the source wrote itself, without a look at them on the way: what the cell writer would check and
 * rewrite is done in SQL, to the same end. A value that does not fit fails the statement, which is how its column is found.
 * Null where one of the columns needs the cell writer.
 */
export function lineEncodings(columns: readonly TargetColumn[]): CellEncoding[] | null {
  // An empty line is a row of one NULL to the source and no row to DuckDB.
  if (columns.length < 2) return null
  const encodings: CellEncoding[] = []
  for (const column of columns) {
    const given = encodingFor(column)
    // Floats and texts may have exponents, which count no digits: the cell writer takes no such number for a DECIMAL.
    if (given.kind === CellKind.Numeric && !isWrittenInDigits(column.shape)) return null
    const encoding = lineEncoding(given)
    if (encoding === null) return null
    encodings.push(encoding)
  }
  return encodings
}

function isWrittenInDigits(shape: TypeShape): boolean {
  return shape.tag === 'base' && ['numeric', 'int2', 'int4', 'int8', 'oid', 'xid', 'cid', 'xid8'].includes(shape.name ?? '')
}

function lineEncoding(encoding: CellEncoding): CellEncoding | null {
  switch (encoding.kind) {
    case CellKind.Plain:
    case CellKind.Text:
      return encoding
    case CellKind.Numeric:
      return checkedNumeric(encoding)
    case CellKind.Date:
      return inSql(encoding, (csv) => choose(`suffix(${csv}, ' BC')`, `replace(${csv}, ' BC', ' (BC)')`, csv))
    case CellKind.Timestamp:
      return inSql(encoding, (csv) => choose(`suffix(${csv}, ' BC')`, `regexp_replace(${csv}, '^(\\d+-\\d\\d-\\d\\d)(.*) BC$', '\\1 (BC)\\2')`, csv))
    case CellKind.Interval:
    case CellKind.Array:
    case CellKind.Integer:
    case CellKind.ExactFloat:
      return null
    default:
      return encoding.kind satisfies never
  }
}

/** Cast by a statement and not by `read_csv`, which makes NULL of a TIMESTAMPTZ that it cannot read (DuckDB 1.5.5). */
function inSql(encoding: CellEncoding, rewritten: (csv: string) => string): CellEncoding {
  return { kind: encoding.kind, csvType: 'VARCHAR', fromCsv: (csv, cast = 'CAST') => valueOfText(encoding, rewritten(csv), cast) }
}

/** A cast to DECIMAL rounds: digits behind its scale (but zeros) are made something that cannot be cast. */
function checkedNumeric(encoding: CellEncoding): CellEncoding {
  const { precision = 0, scale = 0 } = encoding
  const isLonger = (csv: string): string => `strlen(${csv}) - strpos(${csv}, '.') > ${String(scale)} AND regexp_matches(${csv}, '\\.\\d{${String(scale)}}\\d*[1-9]')`
  return { ...encoding, csvType: 'VARCHAR', fromCsv: (csv, cast) => decimalOf(choose(isLonger(csv), `${csv} || ' does not fit'`, csv), { precision, scale }, cast) }
}

function choose(condition: string, then: string, otherwise: string): string {
  return `CASE WHEN ${condition} THEN ${then} ELSE ${otherwise} END`
}
