import type { ChunkStage } from '../model/destination.ts'
import type { ChunkCopy, KeyRange } from '../model/source.ts'

/** Rows of one snapshot; whoever takes them discards the stage. */
export interface StagedRead {
  readonly copy: ChunkCopy
  readonly stage: ChunkStage
}

/** `ending` is aborted when nobody wants the rows any more. */
export type ReadRange = (range: KeyRange, ending: AbortSignal) => Promise<StagedRead>

/** One of them alone leaves the source with nothing to do while its last rows are received and the next snapshot is taken. */
const READS_AT_ONCE = 2

/**
 * Reads ranges in their order: the next ones while the one before them is being compared, which costs nobody anything, as what has been
 * written since a snapshot is decided by another look in any case.
 */
export class ReadsAhead {
  readonly #ranges: Iterator<KeyRange>
  readonly #read: ReadRange
  readonly #ending = new AbortController()
  /** False: a range is read when it is asked for. */
  readonly #isAhead: boolean
  readonly #begun: Promise<StagedRead>[] = []

  constructor(ranges: readonly KeyRange[], read: ReadRange, isAhead: boolean) {
    this.#ranges = ranges[Symbol.iterator]()
    this.#read = read
    this.#isAhead = isAhead
  }

  /** The rows of the next range. Throws what reading them threw, and `RangeError` behind the last. */
  async next(): Promise<StagedRead> {
    this.#begin(this.#isAhead ? READS_AT_ONCE : 1)
    const reading = this.#begun.shift()
    if (reading === undefined) throw new RangeError('every range has been read')
    const read = await reading
    if (this.#isAhead) this.#begin(READS_AT_ONCE)
    return read
  }

  /** Ends reads that nobody will take, and discards what came of them. Never throws. */
  async discard(): Promise<void> {
    this.#ending.abort()
    for (const reading of this.#begun.splice(0)) (await reading.catch(() => null))?.stage.discard()
  }

  /** Sees that so many are under way or wait to be taken. */
  #begin(count: number): void {
    while (this.#begun.length < count) {
      const { done, value } = this.#ranges.next() as IteratorResult<KeyRange, undefined>
      if (done === true) return
      const reading = this.#read(value, this.#ending.signal)
      // Whoever takes it hears of a failure.
      reading.catch(() => undefined)
      this.#begun.push(reading)
    }
  }
}
