import { copyFileSync, existsSync, rmSync } from 'node:fs'
import { closeIdleDatabases } from '../../src/destinations/duckdb/database.ts'
import type { Destination } from '../../src/model/destination.ts'

/** What the process was doing when it was killed. */
export class Killed extends Error {}

/** Calls that commit. */
const COMMITS: ReadonlySet<string> = new Set<keyof Destination>(['applyBatch', 'applyChunks', 'prepareCopies', 'restartCopy', 'removeTable', 'renameTables', 'saveTables', 'saveCheckpoint', 'swapCopy', 'register', 'reshapeTables'])

/**
 * Stands between the engine and its DuckDB file, and lets one commit be the last thing that the process does. What a `kill -9` leaves at that
 * instant, the file and its log, neither checkpointed nor closed, is put in the place of what the engine leaves when it ends.
 */
export class KilledDestination {
  kills = 0
  readonly #file: () => string
  /** Commits that still succeed; null = it is not killed. */
  #remaining: number | null = null
  #isAfter = false
  #running = 0
  #isDead = false

  constructor(file: () => string) {
    this.#file = file
  }

  /** The commit after so many others is the last: it is not begun, or nobody learns that it came about. */
  arm(commits: number, isAfter: boolean): void {
    this.#remaining = commits
    this.#isAfter = isAfter
  }

  get isDead(): boolean {
    return this.#isDead
  }

  /** After the engine has let go of the file: it is as the kill left it. */
  revive(): void {
    this.#remaining = null
    if (!this.#isDead) return
    this.#isDead = false
    const left = `${this.#file()}.left`
    if (!existsSync(left)) return
    for (const suffix of ['', '.wal']) {
      rmSync(`${this.#file()}${suffix}`, { force: true })
      if (existsSync(`${left}${suffix}`)) copyFileSync(`${left}${suffix}`, `${this.#file()}${suffix}`)
      rmSync(`${left}${suffix}`, { force: true })
    }
  }

  around(destination: Destination): Destination {
    return new Proxy(destination, {
      get: (target, name: string) => {
        const member: unknown = Reflect.get(target, name, target)
        if (typeof member !== 'function') return member
        const isSynchronous = name === 'newBatch' || name === 'newChunk' || name === 'spoolFolder'
        if (isSynchronous) return (...given: unknown[]): unknown => Reflect.apply(member, target, given)
        return async (...given: unknown[]): Promise<unknown> => this.#call(name, async () => (await Reflect.apply(member, target, given)) as unknown)
      },
    })
  }

  async #call(name: string, call: () => Promise<unknown>): Promise<unknown> {
    const isCommit = COMMITS.has(name)
    if (this.#isDead && name !== 'close') throw new Killed()
    const isLast = isCommit && this.#remaining !== null && this.#remaining-- === 0
    if (isLast && !this.#isAfter) this.#kill()
    this.#running++
    try {
      return await call()
    } finally {
      this.#running--
      if (isLast) this.#kill()
    }
  }

  #kill(): void {
    this.#isDead = true
    this.kills++
    // Another statement that runs would be half in the copy, as no kill leaves it: then only the call is lost.
    if (this.#running === 0) for (const suffix of ['', '.wal']) if (existsSync(`${this.#file()}${suffix}`)) copyFileSync(`${this.#file()}${suffix}`, `${this.#file()}.left${suffix}`)
    throw new Killed()
  }
}

/** Does it again until it is not killed; what did not survive it is as the kill left it. */
export async function survive(killer: KilledDestination, pipeline: { release(): Promise<void> }, work: () => Promise<unknown>): Promise<void> {
  for (;;) {
    try {
      await work()
      return
    } catch (error) {
      if (!(error instanceof Killed)) throw error
    } finally {
      if (killer.isDead) {
        // What is alive lets go: of nothing.
        await pipeline.release().catch(() => undefined)
        await closeIdleDatabases()
        killer.revive()
      }
    }
  }
}
