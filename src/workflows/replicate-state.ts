import type { ErrorReport } from '../model/errors.ts'
import type { ChangeTablesResult, InitializeResult, SliceResult, SpoolResult, TablesOrder } from '../model/replication.ts'
import { parseLsn } from '../model/lsn.ts'
import { withoutJoined, withoutTables } from '../model/settled-warnings.ts'
import type { RunningOptions } from '../model/spec.ts'
import type { Phase, ReplicationProgress, ReplicationStatus } from '../model/status.ts'

/**
 * # The state of one `replicate` workflow
 *
 * Pure and JSON-safe: continue-as-new carries it. Phases, as `status` shows them ({@link phaseOf}):
 *
 * - `initializing`  checks, claim, publication, slot; also after `retryFailed`
 * - `snapshotting`  the stream runs, and tables wait for their initial load
 * - `streaming`     the stream runs
 * - `paused`        an operator paused it and no activity runs any more
 * - `failed`        an error that no retry mends; waits for `retryFailed`, `recover` (after a lost slot) or `stop`
 * - `stopped`       the end
 *
 * ```
 * initializing ── initialized ──▶ snapshotting ── slice: nothing left to copy ──▶ streaming
 *   ▲  any of the three ── fault that time mends ──▶ the same phase, with lastError, after a back-off (1 s, ×2, up to 60 s)
 *   │  any of the three ── pause, and the running activity has ended ──▶ paused ── resume ──▶ back
 *   │  any of the three ── fault that no retry mends ──▶ failed
 *   ├── recover ────── failed      (a new slot is made in the place of the checks, also while paused; whatever fails in that, retryFailed does it again)
 *   └── retryFailed ── failed      (paused while failed: retryFailed leads to paused)
 * every phase ── stop, cancel ──▶ stopped
 * ```
 *
 * Orders for tables (`addTables` and its like) are carried out one after the other between two slices, in whichever phase; each is tried
 * once, and what does not come about is refused. A replication that has not begun yet is initialized first, whatever it waits for.
 *
 * While it is paused, or waits for a destination that is down, the slot is watched ({@link watchMs}) where there is a bound to the WAL that it shall hold
 * back: an activity that does not touch the destination. It counts for nothing here, and makes way at once.
 *
 * `isBusy` is true while an activity runs that touches the source or the destination: `pause` and `stop` are in force when it is not.
 */
export interface ReplicateState {
  readonly slotName: string
  readonly publicationName: string
  /** Of the whole chain of runs; ISO 8601. */
  readonly startedAt: string
  /** The configuration was looked up, in this run. */
  readonly isResolved: boolean
  readonly isInitialized: boolean
  /** `reset` is done at most once, however often it is initialized again. */
  readonly wasInitialized: boolean
  readonly isPauseRequested: boolean
  readonly isStopRequested: boolean
  readonly isStopped: boolean
  readonly isBusy: boolean
  /** Update `recover` was sent: a new slot is to be made, in the place of the initialization. */
  readonly isRecovering: boolean
  /** The new slot is made although it is paused, at most one attempt for each `recover`. */
  readonly isRecoverDue?: boolean
  /** What is recovered from is `DifferentSource` alone: once the former source is back, its slot may be whole. */
  readonly onlySourceDiffered?: boolean
  /** An error that no retry mends. */
  readonly failure: ErrorReport | null
  /** A fault that is being retried. */
  readonly fault: ErrorReport | null
  readonly faultCount: number
  readonly isBackingOff: boolean
  /** Failed tables that shall go on, before the next slice. */
  readonly pendingRetry: PendingRetry | null
  /** What updates have changed of the input's options. */
  readonly options: RunningOptions
  /** Orders for tables, in the order in which they came. */
  readonly orders: readonly PendingOrder[]
  /** Numbers orders. */
  readonly orderCount: number
  readonly hasTablesToCopy: boolean
  /** Slices since it last began to stream: the first ones are short, so that `status` is fresh when people look. */
  readonly slicesSinceStart: number
  readonly progress: ReplicationProgress | null
  /** There is a bound to the WAL that the slot shall hold back. */
  readonly hasWalBudget: boolean
  /** What was seen of the slot since the last slice. */
  readonly watched: Omit<SpoolResult, 'ended'> | null
  /** Of the slot, as the last slice left it. */
  readonly slotWarnings?: readonly string[]
  /** Options are others since, or it was paused since: what is watched is told soon. */
  readonly isWatchDue?: boolean
  /** Of initialization. */
  readonly warnings: readonly string[]
  /** The own task queue of the worker that ran the last slice; absent where none is known, and once anything has failed: what is wrong may be that worker alone (a full disk, a password that it has not read). */
  readonly home?: string
  /** Where {@link home} is known from: the destination's own task queue. */
  readonly taskQueue?: string
}

