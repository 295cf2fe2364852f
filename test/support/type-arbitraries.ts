import fc from 'fast-check'

/** Random values of one PostgreSQL type, as texts that the source casts. */
export interface GeneratedType {
  /** As in CREATE TABLE. */
  readonly type: string
  /** DuckDB's name of the type that the column has in the end. */
  readonly held: string
  /** The last of the values: it does not fit the type that the others have, so `held` is VARCHAR. */
  readonly widening?: string
  readonly values: fc.Arbitrary<string>
  /** Makes texts of one value equal, where a type has several. */
  readonly normal?: (text: string) => string
  /** False where there is no list type of it, or no type of lists at all. */
  readonly hasLists?: boolean
}

const integer = (bits: number): fc.Arbitrary<string> => {
  const limit = 2n ** BigInt(bits - 1)
  return fc.oneof(fc.bigInt({ min: -limit, max: limit - 1n }), fc.constantFrom(-limit, limit - 1n, 0n, -1n)).map(String)
}

const unsigned = (bits: number): fc.Arbitrary<string> => fc.oneof(fc.bigInt({ min: 0n, max: 2n ** BigInt(bits) - 1n }), fc.constantFrom(0n, 2n ** BigInt(bits) - 1n)).map(String)

/** Without −0: see docs/types.md. */
const floats = (values: fc.Arbitrary<number>): fc.Arbitrary<string> => values.map((value) => String(value === 0 ? 0 : value))

const digits = (maxLength: number): fc.Arbitrary<string> => fc.array(fc.nat(9), { maxLength }).map((given) => given.join(''))

const decimals = (whole: number, fraction: number): fc.Arbitrary<string> =>
  fc.tuple(fc.constantFrom('', '-'), digits(whole), digits(fraction)).map(([sign, before, behind]) => `${sign}0${before}.${behind}0`)

/** Mostly what DECIMAL(38,9) holds; now and then what widens the column, so that nearly all are text. */
const freeNumerics = fc.oneof(
  { arbitrary: decimals(29, 9), weight: 40 },
  { arbitrary: decimals(60, 60), weight: 1 },
  { arbitrary: fc.constantFrom('NaN', '1e-20', '1e100'), weight: 1 },
)

const texts = fc.oneof(
  { arbitrary: fc.string({ unit: 'binary' }).map((text) => text.replaceAll('\u0000', '')), weight: 3 },
  { arbitrary: fc.string({ unit: fc.constantFrom('\n', '\r', '\t', '\u001e', '\u001f', '"', "'", '\\', ',', '.', 'N', '{', '}', ' ', 'a', '\ufeff', '\u007f', '\u0085', '\u2028') }), weight: 3 },
  { arbitrary: fc.constantFrom('', '\\N', '\\.', 'NULL', 'null', '\ufeff', ' ', '\n', '\r\n', '""', "''"), weight: 1 },
  { arbitrary: fc.string({ minLength: 2_000, maxLength: 20_000, unit: 'grapheme' }).map((text) => text.replaceAll('\u0000', '')), weight: 1 },
)

const two = (value: number): string => String(value).padStart(2, '0')
const times = fc.oneof(
  fc.integer({ min: 0, max: 86_399_999_999 }).map((micros) => `${two(Math.floor(micros / 3.6e9))}:${two(Math.floor(micros / 6e7) % 60)}:${two(Math.floor(micros / 1e6) % 60)}.${String(micros % 1_000_000).padStart(6, '0')}`),
  fc.constantFrom('24:00:00', '00:00:00', '23:59:60'),
)
const years = fc.oneof({ arbitrary: fc.integer({ min: 1900, max: 2100 }), weight: 3 }, { arbitrary: fc.integer({ min: -4712, max: 294_246 }), weight: 1 }).filter((year) => year !== 0)
/** Without the last years, which widen a timestamp column. */
const days = fc.tuple(years, fc.integer({ min: 1, max: 12 }), fc.integer({ min: 1, max: 28 })).map(([year, month, day]) => ({ day: `${String(Math.abs(year)).padStart(4, '0')}-${two(month)}-${two(day)}`, era: year < 0 ? ' BC' : '' }))
const endless = fc.constantFrom('infinity', '-infinity')
const dates = fc.oneof({ arbitrary: days.map(({ day, era }) => `${day}${era}`), weight: 9 }, { arbitrary: fc.constantFrom('infinity', '-infinity', '5874897-12-31', '4713-01-01 BC'), weight: 1 })
const moments = (zone: fc.Arbitrary<string>): fc.Arbitrary<string> =>
  fc.oneof({ arbitrary: fc.tuple(days, times, zone).map(([{ day, era }, time, offset]) => `${day} ${time}${offset}${era}`), weight: 9 }, { arbitrary: endless, weight: 1 })
