import { DomainError } from '../model/errors.ts'
import { RECOVER_OR_RESET } from '../model/remedy.ts'
import type { SourceIdentity } from '../model/source.ts'
import { failureFinding, type PreflightFinding } from './findings.ts'

/** `DifferentSource` where the source is not the one that the destination was filled from; null where it is, or where nothing is known. */
export function differentSource(known: SourceIdentity | null, identity: SourceIdentity): DomainError | null {
  if (known === null) return null
  if (known.systemIdentifier === identity.systemIdentifier && known.timeline === identity.timeline && known.databaseName === identity.databaseName) return null
  const is = `system identifier ${identity.systemIdentifier}, timeline ${String(identity.timeline)}, database ${identity.databaseName}`
  const was = `${known.systemIdentifier}, ${String(known.timeline)}, ${known.databaseName}`
  return new DomainError({
    kind: 'DifferentSource',
    message: `the source is not the one that the destination was filled from (${is}; it was ${was})`,
    remedy: `Connect to the former source. Or, where this one has taken its place (restored, promoted, upgraded), send ${RECOVER_OR_RESET} to copy everything from this one.`,
  })
}

/** {@link differentSource} as the check that comes before all that look for tables and slots, which another source would not have. */
export function checkIdentity(known: SourceIdentity | null, identity: SourceIdentity): PreflightFinding[] {
  const error = differentSource(known, identity)
  return error === null ? [] : [failureFinding({ name: 'identity', kind: error.kind, message: error.message, advice: error.remedy })]
}
