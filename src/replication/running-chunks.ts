import type { Bell } from './bell.ts'

/** What there may be to do is announced; whatever is not is seen so soon. */
export const LOOK_MS = 1_000

/** How long is copied: until the abort of `signal`; when no other chunk may begin, those that run are finished. */
export interface CopyTime {
  readonly signal: AbortSignal
  readonly chunks: RunningChunks
}

/**
 * The chunks whose rows are being copied in a slice, which ends no sooner than they do: one that takes longer than a slice lasts (a table without a key is one chunk)
 * would begin anew in each, and never be done.
 *
 * States: chunks may begin → (`endWithThese`) → the running ones end, and no other begins.
 */
export class RunningChunks {
  readonly #onEnd: () => void
  #count = 0
  #mayBegin = true

  /** `onEnd` is called each time a chunk has ended. */
  constructor(onEnd: () => void) {
    this.#onEnd = onEnd
  }

  get mayBegin(): boolean {
    return this.#mayBegin
  }

  /** None is running. */
  get isSettled(): boolean {
    return this.#count === 0
  }

  endWithThese(): void {
    this.#mayBegin = false
  }

  /** Copies a chunk. Passes on what `work` throws. */
  async run<T>(work: () => Promise<T>): Promise<T> {
    this.#count++
    try {
      return await work()
    } finally {
      this.#count--
      this.#onEnd()
    }
  }
}

/** Copies what is there to copy, and what joins later, for as long as there is time; `copy` gives null where there is nothing. Rings when something is copied. */
export function keepCopying(
  { signal, chunks }: CopyTime,
  { copy, bell }: { readonly copy: () => Promise<Record<string, { rows: number }> | null>; readonly bell: Bell },
): { readonly done: Promise<void>; readonly copied: Record<string, { rows: number }> } {
  const copied: Record<string, { rows: number }> = {}
  const mayBegin = (): boolean => !signal.aborted && chunks.mayBegin
  const loop = async (): Promise<void> => {
    while (mayBegin()) {
      const tables = await copy()
      for (const [name, { rows }] of Object.entries(tables ?? {})) copied[name] = { rows: rows + (copied[name]?.rows ?? 0) }
      if (tables !== null) bell.ring()
      // The end may have been rung while it was looked for something to copy.
      else if (mayBegin()) await bell.wait(LOOK_MS)
    }
  }
  return { done: loop(), copied }
}
