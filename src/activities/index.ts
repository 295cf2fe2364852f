import { Context } from '@temporalio/activity'
import { ApplicationFailure, CancelledFailure } from '@temporalio/common'
import type { Logger } from 'pino'
import type {
  ChangeTablesRequest,
  ChangeTablesResult,
  DropRequest,
  InitializeRequest,
  InitializeResult,
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
import type { ReplicationSpec } from '../model/spec.ts'
import type { VerifyRequest, VerifyResult } from '../model/verification.ts'
import { isUnexpected, safeStack, toFailure } from './failures.ts'
import { heartbeatWhile, mustRunAgain, throwForEnding } from './heartbeat.ts'
import { SessionKeeper } from './sessions.ts'
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

/**
 * The activities. Each takes one JSON-safe object, is idempotent, resumes from the destination's checkpoint and fails only by
 * `failures.ts`. All but `resolvePipeline` run on the destination's task queue, heartbeat every second and end soon after a cancel.
 */
export interface ReplicationActivities {
  resolvePipeline(names: PipelineNames): Promise<ResolvedPipeline>
  /** Checks, claim, publication, slot, registration at the destination. */
  initializeReplication(request: InitializeRequest): Promise<InitializeResult>
  /** Copies and streams for a while. On cancel and worker shutdown it returns what it has done (facts 25). */
  replicateSlice(request: SliceRequest): Promise<SliceResult>
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
  verifySlice(request: VerifyRequest): Promise<VerifyResult>
  dropSlotAndPublication(request: DropRequest): Promise<{ readonly dropped: readonly string[] }>
}

export interface ActivityDependencies {
  readonly engine: ReplicationEngine
  /** Looks names up in the configuration. Throws `InvalidInput` or `InvalidConfig`. */
  readonly resolvePipeline: (names: PipelineNames) => ResolvedPipeline
  readonly logger: Logger
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
  /** Whose session it uses; null = none. */
  readonly spec: ReplicationSpec | null
  /** Happens all the time: logged at level debug only. */
  readonly isRoutine?: boolean
  readonly run: (context: OperationContext) => Promise<T>
}

/** Translates between Temporal and the engine; who does the work is handed in. */
export function createActivities(dependencies: ActivityDependencies): ActivitySet {
  const { engine, logger } = dependencies
  const sessions = new SessionKeeper({
    release: (request) => engine.release(request),
    onReleaseError: (error) => {
      logger.warn({ error: describe(error) }, 'a session could not be closed; the source or the file may be held until the worker ends')
    },
    ...(dependencies.lingerMs === undefined ? {} : { lingerMs: dependencies.lingerMs }),
  })

  async function perform<T>({ name, spec, isRoutine = false, run }: Operation<T>): Promise<T> {
    const activity = Context.current()
    const owner = ownerOf(activity)
    const signal = activity.cancellationSignal
    const isOpen = dependencies.isWorkflowOpen ?? isWorkflowOpen(activity.client)
    const work = (): Promise<T> =>
      heartbeatWhile(activity, (report) => run({ signal, owner, isWorkflowOpen: isOpen, report }))
    const startedAt = performance.now()
    try {
      const result = spec === null ? await work() : await sessions.use({ spec, owner }, work, () => isOver(activity))
      const entry = { operation: name, workflowId: owner, ...(spec === null ? {} : { slotName: spec.slotName }), durationMs: Math.round(performance.now() - startedAt) }
      if (isRoutine) logger.debug(entry, `${name} done`)
      else logger.info(entry, `${name} done`)
      if (mustRunAgain(activity)) return await throwForEnding(activity)
      return result
    } catch (error) {
      // Another workflow's session is not this one's to close, not even later.
      if (spec !== null && error instanceof DomainError && error.kind === 'AlreadyReplicating') sessions.forget({ spec, owner })
      if (signal.aborted) return await throwForEnding(activity)
      if (error instanceof ApplicationFailure || error instanceof CancelledFailure) throw error
      const attempt = activity.info.attempt
      logger.warn({ operation: name, workflowId: owner, attempt, error: describe(error) }, `${name} failed`)
      throw toFailure(error, { operation: name, attempt })
    }
  }

  const activities: ReplicationActivities = {
    async resolvePipeline(names) {
      try {
        return dependencies.resolvePipeline(names)
      } catch (error) {
        throw toFailure(error, { operation: 'resolvePipeline', attempt: Context.current().info.attempt })
      }
    },
    initializeReplication: (request) =>
      perform({ name: 'initialize', spec: request.spec, run: (context) => engine.initialize(request, context) }),
    replicateSlice: (request) => perform({ name: 'slice', spec: request.spec, isRoutine: true, run: (context) => engine.runSlice(request, context) }),
    spoolChanges: (request) => perform({ name: 'spool', spec: request.spec, isRoutine: true, run: (context) => engine.spool(request, context) }),
    retryFailedTables: (request) =>
      perform({ name: 'retry tables', spec: request.spec, run: ({ owner }) => engine.retryTables({ ...request, owner }) }),
    changeTables: (request) => perform({ name: `${request.order.tag} tables`, spec: request.spec, run: (context) => engine.changeTables(request, context) }),
    releaseReplication: ({ spec }) =>
      perform({
        name: 'release',
        spec,
        run: async ({ owner }) => {
          await engine.release({ spec, owner })
          sessions.forget({ spec, owner })
        },
      }),
    readByXmin: (request) => perform({ name: 'read by xmin', spec: null, run: (context) => engine.syncByXmin(request, context) }),
    verifySlice: (request) => perform({ name: 'verify', spec: request.spec, run: (context) => engine.verify(request, context) }),
    dropSlotAndPublication: (request) => perform({ name: 'drop', spec: null, run: (context) => engine.drop(request, context) }),
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
