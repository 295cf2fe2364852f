import type { TargetColumn } from '../../model/destination.ts'
import { DomainError } from '../../model/errors.ts'
import type { ColumnHint } from '../../model/spec.ts'
import { type SourceColumn, tableKey, type TableSchema, type TypeShape } from '../../model/table-schema.ts'
import { type Cast, CellKind, type CellEncoding } from './cell-encoding.ts'
import { decimalText, floatText, intervalText, momentText, withoutScale } from './postgres-text.ts'

/**
 * The one table of types: PostgreSQL type → DuckDB type → how its text is staged. `docs/types.md` shows it, and
 * `test/integration/destinations/types.test.ts` has a test for each row.
 *
 * Facts behind it (DuckDB 1.5.5): `'… BC'::date` drops the BC, DECIMAL rounds, NaN and overlong numerics do not fit DECIMAL,
 * timestamps end in the year 294247, `{1,2}` is not list syntax: the staging code checks or rewrites such texts.
 */
interface TypeRow {
  /** pg_type.typname in pg_catalog. */
  readonly names: readonly string[]
  readonly type: string
  readonly encoding: CellEncoding
  /** What cannot be held in `type`; the column becomes VARCHAR when such a value arrives. */
  readonly cannotHold: string
}

const plain = (type: string): CellEncoding => ({ kind: CellKind.Plain, csvType: type, fromCsv: (csv) => csv })
const text: CellEncoding = { kind: CellKind.Text, csvType: 'VARCHAR', fromCsv: (csv) => csv }

export const TYPE_ROWS: readonly TypeRow[] = [
  { names: ['int2'], type: 'SMALLINT', encoding: plain('SMALLINT'), cannotHold: '' },
  { names: ['int4'], type: 'INTEGER', encoding: plain('INTEGER'), cannotHold: '' },
  { names: ['int8'], type: 'BIGINT', encoding: plain('BIGINT'), cannotHold: '' },
  { names: ['oid', 'xid', 'cid'], type: 'UINTEGER', encoding: plain('UINTEGER'), cannotHold: '' },
  { names: ['xid8'], type: 'UBIGINT', encoding: plain('UBIGINT'), cannotHold: '' },
  { names: ['float4'], type: 'FLOAT', encoding: plain('FLOAT'), cannotHold: '' },
  { names: ['float8'], type: 'DOUBLE', encoding: plain('DOUBLE'), cannotHold: '' },
  { names: ['bool'], type: 'BOOLEAN', encoding: plain('BOOLEAN'), cannotHold: '' },
  { names: ['uuid'], type: 'UUID', encoding: plain('UUID'), cannotHold: '' },
  {
    names: ['bytea'],
    type: 'BLOB',
    encoding: { kind: CellKind.Plain, csvType: 'VARCHAR', fromCsv: (csv) => `unhex(substr(${csv}, 3))` },
    cannotHold: '',
  },
  { names: ['text', 'varchar', 'bpchar', 'char', 'name'], type: 'VARCHAR', encoding: text, cannotHold: '' },
  { names: ['json', 'jsonb'], type: 'JSON', encoding: { ...text, csvType: 'JSON' }, cannotHold: 'json with unpaired surrogate escapes' },
  { names: ['date'], type: 'DATE', encoding: { ...plain('DATE'), kind: CellKind.Date }, cannotHold: '' },
  { names: ['time'], type: 'TIME', encoding: plain('TIME'), cannotHold: '' },
  { names: ['timetz'], type: 'TIMETZ', encoding: plain('TIMETZ'), cannotHold: '' },
  { names: ['timestamp'], type: 'TIMESTAMP', encoding: { ...plain('TIMESTAMP'), kind: CellKind.Timestamp }, cannotHold: 'years from 294247 on' },
  { names: ['timestamptz'], type: 'TIMESTAMPTZ', encoding: { ...plain('TIMESTAMPTZ'), kind: CellKind.Timestamp }, cannotHold: 'years from 294247 on' },
  { names: ['interval'], type: 'INTERVAL', encoding: { ...plain('INTERVAL'), kind: CellKind.Interval }, cannotHold: '±infinity (PostgreSQL 17), and the very least number of microseconds (-2562047788:00:54.775808)' },
]

