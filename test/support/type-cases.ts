/** One PostgreSQL type as the destination must hold it. Values are SQL literals; each goes by snapshot and by stream. */
export interface TypeCase {
  /** A row of the type table by pg_type.typname, or what else it shows. */
  readonly name: string
  /** As in CREATE TABLE. */
  readonly type: string
  /** DuckDB's spelling. */
  readonly destination: string
  readonly values: readonly string[]
  /** Values that do not fit `destination`: the column becomes VARCHAR. */
  readonly widening?: readonly string[]
  /** DuckDB's value as the source's text; by default its own text. */
  readonly shown?: (value: string) => string
  /** Makes texts of one value equal, where a type has several. */
  readonly normal?: (text: string) => string
  /** The first PostgreSQL version that has it. */
  readonly since?: number
  /** False where there is no array of it, or the array is kept as text. */
  readonly hasList?: boolean
}

const beforeChrist = (text: string): string => `regexp_replace(${text}, '^([^ ]*) \\(BC\\)(.*)$', '\\1\\2 BC')`
const temporal = (value: string): string => beforeChrist(`${value}::VARCHAR`)
/** DuckDB shows a TIMESTAMPTZ of the last years rounded to milliseconds; it holds it exactly. */
const zoned = (value: string): string => `CASE WHEN isinf(${value}) THEN ${value}::VARCHAR ELSE ${beforeChrist(`(make_timestamp(epoch_us(${value}))::VARCHAR || '+00')`)} END`

const float = (round: (value: number) => number) => (text: string): string => {
  const value = round(Number(text.replace(/^(-?)inf$/, '$1Infinity')))
  return Object.is(value, -0) ? '-0' : String(value)
}

/** Scale is no part of a number, nor is the zero before the point. */
export function withoutTrailingZeros(text: string): string {
  return (text.includes('.') ? text.replace(/\.?0+$/, '') : text).replace(/^(-?)(\.|$)/, '$10$2')
}

/** Months, days and time of either side's text. */
function interval(text: string): string {
  const part = (unit: string): number => Number(new RegExp(`([+-]?\\d+) ${unit}s?\\b`).exec(text)?.[1] ?? 0)
  const time = /([+-]?)(\d+):(\d\d):(\d\d)(?:\.(\d+))?/.exec(text)
  const clock = time === null ? '0' : `${time[1] === '-' ? '-' : ''}${String(Number(time[2]) * 3600 + Number(time[3]) * 60 + Number(time[4]))}.${(time[5] ?? '').padEnd(6, '0')}`
  return text.includes('infinity') ? text : `${String(part('year') * 12 + part('mon') + part('month'))} ${String(part('day'))} ${clock === '0.000000' ? '0' : clock}`
}

const NASTY_TEXTS = [
  "''", "'NULL'", "'\\N'", "'\\.'", "'\"quoted\" ''single'' \\ back'", "E'tab\\tnl\\ncr\\rcrlf\\r\\nend'", "E'\\x1e\\x1f\\x01\\x7f'", "U&'\\FEFFbom'",
  "U&'\\+10FFFF\\+01F600 é e\\0301 \\200B'", "'a,b;c|d'", "'{}[]()'", "repeat('long ', 50000)", "' spaces '",
] as const // prettier-ignore

const JSON_TEXTS = ["'null'", "'{}'", "'[]'", "'\"\"'", "'{\"b\": 1, \"a\": [1.50, true, null, {\"c\": \"x\\\"\\\\\\n\"}]}'", "'123456789012345678901234567890.123456789'", "'\"\\u00e9\\ud83d\\ude00\"'", "'[\"\", \"é😀\"]'"] as const

const INTERVALS = ["'0'", "'1 year 2 mons 3 days 04:05:06.789'", "'-1 year -2 mons +3 days -04:05:06.000001'", "'178000000 years'", "'-178000000 years'", "'2147483647 days'", "'1000000:59:59.999999'", "'-00:00:00.000001'", "'30 days'", "'1 mon -1 day'", "'1 year 1 mon 1 day 1 second'", "'-1 mon +1 day'", "'1 year -1 mon 1 day -1 second'", "'-1 day +10:00:00'"] as const

