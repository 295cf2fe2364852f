import { isBeside, type PipelineState, type TableRecord, withoutCopy } from '../model/destination.ts'
import { DomainError } from '../model/errors.ts'
import { formatLsn, type Lsn, toLsn, ZERO_LSN } from '../model/lsn.ts'
import { hasHistory, keepsPast } from '../model/shapes.ts'
import type { Source, SourceIdentity } from '../model/source.ts'
import type { ReplicationSpec } from '../model/spec.ts'
import { tableKey, type TableSchema } from '../model/table-schema.ts'
import { comparePublications } from '../pipeline/storage-diff.ts'
import { differentSource } from '../postgres/check-identity.ts'
import { canKeepSlot } from '../postgres/check-slot.ts'
import type { SourceInspection } from '../postgres/preflight.ts'
import { sameTable } from './names.ts'
import { copiedAnew } from './retry.ts'

/** Past every position: nothing that stands at the destination is taken for what the stream's next change stands on. */
const BEYOND_ALL_LSN = formatLsn(toLsn(0xffff_ffff_ffff_ffffn))

/** What a slot that is lost, or another source in the place of the former one, leaves behind, seen from the source that there is now. */
export interface LostSlot {
  /** Everything that committed before it is at the destination. */
  readonly fromLsn: Lsn
  /** False where the source is another by its identity (restored, promoted): positions and transaction ids of before mean nothing in it. */
  readonly isSameSource: boolean
  /** Tables that this source does not have under the oid and name by which they are known. Empty where it is the same. */
  readonly strangers: readonly TableRecord[]
}

/**
 * Can the destination's rows go on behind a new slot of this source? Changes nothing. Throws `DifferentSource` where it has none of the tables, and `InvalidInput`
 * where its WAL stands before what histories hold already: they are in the order of LSNs.
 */
export async function inspectLostSlot(source: Source, spec: ReplicationSpec, state: PipelineState): Promise<LostSlot> {
  const { currentLsn } = await source.health(spec.slotName)
  const identity = await source.identify()
  const fromLsn = state.appliedLsn ?? ZERO_LSN
  const live = state.tables.filter((table) => table.state !== 'removed')
  const different = differentSource(state.identity, identity)
  const strangers = different === null ? [] : await strangersOf(source, live)
  if (different !== null && live.length > 0 && strangers.length === live.length) throw noKin(identity)
  const past = live.filter((table) => keepsPast(table) && !strangers.includes(table))
  if (currentLsn < fromLsn && past.length > 0) throw pastIsAhead(past, currentLsn, fromLsn)
  return { fromLsn, isSameSource: different === null, strangers }
}

async function strangersOf(source: Source, tables: readonly TableRecord[]): Promise<readonly TableRecord[]> {
  const { tables: there } = await source.look(tables.map(({ oid }) => oid), null)
  return tables.filter((table) => !there.some((seen) => seen.oid === table.oid && sameTable(seen, table.source)))
}

/**
 * A table as it goes on with a new slot. Where its rows can be told apart it is compared with the source, and until then
 *
 * - an insert may meet a row of its key (`mayRepeat`), an update or delete may miss its row (`isPartial`);
 * - a row that moves to another key takes its unchanged values from the source and not from the row here (`aheadUntilLsn`): what is old would be carried to where
 *   it has been compared already.
 *
 * Rows without a key are read whole either way, and a copy that was under way begins anew. The storage of a table of another source is what it is there now (`schemas`): by its
 * transaction ids and oids all tables would seem to be rewritten, and what was done to it before is found by comparing.
 */
export function behindGap(known: TableRecord, { fromLsn, isSameSource, schemas }: LostSlot & { readonly schemas: readonly TableSchema[] }): TableRecord {
  if (known.state === 'removed') return known
  const record = isSameSource ? known : { ...known, storage: schemas.find(({ oid }) => oid === known.oid)?.storage ?? null }
  // What is kept of a stopped table's changes stands between its rows and the gap. It is worth keeping for a history alone: a copy is right at once.
  const keepsQuarantine = record.quarantine !== null && isSameSource && record.key.length > 0 && hasHistory(record)
  if (record.state === 'failed' && !keepsQuarantine) return { ...record, quarantine: null }
  const isCopying = (record.state === 'pending' || record.state === 'snapshotting') && !keepsQuarantine
  if (isCopying || isBeside(record) || record.key.length === 0) return copiedAnew(record)
  return { ...withoutCopy(record), gap: record.gap ?? { fromLsn: formatLsn(fromLsn) }, isPartial: true, mayRepeat: true, aheadUntilLsn: BEYOND_ALL_LSN }
}

