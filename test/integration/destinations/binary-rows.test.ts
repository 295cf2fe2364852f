import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type DuckDBConnection, DuckDBInstance } from '@duckdb/node-api'
import fc from 'fast-check'
import type pg from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { binaryEncodings, type BinaryEncoding } from '../../../src/destinations/duckdb/binary-encoding.ts'
import { BinaryRowFile } from '../../../src/destinations/duckdb/binary-row-file.ts'
import { lineEncodings } from '../../../src/destinations/duckdb/line-encoding.ts'
import { LineFile, STAGING_TEXT } from '../../../src/destinations/duckdb/line-file.ts'
import { quoteText } from '../../../src/destinations/duckdb/sql.ts'
import { readStaged } from '../../../src/destinations/duckdb/staged-rows.ts'
import { targetColumns } from '../../../src/destinations/duckdb/type-mapping.ts'
import type { TargetColumn } from '../../../src/model/destination.ts'
import { readTables } from '../../../src/postgres/catalog.ts'
import { gatherBinaryRows } from '../../../src/postgres/copy-binary.ts'
import { CopyConnections } from '../../../src/postgres/copy-connections.ts'
import { packLines } from '../../../src/postgres/copy-lines.ts'
import { copyOut } from '../../../src/postgres/copy-out.ts'
import { parseCredentials } from '../../../src/postgres/credentials.ts'
import { connect } from '../../../src/postgres/session.ts'
import { toDomainError } from '../../../src/postgres/sqlstate.ts'
import { rowsOf } from '../../support/binary-rows.ts'
import { createDatabase, type TestDatabase } from '../../support/servers.ts'
import { testServers } from '../../support/test-servers.ts'
import { GENERATED_TYPES } from '../../support/type-arbitraries.ts'
import { TYPE_CASES } from '../../support/type-cases.ts'

/** Of each type (long mode: 5000), `ROUND_TRIP_SEED` where it begins. */
const VALUES = Number(process.env['ROUND_TRIP_VALUES'] ?? '60')
const SEED = Number(process.env['ROUND_TRIP_SEED'] ?? '22')

const DDL = "CREATE TYPE feeling AS ENUM ('ok', '', 'has space', 'ünï \"q\", NULL'); CREATE DOMAIN price AS numeric(12,4); CREATE DOMAIN label AS text"

const digits = (maxLength: number): fc.Arbitrary<string> => fc.array(fc.nat(9), { maxLength }).map((given) => given.join(''))
const numbers = (whole: number, fraction: number): fc.Arbitrary<string> => fc.tuple(fc.constantFrom('', '-'), digits(whole), digits(fraction)).map(([sign, before, behind]) => `${sign}0${before}.${behind}0`)
const endless = ['NaN', 'Infinity', '-Infinity']
const edges = (precision: number, scale: number): fc.Arbitrary<string> => {
  const nines = '9'.repeat(precision)
  const most = `${nines.slice(0, precision - scale)}.${nines.slice(precision - scale)}`
  return fc.constantFrom('0', most, `-${most}`, `0.${'0'.repeat(Math.max(0, scale - 1))}1`, '10000', '-99999999', '100010000', '9007199254740992', '9007199254740993', '0.0001', '1000000000000')
}

/** Numbers have a way of their own; all others are as the round trips have them. */
const NUMBERS: Readonly<Record<string, fc.Arbitrary<string>>> = {
  'numeric(4,2)': fc.oneof(numbers(2, 2), fc.constantFrom('99.99', '-99.99', '0.01', 'NaN')),
  'numeric(12,2)': numbers(10, 2),
  'numeric(15,5)': numbers(10, 5),
  'numeric(16,3)': numbers(13, 3),
  'numeric(18,0)': numbers(18, 0),
  'numeric(18,18)': numbers(0, 18),
  'numeric(18,7)': numbers(11, 7),
  'numeric(18,17)': numbers(1, 17),
  'numeric(30,5)': fc.oneof(numbers(13, 5), { arbitrary: numbers(25, 5), weight: 1 }),
  'numeric(38,8)': fc.oneof(numbers(10, 8), { arbitrary: numbers(30, 8), weight: 1 }),
  numeric: fc.oneof(numbers(9, 9), numbers(12, 3), { arbitrary: numbers(30, 12), weight: 1 }, fc.constantFrom(...endless, '1e100', '1e-100', '999999999.999999999', '-999999999.999999999', '1000000000', '0.000000001', '9223372036.854775807', '9223372036.854775808')),
  price: numbers(8, 4),
}
/** DuckDB has to tell what json does not fit. */
const ODD = new Set(['int2', 'int4', 'int8', 'oid', 'xid', 'cid', 'xid8', 'float4', 'float8', 'bool', 'uuid', 'bytea', 'text', 'varchar', 'bpchar', 'name', 'jsonb', 'date', 'time', 'timestamp', 'timestamptz', 'numeric with a modifier'])
const TYPES = ['smallint', 'integer', 'bigint', 'oid', 'xid8', 'real', 'double precision', 'boolean', 'text', 'varchar', 'char(5)', 'name', 'bytea', 'uuid', 'date', 'time', 'timestamp', 'timestamptz', 'json', 'jsonb', 'label', 'feeling']