export interface PendingRetry {
  /** null = every failed table. */
  readonly tableNames: readonly string[] | null
}

export interface PendingOrder {
  readonly id: number
  readonly order: TablesOrder
}

/** What the workflow does next. */
export type Step =
  | { readonly tag: 'end' }
  /** Until an operator does something. */
  | { readonly tag: 'wait' }
  | { readonly tag: 'backOff'; readonly delayMs: number }
  | { readonly tag: 'resolve' }
  | { readonly tag: 'initialize' }
  | { readonly tag: 'recover' }
  | { readonly tag: 'retryTables'; readonly tableNames: readonly string[] | null }
  | { readonly tag: 'changeTables'; readonly id: number; readonly order: TablesOrder }
  | { readonly tag: 'slice'; readonly maxBusyMs: number; readonly maxIdleMs: number }

const MAX_BACK_OFF_MS = 60_000
/** `status` is at most 30 s old while changes flow: leaves time for the running commit and the way to the workflow. */
const MAX_BUSY_MS = 28_000
const MAX_IDLE_MS = 120_000
/** The end of the initial loads shows soon. */
const MAX_IDLE_WHILE_COPYING_MS = 5_000
/** The shortest back-off in which the slot is watched. */
const MIN_WATCHED_MS = 30_000
const NO_PROGRESS: ReplicationProgress = {
  ...{ asOf: '', appliedLsn: null, confirmedFlushLsn: null, sourceLsn: null, lagBytes: null, lagMs: null, retainedWalBytes: null },
  ...{ tables: {}, warnings: [] },
}
/** The first slice, and the one that shows that a fault is over. */
const FIRST_SLICE_MS = 2_000

export function initialState(names: { readonly slotName: string; readonly publicationName: string; readonly startedAt: string }): ReplicateState {
  return {
    ...names,
    isResolved: false,
    isInitialized: false,
    wasInitialized: false,
    isPauseRequested: false,
    isStopRequested: false,
    isStopped: false,
    isBusy: false,
    isRecovering: false,
    failure: null,
    fault: null,
    faultCount: 0,
    isBackingOff: false,
    pendingRetry: null,
    options: {},
    orders: [],
    orderCount: 0,
    hasTablesToCopy: false,
    slicesSinceStart: 0,
    progress: null,
    hasWalBudget: false,
    watched: null,
    warnings: [],
  }
}

/** The state that a continued run begins with: the worker's configuration may have changed meanwhile. */
export function carriedState(state: ReplicateState): ReplicateState {
  return { ...state, isResolved: false, isBusy: false }
}

export function phaseOf(state: ReplicateState): Phase {
  if (state.isStopped) return 'stopped'
  if (state.failure !== null) return 'failed'
  if (state.isPauseRequested && !state.isBusy) return 'paused'
  if (!state.isInitialized) return 'initializing'
  return state.hasTablesToCopy ? 'snapshotting' : 'streaming'
}

export function statusOf(state: ReplicateState): ReplicationStatus {
  const lastError = state.failure ?? state.fault
  const progress = state.progress === null ? null : withWatched(state.progress, state.watched)
  return {
    asOf: progress?.asOf ?? state.startedAt,
    phase: phaseOf(state),
    slotName: state.slotName,
    publicationName: state.publicationName,
    appliedLsn: progress?.appliedLsn ?? null,
    confirmedFlushLsn: progress?.confirmedFlushLsn ?? null,
    sourceLsn: progress?.sourceLsn ?? null,
    lagBytes: progress?.lagBytes ?? null,
    lagMs: progress?.lagMs ?? null,
    retainedWalBytes: progress?.retainedWalBytes ?? null,
    tables: progress?.tables ?? {},
    warnings: [...new Set([...state.warnings, ...(progress?.warnings ?? []), ...(state.watched?.warnings ?? state.slotWarnings ?? [])])],
    ...(lastError === null ? {} : { lastError }),
  }
}

