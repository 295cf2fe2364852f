import type { KnownTable } from '../model/destination.ts'
import type { SourceIdentity } from '../model/source.ts'
import type { ReplicationSpec } from '../model/spec.ts'

/** What init wants of a source: the spec's part that concerns it, and what the destination knows. */
export interface SourceRequest
  extends Pick<ReplicationSpec, 'slotName' | 'publicationName' | 'schemaName' | 'tableNames' | 'publish' | 'includeColumns' | 'snapshotMode' | 'reset'> {
  /** The destination's random id; null = not known (yet): the note is neither compared nor written. */
  readonly destinationId: string | null
  /** True where the destination holds a checkpoint of this slot. */
  readonly destinationHasState: boolean
  /** The source that the destination was filled from; null or left out = not known. */
  readonly knownIdentity?: SourceIdentity | null
  /** Tables that the destination holds, under every name that they have had, the likelier first: how a renamed table is followed. */
  readonly knownTables?: readonly KnownTable[]
  /** Tables that updates have added to those that the input means, where they are still there. */
  readonly addedTables?: readonly KnownTable[]
  /** Tables that updates have removed, under every name that they may come by. */
  readonly removedTables?: readonly KnownTable[]
  /** Tables that the input's maps may name beside the requested ones. */
  readonly otherTables?: readonly KnownTable[]
  /** True where the slot is given up, be it there or not, and one is made anew under its name (`recover`); publication and note stay. The source may be another by now. */
  readonly recovers?: boolean
  /** With `recovers`: the slot that is there is gone on with from where it stands, see {@link canKeepSlot}. */
  readonly keepsSlot?: boolean
  /** A slot that is made is to be a failover slot (PostgreSQL 17 or later, on a primary). One that is there stays what it is. */
  readonly makesFailoverSlot?: boolean
  /** True where the session that holds the slot is our own: it is neither waited for nor checked. */
  readonly isSlotOurs?: boolean
}

/** Is a slot that is there dropped, and one made under its name? */
export function makesSlotAnew({ reset, recovers = false, keepsSlot = false }: Pick<SourceRequest, 'reset' | 'recovers' | 'keepsSlot'>): boolean {
  return reset || (recovers && !keepsSlot)
}
