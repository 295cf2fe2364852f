import { afterAll, beforeAll, expect, inject, it } from 'vitest'
import type { ColumnHint } from '../../../src/model/spec.ts'
import { specOf, TestPipeline } from '../../support/pipeline.ts'
import { createDatabase, type TestDatabase } from '../../support/servers.ts'

/** One hint for a column of one source type, the type that it gives, and values as SQL with what DuckDB shows of them. */
interface HintCase {
  readonly hint: ColumnHint
  readonly type: string
  readonly held: string
  readonly values: Readonly<Record<string, string>>
}

const of = (dataType: string, type: string, held: string, values: HintCase['values']): HintCase => ({ hint: { dataType }, type, held, values })

const HINT_CASES: readonly HintCase[] = [
  // dlt's names.
  of('text', 'numeric(8,2)', 'VARCHAR', { '1.50': '1.50', '-0.01': '-0.01', "'NaN'": 'NaN' }),
  of('text', 'timestamptz', 'VARCHAR', { "'2024-02-29 12:00+02'": '2024-02-29 10:00:00+00', "'0044-03-15 00:00+00 BC'": '0044-03-15 00:00:00+00 BC', "'infinity'": 'infinity' }),
  of('text', 'float8[]', 'VARCHAR', { "'{1e20,NULL,0.1}'": '{1e+20,NULL,0.1}', "'[2:2]={5}'": '[2:2]={5}' }),
  of('double', 'bigint', 'DOUBLE', { '9007199254740992': '9007199254740992.0', '-3': '-3.0' }),
  of('double', 'numeric', 'DOUBLE', { '0.5': '0.5', '-1024.25': '-1024.25' }),
  of('double', 'real', 'DOUBLE', { '0.5': '0.5', "'NaN'": 'nan', "'-Infinity'": '-inf' }),
  of('bool', 'text', 'BOOLEAN', { "'true'": 'true', "'f'": 'false' }),
  of('bool', 'boolean', 'BOOLEAN', { true: 'true', false: 'false' }),
  of('timestamp', 'timestamp', 'TIMESTAMP WITH TIME ZONE', { "'2024-02-29 23:59:59.999999'": '2024-02-29 23:59:59.999999+00', "'-infinity'": '-infinity', "'0044-03-15 12:00 BC'": '0044-03-15 (BC) 12:00:00+00' }),
  of('timestamp', 'date', 'TIMESTAMP WITH TIME ZONE', { "'2024-02-29'": '2024-02-29 00:00:00+00', "'infinity'": 'infinity' }),
  of('timestamp', 'timestamptz', 'TIMESTAMP WITH TIME ZONE', { "'2024-02-29 12:00+05:30'": '2024-02-29 06:30:00+00' }),
  of('bigint', 'numeric', 'BIGINT', { '9223372036854775807': '9223372036854775807', '-9223372036854775808': '-9223372036854775808', '5': '5' }),
  of('bigint', 'integer', 'BIGINT', { '-2147483648': '-2147483648' }),
  of('bigint', 'text', 'BIGINT', { "'12'": '12' }),
  of('binary', 'bytea', 'BLOB', { "'\\x00ff41'": '\\x00\\xFFA', "''": '' }),
  of('json', 'text', 'JSON', { "'{\"b\": 1,  \"b\": 2.50}'": '{"b": 1,  "b": 2.50}', "'null'": 'null' }),
  of('json', 'jsonb', 'JSON', { "'[1, \"é\"]'": '[1, "é"]' }),
  of('complex', 'json', 'JSON', { "'{\"a\":1}'": '{"a":1}' }),
  of('decimal', 'text', 'DECIMAL(38,9)', { "'1.5'": '1.500000000', "'-99999999999999999999999999999.999999999'": '-99999999999999999999999999999.999999999' }),
  of('decimal', 'bigint', 'DECIMAL(38,9)', { '9223372036854775807': '9223372036854775807.000000000' }),
  { hint: { dataType: 'decimal', precision: 20, scale: 4 }, type: 'numeric', held: 'DECIMAL(20,4)', values: { '9999999999999999.9999': '9999999999999999.9999', '-0.00010': '-0.0001' } },
  { hint: { precision: 6, scale: 1 }, type: 'double precision', held: 'DECIMAL(6,1)', values: { '12345.5': '12345.5', '-2': '-2.0' } },
  of('wei', 'numeric', 'DECIMAL(38,0)', { '99999999999999999999999999999999999999': '99999999999999999999999999999999999999', '-1.0': '-1' }),
  of('date', 'date', 'DATE', { "'2024-02-29'": '2024-02-29', "'infinity'": 'infinity', "'0044-03-15 BC'": '0044-03-15 (BC)' }),
  of('time', 'time', 'TIME', { "'24:00'": '24:00:00', "'12:00:00.000001'": '12:00:00.000001' }),
  // DuckDB's.
  ...Object.entries({ TINYINT: ['-128', '127'], SMALLINT: ['-32768', '32767'], INTEGER: ['-2147483648', '2147483647'], BIGINT: ['-9223372036854775808', '9223372036854775807'], UTINYINT: ['0', '255'], USMALLINT: ['65535'], UINTEGER: ['4294967295'], UBIGINT: ['18446744073709551615'] }).flatMap(([dataType, numbers]) =>
    ['numeric', 'text'].map((type) => of(dataType, type, dataType, Object.fromEntries(numbers.map((number) => [`'${number}'`, number])))),
  ),
  of('HUGEINT', 'numeric', 'HUGEINT', { '170141183460469231731687303715884105727': '170141183460469231731687303715884105727', "'-170141183460469231731687303715884105728'": '-170141183460469231731687303715884105728' }),
  of('UHUGEINT', 'numeric', 'UHUGEINT', { '340282366920938463463374607431768211455': '340282366920938463463374607431768211455' }),
  of('INTEGER', 'oid', 'INTEGER', { '2147483647': '2147483647' }),
  of('FLOAT', 'double precision', 'FLOAT', { '0.5': '0.5', '16777216': '16777216.0' }),
  of('DOUBLE', 'integer', 'DOUBLE', { '2147483647': '2147483647.0' }),
  of('DECIMAL(5,2)', 'double precision', 'DECIMAL(5,2)', { '999.25': '999.25' }),
  of('DECIMAL(18,18)', 'numeric', 'DECIMAL(18,18)', { '0.123456789012345678': '.123456789012345678' }),
  of('UUID', 'text', 'UUID', { "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'": 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11' }),
  of('TIMESTAMP', 'timestamptz', 'TIMESTAMP', { "'2024-02-29 12:00+05:30'": '2024-02-29 06:30:00', "'infinity'": 'infinity' }),
  of('TIMESTAMP', 'date', 'TIMESTAMP', { "'2024-02-29'": '2024-02-29 00:00:00' }),
  of('VARCHAR', 'interval', 'VARCHAR', { "'1 mon -1 day'": '1 mon -1 days' }),
  of('TIMETZ', 'timetz', 'TIME WITH TIME ZONE', { "'12:00+05:30'": '12:00:00+05:30' }),
  of('INTERVAL', 'interval', 'INTERVAL', { "'1 mon'": '1 month' }),
]

/** With such a column beside it a copied row is taken cell by cell. */
const WAYS = { '': '', _c: ', by_cells interval' } as const

const TABLES = HINT_CASES.flatMap((given, index) => Object.entries(WAYS).map(([suffix, more]) => ({ ...given, table: `h${String(index)}${suffix}`, more })))
const title = ({ dataType, precision, scale }: ColumnHint): string => `${dataType ?? ''}${precision === undefined ? '' : `(${String(precision)},${String(scale)})`}`

let database: TestDatabase
let pipeline: TestPipeline

beforeAll(async () => {
  database = await createDatabase(inject('postgresUrl'))
  pipeline = new TestPipeline(database.url, specOf({ slotName: 'hinted', tableNames: TABLES.map(({ table }) => table), columns: Object.fromEntries(TABLES.map(({ table, hint }) => [table, { v: hint }])) }))
  const insertion = ({ table, values }: (typeof TABLES)[number], firstId: number): string => `INSERT INTO ${table} (id, v) VALUES ${[...Object.keys(values), 'NULL'].map((value, index) => `(${String(firstId + index)}, ${value})`).join(', ')}`
  for (const given of TABLES) await pipeline.sql(`CREATE TABLE ${given.table} (id int PRIMARY KEY, v ${given.type}${given.more}); ${insertion(given, 1)}`)
  await pipeline.initialize()
  await pipeline.copy()
  for (const given of TABLES) await pipeline.sql(`${insertion(given, 101)}; UPDATE ${given.table} SET id = id + 100 WHERE id > 100`)
  const { progress } = await pipeline.catchUp()
  expect(Object.entries(progress.tables).filter(([, { state }]) => state !== 'streaming')).toEqual([])
})

afterAll(async () => {
  await pipeline[Symbol.asyncDispose]()
  await database.drop()
})

it.each(HINT_CASES.map((given, index) => ({ ...given, index, name: title(given.hint) })))('$name for $type is held as $held, by copy and by stream', async ({ index, held, values }) => {
  for (const suffix of Object.keys(WAYS)) {
    const table = `h${String(index)}${suffix}`
    expect(await pipeline.query(`SELECT data_type FROM duckdb_columns() WHERE table_name = '${table}' AND column_name = 'v'`)).toEqual([[held]])
    const texts = [...Object.values(values), null]
    expect(await pipeline.query(`SELECT id, v::VARCHAR FROM public.${table} ORDER BY id`)).toEqual([1, 201].flatMap((firstId) => texts.map((text, place) => [firstId + place, text])))
  }
})

/** A value that fits its hint, and some that do not. */
const MISFITS: readonly { readonly dataType: string; readonly type: string; readonly fitting: string; readonly misfits: readonly string[] }[] = [
  { dataType: 'SMALLINT', type: 'integer', fitting: '-32768', misfits: ['32768', '-32769'] },
  { dataType: 'UINTEGER', type: 'numeric', fitting: '4294967295', misfits: ['-1', '4294967296', '1.5', "'NaN'", "'-Infinity'"] },
  { dataType: 'HUGEINT', type: 'numeric', fitting: '5', misfits: ['170141183460469231731687303715884105728', '0.1', '5.0'] },
  { dataType: 'bigint', type: 'text', fitting: "'12'", misfits: ["'twelve'", "'9223372036854775808'", "''"] },
  { dataType: 'DECIMAL(6,2)', type: 'numeric', fitting: '9999.990', misfits: ['10000', '0.001', "'NaN'", "'Infinity'"] },
  { dataType: 'DECIMAL(6,2)', type: 'double precision', fitting: '0.25', misfits: ['0.125', "'Infinity'", '1e300'] },
  { dataType: 'decimal', type: 'text', fitting: "'-1.5'", misfits: ["'1.5 €'", "'0.0000000001'"] },
  { dataType: 'double', type: 'numeric', fitting: '0.1', misfits: ['0.12345678901234567890', '1e400'] },
  { dataType: 'double', type: 'bigint', fitting: '9007199254740992', misfits: ['9007199254740993'] },
  { dataType: 'FLOAT', type: 'double precision', fitting: '0.5', misfits: ['0.12345678901', '1e300'] },
  { dataType: 'TIMESTAMP', type: 'date', fitting: "'294246-12-31'", misfits: ["'5874897-12-31'"] },
  { dataType: 'timestamp', type: 'timestamp', fitting: "'infinity'", misfits: ["'294276-12-31'"] },
  { dataType: 'UUID', type: 'text', fitting: "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", misfits: ["'a0eebc99'", "''"] },
  { dataType: 'bool', type: 'text', fitting: "'true'", misfits: ["'maybe'"] },
]

// Cause: the error named the key's columns alone, so nobody could tell which rows it was about.
it.each(['copy', 'stream'])('tells a query that finds the rows whose values do not fit, and no value, by %s', async (way) => {
  const tables = MISFITS.map((given, index) => ({ ...given, table: `misfit_${way}_${String(index)}` }))
  await using own = new TestPipeline(database.url, specOf({ slotName: `misfits_${way}`, tableNames: tables.map(({ table }) => table), columns: Object.fromEntries(tables.map(({ table, dataType }) => [table, { v: { dataType } }])) }))
  const insertMisfits = async (): Promise<void> => {
    for (const { table, misfits } of tables) for (const [index, value] of misfits.entries()) await own.sql(`INSERT INTO ${table} VALUES ('m${String(index)}', 'x', ${value})`)
  }
  for (const { table, type, fitting } of tables) await own.sql(`CREATE TABLE ${table} (a text, "B" text, v ${type}, PRIMARY KEY (a, "B")); INSERT INTO ${table} VALUES ('fits', 'x', ${fitting}), ('null', 'x', NULL)`)
  if (way === 'copy') await insertMisfits()
  await own.initialize()
  await own.copy()
  if (way === 'stream') await insertMisfits()
  const { progress } = await own.catchUp()
  for (const { table, dataType, type, misfits } of tables) {
    const error = progress.tables[`public.${table}`]?.error
    expect([dataType, type, error?.type]).toEqual([dataType, type, 'UnrepresentableValue'])
    const query = /At the source this finds the rows: (SELECT .*?);/.exec(error?.remedy ?? '')?.[1] ?? ''
    const { rows } = await own.sql(query)
    expect([dataType, type, (rows as { a: string; B: string }[]).map(({ a, B }) => [a, B]).sort()]).toEqual([dataType, type, misfits.map((_, index) => [`m${String(index)}`, 'x'])])
  }
})
