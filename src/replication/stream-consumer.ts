import type { ChangeHandler, OldTupleKind, Relation, TupleView } from '../model/change.ts'
import type { Batch, TransactionContext } from '../model/destination.ts'
import type { Lsn } from '../model/lsn.ts'
import type { TableRuntime } from './table-runtime.ts'
import type { TableSpool } from './table-spool.ts'

/** A batch of whole transactions, ready to be applied. */
export interface SealedBatch {
  readonly batch: Batch
  /** End LSN of its last transaction: the checkpoint after it. */
  readonly endLsn: Lsn
  readonly transactions: number
  readonly lastCommitTimeMicros: bigint
  /** How far the spools reach that took changes of these transactions. */
  readonly spooled: readonly { readonly spool: TableSpool; readonly endOffset: number }[]
  /** To be told once the batch is in force. */
  readonly onApplied: readonly (() => void)[]
}

export interface StreamConsumerOptions {
  readonly newBatch: () => Batch
  /** The table of a relation id; undefined = not replicated. */
  readonly tableOf: (oid: number) => TableRuntime | undefined
  /** A relation whose shape is not the known one, or an unknown relation: the consumer is suspended until `resume`. */
  readonly onRelation: (relation: Relation, table: TableRuntime | undefined) => void
  /** Called after each commit and before each begin: the owner decides whether to seal. */
  readonly onBoundary: () => void
  /** Transactions that committed before it are at the destination. */
  readonly appliedLsn: Lsn
}

/**
 * Assembles the decoded stream into batches that end on commit boundaries. Tuples go straight into the batch's staging; a transaction
 * is whole when its Commit has come, and only then can its batch be sealed.
 */
export class StreamConsumer implements ChangeHandler {
  readonly #options: StreamConsumerOptions
  #batch: Batch | null = null
  #transaction: TransactionContext | null = null
  #isOpen = false
  #isKnown = false
  #transactions = 0
  /** Of what was staged beside the stream's changes. */
  #onApplied: (() => void)[] = []
  #endLsn: Lsn
  #lastCommitTimeMicros = 0n
  #firstCommitMs = 0
  #lastCommitMs = 0
  #lastOid = -1
  #lastTable: TableRuntime | undefined
  /** Spools that took changes since the last seal. */
  readonly #spools = new Map<TableSpool, number>()

  constructor(options: StreamConsumerOptions) {
    this.#options = options
    this.#endLsn = options.appliedLsn
  }

  /** True between Begin and Commit. */
  get isInTransaction(): boolean {
    return this.#isOpen
  }

  /** The transaction that is being received. */
  get transaction(): TransactionContext | null {
    return this.#transaction
  }

