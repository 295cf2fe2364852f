import { nextGeneration, replacingOf, type TableRecord, unplannedCopy } from '../model/destination.ts'
import { DomainError, type ErrorKind, reportOf } from '../model/errors.ts'
import { hasHistory } from '../model/shapes.ts'
import { reloadName, tableKey, type TableStorage } from '../model/table-schema.ts'
import { isRewritten } from '../pipeline/storage-diff.ts'
import { namedTables } from './named-tables.ts'
import { Spools } from './spools.ts'
import { approvalOfStop, withoutPending } from './schema-approval.ts'

/** Which tables are meant: null = every failed one; names are spelled as users do. */
export interface RetryOrder {
  readonly tableNames: readonly string[] | null
  /** Schema of names that carry none. */
  readonly schemaName: string
}

/**
 * The failed tables among `tables` that are told to go on. Throws `InvalidInput`, before anything is changed, where a table is named
 * that is not replicated, or that has not failed. One that goes on already is no mistake: the order may have been carried out by an
 * attempt whose answer was lost.
 */
export function tablesToRetry(tables: readonly TableRecord[], { tableNames, schemaName }: RetryOrder): readonly TableRecord[] {
  if (tableNames === null) return tables.filter(({ state }) => state === 'failed')
  const named = namedTables(tables, tableNames, schemaName)
  for (const { source, state } of named) {
    if (state !== 'streaming' && state !== 'removed') continue
    throw new DomainError({
      kind: 'InvalidInput',
      message: `table ${tableKey(source)} has not failed: its state is ${state}`,
      remedy: state === 'removed' ? 'start the replication with it in tableNames: it is copied anew' : 'leave it out; without tableNames, every failed table goes on',
    })
  }
  return named.filter(({ state }) => state === 'failed')
}

/**
 * A failed table as it goes on: with the changes that were kept since it stopped; where there are none, by a fresh copy beside the rows
 * that readers see until it is whole.
 */
export function toGoOn(record: TableRecord): TableRecord {
  return record.quarantine === null ? copiedAnew(record) : { ...withoutPending(record), state: 'pending', error: null }
}

/** A table that stops with `error`. */
export function stopped(record: TableRecord, error: DomainError): TableRecord {
  return { ...record, state: 'failed', error: reportOf(error), ...approvalOfStop(record, error) }
}

/** What a change at the source (a grant, another value) or another input mends. */
const MENDED_IN_PLACE: ReadonlySet<ErrorKind> = new Set(['PrivilegeMissing', 'UnrepresentableValue', 'SchemaChangeRefused'])

/**
 * Is it of any use to keep the changes of a table that stops with `error`? Where neither the source nor the input can mend it, they would
 * fail for ever, and a fresh copy is right at once; but a history cannot be copied.
 */
export function isWorthKeeping(record: TableRecord, error: DomainError): boolean {
  return hasHistory(record) || MENDED_IN_PLACE.has(error.kind)
}

/** A table that stops at a change of the stream: what comes of it from now on is kept, where that is of use. */
export function stoppedInStream(record: TableRecord, error: DomainError): TableRecord {
  const quarantine = record.state === 'streaming' && isWorthKeeping(record, error) ? { spool: Spools.newName(record.oid), startOffset: 0, endOffset: 0 } : null
  return { ...stopped(record, error), quarantine }
}

/**
 * A row without a key was not found, and rows have come or gone that the stream does not send (`now` is the storage that the catalog shows): a partition that was attached brings rows
 * which are changed before anybody has looked at the catalog. Then the table is right once it is copied again, as it will be, and does not have to stop.
 */
export function missesUnsentRows(record: TableRecord, error: DomainError, now: TableStorage | undefined): boolean {
  const isOfRows = error.kind === 'DestinationFailed' && record.key.length === 0 && !hasHistory(record)
  return isOfRows && record.state === 'streaming' && record.storage !== null && now !== undefined && isRewritten(record.storage, now)
}

/** A table that begins anew, by a copy beside the rows that readers see until it is whole. */
export function copiedAnew(record: TableRecord): TableRecord {
  const isFirstLoad = record.copy !== null && tableKey(record.copy.into) === tableKey(record.target) && record.copy.chunks.some(({ done }) => done === null)
  const into = isFirstLoad ? record.target : reloadName(record.target)
  return {
    ...withoutPending(record),
    state: 'pending',
    error: null,
    quarantine: null,
    copy: { ...unplannedCopy({ generation: nextGeneration(record), into }), ...replacingOf(record) },
  }
}
