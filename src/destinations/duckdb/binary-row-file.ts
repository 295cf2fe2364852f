import type { BinaryRows } from '../../model/binary-rows.ts'
import { DomainError } from '../../model/errors.ts'
import type { BinaryColumn } from './binary-column.ts'
import type { BinaryEncoding } from './binary-encoding.ts'
import { ParquetFile } from './parquet-file.ts'

/** A row group is written when it has so many, as they came. */
const GROUP_BYTES = 4_194_304
/** The same for each column, where there are a great many: a page has a header. */
const GROUP_BYTES_OF_COLUMN = 32_768
/** A longer row would be in memory once more than as a line. */
const LONGEST_ROW_BYTES = 16_777_216
/** Values of rows that are looked at together: their places stay in the processor's cache. */
const PLACES = 2_048
const MINIMUM_ROWS = 32
/** Before the values of a row, and before each of them. */
const COUNT_BYTES = 2
const LENGTH_BYTES = 4

/**
 * A Parquet file of rows that a source gives in binary form: its columns are `c0`, `c1`, … Values go from the wire's bytes to the file's without a JS value in between.
 *
 * Source: https://www.postgresql.org/docs/current/sql-copy.html (Binary Format)
 */
export class BinaryRowFile {
  readonly #file: ParquetFile
  readonly #columns: readonly BinaryColumn[]
  readonly #widths: Int32Array
  readonly #groupBytes: number
  readonly #places: Int32Array
  #groupRows = 0
  #bufferedBytes = 0
  rowCount = 0
  /** Of the rows as they came. */
  byteCount = 0

  constructor(path: string, encodings: readonly BinaryEncoding[]) {
    this.#file = new ParquetFile(path, encodings.map(({ type }, index) => ({ name: `c${String(index)}`, type })))
    this.#columns = encodings.map(({ columnOf }) => columnOf())
    this.#widths = Int32Array.from(this.#columns, ({ width }) => width)
    this.#groupBytes = Math.max(GROUP_BYTES, encodings.length * GROUP_BYTES_OF_COLUMN)
    this.#places = new Int32Array(encodings.length * Math.max(MINIMUM_ROWS, Math.floor(PLACES / encodings.length)))
  }

  get path(): string {
    return this.#file.path
  }

  /**
   * False where a value has no exact place in the file, or a row is too long for it: then the rows have to be read in another way, and the file is to be discarded. Throws
   * `ProtocolViolation` for what are no rows of these columns.
   */
  add({ buffer, bounds, rowCount }: BinaryRows): boolean {
    const view = new DataView(buffer.buffer, buffer.byteOffset, buffer.length)
    const step = this.#columns.length
    const rowsAtOnce = this.#places.length / step
    for (let from = 0; from < rowCount; from += rowsAtOnce) {
      const count = Math.min(rowsAtOnce, rowCount - from)
      const byteCount = this.#locate(view, bounds, 2 * from, 2 * (from + count))
      if (byteCount === null) return false
      for (let first = 0; first < step; first++) {
        const cells = { buffer, view, places: this.#places, first, step, rowCount: count, firstRow: this.#groupRows }
        if (this.#columns[first]?.take(cells) !== true) return false
      }
      this.#groupRows += count
      this.rowCount += count
      this.#bufferedBytes += byteCount
      this.byteCount += byteCount
      if (this.#bufferedBytes >= this.#groupBytes && !this.#writeGroup()) return false
    }
    return true
  }

  /** No row is added after it. False as {@link add}. Idempotent. */
  end(): boolean {
    if (this.#groupRows > 0 && !this.#writeGroup()) return false
    this.#file.close()
    this.#release()
    return true
  }

  /** Idempotent. */
  discard(): void {
    this.#file.discard()
    this.#release()
  }

  /** The last one's memory is the next first one's, which is a column of the same kind where files are of one table. */
  #release(): void {
    for (const column of [...this.#columns].reverse()) column.release()
  }

  /** Finds where the rows' values begin. Returns how many bytes the rows have; null where one is too long. */
  #locate(view: DataView, bounds: Int32Array, firstBound: number, endBound: number): number | null {
    const places = this.#places
    const widths = this.#widths
    const columnCount = widths.length
    let byteCount = 0
    let place = 0
    for (let bound = firstBound; bound < endBound; bound += 2) {
      let at = bounds[bound] as number
      const end = bounds[bound + 1] as number
      if (end - at > LONGEST_ROW_BYTES) return null
      byteCount += end - at
      if (end - at < COUNT_BYTES || view.getInt16(at) !== columnCount) throw malformed()
      at += COUNT_BYTES
      for (let column = 0; column < columnCount; column++) {
        if (at + LENGTH_BYTES > end) throw malformed()
        const length = view.getInt32(at)
        at += LENGTH_BYTES
        if (length < 0) {
          if (length !== -1) throw malformed()
          places[place++] = -1
          continue
        }
        const width = widths[column] as number
        if (length > end - at || (width >= 0 && length !== width)) throw malformed()
        places[place++] = at
        at += length
      }
      if (at !== end) throw malformed()
    }
    return byteCount
  }

  #writeGroup(): boolean {
    if (!this.#columns.every((column) => column.isWhole())) return false
    this.#file.addGroup(this.#groupRows, this.#columns)
    for (const column of this.#columns) column.clear()
    this.#groupRows = 0
    this.#bufferedBytes = 0
    return true
  }
}

function malformed(): DomainError {
  return new DomainError({ kind: 'ProtocolViolation', message: 'a row of a binary COPY is none of the columns that were asked for', remedy: "Report this with the server's version." })
}