const offsets = fc.tuple(fc.constantFrom('+', '-'), fc.integer({ min: 0, max: 15 }), fc.integer({ min: 0, max: 59 })).map(([sign, hours, minutes]) => `${sign}${two(hours)}:${two(minutes)}`)
const intervals = fc
  .tuple(fc.oneof(fc.integer({ min: -30, max: 30 }), fc.integer()), fc.oneof(fc.integer({ min: -40, max: 40 }), fc.integer()), fc.oneof(fc.integer({ min: -100, max: 100 }), fc.integer({ min: -2e15, max: 2e15 })))
  // Before 15 no unit takes a number of more than 32 bits.
  .map(([months, dayCount, micros]) => `${String(months)} mons ${String(dayCount)} days ${micros < 0 ? '-' : ''}${String(Math.trunc(Math.abs(micros) / 1e6))}.${String(Math.abs(micros) % 1e6).padStart(6, '0')} seconds`)

const bytes = fc.uint8Array({ maxLength: 40 }).map((array) => `\\x${Buffer.from(array).toString('hex')}`)
const bits = (constraints: fc.StringConstraints): fc.Arbitrary<string> => fc.string({ ...constraints, unit: fc.constantFrom('0', '1') })
const octets = fc.tuple(fc.nat(255), fc.nat(255), fc.nat(255), fc.nat(255)).map((parts) => parts.join('.'))
const hexBytes = (length: number): fc.Arbitrary<string> => fc.uint8Array({ minLength: length, maxLength: length }).map((array) => [...array].map((byte) => byte.toString(16).padStart(2, '0')).join(':'))
const documents = fc.oneof(fc.json(), fc.jsonValue({ maxDepth: 3 }).map((value) => JSON.stringify(value, null, 1)), fc.constantFrom('{"a":1,"a":2}', '1e400', '-0.0', '123456789012345678901234567890.1230')).filter((text) => !/\\u0000|\\ud[89a-f]/i.test(text))
const points = fc.tuple(fc.double({ noNaN: true, noDefaultInfinity: true }), fc.double({ noNaN: true, noDefaultInfinity: true })).map(([x, y]) => `(${String(x)},${String(y)})`)

/** Digits behind the last one that counts are no part of a number. */
export const withoutScale = (text: string): string => (/^-?\d+\.\d+$/.test(text) ? text.replace(/\.?0+$/, '') : text)

/** A number of floating point has many texts. */
const asNumber = (round: (value: number) => number) => (text: string): string => (/^-?[\d.]+(e[+-]?\d+)?$/.test(text) ? String(round(Number(text))) : text)

