import { ERROR_POLICY, type ErrorKind, type ErrorReport } from './errors.ts'

/** For people: what happened, then what to do. The message of a Temporal failure. */
export function reportText(report: Pick<ErrorReport, 'message' | 'remedy'>): string {
  if (report.remedy === '') return report.message
  return `${report.message}${/[.!?]$/.test(report.message) ? '' : '.'} Remedy: ${report.remedy}`
}

/** Whether a text is one of the error types of contract §6. */
export function isErrorKind(type: unknown): type is ErrorKind {
  return typeof type === 'string' && Object.hasOwn(ERROR_POLICY, type)
}

/** Every error type of contract §6. */
export const ERROR_KINDS: readonly ErrorKind[] = Object.keys(ERROR_POLICY).filter(isErrorKind)
