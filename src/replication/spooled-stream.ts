import { DomainError } from '../model/errors.ts'
import { formatLsn, toLsn, type Lsn } from '../model/lsn.ts'
import { SLOT_LOST_REMEDY } from '../model/remedy.ts'
import type { ReplicationStream, Source, StreamOptions } from '../model/source.ts'
import { createDecoder, type Decoder } from '../postgres/pgoutput/decode.ts'
import { SpoolReader } from '../postgres/spool-file.ts'
import { covering, FRAMES_OFFSET, type Segment, type StreamSpool } from './stream-spool.ts'

const BEGIN = 0x42
const COMMIT = 0x43
const RELATION = 0x52
const TRUNCATE = 0x54

/** Somebody who was taken for dead may have moved the slot while it was opened. */
const MAX_ATTEMPTS = 5

/**
 * Opens the stream at `startLsn`, wherever that part of it is: what the slot has confirmed already comes from the spool, the rest from the slot. The slot is
 * taken first, and only then its position counts: from then on nobody else moves it. Segments that are of no use any more are removed.
 *
 * Throws `SlotLost` where the slot has passed `startLsn` and the spool does not hold what lies between, and what `Source.openStream` throws.
 */
export async function openSpooledStream(source: Source, spool: StreamSpool, options: StreamOptions): Promise<ReplicationStream> {
  const { slotName, startLsn } = options
  for (let attempt = 1; ; attempt++) {
    const confirmed = (await source.health(slotName)).slot?.confirmedFlushLsn ?? startLsn
    const chain = confirmed <= startLsn ? [] : covering(spool.segments(), startLsn, confirmed)
    if (chain === null) throw passed(slotName, startLsn, confirmed)
    const from = chain.at(-1)?.endLsn ?? startLsn
    const live = await source.openStream({ ...options, startLsn: from })
    // Nothing has been delivered yet, and nothing is before the spool has been read.
    live.pause()
    try {
      const held = (await source.health(slotName)).slot?.confirmedFlushLsn ?? from
      if (held <= from) {
        const needed = new Set(chain.map(({ path }) => path))
        spool.remove(spool.paths().filter((path) => !needed.has(path)))
        const stream = new SpooledStream({ live, chain, spool, options })
        stream.start()
        return stream
      }
      if (attempt === MAX_ATTEMPTS) throw passed(slotName, from, held)
    } catch (error) {
      await live.close().catch(() => undefined)
      throw error
    }
    await live.close()
  }
}

function passed(slotName: string, needed: Lsn, confirmed: Lsn): DomainError {
  return new DomainError({
    kind: 'SlotLost',
    message: `replication slot ${slotName} stands at ${formatLsn(confirmed)}, and what was written since ${formatLsn(needed)} is neither at the destination nor in the spool beside it`,
    remedy: `Put the folder of the spool back, where it was moved. Else: ${SLOT_LOST_REMEDY}`,
  })
}

interface SpooledStreamOptions {
  /** Paused. */
  readonly live: ReplicationStream
  readonly chain: readonly Segment[]
  readonly spool: StreamSpool
  readonly options: StreamOptions
}

/**
 * A stream that begins in the spool and goes on at the slot, as if it were one connection's.
 *
 * States: reading (segment by segment; the slot is held, nothing is read from it) → live → closed. It gives a transaction once, wherever segments
 * overlap, and none that committed before `startLsn`.
 */
class SpooledStream implements ReplicationStream {
  readonly ended: Promise<void>
  readonly #options: StreamOptions
  readonly #live: ReplicationStream
  readonly #spool: StreamSpool
  /** Not known to be at the destination. */
  #segments: readonly Segment[]
  readonly #chain: readonly Segment[]
  #isLive = false
  #isPaused = false
  #isClosed = false
  /** Transactions that committed before it are not given. */
  #reachedLsn: Lsn
  #isSkipping = false
  /** Relation messages of transactions that were skipped: what the next change of that relation needs before it. */
  readonly #owed = new Map<number, Buffer>()
  #reading: Promise<void> = Promise.resolve()
  #goOn: () => void = () => undefined
  #fail: (error: unknown) => void = () => undefined

  constructor({ live, chain, spool, options }: SpooledStreamOptions) {
    this.#options = options
    this.#live = live
    this.#chain = chain
    this.#segments = chain
    this.#spool = spool
    this.#reachedLsn = options.startLsn
    const failed = new Promise<never>((_, reject) => {
      this.#fail = reject
    })
    failed.catch(() => undefined)
    this.ended = Promise.race([live.ended, failed])
    this.ended.catch(() => undefined)
  }

  get confirmedLsn(): Lsn | null {
    return this.#live.confirmedLsn
  }

  /** Callbacks are called when the caller has the stream. */
  start(): void {
    setImmediate(() => {
      this.#reading = this.#read().catch((error: unknown) => { this.#fail(error) })
    })
  }

  confirm(flushLsn: Lsn): void {
    this.#live.confirm(flushLsn)
    const done = this.#segments.filter(({ endLsn }) => endLsn <= flushLsn)
    if (done.length === 0) return
    this.#segments = this.#segments.filter((segment) => !done.includes(segment))
    this.#spool.remove(done.map(({ path }) => path))
  }

  pause(): void {
    this.#isPaused = true
    this.#live.pause()
  }

  resume(): void {
    this.#isPaused = false
    this.#goOn()
    if (this.#isLive) this.#live.resume()
  }

  requestKeepalive(): void {
    if (this.#isLive) this.#live.requestKeepalive()
  }

  async close(): Promise<void> {
    this.#isClosed = true
    this.#goOn()
    await this.#reading
    await this.#live.close()
  }

  async #read(): Promise<void> {
    for (const segment of this.#chain) {
      const reader = new SpoolReader(segment.path, FRAMES_OFFSET)
      // A segment is what one connection sent: it says the shape of each relation anew.
      const decoder = createDecoder(this.#options.handler)
      this.#owed.clear()
      try {
        for (let isGiven = true; !isGiven || reader.offset < segment.endOffset; ) {
          while (this.#isPaused && !this.#isClosed) await new Promise<void>((resolve) => { this.#goOn = resolve })
          if (this.#isClosed) return
          if (isGiven && !reader.next()) await reader.read(segment.endOffset)
          else isGiven = this.#give(decoder, reader)
        }
      } finally {
        await reader.close()
      }
      if (segment.endLsn > this.#reachedLsn) this.#reachedLsn = segment.endLsn
    }
    this.#isLive = true
    if (!this.#isPaused && !this.#isClosed) this.#live.resume()
  }

  /** False where only what has to come before the message was given: it may have paused the stream. */
  #give(decoder: Decoder, { buffer, start, end }: SpoolReader): boolean {
    const tag = buffer[start]
    if (tag === BEGIN) this.#isSkipping = buffer.readBigUInt64BE(start + 1) < this.#reachedLsn
    if (this.#isSkipping) {
      if (tag === RELATION) this.#owed.set(buffer.readUInt32BE(start + 1), Buffer.from(buffer.subarray(start, end)))
      return true
    }
    if (tag === COMMIT) this.#reachedLsn = toLsn(buffer.readBigUInt64BE(start + 10))
    if (tag !== BEGIN && tag !== COMMIT) {
      const oid = buffer.readUInt32BE(tag === TRUNCATE ? start + 6 : start + 1)
      const owed = tag === RELATION ? undefined : this.#owed.get(oid)
      this.#owed.delete(oid)
      if (owed !== undefined) {
        decoder.decode(owed)
        return false
      }
    }
    decoder.decode(buffer, start, end)
    return true
  }
}
