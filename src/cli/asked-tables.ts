import type { SourceConfig } from '../config.ts'
import { XMIN_PIPELINE } from '../model/destination.ts'
import { parseReplicationInput, parseXminInput } from '../model/spec-parse.ts'
import type { UnresolvedSpec, UnresolvedXminSpec } from '../model/spec.ts'
import { failureFinding, type PreflightFinding } from '../postgres/findings.ts'
import { foreseeInit } from '../postgres/initialize.ts'
import { runPreflight } from '../postgres/preflight.ts'
import { runXminPreflight } from '../postgres/xmin-inspection.ts'
import { knownNames } from '../replication/named-tables.ts'
import { registrationsOf } from '../replication/registration.ts'
import { sourceRequestOf } from '../replication/source-request-of.ts'
import { otherSource, xminRegistrations } from '../replication/xmin-engine.ts'
import type { PlannedTables } from './check-fidelity.ts'
import type { KnownPipeline } from './known-pipeline.ts'

/** A name that does not exist yet: what is checked then is whether it could be made. */
const UNNAMED = 'not_made_yet'

/** The workflow whose start `doctor` is asked about. */
export interface Asked {
  /** null = the only one. */
  readonly source: string | null
  /** null = the only one. */
  readonly destination: string | null
  /** The pipeline's slot or what stands for it; null where none was named. */
  readonly slotName: string | null
  /** Looks at the source as a start would, with what the destination knows; `tables` is null where that says nothing of them. Never throws a `DomainError`. */
  look(source: SourceConfig, known: KnownPipeline | null): Promise<{ readonly findings: readonly PreflightFinding[]; readonly tables: PlannedTables | null }>
}

/** What a start with this input would need. Throws `InvalidInput` as the workflow would. */
export function askedOf(workflowType: string, input: Readonly<Record<string, unknown>>): Asked {
  if (workflowType === 'syncByXmin') return askedReading(parseXminInput(input, { of: 'doctor --type syncByXmin', storedIn: null }))
  return askedReplication(parseReplicationInput({ slotName: UNNAMED, publicationName: UNNAMED, ...input }, { of: 'doctor', storedIn: null }))
}

function askedReplication(spec: UnresolvedSpec): Asked {
  return {
    source: spec.source,
    destination: spec.destination,
    slotName: spec.slotName === UNNAMED ? null : spec.slotName,
    look: async ({ credentials, makesFailoverSlots }, known) => {
      const request = sourceRequestOf(spec, known?.destinationId ?? null, known?.state ?? null)
      const { findings, inspection } = await runPreflight(credentials, { request, makesFailoverSlots })
      // That something could be made under a name that nobody gave is nothing to tell.
      const told = findings.filter(({ state, message }) => state !== 'ok' || !message.includes(`"${UNNAMED}"`))
      if (inspection === null) return { findings: told, tables: null }
      const published = (request.reset ? null : inspection.publication)?.tables ?? []
      return {
        findings: told,
        tables: {
          registrations: () => registrationsOf(spec, { ...foreseeInit(inspection, request), ...(request.removedTables === undefined ? {} : { otherTables: request.removedTables }) }, known?.state?.tables ?? []),
          rowFilterOf: (oid) => published.find((table) => table.oid === oid)?.rowFilter ?? null,
        },
      }
    },
  }
}

function askedReading(spec: UnresolvedXminSpec): Asked {
  return {
    source: spec.source,
    destination: spec.destination,
    slotName: XMIN_PIPELINE,
    look: async ({ credentials }, known) => {
      const tables = known?.state?.tables ?? []
      const { findings, inspection: found } = await runXminPreflight(credentials, { ...spec, knownTables: knownNames(tables) })
      if (found === null) return { findings, tables: null }
      const error = otherSource({ spec, runId: '', found }, tables)
      const other = error === null ? [] : [failureFinding({ name: 'identity', kind: error.kind, message: error.message, advice: error.remedy })]
      return { findings: [...findings, ...other], tables: { registrations: () => xminRegistrations({ spec, found }, tables), rowFilterOf: () => null } }
    },
  }
}
