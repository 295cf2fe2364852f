import type { TableRecord } from '../model/destination.ts'
import { formatLsn, maxLsn, type Lsn } from '../model/lsn.ts'
import { withoutJoined } from '../model/settled-warnings.ts'
import type { SourceHealth } from '../model/source.ts'
import type { ReplicationProgress, TableStatus } from '../model/status.ts'
import { tableKey } from '../model/table-schema.ts'
import { isPending } from './schema-approval.ts'

/** What a session knows beside its table records. */
export interface ProgressFigures {
  readonly appliedLsn: Lsn
  readonly health: SourceHealth | null
  readonly lagMs: number | null
  readonly warnings: readonly string[]
}

/** The data plane's part of `status`. JSON-safe. */
export function progressOf(tables: readonly TableRecord[], figures: ProgressFigures): ReplicationProgress {
  const { appliedLsn, health, lagMs, warnings } = figures
  // The source was asked a moment ago; what came from it since is at least as new.
  const sourceLsn = health === null ? null : maxLsn(health.currentLsn, appliedLsn)
  const lagBytes = sourceLsn === null ? null : Number(sourceLsn > appliedLsn ? sourceLsn - appliedLsn : 0n)
  const confirmed = health?.slot?.confirmedFlushLsn ?? null
  const live = new Set(tables.filter(({ state }) => state !== 'removed').map(({ source }) => tableKey(source)))
  // The newest table of a name is what the name stands for.
  const shown = tables.filter(({ state, source }) => state !== 'removed' || !live.has(tableKey(source)))
  const statuses = Object.fromEntries(shown.map((table) => [tableKey(table.source), statusOf(table)]))
  return {
    asOf: new Date().toISOString(),
    appliedLsn: formatLsn(appliedLsn),
    confirmedFlushLsn: confirmed === null ? null : formatLsn(confirmed),
    sourceLsn: sourceLsn === null ? null : formatLsn(sourceLsn),
    lagBytes,
    lagMs: lagBytes === 0 ? 0 : lagMs,
    retainedWalBytes: health?.slot?.retainedWalBytes ?? null,
    tables: statuses,
    warnings: [...new Set([...withoutJoined(warnings, statuses), ...tables.flatMap(widenings), ...shown.flatMap(departures), ...shown.flatMap(gaps), ...shown.flatMap(unknownValues)])],
  }
}

function statusOf(table: TableRecord): TableStatus {
  const { counts, error, quarantine, gap } = table
  // What differs is still to be copied.
  const state = table.state === 'streaming' && gap !== undefined ? 'snapshotting' : table.state
  if (error === null) return { state, ...counts, ...copyingOf(table) }
  const update = isPending(table) ? 'approveSchemaChange' : 'retryFailed'
  const way = quarantine === null ? `The update ${update} then copies the table anew.` : `The update ${update} then goes on exactly where the table stopped.`
  return { state, ...counts, error: { ...error, remedy: `${error.remedy}\n${way}` } }
}

/** Nothing before the copy is planned, nor where the source has no estimate. */
function copyingOf({ state, copy }: TableRecord): Pick<TableStatus, 'copying'> {
  if (state !== 'snapshotting' || copy === null || copy.estimatedRows <= 0) return {}
  return { copying: { estimatedRows: copy.estimatedRows, ranges: copy.chunks.length, rangesDone: copy.chunks.filter(({ done }) => done !== null).length } }
}

/** Columns that hold text because a value did not fit the type that they were made with. */
function widenings(table: TableRecord): readonly string[] {
  return table.columns
    .filter((column) => column.widenedFrom !== undefined)
    .map(({ name, widenedFrom }) => `${tableKey(table.source)}: column ${JSON.stringify(name)} was widened from ${widenedFrom ?? ''} to VARCHAR to hold a value exactly`)
}

/** Tables that left by themselves. */
function departures({ state, source, departure }: TableRecord): readonly string[] {
  const name = tableKey(source)
  if (state !== 'removed' || departure === undefined) return []
  if (departure === 'dropped') return [`${name} was dropped at the source: its rows stay here; a new table of that name joins when a replication that names it is started`]
  return [`${name} is not in the publication any more: its rows stay here as they are; a start of a replication that names it publishes it again and copies it anew`]
}

/** Tables that may be older than the stream. */
function gaps({ state, source, gap }: TableRecord): readonly string[] {
  if (gap === undefined || state === 'removed') return []
  return [`${tableKey(source)}: changes behind ${gap.fromLsn} may be missing, and its rows older than the source's until they have been compared, and what differs copied (state snapshotting)`]
}

/** What the stream left out and nobody had any more. */
function unknownValues({ source, state, unknownChanges }: TableRecord): readonly string[] {
  if (unknownChanges === undefined || state === 'removed') return []
  const name = tableKey(source)
  return [`${name}: ${String(unknownChanges)} of its changes have NULL for a large value that the source left out, as they did not change it, and had no more when it was asked; with REPLICA IDENTITY FULL it sends them`]
}

/** Who has the transactions that are waited for, for people; a prepared one has no pid. */
export function transactionHolders(pids: readonly number[], preparedTransactions: readonly string[]): string {
  const sessions = pids.length === 0 ? [] : [`pids ${pids.join(', ')}`]
  const prepared = preparedTransactions.length === 0 ? [] : [`prepared transactions ${preparedTransactions.join(', ')}`]
  return [...sessions, ...prepared].join('; ')
}
