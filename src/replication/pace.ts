import { setTimeout as sleep } from 'node:timers/promises'
import type { ChunkStage } from '../model/destination.ts'
import { type RowsCopy, stageCopy } from './stage-copy.ts'

/** Rows between two looks at the clock. */
const ROWS_AT_ONCE = 200

/** Counts the rows that are read, and holds them to a number a second on average, where one is given. */
export class Pace {
  readonly #maxRowsPerSecond: number | null
  readonly #signal: AbortSignal
  readonly #startMs = performance.now()
  #rowCount = 0

  constructor(maxRowsPerSecond: number | null, signal: AbortSignal) {
    this.#maxRowsPerSecond = maxRowsPerSecond
    this.#signal = signal
  }

  /** How long so many rows more will take, going by those that have been read; null = not known yet. */
  secondsFor(rowCount: number): number | null {
    const seconds = (performance.now() - this.#startMs) / 1_000
    return this.#rowCount === 0 || seconds === 0 ? null : rowCount / (this.#rowCount / seconds)
  }

  /** Stages a copy; with a limit row by row, so that the source waits where it is too fast. */
  async stage(copy: RowsCopy, stage: ChunkStage): Promise<void> {
    if (this.#maxRowsPerSecond === null) {
      await stageCopy(copy, stage)
      this.#rowCount += stage.rowCount
      return
    }
    let count = 0
    await copy.rows((tuple) => {
      stage.add(tuple)
      if (++count % ROWS_AT_ONCE !== 0) return undefined
      this.#rowCount += ROWS_AT_ONCE
      return this.rest()
    })
    this.#rowCount += count % ROWS_AT_ONCE
  }

  /** Waits until what has been read is not too much for the time that it took. Throws the signal's reason. */
  async rest(): Promise<void> {
    if (this.#maxRowsPerSecond === null) return
    const dueMs = this.#startMs + (1_000 * this.#rowCount) / this.#maxRowsPerSecond - performance.now()
    if (dueMs > 0) await sleep(dueMs, undefined, { signal: this.#signal })
  }
}
