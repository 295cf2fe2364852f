import type { ColumnChunk } from './parquet-file.ts'

const FIRST_BYTES = 16_384
/** A buffer that has grown for very long values is not kept. */
const LONGEST_KEPT_BYTES = 16_777_216
const NO_NULLS = new Uint8Array(0)

/** Buffers that no column has. Files come one after the other: fresh megabytes for each of them have to be grown into, and are a full collection every few files. */
const spare: Buffer[] = []
const SPARE_BYTES = 33_554_432

function takeBuffer(): Buffer {
  return spare.pop() ?? Buffer.allocUnsafeSlow(FIRST_BYTES)
}

function giveBack(buffer: Buffer): void {
  const spareBytes = spare.reduce((sum, { length }) => sum + length, 0)
  if (buffer.length > 0 && spareBytes + buffer.length <= SPARE_BYTES) spare.push(buffer)
}

/** Where the values of one column are in rows as they came. */
export interface Cells {
  readonly buffer: Buffer
  /** Of the same bytes as `buffer`. */
  readonly view: DataView
  /** Where the values begin, −1 = NULL; each has its length before it, in four bytes. Of this column are `places[first]`, `places[first + step]`, … */
  readonly places: Int32Array
  readonly first: number
  readonly step: number
  readonly rowCount: number
  /** The number of the first row in its row group. */
  readonly firstRow: number
}

/** One column of a row group, as it will lie in the Parquet file: filled column by column, as a loop over one type is what the compiler makes fast code of. */
export abstract class BinaryColumn implements ColumnChunk {
  values: Buffer = takeBuffer()
  /** Of the bytes of `values`. */
  protected view = new DataView(this.values.buffer)
  valueBytes = 0
  nulls: Uint8Array = NO_NULLS
  nullCount = 0

  /** Bytes that each value has on the wire; −1 = they differ. */
  abstract readonly width: number

  /** False where a value has no exact place in the file: then nothing of the column is of account any more. */
  abstract take(cells: Cells): boolean

  /** False where what has been taken turns out to have no exact place in the file. */
  isWhole(): boolean {
    return true
  }

  /** For the next row group. */
  clear(): void {
    if (this.values.length > LONGEST_KEPT_BYTES) {
      this.values = Buffer.allocUnsafeSlow(FIRST_BYTES)
      this.view = new DataView(this.values.buffer)
    }
    if (this.nullCount > 0) this.nulls.fill(0)
    this.nullCount = 0
    this.valueBytes = 0
  }

  /** Gives its memory to other columns: nothing is taken after it. Idempotent. */
  release(): void {
    giveBack(this.values)
    this.values = Buffer.alloc(0)
    this.valueBytes = 0
  }

  /** `row`: its number in the group. */
  protected addNull(row: number): void {
    const place = row >> 3
    if (place >= this.nulls.length) {
      const grown = new Uint8Array(2 * place + 256)
      grown.set(this.nulls)
      this.nulls = grown
    }
    this.nulls[place] = (this.nulls[place] as number) | (1 << (row & 7))
    this.nullCount++
  }

  /** Makes room for so many bytes behind `valueBytes`. */
  protected reserve(byteCount: number): void {
    const needed = this.valueBytes + byteCount
    if (needed <= this.values.length) return
    const grown = Buffer.allocUnsafeSlow(Math.max(needed, 2 * this.values.length))
    this.values.copy(grown, 0, 0, this.valueBytes)
    this.values = grown
    this.view = new DataView(grown.buffer)
  }
}

/** Values of 32 bits, integers or not: their bytes are in the other order in the file. */
export class Int32Column extends BinaryColumn {
  readonly width: number = 4

  override take({ view, places, first, step, rowCount, firstRow }: Cells): boolean {
    this.reserve(4 * rowCount)
    const target = this.view
    let to = this.valueBytes
    for (let row = 0, index = first; row < rowCount; row++, index += step) {
      const at = places[index] as number
      if (at < 0) this.addNull(firstRow + row)
      else {
        target.setInt32(to, view.getInt32(at), true)
        to += 4
      }
    }
    this.valueBytes = to
    return true
  }
}

/** 16 bits, as 32: Parquet has none that are shorter. */
export class Int16Column extends BinaryColumn {
  readonly width = 2

