import type { Relation } from '../model/change.ts'
import type { Batch, BatchTable, TableRecord, TargetColumn, TransactionContext } from '../model/destination.ts'
import { parseLsn, ZERO_LSN, type Lsn } from '../model/lsn.ts'
import { isAppendOnly } from '../model/shapes.ts'
import { parseSnapshot, type Snapshot } from '../model/snapshot.ts'
import type { TableName, TableSchema } from '../model/table-schema.ts'
import { replicatedShape } from '../pipeline/schema-diff.ts'
import { isVisible, widenXid } from '../pipeline/visibility.ts'
import { withoutUsed } from './schema-approval.ts'
import type { TableSpool } from './table-spool.ts'

/** What happens to a transaction's changes of one table. `filter`: its chunks decide row by row when the batch is applied. */
export type TableVerdict = 'apply' | 'skip' | 'filter'

/**
 * One chunk of a running copy.
 *
 * States: pending → (snapshot taken, every change skipped so far is visible in it) → copying → (committed) → done; copying → (copy
 * failed) → pending.
 */
type ChunkState =
  | { readonly tag: 'pending' }
  | { readonly tag: 'copying'; readonly snapshot: Snapshot }
  | { readonly tag: 'done'; readonly snapshot: Snapshot }

/**
 * A replicated table inside a session: its record as last committed, its place in the stream, and the state of its copy.
 *
 * The rule (facts 10): a change whose transaction is visible in its chunk's snapshot is in the copy already. A change of a chunk
 * that is not copied yet is skipped and its transaction remembered: the chunk's snapshot must see it (a commit can be in the stream
 * before it is visible, for as long as it waits for a synchronous standby).
 */
export class TableRuntime {
  readonly batchTable: BatchTable
  /** Where its changes go while it has stopped. */
  spool: TableSpool | null = null
  /** The source's name at the place of the stream that has been reached: ahead of the record by what is staged. */
  name: TableName
  #hasLeft = false
  #generation = -1
  #chunks: ChunkState[] = []
  /** Every chunk's snapshot was taken before this position; null while a chunk is missing. */
  #lastSnapshotLsn: Lsn | null = null
  readonly #skipped = new Set<number>()
  #isRemembering = false
  /**
   * Taken when skipped transactions began to be remembered: before the copy's first snapshot those must have ended that it lists as running (facts 10a), less what is known
   * to have ended. It holds for the whole copy, however many slices that takes: what began later has all that it writes in the stream, and is remembered where
   * that is skipped. Null until it is taken, and again once the copy begins anew: what was applied before may not be visible yet.
   */
  awaited: Snapshot | null = null
  /** Columns that were known here, by number. */
  readonly #known = new Set<number>()
  /** The transaction of the last TRUNCATE that the stream has brought; null before the first. */
  truncatedBy: number | null = null
  /** The last transaction judged, and its verdict: most transactions change a table more than once. */
  #judged: TransactionContext | null = null
  #verdict: TableVerdict = 'skip'
  /** The shape of the tuples that come now. */
  #relation: Relation | null = null
  /** Approvals of changes that are staged. */
  readonly #taken = new Set<string>()
  /** An identity that its columns alone do not tell, and that the catalog has confirmed: as {@link identityText}. */
  #confirmedIdentity = ''

  constructor(record: TableRecord) {
    this.batchTable = { record, columns: record.columns, key: record.key, tupleIndexes: new Int32Array(0), isFiltered: false }
    this.name = record.source
    this.update(record)
  }

  get record(): TableRecord {
    return this.batchTable.record
  }

