import { join } from 'node:path'
import type { TupleView } from '../../model/change.ts'
import type { DelimitedText, Lines } from '../../model/delimited-text.ts'
import type { BatchTable, ChunkPosition, ChunkStage, TableRecord, TransactionContext } from '../../model/destination.ts'
import { type Lsn, toLsn } from '../../model/lsn.ts'
import { keepsPast } from '../../model/shapes.ts'
import type { CellEncoding } from './cell-encoding.ts'
import { lineEncodings } from './line-encoding.ts'
import { LineFile, STAGING_TEXT } from './line-file.ts'
import { StagedBatch } from './staging.ts'
import type { RowsStep, TableStage } from './steps.ts'

/**
 * One chunk's rows: lines as the source writes them where every column can be read from these, else a batch of one table whose rows
 * are all copied ones.
 */
export class DuckDbChunk implements ChunkStage {
  readonly table: TableRecord
  readonly chunk: ChunkPosition
  readonly lineFormat: DelimitedText | null
  readonly #batch: StagedBatch
  readonly #batchTable: BatchTable
  readonly #transaction: TransactionContext
  readonly #lines: LineFile
  readonly #lineEncodings: CellEncoding[] | null

  /** `name` is the staging files'. */
  constructor(directory: string, name: string, table: TableRecord, chunk: ChunkPosition) {
    this.table = table
    this.chunk = chunk
    this.#batch = new StagedBatch(directory, name)
    let place = 0
    const tupleIndexes = Int32Array.from(table.columns, ({ isDropped }) => (isDropped ? -1 : place++))
    this.#batchTable = { record: table, columns: table.columns, key: table.key, tupleIndexes, isFiltered: false }
    this.#transaction = { commitLsn: copiedLsn(table, chunk), commitTimeMicros: chunk.timeMicros, xid: 0 }
    this.#batch.beginTransaction(this.#transaction)
    this.#lines = new LineFile(join(directory, `${name}.lines`))
    this.#lineEncodings = lineEncodings(columnsThere(table))
    this.lineFormat = this.#lineEncodings === null ? null : STAGING_TEXT
  }

  get rowCount(): number {
    return this.#batch.rowCount + this.#lines.rowCount
  }

  get byteCount(): number {
    return this.#batch.byteCount + this.#lines.byteCount
  }

  /** Were these rows set aside for this chunk? */
  isOf(rows: { readonly oid: number; readonly chunk: number }): boolean {
    return rows.oid === this.table.oid && rows.chunk === this.chunk.index
  }

  add(tuple: TupleView): void {
    this.#batch.copy(this.#batchTable, tuple)
  }

  addLines(lines: Lines): void {
    this.#lines.add(lines)
  }

  /** The record may have changed since the copy began (other chunks): the rows go to what it is now. */
  withRecord(record: TableRecord): void {
    this.#batchTable.record = record
  }

  toTableStage(): TableStage {
    this.#lines.close()
    const steps = this.#lineEncodings === null || this.#lines.rowCount === 0 ? [] : [this.#linesStep(this.#lineEncodings)]
    return this.#batch.stages[0] ?? { table: this.#batchTable, steps, lastCommitLsn: this.chunk.rowLsn }
  }

  discard(): void {
    this.#batch.discard()
    this.#lines.discard()
  }

  #linesStep(encodings: CellEncoding[]): RowsStep {
    const { path, rowCount, byteCount, longestRowBytes, hasInvalidText } = this.#lines
    const { key, copy } = this.table
    const columns = columnsThere(this.table)
    return {
      tag: 'rows',
      path,
      columns,
      encodings,
      keyIndexes: key.map((name) => columns.findIndex((column) => column.name === name)),
      hasTimes: keepsPast(this.table),
      isFiltered: false,
      generation: copy?.generation ?? 0,
      common: this.#transaction,
      unchanged: new Set(),
      misfits: new Map(),
      tried: new Set(),
      hasInvalidText,
      hasMoves: false,
      hasChanges: false,
      inserts: 0,
      updates: 0,
      deletes: 0,
      rowCount,
      byteCount,
      longestRowBytes,
    }
  }
}

/**
 * The `_lsn` of copied rows. Where versions are kept it is before the commit of every change of them, so that each has a time when it was valid: the next
 * commit record may begin at the very position that is applied.
 */
export function copiedLsn(table: TableRecord, { rowLsn }: ChunkPosition): Lsn {
  return keepsPast(table) && rowLsn > 0n ? toLsn(rowLsn - 1n) : rowLsn
}

/** What is asked of the source. */
function columnsThere({ columns }: TableRecord): RowsStep['columns'] {
  return columns.filter(({ isDropped }) => !isDropped)
}