const ROW_OF_NAME = new Map(TYPE_ROWS.flatMap((row) => row.names.map((name) => [name, row] as const)))

/** `numeric` without a type modifier: what usually fits; a value that does not widens the column (contract §5). */
export const FREE_NUMERIC = { precision: 38, scale: 9 } as const

/** DuckDB's widest DECIMAL. */
const MAX_DECIMAL_PRECISION = 38

interface Mapping {
  readonly type: string
  readonly encoding: CellEncoding
}

const VARCHAR: Mapping = { type: 'VARCHAR', encoding: text }

function decimal(precision: number, scale: number): Mapping {
  const type = decimalType(precision, scale)
  const isNarrow = precision <= NARROW_DECIMAL_PRECISION
  const encoding: CellEncoding = isNarrow
    ? { kind: CellKind.Numeric, csvType: type, fromCsv: (csv) => csv, precision, scale }
    : { kind: CellKind.Numeric, csvType: 'VARCHAR', fromCsv: (csv, cast) => decimalOf(csv, { precision, scale }, cast), precision, scale }
  return { type, encoding }
}

function decimalType(precision: number, scale: number): string {
  return `DECIMAL(${String(precision)},${String(scale)})`
}

/** Up to here a DECIMAL is 64 bits wide. */
const NARROW_DECIMAL_PRECISION = 18

/**
 * The cast of a number's text to DECIMAL. Into the 128 bits of more than 18 digits DuckDB (1.5.5) reads text at 10 µs a value, forty times as
 * slow as into 64: so numbers that fit those are read by way of them.
 */
export function decimalOf(text: string, { precision, scale }: { readonly precision: number; readonly scale: number }, cast: Cast = 'CAST'): string {
  const type = decimalType(precision, scale)
  if (precision <= NARROW_DECIMAL_PRECISION || scale > NARROW_DECIMAL_PRECISION) return `${cast}(${text} AS ${type})`
  return `coalesce(CAST(TRY_CAST(${text} AS ${decimalType(NARROW_DECIMAL_PRECISION, scale)}) AS ${type}), ${cast}(${text} AS ${type}))`
}

/**
 * numeric's type modifier: ((precision << 16) | (scale & 0x7ff)) + 4, scale in 11 bits two's complement since 15.
 *
 * Source: https://github.com/postgres/postgres/blob/REL_18_STABLE/src/backend/utils/adt/numeric.c (make_numeric_typmod)
 */
function mapNumeric(typeModifier: number): Mapping {
  if (typeModifier < 4) return decimal(FREE_NUMERIC.precision, FREE_NUMERIC.scale)
  const packed = typeModifier - 4
  const precision = (packed >> 16) & 0xffff
  const scale = ((packed & 0x7ff) ^ 1024) - 1024
  if (scale < 0) return precision - scale <= MAX_DECIMAL_PRECISION ? decimal(precision - scale, 0) : VARCHAR
  const width = Math.max(precision, scale)
  return width <= MAX_DECIMAL_PRECISION ? decimal(width, scale) : VARCHAR
}

/** The mapping of a source type, without hints. */
export function mapType(shape: TypeShape): Mapping {
  switch (shape.tag) {
    case 'base': {
      if (shape.name === 'numeric') return mapNumeric(shape.typeModifier)
      const row = shape.name === null ? undefined : ROW_OF_NAME.get(shape.name)
      return row ?? VARCHAR
    }
    case 'array': {
      const element = mapType(shape.element)
      // An array whose elements are kept as text for want of a type keeps its own text too: it is not split on a guess.
      const isKnown = shape.element.tag === 'enum' || (shape.element.tag === 'base' && (shape.element.name === 'numeric' ? element !== VARCHAR : ROW_OF_NAME.has(shape.element.name ?? '')))
      return isKnown ? arrayOf(element, shape.delimiter) : VARCHAR
    }
    case 'enum':
    case 'other':
      return VARCHAR
    default:
      return shape satisfies never
  }
}

