import type { BinaryRows } from './binary-rows.ts'
import type { TupleView } from './change.ts'
import type { TableComparison } from './comparison.ts'
import type { DelimitedText, Lines } from './delimited-text.ts'
import type { DomainError, ErrorReport } from './errors.ts'
import type { Lsn } from './lsn.ts'
import type { PresentRows, SourceIdentity } from './source.ts'
import { kindsOf, shapingIn, type Shaping } from './shapes.ts'
import type { ColumnHint } from './spec.ts'
import { type ReplicaIdentity, type SourceColumn, tableKey, type TableName, type TableSchema, type TableStorage } from './table-schema.ts'
import type { TableState } from './status.ts'

/**
 * # The destination contract
 *
 * A destination holds rows, table state and checkpoint, and owns the position (design.md, decision 1). It promises:
 *
 * - {@link Destination.applyBatch} and {@link Destination.applyChunks} are one destination transaction each: rows, schema change, table
 *   state and checkpoint become durable and visible together or not at all;
 * - such a transaction succeeds only while the pipeline's epoch is the one that was claimed (a zombie attempt fails with
 *   `AlreadyReplicating` and writes nothing);
 * - values are held exactly, or the column is widened, or the table is reported as failed (decision 8), and the others go on;
 * - tables that cannot go on are named by an apply, of which then nothing is in force; the same changes without those tables can be applied.
 */
export interface Destination {
  /** Random id, made with the destination; noted at the source (contract §4). */
  readonly id: string
  /** Rows of a copy that it takes best at once, about: what a crash repeats at most, and how long the stream's changes of them wait. */
  readonly chunkRows: number
  /** The pipeline's stored state; null before the first claim. */
  loadPipeline(key: PipelineKey): Promise<PipelineState | null>
  /**
   * Makes `owner` the owner and raises the epoch by one, all in one transaction. The caller has made sure that `formerOwner` is gone; anybody
   * else who came in between keeps it (`AlreadyReplicating`).
   */
  claim(key: PipelineKey, owner: string, formerOwner: string | null): Promise<PipelineState>
  /** Forgets the owner, if it still is `owner`. */
  release(key: PipelineKey, owner: string): Promise<void>
  /** Throws what `register` would refuse in these tables, and changes nothing. `startsAnew`: as if the pipeline had been dropped before. */
  check(key: PipelineKey, tables: readonly TableRegistration[], options: { readonly startsAnew: boolean }): Promise<void>
  /**
   * Writes identity and position, and creates the destination tables that are missing; existing records of the same oid stay. A table that
   * takes the name of one that is removed or gone is copied beside its rows; `append` history is moved aside. Returns the records of
   * the registered tables, then those of tables that had to give way.
   */
  register(fence: Fence, registration: Registration): Promise<readonly TableRecord[]>
  /** A local folder that belongs to this destination, where the pipeline's spools are kept. Not made by the destination. */
  spoolFolder(key: PipelineKey): string
  /** A staging area for the next batch. */
  newBatch(): Batch
  applyBatch(fence: Fence, batch: Batch, checkpoint: Checkpoint): Promise<ApplyResult>
  /** A staging area for one chunk of a copy. */
  newChunk(table: TableRecord, chunk: ChunkPosition): ChunkStage
  /**
   * Adds each chunk's rows, then the changes that were set aside for it, and notes it as copied; the chunks are of different tables. Returns their records, in
   * the same order.
   */
  applyChunks(fence: Fence, stages: readonly ChunkStage[], lookup: RowLookup): Promise<readonly TableRecord[]>
  /**
   * The rows whose keys are not among the staged ones are gone at the source: `merge` deletes them, `append` notes it. Null, and nothing is
   * changed, where a key does not fit its column: its row has come since, and has to be read first.
   */
  applyKeys(fence: Fence, table: TableRecord, keys: ChunkStage): Promise<TableRecord | null>
  /** Forgets what was set aside for a chunk whose copy failed (null = any chunk of the table): its next snapshot is later. */
  dropDeferred(oid: number, chunk: number | null): Promise<void>
  /** Tells what a change at the source would have it do, for people; nothing is changed. What rows hold is left out of it. */
  foresee(table: TableRecord, change: ForeseenChange): Promise<Foresight>
  /** Writes the plans of copies and makes the tables that they fill, empty. */
  prepareCopies(fence: Fence, tables: readonly TableRecord[]): Promise<void>
  /**
   * The table's shape is another: its copy begins anew in an empty table of that shape, beside the rows that readers see already. `InvalidInput` where the table cannot be
   * held in it (a hint does not fit, a name is ours).
   */
  restartCopy(fence: Fence, table: TableRecord, source: TableSchema): Promise<TableRecord>
  /** Tables leave because somebody ordered it: their rows stay, or go with the record; the amendment is noted with it, all in one transaction. */
  removeTables(fence: Fence, tables: readonly TableRecord[], order: { readonly dropsRows: boolean; readonly amendment: TableAmendment }): Promise<void>
  /** The table has left the replication, by itself or (null) because the input does not name it any more: see {@link Batch.remove}. */
  removeTable(fence: Fence, table: TableRecord, departure: Departure | null): Promise<TableRecord>
  /** Drops tables of the pipeline, and what is known of them. */
  dropTables(fence: Fence, tables: readonly TableRecord[]): Promise<void>
  /** Gives tables the names that they have at the source now, all at once; one whose name is a stranger's comes back as failed. Others that gave way come too. */
  renameTables(fence: Fence, renamings: readonly { readonly record: TableRecord; readonly names: TableNames }[]): Promise<readonly TableRecord[]>
  /** Writes table records that changed otherwise (state, error). */
  saveTables(fence: Fence, tables: readonly TableRecord[]): Promise<void>
  /** Moves the checkpoint alone, while idle. */
  saveCheckpoint(fence: Fence, appliedLsn: Lsn): Promise<void>
  /** Throws what `reshapeTables` would refuse, and changes nothing. */
  checkShapes(key: PipelineKey, reshapings: readonly Reshaping[]): Promise<void>
  /**
   * Tables are to be held in other shapes: their copies begin anew, beside what readers see until they are whole. A shape that a table has already keeps what it holds;
   * one that holds the past and is not wanted any more stays at the swap, under the name that is in `copy.former`. Returns the records.
   */
  reshapeTables(fence: Fence, reshapings: readonly Reshaping[]): Promise<readonly TableRecord[]>
  /** Puts the finished copy in the place of the table, in one transaction. */
  swapCopy(fence: Fence, table: TableRecord): Promise<TableRecord>
  /**
   * Ends the pipeline: its position goes, its tables stay as `removed`; or, when asked, tables and state go too. Returns the names of
   * what was dropped.
   */
  dropPipeline(key: PipelineKey, dropTables: boolean): Promise<readonly string[]>
  /** To compare a table that is `streaming` with its source, beside whoever writes it. */
  beginComparison(key: PipelineKey, table: TableRecord): Promise<TableComparison>
  /** Gives the handle back; the file is closed soon after the last one. */
  close(): Promise<void>
}

