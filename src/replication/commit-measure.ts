import type { TableRecord } from '../model/destination.ts'
import type { CommitMeasure, TableGain } from '../model/replication.ts'
import type { ChangeCounts } from '../model/status.ts'

const NOTHING: ChangeCounts = { inserts: 0, updates: 0, deletes: 0, truncates: 0 }

/** Ends the measuring of a commit that is in force, with what it has brought. */
export type EndCommit = (tables: CommitMeasure['tables']) => CommitMeasure

/** Begins to measure a commit: its time is until the end is asked for. */
export function beginCommit(work: CommitMeasure['work'], { rowCount, byteCount }: Pick<CommitMeasure, 'rowCount' | 'byteCount'>): EndCommit {
  const startMs = performance.now()
  return (tables) => ({ tag: 'committed', work, durationMs: performance.now() - startMs, rowCount, byteCount, tables })
}

/** What a commit has brought to a table: its record as the commit has left it, and as it was before. */
export function gainOf({ counts }: TableRecord, before: TableRecord | null): TableGain {
  return {
    inserts: counts.inserts - (before?.counts.inserts ?? 0),
    updates: counts.updates - (before?.counts.updates ?? 0),
    deletes: counts.deletes - (before?.counts.deletes ?? 0),
    truncates: counts.truncates - (before?.counts.truncates ?? 0),
    copiedRows: counts.snapshotRows - (before?.counts.snapshotRows ?? 0),
  }
}

/** The gain of rows that were read and are not counted in their table's record. */
export function gainOfRows(copiedRows: number): TableGain {
  return { ...NOTHING, copiedRows }
}
