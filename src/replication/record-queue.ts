import { isTableFault } from './copier.ts'

/**
 * One at a time: whatever changes table records. After an error other than a table's own nobody knows whether the destination has
 * committed, and records here may be older than its: nothing more is written.
 */
export class RecordQueue {
  #tail: Promise<unknown> = Promise.resolve()

  async run<T>(work: () => Promise<T>): Promise<T> {
    const run = this.#tail.then(work)
    this.#tail = run.catch((error: unknown) => {
      if (!isTableFault(error)) throw error
    })
    this.#tail.catch(() => undefined)
    return run
  }

  /** Resolves when nothing runs any more. */
  async settled(): Promise<void> {
    await this.#tail.catch(() => undefined)
  }
}
