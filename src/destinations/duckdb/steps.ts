import type { BatchTable, ColumnsChange, Departure, TableNames, TargetColumn, TransactionContext } from '../../model/destination.ts'
import type { DomainError } from '../../model/errors.ts'
import type { Lsn } from '../../model/lsn.ts'
import type { TableStorage } from '../../model/table-schema.ts'
import type { CellEncoding } from './cell-encoding.ts'

/**
 * What a staged row does. A key-changing update is `leave` and `arrive`, or `leave` and `move` where the new row takes unchanged
 * values from the old one.
 */
export const OP = { insert: 0x49, update: 0x55, delete: 0x44, leave: 0x58, arrive: 0x4e, move: 0x4d, snapshot: 0x53 } as const

/** Changes of one table that one set of statements applies: no TRUNCATE and no schema change in between. */
export interface RowsStep {
  readonly tag: 'rows'
  readonly path: string
  /** A Parquet file with the types that the columns have, or one of text? */
  readonly isParquet: boolean
  /** As they are when the step is staged; `type` tells how its cells are written. */
  readonly columns: TargetColumn[]
  readonly encodings: CellEncoding[]
  /** Column indexes of the row's identity; empty = the whole row. */
  readonly keyIndexes: readonly number[]
  /** Are rows staged with commit time and place in the transaction, for shapes that hold the past (`keepsPast`)? */
  readonly hasTimes: boolean
  readonly isFiltered: boolean
  /** Of the copy whose snapshots the rows were judged by; 0 = none. */
  readonly generation: number
  /** Of a copy's rows, as the source gave them: what all have in common, and none holds. */
  readonly common: TransactionContext | null
  /** Columns that some row leaves unchanged (facts 6). */
  readonly unchanged: Set<number>
  /** Columns with a value that does not fit, and the commit LSN of the first: see `misfits.ts`. */
  readonly misfits: Map<number, Lsn>
  /** Of these, the ones whose values DuckDB itself has to tell. */
  readonly tried: Set<number>
  /** Is there text that is no UTF-8? DuckDB must not read it. */
  hasInvalidText: boolean
  hasMoves: boolean
  /** Holds a row that is no new one. The counts do not tell: an update counts where its last row is, which may be in the next step. */
  hasChanges: boolean
  inserts: number
  updates: number
  deletes: number
  rowCount: number
  byteCount: number
  longestRowBytes: number
}

export type Step =
  | RowsStep
  | { readonly tag: 'truncate'; readonly transaction: TransactionContext; readonly sequence: number; readonly isFiltered: boolean }
  | { readonly tag: 'widen'; readonly column: string; readonly lsn: Lsn }
  | { readonly tag: 'alter'; readonly change: ColumnsChange }
  | { readonly tag: 'replaceColumns'; readonly columns: readonly TargetColumn[]; readonly key: readonly string[]; readonly storage: TableStorage | null }
  | { readonly tag: 'rename'; readonly names: TableNames }
  | { readonly tag: 'remove'; readonly departure: Departure }
  | { readonly tag: 'fail'; readonly error: DomainError }

export interface TableStage {
  readonly table: BatchTable
  readonly steps: Step[]
  lastCommitLsn: Lsn
}

/** The columns of a rows step's staging file: those of the change, then the table's own (`c0`, `c1`, …). */
export function stagingColumns(step: Pick<RowsStep, 'hasTimes' | 'isFiltered' | 'common' | 'encodings'>): readonly (readonly [name: string, type: string])[] {
  const values = step.encodings.map((encoding, index) => [`c${String(index)}`, encoding.csvType] as const)
  if (step.common !== null) return values
  return [
    ['lsn', 'UBIGINT'],
    ...(step.isFiltered ? ([['xid', 'UINTEGER']] as const) : []),
    ...(step.hasTimes ? ([['committed_at', 'TIMESTAMPTZ'], ['seq', 'BIGINT']] as const) : []),
    ['op', 'VARCHAR'],
    ['u', 'VARCHAR'],
    ...values,
  ]
}
