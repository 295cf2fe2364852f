import type { ChangeHandler } from '../../model/change.ts'
import { POSTGRES_EPOCH_MICROS } from '../../model/change.ts'
import type { Lsn } from '../../model/lsn.ts'
import { MessageReader } from './message-reader.ts'
import { readRelation, readSchemaName } from './relation.ts'
import { SourceText } from './source-text.ts'
import { createTupleView, readTuple } from './tuple.ts'

const TAG_BEGIN = 0x42 // B
const TAG_COMMIT = 0x43 // C
const TAG_DELETE = 0x44 // D
const TAG_INSERT = 0x49 // I
const TAG_MESSAGE = 0x4d // M
const TAG_ORIGIN = 0x4f // O
const TAG_RELATION = 0x52 // R
const TAG_TRUNCATE = 0x54 // T
const TAG_UPDATE = 0x55 // U
const TAG_TYPE = 0x59 // Y

const TUPLE_KEY = 0x4b // K
const TUPLE_NEW = 0x4e // N
const TUPLE_OLD = 0x4f // O

const TRUNCATE_CASCADE = 1
const TRUNCATE_RESTART_IDENTITY = 2
const MESSAGE_TRANSACTIONAL = 1

/** Turns pgoutput messages into calls of a {@link ChangeHandler}. Holds the state of one replication connection. */
export interface Decoder {
  /**
   * Decodes the message in `buffer[start…end)`. All calls of the handler are made before it returns; offsets of tuples are
   * offsets in `buffer`. Throws `ProtocolViolation`, or what the handler throws; the decoder is of no use after that.
   */
  decode(buffer: Buffer, start?: number, end?: number): void
  /** True between Begin and Commit, and in a block of a streamed transaction. */
  readonly isInTransaction: boolean
}

/**
 * A decoder of pgoutput, protocol version 1. States: *outside* → (Begin) → *in transaction* → (Commit) → *outside*. Changes,
 * truncates and origins come only in a transaction; a tuple only for a relation that this connection announced, with that
 * relation's number of columns.
 *
 * Nothing is created per cell or change: tuples are two reused views (an old and a new one), LSNs and times become bigints only
 * at the bounds of a transaction.
 *
 * `text` turns names and cells into UTF-8, where the server does not.
 *
 * What is streamed of transactions in progress (version 2) is taken out before: see decode-streamed.ts.
 *
 * Source: https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html
 */
