import { Context } from '@temporalio/activity'
import { ApplicationFailure, CancelledFailure, noopMetricMeter } from '@temporalio/common'
import type { Logger } from 'pino'
import type {
  ChangeTablesRequest,
  ChangeTablesResult,
  DropRequest,
  InitializeRequest,
  InitializeResult,
  RecoverRequest,
  LiveProgress,
  Measure,
  OperationContext,
  ReplicationEngine,
  RetryRequest,
  SliceRequest,
  SliceResult,
  SpoolRequest,
  SpoolResult,
  XminRequest,
  XminResult,
} from '../model/replication.ts'
import { DomainError } from '../model/errors.ts'
import type { SearchAttributeName } from '../model/search-attributes.ts'
import type { ReplicationSpec } from '../model/spec.ts'
import type { VerifyRequest, VerifyResult } from '../model/verification.ts'
import { isUnexpected, safeStack, toFailure } from './failures.ts'
import { heartbeatWhile, mustRunAgain, throwForEnding } from './heartbeat.ts'
import { MetricSet, type PipelineId, PipelineMetrics } from './pipeline-metrics.ts'
import { registeredSearchAttributes } from './search-attributes.ts'
import { SessionKeeper } from './sessions.ts'
import { TableLog } from './table-log.ts'
import { isWorkflowOpen } from './workflow-openness.ts'

/** Names as a workflow's input has them; null = `default`, or the only one configured. */
export interface PipelineNames {
  readonly source: string | null
  readonly destination: string | null
}

/** What the worker's configuration makes of {@link PipelineNames}. */
export interface ResolvedPipeline {
  readonly source: string
  readonly destination: string
  /** Where activities run that touch this destination: a local file belongs to one worker. */
  readonly taskQueue: string
}

export interface PipelineAnswer extends ResolvedPipeline {
  /** Of ours, what the namespace has; null where it does not tell. Absent where nobody asked, and in histories of versions that set none. */
  readonly searchAttributes?: readonly SearchAttributeName[] | null
}

/** What a slice answers beside its result. */
export interface AtHome {
  /** The task queue of the very worker that ran it, which still has slot and file open. Absent where the worker is ending, or has no queue of its own. */
  readonly home?: string
}

/**
 * The activities. Each takes one JSON-safe object, is idempotent, resumes from the destination's checkpoint and fails only by
 * `failures.ts`. All but `resolvePipeline` run on the destination's task queue, heartbeat every second or two and end soon after a cancel.
 */
export interface ReplicationActivities {
  /** For `replicate` it also asks Temporal which search attributes may be set. */
  resolvePipeline(names: PipelineNames): Promise<PipelineAnswer>
  /** Checks, claim, publication, slot, registration at the destination. */
  initializeReplication(request: InitializeRequest): Promise<InitializeResult>
  /** A new slot in the place of one that was lost; what differs is copied by the slices that follow. */
  recoverReplication(request: RecoverRequest): Promise<InitializeResult>
  /** Copies and streams for a while. On cancel and worker shutdown it returns what it has done (facts 25). */
  replicateSlice(request: SliceRequest): Promise<SliceResult & AtHome>
  /** Watches the slot, and keeps its changes beside the destination while too much WAL is held back. On cancel it returns what is known. */
  spoolChanges(request: SpoolRequest): Promise<SpoolResult>
  retryFailedTables(request: Omit<RetryRequest, 'owner'>): Promise<void>
  /** Adds, removes or copies anew tables beside those that go on. Ended early it has changed nothing, or all. */
  changeTables(request: ChangeTablesRequest): Promise<ChangeTablesResult>
  /** Lets go of slot, file and claim. */
  releaseReplication(request: { readonly spec: ReplicationSpec }): Promise<void>
  /** Reads for a while what was written since the last reading, without a slot. On cancel and worker shutdown it returns what it has done. */
  readByXmin(request: XminRequest): Promise<XminResult>
  /** Compares tables with their source for a while. On cancel and worker shutdown it returns how far it has come. */
  verifySlice(request: VerifyRequest): Promise<VerifyResult & AtHome>
  dropSlotAndPublication(request: DropRequest): Promise<{ readonly dropped: readonly string[] }>
}

