import type { PipelineState } from '../model/destination.ts'
import type { ReplicationSpec } from '../model/spec.ts'
import type { SourceRequest } from '../postgres/source-request.ts'
import { amendmentOf } from './amendment.ts'
import { knownNames } from './named-tables.ts'

type Wanted = Pick<ReplicationSpec, 'slotName' | 'publicationName' | 'schemaName' | 'tableNames' | 'publish' | 'includeColumns' | 'snapshotMode' | 'reset'>

/** What init wants of a source, by the input and what the destination knows (null = nothing: not this slot, or not even an id). */
export function sourceRequestOf(spec: Wanted, destinationId: string | null, state: PipelineState | null): SourceRequest {
  const { slotName, publicationName, schemaName, tableNames, publish, includeColumns, snapshotMode, reset } = spec
  const { added, removed } = amendmentOf(spec, reset ? null : state)
  return {
    slotName,
    publicationName,
    schemaName,
    tableNames,
    publish,
    includeColumns,
    snapshotMode,
    reset,
    destinationId,
    destinationHasState: state?.appliedLsn != null,
    knownIdentity: state?.identity ?? null,
    knownTables: knownNames(state?.tables ?? []),
    addedTables: added,
    removedTables: removed,
    otherTables: [...removed, ...added],
  }
}
