import { parseReplicationInput } from '../model/spec-parse.ts'
import type { ReplicationInput } from '../model/spec.ts'
import { refuseFailedTables, runOneShot, runSlices } from './one-shot.ts'
import { parseRunInput } from './run-input.ts'

/** What `snapshotTables` returns: rows of each table that is loaded now. */
export interface SnapshotTablesResult {
  readonly tables: Readonly<Record<string, { readonly rows: number }>>
}

/** Initial load of the tables not yet loaded (of `tableNames`, when given). Resumable, exactly once; needs `initReplication` before it. */
export async function snapshotTables(input: ReplicationInput, ...more: readonly undefined[]): Promise<SnapshotTablesResult> {
  const spec = parseRunInput([input, ...more], parseReplicationInput)
  return runOneShot(spec, async (shot) => {
    const rows: Record<string, { rows: number }> = {}
    const last = await runSlices(shot, { mode: 'copy', tableNames: spec.tableNames, untilLsn: null }, (result) => {
      for (const [table, copied] of Object.entries(result.copied)) {
        // The table's own count, which the destination keeps with the rows: an attempt that was lost has copied too.
        rows[table] = { rows: result.progress.tables[table]?.snapshotRows ?? (rows[table]?.rows ?? 0) + copied.rows }
      }
    })
    refuseFailedTables(last.progress)
    return { tables: rows }
  })
}
