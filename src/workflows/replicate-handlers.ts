import { condition, defineUpdate, patched, setHandler } from '@temporalio/workflow'
import { DomainError } from '../model/errors.ts'
import type { TablesOrder } from '../model/replication.ts'
import { type InputOrigin, parseApproveInput, parseEmptyInput, parseOptionsInput, parseRemoveInput, parseResyncInput, parseRetryInput, parseTablesInput } from '../model/spec-parse.ts'
import type { RetryFailedInput, RunningOptions, SetOptionsInput } from '../model/spec.ts'
import type { ReplicationStatus } from '../model/status.ts'
import { failureOf } from './failures.ts'
import {
  MESSAGE_DESCRIPTIONS,
  pauseUpdate,
  recoverUpdate,
  resumeUpdate,
  retryFailedUpdate,
  setOptionsUpdate,
  statusQuery,
  stopSignal,
  stopUpdate,
} from './messages.ts'
import { canRecover, hasSomethingToRetry, nextStep, onOptions, onPause, onRecover, onResume, onRetry, onStopRequested } from './replicate-state.ts'
import type { ReplicateRun } from './replicate-run.ts'
import { parseUpdateInput } from './run-input.ts'

/**
 * Registers query, updates and signal of a `replicate` run, before anything is awaited, so that none is lost when it starts or continues
 * as new. Tools that send no argument at all are answered as if it were `{}`. A validator changes nothing, and what it rejects Temporal does not store; every answer is the status.
 */
export function registerHandlers(run: ReplicateRun): void {
  setHandler(statusQuery, () => run.status, { description: MESSAGE_DESCRIPTIONS.status })

  setHandler(pauseUpdate, () => pause(run), {
    description: MESSAGE_DESCRIPTIONS.pause,
    validator: (...args: readonly unknown[]) => {
      parseUpdateInput('pause', args, parseEmptyInput)
      refuseAtEnd(run)
    },
  })
  setHandler(resumeUpdate, () => resume(run), {
    description: MESSAGE_DESCRIPTIONS.resume,
    validator: (...args: readonly unknown[]) => {
      parseUpdateInput('resume', args, parseEmptyInput)
      refuseAtEnd(run)
      if (run.state.failure !== null && !run.state.isPauseRequested) {
        throw refusal('the replication has failed; it is not paused', 'mend what lastError names, then update retryFailed goes on')
      }
    },
  })
  setHandler(retryFailedUpdate, (input: RetryFailedInput) => retryFailed(run, input), {
    description: MESSAGE_DESCRIPTIONS.retryFailed,
    validator: (...args: readonly unknown[]) => {
      parseUpdateInput('retryFailed', args, parseRetryInput)
      refuseAtEnd(run)
    },
  })
  setHandler(stopUpdate, () => stop(run), {
    description: MESSAGE_DESCRIPTIONS.stop,
    validator: (...args: readonly unknown[]) => {
      parseUpdateInput('stop', args, parseEmptyInput)
    },
  })
  setHandler(
    stopSignal,
    () => {
      requestStop(run)
    },
    { description: MESSAGE_DESCRIPTIONS.stop },
  )
  registerOrder(run, 'addTables', (input, origin) => ({ tag: 'add', tableNames: parseTablesInput(input, origin) }))
  registerOrder(run, 'removeTables', (input, origin) => ({ tag: 'remove', ...parseRemoveInput(input, origin) }))
  registerOrder(run, 'resyncTables', (input, origin) => ({ tag: 'resync', ...parseResyncInput(input, origin) }))
  registerOrder(run, 'approveSchemaChange', (input, origin) => ({ tag: 'approve', tableNames: [parseApproveInput(input, origin)] }))
  setHandler(setOptionsUpdate, (input: SetOptionsInput) => setOptions(run, parseUpdateInput('setOptions', [input], parseOptionsInput)), {
    description: MESSAGE_DESCRIPTIONS.setOptions,
    validator: (...args: readonly unknown[]) => {
      parseUpdateInput('setOptions', args, parseOptionsInput)
      refuseAtEnd(run)
    },
  })
  setHandler(recoverUpdate, () => recover(run), {
    description: MESSAGE_DESCRIPTIONS.recover,
    validator: (...args: readonly unknown[]) => {
      parseUpdateInput('recover', args, parseEmptyInput)
      refuseAtEnd(run)
      if (!run.state.isRecovering && !canRecover(run.state)) throw nothingLost(run)
    },
  })
}

/** In force when what began with the former options has ended. */
async function setOptions(run: ReplicateRun, options: RunningOptions): Promise<ReplicationStatus> {
  const { attemptCount } = run
  const isBusy = run.state.isBusy
  run.change(onOptions(run.state, options))
  run.interrupt()
  await condition(() => !isBusy || run.attemptCount > attemptCount || run.state.isStopped)
  return run.status
}

