import { join } from 'node:path'
import type { TupleView } from '../../model/change.ts'
import type { Batch, BatchTable, ColumnsChange, Departure, TableNames, TransactionContext } from '../../model/destination.ts'
import type { DomainError } from '../../model/errors.ts'
import type { TableSchema } from '../../model/table-schema.ts'
import type { TableStage } from './steps.ts'
import { type StagingTotals, TableWriter } from './table-writer.ts'

/** The staged changes of whole transactions: one writer a table. See {@link Batch}. */
export class StagedBatch implements Batch, StagingTotals {
  rowCount = 0
  byteCount = 0
  readonly #writers = new Map<BatchTable, TableWriter>()
  #transaction: TransactionContext | null = null
  sequence = 1
  #files = 0

  readonly #directory: string
  readonly #name: string

  constructor(directory: string, name: string) {
    this.#directory = directory
    this.#name = name
  }

  get stages(): readonly TableStage[] {
    const writers = [...this.#writers.values()]
    for (const writer of writers) writer.endStep()
    return writers
  }

  nextPath(): string {
    return join(this.#directory, `${this.#name}-${String(this.#files++)}.stage`)
  }

  beginTransaction(transaction: TransactionContext): void {
    this.#transaction = transaction
    this.sequence = 1
  }

  copy(table: BatchTable, tuple: TupleView): void {
    this.#writer(table).copy(this.#current(), tuple)
  }

  insert(table: BatchTable, tuple: TupleView): void {
    this.#writer(table).insert(this.#current(), this.sequence++, tuple)
  }

  update(table: BatchTable, oldKind: 'none' | 'key' | 'full', oldTuple: TupleView, newTuple: TupleView): void {
    this.sequence += this.#writer(table).update(this.#current(), this.sequence, oldKind === 'none' ? null : oldTuple, oldKind === 'full', newTuple)
  }

  delete(table: BatchTable, oldKind: 'key' | 'full', oldTuple: TupleView): void {
    this.#writer(table).delete(this.#current(), this.sequence++, oldTuple, oldKind === 'full')
  }

  truncate(table: BatchTable): void {
    this.#writer(table).truncate(this.#current(), this.sequence++)
  }

  alterColumns(table: BatchTable, change: ColumnsChange): void {
    this.#writer(table).alterColumns(change)
  }

  replaceSchema(table: BatchTable, source: TableSchema): void {
    this.#writer(table).replaceSchema(source)
  }

  rename(table: BatchTable, names: TableNames): void {
    this.#writer(table).rename(names)
  }

  remove(table: BatchTable, departure: Departure): void {
    this.#writer(table).remove(departure)
  }

  fail(table: BatchTable, error: DomainError): void {
    this.#writer(table).fail(error)
  }

  discard(): void {
    for (const writer of this.#writers.values()) writer.discard()
    this.#writers.clear()
  }

  #current(): TransactionContext {
    if (this.#transaction === null) throw new RangeError('a change outside a transaction')
    return this.#transaction
  }

  #writer(table: BatchTable): TableWriter {
    let writer = this.#writers.get(table)
    if (writer === undefined) {
      writer = new TableWriter(table, this)
      this.#writers.set(table, writer)
    }
    return writer
  }
}