export const TYPE_CASES: readonly TypeCase[] = [
  { name: 'int2', type: 'smallint', destination: 'SMALLINT', values: ['0', '-32768', '32767'] },
  { name: 'int4', type: 'integer', destination: 'INTEGER', values: ['0', '-2147483648', '2147483647'] },
  { name: 'int8', type: 'bigint', destination: 'BIGINT', values: ['0', '-9223372036854775808', '9223372036854775807', '9007199254740993'] },
  { name: 'oid', type: 'oid', destination: 'UINTEGER', values: ['0', '4294967295'] },
  { name: 'xid', type: 'xid', destination: 'UINTEGER', values: ["'0'", "'4294967295'"] },
  { name: 'cid', type: 'cid', destination: 'UINTEGER', values: ["'0'", "'4294967295'"] },
  { name: 'xid8', type: 'xid8', destination: 'UBIGINT', values: ["'0'", "'18446744073709551615'"] },
  {
    // DuckDB's run-length encoding takes −0 for the 0 that stands before it; so they stand apart here.
    name: 'float4',
    type: 'real',
    destination: 'FLOAT',
    values: ['100000', '999999', '-1000000', '1234567.5', '0.0001', '0.00001', '0', "'NaN'", "'-0'", "'Infinity'", "'-Infinity'", '1e-45', '3.4028235e38', '-3.4028235e38', '0.1', '16777217', '1e20'],
    normal: float(Math.fround),
  },
  {
    name: 'float8',
    type: 'double precision',
    destination: 'DOUBLE',
    values: ['999999999999999', '-1e15', '1234567890123456.5', '1e16', '0.0001', '0.00001', '0', "'NaN'", "'-0'", "'Infinity'", "'-Infinity'", '5e-324', '1.7976931348623157e308', '-1.7976931348623157e308', '0.1', '0.30000000000000004', '123456789012345680000'],
    normal: float((value) => value),
  },
  { name: 'bool', type: 'boolean', destination: 'BOOLEAN', values: ['true', 'false'], shown: (value) => `CASE WHEN ${value} THEN 't' WHEN NOT ${value} THEN 'f' END` },
  { name: 'uuid', type: 'uuid', destination: 'UUID', values: ["'00000000-0000-0000-0000-000000000000'", "'ffffffff-ffff-ffff-ffff-ffffffffffff'", "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'"] },
  { name: 'bytea', type: 'bytea', destination: 'BLOB', values: ["''", "'\\x00'", "'\\x00ff5c785c30'", "'\\xdeadbeef'", "decode(repeat('5c00', 20000), 'hex')"], shown: (value) => `'\\x' || lower(hex(${value}))` },
  { name: 'text', type: 'text', destination: 'VARCHAR', values: NASTY_TEXTS },
  { name: 'varchar', type: 'varchar(300000)', destination: 'VARCHAR', values: NASTY_TEXTS },
  { name: 'bpchar', type: 'char(6)', destination: 'VARCHAR', values: ["''", "'ab'", "'abcdef'", "' é'"] },
  { name: 'char', type: '"char"', destination: 'VARCHAR', values: ["''", "'x'", "E'\\n'"] },
  { name: 'name', type: 'name', destination: 'VARCHAR', values: ["''", "'a name'", "repeat('n', 63)"] },
  { name: 'json', type: 'json', destination: 'JSON', values: [...JSON_TEXTS, "'{\"z\": 1,  \"a\": 2, \"z\": 3}'", "' [1 , 2]\n'", "'1e400'", "'\"a\\u0000b\"'", "(repeat('[', 900) || repeat(']', 900))::json"], widening: ["'\"\\ud800\"'"] },
  { name: 'jsonb', type: 'jsonb', destination: 'JSON', values: [...JSON_TEXTS, "'{\"z\": 1, \"a\": 2, \"z\": 3}'", "'1e400'"] },
  {
    name: 'date',
    type: 'date',
    destination: 'DATE',
    values: ["'2024-02-29'", "'infinity'", "'-infinity'", "'4713-01-01 BC'", "'0001-12-31 BC'", "'0001-01-01'", "'5874897-12-31'", "'10000-01-01'"],
    shown: temporal,
  },
  { name: 'time', type: 'time', destination: 'TIME', values: ["'00:00'", "'24:00:00'", "'23:59:59.999999'", "'12:00:00.1'"] },
  { name: 'timetz', type: 'timetz', destination: 'TIME WITH TIME ZONE', values: ["'00:00:00+15:59:59'", "'24:00:00-15:59:59'", "'12:34:56.789+05:30'", "'23:59:59.999999+00'"] },
  {
    name: 'timestamp',
    type: 'timestamp',
    destination: 'TIMESTAMP',
    values: ["'2024-02-29 23:59:59.999999'", "'infinity'", "'-infinity'", "'4713-01-01 00:00:00 BC'", "'0044-03-15 12:00:00.5 BC'", "'294246-12-31 23:59:59.999999'", "'2016-12-31 23:59:60'", "'12345-01-01 00:00:00'"],
    widening: ["'294276-12-31 23:59:59.999999'"],
    shown: temporal,
  },
  {
    name: 'timestamptz',
    type: 'timestamptz',
    destination: 'TIMESTAMP WITH TIME ZONE',
    values: ["'2024-02-29 23:59:59.999999+00'", "'infinity'", "'-infinity'", "'4713-01-02 00:00:00+00 BC'", "'0044-03-15 12:00:00.5+00 BC'", "'294246-12-31 23:59:59.999999+00'", "'2024-06-01 12:00:00+05:30'"],
    widening: ["'294276-12-31 23:59:59.999999+00'"],
    shown: zoned,
  },
  {
    name: 'interval',
    type: 'interval',
    destination: 'INTERVAL',
    values: INTERVALS,
    normal: interval,
  },
  // Before 15 no interval has so many hours.
  { name: 'interval from 15', type: 'interval', destination: 'INTERVAL', values: ["'2562047788:00:54.775807'", "'-2562047788:00:54.775807'", "'292471208677 s 1 mon'", "'1 year -2562047788:00:54.775807'"], widening: ["'-2562047788:00:54.775807'::interval - '1 us'"], normal: interval, since: 15 },
  { name: 'interval from 17', type: 'interval', destination: 'INTERVAL', values: INTERVALS, widening: ["'infinity'", "'-infinity'"], normal: interval, since: 17 },
  {
    name: 'numeric',
    type: 'numeric',
    destination: 'DECIMAL(38,9)',
    values: ['0', '1.10', '-0.000000001', '99999999999999999999999999999.999999999', '-99999999999999999999999999999.999999999', "'0.0000000000'", '0.5000000000000'],
    widening: ["'NaN'", "'Infinity'", "'-Infinity'", '100000000000000000000000000000', '0.0000000001', "('1' || repeat('0', 2000) || '.' || repeat('3', 500))::numeric"],
    normal: withoutTrailingZeros,
  },
  { name: 'numeric with a modifier', type: 'numeric(10,2)', destination: 'DECIMAL(10,2)', values: ['0', '99999999.99', '-99999999.99', '0.01', '1.5'], widening: ["'NaN'"], normal: withoutTrailingZeros },
  { name: 'numeric of full width', type: 'numeric(38,0)', destination: 'DECIMAL(38,0)', values: ['99999999999999999999999999999999999999', '-99999999999999999999999999999999999999'], normal: withoutTrailingZeros },
  { name: 'numeric with a negative scale', type: 'numeric(5,-2)', destination: 'DECIMAL(7,0)', values: ['9999900', '-9999900', '0', '149'], widening: ["'NaN'"], normal: withoutTrailingZeros, since: 15 },
  { name: 'numeric with more scale than precision', type: 'numeric(3,5)', destination: 'DECIMAL(5,5)', values: ['0.00999', '-0.00001', '0'], widening: ["'NaN'"], normal: withoutTrailingZeros, since: 15 },
  { name: 'numeric wider than DECIMAL', type: 'numeric(40,2)', destination: 'VARCHAR', values: ['99999999999999999999999999999999999999.99', '1.50', "'NaN'"], hasList: false },
  { name: 'enum', type: 'mood', destination: 'VARCHAR', values: ["'ok'", "''", "'has space'", "'ünï \"q\", NULL'"] },
  { name: 'domain over int', type: 'positive', destination: 'INTEGER', values: ['1', '2147483647'], hasList: false },
  { name: 'domain over a domain over numeric', type: 'price', destination: 'DECIMAL(12,4)', values: ['0.0001', '99999999.9999'], widening: ["'NaN'"], normal: withoutTrailingZeros, hasList: false },
  {
    name: 'array of a domain over int',
    type: 'positive[]',
    destination: 'INTEGER[]',
    values: ["'{}'", "'{NULL}'", "'{1,NULL,2147483647}'"],
    widening: ["'{{1,2},{3,4}}'", "'[2:3]={1,2}'"],
    shown: (value) => `'{' || array_to_string(list_transform(${value}, lambda x: coalesce(x::VARCHAR, 'NULL')), ',') || '}'`,
    hasList: false,
  },
  { name: 'array of a domain over an array', type: 'counts[]', destination: 'VARCHAR', values: ["'{}'", "'{NULL}'", "'{\"{1,2}\",NULL,\"{}\",\"{{3},{4}}\"}'"], hasList: false },
  { name: 'domain over text', type: 'label', destination: 'VARCHAR', values: NASTY_TEXTS, hasList: false },
  ...(
    [
      ['inet', ["'10.0.0.1'", "'10.1.2.3/8'", "'::1'"]],
      ['cidr', ["'10.0.0.0/8'"]],
      ['macaddr', ["'08:00:2b:01:02:03'"]],
      ['money', ["'1234.56'", "'-0.01'"]],
      ['pg_lsn', ["'16/B374D848'"]],
      ['point', ["'(1.5,-2)'"]],
      ['int4range', ["'[1,10)'", "'empty'", "'(,5]'"]],
      ['tstzrange', ["'[2024-01-01 00:00+00,infinity)'"]],
      ['tsvector', ["'a fat cat:3A'"]],
      ['bit(3)', ["B'101'"]],
      ['bit varying', ["B''", "B'1011'"]],
      ['xml', ["'<a b=\"c\">d</a>'"]],
      ['pair', ["ROW(1, 'x,\"y\" z')::pair", 'ROW(NULL, NULL)::pair', "ROW(0, '')::pair"]],
      ['jsonpath', ["'$.a[*] ? (@ > 1)'"]],
      ['macaddr8', ["'08:00:2b:01:02:03:04:05'"]],
      ['int8range', ["'[-9223372036854775808,9223372036854775807)'", "'empty'"]],
      ['numrange', ["'[1.50,)'", "'(-infinity,NaN]'"]],
      ['daterange', ["'[0044-03-15 BC,infinity)'"]],
      ['tsrange', ["'[2024-01-01 00:00,2024-01-02 00:00]'"]],
      ['int4multirange', ["'{[1,3),[5,9)}'", "'{}'"]],
      ['nummultirange', ["'{[1.5,2.5),[3.25,)}'"]],
      ['tsquery', ["'fat & (rat | !cat:*A)'"]],
      ['line', ["'{1,-2,0.1}'"]],
      ['lseg', ["'[(0,-0),(1e300,-Infinity)]'"]],
      ['box', ["'(2,2),(0.1,NaN)'"]],
      ['path', ["'((0,0),(1,1))'", "'[(0,0),(1,1)]'"]],
      ['polygon', ["'((0,0),(1,1),(2,0))'"]],
      ['circle', ["'<(0,0),5e-324>'"]],
      ['pg_snapshot', ["'10:20:10,14,15'"]],
      ['txid_snapshot', ["'10:20:10,14,15'"]],
      ['tid', ["'(4294967295,65535)'"]],
      ['int2vector', ["'1 -2 3'"]],
      ['regclass', ["'pg_class'", "'-'"]],
      ['regtype', ["'integer'"]],
      ['hstore', ["''", "'a=>1, \"b c\"=>NULL, \"\\\"q\"=>\"\\\\,=>\"'"]],
      ['citext', ["'MiXed'", "''"]],
      ['ltree', ["'Top.Science.Astronomy'"]],
      ['nested', ["ROW(ROW(1, 'x,\"y\" z\\')::pair, ARRAY['a', NULL, '\"'])::nested"]],
      ['pair_domain', ["ROW(1, 'd')::pair"]],
      ['inet[]', ["ARRAY['10.0.0.1', NULL]::inet[]", "'{}'"]],
      ['money[]', ["ARRAY[1234.5::money]"]],
      ['box[]', ["ARRAY['(2,2),(0,0)', NULL]::box[]"]],
      ['int4range[]', ["ARRAY['[1,3)', 'empty']::int4range[]"]],
      ['pair[]', ["ARRAY[ROW(1, '\"')::pair, NULL]"]],
      ['numeric(1000,500)', ["('0.' || repeat('3', 500))::numeric", "'NaN'"]],
    ] as const
  ).map(([type, values]) => ({ name: `${type} as text`, type, destination: 'VARCHAR', values, hasList: false })),
]

/** What the cases need in the source database. */
export const TYPE_CASE_DDL = `
  CREATE TYPE mood AS ENUM ('ok', '', 'has space', 'ünï "q", NULL');
  CREATE DOMAIN positive AS int CHECK (value > 0);
  CREATE DOMAIN counts AS int[];
  CREATE DOMAIN amount AS numeric(12,4);
  CREATE DOMAIN price AS amount CHECK (value >= 0);
  CREATE DOMAIN label AS text;
  CREATE TYPE pair AS (a int, b text);
  CREATE TYPE nested AS (p pair, l text[]);
  CREATE DOMAIN pair_domain AS pair;
  CREATE EXTENSION hstore; CREATE EXTENSION citext; CREATE EXTENSION ltree`
