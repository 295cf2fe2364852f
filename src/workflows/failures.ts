import { ActivityFailure, ApplicationFailure, CancelledFailure, type CancellationScope, isCancellation, TimeoutFailure } from '@temporalio/workflow'
import { isErrorKind, reportText } from '../model/error-report.ts'
import { DomainError, type ErrorReport, reportOf } from '../model/errors.ts'

/** An error as the workflow sees it: what to show, and whether time alone can mend it. */
export interface Fault {
  readonly report: ErrorReport
  readonly isRetryable: boolean
}

/** The failure that a workflow or update ends with: its `type` is the error's (contract §6). */
export function failureOf(error: DomainError | ErrorReport): ApplicationFailure {
  const { type, message, remedy } = error instanceof DomainError ? reportOf(error) : error
  const failure = ApplicationFailure.create({ type, message: reportText({ message, remedy }), nonRetryable: true, details: [{ message, remedy }] })
  // Where in our code it was put together helps nobody who reads it in the UI.
  failure.stack = `${failure.name}: ${failure.message}`
  return failure
}

/** Runs a parser of the model; what it refuses fails the workflow (a plain error would retry the workflow task for ever: facts 27). */
export function refusing<T>(parse: () => T): T {
  try {
    return parse()
  } catch (error) {
    throw error instanceof DomainError ? failureOf(error) : error
  }
}

/** Reads an activity's failure back into the error that it was made of. Never throws. */
export function faultOf(error: unknown): Fault {
  const cause = error instanceof ActivityFailure ? error.cause : error
  if (cause instanceof ApplicationFailure) {
    const { message, remedy } = detailsOf(cause)
    const isRetryable = cause.nonRetryable !== true
    if (isErrorKind(cause.type)) return { report: { type: cause.type, message, remedy }, isRetryable }
    return {
      report: {
        type: 'InvalidConfig',
        message: `the worker failed an activity with ${cause.type ?? 'an error'}`,
        remedy: "see the worker's log; a worker of another version may poll the same task queue",
      },
      isRetryable,
    }
  }
  const what = cause instanceof TimeoutFailure ? 'took too long or was lost with its worker' : 'failed'
  return {
    report: { type: 'DestinationFailed', message: `an activity ${what}`, remedy: "see that a worker runs, and the worker's log" },
    isRetryable: true,
  }
}

function detailsOf(failure: ApplicationFailure): { readonly message: string; readonly remedy: string } {
  const [details] = failure.details ?? []
  if (typeof details === 'object' && details !== null && 'message' in details && 'remedy' in details) {
    const { message, remedy } = details
    if (typeof message === 'string' && typeof remedy === 'string') return { message, remedy }
  }
  return { message: failure.message, remedy: '' }
}

/**
 * What a one-shot workflow throws for an activity's failure: that error itself, not a wrapper, so that its type is the run's;
 * and a cancellation where the run was cancelled, also when the activity was lost meanwhile.
 */
export function endingOf(error: unknown, root: CancellationScope): unknown {
  if (isCancellation(error)) return error
  if (root.consideredCancelled) return new CancelledFailure('the workflow was cancelled')
  return error instanceof ActivityFailure ? failureOf(faultOf(error).report) : error
}
