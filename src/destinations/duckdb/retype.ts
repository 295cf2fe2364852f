import type { TableRecord, TargetColumn } from '../../model/destination.ts'
import type { ColumnHint } from '../../model/spec.ts'
import { isAppendOnly, keepsPast } from '../../model/shapes.ts'
import { tableKey, type TypeShape } from '../../model/table-schema.ts'
import type { DatabaseSession } from './database.ts'
import { columnsOf } from './added-columns.ts'
import { rewriteTable, tablesOf } from './ddl.ts'
import { quoteName } from './sql.ts'
import { mapType, toPostgresText, typeOfHint } from './type-mapping.ts'

/**
 * The columns of a table under other hints, where its rows can be kept: each value can be held exactly in the new type. Null where they
 * cannot, and a fresh copy is better. A table that holds the past keeps it whatever the hint is: such a column becomes VARCHAR.
 */
export function rehinted(existing: TableRecord, hints: Readonly<Record<string, ColumnHint>>): readonly TargetColumn[] | null {
  const columns: TargetColumn[] = []
  for (const column of existing.columns) {
    const { [column.name]: hint } = hints
    if (column.isDropped || JSON.stringify(hint) === JSON.stringify(existing.hints[column.name])) {
      columns.push(column)
      continue
    }
    const type = hint === undefined ? mapType(column.shape).type : typeOfHint(hint, column.shape, `${tableKey(existing.source)}.${column.name}`)
    const isOtherwiseSpelled = !isAppendOnly(existing) && type === 'VARCHAR' && isIdentity(existing, column.name) && isSpelledOtherwise(column.type)
    if (canRewrite(column.shape, column.type, type) && !isOtherwiseSpelled) columns.push({ ...column, type, isPinned: hint !== undefined })
    else if (keepsPast(existing)) columns.push({ ...column, type: 'VARCHAR', isPinned: false, widenedFrom: column.type })
    else return null
  }
  return columns
}

/** Are rows told apart by this column? */
export function isIdentity({ key }: Pick<TableRecord, 'key'>, column: string): boolean {
  return key.length === 0 || key.includes(column)
}

/** May a value's text here be another than the source's: without zeros of the scale, or with other last digits? Rows are not found by it then. */
function isSpelledOtherwise(type: string): boolean {
  return /^(?:FLOAT|DOUBLE|DECIMAL\(\d+,\d+\))(?:\[\])?$/.test(type)
}

/** Rewrites the columns whose types differ, in every table that holds them. */
export async function retypeShapes(session: DatabaseSession, record: TableRecord, after: readonly TargetColumn[]): Promise<void> {
  const { columns: before } = record
  const changed = after.flatMap((column, index) => {
    const from = before[index]?.type
    if (from === undefined || from === column.type) return []
    return [{ isDropped: column.isDropped, expression: `${rewritten(from, column.type, quoteName(column.name))} AS ${quoteName(column.name)}` }]
  })
  for (const { kind, table } of tablesOf(record)) {
    const held = columnsOf(kind, changed)
    if (held.length > 0) await rewriteTable(session, table, [`* REPLACE (${held.map(({ expression }) => expression).join(', ')})`])
  }
}

/** A DuckDB expression for the same value in a column's other type. */
export function rewritten(from: string, to: string, value: string): string {
  if (to === 'VARCHAR') return toPostgresText(from, value)
  if (to.startsWith('TIMESTAMP')) return momentOf(from, to, value)
  // Numbers go through their digits.
  return isNumber(from) ? `CAST(${toPostgresText(from, value)} AS ${to})` : `CAST(${value} AS ${to})`
}

/** In UTC. DuckDB's own cast between the two kinds of timestamps is wrong by a millisecond in the last years. */
function momentOf(from: string, to: string, value: string): string {
  const moment = from === 'DATE' ? `CAST(${value} AS TIMESTAMP)` : value
  return `CASE WHEN isinf(${value}) THEN CAST(${value} AS ${to}) ELSE ${to === 'TIMESTAMP' ? 'make_timestamp' : 'make_timestamptz'}(epoch_us(${moment})) END`
}

const MOMENTS = ['DATE', 'TIMESTAMP', 'TIMESTAMPTZ']

/**
 * Can every value that a source column has put into a column of type `from` be held in `to` as the very same value? Numbers are the same
 * whatever their spelling.
 */
function canRewrite(shape: TypeShape, from: string, to: string): boolean {
  const natural = mapType(shape).type
  if (from === to) return true
  const isSourceNumber = shape.tag === 'base' && ['int2', 'int4', 'int8', 'numeric', 'float4', 'float8'].includes(shape.name ?? '')
  if (to === 'VARCHAR') return from === natural || from === 'JSON' || (isSourceNumber && isNumber(from))
  if (isSourceNumber && isNumber(from) && isNumber(to)) return (to === natural && !isFreeNumeric(shape)) || hasRoomFor(from, to)
  // What came from the source's type fits the type that it is mapped to.
  return to === natural && MOMENTS.includes(from) && MOMENTS.includes(to)
}

/** `numeric` without precision: its type at the destination holds most values, not all. */
function isFreeNumeric(shape: TypeShape): boolean {
  return shape.tag === 'base' && shape.name === 'numeric' && shape.typeModifier < 4
}

/** Digits before the point that any value of a type may have, and that every value with so many has room in it. */
const INTEGER_DIGITS: Readonly<Record<string, readonly [most: number, always: number]>> = {
  TINYINT: [3, 2],
  SMALLINT: [5, 4],
  INTEGER: [10, 9],
  BIGINT: [19, 18],
  HUGEINT: [39, 38],
  UTINYINT: [3, 0],
  USMALLINT: [5, 0],
  UINTEGER: [10, 0],
  UBIGINT: [20, 0],
  UHUGEINT: [39, 0],
}

interface Digits {
  readonly most: number
  readonly always: number
  readonly scale: number
}

function digitsOf(type: string): Digits | null {
  const decimal = /^DECIMAL\((\d+),(\d+)\)$/.exec(type)
  if (decimal !== null) {
    const digits = Number(decimal[1]) - Number(decimal[2])
    return { most: digits, always: digits, scale: Number(decimal[2]) }
  }
  const integer = INTEGER_DIGITS[type]
  return integer === undefined ? null : { most: integer[0], always: integer[1], scale: 0 }
}

function isNumber(type: string): boolean {
  return digitsOf(type) !== null || type === 'FLOAT' || type === 'DOUBLE'
}

function hasRoomFor(from: string, to: string): boolean {
  const [needed, room] = [digitsOf(from), digitsOf(to)]
  return needed !== null && room !== null && needed.most <= room.always && needed.scale <= room.scale
}
