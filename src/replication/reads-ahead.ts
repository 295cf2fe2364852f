import type { ChunkStage } from '../model/destination.ts'
import type { ChunkCopy, KeyRange } from '../model/source.ts'

/** Rows of one snapshot; whoever takes them discards the stage. */
export interface StagedRead {
  readonly copy: ChunkCopy
  readonly stage: ChunkStage
}

/** `ending` is aborted when nobody wants the rows any more. */
export type ReadRange = (range: KeyRange, ending: AbortSignal) => Promise<StagedRead>

/**
 * Reads ranges in their order, one at a time: the next one while the one before it is being compared, which costs nobody anything, as what has been
 * written since a snapshot is decided by another look in any case.
 */
export class ReadsAhead {
  readonly #ranges: Iterator<KeyRange>
  readonly #read: ReadRange
  readonly #ending = new AbortController()
  /** False: a range is read when it is asked for. */
  readonly #isAhead: boolean
  #begun: Promise<StagedRead> | null = null

  constructor(ranges: readonly KeyRange[], read: ReadRange, isAhead: boolean) {
    this.#ranges = ranges[Symbol.iterator]()
    this.#read = read
    this.#isAhead = isAhead
  }

  /** The rows of the next range. Throws what reading them threw, and `RangeError` behind the last. */
  async next(): Promise<StagedRead> {
    const reading = this.#begun ?? this.#begin()
    if (reading === null) throw new RangeError('every range has been read')
    this.#begun = null
    const read = await reading
    if (this.#isAhead) this.#begun = this.#begin()
    return read
  }

  /** Ends a read that nobody will take, and discards what came of it. Never throws. */
  async discard(): Promise<void> {
    this.#ending.abort()
    const read = await this.#begun?.catch(() => null)
    this.#begun = null
    read?.stage.discard()
  }

  #begin(): Promise<StagedRead> | null {
    const { done, value } = this.#ranges.next() as IteratorResult<KeyRange, undefined>
    if (done === true) return null
    const reading = this.#read(value, this.#ending.signal)
    // Whoever takes it hears of a failure.
    reading.catch(() => undefined)
    return reading
  }
}
