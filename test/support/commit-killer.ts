import type { Destination } from '../../src/model/destination.ts'

/** Everything that an order, or the copy after it, commits. Before a claim the publication has been changed already. */
export const COMMITS: readonly (keyof Destination)[] = [
  ...(['claim', 'register', 'removeTables', 'saveTables', 'prepareCopies'] as const),
  ...(['applyChunks', 'swapCopy', 'applyBatch', 'saveCheckpoint'] as const),
]

export class Killed extends Error {}

/** Lets the process die at one commit: before it, or after it and before anybody knows. */
export class CommitKiller {
  #left = -1
  #isAfter = false
  #isDone = true
  /** What it died at. */
  readonly victims: string[] = []

  /** The commit with this number from now on is the last one. */
  arm(index: number, isAfter: boolean): void {
    this.#left = index
    this.#isAfter = isAfter
    this.#isDone = false
  }

  /** True where it has not died: there are no more commits than that. */
  disarm(): boolean {
    const wasLeft = !this.#isDone
    this.#isDone = true
    return wasLeft
  }

  around(destination: Destination): Destination {
    return new Proxy(destination, {
      get: (target, name: keyof Destination) => {
        const member: unknown = Reflect.get(target, name, target)
        if (typeof member !== 'function') return member
        const call = async (...given: unknown[]): Promise<unknown> => {
          const isLast = !this.#isDone && this.#left-- === 0
          if (isLast && !this.#isAfter) this.#die(name)
          const result: unknown = await Reflect.apply(member, target, given)
          if (isLast) this.#die(name)
          return result
        }
        return COMMITS.includes(name) ? call : (...given: unknown[]): unknown => Reflect.apply(member, target, given)
      },
    })
  }

  #die(name: string): never {
    this.#isDone = true
    this.victims.push(`${this.#isAfter ? 'after' : 'before'} ${name}`)
    throw new Killed()
  }
}

/** Runs it until it is not killed. */
export async function survive<T>(work: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await work()
    } catch (error) {
      if (!(error instanceof Killed)) throw error
    }
  }
}