  /** The batch that is being filled, for schema changes in their place. */
  get batch(): Batch {
    if (this.#batch === null) {
      this.#batch = this.#options.newBatch()
      if (this.#transaction !== null) this.#batch.beginTransaction(this.#transaction)
    }
    return this.#batch
  }

  get rowCount(): number {
    return this.#batch?.rowCount ?? 0
  }

  get byteCount(): number {
    let byteCount = this.#batch?.byteCount ?? 0
    for (const [spool, startOffset] of this.#spools) byteCount += spool.endOffset - startOffset
    return byteCount
  }

  get hasCommits(): boolean {
    return this.#transactions > 0 || this.#onApplied.length > 0
  }

  /** Stages what no message of the stream says, at the place that has been reached. */
  amend(work: (batch: Batch) => void, onApplied: () => void): void {
    if (!this.hasCommits) this.#firstCommitMs = performance.now()
    this.#onApplied.push(onApplied)
    work(this.batch)
    this.forgetTable()
  }

  /** Another object stands for a table from now on. */
  forgetTable(): void {
    this.#lastOid = -1
  }

  /** `performance.now()` of the oldest commit that waits to be sealed. */
  get firstCommitMs(): number {
    return this.#firstCommitMs
  }

  /** The same of the newest. */
  get lastCommitMs(): number {
    return this.#lastCommitMs
  }

  begin(commitLsn: Lsn, commitTimeMicros: bigint, xid: number): void {
    if (this.hasCommits) this.#options.onBoundary()
    this.#isOpen = true
    // A logical slot may send again what was applied (facts 5).
    this.#isKnown = commitLsn < this.#options.appliedLsn
    this.#transaction = { commitLsn, commitTimeMicros, xid }
    this.#batch?.beginTransaction(this.#transaction)
  }

  commit(_commitLsn: Lsn, endLsn: Lsn, commitTimeMicros: bigint): void {
    this.#isOpen = false
    if (this.#isKnown) return
    if (this.#transaction !== null) for (const spool of this.#spools.keys()) spool.commit(this.#transaction, endLsn)
    this.#lastCommitMs = performance.now()
    if (this.#transactions === 0) this.#firstCommitMs = this.#lastCommitMs
    this.#transactions++
    this.#endLsn = endLsn
    this.#lastCommitTimeMicros = commitTimeMicros
    this.#options.onBoundary()
  }

  relation(relation: Relation): void {
    const table = this.#options.tableOf(relation.oid)
    this.forgetTable()
    if (table?.spool != null) {
      table.spool.relation(relation)
      return
    }
    if (table?.isNamed(relation) === true && table.takeRelation(relation)) return
    this.#options.onRelation(relation, table)
  }

  insert(relationOid: number, tuple: TupleView): void {
    const table = this.#tableFor(relationOid)
    if (table === undefined) return
    if (table.spool === null) this.batch.insert(table.batchTable, tuple)
    else table.spool.insert(this.#keep(table.spool), this.batch.sequence++, tuple)
  }

  // The hot path: an options object for each change would be garbage.
  // eslint-disable-next-line @typescript-eslint/max-params
  update(relationOid: number, oldKind: OldTupleKind, oldTuple: TupleView, newTuple: TupleView): void {
    const table = this.#tableFor(relationOid)
    if (table === undefined) return
    if (table.spool === null) {
      this.batch.update(table.batchTable, oldKind, oldTuple, newTuple)
      return
    }
    table.spool.update(this.#keep(table.spool), this.batch.sequence, oldKind, oldTuple, newTuple)
    // A key change takes two places; whether it is one is seen when it is applied.
    this.batch.sequence += oldKind === 'none' ? 1 : 2
  }

  delete(relationOid: number, oldKind: 'key' | 'full', oldTuple: TupleView): void {
    const table = this.#tableFor(relationOid)
    if (table === undefined) return
    if (table.spool === null) this.batch.delete(table.batchTable, oldKind, oldTuple)
    else table.spool.delete(this.#keep(table.spool), this.batch.sequence++, oldKind, oldTuple)
  }

  truncate(relationOids: readonly number[]): void {
    for (const oid of relationOids) {
      const table = this.#tableFor(oid)
      if (table === undefined) continue
      table.truncatedBy = this.#transaction?.xid ?? null
      if (table.spool !== null) {
        table.spool.truncate(this.#keep(table.spool), this.batch.sequence++)
        continue
      }
      if (table.needsCopy && this.#transaction !== null) table.mustSee(this.#transaction.xid)
      this.batch.truncate(table.batchTable)
    }
  }

  type(): void {
    // Types are looked up in the catalog, by oid.
  }

  origin(): void {
    // Changes that came to the source from elsewhere are changes of the source.
  }

  message(): void {
    // Logical messages belong to other consumers.
  }

  /** Where only transactions without changes of ours came: takes them out and gives the last one's end LSN. Else null. */
  passEmpty(): Lsn | null {
    if (this.#isOpen || this.#transactions === 0 || this.#batch !== null) return null
    this.#transactions = 0
    return this.#endLsn
  }

  /** Takes what was staged so far out: whole transactions. Only between transactions. Null when there are none. */
  seal(): SealedBatch | null {
    if (this.#isOpen || !this.hasCommits) return null
    const sealed: SealedBatch = {
      batch: this.batch,
      endLsn: this.#endLsn,
      transactions: this.#transactions,
      lastCommitTimeMicros: this.#lastCommitTimeMicros,
      spooled: [...this.#spools.keys()].map((spool) => ({ spool, endOffset: spool.endOffset })),
      onApplied: this.#onApplied,
    }
    this.#spools.clear()
    this.#batch = null
    this.#transactions = 0
    this.#onApplied = []
    return sealed
  }

  discard(): void {
    this.#batch?.discard()
    this.#batch = null
    this.#spools.clear()
    this.#transactions = 0
  }

  /** Notes that a spool takes a change. The batch counts its place, and makes that the transaction is not taken for an empty one. */
  #keep(spool: TableSpool): TransactionContext {
    if (this.#transaction === null) throw new RangeError('a change outside a transaction')
    if (!this.#spools.has(spool)) this.#spools.set(spool, spool.endOffset)
    return this.#transaction
  }

  #tableFor(oid: number): TableRuntime | undefined {
    if (this.#isKnown || this.#transaction === null) return undefined
    if (oid !== this.#lastOid) {
      this.#lastOid = oid
      this.#lastTable = this.#options.tableOf(oid)
    }
    const table = this.#lastTable
    return table === undefined || table.verdictFor(this.#transaction) === 'skip' ? undefined : table
  }
}
