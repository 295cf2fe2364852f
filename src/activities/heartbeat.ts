import type { Context } from '@temporalio/activity'
import { ApplicationFailure } from '@temporalio/common'
import type { LiveProgress } from '../model/replication.ts'

/** Cancelling, pausing and a terminated workflow are learned only from a heartbeat's answer (facts 24). */
export const HEARTBEAT_INTERVAL_MS = 1_000

/** While there is nothing new to tell. */
const QUIET_BEATS = 2

/** Heartbeats with the newest live figures, every second (every other second while they are the same), for as long as `run` takes. */
export async function heartbeatWhile<T>(context: Pick<Context, 'heartbeat'>, run: (report: (live: LiveProgress) => void) => Promise<T>): Promise<T> {
  let live: LiveProgress = { activity: 'starting' }
  let told = live
  let skipped = 0
  const beat = (): void => {
    told = live
    skipped = 0
    context.heartbeat(live)
  }
  beat()
  const timer = setInterval(() => {
    skipped += 1
    if (live !== told || skipped >= QUIET_BEATS) beat()
  }, HEARTBEAT_INTERVAL_MS)
  try {
    return await run((newest) => {
      live = newest
    })
  } finally {
    clearInterval(timer)
  }
}

/**
 * Whether an activity that was told to end must not answer with a result: somebody paused or reset it, and Temporal will run it again
 * (facts 25). On cancel and worker shutdown a result is welcome.
 */
export function mustRunAgain(context: Context): boolean {
  const details = context.cancellationDetails
  return details?.paused === true || details?.reset === true
}

/**
 * What an activity throws that ended without a result because it was told to: `CancelledFailure`, but on worker shutdown a failure that
 * Temporal retries on another worker (a cancellation that nobody asked for would not be).
 */
export async function throwForEnding(context: Context): Promise<never> {
  if (context.cancellationDetails?.workerShutdown === true) {
    throw ApplicationFailure.create({ type: 'WorkerShutdown', message: 'the worker is shutting down; the next one goes on' })
  }
  return context.cancelled
}
