import { CancellationScope, workflowInfo } from '@temporalio/workflow'
import { parseReplicationInput } from '../model/spec-parse.ts'
import type { ReplicationInput } from '../model/spec.ts'
import type { ReplicationStatus } from '../model/status.ts'
import { registerHandlers } from './replicate-handlers.ts'
import { ReplicateRun } from './replicate-run.ts'
import { initialState, type ReplicateState } from './replicate-state.ts'
import { parseRunInput } from './run-input.ts'

/**
 * Init → snapshot → continuous sync, until stopped; continues as new. Phases and transitions: `replicate-state.ts`.
 *
 * Faults that time can mend are retried here and not by the server's retry policy: so the fault shows in `status` while it lasts, and
 * `pause` and `stop` need not wait for an attempt. The price is small: an attempt writes 11 events, at most one a minute in the end.
 *
 * Returns the final status. Fails with `InvalidInput` for its input, and with `AlreadyReplicating`; every other error that no retry
 * mends is waited out in phase `failed`.
 *
 * @param carried - Continue-as-new's own; a run that a user starts has one argument.
 */
export async function replicate(input: ReplicationInput, carried?: ReplicateState, ...more: readonly undefined[]): Promise<ReplicationStatus> {
  const { startTime, continuedFromExecutionRunId } = workflowInfo()
  const isContinued = continuedFromExecutionRunId !== undefined
  const spec = parseRunInput(isContinued || carried === undefined ? [input] : [input, carried, ...more], parseReplicationInput)
  const { slotName, publicationName } = spec
  // A run of an earlier version has carried less.
  const state = { ...initialState({ slotName, publicationName, startedAt: startTime.toISOString() }), ...carried }

  const run = new ReplicateRun(input, spec, state)
  registerHandlers(run)
  CancellationScope.current().cancelRequested.catch(() => {
    run.cancel()
  })
  // Cancelling is one more way to stop: the run ends what it does and lets go of the slot before it ends as cancelled.
  return CancellationScope.nonCancellable(() => run.untilEnd())
}
