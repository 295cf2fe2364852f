import type { TargetColumn } from '../../model/destination.ts'
import { isToldByText } from './row-identity.ts'
import { toPostgresText } from './type-mapping.ts'

type ComparedColumn = Pick<TargetColumn, 'type' | 'shape' | 'widenedFrom'>

const FLOATS = /^(?:FLOAT|DOUBLE)(\[\])?$/

/**
 * An expression by which values of a column are compared, so that those are equal, and only those, that the source does not tell apart either: DuckDB takes
 * `1 month` for `30 days`. The sign of a zero does not count, as DuckDB does not always keep it (docs/adr/0010-negative-zero.md). `value` may be used many times.
 */
export function comparedValue(column: ComparedColumn, value: string): string {
  const { type, shape, widenedFrom } = column
  if (FLOATS.test(type)) return withoutSign(type, value)
  if (isToldByText(type)) return `${value}::VARCHAR`
  if (type !== 'VARCHAR') return value
  // Digits behind a number's last one that counts went where its column became text, and are there in what came later.
  if (shape.tag === 'base' && shape.name === 'numeric') return `CASE WHEN regexp_full_match(${value}, '-?[0-9]+[.][0-9]+') THEN rtrim(rtrim(${value}, '0'), '.') ELSE ${value} END`
  return FLOATS.test(widenedFrom ?? '') ? numbersOf(widenedFrom ?? '', value) : value
}

/** What a compared value adds to the text that stands for a whole row: the same text for equal values. */
export function comparedText(column: ComparedColumn, compared: string): string {
  const { type } = column
  if (isToldByText(type) && !FLOATS.test(type)) return compared
  return toPostgresText(type, `(${compared})`)
}

/** 0 for −0. */
function withoutSign(type: string, value: string): string {
  return type.endsWith('[]') ? `list_transform(${value}, lambda f: f + 0)` : `(${value} + 0)`
}

/** Floats that became text may have other digits than the source's text of them (see `floatText`): each is read as the number that it is. */
function numbersOf(widenedFrom: string, text: string): string {
  const type = widenedFrom.replace('[]', '')
  const shape = `regexp_replace(${text}, '[^{},]+', '', 'g')`
  return `${shape} || list_transform(regexp_extract_all(${text}, '[^{},]+'), lambda f: coalesce((TRY_CAST(f AS ${type}) + 0)::VARCHAR, f))::VARCHAR`
}
