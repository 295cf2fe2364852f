import { defineQuery, defineSignal, defineUpdate } from '@temporalio/workflow'
import type { ApproveSchemaChangeInput, EmptyInput, RemoveTablesInput, ResyncTablesInput, RetryFailedInput, SetOptionsInput, TablesInput } from '../model/spec.ts'
import type { ReplicationStatus } from '../model/status.ts'

/** Query `status` of a `replicate` workflow. */
export const statusQuery = defineQuery<ReplicationStatus>('status')

/** Holds the stream after the running commit; the position, the slot and the claim are kept. Pausing what is paused succeeds. */
export const pauseUpdate = defineUpdate<ReplicationStatus, [input: EmptyInput]>('pause')

/** Goes on exactly where `pause` held. Resuming what runs succeeds. */
export const resumeUpdate = defineUpdate<ReplicationStatus, [input: EmptyInput]>('resume')

/** Goes on where a table, or the whole replication, stopped at an error; where a fault is being retried, at once. */
export const retryFailedUpdate = defineUpdate<ReplicationStatus, [input: RetryFailedInput]>('retryFailed')

/** Replicates more tables, beside those that go on. Answers once they are `pending`; adding what is replicated already succeeds. */
export const addTablesUpdate = defineUpdate<ReplicationStatus, [input: TablesInput]>('addTables')

/** Takes tables out of publication and replication; their rows stay, unless `dropDestination`. */
export const removeTablesUpdate = defineUpdate<ReplicationStatus, [input: RemoveTablesInput]>('removeTables')

/** Copies tables anew beside the rows that readers see, in other shapes where it names them, and swaps them in at once. Answers once they are `pending`. */
export const resyncTablesUpdate = defineUpdate<ReplicationStatus, [input: ResyncTablesInput]>('resyncTables')

/** Lets a table make the schema change that it waits at (`schemaChanges: "ask"`). Answers once it goes on. */
export const approveSchemaChangeUpdate = defineUpdate<ReplicationStatus, [input: ApproveSchemaChangeInput]>('approveSchemaChange')

/** Changes options of the running replication, until it ends. Answers once nothing runs with the former ones any more. */
export const setOptionsUpdate = defineUpdate<ReplicationStatus, [input: SetOptionsInput]>('setOptions')

/**
 * After `SlotLost`, or `DifferentSource` where the source was restored, promoted or upgraded: makes a new slot where the one that is there cannot be gone on with, then copies only what differs. Answers once the slot is there
 * and the stream goes on from it; a table is `snapshotting` until it has been compared. Refused where nothing was lost.
 */
export const recoverUpdate = defineUpdate<ReplicationStatus, [input: EmptyInput]>('recover')

/** Ends the workflow COMPLETED after the running commit, from any phase, with the slot let go of. */
export const stopUpdate = defineUpdate<ReplicationStatus, [input: EmptyInput]>('stop')

/** The same as update `stop`, for tools without updates. */
export const stopSignal = defineSignal('stop')

/** What the UI shows of each message. */
export const MESSAGE_DESCRIPTIONS = {
  status: 'Phase, position, lag, and every table with its state and counts. Takes nothing.',
  pause: 'Hold after the running commit and keep the position; answers when nothing is written any more. Input: {}',
  resume: 'Go on exactly where pause held. Input: {}',
  retryFailed: 'Go on where a table or the replication stopped at an error. Input: {"tableNames": ["schema.table"]}, or {} for all',
  addTables: 'Replicate more tables, beside those that go on; answers once they wait for their copy. Input: {"tableNames": ["schema.table"]}',
  removeTables: 'Stop replicating tables; their rows stay unless dropDestination is true. Input: {"tableNames": ["schema.table"], "dropDestination": false}',
  resyncTables: 'Copy tables anew, swapped in at once when they are whole. Input: {"tableNames": ["schema.table"]}; with "writeMode" (as in the workflow input) or "deleteMode" in that shape from then on',
  approveSchemaChange: 'Let a table make the schema change that it waits at; status shows it. Input: {"table": "schema.table"}',
  setOptions: 'Change options until this workflow ends. Input, one or more of: {"targetBatchSize": 50000, "flushSlot": true, "schemaChanges": "apply", "walBudgetBytes": 5000000000, "spoolBudgetBytes": 20000000000}',
  recover: 'After SlotLost (or a source that was restored, promoted or upgraded): make a new slot, or go on with one that was kept, then copy only what differs. Answers once the stream goes on; tables are snapshotting until they are compared. Input: {}',
  stop: 'End this workflow (COMPLETED) after the running commit and let go of the slot; a later start goes on exactly. Input: {}',
} as const
