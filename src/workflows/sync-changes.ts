import type { SliceResult } from '../model/replication.ts'
import { parseReplicationInput } from '../model/spec-parse.ts'
import type { ReplicationInput } from '../model/spec.ts'
import type { ChangeCounts, ReplicationProgress, TableStatus } from '../model/status.ts'
import { type OneShot, refuseFailedTables, runOneShot, runSlices } from './one-shot.ts'
import { parseRunInput } from './run-input.ts'

/** What `syncChanges` returns. */
export interface SyncChangesResult {
  readonly fromLsn: string
  readonly toLsn: string
  readonly transactions: number
  readonly tables: Readonly<Record<string, ChangeCounts>>
}

/**
 * Init and snapshot if still missing, then everything that committed before it started; then it ends and lets go of the slot. For
 * schedules (overlap policy SKIP): their run's id has a time in it, which does not matter, the claim is on the slot.
 */
export async function syncChanges(input: ReplicationInput, ...more: readonly undefined[]): Promise<SyncChangesResult> {
  const spec = parseRunInput([input, ...more], parseReplicationInput)
  return runOneShot(spec, sync)
}

async function sync(shot: OneShot): Promise<SyncChangesResult> {
  const { spec, run } = shot
  const { progress: before } = await run(`check and prepare slot ${spec.slotName}`, (activities) => activities.initializeReplication({ spec }))
  const states = Object.values(before.tables).map((table) => table.state)
  // Starting again is how a one-shot run is retried.
  if (states.includes('failed')) await run('let failed tables go on', (activities) => activities.retryFailedTables({ spec, tableNames: null }))
  if (states.some((state) => state === 'pending' || state === 'snapshotting')) {
    await runSlices(shot, { mode: 'copy', tableNames: null, untilLsn: null }, () => undefined)
  }
  const slices: SliceResult[] = []
  const last = await runSlices(shot, { mode: 'stream', tableNames: null, untilLsn: 'now' }, (result) => {
    slices.push(result)
  })
  refuseFailedTables(last.progress)
  return {
    fromLsn: before.appliedLsn ?? slices[0]?.fromLsn ?? last.fromLsn,
    toLsn: last.toLsn,
    transactions: slices.reduce((sum, slice) => sum + slice.transactions, 0),
    tables: changesBetween(before, last.progress),
  }
}

/** From the counts that the destination keeps with the rows: what an attempt applied that was lost with its worker counts too. */
function changesBetween(before: ReplicationProgress, after: ReplicationProgress): Record<string, ChangeCounts> {
  return Object.fromEntries(
    Object.entries(after.tables).map(([name, table]) => {
      const count = (key: keyof ChangeCounts): number => Math.max(0, table[key] - countBefore(before.tables[name], key))
      return [name, { inserts: count('inserts'), updates: count('updates'), deletes: count('deletes'), truncates: count('truncates') }]
    }),
  )
}

function countBefore(table: TableStatus | undefined, key: keyof ChangeCounts): number {
  return table?.[key] ?? 0
}
