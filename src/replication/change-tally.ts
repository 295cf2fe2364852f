import type { TableRecord } from '../model/destination.ts'
import type { TableGain } from '../model/replication.ts'
import type { ChangeCounts } from '../model/status.ts'
import { tableKey } from '../model/table-schema.ts'
import { gainOf } from './commit-measure.ts'

/** Adds up what batches have changed, by `schema.table`. */
export class ChangeTally {
  readonly #changes = new Map<string, ChangeCounts>()

  /** Takes a record as a batch has left it, and as it was before. Returns what that batch has brought. */
  add(record: TableRecord, before: TableRecord | null): TableGain {
    const name = tableKey(record.source)
    const sum = this.#changes.get(name) ?? { inserts: 0, updates: 0, deletes: 0, truncates: 0 }
    const gain = gainOf(record, before)
    this.#changes.set(name, {
      inserts: sum.inserts + gain.inserts,
      updates: sum.updates + gain.updates,
      deletes: sum.deletes + gain.deletes,
      truncates: sum.truncates + gain.truncates,
    })
    return gain
  }

  byTable(): Readonly<Record<string, ChangeCounts>> {
    return Object.fromEntries(this.#changes)
  }
}
