import type { Lsn } from '../model/lsn.ts'

/** With so many positions noted they are kept further apart: over an hour at a look every 2 s, and then coarser, a thousandth of the lag at most. */
const MAX_SAMPLES = 2_000

interface Sample {
  readonly lsn: Lsn
  readonly atMs: number
}

/** What the lag is judged by. */
export interface Position {
  readonly appliedLsn: Lsn
  /** Source time of the last commit that was applied; 0 before the first. */
  readonly lastCommitTimeMicros: bigint
  /** `Date.now()`. */
  readonly nowMs: number
}

/**
 * Tells how long ago the source stood where the destination stands. The time of the last commit would not do: WAL that is no commit of ours (another
 * database's, autovacuum's) puts the source ahead for a moment, however long ago our last commit was.
 */
export class LagClock {
  readonly #samples: Sample[] = []
  #spacingMs = 0

  /** The source stands at `lsn` now. Positions never go back. */
  note(lsn: Lsn, atMs: number): void {
    const [before, last] = this.#samples.slice(-2)
    if (lsn <= ((last ?? before)?.lsn ?? -1n)) return
    // The newest one is always there.
    if (before !== undefined && last !== undefined && this.#samples.length > 2 && last.atMs - before.atMs < this.#spacingMs) this.#samples.pop()
    this.#samples.push({ lsn, atMs })
    if (this.#samples.length <= MAX_SAMPLES) return
    const kept = this.#samples.filter((_, index) => index % 2 === 0 || index === this.#samples.length - 1)
    this.#spacingMs = (atMs - (kept[0]?.atMs ?? atMs)) / kept.length
    this.#samples.splice(0, this.#samples.length, ...kept)
  }

  /** Milliseconds; 0 where everything is applied that the source was seen to have; null where nothing tells. */
  lagMs({ appliedLsn, lastCommitTimeMicros, nowMs }: Position): number | null {
    // The newest position that is applied stays: the time between two looks is not lag.
    const passed = this.#samples.findLastIndex(({ lsn }) => lsn <= appliedLsn)
    if (passed > 0) this.#samples.splice(0, passed)
    const [first, second] = this.#samples
    if (second === undefined) this.#spacingMs = 0
    if (first === undefined) return null
    if (first.lsn <= appliedLsn) return second === undefined ? 0 : Math.max(0, nowMs - second.atMs)
    // It was behind before anybody looked: then there is a backlog of commits, and their times tell.
    return lastCommitTimeMicros === 0n ? null : Math.max(nowMs - first.atMs, nowMs - Number(lastCommitTimeMicros / 1000n))
  }
}