/** Figures of the slot that are newer than those of the last slice. */
function withWatched(progress: ReplicationProgress, watched: ReplicateState['watched']): ReplicationProgress {
  if (watched === null) return progress
  const { asOf, confirmedFlushLsn, sourceLsn, retainedWalBytes } = watched
  const lagBytes = sourceLsn === null || progress.appliedLsn === null ? progress.lagBytes : Math.max(0, Number(parseLsn(sourceLsn) - parseLsn(progress.appliedLsn)))
  return { ...progress, asOf, confirmedFlushLsn, sourceLsn, retainedWalBytes, lagBytes }
}

/** How long the slot is watched while nothing else is done; null = it is not. */
export function watchMs(state: ReplicateState): number | null {
  if (!state.hasWalBudget || !state.isInitialized) return null
  const step = nextStep(state)
  if (step.tag === 'wait') return state.failure !== null ? null : state.isWatchDue === true ? FIRST_SLICE_MS : MAX_IDLE_MS
  // An outage of moments is not worth a connection.
  if (step.tag === 'backOff' && state.fault?.type === 'DestinationFailed' && step.delayMs >= MIN_WATCHED_MS) return step.delayMs
  return null
}

export function onWatched(state: ReplicateState, { ended, ...watched }: SpoolResult): ReplicateState {
  return { ...state, watched, hasWalBudget: ended !== 'noBudget', isWatchDue: ended === 'aborted' && state.isWatchDue === true }
}

/** Time may mend it; only a slot that is lost stays so. */
export function onWatchFault(state: ReplicateState, fault: { readonly report: ErrorReport; readonly isRetryable: boolean }): ReplicateState {
  if (fault.report.type === 'SlotLost') return onFault(state, fault)
  const { asOf, confirmedFlushLsn, sourceLsn, retainedWalBytes } = withWatched(state.progress ?? NO_PROGRESS, state.watched)
  return { ...onHomeLost(state), watched: { asOf, confirmedFlushLsn, sourceLsn, retainedWalBytes, warnings: [`the slot cannot be watched: ${fault.report.message}`] } }
}

export function nextStep(state: ReplicateState): Step {
  if (state.isStopRequested || state.isStopped) return { tag: 'end' }
  const [order] = state.orders
  if (order !== undefined) return stepForOrder(state, order)
  if (state.failure !== null || isHeld(state)) return { tag: 'wait' }
  if (state.isBackingOff) return { tag: 'backOff', delayMs: Math.min(MAX_BACK_OFF_MS, 1_000 * 2 ** (state.faultCount - 1)) }
  if (!state.isResolved) return { tag: 'resolve' }
  if (!state.isInitialized) return { tag: state.isRecovering ? 'recover' : 'initialize' }
  if (state.pendingRetry !== null) return { tag: 'retryTables', tableNames: state.pendingRetry.tableNames }
  return { tag: 'slice', ...sliceLimits(state) }
}

/** A pause holds everything but the one attempt that `recover` asks for. */
function isHeld({ isPauseRequested, isRecoverDue = false }: ReplicateState): boolean {
  return isPauseRequested && !isRecoverDue
}

function stepForOrder(state: ReplicateState, { id, order }: PendingOrder): Step {
  if (!state.isResolved) return { tag: 'resolve' }
  const begins = !state.isInitialized && state.failure === null && !isHeld(state)
  return begins ? { tag: state.isRecovering ? 'recover' : 'initialize' } : { tag: 'changeTables', id, order }
}

function sliceLimits(state: ReplicateState): { readonly maxBusyMs: number; readonly maxIdleMs: number } {
  if (state.fault !== null) return { maxBusyMs: FIRST_SLICE_MS, maxIdleMs: FIRST_SLICE_MS / 2 }
  const growing = FIRST_SLICE_MS * 2 ** Math.min(state.slicesSinceStart, 10)
  return {
    maxBusyMs: Math.min(MAX_BUSY_MS, growing),
    maxIdleMs: Math.min(state.hasTablesToCopy ? MAX_IDLE_WHILE_COPYING_MS : MAX_IDLE_MS, growing),
  }
}

