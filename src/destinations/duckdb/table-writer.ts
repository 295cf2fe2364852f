import { isUtf8 } from 'node:buffer'
import { closeSync, openSync, rmSync, writeSync } from 'node:fs'
import { CELL_NULL, CELL_TEXT, CELL_UNCHANGED, type TupleView } from '../../model/change.ts'
import type { BatchTable, ColumnsChange, Departure, TableNames, TargetColumn, TransactionContext } from '../../model/destination.ts'
import { DomainError } from '../../model/errors.ts'
import type { Lsn } from '../../model/lsn.ts'
import { isAppendOnly, keepsPast } from '../../model/shapes.ts'
import { tableKey, type TableSchema } from '../../model/table-schema.ts'
import { CellWriter, DELIMITER, FLUSH_BYTES } from './cell-writer.ts'
import { refusedShape } from './column-names.ts'
import { alteredColumns, carriedColumns } from './columns.ts'
import { mayBeReplaced, unrepresentable } from './misfits.ts'
import { quoteName } from './sql.ts'
import { OP, type RowsStep, type Step, type TableStage } from './steps.ts'
import { encodingFor, targetColumns } from './type-mapping.ts'

/** The batch that a writer belongs to: it names the files and adds up their sizes. */
export interface StagingTotals {
  rowCount: number
  byteCount: number
  nextPath(): string
}

/**
 * A table's staging in one batch. Rows go to one file a step; a step ends at a TRUNCATE, at a schema change (a widened column
 * is one), and where a row's unchanged TOAST value would have to be taken from a row that this very step has moved.
 */
export class TableWriter implements TableStage {
  readonly steps: Step[] = []
  lastCommitLsn: Lsn = 0n as Lsn
  #step: RowsStep | null = null
  #prefix: Buffer = Buffer.alloc(0)
  #prefixOf: TransactionContext | null = null
  #fileDescriptor: number | null = null
  #rowStart = 0
  /** Keys touched since the step's first move with unchanged values; null before it. */
  #movedKeys: Set<string> | null = null
  #hasFailed = false
  /** The table's columns when the step began: with others another one begins. */
  #columns: readonly TargetColumn[] = []
  /** Columns that the row being written leaves out, because their values do not fit. */
  #omitted: readonly number[] = []

  readonly table: BatchTable
  readonly #batch: StagingTotals
  readonly #writer = new CellWriter()

  constructor(table: BatchTable, batch: StagingTotals) {
    this.table = table
    this.#batch = batch
  }

