import { ActivityCancellationType, ActivityFailure, type ActivityOptions, ApplicationFailure, CancellationScope, log, proxyActivities, TimeoutFailure } from '@temporalio/workflow'
import type { PipelineAnswer, PipelineNames, ReplicationActivities } from '../activities/index.ts'
import { ERROR_KINDS } from '../model/error-report.ts'
import type { SearchAttributeName } from '../model/search-attributes.ts'
import type { ReplicationSpec, UnresolvedSpec } from '../model/spec.ts'
import { faultOf } from './failures.ts'

/** A spec whose names are resolved, and where its activities run. */
export interface Pipeline {
  readonly spec: ReplicationSpec
  readonly taskQueue: string
  /** Absent where nobody asked. */
  readonly searchAttributes?: readonly SearchAttributeName[] | null
}

const RETRY = { initialInterval: '1 second', backoffCoefficient: 2, maximumInterval: '60 seconds' } as const

/**
 * A commit, the wait for a slot or a big DROP may take long: heartbeats tell whether it lives. After a cancel the activity still
 * answers with what it has done.
 */
const ON_DESTINATION = {
  startToCloseTimeout: '7 days',
  heartbeatTimeout: '15 seconds',
  cancellationType: ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
  retry: RETRY,
} as const satisfies ActivityOptions

/** Somebody waits for it: long enough for a worker that closes a big file, short enough where none polls. */
const RELEASE_LIMITS = { scheduleToStartTimeout: '10 seconds', scheduleToCloseTimeout: '30 seconds' } as const

/** A live worker takes what comes on its own queue at once: after this time it is taken for gone. */
const HOME_PATIENCE = '3 seconds'

/**
 * Who retries a fault that time can mend: `server` keeps the history small; `workflow` sees each fault, shows it in `status` while it
 * lasts and can be paused or stopped meanwhile. Lost workers, and activities paused or reset in the UI, are the server's in both.
 */
export type RetriedBy = 'server' | 'workflow'

export type DestinationActivities = Omit<ReplicationActivities, 'resolvePipeline'>

/** The activities that touch a destination, on its task queue; `summary` is what the UI shows beside the activity. */
export function activitiesOn(taskQueue: string, summary: string, retriedBy: RetriedBy): DestinationActivities {
  return proxyActivities<ReplicationActivities>(optionsOn(taskQueue, summary, retriedBy))
}

function optionsOn(taskQueue: string, summary: string, retriedBy: RetriedBy): ActivityOptions {
  return { ...ON_DESTINATION, taskQueue, summary, retry: retryBy(retriedBy) }
}

function retryBy(who: RetriedBy): NonNullable<ActivityOptions['retry']> {
  return who === 'server' ? RETRY : { ...RETRY, nonRetryableErrorTypes: [...ERROR_KINDS] }
}

/** Where the activities of one pipeline run. */
export interface Place {
  readonly taskQueue: string
  /** The own queue of the worker that has slot and file open, if that is known: another one would have to wait until they are let go of. */
  readonly home: string | null
  readonly retriedBy: RetriedBy
  readonly onHomeLost: () => void
}

/**
 * Runs an activity where the pipeline is at home; where that worker does not take it (it was killed, also while it ran the activity), on the queue that all
 * workers of the destination poll. At home the server retries nothing but lost workers: by then another one may have slot and file, which would refuse them there for ever.
 * What is the server's to retry goes on at the common queue.
 */
export async function atHome<T>({ taskQueue, home, retriedBy, onHomeLost }: Place, summary: string, run: (activities: DestinationActivities) => Promise<T>): Promise<T> {
  if (home !== null) {
    try {
      return await run(proxyActivities<ReplicationActivities>({ ...optionsOn(home, summary, 'workflow'), scheduleToStartTimeout: HOME_PATIENCE }))
    } catch (error) {
      if (!isNotTaken(error) && !(retriedBy === 'server' && isMendedByTime(error))) throw error
      onHomeLost()
    }
  }
  return run(activitiesOn(taskQueue, summary, retriedBy))
}

/** Nobody has taken it, be it for its first attempt or for a later one. */
function isNotTaken(error: unknown): boolean {
  return error instanceof ActivityFailure && error.cause instanceof TimeoutFailure && error.cause.timeoutType === 'SCHEDULE_TO_START'
}

/** Has it run, and failed with what another try may mend? */
function isMendedByTime(error: unknown): boolean {
  return error instanceof ActivityFailure && error.cause instanceof ApplicationFailure && faultOf(error).isRetryable
}

/** Lets the worker look up source and destination in its configuration. */
export async function resolvePipeline(spec: UnresolvedSpec, retriedBy: RetriedBy): Promise<Pipeline> {
  const { source, destination, ...rest } = await resolveNames(spec, retriedBy)
  return { spec: { ...spec, source, destination }, ...rest }
}

/** Looks up what a pipeline's names stand for. */
export async function resolveNames(names: PipelineNames, retriedBy: RetriedBy): Promise<PipelineAnswer> {
  const { resolvePipeline: resolve } = proxyActivities<ReplicationActivities>({
    startToCloseTimeout: '10 seconds',
    // Ending the workflow while the answer is on its way would fail the task, and with it the update that asked for the end.
    cancellationType: ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
    summary: 'look up source and destination',
    retry: retryBy(retriedBy),
  })
  return resolve({ source: names.source, destination: names.destination })
}

/**
 * Lets go of slot, file and claim, whatever the workflow's end is. Bounded and never failing: a worker that is gone holds nothing, and
 * the next owner takes the claim of a closed workflow over.
 */
export async function releasePipeline({ spec, taskQueue }: Pipeline, home: string | null = null): Promise<void> {
  const releaseOn = async (queue: string, limits: ActivityOptions): Promise<void> => {
    const { releaseReplication } = proxyActivities<ReplicationActivities>({
      taskQueue: queue,
      summary: 'let go of the slot',
      ...limits,
      heartbeatTimeout: '15 seconds',
      retry: { ...RETRY, maximumInterval: '5 seconds' },
    })
    await releaseReplication({ spec })
  }
  await CancellationScope.nonCancellable(async () => {
    try {
      if (home !== null) {
        try {
          await releaseOn(home, { ...RELEASE_LIMITS, scheduleToStartTimeout: HOME_PATIENCE })
          return
        } catch (error) {
          if (!isNotTaken(error)) throw error
        }
      }
      await releaseOn(taskQueue, RELEASE_LIMITS)
    } catch {
      log.warn('the slot could not be let go of in time; it is when its worker has ended', { slotName: spec.slotName })
    }
  })
}
