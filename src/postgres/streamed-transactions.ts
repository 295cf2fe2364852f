import { randomUUID } from 'node:crypto'
import { appendFileSync, mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { DomainError } from '../model/errors.ts'
import type { Decoder } from './pgoutput/decode.ts'
import type { StreamCommit, StreamedHandler } from './pgoutput/decode-streamed.ts'
import { MessageWriter } from './pgoutput/encode.ts'
import { FRAME_HEADER_BYTES, SpoolReader, spoolError } from './spool-file.ts'

/** Messages of an open block are handed to the file so many bytes at a time. */
const FLUSH_BYTES = 1 << 20

/** What has come of one transaction in progress. */
interface KeptTransaction {
  readonly path: string
  byteCount: number
  /** Subtransactions that were rolled back after something came of them. */
  readonly abortedXids: Set<number>
}

/**
 * Keeps what the server streams of transactions in progress, each in a file of its own, until they end: frames of a spool file, with the id of
 * the (sub)transaction for a number. Only the open block is in memory, and a file is open only while it is written to: any number
 * of transactions of any size may be in progress.
 *
 * Nothing here is durable, nor need it be: the slot keeps the WAL from the beginning of the oldest transaction in progress and sends everything
 * again to the next connection. Files that a killed process leaves are removed with the folder's other leftovers.
 *
 * A relation is sent again in each streamed transaction, and once more after one of its subtransactions was rolled back, as its first message may
 * have gone with that; after the commit the server takes it for known. So what is left of the messages, decoded at the commit, always
 * tells the shape of the tuples in it and of those that follow.
 */
export class StreamedTransactions implements StreamedHandler {
  readonly #folder: string
  readonly #onCommit: (replay: StreamedReplay) => void
  /** Another process that had the slot may still be writing to its own. */
  readonly #prefix = `streamed-${randomUUID()}`
  readonly #kept = new Map<number, KeptTransaction>()
  readonly #writer = new MessageWriter()
  #open: KeptTransaction | null = null

  /** `onCommit` is told of a transaction that is to be decoded now; until that has been done nothing more may be handed over. */
  constructor(folder: string, onCommit: (replay: StreamedReplay) => void) {
    this.#folder = folder
    this.#onCommit = onCommit
  }

  start(xid: number, isFirst: boolean): void {
    if (isFirst) this.#kept.set(xid, { path: join(this.#folder, `${this.#prefix}-${String(xid)}`), byteCount: 0, abortedXids: new Set() })
    this.#open = this.#kept.get(xid) ?? null
  }

  keep(xid: number, tag: number, { buffer, start, end }: { readonly buffer: Buffer; readonly start: number; readonly end: number }): void {
    const writer = this.#writer
    const byteCount = end - start
    writer.reserve(FRAME_HEADER_BYTES + 1 + byteCount)
    writer.uint32(byteCount + 1)
    writer.uint32(xid)
    writer.buffer[writer.position++] = tag
    buffer.copy(writer.buffer, writer.position, start, end)
    writer.position += byteCount
    if (writer.position >= FLUSH_BYTES) this.#flush()
  }

  stop(): void {
    this.#flush()
    this.#open = null
  }

  commit(commit: StreamCommit): void {
    const kept = this.#kept.get(commit.xid)
    if (kept === undefined) throw new RangeError('a transaction that was not begun')
    this.#kept.delete(commit.xid)
    this.#onCommit(new StreamedReplay(kept, commit))
  }

  abort(xid: number, subXid: number): void {
    const kept = this.#kept.get(xid)
    if (kept === undefined) return
    if (xid !== subXid) {
      kept.abortedXids.add(subXid)
      return
    }
    this.#kept.delete(xid)
    rmSync(kept.path, { force: true })
  }

  /** Removes all files. Idempotent. */
  close(): void {
    for (const { path } of this.#kept.values()) rmSync(path, { force: true })
    this.#kept.clear()
  }

  #flush(): void {
    const kept = this.#open
    const { buffer, position } = this.#writer
    this.#writer.position = 0
    if (kept === null || position === 0) return
    try {
      if (kept.byteCount === 0) mkdirSync(this.#folder, { recursive: true })
      appendFileSync(kept.path, buffer.subarray(0, position))
    } catch (error) {
      throw spoolError(error, kept.path)
    }
    kept.byteCount += position
  }
}

/** Lets whoever takes the changes stop a replay between any two of them, for as long as they want. */
export interface ReplayFlow {
  readonly mayGoOn: () => boolean
  /** Resolves when it may go on; with false where it never will. */
  readonly untilItMay: () => Promise<boolean>
}

/**
 * Decodes a streamed transaction that has committed as if it came only now: Begin, what was kept of it, Commit. A megabyte at a time, so that
 * timers and other work have their turn in between.
 */
export class StreamedReplay {
  readonly #kept: KeptTransaction
  readonly #commit: StreamCommit

  constructor(kept: KeptTransaction, commit: StreamCommit) {
    this.#kept = kept
    this.#commit = commit
  }

  /** Resolves after its Commit was decoded, or when it may never go on. Throws what decoding throws. The file is gone then. */
  async run(decoder: Decoder, flow: ReplayFlow): Promise<void> {
    const { path, byteCount, abortedXids } = this.#kept
    const { commitLsn, endLsn, commitTimeMicros, xid } = this.#commit
    const reader = new SpoolReader(path, 0, lostStream)
    try {
      decoder.decode(written((writer) => { writer.begin(commitLsn, commitTimeMicros, xid) }))
      for (;;) {
        while (flow.mayGoOn() && reader.next()) if (!abortedXids.has(reader.sequence)) decoder.decode(reader.buffer, reader.start, reader.end)
        if (!flow.mayGoOn()) {
          if (!(await flow.untilItMay())) return
        } else if (reader.offset === byteCount) break
        else await reader.read(byteCount)
      }
      decoder.decode(written((writer) => { writer.commit(commitLsn, endLsn, commitTimeMicros) }))
    } finally {
      await reader.close()
      rmSync(path, { force: true })
    }
  }
}

function written(write: (writer: MessageWriter) => void): Buffer {
  const writer = new MessageWriter()
  write(writer)
  return writer.buffer.subarray(0, writer.position)
}

function lostStream(path: string): DomainError {
  return new DomainError({
    kind: 'DestinationFailed',
    message: `the file ${path}, in which a transaction was kept until its commit, was removed or cut`,
    remedy: 'Leave that folder alone. The source sends the transaction again.',
  })
}
