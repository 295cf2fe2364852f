import type { TableRecord, TargetColumn } from '../../model/destination.ts'
import { quoteName, quoteTable, quoteText } from './sql.ts'

/**
 * A query for the source that finds the rows whose value of a column does not fit the type that a hint asks for: errors never say a value, of the key
 * neither. Where the column's text is what counts, it finds such rows too as fit by luck (`'yes'` for a BOOLEAN). Null for types of which SQL that every
 * version has cannot tell.
 */
export function misfitQuery({ source, key }: Pick<TableRecord, 'source' | 'key'>, { name, type, shape }: Pick<TargetColumn, 'name' | 'type'> & Partial<Pick<TargetColumn, 'shape'>>): string | null {
  const sourceType = shape?.tag === 'base' ? (shape.name ?? '') : ''
  const condition = conditionOf(quoteName(name), sourceType, type)
  const shown = key.length === 0 ? 'ctid' : key.map(quoteName).join(', ')
  return condition === null ? null : `SELECT ${shown} FROM ${quoteTable(source)} WHERE ${condition}`
}

const TEXTS: ReadonlySet<string> = new Set(['text', 'varchar', 'bpchar'])
const MOMENTS: ReadonlySet<string> = new Set(['date', 'timestamp', 'timestamptz'])
const NUMBERS: ReadonlySet<string> = new Set(['int2', 'int4', 'int8', 'oid', 'xid8', 'numeric', 'float4', 'float8'])
const INTEGER_BITS: Readonly<Record<string, number>> = { TINYINT: 8, SMALLINT: 16, INTEGER: 32, BIGINT: 64, HUGEINT: 128 }

function conditionOf(value: string, sourceType: string, type: string): string | null {
  if (TEXTS.has(sourceType)) {
    if (type === 'UUID') return `${value} !~* ${quoteText('^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$')}`
    if (type === 'BOOLEAN') return `lower(${value}) NOT IN ('t', 'f', 'true', 'false')`
    const isUnfit = unfitNumber('n', type)
    return isUnfit === null ? null : `CASE WHEN ${value} ~ ${quoteText('^-?[0-9]+([.][0-9]+)?$')} THEN (SELECT ${isUnfit} FROM (SELECT ${value}::numeric) AS given(n)) ELSE ${value} IS NOT NULL END`
  }
  if (MOMENTS.has(sourceType)) return type.startsWith('TIMESTAMP') ? `${value} >= '294247-01-01' AND ${value} <> 'infinity'` : null
  const isUnfit = NUMBERS.has(sourceType) ? unfitNumber('n', type) : null
  // The shortest text of a float is what it is taken as.
  return isUnfit === null ? null : `(SELECT ${isUnfit} FROM (SELECT ${value}::text::numeric) AS given(n))`
}

/** Of a numeric: NaN is more than any other to PostgreSQL. */
function unfitNumber(n: string, type: string): string | null {
  const bits = INTEGER_BITS[type] ?? INTEGER_BITS[type.slice(1)]
  if (bits !== undefined) {
    const [min, max] = type.startsWith('U') ? [0n, 2n ** BigInt(bits) - 1n] : [-(2n ** BigInt(bits - 1)), 2n ** BigInt(bits - 1) - 1n]
    return `${n} NOT BETWEEN ${String(min)} AND ${String(max)} OR scale(${n}) > 0`
  }
  const [, precision = '', scale = ''] = /^DECIMAL\((\d+),(\d+)\)$/.exec(type) ?? []
  if (precision !== '') return `abs(${n}) >= 1e${String(Number(precision) - Number(scale))} OR ${n} <> round(${n}, ${scale})`
  if (type !== 'DOUBLE' && type !== 'FLOAT') return null
  const [floats, range] = type === 'DOUBLE' ? ['float8', 'BETWEEN 1e-307 AND 1e308'] : ['float4', 'BETWEEN 1e-37 AND 1e38']
  return `CASE WHEN ${n} IN (0, 'NaN', 'Infinity', '-Infinity') THEN false WHEN abs(${n}) ${range} THEN ${n} <> ${n}::${floats}::text::numeric ELSE ${n} IS NOT NULL END`
}
