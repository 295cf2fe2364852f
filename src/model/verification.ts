import type { DifferenceKind } from './comparison.ts'
import type { ReplicationSpec } from './spec.ts'

/** Differences that are named of each table; all are counted. */
export const NAMED_DIFFERENCES = 20

export interface VerifyRequest {
  readonly spec: ReplicationSpec
  /** Puts the source's rows in the place of those that differ. */
  readonly repair: boolean
  /** Rows that are read at the source, on average; null = as fast as it goes. */
  readonly maxRowsPerSecond: number | null
  /** Where an earlier call with the same request has come; null = from the beginning. */
  readonly progress: VerifyProgress | null
  readonly maxMs: number
}

export interface VerifyResult {
  readonly ended: 'done' | 'time' | 'aborted'
  readonly progress: VerifyProgress
}

/** What has been compared so far, and where it goes on. JSON-safe; of rows it has the keys of some that differ, and the key that was reached. */
export interface VerifyProgress {
  /** The last snapshot's LSN; null before the first. */
  readonly lsn: string | null
  /** Finished tables and the running one, by `schema.table`. */
  readonly tables: Readonly<Record<string, VerifiedTable>>
  /** The first differences of each table that has any. */
  readonly differences: Readonly<Record<string, readonly NamedDifference[]>>
  /** Tables that could not be compared, and why. */
  readonly notCompared: Readonly<Record<string, string>>
  readonly warnings: readonly string[]
  /** Oids of tables that nothing is left to do of. */
  readonly done: readonly number[]
  /** The table that is being compared, and the last key that has been; null = it begins. */
  readonly current: { readonly oid: number; readonly afterKey: readonly string[] | null } | null
}

/** Rows of one table. */
export interface VerifiedTable {
  /** Rows of the source that were compared. */
  readonly compared: number
  /** Rows that differ. */
  readonly different: number
  /** Of these, those that were put right. */
  readonly repaired: number
  /** Rows that were changed each time while they were looked at, so that nobody knows whether they differ; absent = none. */
  readonly undecided?: number
}

/** A row that differs, by its key and never by its values; null = the table has no key. */
export interface NamedDifference {
  readonly kind: DifferenceKind
  readonly key: readonly (string | null)[] | null
}

export const NOTHING_VERIFIED: VerifyProgress = { lsn: null, tables: {}, differences: {}, notCompared: {}, warnings: [], done: [], current: null }