const SCALARS: readonly GeneratedType[] = [
  { type: 'smallint', held: 'SMALLINT', values: integer(16) },
  { type: 'integer', held: 'INTEGER', values: integer(32) },
  { type: 'bigint', held: 'BIGINT', values: integer(64) },
  { type: 'oid', held: 'UINTEGER', values: unsigned(32) },
  { type: 'xid8', held: 'UBIGINT', values: unsigned(64) },
  { type: 'real', held: 'FLOAT', values: floats(fc.float()), normal: asNumber(Math.fround) },
  { type: 'double precision', held: 'DOUBLE', values: floats(fc.double()), normal: asNumber((value) => value) },
  { type: 'numeric', held: 'DECIMAL(38,9)', values: decimals(29, 9), normal: withoutScale },
  { type: 'numeric', held: 'VARCHAR', widening: 'NaN', values: decimals(29, 9), normal: withoutScale },
  { type: 'numeric', held: 'VARCHAR', widening: '1e-20', values: freeNumerics, normal: withoutScale },
  { type: 'numeric(12,2)', held: 'DECIMAL(12,2)', values: decimals(10, 3), normal: withoutScale },
  { type: 'numeric(38,38)', held: 'DECIMAL(38,38)', values: decimals(0, 38), normal: withoutScale },
  { type: 'numeric(1000,500)', held: 'VARCHAR', values: decimals(400, 400) },
  { type: 'boolean', held: 'BOOLEAN', values: fc.constantFrom('t', 'f') },
  { type: 'text', held: 'VARCHAR', values: texts },
  { type: 'varchar', held: 'VARCHAR', values: texts },
  { type: 'char(5)', held: 'VARCHAR', values: fc.string({ unit: fc.constantFrom('a', ' ', 'é', '\n', '"'), maxLength: 5 }) },
  { type: 'name', held: 'VARCHAR', values: fc.string({ unit: fc.constantFrom('a', ' ', '"', 'é'), maxLength: 30 }) },
  { type: '"char"', held: 'VARCHAR', values: fc.constantFrom('a', '', '\n', '"', '\\', ' ') },
  { type: 'bytea', held: 'BLOB', values: bytes },
  { type: 'uuid', held: 'UUID', values: fc.uuid() },
  { type: 'date', held: 'DATE', values: dates },
  { type: 'time', held: 'TIME', values: times },
  { type: 'timetz', held: 'TIME WITH TIME ZONE', values: fc.tuple(times, offsets).map((parts) => parts.join('')) },
  { type: 'timestamp', held: 'TIMESTAMP', values: moments(fc.constant('')) },
  { type: 'timestamp', held: 'VARCHAR', widening: '294276-12-31 23:59:59.999999', values: moments(fc.constant('')) },
  { type: 'timestamptz', held: 'TIMESTAMP WITH TIME ZONE', values: moments(offsets) },
  { type: 'interval', held: 'INTERVAL', values: intervals },
  { type: 'json', held: 'JSON', values: documents },
  { type: 'jsonb', held: 'JSON', values: documents },
]

const AS_TEXT: readonly GeneratedType[] = [
  { type: 'money', held: 'VARCHAR', values: fc.bigInt({ min: -(2n ** 62n), max: 2n ** 62n }).map((cents) => `${String(cents / 100n)}.5`) },
  { type: 'bit(7)', held: 'VARCHAR', values: bits({ minLength: 7, maxLength: 7 }) },
  { type: 'varbit', held: 'VARCHAR', values: bits({ maxLength: 70 }) },
  { type: 'inet', held: 'VARCHAR', values: fc.oneof(octets, fc.ipV6(), fc.tuple(octets, fc.nat(32)).map((parts) => parts.join('/'))) },
  { type: 'cidr', held: 'VARCHAR', values: octets },
  { type: 'macaddr', held: 'VARCHAR', values: hexBytes(6) },
  { type: 'macaddr8', held: 'VARCHAR', values: hexBytes(8) },
  { type: 'pg_lsn', held: 'VARCHAR', values: fc.tuple(fc.nat(), fc.nat()).map(([high, low]) => `${high.toString(16)}/${low.toString(16)}`) },
  { type: 'point', held: 'VARCHAR', values: points },
  { type: 'circle', held: 'VARCHAR', values: fc.tuple(points, fc.double({ min: 0, max: 1e300, noNaN: true })).map(([center, radius]) => `<${center},${String(radius)}>`) },
  { type: 'tsvector', held: 'VARCHAR', values: fc.array(fc.string({ unit: fc.constantFrom('a', 'b', "'", '\\', 'é', ' ') }).map((word) => `'${word.replaceAll(/['\\]/g, '$&$&')}'`), { minLength: 1, maxLength: 4 }).map((words) => words.filter((word) => word !== "''").join(' ')) },
  { type: 'int8range', held: 'VARCHAR', values: fc.tuple(fc.integer(), fc.nat(1000), fc.constantFrom('[]', '[)', '(]', '()')).map(([from, length, ends]) => `${ends[0] ?? ''}${String(from)},${String(from + length)}${ends[1] ?? ''}`) },
  { type: 'nummultirange', held: 'VARCHAR', values: fc.array(fc.tuple(fc.integer(), fc.nat(1000))).map((ranges) => `{${ranges.map(([from, length]) => `[${String(from)},${String(from + length)}]`).join(',')}}`) },
  { type: 'int4[]', held: 'VARCHAR', values: fc.array(fc.array(fc.integer(), { minLength: 2, maxLength: 2 }), { minLength: 1, maxLength: 3 }).map((rows) => JSON.stringify(rows).replaceAll('[', '{').replaceAll(']', '}')) },
]