  override take({ view, places, first, step, rowCount, firstRow }: Cells): boolean {
    this.reserve(4 * rowCount)
    const target = this.view
    let to = this.valueBytes
    for (let row = 0, index = first; row < rowCount; row++, index += step) {
      const at = places[index] as number
      if (at < 0) this.addNull(firstRow + row)
      else {
        target.setInt32(to, view.getInt16(at), true)
        to += 4
      }
    }
    this.valueBytes = to
    return true
  }
}

/** Values of 64 bits. */
export class Int64Column extends BinaryColumn {
  readonly width = 8

  override take({ view, places, first, step, rowCount, firstRow }: Cells): boolean {
    this.reserve(8 * rowCount)
    const target = this.view
    let to = this.valueBytes
    for (let row = 0, index = first; row < rowCount; row++, index += step) {
      const at = places[index] as number
      if (at < 0) this.addNull(firstRow + row)
      else {
        target.setInt32(to, view.getInt32(at + 4), true)
        target.setInt32(to + 4, view.getInt32(at), true)
        to += 8
      }
    }
    this.valueBytes = to
    return true
  }
}

const MAX_INT32 = 0x7fffffff
const FLOAT_EXPONENT = 0x7f800000
const FLOAT_NAN = 0x7fc00000
const DOUBLE_EXPONENT = 0x7ff00000
const DOUBLE_NAN = 0x7ff80000

/** Every NaN becomes the one that DuckDB makes of its text. */
export class Float32Column extends BinaryColumn {
  readonly width = 4

  override take({ view, places, first, step, rowCount, firstRow }: Cells): boolean {
    this.reserve(4 * rowCount)
    const target = this.view
    let to = this.valueBytes
    for (let row = 0, index = first; row < rowCount; row++, index += step) {
      const at = places[index] as number
      if (at < 0) this.addNull(firstRow + row)
      else {
        const bits = view.getInt32(at)
        target.setInt32(to, (bits & MAX_INT32) > FLOAT_EXPONENT ? FLOAT_NAN : bits, true)
        to += 4
      }
    }
    this.valueBytes = to
    return true
  }
}

/** As {@link Float32Column}. */
export class Float64Column extends BinaryColumn {
  readonly width = 8

  override take({ view, places, first, step, rowCount, firstRow }: Cells): boolean {
    this.reserve(8 * rowCount)
    const target = this.view
    let to = this.valueBytes
    for (let row = 0, index = first; row < rowCount; row++, index += step) {
      const at = places[index] as number
      if (at < 0) this.addNull(firstRow + row)
      else {
        const high = view.getInt32(at)
        const low = view.getInt32(at + 4)
        const magnitude = high & MAX_INT32
        const isNaN = magnitude >= DOUBLE_EXPONENT && (magnitude > DOUBLE_EXPONENT || low !== 0)
        target.setInt32(to, isNaN ? 0 : low, true)
        target.setInt32(to + 4, isNaN ? DOUBLE_NAN : high, true)
        to += 8
      }
    }
    this.valueBytes = to
    return true
  }
}

/** Eight of them in a byte. */
export class BooleanColumn extends BinaryColumn {
  readonly width = 1
  #count = 0

  override take({ view, places, first, step, rowCount, firstRow }: Cells): boolean {
    this.reserve((rowCount >> 3) + 1)
    const target = this.values
    let count = this.#count
    for (let row = 0, index = first; row < rowCount; row++, index += step) {
      const at = places[index] as number
      if (at < 0) this.addNull(firstRow + row)
      else {
        const bit = view.getUint8(at) << (count & 7)
        target[count >> 3] = (count & 7) === 0 ? bit : (target[count >> 3] as number) | bit
        count++
      }
    }
    this.#count = count
    this.valueBytes = (count + 7) >> 3
    return true
  }

  override clear(): void {
    super.clear()
    this.#count = 0
  }
}

/** 16 bytes as they are. */
export class UuidColumn extends BinaryColumn {
  readonly width = 16

  override take({ view, places, first, step, rowCount, firstRow }: Cells): boolean {
    this.reserve(16 * rowCount)
    const target = this.view
    let to = this.valueBytes
    for (let row = 0, index = first; row < rowCount; row++, index += step) {
      const at = places[index] as number
      if (at < 0) this.addNull(firstRow + row)
      else for (const end = to + 16; to < end; to += 4) target.setInt32(to, view.getInt32(at + 16 - (end - to)))
    }
    this.valueBytes = to
    return true
  }
}
