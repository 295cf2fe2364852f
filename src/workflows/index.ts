/**
 * The workflow types (contract §4), for the worker's bundle and for typed clients. Nothing else that is a function may be exported
 * here: Temporal would take it for a workflow.
 */
export { dropReplication, type DropReplicationResult } from './drop-replication.ts'
export { initReplication, type InitReplicationResult } from './init-replication.ts'
export {
  addTablesUpdate,
  approveSchemaChangeUpdate,
  pauseUpdate,
  removeTablesUpdate,
  resumeUpdate,
  resyncTablesUpdate,
  recoverUpdate,
  retryFailedUpdate,
  setOptionsUpdate,
  statusQuery,
  stopSignal,
  stopUpdate,
} from './messages.ts'
export { replicate } from './replicate.ts'
export { snapshotTables, type SnapshotTablesResult } from './snapshot-tables.ts'
export { syncByXmin, type SyncByXminResult } from './sync-by-xmin.ts'
export { syncChanges, type SyncChangesResult } from './sync-changes.ts'
export { verifyReplication, type VerifyReplicationResult } from './verify-replication.ts'

export type { ErrorKind, ErrorReport } from '../model/errors.ts'
export type { ApproveSchemaChangeInput, ColumnHint, DropReplicationInput, EmptyInput, RemoveTablesInput, ReplicationInput, RetryFailedInput, SetOptionsInput, TablesInput, VerifyReplicationInput, WriteMode, XminInput, XminWriteMode } from '../model/spec.ts'
export type { XminTableResult } from '../model/replication.ts'
export type { NamedDifference, VerifiedTable } from '../model/verification.ts'
export type { ChangeCounts, Phase, ReplicationStatus, TableState, TableStatus } from '../model/status.ts'
