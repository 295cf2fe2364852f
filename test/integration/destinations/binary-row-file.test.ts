import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type DuckDBConnection, DuckDBInstance } from '@duckdb/node-api'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { binaryEncodings } from '../../../src/destinations/duckdb/binary-encoding.ts'
import { BinaryRowFile } from '../../../src/destinations/duckdb/binary-row-file.ts'
import { columnOf, int32, rowOf, rowsOf } from '../../support/binary-rows.ts'

const directory = mkdtempSync(join(tmpdir(), 'binary-row-file-'))
let duckdb: DuckDBConnection
let files = 0

beforeAll(async () => {
  duckdb = await (await DuckDBInstance.create()).connect()
})

afterAll(() => {
  duckdb.closeSync()
  rmSync(directory, { recursive: true })
})

function fileOf(types: readonly string[]): BinaryRowFile {
  const columns = types.map((name) => columnOf({ tag: 'base', oid: 1, name, typeModifier: -1 }, { name }))
  return new BinaryRowFile(join(directory, `${String(files++)}.parquet`), binaryEncodings(columns) ?? [])
}

const read = async (path: string, select: string): Promise<unknown[][]> => (await duckdb.runAndReadAll(`SELECT ${select} FROM read_parquet('${path}')`)).getRowsJson()

describe('a file of rows in binary form', () => {
  it('is the same however many row groups and calls the rows come in, NULLs and long texts among them', async () => {
    const file = fileOf(['int4', 'text', 'bool', 'bytea', 'uuid'])
    const textOf = (n: number): string | null => (n % 5 === 0 ? null : n % 1_000 === 1 ? 'ü'.repeat(n) : n % 7 === 0 ? 'x'.repeat(n % 700) : `row ${String(n)} é`)
    const count = 70_000
    const rows = Array.from({ length: count }, (_, n) => {
      const text = textOf(n)
      const uuid = Buffer.from(n.toString(16).padStart(32, '0'), 'hex')
      return rowOf([n % 3 === 0 ? null : int32(n), text === null ? null : Buffer.from(text), Buffer.from([n % 2]), n % 4 === 0 ? null : Buffer.from([n & 255, 0, 255]), uuid])
    })
    for (let from = 0, size = 1; from < count; from += size, size = (size * 7) % 5_003) expect(file.add(rowsOf(rows.slice(from, from + size)))).toBe(true)
    expect(file.end()).toBe(true)
    expect([file.rowCount, file.byteCount]).toEqual([count, rows.reduce((sum, row) => sum + row.length, 0)])
    const [groups] = (await duckdb.runAndReadAll(`SELECT count(DISTINCT row_group_id)::INTEGER FROM parquet_metadata('${file.path}')`)).getRowsJson()
    expect(groups?.[0]).toBeGreaterThan(2)
    const found = await read(file.path, "c0, c1, c2, lower(hex(c3)), replace(c4::VARCHAR, '-', '')")
    const hex = (n: number): string => n.toString(16).padStart(2, '0')
    expect(found.length).toBe(count)
    expect(found.findIndex(([c0, c1, c2, c3, c4], n) => c0 !== (n % 3 === 0 ? null : n) || c1 !== textOf(n) || c2 !== (n % 2 === 1) || c3 !== (n % 4 === 0 ? null : `${hex(n & 255)}00ff`) || c4 !== n.toString(16).padStart(32, '0'))).toBe(-1)
  })

  it('is read with a column of nothing but NULL', async () => {
    const file = fileOf(['int8', 'numeric', 'jsonb'])
    expect(file.add(rowsOf(Array.from({ length: 3_000 }, () => rowOf([null, null, null]))))).toBe(true)
    expect(file.end()).toBe(true)
    expect(await read(file.path, 'count(*)::INTEGER, count(c0)::INTEGER, count(c1)::INTEGER, count(c2)::INTEGER')).toEqual([[3_000, 0, 0, 0]])
  })

  it('has a place for more columns than a short list of Thrift', async () => {
    const file = fileOf(Array.from({ length: 1_600 }, () => 'int4'))
    expect(file.add(rowsOf([rowOf(Array.from({ length: 1_600 }, (_, n) => int32(n)))]))).toBe(true)
    expect(file.end()).toBe(true)
    expect(await read(file.path, 'c0, c15, c1599')).toEqual([[0, 15, 1_599]])
  })

  it.each([
    ['short', Buffer.from([0xc3]), Buffer.from([0xa9])],
    ['long', Buffer.concat([Buffer.alloc(200, 'a'), Buffer.from([0xc3])]), Buffer.concat([Buffer.from([0xa9]), Buffer.alloc(200, 'a')])],
    ['very long', Buffer.concat([Buffer.alloc(2_000, 'a'), Buffer.from([0xc3])]), Buffer.from('ok')],
    ['before a long', Buffer.from([0x80]), Buffer.alloc(130, 'a')],
  ])('takes no %s text that is no UTF-8, also where two halves stand side by side', (_, first, second) => {
    for (const pair of [[first, second], [Buffer.from('é'), first]]) {
      const file = fileOf(['text'])
      expect(file.add(rowsOf(pair.map((text) => rowOf([text])))) && file.end()).toBe(false)
      file.discard()
      expect(existsSync(file.path)).toBe(false)
    }
    const whole = fileOf(['text'])
    expect(whole.add(rowsOf([rowOf([Buffer.concat([first, second].map((text) => Buffer.from(text.toString('latin1'))))])])) && whole.end()).toBe(true)
    whole.discard()
  })

  it('takes no row that would need a multiple of its length in memory', () => {
    for (const [length, isTaken] of [[16_000_000, true], [17_000_000, false]] as const) {
      const file = fileOf(['bytea'])
      expect(file.add(rowsOf([rowOf([Buffer.alloc(length)])]))).toBe(isTaken)
      file.discard()
    }
  })

  it('takes no jsonb of another version', () => {
    for (const value of [Buffer.from('\x02{}'), Buffer.alloc(0)]) expect(fileOf(['jsonb']).add(rowsOf([rowOf([value])]))).toBe(false)
  })

  it.each([
    ['more columns', rowOf([int32(1), int32(2), int32(3)])],
    ['fewer columns', rowOf([int32(1)])],
    ['a value of another width', rowOf([int32(1), Buffer.alloc(8)])],
    ['a value that is cut off', rowOf([int32(1), int32(2)]).subarray(0, -1)],
    ['a length that is cut off', rowOf([int32(1), null]).subarray(0, -1)],
    ['a length below −1', Buffer.concat([rowOf([int32(1), null]).subarray(0, -1), Buffer.from([254])])],
    ['something behind it', Buffer.concat([rowOf([int32(1), int32(2)]), Buffer.from([0])])],
    ['nothing', Buffer.alloc(0)],
  ])('tells a row with %s', (_, row) => {
    expect(() => fileOf(['int4', 'int4']).add(rowsOf([row]))).toThrow(expect.objectContaining({ kind: 'ProtocolViolation' }))
  })
})
