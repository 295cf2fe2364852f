import type { OldTupleKind, Relation, TupleView } from '../../model/change.ts'
import { CELL_BINARY, CELL_NULL, CELL_UNCHANGED, POSTGRES_EPOCH_MICROS } from '../../model/change.ts'
import type { Lsn } from '../../model/lsn.ts'

const BEGIN = 0x42
const COMMIT = 0x43
const DELETE = 0x44
const INSERT = 0x49
const RELATION = 0x52
const TRUNCATE = 0x54
const UPDATE = 0x55

const TUPLE_KEY = 0x4b
const TUPLE_NEW = 0x4e
const TUPLE_OLD = 0x4f

const KIND_BINARY = 0x62
const KIND_NULL = 0x6e
const KIND_TEXT = 0x74
const KIND_UNCHANGED = 0x75

/**
 * Writes pgoutput messages into a growing buffer, as the walsender would send them: what `createDecoder` reads, this writes back byte for
 * byte. For changes that are kept and read again later.
 *
 * Source: https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html
 */
export class MessageWriter {
  buffer: Buffer = Buffer.allocUnsafeSlow(16_384)
  position = 0

  begin(commitLsn: Lsn, commitTimeMicros: bigint, xid: number): void {
    this.reserve(21)
    this.#uint8(BEGIN)
    this.#int64(commitLsn)
    this.#int64(commitTimeMicros - POSTGRES_EPOCH_MICROS)
    this.uint32(xid)
  }

  commit(commitLsn: Lsn, endLsn: Lsn, commitTimeMicros: bigint): void {
    this.reserve(26)
    this.#uint8(COMMIT)
    this.#uint8(0)
    this.#int64(commitLsn)
    this.#int64(endLsn)
    this.#int64(commitTimeMicros - POSTGRES_EPOCH_MICROS)
  }

  relation({ oid, schema, name, replicaIdentity, columns }: Relation): void {
    this.reserve(8)
    this.#uint8(RELATION)
    this.uint32(oid)
    this.#string(schema === 'pg_catalog' ? '' : schema)
    this.#string(name)
    this.reserve(3)
    this.#uint8(replicaIdentity.charCodeAt(0))
    this.#uint16(columns.length)
    for (const column of columns) {
      this.reserve(1)
      this.#uint8(column.isKey ? 1 : 0)
      this.#string(column.name)
      this.reserve(8)
      this.uint32(column.typeOid)
      this.uint32(column.typeModifier)
    }
  }

  insert(oid: number, tuple: TupleView): void {
    this.#change(INSERT, oid)
    this.#tuple(TUPLE_NEW, tuple)
  }

  update(oid: number, oldKind: OldTupleKind, oldTuple: TupleView, tuple: TupleView): void {
    this.#change(UPDATE, oid)
    if (oldKind !== 'none') this.#tuple(oldKind === 'key' ? TUPLE_KEY : TUPLE_OLD, oldTuple)
    this.#tuple(TUPLE_NEW, tuple)
  }

  delete(oid: number, oldKind: 'key' | 'full', oldTuple: TupleView): void {
    this.#change(DELETE, oid)
    this.#tuple(oldKind === 'key' ? TUPLE_KEY : TUPLE_OLD, oldTuple)
  }

  /** Of one relation, without its options: nobody here asks for them. */
  truncate(oid: number): void {
    this.reserve(10)
    this.#uint8(TRUNCATE)
    this.uint32(1)
    this.#uint8(0)
    this.uint32(oid)
  }

  /** Makes room for `byteCount` more. */
  reserve(byteCount: number): void {
    const needed = this.position + byteCount
    if (needed <= this.buffer.length) return
    const grown = Buffer.allocUnsafeSlow(Math.max(needed, this.buffer.length * 2))
    this.buffer.copy(grown, 0, 0, this.position)
    this.buffer = grown
  }

  /** The caller has reserved. Negative numbers as two's complement. */
  uint32(value: number): void {
    this.buffer.writeUInt32BE(value >>> 0, this.position)
    this.position += 4
  }

  #change(tag: number, oid: number): void {
    this.reserve(5)
    this.#uint8(tag)
    this.uint32(oid)
  }

  #tuple(tag: number, { buffer, columnCount, kinds, starts, ends }: TupleView): void {
    this.reserve(3 + columnCount * 5)
    this.#uint8(tag)
    this.#uint16(columnCount)
    for (let column = 0; column < columnCount; column++) {
      const kind = kinds[column]
      if (kind === CELL_NULL || kind === CELL_UNCHANGED) {
        this.reserve(1)
        this.#uint8(kind === CELL_NULL ? KIND_NULL : KIND_UNCHANGED)
        continue
      }
      const start = starts[column] ?? 0
      const byteCount = (ends[column] ?? 0) - start
      this.reserve(5 + byteCount)
      this.#uint8(kind === CELL_BINARY ? KIND_BINARY : KIND_TEXT)
      this.uint32(byteCount)
      buffer.copy(this.buffer, this.position, start, start + byteCount)
      this.position += byteCount
    }
  }

  #string(text: string): void {
    this.reserve(Buffer.byteLength(text) + 1)
    this.position += this.buffer.write(text, this.position, 'utf8')
    this.#uint8(0)
  }

  #uint8(value: number): void {
    this.buffer[this.position++] = value
  }

  #uint16(value: number): void {
    this.position = this.buffer.writeUInt16BE(value, this.position)
  }

  #int64(value: bigint): void {
    this.position = this.buffer.writeBigInt64BE(BigInt.asIntN(64, value), this.position)
  }
}
