import {
  allHandlersFinished,
  CancellationScope,
  CancelledFailure,
  condition,
  continueAsNew,
  isCancellation,
  setCurrentDetails,
  workflowInfo,
} from '@temporalio/workflow'
import type { ErrorReport } from '../model/errors.ts'
import type { TablesOrder } from '../model/replication.ts'
import type { ReplicationInput, UnresolvedSpec } from '../model/spec.ts'
import type { ReplicationStatus } from '../model/status.ts'
import { activitiesOn, atHome, type Pipeline, type Place, releasePipeline, resolvePipeline } from './activity-proxies.ts'
import { currentDetailsOf } from './current-details.ts'
import { failureOf, type Fault, faultOf } from './failures.ts'
import { ListedAttributes, noteInMemo, shownAttributes } from './search-attributes.ts'
import {
  begin,
  carriedState,
  end,
  nextStep,
  onBackOffOver,
  onFault,
  onHomeLost,
  onInitialized,
  onOrder,
  onOrderDone,
  onOrderEnded,
  onResolved,
  onRetryRefused,
  onSlice,
  onStopped,
  onStopRequested,
  onTablesRetried,
  onTaskQueue,
  onWatched,
  onWatchFault,
  type ReplicateState,
  statusOf,
  type Step,
  watchMs,
} from './replicate-state.ts'

/** A run's history is kept short, so that a worker that takes it over replays it at once. */
const MAX_HISTORY_EVENTS = 2_000
/** The server takes no more than 400 bytes. */
const MAX_SUMMARY_CHARACTERS = 90

type PipelineStep = Extract<Step, { tag: 'initialize' | 'recover' | 'retryTables' | 'changeTables' | 'slice' }>

/** One run of the entity: its state, and the activity that runs, if any. The update handlers change it through its methods. */
export class ReplicateRun {
  readonly #input: ReplicationInput
  readonly #spec: UnresolvedSpec
  #state: ReplicateState
  #pipeline: Pipeline | null = null
  #listed: ListedAttributes | null = null
  /** Scope of the running activity. */
  #operation: CancellationScope | null = null
  #isCancelled = false
  #fatal: ErrorReport | null = null
  /** Why the last order to retry tables was refused; the handlers that wait for it take it. */
  #refusal: ErrorReport | null = null
  #attemptCount = 0
  /** How often somebody has done something that what runs has to make way for. */
  #interruptCount = 0
  /** Why orders for tables were refused, by their numbers; whoever gave one takes it. */
  readonly #refusedOrders = new Map<number, ErrorReport>()

  constructor(input: ReplicationInput, spec: UnresolvedSpec, state: ReplicateState) {
    this.#input = input
    this.#spec = spec
    this.#state = state
    this.change(state)
  }

  get state(): ReplicateState {
    return this.#state
  }

