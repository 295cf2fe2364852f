/** Begins the comment by which the table of a kept snapshot is known, whatever its name (see kept-snapshots.ts). */
export const SNAPSHOT_MARK = 'temporal-pg-replication snapshot '
