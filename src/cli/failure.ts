import {
  isGrpcDeadlineError,
  isGrpcServiceError,
  WorkflowExecutionAlreadyStartedError,
  WorkflowFailedError,
  WorkflowUpdateFailedError,
  WorkflowUpdateRPCTimeoutOrCancelledError,
} from '@temporalio/client'
import { ActivityFailure, ApplicationFailure, CancelledFailure, ChildWorkflowFailure, TerminatedFailure, WorkflowNotFoundError } from '@temporalio/common'
import { CommanderError } from 'commander'

import { maskText } from '../config.ts'
import { DomainError } from '../model/errors.ts'
import { TemporalUnavailable } from '../temporal-connection.ts'
import { EXIT_USAGE } from './answer.ts'

/** An error as the CLI shows it: contract §6's types where it comes from a replication, else one of the CLI's own. */
export interface ShownError {
  readonly type: string
  readonly message: string
  readonly remedy: string
}

/** An error of the command line itself. */
export class CliError extends Error {
  readonly shown: ShownError
  readonly exitCode: number

  constructor(shown: ShownError, exitCode = 1) {
    super(shown.message)
    this.name = shown.type
    this.shown = shown
    this.exitCode = exitCode
  }
}

/** Wrong options or arguments: exit code 2. */
export function usageError(message: string, remedy: string): CliError {
  return new CliError({ type: 'Usage', message, remedy }, EXIT_USAGE)
}

const NO_WORKER: Omit<ShownError, 'message'> = {
  type: 'WorkerUnavailable',
  remedy: 'start a worker (npm start, or npm run dev) with the same TEMPORAL_* variables and REPLICATION_TASK_QUEUE; npm run cli -- doctor checks it',
}

/** No worker does what is asked for. */
export function noWorker(message: string): CliError {
  return new CliError({ ...NO_WORKER, message })
}

/** How an error is shown and which exit code it gives. Never a stack: a bug's is printed with DEBUG set. */
export function describeFailure(error: unknown): { readonly shown: ShownError; readonly exitCode: number } {
  if (error instanceof CliError) return { shown: error.shown, exitCode: error.exitCode }
  if (error instanceof CommanderError) {
    const message = error.code === 'commander.help' ? 'no verb is given' : maskText(error.message.replace(/^error: /, ''))
    return { shown: { type: 'Usage', message, remedy: 'npm run cli -- <verb> --help shows what it takes' }, exitCode: EXIT_USAGE }
  }
  return { shown: describeError(error), exitCode: 1 }
}

function describeError(error: unknown): ShownError {
  if (error instanceof DomainError) return { type: error.kind, message: error.message, remedy: error.remedy }
  if (error instanceof TemporalUnavailable) return { type: 'TemporalUnavailable', message: error.message, remedy: error.remedy }
  if (error instanceof WorkflowFailedError || error instanceof WorkflowUpdateFailedError) return describeTemporalFailure(error.cause)
  if (error instanceof WorkflowUpdateRPCTimeoutOrCancelledError || isGrpcDeadlineError(error)) {
    return { ...NO_WORKER, message: 'no worker answered in time' }
  }
  if (error instanceof WorkflowNotFoundError) return workflowNotFound(error.workflowId)
  if (error instanceof WorkflowExecutionAlreadyStartedError) {
    return { type: 'AlreadyRunning', message: `a workflow ${error.workflowId} is already running`, remedy: 'wait until it has ended' }
  }
  if (isGrpcServiceError(error)) return describeServiceError(error.code, error.details)
  if (error instanceof Error && isGrpcServiceError(error.cause)) return describeServiceError(error.cause.code, error.cause.details)
  const message = error instanceof Error ? error.message : String(error)
  return { type: 'Unexpected', message, remedy: 'run it again with DEBUG=1 to see where it happened' }
}

function workflowNotFound(workflowId: string): ShownError {
  return {
    type: 'WorkflowNotFound',
    message: `no workflow ${workflowId === '' ? 'of that id' : workflowId} is open, or there never was one`,
    remedy: 'npm run cli -- status lists the open replications; TEMPORAL_NAMESPACE names another namespace',
  }
}

const CANCELLED = 1
const UNAVAILABLE = 14
const FAILED_PRECONDITION = 9
const NOT_FOUND = 5

function describeServiceError(code: number, details: string): ShownError {
  // Nobody here cancels a call: its deadline came while it was being sent or answered, and gRPC says the one or the other.
  if (code === CANCELLED) return { ...NO_WORKER, message: 'no worker answered in time' }
  if (code === FAILED_PRECONDITION && /poller|worker/i.test(details)) return { ...NO_WORKER, message: 'no worker polls the task queue of this workflow' }
  if (code === NOT_FOUND && /workflow/i.test(details)) return workflowNotFound(/ID: (\S+)/.exec(details)?.[1] ?? '')
  if (code === NOT_FOUND && /namespace/i.test(details)) {
    return { type: 'TemporalUnavailable', message: details, remedy: 'set TEMPORAL_NAMESPACE to a namespace of this server' }
  }
  if (code === UNAVAILABLE) return { type: 'TemporalUnavailable', message: 'Temporal has gone away', remedy: 'check that the server at TEMPORAL_ADDRESS runs' }
  return { type: 'TemporalRefused', message: details, remedy: 'see docs/operations.md' }
}

/** The innermost failure that has a type of ours: activities and child workflows wrap it. */
export function describeTemporalFailure(failure: Error | undefined): ShownError {
  if (failure instanceof ApplicationFailure) {
    const [detail] = failure.details ?? []
    const apart = typeof detail === 'object' && detail !== null ? detail : {}
    return {
      type: failure.type ?? 'Unexpected',
      message: 'message' in apart && typeof apart.message === 'string' ? apart.message : failure.message,
      remedy: 'remedy' in apart && typeof apart.remedy === 'string' ? apart.remedy : 'see docs/operations.md',
    }
  }
  if (failure instanceof ActivityFailure || failure instanceof ChildWorkflowFailure) return describeTemporalFailure(failure.cause)
  if (failure instanceof CancelledFailure) return { type: 'Canceled', message: 'the workflow was canceled', remedy: 'start it again: it goes on where it was' }
  if (failure instanceof TerminatedFailure) return { type: 'Terminated', message: 'the workflow was terminated', remedy: 'start it again: it goes on where it was' }
  return { type: 'Unexpected', message: failure?.message ?? 'the workflow failed', remedy: 'see the workflow in the Temporal UI' }
}