/** A pipeline is one slot of one configured source, or all that is read of it without one ({@link XMIN_PIPELINE}). */
export interface PipelineKey {
  readonly source: string
  readonly slotName: string
}

/** Stands for the slot in the pipeline of `syncByXmin`; no slot can have this name. */
export const XMIN_PIPELINE = '(xmin)'

/** A pipeline's name for people. */
export function pipelineName({ source, slotName }: PipelineKey): string {
  return slotName === XMIN_PIPELINE ? `syncByXmin of source ${source}` : `slot ${slotName} of source ${source}`
}

export interface Fence extends PipelineKey {
  readonly owner: string
  readonly epoch: number
}

export interface PipelineState {
  readonly key: PipelineKey
  readonly owner: string | null
  readonly epoch: number
  readonly identity: SourceIdentity | null
  readonly publicationName: string | null
  /** End LSN of the last applied transaction, or a later position at which nothing was missing; null before registration. */
  readonly appliedLsn: Lsn | null
  readonly tables: readonly TableRecord[]
  /** Null where no update has changed which tables are replicated. */
  readonly amendment: TableAmendment | null
}

/**
 * What updates changed of the tables that the input means. It counts for as long as an input means the same tables by itself; one that means
 * others is the newer word. JSON-safe.
 */
export interface TableAmendment {
  /** The input's own word: its `schemaName` and `tableNames` (null = the whole schema). */
  readonly schemaName: string
  readonly tableNames: readonly string[] | null
  readonly added: readonly KnownTable[]
  readonly removed: readonly KnownTable[]
}

