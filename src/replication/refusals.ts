import type { PipelineState } from '../model/destination.ts'
import { DomainError } from '../model/errors.ts'
import { formatLsn, ZERO_LSN } from '../model/lsn.ts'
import { SLOT_LOST_REMEDY } from '../model/remedy.ts'
import type { SlotState, Source, SourceIdentity } from '../model/source.ts'
import type { ReplicationSpec } from '../model/spec.ts'
import { differentSource } from '../postgres/check-identity.ts'
import type { Spools } from './spools.ts'
import { covering } from './stream-spool.ts'

/** Throws `DifferentSource`. */
export function requireSameSource(state: PipelineState, identity: SourceIdentity): void {
  const error = differentSource(state.identity, identity)
  if (error !== null) throw error
}

/** The slot, which must not have passed what the destination and the spool beside it hold: then changes would be missing for ever. Throws `SlotLost`. */
export async function requireSlot(source: Source, spec: ReplicationSpec, { state, spools }: { readonly state: PipelineState; readonly spools: Spools }): Promise<SlotState> {
  const { slot, currentLsn } = await source.health(spec.slotName)
  if (slot === null) throw slotLost(spec, 'does not exist any more')
  if (slot.walStatus === 'lost') throw slotLost(spec, 'was invalidated: the server removed WAL that it needs')
  const confirmed = slot.confirmedFlushLsn
  const applied = state.appliedLsn ?? ZERO_LSN
  // What is written there from now on would be taken for what has been applied already.
  if (currentLsn < applied) throw slotLost(spec, `is of a source that was put back to an earlier state: its WAL ends at ${formatLsn(currentLsn)}, and the destination stands at ${formatLsn(applied)}`)
  if (confirmed === null || covering(spools.stream.segments(), applied, confirmed) !== null) return slot
  throw slotLost(spec, `was made anew or read by somebody else: it stands at ${formatLsn(confirmed)}, the destination at ${formatLsn(applied)}`)
}

/**
 * Is nothing lost after all? Either the former source is back, where it was only that another stood in its place; or a new slot was made, and nobody was told of it: then it stands
 * exactly where the destination does. Elsewhere a slot that fits proves nothing: the WAL of a source that was put back grows past the former position.
 */
export async function isSlotWhole(source: Source, spec: ReplicationSpec, { onlySourceDiffered, ...held }: { readonly state: PipelineState; readonly spools: Spools; readonly onlySourceDiffered: boolean }): Promise<boolean> {
  try {
    requireSameSource(held.state, await source.identify())
    const { confirmedFlushLsn } = await requireSlot(source, spec, held)
    return onlySourceDiffered || confirmedFlushLsn === held.state.appliedLsn
  } catch (error) {
    if (error instanceof DomainError && (error.kind === 'SlotLost' || error.kind === 'DifferentSource')) return false
    throw error
  }
}

export function slotLost(spec: ReplicationSpec, what: string): DomainError {
  return new DomainError({
    kind: 'SlotLost',
    message: `replication slot ${spec.slotName} of source ${spec.source} ${what}`,
    remedy: SLOT_LOST_REMEDY,
  })
}

export function notThere({ destination }: ReplicationSpec): DomainError {
  return new DomainError({
    kind: 'DestinationFailed',
    message: `destination ${destination} is not there`,
    remedy: 'see that its disk is mounted; meanwhile the slot holds WAL back at the source',
  })
}

export function notInitialized(spec: ReplicationSpec): DomainError {
  return new DomainError({
    kind: 'InvalidInput',
    message: `slot ${spec.slotName} of source ${spec.source} has not been initialized for destination ${spec.destination}`,
    remedy: 'run initReplication with the same input first (syncChanges and replicate do it by themselves)',
  })
}