/**
 * Can a slot that seems whole ({@link isSlotWhole}) be decoded? Not where its publication was made anew since: the stream looks it up as it was at each change.
 * Records tell of the former one until their table is copied again. Then the slot tells, unless a table is still to be compared, as an earlier attempt has left it: its slot came after
 * the publication. Where only another source stood in its place the stream tells, and `recover` is asked for again.
 */
export function canBeDecoded({ slot, publication, tables }: Pick<SourceInspection, 'slot' | 'publication' | 'tables'>, state: PipelineState, onlySourceDiffered: boolean): boolean {
  if (comparePublications(state.tables, tables) === 'other') return false
  const isOfRecovery = comparePublications(state.tables.filter(({ gap, copy }) => gap !== undefined && copy === null), tables) === 'same'
  return onlySourceDiffered || isOfRecovery || canKeepSlot({ slot, publication }, state.appliedLsn ?? ZERO_LSN)
}

/** The table once all its rows have been compared; `lsn` is past everything that has been read of it at the source. */
export function withoutGap({ gap: _gap, ...record }: TableRecord, lsn: Lsn): TableRecord {
  return record.aheadUntilLsn === BEYOND_ALL_LSN ? { ...record, aheadUntilLsn: formatLsn(lsn) } : record
}

/** What people should know of a recovery: `tables` as they were, `consistentPoint` of the slot that it goes on with. */
export function recoveryWarnings({ fromLsn, isSameSource, strangers }: LostSlot, tables: readonly TableRecord[], { consistentPoint, keepsSlot, snapshotMode }: { readonly consistentPoint: string; readonly keepsSlot: boolean; readonly snapshotMode: ReplicationSpec['snapshotMode'] }): readonly string[] {
  const live = tables.filter((table) => table.state !== 'removed' && !strangers.includes(table))
  const past = live.filter(keepsPast)
  const keyless = live.filter(({ key }) => key.length === 0)
  const since = isSameSource ? `between ${formatLsn(fromLsn)} and ${consistentPoint}` : 'since the former source was left'
  const missing = keepsSlot ? `nothing tells whether all came that was written before, so that` : `what was written at the source ${since} did not come, so that`
  return [
    `${keepsSlot ? `the slot of the source that has taken the former one's place is gone on with from ${consistentPoint}` : 'the slot was lost and made anew'}: ${missing} tables are compared with the source, and what differs is copied`,
    ...(snapshotMode === 'never' && live.length > 0 ? [`snapshotMode "never" does not count here: rows that were never brought to the destination are copied, too, as nothing tells them from lost ones`] : []),
    ...(past.length === 0 ? [] : [`${namesOf(past)}: ${keepsSlot ? `what is not at the destination by ${consistentPoint}` : 'what became of rows meanwhile'} is not in their history: each that differs has one change, of the time when it was compared or copied`]),
    ...(keyless.length === 0 ? [] : [`${namesOf(keyless)}: without a key rows cannot be told apart, so that all are copied anew`]),
    ...(strangers.length === 0 ? [] : [`${namesOf(strangers)}: this source has other tables in their place: rows of before stay, state removed, until a table of that name is copied`]),
  ]
}

function namesOf(tables: readonly TableRecord[]): string {
  return tables.map(({ source }) => tableKey(source)).join(', ')
}

function noKin({ databaseName }: SourceIdentity): DomainError {
  return new DomainError({
    kind: 'DifferentSource',
    message: `database ${databaseName} has none of the tables that the destination was filled from, by name and oid: there is nothing to compare`,
    remedy: 'Connect to the former source, or to one that was restored or promoted from it. Or start with "reset": true to copy everything from this one.',
  })
}

function pastIsAhead(tables: readonly TableRecord[], currentLsn: Lsn, fromLsn: Lsn): DomainError {
  return new DomainError({
    kind: 'InvalidInput',
    message: `the source was put back to an earlier state: its WAL ends at ${formatLsn(currentLsn)}, and ${namesOf(tables)} hold the past up to ${formatLsn(fromLsn)}, in the order of LSNs: what comes would stand before it`,
    remedy: 'Start with "reset": true (all tables are copied anew, the past they hold goes). Or take these tables out with the update removeTables (their rows stay), recover, and add them again.',
  })
}
