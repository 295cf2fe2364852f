import type { BinaryRows } from './binary-rows.ts'
import type { ChangeHandler, TupleView } from './change.ts'
import type { DelimitedText, Lines } from './delimited-text.ts'
import type { Lsn } from './lsn.ts'
import type { Snapshot } from './snapshot.ts'
import type { PublishedOperation } from './spec.ts'
import type { SourceColumn, TableName, TableSchema, TableStorage } from './table-schema.ts'

/**
 * # The source contract
 *
 * A source is one PostgreSQL database seen through one replication slot. It promises:
 *
 * - the stream gives every transaction that committed after the start position, whole, in commit order, each with the commit
 *   record's LSN; it may give again what was confirmed or applied before (the consumer skips by commit LSN);
 * - nothing is confirmed to the slot but what the consumer passed to {@link ReplicationStream.confirm};
 * - a copy sees exactly the transactions that its {@link Snapshot} names, so that a streamed transaction is either in the copy
 *   or not, never half (facts 10);
 * - text of copy and stream comes from the same type output functions under the same pinned session settings (facts 11);
 * - every error is a `DomainError`, and holds neither row values nor credentials.
 */
export interface SourceIdentity {
  /** `pg_control_system().system_identifier`, decimal text. */
  readonly systemIdentifier: string
  readonly timeline: number
  readonly databaseName: string
  /** `server_version_num`, e.g. 180004. */
  readonly serverVersion: number
}

/** What the slot and the server say of themselves. */
export interface SourceHealth {
  /** `pg_current_wal_lsn()` (the replay position on a standby). */
  readonly currentLsn: Lsn
  /**
   * Past every commit that anybody has been told of: with `synchronous_commit = off` a transaction is visible before its commit
   * record is written.
   */
  readonly committedLsn: Lsn
  /** `max_slot_wal_keep_size`; null = there is no bound. */
  readonly maxSlotWalKeepBytes: number | null
  /** `idle_replication_slot_timeout` (18+): a slot that nobody uses for so long is given up; null = there is none. */
  readonly idleSlotTimeoutSeconds: number | null
  readonly slot: SlotState | null
}

export interface SlotState {
  readonly confirmedFlushLsn: Lsn | null
  readonly restartLsn: Lsn | null
  readonly isActive: boolean
  readonly activePid: number | null
  readonly plugin: string
  readonly database: string
  /** `reserved`, `extended`, `unreserved`, `lost`, or null. */
  readonly walStatus: string | null
  /** Bytes of WAL that the slot holds back. */
  readonly retainedWalBytes: number | null
  /** Bytes of WAL that may still be written before the server gives the slot up, below 0 where it may at any moment; null where there is no bound. */
  readonly safeWalBytes: number | null
  /** For how long nobody has used it; null where somebody does, and where the server does not tell (before 17). */
  readonly idleSeconds: number | null
}

export interface StreamOptions {
  readonly slotName: string
  readonly publicationName: string
  /** Transactions whose commit LSN is at or past it are sent (exactly as stored: facts 1). */
  readonly startLsn: Lsn
  readonly handler: ChangeHandler
  /**
   * A local folder, made when needed: there what comes early of large transactions in progress is kept until they commit. The handler is given
   * each as a whole, at its commit, either way. Null: the server keeps them.
   */
  readonly stagingFolder: string | null
  /**
   * The server's write position when nothing is left to send before it (facts 4). It may be confirmed only when nothing
   * received is unapplied.
   */
  readonly onKeepalive: (walEnd: Lsn) => void
  /** Gives up opening (waiting for the slot included) with its reason. An open stream is ended by `close()`. */
  readonly signal?: AbortSignal
}

export interface ReplicationStream {
  /** Tells the slot that everything before `flushLsn` is durable at the destination. Monotonic; smaller values are ignored. */
  confirm(flushLsn: Lsn): void
  /** What was last confirmed to the server on this connection; null before the first. */
  readonly confirmedLsn: Lsn | null
  /** From now on no callback is called, and nothing is read from the socket (backpressure). Status updates go on. */
  pause(): void
  /** Delivers what was held back, then reads on. */
  resume(): void
  /** Asks the server for its position now; it comes by `onKeepalive`. */
  requestKeepalive(): void
  /** Resolves after `close()`; rejects with a `DomainError` when the connection or the decoding fails. */
  readonly ended: Promise<void>
  /** Sends the last confirmation, ends the connection and waits until the server let go of the slot (bounded). Idempotent. */
  close(): Promise<void>
}

