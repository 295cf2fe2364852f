import type pg from 'pg'
import { DomainError } from '../model/errors.ts'
import { toLsn, type Lsn } from '../model/lsn.ts'
import { MESSAGE_HEADER_BYTES, UnreadBytes } from './unread-bytes.ts'

const COPY_DATA = 0x64 // d
const XLOG_DATA = 0x77 // w
const KEEPALIVE = 0x6b // k

/** Type byte, start, end, time: https://www.postgresql.org/docs/current/protocol-replication.html#PROTOCOL-REPLICATION-XLOGDATA */
const XLOG_HEADER_BYTES = 25
const KEEPALIVE_BYTES = 18
/** The server builds a message in memory of at most so many bytes (MaxAllocSize). */
const LONGEST_MESSAGE_BYTES = 0x3fff_ffff

/** Receives what a walsender streams, in its order. */
export interface WalsenderHandler {
  /** May the next message be handed over? Where not, it waits, and all that comes behind it, until {@link WalsenderReader.goOn}. */
  mayDeliver(): boolean
  /** A message of the output plugin, `buffer[start…end)`, valid during the call only. */
  message(buffer: Buffer, start: number, end: number): void
  keepalive(walEnd: Lsn, isReplyRequested: boolean): void
  /** The connection cannot be read any further. */
  fail(error: unknown): void
}

/**
 * Reads the copy-both stream of a walsender where it lies in the socket's buffers: `pg` and `pg-logical-replication` make some ten objects, two
 * texts and a promise of each change, which costs as much as all of our decoding (ADR 13). CopyData messages are taken out; every
 * other message is handed to `pg`, whole, so that the connection's state stays its own.
 *
 * States: *attached* → (`close`) → *closed*: what comes is dropped.
 *
 * Source: https://www.postgresql.org/docs/current/protocol-replication.html#PROTOCOL-REPLICATION-START-REPLICATION
 */
export class WalsenderReader {
  readonly #handler: WalsenderHandler
  readonly #listener: (chunk: Buffer) => void
  readonly #unread = new UnreadBytes()
  #isClosed = false
  /** A handler's call, or pg's, may lead back here. */
  #isDelivering = false

  private constructor(handler: WalsenderHandler, listener: (chunk: Buffer) => void) {
    this.#handler = handler
    this.#listener = listener
  }

  /** Takes over a connection's bytes, between two queries. Throws where `pg` reads its socket in another way than expected. */
  static attach({ stream }: pg.Connection, handler: WalsenderHandler): WalsenderReader {
    const [listener, ...others] = stream.listeners('data')
    if (listener === undefined || others.length > 0) throw protocolViolation('pg reads its socket in another way than expected')
    const reader = new WalsenderReader(handler, listener as (chunk: Buffer) => void)
    stream.removeListener('data', reader.#listener)
    stream.on('data', (chunk: Buffer) => { reader.#onData(chunk) })
    return reader
  }

  /** Delivers what waits, as far as the handler takes it. */
  goOn(): void {
    if (this.#isDelivering) return
    this.#isDelivering = true
    try {
      while (this.#next());
    } catch (error) {
      this.#handler.fail(error)
    }
    this.#isDelivering = false
  }

  close(): void {
    this.#isClosed = true
    this.#unread.clear()
  }

  #onData(chunk: Buffer): void {
    if (this.#isClosed) return
    this.#unread.append(chunk)
    this.goOn()
    this.#unread.keep()
  }

  /** Hands over the next message. False where there is none, or where it has to wait. */
  #next(): boolean {
    const unread = this.#unread
    const { buffer, at } = unread
    if (unread.end - at < MESSAGE_HEADER_BYTES || !this.#handler.mayDeliver()) return false
    const length = (((buffer[at + 1] ?? 0) << 24) | ((buffer[at + 2] ?? 0) << 16) | ((buffer[at + 3] ?? 0) << 8) | (buffer[at + 4] ?? 0)) >>> 0
    if (length < 4 || length > LONGEST_MESSAGE_BYTES) throw protocolViolation(`a message of ${String(length)} bytes`)
    const end = at + 1 + length
    if (end > unread.end) return false
    unread.at = end
    if (buffer[at] === COPY_DATA) this.#copyData(buffer, at + MESSAGE_HEADER_BYTES, end)
    else this.#listener(buffer.subarray(at, end))
    return true
  }

  #copyData(buffer: Buffer, start: number, end: number): void {
    const tag = end > start ? buffer[start] : undefined
    if (tag === XLOG_DATA && end - start > XLOG_HEADER_BYTES) this.#handler.message(buffer, start + XLOG_HEADER_BYTES, end)
    else if (tag === KEEPALIVE && end - start === KEEPALIVE_BYTES) this.#handler.keepalive(toLsn(buffer.readBigUInt64BE(start + 1)), buffer[end - 1] !== 0)
    else throw protocolViolation(`a CopyData message of ${String(end - start)} bytes, type ${tag === undefined ? 'none' : `0x${tag.toString(16).padStart(2, '0')}`}`)
  }
}

function protocolViolation(what: string): DomainError {
  return new DomainError({
    kind: 'ProtocolViolation',
    message: `replication connection: ${what}`,
    remedy: 'Check that nothing between this program and PostgreSQL alters the connection; if it is direct, report the server version and this message.',
  })
}