describe.each(testServers())('rows in binary form of $name', ({ url }) => {
  const directory = mkdtempSync(join(tmpdir(), 'binary-rows-'))
  let database: TestDatabase
  let connections: CopyConnections
  let client: pg.Client
  let duckdb: DuckDBConnection
  let tables = 0

  beforeAll(async () => {
    database = await createDatabase(url)
    const credentials = parseCredentials(database.url)
    connections = new CopyConnections(credentials)
    client = await connect(credentials)
    await client.query(`SET search_path = public; ${DDL}`)
    duckdb = await (await DuckDBInstance.create()).connect()
    await duckdb.run("SET TimeZone = 'UTC'")
  })

  afterAll(async () => {
    await client.end()
    await connections.close()
    await database.drop()
    duckdb.closeSync()
    rmSync(directory, { recursive: true })
  })

  const query = async (sql: string): Promise<unknown[][]> => (await duckdb.runAndReadAll(sql)).getRowsJson()

  /** A table of these values, given as SQL; what does not fit the type is left out. */
  async function tableOf(type: string, values: readonly string[]): Promise<{ readonly name: string; readonly columns: readonly TargetColumn[] }> {
    const name = `t${String(tables++)}`
    await client.query(`CREATE TABLE ${name} (id int, v ${type})`)
    for (const [id, value] of values.entries()) {
      await client.query(`INSERT INTO ${name} SELECT ${String(id)}, (${value})::${type}`).catch((error: unknown) => {
        if (!/out of range|overflow/.test(String(error))) throw error
      })
    }
    await client.query(`INSERT INTO ${name} VALUES (-1, NULL)`)
    const { rows } = await client.query<{ oid: number }>('SELECT $1::regclass::oid AS oid', [name])
    const [table] = await readTables(client, rows.map(({ oid }) => oid), null)
    if (table === undefined) throw new Error(`no table ${name}`)
    return { name, columns: targetColumns(table, {}) }
  }

  async function copy(sql: string, handlers: Pick<Parameters<typeof copyOut>[1], 'isBinary' | 'onCopyData' | 'onDrained'>): Promise<void> {
    const connection = await connections.acquire()
    await copyOut(connection.client, { sql, ...handlers, mapError: (error) => toDomainError(error, { subject: 'copy' }) })
    await connection.release(true)
  }

  async function binaryRowsOf(name: string): Promise<readonly Buffer[]> {
    const found: Buffer[] = []
    const gather = gatherBinaryRows(({ buffer, bounds, rowCount }) => {
      for (let row = 0; row < rowCount; row++) found.push(Buffer.from(buffer.subarray(bounds[2 * row], bounds[2 * row + 1])))
    })
    await copy(`COPY (SELECT id, v FROM public.${name}) TO STDOUT (FORMAT binary)`, gather)
    return found
  }

  function take(rows: readonly Buffer[], encodings: readonly BinaryEncoding[]): BinaryRowFile | null {
    const file = new BinaryRowFile(join(directory, `rows-${String(tables++)}.parquet`), encodings)
    if (file.add(rowsOf(rows)) && file.end()) return file
    file.discard()
    return null
  }

  /** Checks all that fit, and returns the ids of those that do not, in their order: rows come in that of the table's pages. */
  async function compare(type: string, values: readonly string[]): Promise<readonly number[]> {
    const { name, columns } = await tableOf(type, values)
    const encodings = binaryEncodings(columns)
    const lines = lineEncodings(columns)
    if (encodings === null || lines === null) throw new Error('no such way')
    const rows = await binaryRowsOf(name)
    const fitting = rows.filter((row) => take([row], encodings) !== null)
    const unfit = rows.filter((row) => !fitting.includes(row)).map((row) => row.readInt32BE(6)).sort((a, b) => a - b)
    const file = take(fitting, encodings)
    const lineFile = new LineFile(join(directory, `${name}.lines`))
    const isFitting = unfit.length === 0 ? 'true' : `id NOT IN (${unfit.join(', ')})`
    await copy(`COPY (SELECT id, v FROM public.${name} WHERE ${isFitting}) TO STDOUT (FORMAT csv, DELIMITER ${quoteText(STAGING_TEXT.delimiter)}, QUOTE ${quoteText(STAGING_TEXT.quote)}, ESCAPE ${quoteText(STAGING_TEXT.quote)})`, packLines((given) => { lineFile.add(given) }))
    lineFile.close()
    expect(file?.rowCount).toBe(fitting.length)
    const staged = { longestRowBytes: lineFile.longestRowBytes, common: { commitLsn: 0n as never, commitTimeMicros: 0n, xid: 0 } }
    const typeNow = columns[1]?.type ?? ''
    await query(`CREATE OR REPLACE TABLE by_binary (id INTEGER, v ${typeNow})`)
    await query(`CREATE OR REPLACE TABLE by_lines (id INTEGER, v ${typeNow})`)
    await query(`INSERT INTO by_binary SELECT c0, ${encodings[1]?.cell.fromCsv('c1') ?? ''} FROM ${readStaged({ ...staged, path: file?.path ?? '', isParquet: true }, [])}`)
    await query(`INSERT INTO by_lines SELECT c0, ${lines[1]?.fromCsv('c1') ?? ''} FROM ${readStaged({ ...staged, path: lineFile.path, isParquet: false }, [['c0', 'INTEGER'], ['c1', lines[1]?.csvType ?? '']])}`)
    const [plain] = await query(`SELECT typeof(${encodings[1]?.cell.fromCsv('c1') ?? ''}) FROM read_parquet(${quoteText(file?.path ?? '')}) LIMIT 1`)
    expect(plain?.[0]).toBe(String((await query('SELECT typeof(v) FROM by_binary LIMIT 1'))[0]?.[0]))
    const differing = await query('SELECT b.id, l.id, b.v::VARCHAR, l.v::VARCHAR FROM by_binary b FULL JOIN by_lines l ON b.id = l.id WHERE b.v IS DISTINCT FROM l.v OR b.v::VARCHAR IS DISTINCT FROM l.v::VARCHAR OR b.id IS NULL OR l.id IS NULL LIMIT 5')
    expect(differing).toEqual([])
    expect(await query('SELECT count(*)::INTEGER, count(*) FILTER (v IS NULL)::INTEGER FROM by_binary')).toEqual([[fitting.length, 1]])
    return unfit
  }

  it.each(TYPES)('hold random values of %s as their lines do', async (type) => {
    const given = GENERATED_TYPES.find((generated) => generated.type === (type === 'label' ? 'text' : type))
    if (given === undefined) throw new Error(`no values of ${type}`)
    const values = fc.sample(given.values, { numRuns: VALUES, seed: SEED })
    const unfit = await compare(type, values.map(quoteText))
    // Years that DuckDB's timestamps do not have.
    expect(unfit.filter((id) => !/^2942(4[7-9]|[5-7]\d)-/.test(values[id] ?? ''))).toEqual([])
  })

  it.each(Object.entries(NUMBERS))('hold numbers of %s as their lines do, and leave out what has no place', async (type, arbitrary) => {
    const [precision = 38, scale = 9] = (/\d+,\d+/.exec(type)?.[0] ?? (type === 'price' ? '12,4' : '')).split(',').filter((text) => text !== '').map(Number)
    const values = fc.sample(fc.oneof(arbitrary, { arbitrary: edges(Math.min(18, precision), scale), weight: 1 }), { numRuns: 4 * VALUES, seed: SEED })
    const unfit = await compare(type, values.map(quoteText))
    const expected = values.flatMap((text, id) => (isHeld(text, precision, scale) === false ? [id] : []))
    expect(unfit).toEqual(expected)
  })

  it.each(TYPE_CASES.filter(({ name }) => ODD.has(name)))('hold the odd values of $name as their lines do, and leave out what has no place', async ({ type, values, widening = [] }) => {
    const unfit = await compare(type, [...values, ...widening])
    expect(unfit).toEqual(widening.map((_, place) => values.length + place))
  })
})

/** Null where the source does not take it. */
function isHeld(text: string, precision: number, scale: number): boolean | null {
  const isFree = precision === 38 && scale === 9
  if (text === 'NaN') return false
  if (text.endsWith('Infinity')) return isFree ? false : null
  const [, whole = '', fraction = ''] = /^-?(\d*)(?:\.(\d*))?$/.exec(text) ?? []
  // With an exponent: one that is too large, or too small.
  if (whole === '' && fraction === '') return false
  if (isFree && /[1-9]/.test(fraction.slice(scale))) return false
  const scaled = BigInt(whole + fraction.slice(0, scale).padEnd(scale, '0'))
  if (!isFree && scaled >= 10n ** BigInt(precision)) return null
  return scaled < 10n ** 18n
}