/**
 * A range of a table's rows by key, `lower < key ≤ upper`, as the text of the key columns; null = open.
 * A table without a key has one range, open at both ends.
 */
export interface KeyRange {
  readonly lower: readonly string[] | null
  readonly upper: readonly string[] | null
}

export interface PlanRequest {
  readonly targetRows: number
  /** As in {@link ChunkRequest}. */
  readonly hasColumnList: boolean
}

export interface CopyPlan {
  readonly tag: 'plan'
  readonly ranges: readonly KeyRange[]
  readonly estimatedRows: number
}

/** A table that is small enough to be one range. */
export interface SmallTable {
  readonly byteCount: number
  /** As of the last ANALYZE; 0 = never. */
  readonly estimatedRows: number
}

export interface ChunkRequest {
  readonly range: KeyRange
  /** True where the input names the table's columns: then others may come without changing its shape. */
  readonly hasColumnList: boolean
  /** Only row versions that this transaction (64 bits, with epoch) or a later one wrote, by `xmin`; absent = all. */
  readonly sinceXid?: bigint
  /** Only rows with these keys (text of the key columns); absent = all. */
  readonly keys?: readonly (readonly string[])[]
}

/** The copy cannot begin: the table has other columns or another key by now (null = it is not published, or not there, any more). */
export interface ChangedTable {
  readonly tag: 'changed'
  readonly table: TableSchema | null
}

/** One running copy: its snapshot is known before the first row. */
export interface ChunkCopy {
  readonly tag: 'copy'
  readonly snapshot: Snapshot
  /** `pg_current_snapshot()` text, for storing. */
  readonly snapshotText: string
  /** Read after the snapshot was taken: every transaction that the snapshot sees committed before it. */
  readonly snapshotLsn: Lsn
  /** When the snapshot was taken, microseconds after Unix's epoch by the source's clock. */
  readonly snapshotTimeMicros: bigint
  /**
   * Runs a COPY; `onRow` is called for every row with a reused tuple whose cells stand in the order of `table.columns`.
   * Resolves with the row count; pauses the connection while a promise that `onRow` returned is pending.
   */
  rows(onRow: (tuple: TupleView) => Promise<void> | undefined): Promise<number>
  /** The same as lines that the server itself writes, many at a time: several times cheaper than {@link rows}. */
  lines(format: DelimitedText, onLines: (lines: Lines) => void): Promise<number>
  /** The same in binary form, many at a time: cheaper still, for the server too. Another of these may follow when one is done: of the same rows, in any order. */
  binaryRows(onRows: (rows: BinaryRows) => void): Promise<number>
  /** Ends the transaction and gives the connection back. Idempotent. */
  close(): Promise<void>
}

/** A table's rows as they were at a slot's consistent point, kept in a table of the source (`snapshotMode: "persisted"`). */
export interface KeptSnapshot {
  readonly oid: number
  readonly name: TableName
  /** The table that it is a snapshot of. */
  readonly tableOid: number
  /** The consistent point: everything that committed before it is in the snapshot, and nothing else is. */
  readonly lsn: Lsn
  /** `pg_current_snapshot()` text. */
  readonly snapshotText: string
  readonly timeMicros: bigint
  readonly rowCount: number
  readonly blockCount: number
}

/** The catalog's word on replicated tables, all of one instant. */
export interface CatalogLook {
  /** Past every commit that the look sees. */
  readonly lsn: Lsn
  /** Those of the tables asked about that are there. */
  readonly tables: readonly SeenTable[]
  /** Tables of the whole schema that the publication sends and nobody asked about, tables of extensions left out. */
  readonly newcomers: readonly number[]
  /** What the publication sends of its tables, whoever made it; none where it is gone. */
  readonly operations: readonly PublishedOperation[]
}

/** What tells columns apart: their attribute numbers, and what a Relation message shows of them. */
export type SeenColumn = Pick<SourceColumn, 'attributeNumber' | 'name' | 'typeOid' | 'typeModifier'>

export interface SeenTable extends TableName {
  readonly oid: number
  readonly isPublished: boolean
  readonly storage: TableStorage
  readonly columns: readonly SeenColumn[]
}

/** Rows as they are at the source now, which may be ahead of the stream. */
export interface PresentRows {
  /** Text of the columns that were asked for; absent rows are left out. */
  readonly rows: readonly (readonly (string | null)[])[]
  /** Past every commit that they show. */
  readonly lsn: Lsn
}

/** Called after some seconds in which transactions were waited for, and every few again, with whom: backends by pid, and prepared transactions (which have none) by their global identifier. */
export type OnWaiting = (pids: readonly number[], preparedTransactions: readonly string[]) => void

