import type { TargetColumn } from '../../model/destination.ts'
import type { TypeShape } from '../../model/table-schema.ts'
import { type Cast, type CellEncoding, CellKind } from './cell-encoding.ts'
import { type BinaryColumn, BooleanColumn, Float32Column, Float64Column, Int16Column, Int32Column, Int64Column, UuidColumn } from './binary-column.ts'
import { NumericColumn } from './binary-numeric.ts'
import { BytesColumn, TextColumn } from './binary-text.ts'
import { DateColumn, TimestampColumn } from './binary-times.ts'
import type { ParquetType } from './parquet-file.ts'
import { mapType } from './type-mapping.ts'

/** How the values of a column are taken over from the bytes that their type's send function gives. */
export interface BinaryEncoding {
  readonly columnOf: () => BinaryColumn
  /** What the file holds. */
  readonly type: ParquetType
  /** How the file's column is read. */
  readonly cell: CellEncoding
}

/** A Parquet decimal of 64 bits has so many digits. */
const PRECISION = 18
/** Where so many stand before the point, nearly all numbers have a place: up to a thousand millions, as of a `numeric` without a modifier. */
const WHOLE_DIGITS = 9

/**
 * How rows are taken as the source's server holds them: each of their values in the binary form of its type, which is put into a Parquet column of the very type that the
 * destination's column has. Null where one of the columns is of a type for which there is no such way, or is another one here (widened, or by a hint).
 *
 * Source: the send functions in https://github.com/postgres/postgres/tree/REL_18_STABLE/src/backend/utils/adt
 */
export function binaryEncodings(columns: readonly TargetColumn[]): readonly BinaryEncoding[] | null {
  const encodings: BinaryEncoding[] = []
  for (const { shape, type } of columns) {
    const encoding = mapType(shape).type === type ? encodingOf(shape, type) : null
    if (encoding === null) return null
    encodings.push(encoding)
  }
  return encodings.length === 0 ? null : encodings
}

function encodingOf(shape: TypeShape, type: string): BinaryEncoding | null {
  if (shape.tag === 'enum') return TEXT
  if (shape.tag !== 'base' || shape.name === null) return null
  return shape.name === 'numeric' ? numericOf(type) : (WAYS.get(shape.name) ?? null)
}

/** `csvType` is of no account in a file that has types. */
const AS_IT_IS: CellEncoding = { kind: CellKind.Plain, csvType: 'VARCHAR', fromCsv: (value) => value }

function castTo(type: string): CellEncoding {
  return { kind: CellKind.Text, csvType: 'VARCHAR', fromCsv: (value: string, cast: Cast = 'CAST') => `${cast}(${value} AS ${type})` }
}

function asItIs(columnOf: () => BinaryColumn, tag: Exclude<ParquetType['tag'], 'decimal'>): BinaryEncoding {
  return { columnOf, type: { tag }, cell: AS_IT_IS }
}

const TEXT = asItIs(() => new TextColumn({ isJsonb: false }), 'text')
/** DuckDB has to look at it too. */
const JSON_CELL = castTo('JSON')

/** By pg_type.typname. Not "char": a byte that its text may show as another. */
const WAYS: ReadonlyMap<string, BinaryEncoding> = new Map([
  ['int2', asItIs(() => new Int16Column(), 'int16')],
  ['int4', asItIs(() => new Int32Column(), 'int32')],
  ['int8', asItIs(() => new Int64Column(), 'int64')],
  ['oid', asItIs(() => new Int32Column(), 'uint32')],
  ['xid', asItIs(() => new Int32Column(), 'uint32')],
  ['cid', asItIs(() => new Int32Column(), 'uint32')],
  ['xid8', asItIs(() => new Int64Column(), 'uint64')],
  ['float4', asItIs(() => new Float32Column(), 'float')],
  ['float8', asItIs(() => new Float64Column(), 'double')],
  ['bool', asItIs(() => new BooleanColumn(), 'boolean')],
  ['uuid', asItIs(() => new UuidColumn(), 'uuid')],
  ['bytea', asItIs(() => new BytesColumn(), 'bytes')],
  ['text', TEXT],
  ['varchar', TEXT],
  ['bpchar', TEXT],
  ['name', TEXT],
  ['json', { ...TEXT, cell: JSON_CELL }],
  ['jsonb', { ...asItIs(() => new TextColumn({ isJsonb: true }), 'text'), cell: JSON_CELL }],
  ['date', asItIs(() => new DateColumn(), 'date')],
  ['time', asItIs(() => new Int64Column(), 'time')],
  ['timestamp', asItIs(() => new TimestampColumn(), 'timestamp')],
  ['timestamptz', asItIs(() => new TimestampColumn(), 'timestamptz')],
])

/** Into a wider DECIMAL go numbers that 64 bits hold, as value × 10^scale; none are tried where the scale leaves few digits for them: 1 as numeric(38,18) has 19. */
function numericOf(type: string): BinaryEncoding | null {
  const [, precision = 0, scale = 0] = (/^DECIMAL\((\d+),(\d+)\)$/.exec(type) ?? []).map(Number)
  if (precision === 0 || (precision > PRECISION && PRECISION - scale < WHOLE_DIGITS)) return null
  const held = { precision: Math.min(precision, PRECISION), scale }
  return { columnOf: () => new NumericColumn(held), type: { tag: 'decimal', ...held }, cell: precision <= PRECISION ? AS_IT_IS : castTo(type) }
}
