/**
 * DuckDB expressions for PostgreSQL's text of a value, where the two differ. Each names `value` many times: it is to be a column or a
 * lambda's parameter.
 */

/** Digits without trailing zeros of the scale, which are no part of the value. DuckDB leaves out the zero before the point of a DECIMAL(p,p). */
export function decimalText(value: string): string {
  const trimmed = `CASE WHEN contains(${value}::VARCHAR, '.') THEN rtrim(rtrim(${value}::VARCHAR, '0'), '.') ELSE ${value}::VARCHAR END`
  return `regexp_replace(${trimmed}, '^(-?)(\\.|$)', '\\10\\2')`
}

/** PostgreSQL's text of a numeric, or of an array of them, without trailing zeros behind the point: `{1.50,2.000}` → `{1.5,2}`. */
export function withoutScale(text: string): string {
  const shortened = `regexp_replace(${text}, '(\\.[0-9]*?)0+([,}]|$)', '\\1\\2', 'g')`
  return `regexp_replace(${shortened}, '\\.([,}]|$)', '\\1', 'g')`
}

/**
 * A text that gives the same number; PostgreSQL turns to exponents at 10^6 (float4) and 10^15 (float8), DuckDB at 10^16. The last digits may be
 * others than PostgreSQL's: of a FLOAT DuckDB shows more than the shortest text has, and where two are equally near it takes the other.
 *
 * Source: https://github.com/postgres/postgres/blob/REL_18_STABLE/src/common/f2s.c (float_to_shortest_decimal_bufn), d2s.c
 */
export function floatText(type: 'FLOAT' | 'DOUBLE', value: string): string {
  const plain = `regexp_replace(${value}::VARCHAR, '\\.0$', '')`
  const whole = `split_part(ltrim(${plain}, '-'), '.', 1)`
  const digits = `rtrim(replace(ltrim(${plain}, '-'), '.', ''), '0')`
  const fraction = `CASE WHEN length(${digits}) > 1 THEN '.' || substr(${digits}, 2) ELSE '' END`
  const scientific = `CASE WHEN ${value} < 0 THEN '-' ELSE '' END || ${digits}[1] || ${fraction} || 'e+' || lpad((length(${whole}) - 1)::VARCHAR, 2, '0')`
  const isLong = `abs(${value}) >= ${type === 'FLOAT' ? '1e6' : '1e15'} AND abs(${value}) < 1e16`
  return `CASE WHEN isnan(${value}) THEN 'NaN' WHEN isinf(${value}) THEN CASE WHEN ${value} > 0 THEN 'Infinity' ELSE '-Infinity' END
    WHEN ${isLong} THEN ${scientific} ELSE ${plain} END`
}

/** In UTC. DuckDB's own text of a TIMESTAMPTZ is rounded to milliseconds in years from about 290000 on: its TIMESTAMP's is not. */
export function momentText(type: 'TIMESTAMP' | 'TIMESTAMPTZ', value: string): string {
  const [plain, zone] = type === 'TIMESTAMP' ? [`${value}::VARCHAR`, ''] : [`make_timestamp(epoch_us(${value}))::VARCHAR`, '+00']
  const finite = `CASE WHEN contains(${plain}, ' (BC)') THEN replace(${plain}, ' (BC)', '') || '${zone} BC' ELSE ${plain} || '${zone}' END`
  return `CASE WHEN isinf(${value}) THEN ${value}::VARCHAR ELSE ${finite} END`
}

/**
 * IntervalStyle postgres: `1 year -2 mons +3 days -04:05:06.7`. A part has a plus behind a negative one, and is plural unless it is 1.
 *
 * Source: https://github.com/postgres/postgres/blob/REL_18_STABLE/src/backend/utils/adt/datetime.c (EncodeInterval)
 */
export function intervalText(value: string): string {
  const [years, months, days] = ['year', 'month', 'day'].map((part) => `datepart('${part}', ${value})`) as [string, string, string]
  // The last part before it that is not zero decides.
  const isBefore = { months: `${years} < 0`, days: `(${months} < 0 OR (${months} = 0 AND ${years} < 0))`, time: `(${days} < 0 OR (${days} = 0 AND (${months} < 0 OR (${months} = 0 AND ${years} < 0))))` }
  const part = (count: string, unit: string, behindNegative: string) =>
    `CASE WHEN ${count} <> 0 THEN CASE WHEN ${count} > 0 AND ${behindNegative} THEN '+' ELSE '' END || ${count} || ' ${unit}' || CASE WHEN ${count} <> 1 THEN 's' ELSE '' END END`
  const [hours, minutes, micros] = ['hour', 'minute', 'microsecond'].map((unit) => `abs(datepart('${unit}', ${value}))`) as [string, string, string]
  const isNegative = `(datepart('hour', ${value}) < 0 OR datepart('minute', ${value}) < 0 OR datepart('microsecond', ${value}) < 0)`
  const fraction = `CASE WHEN ${micros} % 1000000 <> 0 THEN '.' || rtrim(lpad((${micros} % 1000000)::VARCHAR, 6, '0'), '0') ELSE '' END`
  const clock = `${twoDigits(hours)} || ':' || ${twoDigits(minutes)} || ':' || ${twoDigits(`(${micros} // 1000000)`)} || ${fraction}`
  const time = `CASE WHEN ${hours} + ${minutes} + ${micros} <> 0 OR (${years} = 0 AND ${months} = 0 AND ${days} = 0)
    THEN CASE WHEN ${isNegative} THEN '-' WHEN ${isBefore.time} THEN '+' ELSE '' END || ${clock} END`
  return `CASE WHEN ${value} IS NOT NULL THEN concat_ws(' ', ${part(years, 'year', 'false')}, ${part(months, 'mon', isBefore.months)}, ${part(days, 'day', isBefore.days)}, ${time}) END`
}

function twoDigits(count: string): string {
  return `CASE WHEN ${count} < 10 THEN '0' ELSE '' END || ${count}`
}