function arrayOf(element: Mapping, delimiter: string): Mapping {
  const type = `${element.type}[]`
  const items = (csv: string) => `from_json(${csv}, '["VARCHAR"]')`
  const fromCsv = (csv: string, cast: Cast = 'CAST') => {
    if (element.type === 'VARCHAR') return items(csv)
    const list = element.encoding.csvType === 'VARCHAR' ? `list_transform(${items(csv)}, lambda x: ${element.encoding.fromCsv('x', cast)})` : `${cast}(${items(csv)} AS ${type})`
    // An element that cannot be cast is NULL then.
    return cast === 'CAST' ? list : `CASE WHEN list_count(${list}) = list_count(${items(csv)}) THEN ${list} END`
  }
  return { type, encoding: { kind: CellKind.Array, csvType: 'VARCHAR', fromCsv, element: element.encoding, delimiter } }
}

/**
 * How cells that are staged already are read as PostgreSQL's text, once a value among them turned out not to fit. An array stands in its
 * file as a JSON list of its elements' texts.
 */
export function stagedAsText(encoding: CellEncoding): CellEncoding {
  const isArray = encoding.kind === CellKind.Array
  const textOf = (csv: string): string => (isArray ? arrayText('VARCHAR', `from_json(${csv}, '["VARCHAR"]')`) : csv)
  const isNumeric = (isArray ? encoding.element : encoding)?.kind === CellKind.Numeric
  return { kind: CellKind.Text, csvType: 'VARCHAR', fromCsv: (csv) => (isNumeric ? withoutScale(textOf(csv)) : textOf(csv)) }
}

/**
 * How cells of a source type are staged for a destination column that has `type` now: a column that was widened to VARCHAR, or
 * pinned by a hint, is staged otherwise than its source type alone would tell.
 */
export function encodingFor({ shape, type, isPinned }: Pick<TargetColumn, 'shape' | 'type' | 'isPinned'>): CellEncoding {
  const natural = mapType(shape)
  if (natural.type === type) return natural.encoding
  if (type === 'VARCHAR') {
    const isNumeric = (natural.encoding.element ?? natural.encoding).kind === CellKind.Numeric
    // What was a DECIMAL has lost the zeros of its scale; rows that name it by key, or whole, must be written as it is.
    return isNumeric && !isPinned ? { ...text, fromCsv: withoutScale } : text
  }
  const decimalMatch = /^DECIMAL\((\d+),(\d+)\)$/.exec(type)
  if (decimalMatch !== null) return decimal(Number(decimalMatch[1]), Number(decimalMatch[2])).encoding
  if (INTEGER_TYPES.has(type)) return { ...plain(type), kind: CellKind.Integer }
  if (type === 'DOUBLE' || type === 'FLOAT') return { ...plain(type), kind: CellKind.ExactFloat, isSinglePrecision: type === 'FLOAT' }
  if (type === 'TIMESTAMPTZ') return { kind: CellKind.Timestamp, csvType: 'VARCHAR', fromCsv: (csv, cast) => instantOf(csv, shape, cast) }
  if (type === 'TIMESTAMP') return { ...plain(type), kind: CellKind.Timestamp }
  return { ...text, csvType: type }
}

/** DuckDB (1.5.5) reads a TIMESTAMPTZ without its offset through milliseconds of floating point, and is wrong by one in the last years. */
function instantOf(text: string, shape: TypeShape, cast: Cast = 'CAST'): string {
  const offset = shape.tag === 'base' && shape.name === 'date' ? ' 00:00:00+00' : '+00'
  return `${cast}(CASE WHEN suffix(${text}, 'infinity') THEN ${text} ELSE ${text} || '${offset}' END AS TIMESTAMPTZ)`
}

const INTEGER_TYPES = new Set(['TINYINT', 'SMALLINT', 'INTEGER', 'BIGINT', 'HUGEINT', 'UTINYINT', 'USMALLINT', 'UINTEGER', 'UBIGINT', 'UHUGEINT'])

