import type { Duplex } from 'node:stream'
import type pg from 'pg'
import { DomainError } from '../model/errors.ts'
import { MESSAGE_HEADER_BYTES, UnreadBytes } from './unread-bytes.ts'

const TAG_COPY_DATA = 0x64 // d

/** Signature, no flags, no extension. */
const BINARY_HEADER = Buffer.concat([Buffer.from('PGCOPY\n\xff\r\n\0', 'latin1'), Buffer.alloc(8)])
const BINARY_HEADER_BYTES = BINARY_HEADER.length

/**
 * Called for each CopyData message, `buffer[start…end)`: PostgreSQL sends one per row. The bytes may be changed, as may those before them
 * that were handed over since {@link CopyOutOptions.onDrained}. They are valid until it, or until the promise that the call returned
 * resolves; until then the connection is not read.
 */
export type OnCopyData = (buffer: Buffer, start: number, end: number) => Promise<void> | undefined

type DataListener = (chunk: Buffer) => void

export interface CopyOutOptions {
  /** `COPY … TO STDOUT`. */
  readonly sql: string
  /** True for `FORMAT binary`: the file header and the end mark are taken off. Absent = false. */
  readonly isBinary?: boolean
  readonly onCopyData: OnCopyData
  /** Called when every row that was read is handed over, before the buffer is another one and before the query ends. */
  readonly onDrained?: () => void
  /** Maps what the server or the socket reports. */
  readonly mapError: (error: unknown) => DomainError
}

/**
 * Runs a COPY and resolves with the number of rows when the server has said that it is complete. Rejects with what `onCopyData` threw, as it
 * is (the connection is then destroyed), or with the mapped error of the server or the socket.
 */
export async function copyOut(client: pg.Client, options: CopyOutOptions): Promise<number> {
  return await new Promise<number>((resolve, reject) => {
    client.query(new CopyOutQuery(options, { resolve, reject }))
  })
}

interface Settle {
  readonly resolve: (rowCount: number) => void
  readonly reject: (error: unknown) => void
}

/**
 * A query for `pg` that takes over the socket's bytes while it runs, as `pg-copy-streams` does, because `pg`'s own parser makes three objects
 * per row. CopyData messages are handed over where they lie; every other message is passed to `pg`, whole, so that its state stays right.
 *
 * States: *waiting* → (`submit`) → *attached* → (ReadyForQuery or an error) → *detached*.
 *
 * Source: https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-COPY
 */
class CopyOutQuery {
  readonly #options: CopyOutOptions
  readonly #settle: Settle
  #stream: Duplex | null = null
  #listener: DataListener | null = null
  readonly #unread = new UnreadBytes()
  #isWaiting = false
  #queue: Buffer[] = []
  #rowCount = 0
  #hasHeader = false

  constructor(options: CopyOutOptions, settle: Settle) {
    this.#options = options
    this.#settle = settle
  }