export function createDecoder(handler: ChangeHandler, text = new SourceText()): Decoder {
  const reader: MessageReader = new MessageReader(text)
  const oldTuple = createTupleView()
  const newTuple = createTupleView()
  const columnCounts = new Map<number, number>()
  let lastOid = -1
  let lastColumnCount = 0
  let openCommitLsn: Lsn | null = null

  /** Reads the oid of an announced relation and leaves its number of columns in `lastColumnCount`. */
  function readRelationOid(): number {
    const oid = reader.uint32()
    if (oid !== lastOid) {
      const columnCount = columnCounts.get(oid)
      if (columnCount === undefined) reader.fail(`relation oid ${oid} was not announced`, reader.position - 4)
      lastOid = oid
      lastColumnCount = columnCount
    }
    return oid
  }

  function requireTransaction(): void {
    if (openCommitLsn === null) reader.fail('outside a transaction')
  }

  function begin(): void {
    if (openCommitLsn !== null) reader.fail('inside a transaction')
    const commitLsn = reader.lsn()
    const commitTimeMicros = reader.int64() + POSTGRES_EPOCH_MICROS
    const xid = reader.uint32()
    reader.close()
    openCommitLsn = commitLsn
    handler.begin(commitLsn, commitTimeMicros, xid)
  }

  function commit(): void {
    requireTransaction()
    if (reader.uint8() !== 0) reader.fail('unknown flags', reader.position - 1)
    const commitLsn = reader.lsn()
    if (commitLsn !== openCommitLsn) reader.fail('another commit LSN than that of its Begin', reader.position - 8)
    const endLsn = reader.lsn()
    if (endLsn <= commitLsn) reader.fail('end LSN before the commit record', reader.position - 8)
    const commitTimeMicros = reader.int64() + POSTGRES_EPOCH_MICROS
    reader.close()
    openCommitLsn = null
    handler.commit(commitLsn, endLsn, commitTimeMicros)
  }

  function insert(): void {
    requireTransaction()
    const oid = readRelationOid()
    if (reader.uint8() !== TUPLE_NEW) reader.fail('new tuple expected', reader.position - 1)
    readTuple(reader, newTuple, lastColumnCount)
    reader.close()
    text.convert(newTuple)
    handler.insert(oid, newTuple)
  }

  function update(): void {
    requireTransaction()
    const oid = readRelationOid()
    const first = reader.uint8()
    if (first === TUPLE_NEW) {
      oldTuple.columnCount = 0
    } else {
      if (first !== TUPLE_KEY && first !== TUPLE_OLD) reader.fail('tuple expected', reader.position - 1)
      readTuple(reader, oldTuple, lastColumnCount)
      if (reader.uint8() !== TUPLE_NEW) reader.fail('new tuple expected', reader.position - 1)
    }
    readTuple(reader, newTuple, lastColumnCount)
    reader.close()
    if (first !== TUPLE_NEW) text.convert(oldTuple)
    text.convert(newTuple)
    handler.update(oid, first === TUPLE_NEW ? 'none' : first === TUPLE_KEY ? 'key' : 'full', oldTuple, newTuple)
  }

  function remove(): void {
    requireTransaction()
    const oid = readRelationOid()
    const kind = reader.uint8()
    if (kind !== TUPLE_KEY && kind !== TUPLE_OLD) reader.fail('old tuple expected', reader.position - 1)
    readTuple(reader, oldTuple, lastColumnCount)
    reader.close()
    text.convert(oldTuple)
    handler.delete(oid, kind === TUPLE_KEY ? 'key' : 'full', oldTuple)
  }

  function truncate(): void {
    requireTransaction()
    const count = reader.int32()
    const options = reader.uint8()
    if ((options & ~(TRUNCATE_CASCADE | TRUNCATE_RESTART_IDENTITY)) !== 0) reader.fail('unknown options', reader.position - 1)
    if (count < 1 || count > (reader.end - reader.position) / 4) reader.fail(`truncated: ${count} relations announced`)
    const oids: number[] = []
    for (let index = 0; index < count; index++) oids.push(readRelationOid())
    reader.close()
    handler.truncate(oids, (options & TRUNCATE_CASCADE) !== 0, (options & TRUNCATE_RESTART_IDENTITY) !== 0)
  }

  function relation(): void {
    const announced = readRelation(reader)
    reader.close()
    columnCounts.set(announced.oid, announced.columns.length)
    lastOid = -1
    handler.relation(announced)
  }

  function type(): void {
    const oid = reader.uint32()
    const schema = readSchemaName(reader)
    const name = reader.string()
    reader.close()
    handler.type(oid, schema, name)
  }

  function origin(): void {
    requireTransaction()
    const commitLsn = reader.lsn()
    const name = reader.string()
    reader.close()
    handler.origin(commitLsn, name)
  }

  function message(): void {
    const flags = reader.uint8()
    if ((flags & ~MESSAGE_TRANSACTIONAL) !== 0) reader.fail('unknown flags', reader.position - 1)
    const isTransactional = (flags & MESSAGE_TRANSACTIONAL) !== 0
    if (isTransactional) requireTransaction()
    const messageLsn = reader.lsn()
    const prefix = reader.string()
    const length = reader.uint32()
    const start = reader.skip(length)
    reader.close()
    handler.message(isTransactional, messageLsn, prefix, reader.buffer.subarray(start, start + length))
  }

  /** Ordered by how often they come. */
  function decode(buffer: Buffer, start = 0, end = buffer.length): void {
    reader.open(buffer, start, end)
    const tag = reader.uint8()
    switch (tag) {
      case TAG_INSERT:
        reader.messageType = 'Insert'
        insert()
        return
      case TAG_UPDATE:
        reader.messageType = 'Update'
        update()
        return
      case TAG_DELETE:
        reader.messageType = 'Delete'
        remove()
        return
      case TAG_BEGIN:
        reader.messageType = 'Begin'
        begin()
        return
      case TAG_COMMIT:
        reader.messageType = 'Commit'
        commit()
        return
      case TAG_RELATION:
        reader.messageType = 'Relation'
        relation()
        return
      case TAG_TYPE:
        reader.messageType = 'Type'
        type()
        return
      case TAG_TRUNCATE:
        reader.messageType = 'Truncate'
        truncate()
        return
      case TAG_ORIGIN:
        reader.messageType = 'Origin'
        origin()
        return
      case TAG_MESSAGE:
        reader.messageType = 'Message'
        message()
        return
      default:
        reader.fail(`unknown tag 0x${tag.toString(16).padStart(2, '0')}`, start)
    }
  }

  return {
    decode,
    get isInTransaction() {
      return openCommitLsn !== null
    },
  }
}
