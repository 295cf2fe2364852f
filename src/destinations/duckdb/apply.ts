import { isBeside, nextGeneration, replacingOf, type ApplyResult, type Checkpoint, type ChunkPosition, type Fence, type RowLookup, type TableFailure, type TableRecord, type TargetColumn, unplannedCopy } from '../../model/destination.ts'
import { DomainError, reportOf } from '../../model/errors.ts'
import { formatLsn, maxLsn, parseLsn, ZERO_LSN } from '../../model/lsn.ts'
import { isAppendOnly, keepsPast, shapesOf } from '../../model/shapes.ts'
import { reloadName, tableKey, type TableName } from '../../model/table-schema.ts'
import { applyReadKeys, applyReadRows } from './apply-read.ts'
import { applyDeferred, applyRows, canGoStraight, type AppliedRows, type RowCounts } from './apply-rows.ts'
import { copiedLsn } from './chunk-stage.ts'
import { carryShapes } from './carry-shapes.ts'
import { checkFence, type DoneChunk, writeChunksDone, writeCounts, writeTable, writeTables } from './checkpoint.ts'
import { alteredColumns } from './columns.ts'
import { destinationError, type Database, type DatabaseSession } from './database.ts'
import { columnsOf } from './added-columns.ts'
import { type AlterMode, alterTable, createTables, dropTables, tablesOf, widenColumn } from './ddl.ts'
import type { DeferredRows } from './judged-rows.ts'
import { Misfits, TableRefused } from './misfits.ts'
import { leaveTable, renameTables, type Renaming } from './names.ts'
import { grownColumns } from './older-rows.ts'
import { type Attempted, isConversionError, retryWidened } from './retry-widened.ts'
import { isIdentity } from './retype.ts'
import { quoteName, quoteTable } from './sql.ts'
import type { RowsStep, Step, TableStage } from './steps.ts'
import { microsText } from './table-writer.ts'
import { truncateShape } from './truncate.ts'

/** What an applied batch leaves behind beside the result. */
export interface AppliedBatch extends ApplyResult {
  readonly deferred: readonly DeferredRows[]
}

/**
 * Applies a batch in one transaction: see {@link retryWidened} for values that do not fit.
 */
export async function applyStages(database: Database, fence: Fence, stages: readonly TableStage[], checkpoint: Checkpoint): Promise<AppliedBatch> {
  const refused = stages.flatMap(({ table, steps }): TableFailure[] => {
    const error = steps.find((step) => step.tag === 'fail')?.error
    return error === undefined || table.record.state === 'failed' ? [] : [{ oid: table.record.oid, error }]
  })
  if (refused.length > 0) return { tables: [], deferred: [], failures: refused }
  return retryWidened(database, { isCopy: false, stages }, async (attempted) => {
    if (attempted.failed.size > 0) return { tables: [], deferred: [], failures: [...attempted.failed].map(([oid, error]) => ({ oid, error })) }
    const work: Work = { ...attempted, fence, lookup: checkpoint.lookup }
    await checkFence(work.session, fence, checkpoint.appliedLsn)
    for (const record of checkpoint.records) await writeTable(work.session, fence, record, false)
    const renamed = await renameStaged(work, stages)
    const tables = new Map(renamed)
    const deferred: DeferredRows[] = []
    for (const stage of stages) {
      const { oid } = stage.table.record
      const applied = await applyStage(work, stage, tables.get(oid) ?? stage.table.record)
      tables.set(oid, applied.record)
      deferred.push(...applied.deferred)
    }
    return { tables: [...tables.values()], deferred, failures: [] }
  })
}

/** Names come first, see {@link renameTables}; of several of one table the last counts. */
async function renameStaged({ session, fence }: Work, stages: readonly TableStage[]): Promise<ReadonlyMap<number, TableRecord>> {
  const renamings = stages.flatMap(({ table: { record }, steps }): readonly Renaming[] => {
    const last = steps.findLast((step) => step.tag === 'rename')
    return last === undefined || record.state === 'removed' ? [] : [{ record, names: last.names }]
  })
  if (renamings.length === 0) return new Map()
  const { records, refused } = await renameTables(session, fence, renamings)
  for (const [oid, reason] of refused) throw new TableRefused(oid, reason)
  return records
}

/** A chunk that has been read, and what was set aside for it meanwhile. */
export interface ReadChunk {
  readonly stage: TableStage
  readonly chunk: ChunkPosition
  readonly aside: readonly DeferredRows[]
}

