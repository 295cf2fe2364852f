import type { TargetColumn } from '../../model/destination.ts'
import type { KeyRange } from '../../model/source.ts'
import { literalOf } from './literals.ts'
import { quoteName } from './sql.ts'

/** Types of the source whose b-tree order is that of the types here which hold their values exactly. Texts have collations, which are the server's. */
const ORDERED_SOURCES: ReadonlySet<string> = new Set(['int2', 'int4', 'int8', 'oid', 'xid8', 'float4', 'float8', 'numeric', 'bool', 'uuid', 'bytea', 'date', 'time', 'timestamp', 'timestamptz'])
const ORDERED_TARGETS = /^(?:U?(?:TINY|SMALL|BIG|HUGE)INT|U?INTEGER|FLOAT|DOUBLE|DECIMAL\(.*|BOOLEAN|UUID|BLOB|DATE|TIME|TIMESTAMP|TIMESTAMPTZ)$/

/** Do rows stand in the same order here as at the source, by this column? */
export function sharesOrder({ shape, type }: TargetColumn): boolean {
  return shape.tag === 'base' && ORDERED_SOURCES.has(shape.name ?? '') && ORDERED_TARGETS.test(type)
}

/**
 * The condition `lower < key ≤ upper`; null = no bound. Keys that are NULL, which no row of the source has, belong to the first range. Of a key whose columns all
 * {@link sharesOrder}.
 */
export function keyRangeCondition(key: readonly TargetColumn[], { lower, upper }: KeyRange): string | null {
  const conditions = [...(lower === null ? [] : [compare(key, '>', lower)]), ...(upper === null ? [] : [compare(key, '<=', upper)])]
  if (conditions.length === 0) return null
  const inRange = conditions.join(' AND ')
  if (lower !== null) return inRange
  return `(${inRange}) OR ${key.map(({ name }) => `${quoteName(name)} IS NULL`).join(' OR ')}`
}

/** Written out from the last column; and by the first column alone once more, which lets DuckDB leave out what it need not read. */
function compare(key: readonly TargetColumn[], operator: '>' | '<=', bound: readonly string[]): string {
  const strict = operator === '>' ? '>' : '<'
  const literals = key.map((column, index) => literalOf(column, bound[index] ?? null) ?? 'NULL')
  const whole = key.reduceRight((rest, { name }, index) => {
    const is = (comparison: string): string => `${quoteName(name)} ${comparison} ${literals[index] ?? 'NULL'}`
    return rest === '' ? is(operator) : `(${is(strict)} OR (${is('=')} AND ${rest}))`
  }, '')
  const [first] = key
  return key.length < 2 || first === undefined ? whole : `${quoteName(first.name)} ${strict}= ${literals[0] ?? 'NULL'} AND ${whole}`
}