  submit(connection: pg.Connection): Error | undefined {
    const { stream } = connection
    const listeners = stream.listeners('data')
    const [listener] = listeners
    if (listeners.length !== 1 || listener === undefined) return new Error('pg reads its socket in another way than expected')
    this.#stream = stream
    this.#listener = listener as DataListener
    stream.removeListener('data', this.#listener)
    stream.on('data', this.#onData)
    connection.query(this.#options.sql)
    return undefined
  }

  handleError(error: unknown): void {
    this.#detach()
    this.#settle.reject(this.#options.mapError(error))
  }

  handleCommandComplete(message: { readonly text?: string }): void {
    const announced = /^COPY (\d+)$/.exec(message.text ?? '')?.[1]
    if (announced === undefined || Number(announced) === this.#rowCount) return
    this.#fail(new DomainError({ kind: 'ProtocolViolation', message: `COPY gave ${this.#rowCount} rows and announced ${announced}`, remedy: 'Report this with the server\'s version.' }))
  }

  handleReadyForQuery(): void {
    this.#detach()
    this.#settle.resolve(this.#rowCount)
  }

  readonly #onData = (chunk: Buffer): void => {
    if (this.#isWaiting) {
      this.#queue.push(chunk)
      return
    }
    this.#unread.append(chunk)
    this.#process()
    this.#unread.keep()
  }

  /** Hands over all whole messages; stops at a promise, to go on when it is resolved. */
  #process(): void {
    const listener = this.#listener
    const unread = this.#unread
    while (unread.end - unread.at >= MESSAGE_HEADER_BYTES && listener !== null) {
      const { buffer, at: start } = unread
      const end = start + 1 + buffer.readUInt32BE(start + 1)
      if (end > unread.end) break
      unread.at = end
      if (buffer[start] !== TAG_COPY_DATA) {
        // Before the message that may end the query: after it nobody would hear of a failure.
        if (!this.#tellDrained()) return
        listener(buffer.subarray(start, end))
        if (this.#isDetached()) {
          // The query is over, and what follows is pg's. Not earlier: its parser is not reentrant.
          if (end < unread.end) listener(buffer.subarray(end, unread.end))
          return
        }
        continue
      }
      try {
        const rowStart = this.#options.isBinary === true ? this.#binaryRowStart(buffer, start + MESSAGE_HEADER_BYTES, end) : start + MESSAGE_HEADER_BYTES
        if (rowStart === null) continue
        this.#rowCount++
        const pending = this.#options.onCopyData(buffer, rowStart, end)
        if (pending !== undefined) {
          this.#wait(pending)
          return
        }
      } catch (error) {
        this.#fail(error)
        return
      }
    }
    this.#tellDrained()
  }

  /**
   * Where the row begins in a message of a binary copy, of which the first one begins with the file header; null where there is none.
   *
   * Source: https://www.postgresql.org/docs/current/sql-copy.html (Binary Format)
   */
  #binaryRowStart(buffer: Buffer, start: number, end: number): number | null {
    let at = start
    if (!this.#hasHeader) {
      this.#hasHeader = true
      at += BINARY_HEADER_BYTES
      if (at > end || buffer.compare(BINARY_HEADER, 0, BINARY_HEADER_BYTES, start, at) !== 0) throw new DomainError({ kind: 'ProtocolViolation', message: 'a binary COPY begins otherwise than it has to', remedy: 'Report this with the server\'s version.' })
    }
    const isEndMark = end - at === 2 && buffer.readInt16BE(at) === -1
    return at === end || isEndMark ? null : at
  }

  #tellDrained(): boolean {
    try {
      this.#options.onDrained?.()
      return true
    } catch (error) {
      this.#fail(error)
      return false
    }
  }

  #wait(pending: Promise<void>): void {
    this.#isWaiting = true
    this.#stream?.pause()
    pending.then(
      () => {
        this.#isWaiting = false
        this.#process()
        while (this.#queue.length > 0 && !this.#isAgainWaiting()) {
          const chunk = this.#queue.shift()
          if (chunk !== undefined) this.#onData(chunk)
        }
        if (!this.#isAgainWaiting()) this.#stream?.resume()
      },
      (error: unknown) => { this.#fail(error) },
    )
  }

  #isDetached(): boolean {
    return this.#listener === null
  }

  #isAgainWaiting(): boolean {
    return this.#isWaiting
  }

  /** The server would go on sending: there is no other way to stop it than to end the connection. */
  #fail(error: unknown): void {
    const stream = this.#stream
    this.#detach()
    this.#settle.reject(error)
    stream?.destroy()
  }

  #detach(): void {
    const stream = this.#stream
    const listener = this.#listener
    if (stream === null || listener === null) return
    this.#stream = null
    this.#listener = null
    stream.removeListener('data', this.#onData)
    stream.on('data', listener)
    stream.resume()
  }
}
