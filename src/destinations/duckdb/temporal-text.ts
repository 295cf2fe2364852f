/** The first year that DuckDB's TIMESTAMP cannot hold whole. */
const FIRST_YEAR_PAST_TIMESTAMP = 294_247

/**
 * PostgreSQL's text of a date or timestamp (DateStyle ISO) as DuckDB reads it: `0044-03-15 01:02:03 BC` →
 * `0044-03-15 (BC) 01:02:03` (DuckDB would silently drop a plain `BC`). Null where DuckDB's type cannot hold it: `isMoment`
 * = a timestamp, whatever the text is of.
 */
export function rewriteTemporal(text: string, isMoment: boolean): string | null {
  if (text === 'infinity' || text === '-infinity') return text
  const match = /^(\d+)(-\d\d-\d\d)(.*?)( BC)?$/.exec(text)
  if (match === null) return null
  const [, year = '', monthDay = '', time = '', era] = match
  if (isMoment && era === undefined && Number(year) >= FIRST_YEAR_PAST_TIMESTAMP) return null
  return `${year}${monthDay}${era === undefined ? '' : ' (BC)'}${time}`
}

/** Without its sign. */
const LEAST_MICROS = 2n ** 63n

const INTERVAL_TEXT = /^(?:([+-]?\d+) years? ?)?(?:([+-]?\d+) mons? ?)?(?:([+-]?\d+) days? ?)?(?:([+-]?)(\d+):(\d\d):(\d\d)(?:\.(\d+))?)?$/

/**
 * PostgreSQL's text of an interval (IntervalStyle postgres) as months, days and microseconds, which DuckDB keeps apart as
 * PostgreSQL does. Null for ±infinity, and for the least microseconds of 64 bits, which DuckDB (1.5.5) does not read.
 */
export function rewriteInterval(text: string): string | null {
  const match = INTERVAL_TEXT.exec(text)
  if (match === null || text === '') return null
  const [, years, months, days, sign, hours, minutes, seconds, fraction] = match
  const allMonths = Number(years ?? 0) * 12 + Number(months ?? 0)
  const micros = (BigInt(hours ?? 0) * 3600n + BigInt(minutes ?? 0) * 60n + BigInt(seconds ?? 0)) * 1_000_000n + BigInt((fraction ?? '').padEnd(6, '0'))
  if (sign === '-' && micros === LEAST_MICROS) return null
  return `${String(allMonths)} months ${String(Number(days ?? 0))} days ${sign === '-' ? '-' : ''}${String(micros)} microseconds`
}