  /** Numbers of columns that are gone at the place of the stream that has been reached, as far as that is known; those that are there may be among them. */
  get goneColumns(): readonly number[] {
    return [...this.#known, ...(this.record.storage?.gone ?? [])]
  }

  /** Takes over what was done beside the stream, the name included. */
  follow(record: TableRecord): void {
    this.name = record.source
    this.update(record)
  }

  /** Takes over what the destination committed. */
  update(record: TableRecord): void {
    this.batchTable.record = record
    for (const fingerprint of this.#taken) if (record.approval?.approved.includes(fingerprint) !== true) this.#taken.delete(fingerprint)
    // Columns that were widened while a batch was applied are text for the changes that are staged from now on.
    const columns = this.batchTable.columns.map((column) => widenedOf(column, record))
    if (columns.some((column, index) => column !== this.batchTable.columns[index])) this.batchTable.columns = columns
    this.#judged = null
    if (record.copy === null) {
      this.#chunks = []
      this.#generation = -1
      this.#lastSnapshotLsn = null
      return
    }
    if (record.copy.generation !== this.#generation || record.copy.chunks.length !== this.#chunks.length) {
      if (record.state === 'pending') this.awaited = null
      this.#generation = record.copy.generation
      this.#chunks = record.copy.chunks.map(() => ({ tag: 'pending' }))
    }
    for (const [index, { done }] of record.copy.chunks.entries()) {
      if (done !== null && this.#chunks[index]?.tag !== 'done') this.#chunks[index] = { tag: 'done', snapshot: parseSnapshot(done.snapshot) }
    }
    this.#lastSnapshotLsn = lastSnapshotLsn(record)
  }

  /** Takes over a record of another shape: changes are staged in it from now on. */
  reshape(record: TableRecord): void {
    this.batchTable.columns = record.columns
    this.batchTable.key = record.key
    if (this.#relation !== null) this.takeRelationByName(this.#relation)
    this.update(record)
  }

  /** Has the change been approved? Its approval is used up with the batch that makes it, see {@link withUsedApprovals}. */
  takeApproval(fingerprint: string): boolean {
    if (this.#taken.has(fingerprint) || this.record.approval?.approved.includes(fingerprint) !== true) return false
    this.#taken.add(fingerprint)
    return true
  }

  get hasTakenApprovals(): boolean {
    return this.#taken.size > 0
  }

  /** The record as it is once what is staged is in force; a batch that is applied begins with it. */
  withUsedApprovals(record: TableRecord): TableRecord {
    this.batchTable.record = withoutUsed(record, this.#taken)
    return this.batchTable.record
  }

  /** Does it wait for a first copy, or for the rest of one? */
  get needsCopy(): boolean {
    return (this.record.state === 'pending' || this.record.state === 'snapshotting') && this.record.quarantine === null
  }

  /** Was it told to go on, with changes that were kept meanwhile? */
  get needsReplay(): boolean {
    return this.record.state === 'pending' && this.record.quarantine !== null
  }

  /** The position that the stream must reach before the copied rows are consistent with it; null when it has been reached or no copy is there. */
  get catchUpLsn(): Lsn | null {
    return this.record.copy === null ? null : this.#lastSnapshotLsn
  }

  /**
   * Is a transaction past every snapshot of the table's copy, so that the copy is of no account for it? Never while a copy is still to come:
   * it reads the columns that are known now, and sees what later transactions write into others.
   */
  isPastCopy(transaction: TransactionContext | null): boolean {
    if (this.record.copy === null) return !this.needsCopy
    return (this.record.state === 'streaming' || this.needsReplay) && transaction !== null && this.#lastSnapshotLsn !== null && transaction.commitLsn >= this.#lastSnapshotLsn
  }

  /** Indexes of the chunks that nobody copies yet. */
  get pendingChunks(): readonly number[] {
    return this.#chunks.flatMap((chunk, index) => (chunk.tag === 'pending' ? [index] : []))
  }

  get generation(): number {
    return this.#generation
  }

  /** Judges a whole transaction, where that can be done without looking at keys. */
  verdictFor(transaction: TransactionContext): TableVerdict {
    if (this.#judged === transaction) return this.#verdict
    this.#judged = transaction
    this.#verdict = this.#judge(transaction)
    this.batchTable.isFiltered = this.#verdict === 'filter'
    return this.#verdict
  }

  #judge(transaction: TransactionContext): TableVerdict {
    const { state, copy } = this.record
    if (state === 'removed' || this.#hasLeft) return 'skip'
    // Whoever reads the spool judges.
    if (this.spool !== null) return 'apply'
    if (state === 'failed' || (copy === null && this.needsCopy)) return this.#skip(transaction.xid)
    if (copy === null || (this.#lastSnapshotLsn !== null && transaction.commitLsn >= this.#lastSnapshotLsn)) return 'apply'
    if (this.#chunks.every(({ tag }) => tag === 'pending')) return this.#skip(transaction.xid)
    if (this.#chunks.some(({ tag }) => tag !== 'done')) return 'filter'
    const seen = this.#chunks.filter((chunk) => chunk.tag === 'done' && sees(chunk.snapshot, transaction.xid)).length
    if (seen === 0) return 'apply'
    return seen === this.#chunks.length ? 'skip' : 'filter'
  }

  #skip(xid: number): 'skip' {
    if (this.#isRemembering) this.#skipped.add(xid)
    return 'skip'
  }

  /** From now on skipped transactions are remembered. Then {@link awaited} is to be taken. */
  remember(): void {
    this.#isRemembering = true
  }

  /** Nothing of it is to be copied any more. */
  endCopy(): void {
    this.#isRemembering = false
    this.awaited = null
  }

  /** What a snapshot of the source sees, all later ones see: it need not be remembered. */
  noteVisible(snapshot: Snapshot): void {
    for (const xid of this.#skipped) if (sees(snapshot, xid)) this.#skipped.delete(xid)
  }

  /** Judges a change by the chunk of its key, when its batch is applied. */
  judgeRow(record: TableRecord, chunkIndex: number, xid: number): 'apply' | 'skip' | 'defer' {
    if (record.copy === null) return 'apply'
    const chunk = record.copy.generation === this.#generation ? this.#chunks[chunkIndex] : undefined
    if (chunk?.tag === 'done') return sees(chunk.snapshot, xid) ? 'skip' : 'apply'
    if (chunk?.tag === 'copying' && sees(chunk.snapshot, xid)) return 'skip'
    this.#skipped.add(xid)
    return chunk?.tag === 'copying' ? 'defer' : 'skip'
  }

  /**
   * Notes that a chunk is being copied from `snapshot`. False (and nothing noted) where a change that was skipped for the copy's sake is
   * not visible in it yet: take another snapshot.
   */
  beginChunk(index: number, snapshot: Snapshot): boolean {
    for (const xid of this.#skipped) if (!sees(snapshot, xid)) return false
    this.#skipped.clear()
    this.#chunks[index] = { tag: 'copying', snapshot }
    this.#judged = null
    return true
  }

  /** A chunk's copy failed: it is to be copied again from a later snapshot. */
  abandonChunk(index: number, generation: number): void {
    if (generation === this.#generation && this.#chunks[index]?.tag === 'copying') this.#chunks[index] = { tag: 'pending' }
    this.#judged = null
  }

  /** A copy that begins anew must see the transaction that caused it. */
  mustSee(xid: number): void {
    this.#skipped.add(xid)
  }

  /** The table leaves the replication at this place of the stream: what still comes of it is of no account. */
  leave(): void {
    this.#hasLeft = true
    this.#judged = null
  }

  isNamed({ schema, name }: Relation): boolean {
    return this.name.schema === schema && this.name.name === name
  }

  /** Stages a new copy in the shape that the catalog has now; what is sent until then is read by its columns' names. */
  replaceSchema(batch: Batch, schema: TableSchema): void {
    batch.replaceSchema(this.batchTable, replicatedShape(this.record, schema))
    if (this.#relation !== null) this.takeRelationByName(this.#relation)
  }

  /** Takes a Relation message by the names of its columns alone, whatever their types. */
  takeRelationByName(relation: Relation): void {
    this.#relation = relation
    for (const { attributeNumber } of this.batchTable.columns) this.#known.add(attributeNumber)
    const places = new Map(relation.columns.map((column, place) => [column.name, place] as const))
    this.batchTable.tupleIndexes = Int32Array.from(this.batchTable.columns, ({ name, isDropped }) => (isDropped ? -1 : (places.get(name) ?? -1)))
  }

  /**
   * Takes a Relation message. Returns false where its columns, or the key that its rows come with, are not those of the table: the catalog has to be
   * asked. `isKeyConfirmed` = it was, and knows the same key.
   */
  takeRelation(relation: Relation, isKeyConfirmed = false): boolean {
    const places = new Map(relation.columns.map((column, place) => [column.name, place] as const))
    const { columns } = this.batchTable
    const known = columns.filter(({ isDropped }) => !isDropped)
    // A publication without column lists (PostgreSQL 14) sends columns that `includeColumns` left out: more is no difference then.
    const hasMore = relation.columns.some(({ name }) => !known.some((column) => column.name === name))
    const matches = (!hasMore || this.record.hasColumnList) && known.every((column) => {
      const sent = relation.columns[places.get(column.name) ?? -1]
      return sent?.typeOid === column.typeOid && sent.typeModifier === column.typeModifier
    })
    const isTaken = matches && isInOrder(relation, known) && this.#isIdentified(relation, isKeyConfirmed)
    if (isTaken) this.takeRelationByName(relation)
    return isTaken
  }

  /** Do updates and deletes name rows by the key that is known? FULL marks every column, and a key that a column list cuts short is none. */
  #isIdentified(relation: Relation, isKeyConfirmed: boolean): boolean {
    const { replicaIdentity, columns } = relation
    const { key } = this.batchTable
    // Neither can come.
    if (replicaIdentity === 'n') return true
    const identity = identityText(relation)
    if (isKeyConfirmed && (replicaIdentity === 'f' || key.length === 0 || isAppendOnly(this.record))) this.#confirmedIdentity = identity
    if (this.#confirmedIdentity === identity) return true
    if (replicaIdentity === 'f') return this.record.replicaIdentity === 'full'
    const marked = columns.filter(({ isKey }) => isKey)
    return marked.length === key.length && marked.every(({ name }) => key.includes(name))
  }
}

function identityText({ replicaIdentity, columns }: Relation): string {
  return JSON.stringify([replicaIdentity, ...columns.filter(({ isKey }) => isKey).map(({ name }) => name)])
}

/** Columns are sent by their attribute numbers: in another order they have each other's names. */
function isInOrder({ columns }: Relation, known: readonly TargetColumn[]): boolean {
  const names = known.toSorted((a, b) => a.attributeNumber - b.attributeNumber).map(({ name }) => name)
  const sent = columns.map(({ name }) => name).filter((name) => names.includes(name))
  return sent.every((name, place) => name === names[place])
}

function sees(snapshot: Snapshot, xid: number): boolean {
  return isVisible(snapshot, widenXid(xid, snapshot.xmax))
}

function widenedOf(column: TargetColumn, record: TableRecord): TargetColumn {
  const committed = record.columns.find(({ name }) => name === column.name)
  return committed?.type === 'VARCHAR' && column.type !== 'VARCHAR' ? { ...column, type: 'VARCHAR' } : column
}

function lastSnapshotLsn(record: TableRecord): Lsn | null {
  let last = ZERO_LSN
  for (const { done } of record.copy?.chunks ?? []) {
    if (done === null) return null
    const lsn = parseLsn(done.lsn)
    if (lsn > last) last = lsn
  }
  return last
}