/** An update that orders something for tables. */
function registerOrder(run: ReplicateRun, update: 'addTables' | 'removeTables' | 'resyncTables' | 'approveSchemaChange', parse: (input: unknown, origin: InputOrigin) => TablesOrder): void {
  setHandler(defineUpdate<ReplicationStatus, [input: unknown]>(update), (input: unknown) => carryOut(run, parseUpdateInput(update, [input], parse)), {
    description: MESSAGE_DESCRIPTIONS[update],
    validator: (...args: readonly unknown[]) => {
      parseUpdateInput(update, args, parse)
      refuseAtEnd(run)
    },
  })
}

/** Answers once the order is in force. Fails where it is refused, and where the replication ends before its turn. */
async function carryOut(run: ReplicateRun, order: TablesOrder): Promise<ReplicationStatus> {
  const id = run.order(order)
  await condition(() => !run.isOrderPending(id) || run.state.isStopped)
  if (run.isOrderPending(id)) throw refusal('the replication has ended before the order was carried out', 'start it again, then give the order again')
  const refused = run.takeRefusal(id)
  if (refused !== null) throw failureOf(refused)
  return run.status
}

/** In force when no activity runs any more. */
async function pause(run: ReplicateRun): Promise<ReplicationStatus> {
  run.change(onPause(run.state))
  run.interrupt()
  await condition(() => !run.state.isBusy || !run.state.isPauseRequested || run.state.isStopped)
  return run.status
}

function resume(run: ReplicateRun): ReplicationStatus {
  const isWaiting = !run.state.isBusy
  if (run.state.isPauseRequested || run.state.isBackingOff) run.change(onResume(run.state))
  // The slot may be watched meanwhile.
  if (isWaiting) run.interrupt()
  return run.status
}

/**
 * Answers when the order was carried out or a new attempt has ended; while paused, or where it fails again, the status says so and the
 * order stands for later. Fails where the engine refuses it (no such table).
 */
async function retryFailed(run: ReplicateRun, input: RetryFailedInput): Promise<ReplicationStatus> {
  const tableNames = parseUpdateInput('retryFailed', [input], parseRetryInput)
  if (tableNames === null && !hasSomethingToRetry(run.state)) return run.status
  run.change(onRetry(run.state, tableNames))
  run.interrupt()
  const isInterrupted = run.state.isBusy
  const { attemptCount, refusal: earlier } = run
  await condition(() => {
    const { state } = run
    const isTried = run.attemptCount > attemptCount + (isInterrupted ? 1 : 0)
    return state.isStopped || (!state.isBusy && nextStep(state).tag === 'wait') || state.pendingRetry === null || (isTried && state.isBackingOff)
  })
  if (run.refusal !== null && run.refusal !== earlier) throw failureOf(run.refusal)
  return run.status
}

/** Answers when the new slot is there, also while paused, or an attempt has failed: then the status says so and the order stands for later. */
async function recover(run: ReplicateRun): Promise<ReplicationStatus> {
  // Of two at once the second waits for the first.
  if (canRecover(run.state)) {
    // Versions before made the slot when it was resumed, and took no other order meanwhile; their histories say so.
    const isNew = patched('recoverWhilePaused')
    if (isNew || run.state.failure !== null) {
      run.change(onRecover(run.state, isNew))
      run.interrupt()
    }
  }
  const { attemptCount } = run
  await condition(() => {
    const { state } = run
    return state.isStopped || !state.isRecovering || state.failure !== null || (!state.isBusy && nextStep(state).tag === 'wait') || (run.attemptCount > attemptCount && state.isBackingOff)
  })
  return run.status
}

function nothingLost({ state }: ReplicateRun): Error {
  if (state.failure === null && state.isPauseRequested) {
    return refusal('the replication is paused, and has not failed: whether its slot is lost shows when it goes on', 'send the update resume (cli resume); where status says SlotLost then, recover makes a new slot, also while it is paused again')
  }
  const what = state.failure === null ? 'the replication has not failed' : `the replication has failed with ${state.failure.type}`
  return refusal(`${what}: recover makes a new slot after SlotLost, or where the source was restored, promoted or upgraded`, state.failure === null ? 'nothing is to be done; resyncTables copies tables anew' : 'mend what lastError names, then update retryFailed goes on')
}

async function stop(run: ReplicateRun): Promise<ReplicationStatus> {
  requestStop(run)
  await condition(() => run.state.isStopped)
  return run.status
}

function requestStop(run: ReplicateRun): void {
  run.change(onStopRequested(run.state))
  run.interrupt()
}

function refuseAtEnd(run: ReplicateRun): void {
  if (run.state.isStopRequested) throw refusal('the replication is being stopped', 'start it again: it goes on exactly')
}

function refusal(message: string, remedy: string): Error {
  return failureOf(new DomainError({ kind: 'InvalidInput', message, remedy }))
}