const words = fc.string({ unit: fc.constantFrom('a', 'Z', '9', '_'), minLength: 1, maxLength: 5 })
const numbersUp = fc.array(fc.nat(1_000_000), { minLength: 2, maxLength: 5 }).map((numbers) => [...new Set([0, 2_000_000, ...numbers])].sort((a, b) => a - b))

const MORE_AS_TEXT: readonly GeneratedType[] = [
  { type: 'lseg', held: 'VARCHAR', values: fc.tuple(points, points).map((ends) => `[${ends.join(',')}]`) },
  { type: 'box', held: 'VARCHAR', values: fc.tuple(points, points).map((corners) => corners.join(',')) },
  { type: 'path', held: 'VARCHAR', values: fc.tuple(fc.array(points, { minLength: 1, maxLength: 4 }), fc.boolean()).map(([list, isOpen]) => (isOpen ? `[${list.join(',')}]` : `(${list.join(',')})`)) },
  { type: 'polygon', held: 'VARCHAR', values: fc.array(points, { minLength: 1, maxLength: 4 }).map((list) => `(${list.join(',')})`) },
  { type: 'line', held: 'VARCHAR', values: fc.tuple(fc.integer({ min: 1 }), fc.integer(), fc.double({ noNaN: true, noDefaultInfinity: true })).map((parts) => `{${parts.map(String).join(',')}}`) },
  { type: 'tsquery', held: 'VARCHAR', values: fc.array(words, { minLength: 1, maxLength: 4 }).map((list) => list.map((word) => `'${word}':*`).join(' & !')) },
  { type: 'numrange', held: 'VARCHAR', values: fc.tuple(decimals(5, 5), fc.constantFrom('[', '('), fc.constantFrom(']', ')'), fc.boolean()).map(([edge, open, close, isLower]) => (isLower ? `${open}${edge},${close}` : `${open},${edge}${close}`)) },
  { type: 'tstzrange', held: 'VARCHAR', values: fc.tuple(moments(offsets), fc.boolean()).map(([edge, isLower]) => (isLower ? `["${edge}",)` : `(,"${edge}"]`)) },
  { type: 'daterange', held: 'VARCHAR', values: fc.tuple(days, fc.boolean()).map(([{ day, era }, isLower]) => (isLower ? `["${day}${era}",)` : `(,"${day}${era}"]`)) },
  { type: 'pg_snapshot', held: 'VARCHAR', values: numbersUp.map((numbers) => `${String((numbers[1] ?? 1))}:2000000:${numbers.slice(1, -1).join(',')}`) },
  { type: 'jsonpath', held: 'VARCHAR', values: words.map((word) => `$."${word}"[*] ? (@ > 1.5 && @.x == "é\\"")`) },
  { type: 'xml', held: 'VARCHAR', values: texts.map((text) => `<a>${text.replaceAll(/[^\t\n\x20-\x7e\u00a0-\ud7ff]/g, '').replaceAll('&', '&amp;').replaceAll('<', '&lt;')}</a>`) },
  { type: 'hstore', held: 'VARCHAR', values: fc.array(fc.tuple(texts, fc.option(texts)), { maxLength: 4 }).map((pairs) => pairs.map(([key, value]) => `${backslashed(key)}=>${value === null ? 'NULL' : backslashed(value)}`).join(',')) },
  { type: 'citext', held: 'VARCHAR', values: texts },
  { type: 'ltree', held: 'VARCHAR', values: fc.array(words, { minLength: 1, maxLength: 5 }).map((labels) => labels.join('.')) },
  { type: 'inet[]', held: 'VARCHAR', values: listsOf(octets) },
  { type: 'box[]', held: 'VARCHAR', values: fc.array(fc.tuple(points, points).map((corners) => corners.join(',')), { maxLength: 3 }).map((list) => `{${list.join(';')}}`) },
  { type: 'citext[]', held: 'VARCHAR', values: listsOf(texts) },
]

