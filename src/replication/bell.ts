/** Wakes everybody who waits for something to happen. */
export class Bell {
  readonly #waiting = new Set<() => void>()

  ring(): void {
    for (const wake of this.#waiting) wake()
    this.#waiting.clear()
  }

  /** Resolves when it rings, after `limitMs` at the latest. */
  async wait(limitMs: number): Promise<void> {
    await new Promise<void>((resolve) => {
      const timer = setTimeout(() => {
        this.#waiting.delete(wake)
        resolve()
      }, limitMs)
      const wake = (): void => {
        clearTimeout(timer)
        resolve()
      }
      this.#waiting.add(wake)
    })
  }
}