/** An activity begins; none other runs beside it. */
export function begin(state: ReplicateState): ReplicateState {
  return { ...state, isBusy: true }
}

/** The running activity has ended, whatever came of it. */
export function end(state: ReplicateState): ReplicateState {
  return { ...state, isBusy: false }
}

/** The fault that is shown stays: looking names up is no success of what failed. */
export function onResolved(state: ReplicateState, taskQueue: string): ReplicateState {
  return { ...onTaskQueue(state, taskQueue), isResolved: true }
}

/** A destination that has another task queue than before has moved, to another machine perhaps. */
export function onTaskQueue(state: ReplicateState, taskQueue: string): ReplicateState {
  const hasMoved = state.taskQueue !== undefined && state.taskQueue !== taskQueue
  return { ...(hasMoved ? onHomeLost(state) : state), taskQueue }
}

/** A table that stopped in an earlier workflow is given another try by starting again. */
export function onInitialized(state: ReplicateState, result: Pick<InitializeResult, 'progress' | 'warnings'>): ReplicateState {
  const tables = Object.values(result.progress.tables)
  const isFirst = !state.wasInitialized
  return {
    ...onHomeLost(state),
    isInitialized: true,
    wasInitialized: true,
    isRecovering: false,
    isRecoverDue: false,
    onlySourceDiffered: false,
    fault: null,
    faultCount: 0,
    pendingRetry: isFirst && tables.some((table) => table.state === 'failed') ? { tableNames: null } : state.pendingRetry,
    hasTablesToCopy: tables.some((table) => table.state === 'pending' || table.state === 'snapshotting'),
    slicesSinceStart: 0,
    progress: result.progress,
    slotWarnings: [],
    warnings: result.warnings,
  }
}

/** The worker that it was at does not take what it is given, or holds nothing open any more. */
export function onHomeLost({ home: _, ...state }: ReplicateState): ReplicateState {
  return state
}

export function onSlice(state: ReplicateState, result: SliceResult & { readonly home?: string }): ReplicateState {
  return {
    ...onHomeLost(state),
    ...(result.home === undefined ? {} : { home: result.home }),
    progress: result.progress,
    hasTablesToCopy: result.hasTablesToCopy,
    hasWalBudget: result.hasWalBudget ?? false,
    slotWarnings: result.slotWarnings ?? [],
    watched: null,
    fault: result.lastError ?? null,
    faultCount: 0,
    slicesSinceStart: state.slicesSinceStart + 1,
    warnings: withoutJoined(state.warnings, result.progress.tables),
  }
}

export function onTablesRetried(state: ReplicateState): ReplicateState {
  const names = state.pendingRetry?.tableNames ?? null
  return { ...state, progress: withPendingTables(state.progress, names), pendingRetry: null, fault: null, faultCount: 0, slicesSinceStart: 0 }
}

/** Failed tables that were told to go on wait for their copy from now on; the next slice shows it. */
function withPendingTables(progress: ReplicateState['progress'], names: readonly string[] | null): ReplicateState['progress'] {
  if (progress === null) return null
  const tables = Object.entries(progress.tables).map(([key, table]) => {
    const isMeant = names === null || names.includes(key) || names.includes(key.slice(key.indexOf('.') + 1))
    if (table.state !== 'failed' || !isMeant) return [key, table] as const
    const { error: _, ...rest } = table
    return [key, { ...rest, state: 'pending' as const }] as const
  })
  return { ...progress, tables: Object.fromEntries(tables) }
}

/** The engine refused the order (no such table): nothing changes. */
export function onRetryRefused(state: ReplicateState): ReplicateState {
  return { ...state, pendingRetry: null }
}

/** Options are others from the next activity on. */
export function onOptions(state: ReplicateState, options: RunningOptions): ReplicateState {
  return { ...state, options: { ...state.options, ...options }, hasWalBudget: state.hasWalBudget || options.walBudgetBytes !== undefined, isWatchDue: true }
}

/** Somebody orders something for tables; it is the last one's number that tells which. */
export function onOrder(state: ReplicateState, order: TablesOrder): ReplicateState {
  const id = state.orderCount + 1
  return { ...state, orders: [...state.orders, { id, order }], orderCount: id }
}

