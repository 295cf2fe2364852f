import type { ReplicationSpec, XminSpec } from './spec.ts'
import type { ChangeCounts, ReplicationProgress } from './status.ts'
import type { ErrorReport } from './errors.ts'
import type { VerifyRequest, VerifyResult } from './verification.ts'

/**
 * # The engine's contract: what activities ask of it
 *
 * One call works for one slot. Every call may be repeated after a crash at any instant and goes on from the destination's
 * checkpoint. Requests and results are JSON-safe: never a row, never a secret.
 */
export interface ReplicationEngine {
  /**
   * Checks (nothing changed) → claim of the destination for `owner` → publication, slot → tables registered at the destination.
   * Throws `AlreadyReplicating` where an open workflow other than `owner` holds the slot.
   */
  initialize(request: InitializeRequest, context: OperationContext): Promise<InitializeResult>
  /**
   * After a lost slot, or from a source that was restored, promoted or upgraded: a new slot under the same name (or the one that such a source has kept), and the destination's position where it begins. What
   * was written in between did not come: the slices that follow compare every table with the source and copy what differs. Checks, claim and result as of
   * {@link initialize}; repeated after a crash it makes the slot once more. Throws `InvalidInput` where nothing has been replicated yet.
   */
  recover(request: RecoverRequest, context: OperationContext): Promise<InitializeResult>
  /**
   * Copies and/or streams for a while. Returns early when there is nothing left to do for its mode, when changes begin after an
   * idle time, or soon after `context.signal` aborts (what was committed stays; never throws for the abort itself).
   */
  runSlice(request: SliceRequest, context: OperationContext): Promise<SliceResult>
  /** Closes what the slot's session holds in this process (connection, destination file) and gives the claim back. Idempotent. */
  release(request: ReleaseRequest): Promise<void>
  /**
   * Puts failed tables back to where they stopped, so that the next slice goes on with them. Throws `InvalidInput`, and changes nothing,
   * where a table is named that is not replicated or has not failed.
   */
  retryTables(request: RetryRequest): Promise<void>
  /**
   * Adds, removes or copies anew tables of a replication that has been initialized, or lets one make a change that waits for it, beside those
   * that go on. Throws before anything is changed; what is returned is durable. Repeated after a crash it comes to the same end.
   */
  changeTables(request: ChangeTablesRequest, context: OperationContext): Promise<ChangeTablesResult>
  /**
   * Watches the slot without touching the destination, and reads its stream into files beside it while more WAL is held back than the budget. Only what is
   * durable there is confirmed. Returns soon after `context.signal` aborts; throws what no retry mends.
   */
  spool(request: SpoolRequest, context: OperationContext): Promise<SpoolResult>
  /** Drops slot and publication and, when asked, destination tables and state. Idempotent. */
  drop(request: DropRequest, context: OperationContext): Promise<{ readonly dropped: readonly string[] }>
  /**
   * Reads what was written since each table's last reading, without a slot. Returns early when its time is over, or soon after
   * `context.signal` aborts; called again with the same `runId` it goes on where it was.
   */
  syncByXmin(request: XminRequest, context: OperationContext): Promise<XminResult>
  /**
   * Compares tables with their source for a while, beside the stream: that of the workflow which owns the slot, or one of its own where none does. Returns early
   * when its time is over (between two ranges of a table), or soon after `context.signal` aborts; called again with the progress it goes on.
   */
  verify(request: VerifyRequest, context: OperationContext): Promise<VerifyResult>
}

export interface XminRequest {
  readonly spec: XminSpec
  /** Tells a run from others: each reads every table once to its end. */
  readonly runId: string
  readonly maxMs: number
}

export interface XminResult {
  readonly ended: 'done' | 'time' | 'aborted'
  /** What this run has taken, by `schema.table`. */
  readonly tables: Readonly<Record<string, XminTableResult>>
  /** Tables that have stopped, by `schema.table`. */
  readonly failed: Readonly<Record<string, ErrorReport>>
  readonly warnings: readonly string[]
}

/** What a run of `syncByXmin` took of one table. */
export interface XminTableResult {
  readonly rows: number
  /** What transactions before this one wrote is in the destination (64 bits with epoch, decimal); null = not read whole yet. */
  readonly watermark: string | null
}

export interface OperationContext {
  readonly signal: AbortSignal
  /** The owning workflow's id. */
  readonly owner: string
  /** Asked of Temporal: is that workflow open? (design.md, decision 7) */
  isWorkflowOpen(workflowId: string): Promise<boolean>
  /** Called a few times a second at most with live figures; the caller throttles further. */
  report(live: LiveProgress): void
  /** Told of what happens in the data plane, as it happens: metrics count it. */
  observe(measure: Measure): void
}

/** Live figures of the running activity: heartbeat details, shown by `cli status`. */
export interface LiveProgress {
  /** For people: "waiting for pids 12, 15 …", "copying public.orders 40 %". */
  readonly activity: string
  readonly progress?: ReplicationProgress
  readonly slot?: SlotFigures
}

/** What a slot costs; null where it is not known. */
export interface SlotFigures {
  readonly retainedWalBytes: number | null
  /** `max_slot_wal_keep_size`; null = there is no bound, too. */
  readonly maxSlotWalKeepBytes: number | null
  /** Of the files beside the destination. */
  readonly spoolBytes: number
}

export type Measure =
  /** The slot's session was opened: connections, destination, spool. */
  | { readonly tag: 'sessionOpened' }
  | CommitMeasure

