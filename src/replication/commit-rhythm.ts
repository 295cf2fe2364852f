/** A commit waits this long for others before its batch is applied, when nothing else is going on. */
const COALESCE_MS = 8
/**
 * After a commit a batch of fewer rows waits as long as that commit took, and no longer than this: where a table is so large that finding a few rows takes a
 * tenth of a second, a trickle of changes would keep a core busy all the time.
 */
const FEW_ROWS = 2_000
const MAX_REST_MS = 250

/** When what has been staged is committed at the destination, while no commit runs. All times are milliseconds of one clock. */
export class CommitRhythm {
  #restUntilMs = 0

  onCommit({ startMs, endMs }: { readonly startMs: number; readonly endMs: number }): void {
    this.#restUntilMs = endMs + Math.min(endMs - startMs, MAX_REST_MS)
  }

  /** `firstCommitMs`: when the first of the batch's transactions came. */
  dueMs({ rowCount, firstCommitMs }: { readonly rowCount: number; readonly firstCommitMs: number }): number {
    return Math.max(firstCommitMs + COALESCE_MS, rowCount < FEW_ROWS ? this.#restUntilMs : 0)
  }
}
