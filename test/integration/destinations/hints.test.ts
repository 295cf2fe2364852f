import { rmSync, writeFileSync, mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type DuckDBConnection, DuckDBInstance } from '@duckdb/node-api'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { CellWriter } from '../../../src/destinations/duckdb/cell-writer.ts'
import { lineEncodings } from '../../../src/destinations/duckdb/line-encoding.ts'
import { rewritten } from '../../../src/destinations/duckdb/retype.ts'
import { readStaged } from '../../../src/destinations/duckdb/staged-rows.ts'
import { encodingFor, mapType, toPostgresText, typeOfHint } from '../../../src/destinations/duckdb/type-mapping.ts'
import { type CellEncoding, valueOfText } from '../../../src/destinations/duckdb/cell-encoding.ts'
import type { TargetColumn } from '../../../src/model/destination.ts'
import type { ColumnHint } from '../../../src/model/spec.ts'
import type { TypeShape } from '../../../src/model/table-schema.ts'

const base = (name: string): TypeShape => ({ tag: 'base', oid: 0, name, typeModifier: -1 })

/** dlt's names, and DuckDB's types that a hint may name. */
const HINTS: readonly ColumnHint[] = [
  ...['text', 'double', 'bool', 'timestamp', 'bigint', 'binary', 'json', 'complex', 'decimal', 'wei', 'date', 'time'],
  ...['TINYINT', 'SMALLINT', 'INTEGER', 'BIGINT', 'HUGEINT', 'UTINYINT', 'USMALLINT', 'UINTEGER', 'UBIGINT', 'UHUGEINT', 'FLOAT', 'DOUBLE', 'DECIMAL(5,2)', 'DECIMAL(18,18)', 'DECIMAL(38,37)'],
  ...['VARCHAR', 'BLOB', 'UUID', 'BOOLEAN', 'JSON', 'DATE', 'TIME', 'TIMETZ', 'TIMESTAMP', 'TIMESTAMPTZ', 'TIMESTAMP_S', 'TIMESTAMP_NS', 'INTERVAL', 'BIT'],
].map((dataType) => ({ dataType }))