/** Applies chunks of copies of different tables, each with what was set aside for it, in one transaction. Returns the tables' records. */
export async function applyChunkStages(database: Database, fence: Fence, read: readonly ReadChunk[], lookup: RowLookup): Promise<readonly TableRecord[]> {
  return retryWidened(database, { isCopy: true, stages: read.map(({ stage }) => stage) }, async (attempted) => {
    const { session, failed } = attempted
    await checkFence(session, fence, null)
    const records: TableRecord[] = []
    const done: DoneChunk[] = []
    for (const { stage, chunk, aside } of read) {
      const { record } = stage.table
      const failure = failed.get(record.oid) ?? stage.steps.find((step) => step.tag === 'fail')?.error
      if (failure === undefined) {
        records.push(await applyChunkStage(attempted, { stage, chunk, aside }, lookup))
        done.push({ oid: record.oid, index: chunk.index, snapshot: chunk.snapshot, lsn: formatLsn(chunk.lsn) })
      } else records.push(failedBy(record, failure))
    }
    await writeTables(session, fence, records, false)
    await writeChunksDone(session, fence, done)
    return records
  })
}

async function applyChunkStage({ session, widened, onStep }: Attempted, { stage, chunk, aside }: ReadChunk, lookup: RowLookup): Promise<TableRecord> {
  let { record } = stage.table
  onStep({ stage, step: null, record })
  for (const column of widened.get(record.oid) ?? []) record = await widen(session, record, column)
  let rowCount = 0
  for (const step of stage.steps) {
    if (step.tag === 'widen') record = await widen(session, record, step.column)
    if (step.tag !== 'rows') continue
    onStep({ stage, step, record })
    if (chunk.replaces === true) {
      record = withCounts(record, await applyReadRows(session, step, record, intoOf(record), chunk))
      continue
    }
    rowCount += step.rowCount
    await applyRows(session, step, record, intoOf(record), lookup)
  }
  for (const deferred of aside) {
    onStep({ stage, step: null, record })
    record = withApplied(record, await applyDeferred(session, deferred, record, intoOf(record), lookup))
  }
  const done = { snapshot: chunk.snapshot, lsn: formatLsn(chunk.lsn) }
  const chunks = record.copy?.chunks.map((other, index) => (index === chunk.index ? { ...other, done } : other)) ?? []
  const isWhole = chunks.every((other) => other.done !== null)
  const time: readonly [string, string] = [String(copiedLsn(record, chunk)), microsText(chunk.timeMicros)]
  const copiedAt = keepsPast(record) && record.copy !== null && isBeside(record) ? { copiedAt: [...(record.copy.copiedAt ?? []), time] } : {}
  return {
    ...record,
    state: chunk.replaces === true ? record.state : isWhole ? 'streaming' : 'snapshotting',
    copy: record.copy === null ? null : { ...record.copy, chunks, ...copiedAt },
    counts: { ...record.counts, snapshotRows: record.counts.snapshotRows + rowCount },
  }
}

/** See {@link Destination.applyKeys}. The keys' stage is of a record that has the key's columns alone. */
export async function applyKeysStage(database: Database, fence: Fence, stage: TableStage, chunk: ChunkPosition, record: TableRecord): Promise<TableRecord | null> {
  // Such a key is in no row of the destination yet.
  if (stage.steps.some((step) => step.tag !== 'rows')) return null
  const steps = stage.steps.filter((step) => step.tag === 'rows')
  try {
    return await database.transaction(async (session) => {
      await checkFence(session, fence, null)
      const deletes = await applyReadKeys(session, steps, record, intoOf(record), chunk)
      const counted = withCounts(record, { inserts: 0, updates: 0, deletes })
      await writeTable(session, fence, counted, false)
      return counted
    })
  } catch (error) {
    if (isConversionError(error)) return null
    throw destinationError(error, `cannot compare the keys of ${tableKey(record.source)}`)
  }
}

/** The record of a table that has stopped. */
export function failedBy(record: TableRecord, failure: DomainError): TableRecord {
  return { ...record, state: 'failed', error: reportOf(failure) }
}

/** A table that fails in its copy is copied anew when it goes on (retryFailed). */
export async function failTable(session: DatabaseSession, fence: Fence, record: TableRecord, failure: DomainError): Promise<TableRecord> {
  const stopped = failedBy(record, failure)
  await writeTable(session, fence, stopped, false)
  return stopped
}