/** A table under a name that it has or had. */
export interface KnownTable extends TableName {
  readonly oid: number
}

export interface Registration {
  readonly identity: SourceIdentity
  readonly publicationName: string
  /** Kept where the pipeline already has one, unless `replacesPosition`. */
  readonly appliedLsn: Lsn
  readonly replacesPosition: boolean
  readonly tables: readonly TableRegistration[]
  /** Tables that are gone from the source: a new one of such a name replaces its rows. */
  readonly gone: ReadonlySet<number>
  /** Left out = it stays as it is. */
  readonly amendment?: TableAmendment | null
}

export interface TableRegistration extends Shaping {
  readonly source: TableSchema
  /** Of the first shape; see `shapesOf` for the others'. */
  readonly target: TableName
  readonly hints: Readonly<Record<string, ColumnHint>>
  readonly hasColumnList: boolean
  /** True where rows of the source may be missing: not copied (`snapshotMode: never`), or not published. */
  readonly isPartial: boolean
  /** True where the source may insert a key that is here: its delete was not published, or the rows here are from before (`snapshotMode: never`). */
  readonly mayRepeat: boolean
  /** `streaming` where no copy is wanted (`snapshotMode: never`). */
  readonly initialState: 'pending' | 'streaming'
}

/** A destination column. `type` is the destination's own type text; `isPinned` = given by a user's hint, never widened. */
export interface TargetColumn extends SourceColumn {
  readonly type: string
  readonly isPinned: boolean
  /** The type that it had before a value did not fit it. */
  readonly widenedFrom?: string
  /** True once the source dropped it; it stays, NULL from then on. */
  readonly isDropped: boolean
}

/** A table that is to be held otherwise. */
export interface Reshaping {
  readonly record: TableRecord
  readonly shaping: Shaping
  /** What the input wants of the table: see {@link TableRecord.inputShaping}. */
  readonly inputShaping: Shaping
}

/** One replicated table as the destination knows it. JSON-safe but for nothing: it is stored as JSON. */
export interface TableRecord extends Shaping {
  readonly oid: number
  readonly source: TableName
  /** What the table was called at the source before, the latest first: an input may name it so. */
  readonly formerNames?: readonly TableName[]
  /** Of the first shape; see `shapesOf` for the others'. */
  readonly target: TableName
  /**
   * What the input wants, where an update has ordered other shapes: it counts for as long as the input wants the same. Absent = nothing has been ordered, or the
   * input wants it too.
   */
  readonly inputShaping?: Shaping
  readonly state: TableState
  readonly columns: readonly TargetColumn[]
  readonly key: readonly string[]
  readonly replicaIdentity: ReplicaIdentity
  readonly hints: Readonly<Record<string, ColumnHint>>
  /** True where `includeColumns` limits the table: columns that are added at the source stay out. */
  readonly hasColumnList: boolean
  /** As in {@link TableRegistration}. */
  readonly isPartial: boolean
  /** As in {@link TableRegistration}; absent = false. */
  readonly mayRepeat?: boolean
  /** The source's storage as it was not later than the rows were copied, or as last seen; null = not known. */
  readonly storage: TableStorage | null
  /**
   * LSN text: rows may hold values that were read at the source as it was just before it, where the stream left them out and nobody had them. Until the stream is
   * there they may be those of a row that has come to the key since. Absent = none.
   */
  readonly aheadUntilLsn?: string
  /** Changes, versions and marked rows that have NULL for a value that the stream left out and nobody had any more; absent = 0. */
  readonly unknownChanges?: number
  /**
   * What was written at the source from `fromLsn` (LSN text) on, and before the slot that is read now was made, did not come. The rows may be older than the
   * stream until they have been compared with the source. Absent = nothing is missing. The destination stores it and does not look at it.
   */
  readonly gap?: { readonly fromLsn: string }
  /** Why the table is `removed`, where it left by itself. */
  readonly departure?: Departure
  readonly copy: CopyRecord | null
  /** Of the last copy, once it is forgotten; absent = 0. */
  readonly lastGeneration?: number
  /** Changes that came since the table stopped; null = none are kept (it goes on by a fresh copy). */
  readonly quarantine: QuarantineRecord | null
  /** `schemaChanges: "ask"`; absent = nothing has been asked. The destination stores it and does not look at it. */
  readonly approval?: SchemaApproval
  readonly counts: TableCounts
  readonly error: ErrorReport | null
  /** Of a table that is read without a slot. The destination stores it and does not look at it. */
  readonly xmin?: XminProgress
}

