import { ActivityCancellationType, type ActivityOptions, CancellationScope, log, proxyActivities } from '@temporalio/workflow'
import type { PipelineAnswer, PipelineNames, ReplicationActivities } from '../activities/index.ts'
import { ERROR_KINDS } from '../model/error-report.ts'
import type { SearchAttributeName } from '../model/search-attributes.ts'
import type { ReplicationSpec, UnresolvedSpec } from '../model/spec.ts'

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

/**
 * Who retries a fault that time can mend: `server` keeps the history small; `workflow` sees each fault, shows it in `status` while it
 * lasts and can be paused or stopped meanwhile. Lost workers, and activities paused or reset in the UI, are the server's in both.
 */
export type RetriedBy = 'server' | 'workflow'

/** The activities that touch a destination, on its task queue; `summary` is what the UI shows beside the activity. */
export function activitiesOn(taskQueue: string, summary: string, retriedBy: RetriedBy): Omit<ReplicationActivities, 'resolvePipeline'> {
  const retry = retriedBy === 'server' ? RETRY : { ...RETRY, nonRetryableErrorTypes: [...ERROR_KINDS] }
  return proxyActivities<ReplicationActivities>({ ...ON_DESTINATION, taskQueue, summary, retry })
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
    retry: retriedBy === 'server' ? RETRY : { ...RETRY, nonRetryableErrorTypes: [...ERROR_KINDS] },
  })
  return resolve({ source: names.source, destination: names.destination })
}

/**
 * Lets go of slot, file and claim, whatever the workflow's end is. Bounded and never failing: a worker that is gone holds nothing, and
 * the next owner takes the claim of a closed workflow over.
 */
export async function releasePipeline({ spec, taskQueue }: Pipeline): Promise<void> {
  await CancellationScope.nonCancellable(async () => {
    const { releaseReplication } = proxyActivities<ReplicationActivities>({
      taskQueue,
      summary: 'let go of the slot',
      ...RELEASE_LIMITS,
      heartbeatTimeout: '15 seconds',
      retry: { ...RETRY, maximumInterval: '5 seconds' },
    })
    try {
      await releaseReplication({ spec })
    } catch {
      log.warn('the slot could not be let go of in time; it is when its worker has ended', { slotName: spec.slotName })
    }
  })
}
