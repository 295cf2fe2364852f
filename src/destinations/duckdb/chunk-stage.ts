import { join } from 'node:path'
import type { BinaryRows } from '../../model/binary-rows.ts'
import type { TupleView } from '../../model/change.ts'
import type { DelimitedText, Lines } from '../../model/delimited-text.ts'
import type { BatchTable, ChunkPosition, ChunkStage, TableRecord, TransactionContext } from '../../model/destination.ts'
import { type Lsn, toLsn } from '../../model/lsn.ts'
import { keepsPast } from '../../model/shapes.ts'
import { tableKey } from '../../model/table-schema.ts'
import { binaryEncodings, type BinaryEncoding } from './binary-encoding.ts'
import { BinaryRowFile } from './binary-row-file.ts'
import type { CellEncoding } from './cell-encoding.ts'
import { lineEncodings } from './line-encoding.ts'
import { LineFile, STAGING_TEXT } from './line-file.ts'
import { StagedBatch } from './staging.ts'
import type { RowsStep, TableStage } from './steps.ts'

export interface ChunkPlace {
  readonly directory: string
  /** The staging files'. */
  readonly name: string
  /** See `Database.withoutBinary`. */
  readonly withoutBinary: Set<string>
}

/**
 * One chunk's rows, all of one kind: in binary form, where every column has such a way and no value falls out of it; as lines that the source writes, where every
 * column can be read from these; else a batch of one table whose rows are all copied ones.
 */
export class DuckDbChunk implements ChunkStage {
  readonly table: TableRecord
  readonly chunk: ChunkPosition
  readonly lineFormat: DelimitedText | null
  readonly #withoutBinary: Set<string>
  readonly #batch: StagedBatch
  readonly #batchTable: BatchTable
  readonly #transaction: TransactionContext
  readonly #lines: LineFile
  readonly #lineEncodings: CellEncoding[] | null
  readonly #binaryEncodings: readonly BinaryEncoding[]
  #binary: BinaryRowFile | null

  constructor({ directory, name, withoutBinary }: ChunkPlace, table: TableRecord, chunk: ChunkPosition) {
    this.table = table
    this.chunk = chunk
    this.#withoutBinary = withoutBinary
    this.#batch = new StagedBatch(directory, name)
    let place = 0
    const tupleIndexes = Int32Array.from(table.columns, ({ isDropped }) => (isDropped ? -1 : place++))
    this.#batchTable = { record: table, columns: table.columns, key: table.key, tupleIndexes, isFiltered: false }
    this.#transaction = { commitLsn: copiedLsn(table, chunk), commitTimeMicros: chunk.timeMicros, xid: 0 }
    this.#batch.beginTransaction(this.#transaction)
    const columns = columnsThere(table)
    this.#lines = new LineFile(join(directory, `${name}.lines`))
    this.#lineEncodings = lineEncodings(columns)
    this.lineFormat = this.#lineEncodings === null ? null : STAGING_TEXT
    this.#binaryEncodings = (withoutBinary.has(nameOf(table)) ? null : binaryEncodings(columns)) ?? []
    this.#binary = this.#binaryEncodings.length === 0 ? null : new BinaryRowFile(join(directory, `${name}.parquet`), this.#binaryEncodings)
  }

  get rowCount(): number {
    return this.#batch.rowCount + this.#lines.rowCount + (this.#binary?.rowCount ?? 0)
  }

  get byteCount(): number {
    return this.#batch.byteCount + this.#lines.byteCount + (this.#binary?.byteCount ?? 0)
  }

  get takesBinary(): boolean {
    return this.#binary !== null
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

  addBinaryRows(rows: BinaryRows): boolean {
    return this.#binary?.add(rows) === true || this.#dropBinary()
  }

  endBinaryRows(): boolean {
    return this.#binary?.end() === true || this.#dropBinary()
  }

  /** The record may have changed since the copy began (other chunks): the rows go to what it is now. */
  withRecord(record: TableRecord): void {
    this.#batchTable.record = record
  }

  toTableStage(): TableStage {
    this.#lines.close()
    const steps = [...this.#binarySteps(), ...this.#lineSteps()]
    return this.#batch.stages[0] ?? { table: this.#batchTable, steps, lastCommitLsn: this.chunk.rowLsn }
  }

  discard(): void {
    this.#batch.discard()
    this.#lines.discard()
    this.#binary?.discard()
  }

  #dropBinary(): false {
    this.#binary?.discard()
    this.#binary = null
    this.#withoutBinary.add(nameOf(this.table))
    return false
  }

  #binarySteps(): readonly RowsStep[] {
    if (this.#binary === null || this.#binary.rowCount === 0) return []
    const { path, rowCount, byteCount } = this.#binary
    return [this.#step({ path, rowCount, byteCount, isParquet: true, longestRowBytes: 0, hasInvalidText: false, encodings: this.#binaryEncodings.map(({ cell }) => cell) })]
  }

  #lineSteps(): readonly RowsStep[] {
    if (this.#lineEncodings === null || this.#lines.rowCount === 0) return []
    const { path, rowCount, byteCount, longestRowBytes, hasInvalidText } = this.#lines
    return [this.#step({ path, rowCount, byteCount, isParquet: false, longestRowBytes, hasInvalidText, encodings: this.#lineEncodings })]
  }

  #step(file: Pick<RowsStep, 'path' | 'rowCount' | 'byteCount' | 'isParquet' | 'longestRowBytes' | 'hasInvalidText' | 'encodings'>): RowsStep {
    const { key, copy } = this.table
    const columns = columnsThere(this.table)
    return {
      tag: 'rows',
      ...file,
      columns,
      keyIndexes: key.map((name) => columns.findIndex((column) => column.name === name)),
      hasTimes: keepsPast(this.table),
      isFiltered: false,
      generation: copy?.generation ?? 0,
      common: this.#transaction,
      unchanged: new Set(),
      misfits: new Map(),
      tried: new Set(),
      hasMoves: false,
      hasChanges: false,
      inserts: 0,
      updates: 0,
      deletes: 0,
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

/** One table in the whole file: two sources may have the same oid. */
function nameOf({ oid, target }: TableRecord): string {
  return `${String(oid)} ${tableKey(target)}`
}

/** What is asked of the source. */
function columnsThere({ columns }: TableRecord): RowsStep['columns'] {
  return columns.filter(({ isDropped }) => !isDropped)
}