/** How far a table has been read by `xmin`. */
export interface XminProgress {
  /** What transactions before this one (64 bits with epoch, decimal) wrote is here; null = nothing has been read whole yet. */
  readonly watermark: string | null
  /** The source that the watermark counts in. */
  readonly identity: Pick<SourceIdentity, 'systemIdentifier' | 'timeline' | 'databaseName'>
  /** The run that works on it, or did so last, and the rows that it has taken. */
  readonly run: { readonly id: string; readonly rows: number }
  /** The run that planned the newest pass over the table; null before the first. */
  readonly plannedBy: string | null
}

/** How a table left the replication: it was dropped at the source, or taken out of the publication. */
export type Departure = 'dropped' | 'unpublished'

export interface TableCounts {
  readonly snapshotRows: number
  readonly inserts: number
  readonly updates: number
  readonly deletes: number
  readonly truncates: number
  /** LSN text. */
  readonly lastCommitLsn: string | null
}

/**
 * Where a stopped table's changes are kept, from the place on where it stopped. A table that has one is `failed`, or `pending` while these
 * changes are being applied. The destination stores it and does not look at it.
 */
export interface QuarantineRecord {
  /** Its file's name in the pipeline's spool folder. */
  readonly spool: string
  /** What lies before it is in the table. Offsets stand between two transactions. */
  readonly startOffset: number
  /** What lies behind it was not committed: the slot sends it again. */
  readonly endOffset: number
}

/** What an operator has been asked of a table's changes at the source. Changes are told apart by fingerprints. */
export interface SchemaApproval {
  /** The change that the table stopped at, and that waits for an answer; null = none does. */
  readonly pending: string | null
  /** Changes that may be made when they are met, each once: forgotten in the transaction that makes it. */
  readonly approved: readonly string[]
}

/**
 * The generation of the copy that comes next: never one that there was. Changes that were staged beside an earlier copy may be applied when the next
 * one has begun, and are told from its own by this number alone.
 */
export function nextGeneration({ copy, lastGeneration = 0 }: Pick<TableRecord, 'copy' | 'lastGeneration'>): number {
  return Math.max(copy?.generation ?? 0, lastGeneration) + 1
}

/** A copy that is not planned yet: one range over everything. */
export function unplannedCopy({ generation, into }: Pick<CopyRecord, 'generation' | 'into'>): CopyRecord {
  return { generation, into, estimatedRows: 0, chunks: [{ lower: null, upper: null, done: null }] }
}

/** The record once its copy is of no account any more. */
export function withoutCopy(record: TableRecord): TableRecord {
  return record.copy === null ? record : { ...record, copy: null, lastGeneration: record.copy.generation }
}

/** A running or finished copy. It stays until the stream has passed every chunk's snapshot. */
export interface CopyRecord {
  /** Raised when the copy begins anew: what was judged by an earlier plan does not count. */
  readonly generation: number
  /** Where the rows go: the table itself at the first load, a table beside it at a reload. */
  readonly into: TableName
  readonly estimatedRows: number
  readonly chunks: readonly ChunkRecord[]
  /** True where the rows that are there are none of this table's: the copy takes their place, whatever they are. Absent = what a copy cannot bring back is kept. */
  readonly isReplacing?: boolean
  /** The shapes of the tables that it takes the place of, where these are others than the record's; those that hold the past and are not wanted any more stay as `keptAs`. `columns`: as these were then (absent = not known). */
  readonly former?: Shaping & { readonly keptAs: TableName; readonly columns?: readonly TargetColumn[] }
  /** True where it reads a snapshot that is kept at the source: its chunks are ranges of that one's blocks, not of keys. */
  readonly isKept?: boolean
  /** The `_lsn` of each finished chunk's rows (decimal) and the time of its snapshot (timestamptz text): where the copy will be joined to what is kept. */
  readonly copiedAt?: readonly (readonly [rowLsn: string, time: string])[]
}

