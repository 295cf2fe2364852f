import type { Lsn } from '../model/lsn.ts'
import { SLOT_LOST_REMEDY } from '../model/remedy.ts'
import { failureFinding, okFinding, warningFinding, type PreflightFinding } from './findings.ts'
import type { PublicationState } from './publication.ts'
import { remedyForHeldSlot, type SlotDetails } from './slot.ts'
import { makesSlotAnew, type SourceRequest } from './source-request.ts'

export interface SlotCheckInput {
  readonly request: SourceRequest
  readonly databaseName: string
  readonly slot: SlotDetails | null
  readonly publication: PublicationState | null
  /** True where the snapshots of the slot's very position are kept at the source: then we made it, and were cut off. */
  readonly hasSnapshots?: boolean
}

/** True where the slot was made by somebody else: it exists, our note is not there, and the destination knows nothing of it. */
export function isAdoption(input: SlotCheckInput): boolean {
  const { request, slot, publication } = input
  if (slot === null || makesSlotAnew(request) || request.destinationHasState || input.hasSnapshots === true) return false
  return publication?.notes.get(request.slotName) === undefined
}

/**
 * May `recover` go on with the slot that is there, where another source has taken the former one's place? `pg_upgrade` keeps slots from PostgreSQL 17 on, and so does the promotion of a
 * standby that has them: what they send need not be found by comparing, and comes in its order. It must not stand before `fromLsn`, which is at the destination, and the publication
 * must be older than it: decoding looks that up as it was at each change. Pure; the slot has passed {@link checkSlot}.
 */
export function canKeepSlot({ slot, publication }: Pick<SlotCheckInput, 'slot' | 'publication'>, fromLsn: Lsn): boolean {
  if (slot === null || publication === null || slot.catalogXmin === null || slot.invalidationReason !== null) return false
  // Transaction ids go round in a circle.
  const isPublicationOlder = ((publication.xmin - slot.catalogXmin) | 0) < 0
  return slot.confirmedFlushLsn !== null && slot.confirmedFlushLsn >= fromLsn && isPublicationOlder
}

/**
 * Can the slot be made, taken up or dropped? Pure.
 *
 * | slot | destination's state | note on the publication | outcome |
 * | --- | --- | --- | --- |
 * | none | none | any | made |
 * | none | some | any | `SlotLost` |
 * | ours to read | any | another destination's | `DestinationLost` |
 * | ours to read | none | none | adopted, with a warning |
 * | ours to read | otherwise | | goes on |
 * | physical, other plugin or database | | | `InvalidInput` |
 * | invalidated | | | `SlotLost` |
 * | held by a session | | | `SlotInUse` |
 *
 * With `reset` only the last and the physical, other plugin or database rows count; to recover with a slot that is made anew, the note's too.
 */
export function checkSlot(input: SlotCheckInput): PreflightFinding[] {
  const { request, slot, publication } = input
  const findings = checkSharedPublication(input)
  const title = `slot ${JSON.stringify(request.slotName)}`
  const failure = (kind: 'InvalidInput' | 'SlotLost' | 'SlotInUse' | 'DestinationLost', message: string, advice: string): PreflightFinding =>
    failureFinding({ name: 'slot', kind, message, advice })
  const isMadeAnew = makesSlotAnew(request)

  if (slot === null) {
    if (request.destinationHasState && !isMadeAnew) {
      return [...findings, failure('SlotLost', `${title} is gone, and the destination holds rows that came through it: changes since then are lost`, SLOT_LOST_REMEDY)]
    }
    return [...findings, okFinding('slot', `${title} will be created`)]
  }

  if (!slot.isLogical || slot.isTemporary) {
    return [...findings, failure('InvalidInput', `${title} is a ${slot.isLogical ? 'temporary' : 'physical'} slot`, 'Give another slotName.')]
  }
  if (slot.database !== input.databaseName) {
    return [...findings, failure('InvalidInput', `${title} belongs to database ${JSON.stringify(slot.database)}`, 'Give another slotName, or connect to that database.')]
  }
  if (slot.plugin !== 'pgoutput') {
    return [...findings, failure('InvalidInput', `${title} decodes with plugin ${JSON.stringify(slot.plugin)}, not pgoutput`, 'Give another slotName.')]
  }
  // Before who holds it: that may well be the replication into the other destination.
  const noted = publication?.notes.get(request.slotName)
  if (!request.reset && noted !== undefined && request.destinationId !== null && noted !== request.destinationId) {
    return [
      ...findings,
      failure(
        'DestinationLost',
        `${title} is served into another destination than this one (or this one was emptied): publication ${JSON.stringify(request.publicationName)} notes ${noted}`,
        'Configure the destination that it was served into; or start again with "reset": true; or give another slotName.',
      ),
    ]
  }
  if (slot.isActive) {
    const who = slot.activeApplication === null ? '' : ` (application_name ${JSON.stringify(slot.activeApplication)})`
    return [...findings, failure('SlotInUse', `${title} is used by pid ${slot.activePid ?? 0}${who}`, remedyForHeldSlot(slot))]
  }
  if (isMadeAnew) return [...findings, okFinding('slot', `${title} will be dropped and created anew`)]
  if (slot.invalidationReason !== null) {
    return [...findings, failure('SlotLost', `${title} was given up by the server (${slot.invalidationReason})`, SLOT_LOST_REMEDY)]
  }
  if (request.snapshotMode === 'persisted' && !request.destinationHasState && input.hasSnapshots !== true) {
    return [...findings, failure('InvalidInput', `${title} exists already: snapshotMode "persisted" needs a slot that it creates itself`, 'Use snapshotMode "initial", or "reset": true.')]
  }

  if (publication === null) return [...findings, ...slotWithoutPublication(input, title)]
  if (isAdoption(input)) {
    const consequence = request.snapshotMode === 'never' ? 'goes on at its position' : 'all tables are copied anew'
    return [...findings, warningFinding('slot', `${title} was made by somebody else and is adopted: ${consequence}`)]
  }
  return [...findings, okFinding('slot', `${title} exists`)]
}

/** The stream decodes with the publication as it was at each change: where there was none, it fails. */
function slotWithoutPublication(input: SlotCheckInput, title: string): PreflightFinding[] {
  const { request } = input
  const message = `${title} exists, publication ${JSON.stringify(request.publicationName)} does not: what was written until it is created cannot be decoded`
  if (request.destinationHasState) {
    return [failureFinding({ name: 'slot', kind: 'SlotLost', message, advice: SLOT_LOST_REMEDY })]
  }
  if (request.snapshotMode === 'never') {
    return [failureFinding({ name: 'slot', kind: 'InvalidInput', message, advice: 'Name the publication that the slot was made for, or use snapshotMode "initial".' })]
  }
  return [warningFinding('slot', `${title} was made by somebody else and is adopted: it is moved on to the new publication, and all tables are copied anew`)]
}

/** One publication may serve several slots; dropping it for one would break the others' streams. */
function checkSharedPublication(input: SlotCheckInput): PreflightFinding[] {
  const others = [...(input.publication?.notes.keys() ?? [])].filter((slotName) => slotName !== input.request.slotName)
  if (!input.request.reset || others.length === 0) return []
  return [
    failureFinding({
      name: 'publication',
      kind: 'InvalidInput',
      message: `reset would drop publication ${JSON.stringify(input.request.publicationName)}, which also serves ${others.map((name) => JSON.stringify(name)).join(', ')}`,
      advice: 'Give this slot a publicationName of its own.',
    }),
  ]
}
