import type { TableRecord } from '../model/destination.ts'
import type { ChangeCounts } from '../model/status.ts'
import { tableKey } from '../model/table-schema.ts'

/** Adds up what batches have changed, by `schema.table`. */
export class ChangeTally {
  readonly #changes = new Map<string, ChangeCounts>()

  /** Takes a record as a batch has left it, and as it was before. */
  add({ source, counts }: TableRecord, before: TableRecord | null): void {
    const name = tableKey(source)
    const sum = this.#changes.get(name) ?? { inserts: 0, updates: 0, deletes: 0, truncates: 0 }
    this.#changes.set(name, {
      inserts: sum.inserts + counts.inserts - (before?.counts.inserts ?? 0),
      updates: sum.updates + counts.updates - (before?.counts.updates ?? 0),
      deletes: sum.deletes + counts.deletes - (before?.counts.deletes ?? 0),
      truncates: sum.truncates + counts.truncates - (before?.counts.truncates ?? 0),
    })
  }

  byTable(): Readonly<Record<string, ChangeCounts>> {
    return Object.fromEntries(this.#changes)
  }
}