/** What a copy that begins anew takes over from the one before it. */
export function replacingOf({ copy }: Pick<TableRecord, 'copy'>): Pick<CopyRecord, 'isReplacing' | 'former'> {
  return { ...(copy?.isReplacing === true ? { isReplacing: true } : {}), ...(copy?.former === undefined ? {} : { former: copy.former }) }
}

/** Are the table's copied rows in a table beside the one that readers see? */
export function isBeside({ copy, target }: Pick<TableRecord, 'copy' | 'target'>): boolean {
  return copy !== null && tableKey(copy.into) !== tableKey(target)
}

/** The shapes of the tables that stand under the table's name: while it is copied into other shapes these are the former ones. */
export function shapingThere(record: TableRecord): Shaping {
  return record.copy?.former ?? record
}

/** The record as what stands under its name has it: its copy, and with it the shapes that were ordered, are of no account any more. */
export function asThere(record: TableRecord): TableRecord {
  const former = record.copy?.former
  if (former === undefined) return withoutCopy(record)
  const { writeMode: _writeMode, otherModes: _otherModes, isSoft: _isSoft, inputShaping: _inputShaping, ...rest } = withoutCopy(record)
  return { ...rest, ...shapingIn(former), columns: columnsThere(record) }
}

/** The columns of the tables that stand under the table's name. Former ones are altered only where one of them is wanted as before. */
export function columnsThere(record: TableRecord): readonly TargetColumn[] {
  const former = record.copy?.former
  if (former?.columns === undefined) return record.columns
  const wanted = kindsOf(record)
  return kindsOf(former).some((kind) => kind !== 'merge' && wanted.includes(kind)) ? record.columns : former.columns
}

export interface ChunkRecord {
  readonly lower: readonly string[] | null
  readonly upper: readonly string[] | null
  /** `pg_current_snapshot()` text and the LSN read after it; null = not copied yet. */
  readonly done: { readonly snapshot: string; readonly lsn: string } | null
}

/** Which transaction a change belongs to. One object per transaction, made at its Begin. */
export interface TransactionContext {
  readonly commitLsn: Lsn
  readonly commitTimeMicros: bigint
  /** The low 32 bits, as the stream has them. */
  readonly xid: number
}

/**
 * Staged changes of whole transactions, in stream order. Methods are called for each change, synchronously; nothing is applied
 * before `applyBatch`. `filtered` rows carry their transaction id, for tables whose chunks decide row by row.
 */
export interface Batch {
  readonly rowCount: number
  readonly byteCount: number
  /** The place of the next change in its transaction, from 1. May be moved on: what is kept elsewhere keeps its place. */
  sequence: number
  beginTransaction(transaction: TransactionContext): void
  insert(table: BatchTable, tuple: TupleView): void
  update(table: BatchTable, oldKind: 'none' | 'key' | 'full', oldTuple: TupleView, newTuple: TupleView): void
  delete(table: BatchTable, oldKind: 'key' | 'full', oldTuple: TupleView): void
  truncate(table: BatchTable): void
  /** Changes the destination's columns at this place of the table's changes. */
  alterColumns(table: BatchTable, change: ColumnsChange): void
  /** The table's shape is another: its copy begins anew in that shape; changes that stand before it are of no account. */
  replaceSchema(table: BatchTable, source: TableSchema): void
  /**
   * The table has another name at the source; its destination table gets `target`, from the batch's first row on. Names may go round in a
   * circle. Another table of ours that still has the name gives way until its own news comes; with the name of a table that is not ours this one fails.
   */
  rename(table: BatchTable, names: TableNames): void
  /** The table has left the replication: its rows stay, unless another table has taken its name. */
  remove(table: BatchTable, departure: Departure): void
  /** The table cannot take the change at this place: the apply will name it as failed. */
  fail(table: BatchTable, error: DomainError): void
  /** Frees files and memory. Idempotent. */
  discard(): void
}

/** What a table is called at the source and at the destination. */
export interface TableNames {
  readonly source: TableName
  readonly target: TableName
}

/** How a table's columns changed at the source, told by attribute number: names before and after. */
export interface ColumnsChange {
  /** Columns that went: dropped from current rows; in a history they stay, NULL from then on. */
  readonly dropped: readonly string[]
  readonly renamed: readonly { readonly from: string; readonly to: string }[]
  readonly added: readonly AddedColumn[]
  /** Columns of another type, with their names after renaming; in `append` only: old values stay, as text where the types differ. */
  readonly retyped: readonly SourceColumn[]
  /** The key after it. */
  readonly key: readonly string[]
}