export interface TransactionsWait {
  readonly onWaiting: OnWaiting
  /** Called with the present snapshot each time that it has been looked at. */
  readonly onSnapshot: (snapshot: Snapshot) => void
  /** Others have waited for them before: who it is is told at once. */
  readonly hasWaited: boolean
  /** Aborting rejects with its reason. */
  readonly signal: AbortSignal
}

/** What the engine needs of a source. */
export interface Source {
  identify(): Promise<SourceIdentity>
  health(slotName: string): Promise<SourceHealth>
  openStream(options: StreamOptions): Promise<ReplicationStream>
  /**
   * The tables of the publication as the catalog has them now, columns limited to the publication's lists. For a relation that
   * appears in the stream and for schema changes.
   */
  describeTables(oids: readonly number[]): Promise<readonly TableSchema[]>
  /** Looks at tables in the catalog; `wholeSchema` (null = none) names the schema whose further tables are wanted too. Cheap. */
  look(oids: readonly number[], wholeSchema: string | null): Promise<CatalogLook>
  /**
   * Do a table's rows tell that ALTER TABLE has not written them anew since `horizon` (`TableStorage`)? One of them is older, or the table's file is that of the transaction
   * `truncatedBy` (null = none is known), whose TRUNCATE the stream has brought. False = they do not, or may not be read. Only the table's first and last blocks are looked at.
   */
  hasSentRows(table: TableName, since: { readonly horizon: string; readonly truncatedBy: number | null }): Promise<boolean>
  /** A snapshot of now, which lists every transaction that has been given an id and has not ended. */
  readSnapshot(): Promise<Snapshot>
  /**
   * Waits until these transactions (64-bit ids) have ended; those of other databases are not waited for. After those have ended that ran when a table was published (facts
   * 10a), no write to it can be missing from both copy and stream.
   */
  waitForTransactions(ids: ReadonlySet<bigint>, wait: TransactionsWait): Promise<void>
  /**
   * Waits until every transaction has ended that had written to the table when it was called, one whose commit waits for a synchronous standby included: what the
   * stream has brought by then is visible to all snapshots that are taken afterwards.
   */
  waitForWriters(table: TableSchema, onWaiting: OnWaiting, signal: AbortSignal): Promise<void>
  /**
   * Has the server flush soon what is in its WAL by now: the stream ends where that ends, and on an idle server what was written behind the last commit (reading
   * writes too, where it tidies up pages) may wait for a quarter of a minute. Does nothing on a standby.
   */
  flushWal(): Promise<void>
  /** Key ranges of about `targetRows` rows each, in key order, covering everything. */
  planChunks(table: TableSchema, request: PlanRequest): Promise<CopyPlan | ChangedTable>
  /** Of these tables those, by oid, that hold no more rows than one range of `targetRows` may, whatever they are: by their sizes, in one look. */
  findSmallTables(oids: readonly number[], targetRows: number): Promise<ReadonlyMap<number, SmallTable>>
  /**
   * Begins a REPEATABLE READ transaction on a connection of its own and takes its snapshot, in which the table has the very columns and
   * the key that it is asked for: they cannot change while it lasts.
   */
  beginCopy(table: TableSchema, request: ChunkRequest, signal: AbortSignal): Promise<ChunkCopy | ChangedTable>
  /** The snapshots that are kept for a slot. */
  listSnapshots(slotName: string): Promise<readonly KeptSnapshot[]>
  /**
   * Begins to read a kept snapshot, of a table in the shape in which it is asked for; `range` is in blocks. Null where the snapshot is of another shape, is gone, or
   * was emptied by a crash of the server.
   */
  beginSnapshotRead(snapshot: KeptSnapshot, request: { readonly table: TableSchema; readonly range: KeyRange; readonly signal: AbortSignal }): Promise<ChunkCopy | null>
  /** Idempotent. */
  dropSnapshots(snapshots: readonly KeptSnapshot[]): Promise<void>
  /** For each key (text of the key columns), the index of its range in `ranges`: asked of the source, whose collation decides. */
  locateKeys(table: TableSchema, ranges: readonly KeyRange[], keys: readonly (readonly string[])[]): Promise<readonly number[]>
  /** Reads `columns` of the rows with these keys. For TOAST values nobody has. */
  readRows(table: TableSchema, keys: readonly (readonly string[])[], columns: readonly string[]): Promise<PresentRows>
  /** Closes pooled connections. */
  close(): Promise<void>
}
