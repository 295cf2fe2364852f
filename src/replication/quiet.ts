/** So long nothing must have happened. */
const QUIET_AFTER_MS = 5_000

/** Tells whether anything has happened lately: where not, what is looked at and told now and then need not be so often. */
export class Quiet {
  #stirredMs = performance.now()

  get isQuiet(): boolean {
    return performance.now() - this.#stirredMs >= QUIET_AFTER_MS
  }

  /** Something happens. */
  stir(): void {
    this.#stirredMs = performance.now()
  }

  /** Calls `work` every `intervalMs`, while it is quiet only every `quietTicks`-th time; after a stir within `intervalMs` again. */
  every({ intervalMs, quietTicks }: { readonly intervalMs: number; readonly quietTicks: number }, work: () => void): NodeJS.Timeout {
    let skipped = 0
    return setInterval(() => {
      skipped += 1
      if (this.isQuiet && skipped < quietTicks) return
      skipped = 0
      work()
    }, intervalMs)
  }
}
