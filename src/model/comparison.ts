import type { TableRecord } from './destination.ts'
import type { Lsn } from './lsn.ts'
import type { ChunkStage } from './destination.ts'
import type { KeyRange } from './source.ts'

/**
 * # Comparing a table with its source, beside the stream
 *
 * Rows are read at the source in a snapshot S, then the destination is let to apply everything that committed before the LSN read after S, then both are
 * compared in one destination transaction. The destination is then ahead of S by the transactions that S does not see, so what differs is only **suspected**. What
 * follows decides, with no clock in it (docs/adr/0016-verification.md has the argument):
 *
 * watch the suspects (the destination notes which of them an apply touches) → wait until the transactions that were writing to the table have ended, so that
 * whatever the destination held when the watch began is visible from now on → read the suspects in a new snapshot S' → let the destination reach
 * it → a suspect that differs and has **not been touched** since the watch began is different: no transaction stands between S' and the destination's row.
 *
 * One object compares one table for one caller; nothing of it is durable.
 */
export interface TableComparison {
  /** The table as it was when the comparison began: it is compared in this very shape, or not at all (`changed`). */
  readonly table: TableRecord
  /** Can the destination tell its rows of a key range? Else the table is compared as a whole: no key, or one whose order is the source's alone. */
  readonly isRanged: boolean
  /** A staging area for rows of the source. The caller discards it. */
  newRows(): ChunkStage
  /** Compares the rows of a range; `rows` are all that the source has of it, `reachedLsn` is past their snapshots and has been applied. */
  compare(rows: readonly ChunkStage[], range: KeyRange, reachedLsn: Lsn): Promise<RangeComparison | TableChanged>
  /** The suspects of the last `compare`, from place `from` on. */
  suspects(from: number, count: number): Promise<readonly Suspect[]>
  /** From now on notes which of these are touched. One watch at a time; somebody else's of the same table finds all touched from now on. */
  watch(suspects: readonly Suspect[]): Promise<void>
  /** Of the watched suspects, those that differ; `rows` are all that the source has of them (of a table without a key: all rows that it has). */
  compareWatched(rows: ChunkStage, reachedLsn: Lsn): Promise<readonly Difference[] | TableChanged>
  /**
   * Tells which of `differences` have been touched since the watch began and, where it is asked for, puts the source's rows in the place of the others, all in
   * one transaction.
   */
  judge(differences: readonly Difference[], repair: Repair | null): Promise<Judgement | TableChanged>
  unwatch(): Promise<void>
  /** Lets go of everything. Idempotent. */
  close(): Promise<void>
}

/** The table has another shape by now, is being copied, has stopped or left; or rows of the source do not fit the columns that it has here. */
export interface TableChanged {
  readonly tag: 'changed'
  readonly reason: 'shape' | 'value'
}

export interface RangeComparison {
  readonly tag: 'compared'
  /** Rows of the source. */
  readonly rowCount: number
  readonly suspectCount: number
}

/** The text of a key's columns; of a table without a key, what tells a row's content from others. */
export type Suspect = readonly (string | null)[]

/** A suspect that differs. */
export interface Difference {
  /** Its place among those that are watched. */
  readonly place: number
  /** How many rows the source has of it. */
  readonly sourceRows: number
  /** How many the destination has, in each of the table's shapes that differ. */
  readonly shapes: readonly { readonly index: number; readonly rows: number }[]
}

export interface Repair {
  /** As for {@link TableComparison.compareWatched}. */
  readonly rows: ChunkStage
  /** When the source's rows were read. */
  readonly timeMicros: bigint
}

export interface Judgement {
  readonly tag: 'judged'
  /** Places that have been touched. */
  readonly touched: ReadonlySet<number>
  /** Of these, places whose row a change has given whole: it is what the stream says, whatever stood there before. None of a table without a key. */
  readonly overwritten: ReadonlySet<number>
}

/** What is wrong with a row, for people. */
export type DifferenceKind = 'missing' | 'extra' | 'changed' | 'duplicated'

/** Rows of the destination in the shape that is named by the most of them, told by counts. */
export function kindOf({ sourceRows, shapes }: Difference): DifferenceKind {
  const rows = Math.max(...shapes.map((shape) => shape.rows))
  // Of a content there may be several rows, and fewer here.
  if (shapes.some((shape) => shape.rows < sourceRows)) return 'missing'
  if (sourceRows === 0) return 'extra'
  return rows > sourceRows ? 'duplicated' : 'changed'
}
