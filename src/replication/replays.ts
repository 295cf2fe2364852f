import { tableKey } from '../model/table-schema.ts'
import { Replay, type ReplayOptions } from './replay.ts'

export interface ReplaysOptions extends ReplayOptions {
  /** What is being done now, for people; empty = nothing. */
  readonly onActivity: (text: string) => void
  /** Resolves when there may be something to do. */
  readonly rest: () => Promise<void>
}

/** The tables of a session that were told to go on, one after the other: see {@link Replay}. What has been read of one stays from slice to slice. */
export class Replays {
  readonly #options: ReplaysOptions
  readonly #replays = new Map<number, Replay>()

  constructor(options: ReplaysOptions) {
    this.#options = options
  }

  /** Lets tables take the changes that were kept for them, until told to rest. */
  async run(signal: AbortSignal): Promise<void> {
    const { tables, onActivity, rest } = this.#options
    while (!signal.aborted) {
      const table = [...tables.values()].find(({ needsReplay }) => needsReplay)
      if (table === undefined) {
        await rest()
        continue
      }
      const { oid, source } = table.record
      onActivity(`applying the changes of ${tableKey(source)} that were kept`)
      const replay = this.#replays.get(oid) ?? new Replay(oid, this.#options)
      this.#replays.set(oid, replay)
      await replay.run(signal)
      if (replay.isOver) {
        this.#replays.delete(oid)
        await replay.close()
      }
      onActivity('')
    }
  }

  /** Forgets what was read and not applied. */
  async close(): Promise<void> {
    for (const replay of this.#replays.values()) await replay.close().catch(() => undefined)
  }
}
