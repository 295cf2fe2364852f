import type { TableRecord } from '../../model/destination.ts'
import { DomainError, isTableFault } from '../../model/errors.ts'
import { toLsn, ZERO_LSN } from '../../model/lsn.ts'
import { tableKey } from '../../model/table-schema.ts'
import { CellKind, valueOfText } from './cell-encoding.ts'
import { destinationError, type Database, type DatabaseSession } from './database.ts'
import { findInvalidText, markInvalidText } from './invalid-text.ts'
import { invalidText, mayBeReplaced, TableRefused, unrepresentable } from './misfits.ts'
import { readStaged } from './staged-rows.ts'
import { OP, stagingColumns, type RowsStep, type Step, type TableStage } from './steps.ts'
import { stagedAsText } from './type-mapping.ts'

/** Columns that a failed cast made VARCHAR while this batch was tried: by table oid. */
export type Widened = Map<number, Set<string>>

/** Tables that a value stopped while this batch was tried. */
export type Failed = Map<number, DomainError>

/** The step that a transaction is busy with: the place to look when a statement fails. */
export interface Attempt {
  readonly stage: TableStage
  /** Null for rows that were set aside: no file has them any more, so that no column can be blamed. */
  readonly step: Step | null
  readonly record: TableRecord
}

/** What an attempt has at hand. */
export interface Attempted {
  readonly session: DatabaseSession
  readonly widened: Widened
  readonly failed: Failed
  /** To be told each step before it is made. */
  readonly onStep: (attempt: Attempt) => void
}

/**
 * Runs `work` in one transaction. A cast that DuckDB refuses is traced to its column; the column is widened (or, when a hint pins it,
 * the table has failed) and the whole transaction is tried again, so that rows, state and checkpoint still come together. Any other
 * statement that can never work is a failure of its table alone, and so is a question about its rows that the source refuses.
 */
export async function retryWidened<T>(
  database: Database,
  { isCopy, stages }: { readonly isCopy: boolean; readonly stages: readonly TableStage[] },
  work: (attempted: Attempted) => Promise<T>,
): Promise<T> {
  const widened: Widened = new Map()
  const failed: Failed = new Map()
  for (const stage of stages) takeOutInvalidText(stage, isCopy, failed)
  for (;;) {
    let attempt: Attempt | null = null as Attempt | null
    try {
      return await database.transaction(async (session) => {
        const onStep = (busyWith: Attempt): void => {
          attempt = busyWith
        }
        const result = await work({ session, widened, failed, onStep })
        attempt = null
        return result
      })
    } catch (error) {
      if (error instanceof TableRefused) {
        failed.set(error.oid, error.reason)
        continue
      }
      // The source refuses to tell what the stream left out of this table's rows.
      if (attempt !== null && isTableFault(error) && !failed.has(attempt.record.oid)) {
        failed.set(attempt.record.oid, error)
        continue
      }
      if (attempt === null || error instanceof DomainError || isTransient(error)) throw destinationError(error, 'cannot write to the destination')
      const { step, record } = attempt
      if (step?.tag === 'rows' && isConversionError(error)) await blameColumn(database, { ...attempt, step, isCopy, widened, failed, cause: error })
      else if (failed.has(record.oid)) throw destinationError(error, `cannot apply changes of ${tableKey(record.source)}`)
      else failed.set(record.oid, destinationError(error, `cannot apply changes of ${tableKey(record.source)}`))
    }
  }
}

/**
 * Before DuckDB reads it: text that is no UTF-8 is an error in the best case, and where it stands in front of other cells DuckDB (1.5.5) fails in telling so
 * (`INTERNAL Error: Attempted to access index 6 within vector of size 4`), which invalidates the whole database.
 */
function takeOutInvalidText({ table: { record }, steps }: TableStage, isCopy: boolean, failed: Failed): void {
  for (const step of steps) {
    if (step.tag !== 'rows' || !step.hasInvalidText) continue
    for (const [index, lsn] of findInvalidText(step)) {
      const column = step.columns[index]
      if (column === undefined) throw new RangeError('a staged cell outside the columns')
      if (isCopy || !mayBeReplaced(step, OP.update, index)) {
        failed.set(record.oid, invalidText(record, column, lsn))
        return
      }
      step.misfits.set(index, lsn)
    }
    markInvalidText(step)
    step.hasInvalidText = false
  }
}

/** Errors of disk, memory, or of DuckDB itself: the same statement may work another time, or nothing works any more. */
export function isTransient(error: unknown): boolean {
  return !(error instanceof Error) || !/^(Conversion|Invalid Input|Out of Range|Catalog|Binder|Parser|Constraint|Mismatch Type|Not implemented)/.test(error.message)
}

export function isConversionError(error: unknown): boolean {
  return error instanceof Error && /^(Conversion|Invalid Input|Out of Range) Error/.test(error.message)
}

/** The commit LSN of a staged row. */
function lsnOf({ common }: RowsStep): string {
  return common === null ? 'lsn::UBIGINT' : `${String(common.commitLsn)}::UBIGINT`
}

/** Finds the column whose staged text DuckDB cannot cast, in a read of its own: the failed transaction is over. */
async function blameColumn(
  database: Database,
  { step, record, isCopy, widened, failed, cause }: Attempt & Pick<Attempted, 'widened' | 'failed'> & { readonly step: RowsStep; readonly isCopy: boolean; readonly cause: unknown },
): Promise<void> {
  const columns = stagingColumns(step).map(([name]) => [name, 'VARCHAR'] as const)
  const { index, lsn } = await database.exclusive(async (session) => {
    for (const [place, encoding] of step.encodings.entries()) {
      const name = `c${String(place)}`
      const [row] = await session.rows(`SELECT min(${lsnOf(step)})::VARCHAR FROM ${readStaged(step, columns)} WHERE ${name} IS NOT NULL AND ${valueOfText(encoding, name, 'TRY_CAST')} IS NULL`)
      if (typeof row?.[0] === 'string') return { index: place, lsn: toLsn(BigInt(row[0])) }
    }
    return { index: -1, lsn: ZERO_LSN }
  })
  const column = step.columns[index]
  const known = widened.get(record.oid) ?? new Set<string>()
  if (column === undefined || column.type === 'VARCHAR') throw destinationError(cause, `cannot apply changes of ${tableKey(record.source)}`)
  const encoding = step.encodings[index]
  if (encoding === undefined) return
  if (column.isPinned) {
    if (isCopy || !mayBeReplaced(step, OP.update, index)) {
      failed.set(record.oid, unrepresentable(record, column, lsn))
      return
    }
    step.misfits.set(index, lsn)
    step.tried.add(index)
    step.encodings[index] = { kind: CellKind.Text, csvType: 'VARCHAR', fromCsv: (csv) => valueOfText(encoding, csv, 'TRY_CAST') }
    return
  }
  widened.set(record.oid, known.add(column.name))
  // The staged text stays as it is; from now on it is read as text.
  step.encodings[index] = stagedAsText(encoding)
  step.columns[index] = { ...column, type: 'VARCHAR' }
}