/** dlt's data types (https://dlthub.com/docs/general-usage/schema#data-types) → DuckDB's. */
const DLT_TYPES: Readonly<Record<string, string>> = {
  text: 'VARCHAR',
  double: 'DOUBLE',
  bool: 'BOOLEAN',
  timestamp: 'TIMESTAMPTZ',
  bigint: 'BIGINT',
  binary: 'BLOB',
  json: 'JSON',
  complex: 'JSON',
  wei: 'DECIMAL(38,0)',
  date: 'DATE',
  time: 'TIME',
}

const ALIASES: Readonly<Record<string, string>> = {
  STRING: 'VARCHAR', TEXT: 'VARCHAR', CHAR: 'VARCHAR', BPCHAR: 'VARCHAR',
  INT1: 'TINYINT', INT2: 'SMALLINT', SHORT: 'SMALLINT', INT4: 'INTEGER', INT: 'INTEGER', SIGNED: 'INTEGER', INT8: 'BIGINT', LONG: 'BIGINT',
  FLOAT4: 'FLOAT', REAL: 'FLOAT', FLOAT8: 'DOUBLE',
  BOOL: 'BOOLEAN', LOGICAL: 'BOOLEAN', BYTEA: 'BLOB', BINARY: 'BLOB', VARBINARY: 'BLOB',
  DATETIME: 'TIMESTAMP', 'TIMESTAMP WITH TIME ZONE': 'TIMESTAMPTZ', 'TIME WITH TIME ZONE': 'TIMETZ', GUID: 'UUID',
} // prettier-ignore

/** Which DuckDB types a hint may name for a source type, beside VARCHAR and the natural one: never one that would have to round. */
const CONVERSIONS: readonly { readonly from: readonly string[]; readonly to: readonly string[] }[] = [
  { from: ['int2', 'int4', 'int8', 'numeric', 'text', 'varchar', 'bpchar'], to: [...INTEGER_TYPES, 'DECIMAL', 'DOUBLE', 'FLOAT'] },
  { from: ['oid', 'xid', 'cid', 'xid8'], to: [...INTEGER_TYPES, 'DECIMAL'] },
  { from: ['float4', 'float8'], to: ['DOUBLE', 'FLOAT', 'DECIMAL'] },
  { from: ['date'], to: ['TIMESTAMP', 'TIMESTAMPTZ'] },
  { from: ['timestamp', 'timestamptz'], to: ['TIMESTAMP', 'TIMESTAMPTZ'] },
  { from: ['text', 'varchar', 'bpchar'], to: ['JSON', 'UUID', 'BOOLEAN'] },
  { from: ['json', 'jsonb'], to: ['JSON'] },
]

/**
 * The DuckDB type text that a user's hint means for a column. Throws `InvalidInput` for an unknown type, and for one that
 * could hold the source's values only by rounding or guessing.
 */
export function typeOfHint(hint: ColumnHint, shape: TypeShape, place: string): string {
  const natural = mapType(shape).type
  if (hint.dataType === undefined) {
    if (hint.precision === undefined && hint.scale === undefined) return natural
    return decimalHint(hint, place)
  }
  const given = hint.dataType.trim()
  const type = given.toLowerCase() === 'decimal' || /^numeric$/i.test(given) ? decimalHint(hint, place) : (DLT_TYPES[given] ?? canonicalType(given))
  if (isHintable(type, shape)) return type
  throw new DomainError({
    kind: 'InvalidInput',
    message: `columns: ${place}: the hint ${JSON.stringify(given)} does not fit the source type: its values could not be held exactly`,
    remedy: `leave the hint out (the column becomes ${natural}), or use "VARCHAR"`,
  })
}

