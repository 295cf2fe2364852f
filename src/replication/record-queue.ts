import { isTableFault } from '../model/errors.ts'

/**
 * One at a time: whatever changes table records. After an error other than a table's own nobody knows whether the destination has
 * committed, and records here may be older than its: nothing more is written.
 */
export class RecordQueue {
  #tail: Promise<unknown> = Promise.resolve()
  #isBroken = false

  /** Nothing is written any more. */
  get isBroken(): boolean {
    return this.#isBroken
  }

  async run<T>(work: () => Promise<T>): Promise<T> {
    const run = this.#tail.then(work)
    this.#tail = run.catch((error: unknown) => {
      if (isTableFault(error)) return
      this.#isBroken = true
      throw error
    })
    this.#tail.catch(() => undefined)
    return run
  }

  /** Resolves when nothing runs any more. */
  async settled(): Promise<void> {
    await this.#tail.catch(() => undefined)
  }
}