/** The order is in force: its tables wait for their copy, or are gone. */
export function onOrderDone(state: ReplicateState, id: number, { tables, warnings, about = [] }: ChangeTablesResult): ReplicateState {
  const progress = state.progress === null ? null : { ...state.progress, tables, warnings: withoutTables(state.progress.warnings, about) }
  return {
    ...onOrderEnded(state, id),
    progress,
    hasTablesToCopy: Object.values(tables).some((table) => table.state === 'pending' || table.state === 'snapshotting'),
    slicesSinceStart: 0,
    warnings: [...new Set([...withoutTables(state.warnings, about), ...warnings])],
  }
}

/** Done, or refused: nothing more is to be done for it. */
export function onOrderEnded(state: ReplicateState, id: number): ReplicateState {
  return { ...state, orders: state.orders.filter((pending) => pending.id !== id) }
}

/** What has failed has closed its session: whichever worker of the destination comes next may go on. */
export function onFault(given: ReplicateState, fault: { readonly report: ErrorReport; readonly isRetryable: boolean }): ReplicateState {
  const state = onHomeLost(given)
  if (!fault.isRetryable) return { ...state, failure: fault.report, fault: null, faultCount: 0, isBackingOff: false, isRecoverDue: false }
  return { ...state, isRecoverDue: false, fault: fault.report, faultCount: state.faultCount + 1, isBackingOff: true }
}

export function onBackOffOver(state: ReplicateState): ReplicateState {
  return { ...state, isBackingOff: false }
}

export function onPause(state: ReplicateState): ReplicateState {
  return { ...state, isPauseRequested: true, isWatchDue: true, isRecoverDue: false }
}

/** What waited for its back-off is tried at once: somebody is looking. */
export function onResume(state: ReplicateState): ReplicateState {
  return { ...state, isPauseRequested: false, isBackingOff: false, slicesSinceStart: 0 }
}

/**
 * Goes on after a failure from the beginning (configuration, checks, claim: what was mended may be any of them), and with the named
 * failed tables before the next slice. The fault that is being retried is tried at once.
 */
export function onRetry(state: ReplicateState, tableNames: readonly string[] | null): ReplicateState {
  const hasFailed = state.failure !== null
  return {
    ...state,
    failure: null,
    fault: state.failure ?? state.fault,
    faultCount: 0,
    isBackingOff: false,
    isResolved: state.isResolved && !hasFailed,
    isInitialized: state.isInitialized && !hasFailed,
    pendingRetry: merge(state.pendingRetry, tableNames),
  }
}

/** Can `recover` mend what it has failed with? Also where it stands for later: a pause has ended the attempt, or a fault while it is paused. */
export function canRecover(state: ReplicateState): boolean {
  if (state.failure === null) return state.isRecovering && state.isPauseRequested && state.isRecoverDue !== true
  return state.isRecovering || state.failure.type === 'SlotLost' || state.failure.type === 'DifferentSource'
}

/** Goes on as {@link onRetry} does, with a new slot; `whilePaused`: at once, be it paused or not. A slot that was once seen to be lost stays so: a source that was put back may have come to look like the one that was. */
export function onRecover(state: ReplicateState, whilePaused = true): ReplicateState {
  const onlySourceDiffered = state.failure?.type !== 'SlotLost' && (!state.isRecovering || state.onlySourceDiffered === true)
  return { ...onRetry(state, []), isRecovering: true, isRecoverDue: whilePaused, onlySourceDiffered, pendingRetry: state.pendingRetry }
}

function merge(pending: PendingRetry | null, tableNames: readonly string[] | null): PendingRetry {
  if (pending === null) return { tableNames }
  if (pending.tableNames === null || tableNames === null) return { tableNames: null }
  return { tableNames: [...new Set([...pending.tableNames, ...tableNames])] }
}

/** Whether `retryFailed` would do anything at all. */
export function hasSomethingToRetry(state: ReplicateState): boolean {
  if (state.failure !== null || state.fault !== null || state.pendingRetry !== null) return true
  return Object.values(state.progress?.tables ?? {}).some((table) => table.state === 'failed')
}

export function onStopRequested(state: ReplicateState): ReplicateState {
  return { ...state, isStopRequested: true }
}

/** The end, with everything let go of. */
export function onStopped(state: ReplicateState): ReplicateState {
  return { ...state, isStopRequested: true, isStopped: true, isBusy: false }
}
