/** A commit waits this long for others before its batch is applied, when nothing else is going on. */
const COALESCE_MS = 8
/**
 * After a commit a batch of fewer rows waits as long as that commit took, and no longer than this: where a table is so large that finding a few rows takes a
 * tenth of a second, a trickle of changes would keep a core busy all the time.
 */
const FEW_ROWS = 2_000
const MAX_REST_MS = 250
/**
 * So many rows while the last commit ran are a backlog. Then a batch waits until it is as large as one may be: DuckDB writes whole row groups (122,880 rows) straight into the file,
 * and fewer rows first into its log, which takes half as much time again. It waits no longer than this, and not once nothing more comes.
 */
const BACKLOG_ROWS = 10_000
const MAX_GATHER_MS = 1_000
/** Longer than the pauses between two reads of the stream. */
const LULL_MS = 40

interface StagedBatch {
  readonly rowCount: number
  /** When the first of its transactions came, and the last. */
  readonly firstCommitMs: number
  readonly lastCommitMs: number
}

/** When what has been staged is committed at the destination, while no commit runs. All times are milliseconds of one clock. */
export class CommitRhythm {
  #restUntilMs = 0

  onCommit({ startMs, endMs }: { readonly startMs: number; readonly endMs: number }): void {
    this.#restUntilMs = endMs + Math.min(endMs - startMs, MAX_REST_MS)
  }

  dueMs({ rowCount, firstCommitMs, lastCommitMs }: StagedBatch): number {
    if (rowCount >= BACKLOG_ROWS) return Math.min(firstCommitMs + MAX_GATHER_MS, lastCommitMs + LULL_MS)
    return Math.max(firstCommitMs + COALESCE_MS, rowCount < FEW_ROWS ? this.#restUntilMs : 0)
  }
}
