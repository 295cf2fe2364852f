import { CancellationScope, setCurrentDetails } from '@temporalio/workflow'
import { reportText } from '../model/error-report.ts'
import type { ErrorReport } from '../model/errors.ts'
import type { SliceRequest, SliceResult } from '../model/replication.ts'
import type { ReplicationSpec, UnresolvedSpec } from '../model/spec.ts'
import type { ReplicationProgress } from '../model/status.ts'
import { atHome, type DestinationActivities, type Pipeline, releasePipeline, resolvePipeline } from './activity-proxies.ts'
import { endingOf, failureOf, faultOf } from './failures.ts'

/** Heartbeats carry the live figures; longer slices keep the history of a copy of days short. */
const MAX_BUSY_MS = 300_000
const MAX_IDLE_MS = 60_000

/** What a one-shot workflow works with. */
export interface OneShot {
  readonly spec: ReplicationSpec
  /** Runs an activity, where the one before it has slot and file open. Retried by the server: at once final where no retry can mend it. `summary` is for the UI. */
  readonly run: <T>(summary: string, work: (activities: DestinationActivities) => Promise<T>) => Promise<T>
}

/**
 * Looks the pipeline up, runs the work, and lets go of slot, file and claim whatever its end, unless another workflow holds them.
 * Throws the error itself (contract §6), or the cancellation.
 */
export async function runOneShot<T>(spec: UnresolvedSpec, work: (shot: OneShot) => Promise<T>): Promise<T> {
  const root = CancellationScope.current()
  let pipeline: Pipeline | null = null
  let home: string | null = null
  try {
    const resolved = await resolvePipeline(spec, 'server')
    pipeline = resolved
    const result = await work({
      spec: resolved.spec,
      run: async (summary, activity) => {
        const answer = await atHome({ taskQueue: resolved.taskQueue, home, retriedBy: 'server', onHomeLost: () => { home = null } }, summary, activity)
        // A worker that ends names none.
        home = homeOf(answer)
        return answer
      },
    })
    await releasePipeline(resolved, home)
    return result
  } catch (error) {
    if (pipeline !== null && faultOf(error).report.type !== 'AlreadyReplicating') await releasePipeline(pipeline, home)
    throw endingOf(error, root)
  }
}

/** Where the activity ran, if it says so (`AtHome`). */
function homeOf(answer: unknown): string | null {
  return typeof answer === 'object' && answer !== null && 'home' in answer && typeof answer.home === 'string' ? answer.home : null
}

/** Runs slices until nothing is left for their mode; `onSlice` sees each. Returns the last one. */
export async function runSlices(
  { spec, run }: OneShot,
  request: Pick<SliceRequest, 'mode' | 'tableNames' | 'untilLsn'>,
  onSlice: (result: SliceResult) => void,
): Promise<SliceResult> {
  let { untilLsn } = request
  for (;;) {
    const summary = request.mode === 'copy' ? 'initial load' : `stream until ${untilLsn ?? 'stopped'}`
    const slice: SliceRequest = {
      ...request,
      untilLsn,
      // What was to be thrown away is gone since initialization.
      spec: { ...spec, reset: false },
      maxBusyMs: MAX_BUSY_MS,
      maxIdleMs: MAX_IDLE_MS,
    }
    const result = await run(summary, (activities) => activities.replicateSlice(slice))
    onSlice(result)
    untilLsn = result.untilLsn ?? untilLsn
    setCurrentDetails(`**${request.mode === 'copy' ? 'snapshotting' : 'streaming'}** · applied LSN ${result.toLsn} · as of ${result.progress.asOf}`)
    if (result.ended === 'done') return result
  }
}

/**
 * The others are up to date; but a run that ended well with a table left behind would be a silent gap. Throws that table's error.
 */
export function refuseFailedTables(progress: ReplicationProgress): void {
  refuseFailed(Object.entries(progress.tables).flatMap(([name, { state, error }]) => (state === 'failed' ? [[name, error]] : [])))
}

/** {@link refuseFailedTables} of the tables that have stopped. */
export function refuseFailed(failed: readonly (readonly [name: string, error: ErrorReport | undefined])[]): void {
  const [first] = failed
  if (first === undefined) return
  const [name, error] = first
  const others = failed.length === 1 ? '' : ` (and ${failed.length - 1} more tables: ${failed.slice(1, 6).map(([other]) => other).join(', ')})`
  throw failureOf({
    type: error?.type ?? 'DestinationFailed',
    message: `table ${name} has stopped${others}: ${error?.message ?? 'no reason is known'}; the other tables are done`,
    remedy: error?.remedy ?? reportText({ message: 'see status', remedy: '' }),
  })
}