interface AppliedStage {
  readonly record: TableRecord
  readonly deferred: readonly DeferredRows[]
}

/** What every step of an attempt has at hand. */
interface Work extends Attempted {
  readonly fence: Fence
  readonly lookup: RowLookup
}

async function applyStage(work: Work, stage: TableStage, before: TableRecord): Promise<AppliedStage> {
  const { session, fence, lookup } = work
  let record = before
  const deferred: DeferredRows[] = []
  const departure = stage.steps.find((step) => step.tag === 'remove')?.departure
  // A removed table's name may be another's already.
  if (before.state === 'removed' || (before.state === 'failed' && departure === undefined)) return { record, deferred }
  work.onStep({ stage, step: null, record })
  for (const column of work.widened.get(record.oid) ?? []) record = await widen(session, record, column)
  let mode: AlterMode = 'inPlace'
  const misfits = new Misfits(session)
  for (const step of stage.steps) {
    work.onStep({ stage, step, record })
    if (step.tag === 'rows') {
      // Judged by snapshots that do not count any more: the copy that began anew will see these rows.
      const isOfThisCopy = record.copy === null || record.copy.generation === step.generation
      if (!isOfThisCopy && (!step.isFiltered || !hasColumnsOf(record, step))) continue
      const applied = await applyRows(session, step, record, intoOf(record), lookup, misfits)
      deferred.push(...applied.deferred)
      record = withApplied(record, applied)
    } else record = await applyStep(work, step, { record, mode })
    if ((step.tag === 'truncate' && !step.isFiltered) || step.tag === 'replaceColumns') await misfits.clear()
    if (step.tag === 'truncate' || (step.tag === 'rows' && (record.isSoft === true || !canGoStraight(step, record)))) mode = 'rewrite'
  }
  await misfits.refuse(record)
  if (stage.lastCommitLsn > ZERO_LSN) record = { ...record, counts: { ...record.counts, lastCommitLsn: formatLsn(stage.lastCommitLsn) } }
  if (departure !== undefined) return { record: await leaveTable(session, fence, { ...record, departure }), deferred }
  if (record.columns === before.columns && record.copy === before.copy && record.aheadUntilLsn === before.aheadUntilLsn && record.unknownChanges === before.unknownChanges) await writeCounts(session, fence, [record])
  else await writeTable(session, fence, record, record.copy !== before.copy)
  return { record, deferred }
}

/** Rows of another shape came before the one that the copy has seen, so the copy sees them too. */
function hasColumnsOf(record: TableRecord, step: RowsStep): boolean {
  return step.columns.length === record.columns.length && step.columns.every(({ name }, index) => record.columns[index]?.name === name)
}

function withApplied(record: TableRecord, { counts, seenLsn, unknownChanges }: AppliedRows): TableRecord {
  const aheadLsn = maxLsn(seenLsn, parseLsn(record.aheadUntilLsn ?? formatLsn(ZERO_LSN)))
  const unknown = (record.unknownChanges ?? 0) + unknownChanges
  return { ...withCounts(record, counts), ...(aheadLsn === ZERO_LSN ? {} : { aheadUntilLsn: formatLsn(aheadLsn) }), ...(unknown === 0 ? {} : { unknownChanges: unknown }) }
}

function withCounts(record: TableRecord, { inserts, updates, deletes }: RowCounts): TableRecord {
  const { counts } = record
  return { ...record, counts: { ...counts, inserts: counts.inserts + inserts, updates: counts.updates + updates, deletes: counts.deletes + deletes } }
}

async function applyStep({ session, lookup }: Work, step: Exclude<Step, RowsStep>, table: { readonly record: TableRecord; readonly mode: AlterMode }): Promise<TableRecord> {
  const { record, mode } = table
  session.watches.void(record.target)
  switch (step.tag) {
    case 'truncate':
      return applyTruncate(session, step, table, lookup)
    case 'widen':
      return widen(session, record, step.column)
    case 'alter': {
      const altered = alteredColumns(record.columns, step.change, record)
      // A history holds what was sent.
      const { columns, values } = await grownColumns(session, altered, keepsPast(record) ? [] : step.change.added)
      for (const shape of tablesOf(record)) await alterTable(session, shape, { before: record.columns, after: columns, values, mode })
      return { ...record, columns, key: step.change.key }
    }
    case 'replaceColumns':
      return restartCopy(session, record, mode, step)
    case 'rename':
    case 'remove':
    case 'fail':
      return record
    default:
      return step satisfies never
  }
}