/** Can a hint give a column of this shape this DuckDB type? */
export function isHintable(type: string, shape: TypeShape): boolean {
  if (type === 'VARCHAR' || type === mapType(shape).type) return true
  const sourceName = shape.tag === 'base' ? (shape.name ?? '') : ''
  const family = type.replace(/\(.*$/, '')
  return CONVERSIONS.some(({ from, to }) => from.includes(sourceName) && to.includes(family))
}

function canonicalType(given: string): string {
  const upper = given.toUpperCase().replace(/\s+/g, ' ')
  const decimalMatch = /^(?:DECIMAL|NUMERIC) ?\( ?(\d+) ?(?:, ?(\d+) ?)?\)$/.exec(upper)
  if (decimalMatch !== null) return `DECIMAL(${decimalMatch[1] ?? '18'},${decimalMatch[2] ?? '0'})`
  return ALIASES[upper] ?? upper.replace(/^VARCHAR ?\(\d+\)$/, 'VARCHAR')
}

function decimalHint(hint: ColumnHint, place: string): string {
  const precision = hint.precision ?? MAX_DECIMAL_PRECISION
  const scale = hint.scale ?? (hint.precision === undefined ? FREE_NUMERIC.scale : 0)
  const isValid = Number.isInteger(precision) && Number.isInteger(scale) && precision >= 1 && precision <= MAX_DECIMAL_PRECISION && scale >= 0 && scale <= precision
  if (isValid) return `DECIMAL(${String(precision)},${String(scale)})`
  throw new DomainError({
    kind: 'InvalidInput',
    message: `columns: ${place}: DuckDB has no DECIMAL(${String(precision)},${String(scale)})`,
    remedy: 'give a precision of 1 to 38 and a scale between 0 and the precision',
  })
}

/**
 * The destination columns of a source table, hints applied. Hints are told by name; a column that had one (`known`) keeps its type under another name. Throws
 * what {@link typeOfHint} throws.
 */
export function targetColumns(source: TableSchema, hints: Readonly<Record<string, ColumnHint>>, known: readonly TargetColumn[] = []): readonly TargetColumn[] {
  const hintOfOld = ({ attributeNumber }: SourceColumn): ColumnHint | undefined => {
    const hinted = known.find((column) => column.isPinned && !column.isDropped && column.attributeNumber === attributeNumber)
    return hinted === undefined ? undefined : { dataType: hinted.type }
  }
  return source.columns.map((column) => {
    const hint = hints[column.name] ?? hintOfOld(column)
    const type = hint === undefined ? mapType(column.shape).type : typeOfHint(hint, column.shape, `${tableKey(source)}.${column.name}`)
    return { ...column, type, isPinned: hint !== undefined, isDropped: false }
  })
}

/**
 * A DuckDB expression for the PostgreSQL text of a value of `type`: what old values of a widened column become.
 * Numbers lose trailing zeros of the scale (`1.500000000` → `1.5`), which are no part of the value.
 */
export function toPostgresText(type: string, value: string): string {
  if (type.endsWith('[]')) return arrayText(type.slice(0, -2), value)
  if (type.startsWith('DECIMAL')) return decimalText(value)
  switch (type) {
    case 'BOOLEAN':
      return `CASE WHEN ${value} THEN 't' WHEN NOT ${value} THEN 'f' END`
    case 'BLOB':
      return `'\\x' || lower(hex(${value}))`
    case 'FLOAT':
    case 'DOUBLE':
      return floatText(type, value)
    case 'INTERVAL':
      return intervalText(value)
    case 'DATE':
      return `replace(${value}::VARCHAR, ' (BC)', ' BC')`
    case 'TIMESTAMP':
    case 'TIMESTAMPTZ':
      return momentText(type, value)
    default:
      return `${value}::VARCHAR`
  }
}

function arrayText(elementType: string, value: string): string {
  const item = toPostgresText(elementType, 'x')
  const quoted = `'"' || replace(replace(${item}, '\\', '\\\\'), '"', '\\"') || '"'`
  const needsQuotes = `(regexp_full_match(${item}, '[^\\s\\v{}",\\\\]+') AND lower(${item}) <> 'null')`
  const shown = `CASE WHEN x IS NULL THEN 'NULL' WHEN ${needsQuotes} THEN ${item} ELSE ${quoted} END`
  return `'{' || array_to_string(list_transform(${value}, lambda x: ${shown}), ',') || '}'`
}