function backslashed(text: string): string {
  return `"${text.replaceAll(/["\\]/g, '\\$&')}"`
}

/** A list of values as PostgreSQL reads it; NULLs among them. */
function listsOf(values: fc.Arbitrary<string>): fc.Arbitrary<string> {
  const item = fc.option(values, { freq: 5 })
  return fc.array(item, { maxLength: 5 }).map((items) => `{${items.map((text) => (text === null ? 'NULL' : `"${text.replaceAll(/["\\]/g, '\\$&')}"`)).join(',')}}`)
}

/** Items of a list apart: its normal text is that of its items. */
function normalOfList(normal: (text: string) => string): (text: string) => string {
  return (text) => text.replaceAll(/[^{},"]+/g, (item) => normal(item))
}

const LISTS: readonly GeneratedType[] = SCALARS.map(({ type, held, widening, values, normal }) => ({
  type: `${type}[]`,
  held: held === 'VARCHAR' && (widening !== undefined || type.startsWith('numeric')) ? held : `${held}[]`,
  values: listsOf(values),
  ...(widening === undefined ? {} : { widening: `{"${widening}"}` }),
  ...(normal === undefined ? {} : { normal: normalOfList(normal) }),
}))

/** Types of the source's own. */
export const GENERATED_DDL = `
  CREATE EXTENSION hstore; CREATE EXTENSION citext; CREATE EXTENSION ltree;
  CREATE TYPE feeling AS ENUM ('ok', '', 'has space', 'ünï "q", NULL');
  CREATE DOMAIN counts AS int[];
  CREATE TYPE pair AS (a int, b text);
  CREATE TYPE nest AS (p pair, l text[]);
  CREATE DOMAIN pairs AS pair`

const OWN: readonly GeneratedType[] = [
  { type: 'feeling', held: 'VARCHAR', values: fc.constantFrom('ok', '', 'has space', 'ünï "q", NULL') },
  { type: 'feeling[]', held: 'VARCHAR[]', values: listsOf(fc.constantFrom('ok', '', 'has space', 'ünï "q", NULL')) },
  { type: 'counts', held: 'INTEGER[]', values: listsOf(integer(32)) },
  { type: 'pair', held: 'VARCHAR', values: composite(texts) },
  { type: 'pairs', held: 'VARCHAR', values: composite(texts) },
  { type: 'pair[]', held: 'VARCHAR', values: listsOf(composite(texts)) },
  { type: 'nest', held: 'VARCHAR', values: fc.tuple(composite(texts), listsOf(texts)).map(([pair, list]) => `(${quoted(pair)},${quoted(list)})`) },
]

function quoted(text: string): string {
  return `"${text.replaceAll(/["\\]/g, '$&$&')}"`
}

function composite(values: fc.Arbitrary<string>): fc.Arbitrary<string> {
  return fc.tuple(fc.option(integer(32)), fc.option(values)).map(([a, b]) => `(${a ?? ''},${b === null ? '' : quoted(b)})`)
}

export const GENERATED_TYPES: readonly GeneratedType[] = [...SCALARS, ...LISTS, ...AS_TEXT, ...MORE_AS_TEXT, ...OWN]
