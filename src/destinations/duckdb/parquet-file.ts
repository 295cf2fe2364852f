import { closeSync, openSync, rmSync, writeSync } from 'node:fs'
import { bool, byte, i32, i64, list, struct, text, type ThriftValue, varint } from './thrift.ts'

/** How a column's values lie in the file (Parquet's `Type`); a `uuid` is a FIXED_LEN_BYTE_ARRAY of 16. */
const PHYSICAL = { bits: 0, int32: 1, int64: 2, float: 4, double: 5, bytes: 6, fixed: 7 } as const

/** What a column's values are; it decides how they lie in the file. Of times with microseconds; `timestamptz` counts from 1970 in UTC, `timestamp` and `date` as if it did. */
export type ParquetType =
  | { readonly tag: 'boolean' | 'int16' | 'int32' | 'int64' | 'uint32' | 'uint64' | 'float' | 'double' | 'bytes' | 'text' | 'uuid' | 'date' | 'time' | 'timestamp' | 'timestamptz' }
  /** Of up to 18 digits, as 64 bits. */
  | { readonly tag: 'decimal'; readonly precision: number; readonly scale: number }

export interface ParquetColumn {
  readonly name: string
  readonly type: ParquetType
}

/** The values of a column in a row group. */
export interface ColumnChunk {
  /** Those that are not NULL, one behind the other, in Parquet's encoding PLAIN: `values[0…valueBytes)`. */
  readonly values: Buffer
  readonly valueBytes: number
  /** A bit for each row, the lowest first: set where it is NULL. */
  readonly nulls: Uint8Array
  readonly nullCount: number
}

const MAGIC = 'PAR1'
const OPTIONAL = 1
const DATA_PAGE = 0
const PLAIN = 0
const RLE = 3
const UNCOMPRESSED = 0
const UUID_BYTES = 16

/**
 * Writes a Parquet file: uncompressed, encoding PLAIN, one page for each column of a row group, every column optional, no statistics. For a reader on the same
 * machine that reads it once.
 *
 * Source: https://parquet.apache.org/docs/file-format/ and https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift
 */
export class ParquetFile {
  readonly path: string
  readonly #columns: readonly ParquetColumn[]
  readonly #groups: ThriftValue[] = []
  #rowCount = 0
  #fileDescriptor: number | null = null
  #byteCount = 0

  constructor(path: string, columns: readonly ParquetColumn[]) {
    this.path = path
    this.#columns = columns
  }