/** A change at the source that has not been made here: of columns in place, of the table's name, or one that a fresh copy makes right. */
export type ForeseenChange =
  | { readonly tag: 'alter'; readonly change: ColumnsChange }
  | { readonly tag: 'rename'; readonly names: TableNames }
  | { readonly tag: 'copy' }

/** What a change would run and touch. */
export interface Foresight {
  readonly statements: readonly string[]
  /** Rows that it would write, or that would be copied anew: about as many. */
  readonly rowCount: number
}

/** A column that came, and the text of the value that the rows which are there have in it; null = NULL. */
export interface AddedColumn extends SourceColumn {
  readonly valueOfOlderRows: string | null
}

/** A table as the batch needs it; one object per table and session, changed by the session only. */
export interface BatchTable {
  /** As last committed. */
  record: TableRecord
  /** As the changes that are being staged need them: ahead of the record by the schema changes that are staged and not yet applied. */
  columns: readonly TargetColumn[]
  key: readonly string[]
  /** For each destination column, its place in the tuples that the stream sends now; −1 = not sent. */
  tupleIndexes: Int32Array
  /** True while chunks decide row by row which changes count. */
  isFiltered: boolean
}

export interface ChunkPosition {
  readonly index: number
  readonly snapshot: string
  /** Past the commit of everything that the snapshot sees. */
  readonly lsn: Lsn
  /** The copied rows' `_lsn`: not past the commit of anything that the snapshot does **not** see, so that the rows stand before every change of them. */
  readonly rowLsn: Lsn
  readonly timeMicros: bigint
  /**
   * True where rows of the same keys may be there: these take their place. In `append` they are added, as `insert` or `update`, where they
   * differ from the newest of their key. Absent: the table is being filled.
   */
  readonly replaces?: boolean
}

export interface ChunkStage {
  readonly table: TableRecord
  readonly rowCount: number
  readonly byteCount: number
  /** May rows come by {@link addBinaryRows}? All of them, then. */
  readonly takesBinary: boolean
  /** How it takes rows as text; null where it has to look at each cell. Then {@link add} is called, else {@link addLines} alone. */
  readonly lineFormat: DelimitedText | null
  /** Cells in the order of the columns that were asked of the source (those not dropped). */
  add(tuple: TupleView): void
  /** Columns in that same order. */
  addLines(lines: Lines): void
  /**
   * Columns in that same order, {@link endBinaryRows} behind the last row. False where a value has no place in this form: then no row has been taken, and all
   * have to come again in another. Throws `ProtocolViolation` for what are no rows of these columns.
   */
  addBinaryRows(rows: BinaryRows): boolean
  /** As {@link addBinaryRows}. */
  endBinaryRows(): boolean
  /** Other chunks may have changed the record since this one began. */
  withRecord(record: TableRecord): void
  discard(): void
}

/** What an apply may have to ask the source, and how rows of filtered tables are judged. */
export interface RowLookup {
  /** Present text of `columns` for rows with these keys; absent rows are left out, so ask for the key too. */
  readRows(table: TableRecord, keys: readonly (readonly string[])[], columns: readonly string[]): Promise<PresentRows>
  /** The chunk of each key. */
  locateKeys(table: TableRecord, keys: readonly (readonly string[])[]): Promise<readonly number[]>
  /** Does a change count? `defer` = apply it right after the chunk that is being copied. */
  judge(table: TableRecord, chunkIndex: number, xid: number): 'apply' | 'skip' | 'defer'
}

export interface Checkpoint {
  /** Null where the position stays. */
  readonly appliedLsn: Lsn | null
  readonly lookup: RowLookup
  /** Records that change in the same transaction; of a table that is in the batch too, its record with this change already. */
  readonly records: readonly TableRecord[]
}

export interface ApplyResult {
  /** Records as they are now, of every table that was touched. */
  readonly tables: readonly TableRecord[]
  /** Tables that cannot take their changes. Where there are any, nothing of the batch is in force. */
  readonly failures: readonly TableFailure[]
}

export interface TableFailure {
  readonly oid: number
  readonly error: DomainError
}