const integers = (bits: number, isSigned = true): fc.Arbitrary<string> => {
  const [min, max] = isSigned ? [-(2n ** BigInt(bits - 1)), 2n ** BigInt(bits - 1) - 1n] : [0n, 2n ** BigInt(bits) - 1n]
  return fc.oneof(fc.bigInt({ min, max }), fc.constantFrom(min, max, 0n, 1n, 127n, 128n, 255n, 256n, 32768n, 65536n).filter((value) => value >= min && value <= max)).map(String)
}
const digits = (maxLength: number): fc.Arbitrary<string> => fc.string({ unit: fc.constantFrom('0', '0', '1', '5', '9'), minLength: 1, maxLength })
const numerics = fc.oneof(
  fc.tuple(fc.constantFrom('', '-'), digits(45), fc.option(digits(45))).map(([sign, whole, fraction]) => `${sign}${whole.replace(/^0+(?=.)/, '')}${fraction === null ? '' : `.${fraction}`}`),
  fc.constantFrom('NaN', 'Infinity', '-Infinity', '0', '0.00', '0.1', '16777217', '9007199254740993', '170141183460469231731687303715884105728', '340282366920938463463374607431768211455'),
)
const texts = fc.oneof(
  numerics,
  fc.constantFrom('', ' ', '-', '.', '-.', '+', '+5', '5.', '.5', '-.5', ' 5', '5 ', '1e3', '1E-3', '0x10', '1_000', '007', '-0', '٣', '5\n', 'inf', 'nan', 'null', 'NULL'),
  fc.constantFrom('t', 'f', 'true', 'FALSE', 'yes', '1', '0', 'on', '{}', '[1', '"a"', '{"a": 1, "a": 2.50}', 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11', 'a0eebc999c0b4ef8bb6d6bb9bd380a11', '{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}'),
  fc.string({ maxLength: 6 }),
)
const floats = (values: fc.Arbitrary<number>): fc.Arbitrary<string> => values.map((value) => String(value).replace(/^-?0$/, '0'))
const dates = fc.constantFrom('2024-02-29', 'infinity', '-infinity', '4713-01-01 BC', '0001-01-01', '5874897-12-31', '294246-12-31', '294247-01-01', '10000-01-01')
const moments = (zone: string): fc.Arbitrary<string> => fc.constantFrom('2024-02-29 23:59:59.999999', '0044-03-15 12:00:00.5 BC', '294246-12-31 23:59:59.999999', '294276-12-31 23:59:59.999999', '1970-01-01 00:00:00').map((text) => text.replace(/( BC)?$/, `${zone}$1`))

const SOURCES: Readonly<Record<string, fc.Arbitrary<string>>> = {
  int2: integers(16), int4: integers(32), int8: integers(64), oid: integers(32, false), xid8: integers(64, false), numeric: numerics, float4: floats(fc.float().map(Math.fround)), float8: floats(fc.double()),
  text: texts, varchar: texts, bpchar: texts, date: dates, timestamp: moments(''), timestamptz: moments('+00'), json: fc.constantFrom('{"b": 1,  "b": 2}', '1.50', '""'), jsonb: fc.constantFrom('{}', '1.50', 'null'),
  bool: fc.constantFrom('t', 'f'), uuid: fc.uuid(), bytea: fc.constantFrom('\\x', '\\x00ff'), time: fc.constantFrom('24:00:00', '12:00:00.5'), timetz: fc.constantFrom('12:00:00+05:30'), interval: fc.constantFrom('1 day', '-00:00:01'),
  inet: fc.constantFrom('10.0.0.1'), money: fc.constantFrom('$1.00'), bit: fc.constantFrom('101'), name: fc.constantFrom('5', 'x'),
} // prettier-ignore

interface Accepted {
  readonly source: string
  readonly hint: string
  readonly column: TargetColumn
}

function accepted(): readonly Accepted[] {
  return Object.keys(SOURCES).flatMap((source) =>
    HINTS.flatMap((hint) => {
      const type = typeOrNull(hint, base(source))
      const column = { name: 'v', attributeNumber: 1, typeOid: 0, typeModifier: -1, typeName: source, shape: base(source), isNotNull: false, isGenerated: false, hasDefault: false, type: type ?? '', isPinned: true, isDropped: false }
      return type === null ? [] : [{ source, hint: hint.dataType ?? '', column }]
    }),
  )
}

function typeOrNull(hint: ColumnHint, shape: TypeShape): string | null {
  try {
    return typeOfHint(hint, shape, 't.v')
  } catch {
    return null
  }
}

/** One hint for each type that it may come to. */
const PAIRS = accepted().filter(({ source, column }, index, all) => all.findIndex((other) => other.column.type === column.type && other.source === source) === index)

let connection: DuckDBConnection
let instance: DuckDBInstance
const directory = mkdtempSync(join(tmpdir(), 'hints-'))

beforeAll(async () => {
  instance = await DuckDBInstance.create(':memory:', { threads: '1' })
  connection = await instance.connect()
  await connection.run("SET TimeZone = 'UTC'")
})

afterAll(() => {
  connection.closeSync()
  instance.closeSync()
  rmSync(directory, { recursive: true, force: true })
})

/** The texts that DuckDB takes, by their index, as PostgreSQL's text of what it holds then. The others stop their table. */
async function heldTexts(given: readonly string[], encoding: CellEncoding, type: string, cellOf: (text: string) => string | null): Promise<ReadonlyMap<number, string | null>> {
  const path = join(directory, 'staged')
  const cells = given.map(cellOf)
  const read = async (rows: readonly (readonly [number, string])[], csvType: string, value: string): Promise<unknown[][]> => {
    writeFileSync(path, rows.map(([index, cell]) => `${String(index)}\x1f${cell}\n`).join(''))
    const file = readStaged({ path, isParquet: false, longestRowBytes: 1_000_000, common: null }, [['i', 'INTEGER'], ['c0', csvType]])
    return (await connection.runAndReadAll(`SELECT i, ${value} FROM ${file}`)).getRowsJson()
  }
  const staged = cells.flatMap((cell, index) => (cell === null ? [] : [[index, cell] as const]))
  const fits = new Set((await read(staged, 'VARCHAR', `c0 IS NULL OR ${valueOfText(encoding, 'c0', 'TRY_CAST')} IS NOT NULL`)).flatMap(([index, isFitting]) => (isFitting === true ? [Number(index)] : [])))
  const rows = await read(staged.filter(([index]) => fits.has(index)), encoding.csvType, `hex(encode(${toPostgresText(type, encoding.fromCsv('c0'))}))`)
  return new Map(rows.map(([index, hex]) => [Number(index), typeof hex === 'string' ? Buffer.from(hex, 'hex').toString() : null]))
}

/** The same number, whatever its spelling. */
function number(text: string): string {
  const match = /^(-?)(\d*)(?:\.(\d*))?(?:[eE]([+-]?\d+))?$/.exec(text)
  if (match === null) return text
  const all = `${match[2] ?? ''}${match[3] ?? ''}`
  const significant = all.replace(/^0+/, '').replace(/0+$/, '')
  if (all === '' || significant === '') return all === '' ? text : '0'
  return `${match[1] ?? ''}${significant}e${String(Number(match[4] ?? 0) - (match[3]?.length ?? 0) + all.length - all.replace(/0+$/, '').length)}`
}

/** What a held text must be the same as. */
function meaning(text: string, type: string, source: string): string {
  if (type === 'UUID') return text.toLowerCase().replaceAll(/[{}-]/g, '')
  if (type === 'BOOLEAN') return ({ t: 't', y: 't', 1: 't', o: 't', f: 'f', n: 'f', 0: 'f' } as Readonly<Record<string, string>>)[text.toLowerCase().slice(0, 1)] ?? text
  if (/^(DECIMAL|U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?$|FLOAT|DOUBLE)/.test(type)) return type === 'FLOAT' && source === 'float4' ? String(Math.fround(Number(text))) : number(text)
  if (type.startsWith('TIMESTAMP')) return text.replace('+00', '').replace(source === 'date' ? ' 00:00:00' : /$^/, '')
  return text
}

describe('a hint', () => {
  it('is taken where the type can hold values exactly, and refused elsewhere', () => {
    const taken = new Set(accepted().map(({ source, column }) => `${source} → ${column.type}`))
    for (const source of Object.keys(SOURCES)) expect(taken).toContain(`${source} → VARCHAR`)
    for (const wrong of ['text → DATE', 'text → BLOB', 'bool → INTEGER', 'uuid → BLOB', 'timestamptz → DATE', 'timestamp → TIMESTAMP_S', 'inet → BIGINT', 'money → DOUBLE', 'bit → BIT', 'json → DOUBLE', 'bytea → JSON']) expect(taken).not.toContain(wrong)
    for (const right of ['numeric → BIGINT', 'text → DECIMAL(38,9)', 'float8 → FLOAT', 'date → TIMESTAMP', 'timestamptz → TIMESTAMP', 'text → UUID', 'int8 → DOUBLE', 'jsonb → JSON']) expect(taken).toContain(right)
  })

  it.each(PAIRS)('$hint for $source holds a value as it is, or stops the table', async ({ source, column }) => {
    const { type } = column
    const given = [...new Set(fc.sample(SOURCES[source] ?? texts, { numRuns: 300, seed: 4 }))].filter((text) => !text.includes('\u0000'))
    const encoding = encodingFor(column)
    const byCells = await heldTexts(given, encoding, type, (text) => {
      const bytes = Buffer.from(text)
      const writer = new CellWriter(bytes.length * 16 + 64)
      return writer.cell(encoding, bytes, 0, bytes.length) ? writer.buffer.toString('utf8', 0, writer.position) : null
    })
    const wrong = (held: ReadonlyMap<number, string | null>): readonly unknown[] =>
      [...held].filter(([index, text]) => text === null || meaning(text, type, source) !== meaning(given[index] ?? '', type, source)).map(([index, text]) => ({ given: given[index], held: text }))
    expect(wrong(byCells)).toEqual([])
    const lines = lineEncodings([column, column])?.[0]
    if (lines === undefined) return
    const quoted = (text: string): string => (text === '' || ['\x1e', '\x1f', '\n', '\r'].some((byte) => text.includes(byte)) ? `\x1e${text.replaceAll('\x1e', '\x1e\x1e')}\x1e` : text)
    const byLines = await heldTexts(given, lines, type, quoted)
    expect(wrong(byLines)).toEqual([])
    expect([...byCells.keys()].filter((index) => !byLines.has(index))).toEqual([])
  })

  it('that is the natural type changes nothing', () => {
    for (const source of Object.keys(SOURCES)) expect(typeOfHint({ dataType: mapType(base(source)).type }, base(source), 't.v')).toBe(mapType(base(source)).type)
  })

  it.each([
    ['TIMESTAMP', 'TIMESTAMPTZ', ''],
    ['TIMESTAMPTZ', 'TIMESTAMP', '+00'],
  ])('that is changed from %s to %s keeps each moment', async (from, to, zone) => {
    const moments = ['2024-02-29 23:59:59.999999', '0044-03-15 (BC) 12:00:00.5', '294246-12-31 23:59:59.999999', 'infinity', '-infinity'].map((text) => `'${text}${text.includes('inf') ? '' : zone}'::${from}`)
    const rows = await connection.runAndReadAll(
      `SELECT ${toPostgresText(from, 'v')}, ${toPostgresText(to, 'n')} FROM (SELECT v, ${rewritten(from, to, 'v')} AS n FROM (SELECT unnest([${moments.join(', ')}, NULL]) AS v))`,
    )
    const [before, after] = [0, 1].map((index) => rows.getRowsJson().map((row) => String(row[index] as string | null).replace('+00', '')))
    expect(after).toEqual(before)
    expect(before).toEqual(['2024-02-29 23:59:59.999999', '0044-03-15 12:00:00.5 BC', '294246-12-31 23:59:59.999999', 'infinity', '-infinity', 'null'])
  })
})