  insert(transaction: TransactionContext, sequence: number, tuple: TupleView): void {
    if (this.#hasFailed) return
    this.#touch(tuple)
    this.#row(transaction, sequence, OP.insert, tuple, null)
    this.#current().inserts++
  }

  /** A copied row. */
  copy(transaction: TransactionContext, tuple: TupleView): void {
    if (!this.#hasFailed) this.#row(transaction, 0, OP.snapshot, tuple, null)
  }

  /** Returns how many sequence numbers it used. */
  update(transaction: TransactionContext, sequence: number, oldTuple: TupleView | null, isOldFull: boolean, tuple: TupleView): number {
    if (this.#hasFailed) return 1
    if (!this.#isNamed(oldTuple, isOldFull, true)) return 1
    const keyIndexes = this.#current().keyIndexes
    const isMove = oldTuple !== null && (keyIndexes.length === 0 || this.#hasKeyChanged(keyIndexes, oldTuple, tuple))
    if (!isMove) {
      // A key that is stored out of line stands in the old tuple alone.
      this.#touch(tuple, oldTuple)
      this.#row(transaction, sequence, OP.update, tuple, oldTuple)
      this.#current().updates++
      return 1
    }
    const needsOldRow = !isOldFull && this.#hasUnchanged(tuple)
    if (needsOldRow && keyIndexes.length > 0) this.#beforeMove(oldTuple, tuple, keyIndexes)
    else {
      this.#touch(oldTuple)
      this.#touch(tuple, oldTuple)
    }
    this.#row(transaction, sequence, OP.leave, oldTuple, null)
    this.#row(transaction, sequence + 1, needsOldRow ? OP.move : OP.arrive, tuple, oldTuple)
    const step = this.#current()
    if (needsOldRow) step.hasMoves = true
    step.updates++
    return 2
  }

  delete(transaction: TransactionContext, sequence: number, oldTuple: TupleView, isOldFull: boolean): void {
    if (this.#hasFailed || !this.#isNamed(oldTuple, isOldFull, false)) return
    this.#touch(oldTuple)
    this.#row(transaction, sequence, OP.delete, oldTuple, null)
    this.#current().deletes++
  }

  truncate(transaction: TransactionContext, sequence: number): void {
    if (this.#hasFailed) return
    this.endStep()
    this.steps.push({ tag: 'truncate', transaction, sequence, isFiltered: this.table.isFiltered })
    this.lastCommitLsn = transaction.commitLsn
  }

  alterColumns(change: ColumnsChange): void {
    this.endStep()
    const columns = alteredColumns(this.table.columns, change, this.table.record)
    if (this.#refuses(columns, change.key)) return
    this.table.columns = columns
    this.table.key = change.key
    this.steps.push({ tag: 'alter', change })
  }

  replaceSchema(source: TableSchema): void {
    this.endStep()
    const { record } = this.table
    const fresh = this.#freshColumns(source)
    if (fresh === null) return
    const columns = keepsPast(record) ? carriedColumns(this.table.columns, fresh, record) : fresh
    if (this.#refuses(columns, source.key)) return
    this.table.columns = columns
    this.table.key = source.key
    this.steps.push({ tag: 'replaceColumns', columns, key: source.key, storage: source.storage ?? null })
  }

  /** Null where a hint does not fit a column's type any more: the table stops. */
  #freshColumns(source: TableSchema): readonly TargetColumn[] | null {
    try {
      return targetColumns(source, this.table.record.hints, this.table.columns)
    } catch (error) {
      if (!(error instanceof DomainError)) throw error
      this.fail(error)
      return null
    }
  }

  /** The table stops where it cannot have a column's name, or the key. */
  #refuses(columns: readonly TargetColumn[], key: readonly string[]): boolean {
    const { record } = this.table
    const refused = refusedShape(record.source, { columns, key, shaping: record })
    if (refused !== null) this.fail(refused)
    return refused !== null
  }

  /** Rows go on in the same step: names are changed before all rows of the batch. */
  rename(names: TableNames): void {
    this.steps.push({ tag: 'rename', names })
  }

  remove(departure: Departure): void {
    this.endStep()
    this.steps.push({ tag: 'remove', departure })
  }

  /** The table stops here: nothing more of it is staged. */
  fail(error: DomainError): void {
    this.endStep()
    this.#hasFailed = true
    this.steps.push({ tag: 'fail', error })
  }

  /** Writes the rest of the open step to its file. */
  endStep(): void {
    const step = this.#step
    if (step === null) return
    this.#flush(step)
    if (this.#fileDescriptor !== null) closeSync(this.#fileDescriptor)
    this.#fileDescriptor = null
    this.#step = null
    this.#movedKeys = null
    this.#prefixOf = null
    this.#writer.release()
    if (step.rowCount > 0) this.steps.push(step)
  }

  discard(): void {
    if (this.#fileDescriptor !== null) closeSync(this.#fileDescriptor)
    this.#fileDescriptor = null
    if (this.#step !== null) rmSync(this.#step.path, { force: true })
    this.#step = null
    for (const step of this.steps) if (step.tag === 'rows') rmSync(step.path, { force: true })
  }

  #current(): RowsStep {
    const { columns, key } = this.table
    if (this.#step !== null && this.#step.isFiltered === this.table.isFiltered && this.#columns === columns) return this.#step
    this.endStep()
    this.#columns = columns
    this.#step = {
      tag: 'rows',
      path: this.#batch.nextPath(),
      columns: [...columns],
      encodings: columns.map(encodingFor),
      keyIndexes: key.map((name) => columns.findIndex((column) => column.name === name)),
      hasTimes: keepsPast(this.table.record),
      isFiltered: this.table.isFiltered,
      generation: this.table.record.copy?.generation ?? 0,
      common: null,
      isParquet: false,
      unchanged: new Set(),
      misfits: new Map(),
      tried: new Set(),
      hasInvalidText: false,
      hasMoves: false,
      hasChanges: false,
      inserts: 0,
      updates: 0,
      deletes: 0,
      rowCount: 0,
      byteCount: 0,
      longestRowBytes: 0,
    }
    this.#writer.position = 0
    return this.#step
  }

  #row(transaction: TransactionContext, sequence: number, op: number, tuple: TupleView, oldTuple: TupleView | null): void {
    const step = this.#current()
    this.lastCommitLsn = transaction.commitLsn
    const misfit = this.#tryRow(step, transaction, sequence, op, tuple, oldTuple)
    if (misfit < 0) return
    this.#writer.position = this.#rowStart
    const column = step.columns[misfit]
    if (column === undefined) throw new RangeError('misfit outside the columns')
    if (column.isPinned && mayBeReplaced(step, op, misfit)) {
      const place = this.table.tupleIndexes[misfit] ?? -1
      const kind = tuple.kinds[place] ?? CELL_NULL
      const { kinds } = tuple
      const omitted = this.#omitted
      kinds[place] = CELL_NULL
      this.#omitted = [...omitted, misfit]
      this.#row(transaction, sequence, op, tuple, oldTuple)
      this.#omitted = omitted
      kinds[place] = kind
      return
    }
    this.endStep()
    if (column.isPinned) {
      this.fail(unrepresentable({ ...this.table.record, key: this.table.key }, column, transaction.commitLsn))
      return
    }
    this.steps.push({ tag: 'widen', column: column.name, lsn: transaction.commitLsn })
    this.table.columns = this.table.columns.map((other) => (other.name === column.name ? { ...other, type: 'VARCHAR' } : other))
    this.#row(transaction, sequence, op, tuple, oldTuple)
  }

  /** Writes a row; returns the index of a column whose value does not fit, or −1. */
  #tryRow(step: RowsStep, transaction: TransactionContext, sequence: number, op: number, tuple: TupleView, oldTuple: TupleView | null): number {
    const writer = this.#writer
    this.#rowStart = writer.position
    const prefix = this.#prefixFor(step, transaction)
    writer.reserve(prefix.length + 64 + step.columns.length * 8)
    writer.raw(prefix, 0, prefix.length)
    if (step.hasTimes) {
      writer.integer(sequence)
      writer.delimiter()
    }
    writer.byte(op)
    writer.delimiter()
    this.#unchangedList(step, tuple, oldTuple)
    if (this.#omitted.length > 0) this.#omittedList(step, transaction)
    const misfit = writer.cells(step.encodings, this.table.tupleIndexes, tuple, oldTuple)
    if (misfit >= 0) return misfit
    writer.reserve(1)
    writer.endRow()
    const rowBytes = writer.position - this.#rowStart
    if (rowBytes > step.longestRowBytes) step.longestRowBytes = rowBytes
    if (op !== OP.insert && op !== OP.snapshot) step.hasChanges = true
    step.rowCount++
    step.byteCount += rowBytes
    this.#batch.rowCount++
    this.#batch.byteCount += rowBytes
    if (writer.position >= FLUSH_BYTES) this.#flush(step)
    return -1
  }

  /** `,2,5,` where columns 2 and 5 are unchanged and nobody here has their value; empty = NULL where there are none. */
  #unchangedList(step: RowsStep, tuple: TupleView, oldTuple: TupleView | null): void {
    const { tupleIndexes } = this.table
    let list = ''
    for (let index = 0; index < step.encodings.length; index++) {
      const place = tupleIndexes[index] ?? -1
      if (place < 0 || tuple.kinds[place] !== CELL_UNCHANGED || oldTuple?.kinds[place] === CELL_TEXT) continue
      list += list === '' ? `,${String(index)},` : `${String(index)},`
      step.unchanged.add(index)
    }
    if (list !== '') this.#writer.ascii(list)
  }

  /** `!3!!4!`, behind the unchanged columns. */
  #omittedList(step: RowsStep, { commitLsn }: TransactionContext): void {
    for (const index of this.#omitted) {
      this.#writer.ascii(`!${String(index)}!`)
      if (!step.misfits.has(index)) step.misfits.set(index, commitLsn)
    }
  }

  #prefixFor(step: RowsStep, transaction: TransactionContext): Buffer {
    if (this.#prefixOf === transaction) return this.#prefix
    const separator = String.fromCharCode(DELIMITER)
    let prefix = String(transaction.commitLsn) + separator
    if (step.isFiltered) prefix += String(transaction.xid) + separator
    if (step.hasTimes) prefix += microsText(transaction.commitTimeMicros) + separator
    this.#prefix = Buffer.from(prefix, 'latin1')
    this.#prefixOf = transaction
    return this.#prefix
  }

  #flush(step: RowsStep): void {
    if (this.#writer.position === 0) return
    this.#fileDescriptor ??= openSync(step.path, 'w')
    // Whole rows.
    if (!isUtf8(this.#writer.buffer.subarray(0, this.#writer.position))) step.hasInvalidText = true
    let written = 0
    while (written < this.#writer.position) written += writeSync(this.#fileDescriptor, this.#writer.buffer, written, this.#writer.position - written)
    this.#writer.position = 0
  }

  /**
   * Does the old tuple name the row, in the way that rows are told apart here? It does not where the stream is not yet, or not any more, at the key
   * that is known. Beside a copy that is behind us: the key was changed before its snapshots were taken, and they see all that came before. Else the
   * table stops: the row would stay for ever, or be doubled.
   */
  #isNamed(oldTuple: TupleView | null, isOldFull: boolean, isUpdate: boolean): boolean {
    const { keyIndexes, isFiltered } = this.#current()
    if (isAppendOnly(this.table.record)) return true
    const isWhole = keyIndexes.every((index) => oldTuple?.kinds[this.table.tupleIndexes[index] ?? -1] !== CELL_NULL)
    if (keyIndexes.length === 0 ? oldTuple !== null && isOldFull : isWhole || (oldTuple === null && isUpdate)) return true
    if (!isFiltered) this.fail(notNamed(this.table))
    return false
  }

  #hasUnchanged(tuple: TupleView): boolean {
    for (let index = 0; index < tuple.columnCount; index++) if (tuple.kinds[index] === CELL_UNCHANGED) return true
    return false
  }

  #hasKeyChanged(keyIndexes: readonly number[], oldTuple: TupleView, tuple: TupleView): boolean {
    for (const index of keyIndexes) {
      const place = this.table.tupleIndexes[index] ?? -1
      if (place < 0 || tuple.kinds[place] === CELL_UNCHANGED || oldTuple.kinds[place] === CELL_NULL) continue
      const order = Buffer.compare(
        oldTuple.buffer.subarray(oldTuple.starts[place], oldTuple.ends[place]),
        tuple.buffer.subarray(tuple.starts[place], tuple.ends[place]),
      )
      if (order !== 0) return true
    }
    return false
  }

  /**
   * A move takes its unchanged values from the destination's row of the old key, as it is when the step begins. So no change of that
   * key may stand before it in the step: a new step begins with the first such move, and again where an old key was touched since.
   */
  #beforeMove(oldTuple: TupleView, tuple: TupleView, keyIndexes: readonly number[]): void {
    const oldKey = this.#keyText(oldTuple, keyIndexes)
    if (this.#movedKeys === null || this.#movedKeys.has(oldKey)) {
      this.endStep()
      this.#current()
      this.#movedKeys = new Set()
    }
    this.#movedKeys.add(oldKey).add(this.#keyText(tuple, keyIndexes, oldTuple))
  }

  #touch(tuple: TupleView, oldTuple: TupleView | null = null): void {
    if (this.#movedKeys !== null) this.#movedKeys.add(this.#keyText(tuple, this.#current().keyIndexes, oldTuple))
  }

  /** What a new tuple leaves out of its key (stored out of line, and unchanged) is in the old one. */
  #keyText(tuple: TupleView, keyIndexes: readonly number[], oldTuple: TupleView | null = null): string {
    let text = ''
    for (const index of keyIndexes) {
      const place = this.table.tupleIndexes[index] ?? -1
      const { buffer, starts, ends } = tuple.kinds[place] === CELL_UNCHANGED && oldTuple !== null ? oldTuple : tuple
      const cell = place < 0 ? '' : buffer.toString('latin1', starts[place], ends[place])
      text += `${String(cell.length)}:${cell}`
    }
    return text
  }
}

function notNamed({ record, key }: BatchTable): DomainError {
  const known = key.length === 0 ? 'the whole row' : `key ${key.map(quoteName).join(', ')}`
  return new DomainError({
    kind: 'TableNotReplicable',
    message: `${tableKey(record.source)}: a change does not name its row by ${known}, as the source's rows are known`,
    remedy: 'give the table (and each of its partitions) a primary key or REPLICA IDENTITY FULL, and let it be copied anew: start with "reset": true',
  })
}

/** Microseconds after Unix's epoch as a timestamptz text in UTC. */
export function microsText(micros: bigint): string {
  const millis = micros >= 0n ? micros / 1000n : (micros - 999n) / 1000n
  const rest = micros - millis * 1000n
  const iso = new Date(Number(millis)).toISOString() // 2026-11-22T12:00:00.123Z
  return `${iso.slice(0, 10)} ${iso.slice(11, 23)}${String(rest).padStart(3, '0')}+00`
}