  get status(): ReplicationStatus {
    return statusOf(this.#state)
  }

  get refusal(): ErrorReport | null {
    return this.#refusal
  }

  /** Activities that have ended, well or not: something happened since then. */
  get attemptCount(): number {
    return this.#attemptCount
  }

  /** The state's only way to change: what the UI shows goes with it. */
  change(state: ReplicateState): void {
    this.#state = state
    const status = statusOf(state)
    setCurrentDetails(currentDetailsOf(status))
    this.#listed?.show(status)
  }

  /** Ends the running activity early; it answers with what it has done. */
  interrupt(): void {
    this.#interruptCount += 1
    this.#operation?.cancel()
  }

  /** Puts an order for tables in its place, and makes room for it. Returns its number. */
  order(order: TablesOrder): number {
    this.change(onOrder(this.#state, order))
    // One that is being carried out is not disturbed.
    if (this.#state.orders.length === 1) this.interrupt()
    return this.#state.orderCount
  }

  isOrderPending(id: number): boolean {
    return this.#state.orders.some((pending) => pending.id === id)
  }

  /** Why an order was refused; null where it was carried out. */
  takeRefusal(id: number): ErrorReport | null {
    const refusal = this.#refusedOrders.get(id) ?? null
    this.#refusedOrders.delete(id)
    return refusal
  }

  cancel(): void {
    this.#isCancelled = true
    this.change(onStopRequested(this.#state))
    this.interrupt()
  }

  async untilEnd(): Promise<ReplicationStatus> {
    for (;;) {
      if (this.#mustContinueAsNew()) {
        await continueAsNew(this.#input, carriedState(this.#state))
      }
      const step = nextStep(this.#state)
      if (step.tag === 'end') break
      await this.#take(step)
    }
    // Another workflow holds the slot: it is not ours to let go of.
    if (this.#pipeline !== null && this.#fatal === null) await releasePipeline(this.#pipeline, this.#state.home)
    this.change(onStopped(this.#state))
    await condition(allHandlersFinished)
    if (this.#isCancelled) throw new CancelledFailure('the replication was cancelled')
    if (this.#fatal !== null) throw failureOf(this.#fatal)
    return this.status
  }

  /** Never while a handler runs: its caller would hear nothing. */
  #mustContinueAsNew(): boolean {
    const { continueAsNewSuggested, historyLength } = workflowInfo()
    const isTime = continueAsNewSuggested || historyLength > MAX_HISTORY_EVENTS
    return isTime && allHandlersFinished() && !this.#state.isStopRequested
  }

  async #take(step: Exclude<Step, { tag: 'end' }>): Promise<void> {
    switch (step.tag) {
      case 'wait':
        if (watchMs(this.#state) !== null) return this.#watch(() => nextStep(this.#state).tag !== 'wait')
        return condition(() => nextStep(this.#state).tag !== 'wait' || watchMs(this.#state) !== null || this.#mustContinueAsNew())
      case 'backOff': {
        if (watchMs(this.#state) !== null) {
          await this.#watch(() => nextStep(this.#state).tag !== 'backOff')
          if (nextStep(this.#state).tag === 'backOff') this.change(onBackOffOver(this.#state))
          return
        }
        const isWoken = await condition(() => nextStep(this.#state).tag !== 'backOff', step.delayMs)
        if (!isWoken) this.change(onBackOffOver(this.#state))
        return
      }
      case 'resolve':
        return this.#operate(
          step,
          () => resolvePipeline(this.#spec, 'workflow'),
          (pipeline) => {
            this.#pipeline = pipeline
            this.#list(pipeline)
            return onResolved(this.#state, pipeline.taskQueue)
          },
        )
      case 'initialize':
      case 'recover':
      case 'retryTables':
      case 'changeTables':
      case 'slice':
        // The state machine resolves before everything else.
        if (this.#pipeline !== null) return this.#takeOn(this.#pipeline, step)
        return
      default:
        step satisfies never
    }
  }

  /** From now on Temporal's list shows what it can. */
  #list({ spec, searchAttributes }: Pipeline): void {
    // Versions that did not ask have histories without these commands.
    if (searchAttributes === undefined) return
    noteInMemo(spec)
    this.#listed = new ListedAttributes(searchAttributes ?? shownAttributes(), spec)
  }

  #placeAt(taskQueue: string): Place {
    return { taskQueue, home: this.#state.home ?? null, retriedBy: 'workflow', onHomeLost: () => { this.change(onHomeLost(this.#state)) } }
  }

  async #takeOn({ spec: given, taskQueue }: Pipeline, step: PipelineStep): Promise<void> {
    // `reset` is for the first initialization only: it would throw away what this workflow has copied since.
    const spec = { ...given, ...this.#state.options, reset: given.reset && !this.#state.wasInitialized }
    switch (step.tag) {
      case 'initialize':
        return this.#operate(
          step,
          () => activitiesOn(taskQueue, `check and prepare slot ${spec.slotName}`, 'workflow').initializeReplication({ spec }),
          (result) => onInitialized(this.#state, result),
        )
      case 'recover':
        return this.#operate(
          step,
          () => activitiesOn(taskQueue, `make slot ${spec.slotName} anew`, 'workflow').recoverReplication({ spec: { ...spec, reset: false }, onlySourceDiffered: this.#state.onlySourceDiffered === true }),
          (result) => onInitialized(this.#state, result),
        )
      case 'retryTables':
        return this.#operate(
          step,
          () => atHome(this.#placeAt(taskQueue), 'let failed tables go on', (activities) => activities.retryFailedTables({ spec, tableNames: step.tableNames })),
          () => onTablesRetried(this.#state),
        )
      case 'changeTables': {
        const { id, order } = step
        return this.#operate(
          step,
          () => atHome(this.#placeAt(taskQueue), `${order.tag} ${order.tableNames.join(', ').slice(0, MAX_SUMMARY_CHARACTERS)}`, (activities) => activities.changeTables({ spec, order })),
          (result) => onOrderDone(this.#state, id, result),
        )
      }
      case 'slice': {
        const { maxBusyMs, maxIdleMs } = step
        const summary = `${this.#state.hasTablesToCopy ? 'copy and stream' : 'stream'} from ${this.#state.progress?.appliedLsn ?? 'the beginning'}`
        return this.#operate(
          step,
          () =>
            atHome(this.#placeAt(taskQueue), summary, (activities) =>
              activities.replicateSlice({
                spec,
                mode: 'stream',
                tableNames: null,
                untilLsn: null,
                maxBusyMs,
                maxIdleMs,
                warnings: this.#state.warnings,
              }),
            ),
          (result) => onSlice(this.#state, result),
        )
      }
      default:
        step satisfies never
    }
  }

  /** Lets the slot be watched while nothing else is done. Makes way at once; after a fault it rests. */
  async #watch(isOver: () => boolean): Promise<void> {
    const maxMs = watchMs(this.#state) ?? 0
    const scope = new CancellationScope({ cancellable: true })
    this.#operation = scope
    const watching = scope.run(async () => {
      const { spec, taskQueue } = (this.#pipeline ??= await resolvePipeline(this.#spec, 'workflow'))
      this.change(onTaskQueue(this.#state, taskQueue))
      return atHome(this.#placeAt(taskQueue), 'watch the slot', (activities) => activities.spoolChanges({ spec: { ...spec, ...this.#state.options, reset: false }, maxMs }))
    })
    const outcome = await watching.then(
      (value) => ({ tag: 'done', value }) as const,
      (error: unknown) => ({ tag: 'failed', error }) as const,
    )
    this.#operation = null
    if (outcome.tag === 'done') {
      this.change(onWatched(this.#state, outcome.value))
    } else if (!scope.consideredCancelled && !isCancellation(outcome.error)) {
      this.change(onWatchFault(this.#state, faultOf(outcome.error)))
      const before = this.#interruptCount
      await condition(() => isOver() || this.#interruptCount > before, maxMs)
    }
  }

  /** Runs one activity, interruptible, and changes the state by what comes of it. */
  async #operate<T>(step: Step, run: () => Promise<T>, onSuccess: (result: T) => ReplicateState): Promise<void> {
    const scope = new CancellationScope({ cancellable: true })
    this.#operation = scope
    this.change(begin(this.#state))
    const outcome = await scope.run(run).then(
      (value) => ({ tag: 'done', value }) as const,
      (error: unknown) => ({ tag: 'failed', error }) as const,
    )
    this.#operation = null
    this.#attemptCount += 1
    this.change(end(this.#state))
    if (outcome.tag === 'done') {
      this.change(onSuccess(outcome.value))
    } else if (!scope.consideredCancelled && !isCancellation(outcome.error)) {
      // After an interruption every failure is the interruption's (a lost worker's activity ends as timed out).
      this.#suffer(faultOf(outcome.error), step)
    }
  }

  #suffer(fault: Fault, step: Step): void {
    const isFatal = fault.report.type === 'AlreadyReplicating'
    // What makes way for orders has failed, and they fail with it.
    const refused = step.tag === 'changeTables' ? [step] : step.tag === 'resolve' || step.tag === 'initialize' || step.tag === 'recover' ? this.#state.orders : []
    for (const { id } of refused) {
      this.#refusedOrders.set(id, fault.report)
      this.change(onOrderEnded(this.#state, id))
    }
    const isRetryRefused = this.#state.pendingRetry !== null && this.#state.isInitialized && fault.report.type === 'InvalidInput'
    if (isFatal) {
      this.#fatal = fault.report
      this.change(onStopRequested(this.#state))
    } else if (step.tag === 'changeTables') {
      // It was tried, and is told of; everything else goes on as before.
    } else if (isRetryRefused) {
      this.#refusal = fault.report
      this.change(onRetryRefused(this.#state))
    } else {
      this.change(onFault(this.#state, fault))
    }
  }
}