  /** `chunks`: one for each column, each of `rowCount` rows. Throws what writing a file throws. */
  addGroup(rowCount: number, chunks: readonly ColumnChunk[]): void {
    if (this.#fileDescriptor === null) this.#open()
    const start = this.#byteCount
    const written = chunks.map((chunk, index) => this.#addChunk(this.#columns[index], rowCount, chunk))
    this.#groups.push(struct([1, list(written)], [2, i64(this.#byteCount - start)], [3, i64(rowCount)]))
    this.#rowCount += rowCount
  }

  /** Writes what a reader looks at first; no group is added after it. Nothing where there is no row. Idempotent. */
  close(): void {
    if (this.#fileDescriptor === null) return
    const { bytes: metadata } = struct([1, i32(1)], [2, list([rootOf(this.#columns), ...this.#columns.map(schemaOf)])], [3, i64(this.#rowCount)], [4, list(this.#groups)])
    const tail = Buffer.alloc(8, MAGIC)
    tail.writeUInt32LE(metadata.length)
    this.#write(Buffer.concat([metadata, tail]))
    this.#end()
  }

  /** Idempotent. */
  discard(): void {
    this.#end()
    rmSync(this.path, { force: true })
  }

  #addChunk(column: ParquetColumn | undefined, rowCount: number, { values, valueBytes, nulls, nullCount }: ColumnChunk): ThriftValue {
    if (column === undefined) throw new RangeError('more chunks than columns')
    const offset = this.#byteCount
    const levels = definitionLevels(rowCount, nulls, nullCount)
    const pageBytes = levels.length + valueBytes
    const page = struct([1, i32(DATA_PAGE)], [2, i32(pageBytes)], [3, i32(pageBytes)], [5, struct([1, i32(rowCount)], [2, i32(PLAIN)], [3, i32(RLE)], [4, i32(RLE)])])
    this.#write(Buffer.concat([page.bytes, levels]))
    this.#write(values, valueBytes)
    const chunkBytes = i64(this.#byteCount - offset)
    const encodings = list([i32(PLAIN), i32(RLE)])
    const path = list([text(column.name)])
    const metadata = struct([1, i32(physicalOf(column.type))], [2, encodings], [3, path], [4, i32(UNCOMPRESSED)], [5, i64(rowCount)], [6, chunkBytes], [7, chunkBytes], [9, i64(offset)])
    return struct([2, i64(offset)], [3, metadata])
  }

  #open(): void {
    this.#fileDescriptor = openSync(this.path, 'w')
    this.#write(Buffer.from(MAGIC))
  }

  #write(buffer: Buffer, byteCount = buffer.length): void {
    if (this.#fileDescriptor === null) throw new RangeError('a file that is closed')
    for (let at = 0; at < byteCount; ) at += writeSync(this.#fileDescriptor, buffer, at, byteCount - at)
    this.#byteCount += byteCount
  }

  #end(): void {
    if (this.#fileDescriptor !== null) closeSync(this.#fileDescriptor)
    this.#fileDescriptor = null
  }
}

/** Which rows have a value: one run of ones where all have, else a bit for each. Behind its length, in four bytes. */
function definitionLevels(rowCount: number, nulls: Uint8Array, nullCount: number): Buffer {
  if (nullCount === 0) return withLength([...varint(rowCount * 2), 1], 0)
  const groups = (rowCount + 7) >> 3
  const levels = withLength(varint(groups * 2 + 1), groups)
  for (let group = 0, at = levels.length - groups; group < groups; group++, at++) levels[at] = ~(nulls[group] ?? 0)
  return levels
}

function withLength(head: readonly number[], room: number): Buffer {
  const levels = Buffer.alloc(4 + head.length + room)
  levels.writeUInt32LE(head.length + room)
  levels.set(head, 4)
  return levels
}

function rootOf(columns: readonly ParquetColumn[]): ThriftValue {
  return struct([4, text('rows')], [5, i32(columns.length)])
}

function schemaOf({ name, type }: ParquetColumn): ThriftValue {
  const length = type.tag === 'uuid' ? i32(UUID_BYTES) : null
  const digits = type.tag === 'decimal' ? ([[7, i32(type.scale)], [8, i32(type.precision)]] as const) : []
  return struct([1, i32(physicalOf(type))], [2, length], [3, i32(OPTIONAL)], [4, text(name)], [6, convertedOf(type)], ...digits, [10, logicalOf(type)])
}

function physicalOf({ tag }: ParquetType): number {
  switch (tag) {
    case 'boolean':
      return PHYSICAL.bits
    case 'int16':
    case 'int32':
    case 'uint32':
    case 'date':
      return PHYSICAL.int32
    case 'int64':
    case 'uint64':
    case 'decimal':
    case 'time':
    case 'timestamp':
    case 'timestamptz':
      return PHYSICAL.int64
    case 'float':
      return PHYSICAL.float
    case 'double':
      return PHYSICAL.double
    case 'bytes':
    case 'text':
      return PHYSICAL.bytes
    case 'uuid':
      return PHYSICAL.fixed
    default:
      return tag satisfies never
  }
}

/** Parquet's older word for it: DuckDB (1.5.5) goes by it wherever it says enough. */
function convertedOf({ tag }: ParquetType): ThriftValue | null {
  const converted = { text: 0, decimal: 5, date: 6, time: 8, timestamp: 10, timestamptz: 10, uint32: 13, uint64: 14, int16: 16 }
  return tag in converted ? i32(converted[tag as keyof typeof converted]) : null
}

/** Parquet's `LogicalType`, a union; null where the physical type says all. */
function logicalOf(type: ParquetType): ThriftValue | null {
  const none = struct()
  const micros = struct([2, none])
  switch (type.tag) {
    case 'boolean':
    case 'int32':
    case 'int64':
    case 'float':
    case 'double':
    case 'bytes':
      return null
    case 'text':
      return struct([1, none])
    case 'decimal':
      return struct([5, struct([1, i32(type.scale)], [2, i32(type.precision)])])
    case 'date':
      return struct([6, none])
    case 'time':
      return struct([7, struct([1, bool(false)], [2, micros])])
    case 'timestamp':
    case 'timestamptz':
      return struct([8, struct([1, bool(type.tag === 'timestamptz')], [2, micros])])
    case 'int16':
    case 'uint32':
    case 'uint64':
      return struct([10, integer(type.tag)])
    case 'uuid':
      return struct([14, none])
    default:
      return type satisfies never
  }
}

function integer(tag: 'int16' | 'uint32' | 'uint64'): ThriftValue {
  const bits = { int16: 16, uint32: 32, uint64: 64 }[tag]
  return struct([1, byte(bits)], [2, bool(tag === 'int16')])
}