export interface ActivityDependencies {
  readonly engine: ReplicationEngine
  /** Looks names up in the configuration. Throws `InvalidInput` or `InvalidConfig`. */
  readonly resolvePipeline: (names: PipelineNames) => ResolvedPipeline
  readonly logger: Logger
  /** Polled by this process alone; none by default. */
  readonly ownTaskQueue?: string
  /** Where measures go; nowhere by default. */
  readonly metrics?: MetricSet
  /** Asked of Temporal with the worker's own client by default. */
  readonly isWorkflowOpen?: (workflowId: string) => Promise<boolean>
  /** How long a session stays open between two activities; for tests. */
  readonly lingerMs?: number
}

/** The activities of one worker process, and what must be closed when it ends. */
export interface ActivitySet {
  readonly activities: ReplicationActivities
  /** Lets go of slots and files that are still held. After the worker has drained. */
  readonly close: () => Promise<void>
}

interface Operation<T> {
  readonly name: string
  readonly pipeline: PipelineId
  /** Whose session it uses; null = none. */
  readonly spec: ReplicationSpec | null
  /** The replication goes on by it: where it fails for good, the replication has stopped. */
  readonly isVital?: boolean
  /** Happens all the time: logged at level debug only. */
  readonly isRoutine?: boolean
  readonly run: (context: OperationContext) => Promise<T>
}