/** A destination commit that is in force. */
export interface CommitMeasure {
  readonly tag: 'committed'
  readonly work: 'stream' | 'copy' | 'replay'
  readonly durationMs: number
  readonly rowCount: number
  /** As staged. */
  readonly byteCount: number
  /** What it has brought, by `schema.table`. */
  readonly tables: Readonly<Record<string, TableGain>>
}

/** Rows that one commit has brought to a table. */
export interface TableGain extends ChangeCounts {
  readonly copiedRows: number
}

export interface InitializeRequest {
  readonly spec: ReplicationSpec
}

export interface RecoverRequest extends InitializeRequest {
  /** It has failed with `DifferentSource`, and never with `SlotLost`: where the former source is back, its slot is taken up as it is. */
  readonly onlySourceDiffered?: boolean
}

export interface InitializeResult {
  readonly slotName: string
  readonly publicationName: string
  /** LSN text; of an existing slot its confirmed flush LSN. */
  readonly consistentPoint: string
  readonly created: { readonly slot: boolean; readonly publication: boolean }
  readonly tables: Readonly<Record<string, { readonly key: readonly string[]; readonly replicaIdentity: string }>>
  readonly warnings: readonly string[]
  readonly progress: ReplicationProgress
}

export interface SliceRequest {
  readonly spec: ReplicationSpec
  /** `copy`: initial loads only. `stream`: changes, and loads of tables not yet loaded beside them. */
  readonly mode: 'copy' | 'stream'
  /** With `copy`: only these tables (spelled as users do); null = all not yet loaded. */
  readonly tableNames: readonly string[] | null
  /** With `stream`: end once everything that committed before this LSN (text) is applied; null = go on; `now` = read at start. */
  readonly untilLsn: string | null
  /** The slice ends after this time while changes flow … */
  readonly maxBusyMs: number
  /** … and after this while idle. */
  readonly maxIdleMs: number
  /** What the workflow itself warns of: the live figures carry it, so that they stand for the whole status. */
  readonly warnings?: readonly string[]
}

export interface SliceResult {
  readonly progress: ReplicationProgress
  /** Why it ended. `done`: nothing left for this mode (all copied; `untilLsn` reached). */
  readonly ended: 'done' | 'time' | 'aborted'
  /** True while a table still waits for its initial load. */
  readonly hasTablesToCopy: boolean
  /** Transactions applied in this slice. */
  readonly transactions: number
  /** Changes applied in this slice, by `schema.table`. */
  readonly changes: Readonly<Record<string, ChangeCounts>>
  /** Rows copied in this slice, by `schema.table`; every table that was asked for and is loaded stands in it. */
  readonly copied: Readonly<Record<string, { readonly rows: number }>>
  /** Applied position when the slice began and ended, LSN text. */
  readonly fromLsn: string
  readonly toLsn: string
  /** Where `untilLsn` was `now`: the position it was resolved to, so that a next slice goes on to the same one. */
  readonly untilLsn: string | null
  /** Is there a bound to the WAL that the slot shall hold back? Absent = not known. */
  readonly hasWalBudget?: boolean
  /** What is to be told of the slot as it was at the end: true until somebody looks at it again. */
  readonly slotWarnings?: readonly string[]
  /** The newest fault that was retried inside the slice and has not been followed by a success. */
  readonly lastError?: ErrorReport
}

export interface SpoolRequest {
  readonly spec: ReplicationSpec
  readonly maxMs: number
}

/** What is known of the slot while the destination is not written to; null where nothing is. */
export interface SpoolResult extends Pick<ReplicationProgress, 'asOf' | 'confirmedFlushLsn' | 'sourceLsn' | 'retainedWalBytes'> {
  /** `noBudget`: there is nothing to watch for, as long as the options are these. */
  readonly ended: 'noBudget' | 'time' | 'aborted'
  /** Also of a fault that has not been followed by a success. */
  readonly warnings: readonly string[]
}

export interface ReleaseRequest {
  readonly spec: ReplicationSpec
  readonly owner: string
  /**
   * True: close connection and file, but keep the claim, because the owning workflow may go on (it is paused, failed, or its worker is
   * going away). Default false.
   */
  readonly keepClaim?: boolean
}

export interface RetryRequest {
  readonly spec: ReplicationSpec
  readonly owner: string
  /** null = every failed table. */
  readonly tableNames: readonly string[] | null
}

/** Other shapes for tables, as an input spells them; what is left out stays as it is. */
export type OrderedShapes = Partial<Pick<ReplicationSpec, 'writeMode' | 'deleteMode'>>

/** What an operator orders for tables, spelled as users do. */
export type TablesOrder =
  | { readonly tag: 'add'; readonly tableNames: readonly string[] }
  | { readonly tag: 'remove'; readonly tableNames: readonly string[]; readonly dropDestination: boolean }
  /** `shapes`: other ones than so far. */
  | { readonly tag: 'resync'; readonly tableNames: readonly string[]; readonly shapes?: OrderedShapes }
  /** The change of one table that waits for it. */
  | { readonly tag: 'approve'; readonly tableNames: readonly [string] }

export interface ChangeTablesRequest {
  readonly spec: ReplicationSpec
  readonly order: TablesOrder
}

export interface ChangeTablesResult {
  /** All tables as they are now. */
  readonly tables: ReplicationProgress['tables']
  readonly warnings: readonly string[]
  /** `schema.table` of those that were looked at anew: what was warned of them before is over, or stands in `warnings`. Absent in histories of earlier versions. */
  readonly about?: readonly string[]
}

export interface DropRequest {
  readonly source: string
  readonly destination: string
  readonly slotName: string
  readonly publicationName: string
  readonly dropDestination: boolean
}
