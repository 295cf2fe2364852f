import { ApplicationFailure } from '@temporalio/common'
import { reportText } from '../model/error-report.ts'
import { DomainError, type ErrorKind, reportOf } from '../model/errors.ts'

/** Attempts of an error that nothing classified, before it is given up: a bug does not mend itself, a fault of the moment does. */
export const MAX_UNEXPECTED_ATTEMPTS = 10

const NETWORK_ERRNOS: ReadonlySet<string> = new Set([
  ...['ECONNREFUSED', 'ECONNRESET', 'ECONNABORTED', 'EPIPE', 'ETIMEDOUT', 'EHOSTUNREACH', 'EHOSTDOWN'],
  ...['ENETUNREACH', 'ENETDOWN', 'ENOTFOUND', 'EAI_AGAIN'],
])
const FILE_ERRNOS: ReadonlySet<string> = new Set(['ENOSPC', 'EDQUOT', 'EIO', 'EMFILE', 'ENFILE', 'EROFS', 'EACCES', 'EPERM', 'ENOENT', 'EBUSY'])

/**
 * The one mapping from errors to Temporal failures: `type` = kind, message and remedy as one text, both apart in the details. No cause
 * and no stack go along: a driver's error holds row values in its `detail`, and connection strings.
 *
 * What no adapter classified is told by its class and errno only, and becomes final at {@link MAX_UNEXPECTED_ATTEMPTS}.
 */
export function toFailure(error: unknown, during: { readonly operation: string; readonly attempt: number }): ApplicationFailure {
  const domainError = error instanceof DomainError ? error : classify(error, during.operation)
  const isExpected = error instanceof DomainError || domainError.kind !== 'ProtocolViolation'
  const { type, message, remedy } = reportOf(domainError)
  const failure = ApplicationFailure.create({
    type,
    message: reportText({ message, remedy }),
    nonRetryable: isExpected ? !domainError.isRetryable : during.attempt >= MAX_UNEXPECTED_ATTEMPTS,
    details: [{ message, remedy }],
  })
  // This function's own stack would be all that the UI shows of it.
  failure.stack = `${failure.name}: ${failure.message}`
  return failure
}

/** Whether an error is one that adapters ought to have classified: worth its stack in the worker's log. */
export function isUnexpected(error: unknown): boolean {
  return !(error instanceof DomainError)
}

/** The call sites of an error without its message, which may hold anything. */
export function safeStack(error: unknown): string {
  const stack = error instanceof Error ? (error.stack ?? '') : ''
  return stack
    .split('\n')
    .filter((line) => /^\s+at /.test(line))
    .join('\n')
}

function classify(error: unknown, operation: string): DomainError {
  const errno = errnoOf(error)
  const kind: ErrorKind =
    errno === null
      ? 'ProtocolViolation'
      : NETWORK_ERRNOS.has(errno)
        ? 'SourceUnavailable'
        : FILE_ERRNOS.has(errno)
          ? 'DestinationFailed'
          : 'ProtocolViolation'
  const name = error instanceof Error && /^[A-Za-z]{1,40}$/.test(error.name) ? error.name : 'error'
  return new DomainError({
    kind,
    message: `unexpected ${name}${errno === null ? '' : ` (${errno})`} during ${operation}`,
    remedy: "see the worker's log for where it happened; if it stays, report it with that log",
  })
}

function errnoOf(error: unknown): string | null {
  if (typeof error !== 'object' || error === null || !('code' in error)) return null
  return typeof error.code === 'string' && /^[A-Z0-9_]{2,30}$/.test(error.code) ? error.code : null
}
