import type { OldTupleKind, Relation, TupleView } from '../model/change.ts'
import type { TransactionContext } from '../model/destination.ts'
import type { Lsn } from '../model/lsn.ts'
import type { SpoolFile } from '../postgres/spool-file.ts'

/**
 * The changes of one table that has stopped, as they come in the stream: its transactions without those of other tables. Begin and
 * Relation stand in it when a change follows, so that a transaction without changes of the table leaves nothing behind.
 */
export class TableSpool {
  readonly oid: number
  readonly #file: SpoolFile
  #isOpen = false
  #owedRelation: Relation | null = null
  /** Beyond it the spool takes nothing more: the table has to be copied anew. */
  limitOffset: number
  #isOver = false

  constructor(oid: number, file: SpoolFile, limitOffset: number) {
    this.oid = oid
    this.#file = file
    this.limitOffset = limitOffset
  }

  /** Between transactions: where the next one will begin. */
  get endOffset(): number {
    return this.#file.endOffset
  }

  /** True once a change came that it had no room for. */
  get isOver(): boolean {
    return this.#isOver
  }

  /** A Relation message of this connection that no change has followed yet: it is not in the spool. */
  get owedRelation(): Relation | null {
    return this.#owedRelation
  }

  relation(relation: Relation): void {
    this.#owedRelation = relation
  }

  insert(transaction: TransactionContext, sequence: number, tuple: TupleView): void {
    if (this.#begin(transaction)) this.#file.append(sequence, (writer) => { writer.insert(this.oid, tuple) })
  }

  // The parts of one message, each as the stream hands it over.
  // eslint-disable-next-line @typescript-eslint/max-params
  update(transaction: TransactionContext, sequence: number, oldKind: OldTupleKind, oldTuple: TupleView, tuple: TupleView): void {
    if (this.#begin(transaction)) this.#file.append(sequence, (writer) => { writer.update(this.oid, oldKind, oldTuple, tuple) })
  }

  // eslint-disable-next-line @typescript-eslint/max-params
  delete(transaction: TransactionContext, sequence: number, oldKind: 'key' | 'full', oldTuple: TupleView): void {
    if (this.#begin(transaction)) this.#file.append(sequence, (writer) => { writer.delete(this.oid, oldKind, oldTuple) })
  }

  truncate(transaction: TransactionContext, sequence: number): void {
    if (this.#begin(transaction)) this.#file.append(sequence, (writer) => { writer.truncate(this.oid) })
  }

  /** Ends the transaction, if a change of it is here. */
  commit({ commitLsn, commitTimeMicros }: TransactionContext, endLsn: Lsn): void {
    if (!this.#isOpen) return
    this.#isOpen = false
    this.#file.append(0, (writer) => { writer.commit(commitLsn, endLsn, commitTimeMicros) })
  }

  async sync(): Promise<void> {
    await this.#file.sync()
  }

  close(): void {
    this.#file.close()
  }

  #begin({ commitLsn, commitTimeMicros, xid }: TransactionContext): boolean {
    this.#isOver ||= this.#file.endOffset > this.limitOffset
    if (this.#isOver) return false
    if (!this.#isOpen) {
      this.#isOpen = true
      this.#file.append(0, (writer) => { writer.begin(commitLsn, commitTimeMicros, xid) })
    }
    const relation = this.#owedRelation
    if (relation !== null) {
      this.#owedRelation = null
      this.#file.append(0, (writer) => { writer.relation(relation) })
    }
    return true
  }
}
