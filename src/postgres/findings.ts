import { DomainError, type ErrorKind } from '../model/errors.ts'
import { remedyText } from '../model/remedy.ts'

/** The outcome of one check of the source, for people (`doctor`) and as the error that init throws. JSON-safe. */
export interface PreflightFinding {
  /** What was checked: `wal_level`, `table ownership` … */
  readonly name: string
  readonly state: 'ok' | 'warning' | 'failure'
  readonly message: string
  /** What to do; null where nothing is to be done. */
  readonly remedy: string | null
  /** The error that a failure is; null otherwise. */
  readonly kind: ErrorKind | null
  /** The statements that mend it, where statements can: also part of `remedy`. */
  readonly sql: readonly string[]
}

export interface FailureInit {
  readonly name: string
  readonly kind: ErrorKind
  readonly message: string
  readonly sql?: readonly string[]
  /** Said on the lines before the statements, ending with a colon; or alone where there are none. */
  readonly advice?: string
}

export function okFinding(name: string, message: string): PreflightFinding {
  return { name, state: 'ok', message, remedy: null, kind: null, sql: [] }
}

export function warningFinding(name: string, message: string, remedy: string | null = null): PreflightFinding {
  return { name, state: 'warning', message, remedy, kind: null, sql: [] }
}

export function failureFinding(init: FailureInit): PreflightFinding {
  const sql = init.sql ?? []
  return { name: init.name, state: 'failure', message: init.message, remedy: remedyText(init.advice ?? '', sql), kind: init.kind, sql }
}

/** Failures whose messages stand in an error beside the first one's. */
const MAX_ALSO_SAID = 3

/** The first failure as an error, which says what else has failed; null where none failed. */
export function errorOfFindings(findings: readonly PreflightFinding[]): DomainError | null {
  const [first, ...others] = findings.filter((finding) => finding.state === 'failure')
  if (first?.kind === undefined || first.kind === null) return null
  const more = others.length > MAX_ALSO_SAID ? `; and ${others.length - MAX_ALSO_SAID} more, which doctor lists` : ''
  const shown = others.slice(0, MAX_ALSO_SAID)
  // Each beside its own name, the first one's too: the remedy that follows would be taken for the last one's.
  const told = shown.some((other) => other.remedy !== first.remedy) ? [first, ...shown].map((finding) => `${finding.message}${hintOf(finding)}`) : [first, ...shown].map(({ message }) => message)
  const also = others.length === 0 ? '' : `; also: ${told.slice(1).join('; ')}${more}`
  return new DomainError({ kind: first.kind, message: `${told[0] ?? ''}${also}`, remedy: first.remedy ?? '' })
}

/** What to do about a wrong name or value. */
function hintOf({ kind, remedy, sql }: PreflightFinding): string {
  return kind !== 'InvalidInput' || remedy === null || remedy === '' || sql.length > 0 ? '' : ` (${remedy.replace(/\.$/, '')})`
}

/** Up to ten names, for a message. */
export function listNames(names: readonly string[]): string {
  return `${names.slice(0, 10).join(', ')}${names.length > 10 ? ` and ${names.length - 10} more` : ''}`
}
