import { POSTGRES_EPOCH_MICROS } from '../../model/change.ts'
import type { Lsn } from '../../model/lsn.ts'
import type { Decoder } from './decode.ts'
import { MessageReader } from './message-reader.ts'
import { SourceText } from './source-text.ts'

const TAG_STREAM_ABORT = 0x41 // A
const TAG_STREAM_COMMIT = 0x63 // c
const TAG_STREAM_START = 0x53 // S
const TAG_STREAM_STOP = 0x45 // E

const TAG_ORIGIN = 0x4f // O
/** D, I, M, R, T, U, Y: in a block the id of the (sub)transaction stands behind the type byte. */
const TAGS_WITH_XID: ReadonlySet<number> = new Set([0x44, 0x49, 0x4d, 0x52, 0x54, 0x55, 0x59])

/** How a streamed transaction ended. */
export interface StreamCommit {
  readonly xid: number
  readonly commitLsn: Lsn
  readonly endLsn: Lsn
  readonly commitTimeMicros: bigint
}

/**
 * Receives what comes of transactions in progress. The messages of one transaction come in blocks; between two of them anything else may
 * come, blocks of other transactions too. Ids are the low 32 bits.
 */
export interface StreamedHandler {
  /** A block begins: what follows is of this transaction, until {@link stop}. */
  start(xid: number, isFirst: boolean): void
  /**
   * A message of the open block as protocol version 1 has it: its type byte `tag`, then `buffer[start…end)`, valid only during the call. `xid` is of
   * the transaction or the subtransaction that it belongs to.
   */
  keep(xid: number, tag: number, body: { readonly buffer: Buffer; readonly start: number; readonly end: number }): void
  stop(): void
  commit(commit: StreamCommit): void
  /** Drops what came of one subtransaction; of all where `subXid` is the transaction's own. */
  abort(xid: number, subXid: number): void
}

/**
 * Protocol version 2 over a decoder of version 1: takes out what is streamed of transactions in progress, and hands everything else to
 * `decoder`.
 *
 * States: *outside* → (Stream Start) → *in a block* → (Stream Stop) → *outside*. In a block come changes, relations, types, origins and
 * logical messages alone; Stream Commit and Stream Abort come outside. They end a transaction whose first block has come. A Stream Abort of
 * a transaction that nothing came of says nothing new.
 *
 * What stands in a kept message is looked at when it is decoded.
 *
 * Source: https://www.postgresql.org/docs/current/protocol-logical-replication.html#PROTOCOL-LOGICAL-MESSAGES-FLOW
 * and https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html#PROTOCOL-LOGICALREP-MESSAGE-FORMATS-STREAM-START
 */
export function createStreamedDecoder(decoder: Decoder, handler: StreamedHandler): Decoder {
  const reader = new MessageReader(new SourceText())
  const known = new Set<number>()
  const body = { buffer: reader.buffer, start: 0, end: 0 }
  let openXid: number | null = null

  function start(): void {
    const xid = reader.uint32()
    const flag = reader.uint8()
    if (flag > 1) reader.fail('unknown flags', reader.position - 1)
    reader.close()
    const isFirst = flag === 1
    if (isFirst === known.has(xid)) reader.fail(isFirst ? 'a first block of a transaction that has one' : 'another block of an unknown transaction')
    known.add(xid)
    openXid = xid
    handler.start(xid, isFirst)
  }

  function commit(): void {
    const xid = reader.uint32()
    if (!known.has(xid)) reader.fail('of an unknown transaction', reader.position - 4)
    if (reader.uint8() !== 0) reader.fail('unknown flags', reader.position - 1)
    const commitLsn = reader.lsn()
    const endLsn = reader.lsn()
    if (endLsn <= commitLsn) reader.fail('end LSN before the commit record', reader.position - 8)
    const commitTimeMicros = reader.int64() + POSTGRES_EPOCH_MICROS
    reader.close()
    known.delete(xid)
    handler.commit({ xid, commitLsn, endLsn, commitTimeMicros })
  }

  function abort(): void {
    const xid = reader.uint32()
    const subXid = reader.uint32()
    reader.close()
    if (!known.has(xid)) return
    if (subXid === xid) known.delete(xid)
    handler.abort(xid, subXid)
  }

  function inBlock(blockXid: number, tag: number): void {
    if (tag === TAG_STREAM_STOP) {
      reader.messageType = 'Stream Stop'
      reader.close()
      openXid = null
      handler.stop()
      return
    }
    const hasXid = TAGS_WITH_XID.has(tag)
    if (!hasXid && tag !== TAG_ORIGIN) reader.fail(`tag 0x${tag.toString(16).padStart(2, '0')} in a block of a streamed transaction`, reader.position - 1)
    const xid = hasXid ? reader.uint32() : blockXid
    body.buffer = reader.buffer
    body.start = reader.position
    body.end = reader.end
    handler.keep(xid, tag, body)
  }

  function outside(name: string, read: () => void): void {
    reader.messageType = name
    if (decoder.isInTransaction) reader.fail('inside a transaction')
    read()
  }

  function decode(buffer: Buffer, from = 0, end = buffer.length): void {
    const tag = buffer[from] ?? 0
    const isStreamed = openXid !== null || tag === TAG_STREAM_START || tag === TAG_STREAM_COMMIT || tag === TAG_STREAM_ABORT
    if (!isStreamed) {
      decoder.decode(buffer, from, end)
      return
    }
    reader.open(buffer, from, end)
    reader.messageType = 'streamed'
    reader.uint8()
    if (openXid !== null) inBlock(openXid, tag)
    else if (tag === TAG_STREAM_START) outside('Stream Start', start)
    else if (tag === TAG_STREAM_COMMIT) outside('Stream Commit', commit)
    else outside('Stream Abort', abort)
  }

  return {
    decode,
    get isInTransaction() {
      return openXid !== null || decoder.isInTransaction
    },
  }
}
