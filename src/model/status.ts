import type { ErrorReport } from './errors.ts'

/** Phases of a `replicate` workflow (contract §4). */
export type Phase = 'initializing' | 'snapshotting' | 'streaming' | 'paused' | 'failed' | 'stopped'

/** States of one table. */
export const TABLE_STATES = ['pending', 'snapshotting', 'streaming', 'failed', 'removed'] as const

export type TableState = (typeof TABLE_STATES)[number]

/** How far the copy of a table has come, as its plan has it. */
export interface CopyProgress {
  /** Rows of the table when the copy was planned, as the source's statistics have it. */
  readonly estimatedRows: number
  /** Key ranges of about equal size, and how many of them are committed. */
  readonly ranges: number
  readonly rangesDone: number
}

/** Rows of one table since the beginning, counted in the destination's own transactions. JSON numbers. */
export interface TableStatus {
  readonly state: TableState
  readonly snapshotRows: number
  readonly inserts: number
  readonly updates: number
  readonly deletes: number
  readonly truncates: number
  /** LSN text of the last commit that wrote this table; null before the first. */
  readonly lastCommitLsn: string | null
  /** While it is copied by a plan; `snapshotRows` are the rows of this copy then. */
  readonly copying?: CopyProgress
  readonly error?: ErrorReport
}

/** What `query status`, every update and `cli status --json` answer. JSON-safe; LSNs are text, null where not known yet. */
export interface ReplicationStatus {
  /** ISO 8601: when the figures were taken. */
  readonly asOf: string
  readonly phase: Phase
  readonly slotName: string
  readonly publicationName: string
  /** Everything that committed at or before it is in the destination. */
  readonly appliedLsn: string | null
  readonly confirmedFlushLsn: string | null
  readonly sourceLsn: string | null
  readonly lagBytes: number | null
  readonly lagMs: number | null
  readonly retainedWalBytes: number | null
  readonly tables: Readonly<Record<string, TableStatus>>
  readonly warnings: readonly string[]
  readonly lastError?: ErrorReport
}

/** The part of the status that the data plane knows; the workflow adds the phase. */
export type ReplicationProgress = Omit<ReplicationStatus, 'phase' | 'slotName' | 'publicationName' | 'lastError'>

/** Changes of one table in one run of `syncChanges`. */
export interface ChangeCounts {
  readonly inserts: number
  readonly updates: number
  readonly deletes: number
  readonly truncates: number
}
