/** How a table's changes land in the destination. */
export type WriteMode = 'merge' | 'append' | 'scd2'

/** A user's type hint for a destination column. */
export interface ColumnHint {
  readonly dataType?: string
  readonly precision?: number
  readonly scale?: number
}

export type PublishedOperation = 'insert' | 'update' | 'delete' | 'truncate'

export const OPERATIONS: readonly PublishedOperation[] = ['insert', 'update', 'delete', 'truncate']

/** The replication spec of contract §4, validated and with its defaults filled in. JSON-safe; keys of maps are spelled as the user did. */
export interface ReplicationSpec {
  readonly source: string
  readonly destination: string
  readonly slotName: string
  readonly publicationName: string
  readonly schemaName: string
  /** null = the whole schema. */
  readonly tableNames: readonly string[] | null
  readonly publish: readonly PublishedOperation[]
  readonly includeColumns: Readonly<Record<string, readonly string[]>>
  readonly columns: Readonly<Record<string, Readonly<Record<string, ColumnHint>>>>
  readonly datasetName: string | null
  /** One mode for all tables, or per table; a table not named has the default ({@link defaultWriteMode}). */
  readonly writeMode: WriteMode | Readonly<Record<string, readonly WriteMode[]>>
  readonly deleteMode: 'hard' | 'soft'
  readonly snapshotMode: 'initial' | 'persisted' | 'never'
  readonly schemaChanges: 'apply' | 'ask' | 'refuse'
  readonly reset: boolean
  /** Rows per destination commit; null = tuned by us. */
  readonly targetBatchSize: number | null
  readonly flushSlot: boolean
  readonly walBudgetBytes: number | null
  readonly spoolBudgetBytes: number
}

/** The mode of a table that `writeMode` does not name: `append` where the input publishes inserts alone, else `merge`. */
export function defaultWriteMode(publish: readonly PublishedOperation[]): WriteMode {
  return publish.length === 1 && publish[0] === 'insert' ? 'append' : 'merge'
}

/** A spec as parsed from a workflow's input: source and destination are resolved by the worker, which knows its configuration. */
export type UnresolvedSpec = Omit<ReplicationSpec, 'source' | 'destination'> & {
  /** null = `default`, or the only one configured. */
  readonly source: string | null
  readonly destination: string | null
}

/** The replication spec as a user gives it (contract §4): every workflow takes one such JSON object. */
export interface ReplicationInput {
  readonly source?: string
  readonly destination?: string
  readonly slotName: string
  readonly publicationName: string
  readonly schemaName?: string
  readonly tableNames?: string | readonly string[]
  readonly publish?: string
  readonly includeColumns?: Readonly<Record<string, string | readonly string[]>>
  readonly columns?: Readonly<Record<string, Readonly<Record<string, ColumnHint>>>>
  readonly datasetName?: string
  readonly writeMode?: WriteMode | Readonly<Record<string, WriteMode | readonly WriteMode[]>>
  readonly deleteMode?: 'hard' | 'soft'
  readonly snapshotMode?: 'initial' | 'persisted' | 'never'
  readonly schemaChanges?: 'apply' | 'ask' | 'refuse'
  readonly reset?: boolean
  readonly targetBatchSize?: number
  readonly flushSlot?: boolean
  readonly walBudgetBytes?: number
  readonly spoolBudgetBytes?: number
}

/** What `syncByXmin` works by: what of a replication spec needs no slot, and what to do about deletes. */
export interface XminSpec
  extends Pick<ReplicationSpec, 'source' | 'destination' | 'schemaName' | 'tableNames' | 'includeColumns' | 'columns' | 'datasetName' | 'schemaChanges' | 'reset' | 'targetBatchSize'> {
  readonly writeMode: XminWriteMode | Readonly<Record<string, readonly XminWriteMode[]>>
  /** `compare`: all keys are read, and rows whose keys are gone are deleted. */
  readonly deletes: 'ignore' | 'compare'
}

/** `scd2` needs commit times, which no row has. */
export type XminWriteMode = Exclude<WriteMode, 'scd2'>

/** As {@link UnresolvedSpec}. */
export type UnresolvedXminSpec = Omit<XminSpec, 'source' | 'destination'> & { readonly source: string | null; readonly destination: string | null }

/** Input of `syncByXmin`. */
export interface XminInput
  extends Pick<
    ReplicationInput,
    'source' | 'destination' | 'schemaName' | 'tableNames' | 'includeColumns' | 'columns' | 'datasetName' | 'reset' | 'targetBatchSize'
  > {
  readonly writeMode?: XminWriteMode | Readonly<Record<string, XminWriteMode>>
  readonly deleteMode?: 'hard'
  readonly schemaChanges?: 'apply' | 'refuse'
  /** Default `ignore`: deletes are not seen. */
  readonly deletes?: 'ignore' | 'compare'
}

/** Input of `dropReplication`: a replication's spec (only names are used), and the confirmation. */
export interface DropReplicationInput extends ReplicationInput {
  /** Must equal `slotName`. */
  readonly confirm: string
  /** Drop the destination tables and state too; default false. */
  readonly dropDestination?: boolean
}

/** Input of `verifyReplication`: a replication's spec, and what to do about differences. */
export interface VerifyReplicationInput extends ReplicationInput {
  /** Put the source's rows in the place of those that differ; default false. */
  readonly repair?: boolean
  /** Rows read at the source on average; default: as fast as it goes. */
  readonly maxRowsPerSecond?: number
}

/** Input of the updates that need nothing. */
export type EmptyInput = Readonly<Record<string, never>>

/** Input of update `addTables`. */
export interface TablesInput {
  readonly tableNames: string | readonly string[]
}

/** Input of update `resyncTables`: with one of the modes the tables are copied into other shapes than they have. */
export type ResyncTablesInput = TablesInput & Pick<ReplicationInput, 'writeMode' | 'deleteMode'>

/** Input of update `removeTables`. */
export interface RemoveTablesInput extends TablesInput {
  /** Drop their destination tables too; default false. */
  readonly dropDestination?: boolean
}

/** Input of update `approveSchemaChange`. */
export interface ApproveSchemaChangeInput {
  readonly table: string
}

/** Options of a replication that may be changed while it runs. */
export type RunningOptions = {
  readonly [Option in 'targetBatchSize' | 'flushSlot' | 'schemaChanges' | 'walBudgetBytes' | 'spoolBudgetBytes']?: NonNullable<ReplicationSpec[Option]>
}

/** Input of update `setOptions`. */
export type SetOptionsInput = Pick<ReplicationInput, 'targetBatchSize' | 'flushSlot' | 'schemaChanges' | 'walBudgetBytes' | 'spoolBudgetBytes'>

/** Input of update `retryFailed`. */
export interface RetryFailedInput {
  /** Default: every failed table. */
  readonly tableNames?: string | readonly string[]
}