/** Translates between Temporal and the engine; who does the work is handed in. */
export function createActivities(dependencies: ActivityDependencies): ActivitySet {
  const { engine, logger, ownTaskQueue } = dependencies
  const metrics = new PipelineMetrics(dependencies.metrics ?? new MetricSet(noopMetricMeter))
  const tableLog = new TableLog(logger)
  const forget = (pipeline: PipelineId, owner: string): void => {
    metrics.forget(pipeline, owner)
    tableLog.forget(owner)
  }
  const sessions = new SessionKeeper({
    release: async (request) => {
      forget(request.spec, request.owner)
      await engine.release(request)
    },
    onReleaseError: (error) => {
      logger.warn({ error: describe(error) }, 'a session could not be closed; the source or the file may be held until the worker ends')
    },
    ...(dependencies.lingerMs === undefined ? {} : { lingerMs: dependencies.lingerMs }),
  })

  async function perform<T>({ name, pipeline, spec, isVital = false, isRoutine = false, run }: Operation<T>): Promise<T> {
    const activity = Context.current()
    const owner = ownerOf(activity)
    const signal = activity.cancellationSignal
    const { source, destination, slotName } = pipeline
    const fields = { workflowId: owner, source, destination, ...(slotName === null ? {} : { slotName }) }
    const context = {
      signal,
      owner,
      isWorkflowOpen: dependencies.isWorkflowOpen ?? isWorkflowOpen(activity.client),
      observe: (measure: Measure) => { metrics.observe(pipeline, measure) },
    }
    const work = (): Promise<T> =>
      heartbeatWhile(activity, (beat) => {
        const report = (live: LiveProgress): void => {
          beat(live)
          metrics.report(pipeline, owner, live)
          if (live.progress !== undefined) tableLog.note(owner, fields, live.progress.tables)
        }
        return run({ ...context, report })
      })
    const startedAt = performance.now()
    try {
      const result = spec === null ? await work() : await sessions.use({ spec, owner }, work, () => isOver(activity))
      const entry = { operation: name, ...fields, durationMs: Math.round(performance.now() - startedAt) }
      if (isRoutine) logger.debug(entry, `${name} done`)
      else logger.info(entry, `${name} done`)
      if (isVital) metrics.goesOn(pipeline)
      if (mustRunAgain(activity)) return await throwForEnding(activity)
      return result
    } catch (error) {
      // Another workflow's session is not this one's to close, not even later.
      if (spec !== null && error instanceof DomainError && error.kind === 'AlreadyReplicating') sessions.forget({ spec, owner })
      if (signal.aborted) return await throwForEnding(activity)
      if (error instanceof ApplicationFailure || error instanceof CancelledFailure) throw error
      const attempt = activity.info.attempt
      logger.warn({ operation: name, ...fields, attempt, error: describe(error) }, `${name} failed`)
      const failure = toFailure(error, { operation: name, attempt })
      const { type, isFinal } = { type: failure.type ?? 'error', isFinal: failure.nonRetryable === true }
      metrics.failed(pipeline, { type, isFinal })
      // Of two that want one slot, the refused one has stopped, not the pipeline.
      if (isVital && isFinal && type !== 'AlreadyReplicating') metrics.stopped(pipeline, type)
      throw failure
    }
  }

  const performOn = <T>(operation: Omit<Operation<T>, 'pipeline'> & { readonly spec: ReplicationSpec }): Promise<T> => perform({ ...operation, pipeline: operation.spec })

  const withHome = <T extends object>(result: T): T & AtHome => ({ ...result, ...(ownTaskQueue === undefined || isOver(Context.current()) ? {} : { home: ownTaskQueue }) })

  const activities: ReplicationActivities = {
    async resolvePipeline(names) {
      const activity = Context.current()
      const { attempt, workflowType } = activity.info
      try {
        const resolved = dependencies.resolvePipeline(names)
        return workflowType === 'replicate' ? { ...resolved, searchAttributes: await registeredSearchAttributes(activity.client) } : resolved
      } catch (error) {
        throw toFailure(error, { operation: 'resolvePipeline', attempt })
      }
    },
    initializeReplication: (request) =>
      performOn({ name: 'initialize', spec: request.spec, isVital: true, run: (context) => engine.initialize(request, context) }),
    recoverReplication: (request) => performOn({ name: 'recover', spec: request.spec, isVital: true, run: (context) => engine.recover(request, context) }),
    replicateSlice: async (request) => withHome(await performOn({ name: 'slice', spec: request.spec, isVital: true, isRoutine: true, run: (context) => engine.runSlice(request, context) })),
    spoolChanges: (request) => performOn({ name: 'spool', spec: request.spec, isRoutine: true, run: (context) => engine.spool(request, context) }),
    retryFailedTables: (request) =>
      performOn({ name: 'retry tables', spec: request.spec, run: ({ owner }) => engine.retryTables({ ...request, owner }) }),
    changeTables: (request) => performOn({ name: `${request.order.tag} tables`, spec: request.spec, run: (context) => engine.changeTables(request, context) }),
    releaseReplication: ({ spec }) =>
      performOn({
        name: 'release',
        spec,
        run: async ({ owner }) => {
          await engine.release({ spec, owner })
          sessions.forget({ spec, owner })
          forget(spec, owner)
          // A one-shot workflow lets go of the slot after a failure, too; this one only when it is told to stop.
          if (Context.current().info.workflowType === 'replicate') metrics.goesOn(spec)
        },
      }),
    readByXmin: (request) => perform({ name: 'read by xmin', pipeline: { ...request.spec, slotName: null }, spec: null, isVital: true, run: (context) => engine.syncByXmin(request, context) }),
    verifySlice: async (request) => {
      const result = await performOn({ name: 'verify', spec: request.spec, run: (context) => engine.verify(request, context) })
      if (result.ended === 'done') metrics.verified(request.spec, result.progress)
      return withHome(result)
    },
    dropSlotAndPublication: (request) => perform({ name: 'drop', pipeline: request, spec: null, run: (context) => engine.drop(request, context) }),
  }
  return { activities, close: () => sessions.closeAll() }
}

/** Whether no further activity of this owner will come to this worker soon. */
function isOver(activity: Context): boolean {
  const details = activity.cancellationDetails
  return details?.notFound === true || details?.workerShutdown === true
}

function ownerOf(activity: Context): string {
  const workflowId = activity.info.workflowExecution?.workflowId
  if (workflowId === undefined) {
    throw ApplicationFailure.nonRetryable('this activity belongs to the replication workflows and cannot be started alone', 'InvalidInput')
  }
  return workflowId
}

/** What of an error may stand in a log (conventions, 8). */
function describe(error: unknown): Record<string, unknown> {
  const failure = toFailure(error, { operation: 'this', attempt: 1 })
  return { type: failure.type, message: failure.message, ...(isUnexpected(error) ? { stack: safeStack(error) } : {}) }
}
