/** The package: the plugin for somebody's own worker, and the types of what goes in and comes out. Workflow types: `./workflows`. */
export { type Config, loadConfig, type LoadOptions } from './config.ts'
export { DomainError, ERROR_POLICY, type ErrorKind, type ErrorReport } from './model/errors.ts'
export type { LiveProgress } from './model/replication.ts'
export type { ColumnHint, DropReplicationInput, RemoveTablesInput, ReplicationInput, RetryFailedInput, SetOptionsInput, TablesInput, VerifyReplicationInput, WriteMode } from './model/spec.ts'
export type { ChangeCounts, Phase, ReplicationStatus, TableState, TableStatus } from './model/status.ts'
export { PgReplicationPlugin, type PgReplicationPluginOptions } from './plugin.ts'