/**
 * The table's columns are others: its copy begins anew in empty tables of these columns, beside the rows that readers see already; what a copy cannot
 * bring back gets the columns too.
 */
export async function restartCopy(
  session: DatabaseSession,
  record: TableRecord,
  mode: AlterMode,
  shape: Pick<TableRecord, 'columns' | 'key' | 'storage'>,
): Promise<TableRecord> {
  const isFirstLoad = record.state !== 'streaming' && record.quarantine === null && tableKey(intoOf(record)) === tableKey(record.target)
  const taken = isBeside(record) ? replacingOf(record) : {}
  const into = isFirstLoad ? record.target : reloadName(record.target)
  const isKept = keepsPast(record) && !isFirstLoad && taken.isReplacing !== true
  const replaced: TableRecord = {
    ...record,
    columns: isKept ? await carryShapes(session, record, shape.columns, mode) : shape.columns,
    key: shape.key,
    storage: shape.storage,
    state: 'pending',
    copy: { ...unplannedCopy({ generation: nextGeneration(record), into }), ...taken },
    // The copy will see what was kept, too.
    quarantine: null,
  }
  await dropTables(session, into, replaced)
  await createTables(session, into, replaced)
  return replaced
}

/** Where changes go: the table itself, or the one beside it that a reload fills and that will replace it. */
function intoOf(record: TableRecord): TableName {
  return record.copy?.into ?? record.target
}

/** As text, floats in a list may have other digits than the source's text of them: rows could not be found by it any more. */
function notFound({ source }: TableRecord, { name, type }: TargetColumn): DomainError {
  return new DomainError({
    kind: 'UnrepresentableValue',
    message: `${tableKey(source)}: a value of column ${quoteName(name)} does not fit ${type}, and rows are told apart by that column`,
    remedy: 'stop, and start with the hint "VARCHAR" for it in columns: the table is copied anew with it',
  })
}

async function widen(session: DatabaseSession, record: TableRecord, columnName: string): Promise<TableRecord> {
  const column = record.columns.find(({ name }) => name === columnName)
  if (column === undefined || column.type === 'VARCHAR') return record
  if (!isAppendOnly(record) && isIdentity(record, columnName) && (column.type === 'FLOAT[]' || column.type === 'DOUBLE[]')) throw new TableRefused(record.oid, notFound(record, column))
  for (const { kind, table } of tablesOf(record)) if (columnsOf(kind, [column]).length > 0) await widenColumn(session, table, column)
  return { ...record, columns: record.columns.map((other) => (other.name === columnName ? { ...other, type: 'VARCHAR', widenedFrom: column.type } : other)) }
}

/**
 * TRUNCATE of a table that is being copied: chunks that saw it are right already. Where all others were copied before it, their rows go;
 * where some are still to be copied, the copy begins anew (what it will see is short, and comes after the TRUNCATE).
 */
async function applyTruncate(session: DatabaseSession, step: Extract<Step, { tag: 'truncate' }>, { record, mode }: { readonly record: TableRecord; readonly mode: AlterMode }, lookup: RowLookup): Promise<TableRecord> {
  const chunks = record.copy?.chunks ?? []
  const verdicts = new Set(step.isFiltered ? chunks.map((_, index) => lookup.judge(record, index, step.transaction.xid)) : ['apply'])
  const isSeen = verdicts.size > 0 && [...verdicts].every((verdict) => verdict === 'skip') && chunks.every(({ done }) => done !== null)
  if (step.isFiltered && isSeen) return record
  const counted = { ...record, counts: { ...record.counts, truncates: record.counts.truncates + 1 } }
  const shapes = shapesOf(record, intoOf(record))
  const isWhole = !step.isFiltered || (verdicts.size === 1 && verdicts.has('apply')) || record.copy === null
  if (isAppendOnly(record) && !verdicts.has('apply')) return record
  if (isWhole || isAppendOnly(record)) {
    for (const shape of shapes) await truncateShape(session, shape, step)
    return counted
  }
  if (keepsPast(record)) return restartCopy(session, counted, mode, record)
  for (const { table } of shapes) await session.run(`DELETE FROM ${quoteTable(table)}`)
  // The copy will see what was kept, too.
  return { ...counted, state: 'pending', copy: { ...record.copy, generation: nextGeneration(record), chunks: [{ lower: null, upper: null, done: null }] }, quarantine: null }
}
