import { isUtf8 } from 'node:buffer'
import { BinaryColumn, type Cells } from './binary-column.ts'

const LENGTH_BYTES = 4
/** From here on a text is copied by the call into native code; a shorter one costs less in a loop, which also sees whether it is ASCII. */
const NATIVE_COPY_BYTES = 512
/** From here on the length that stands before a text may be no ASCII. */
const LONG_BYTES = 128
const HIGH_BITS = 0x80808080
/** Before the text of a jsonb. */
const JSONB_VERSION = 1

/** Bytes as they are, each value behind its length. */
export class BytesColumn extends BinaryColumn {
  readonly width = -1

  override take({ buffer, view, places, first, step, rowCount, firstRow }: Cells): boolean {
    for (let row = 0, index = first; row < rowCount; row++, index += step) {
      const at = places[index] as number
      if (at < 0) {
        this.addNull(firstRow + row)
        continue
      }
      const length = view.getInt32(at - LENGTH_BYTES)
      this.reserve(LENGTH_BYTES + length)
      this.view.setInt32(this.valueBytes, length, true)
      this.valueBytes += LENGTH_BYTES + buffer.copy(this.values, this.valueBytes + LENGTH_BYTES, at, at + length)
    }
    return true
  }
}

/** Text; what is no UTF-8 does not fit. */
export class TextColumn extends BinaryColumn {
  readonly width = -1
  readonly #isJsonb: boolean
  /** All that lies before it has been looked at. */
  #checkedBytes = 0
  /** May there be a byte behind it that is no ASCII? */
  #hasHighBytes = false

  /** `isJsonb`: texts stand behind a version. */
  constructor({ isJsonb }: { readonly isJsonb: boolean }) {
    super()
    this.#isJsonb = isJsonb
  }

  override take({ buffer, view, places, first, step, rowCount, firstRow }: Cells): boolean {
    const skipped = this.#isJsonb ? 1 : 0
    let target = this.view
    let capacity = this.values.length
    let to = this.valueBytes
    for (let row = 0, index = first; row < rowCount; row++, index += step) {
      const at = places[index] as number
      if (at < 0) {
        this.addNull(firstRow + row)
        continue
      }
      const start = at + skipped
      const length = view.getInt32(at - LENGTH_BYTES) - skipped
      if (skipped === 1 && (length < 0 || view.getUint8(at) !== JSONB_VERSION)) return false
      if (to + LENGTH_BYTES + length > capacity) {
        this.valueBytes = to
        this.reserve(LENGTH_BYTES + length)
        target = this.view
        capacity = this.values.length
      }
      target.setInt32(to, length, true)
      const begin = to + LENGTH_BYTES
      let hasHighBytes = true
      if (length < NATIVE_COPY_BYTES) hasHighBytes = (copyBytes(view, start, target, begin, length) & HIGH_BITS) !== 0
      else buffer.copy(this.values, begin, start, start + length)
      if (length < LONG_BYTES) {
        // Short ones are looked at together: what stands between them is ASCII.
        if (hasHighBytes) this.#hasHighBytes = true
      } else {
        if (!this.#isTextUntil(to)) return false
        if (hasHighBytes && !isUtf8(this.values.subarray(begin, begin + length))) return false
        this.#checkedBytes = begin + length
      }
      to = begin + length
    }
    this.valueBytes = to
    return true
  }

  override isWhole(): boolean {
    return this.#isTextUntil(this.valueBytes)
  }

  override clear(): void {
    super.clear()
    this.#checkedBytes = 0
    this.#hasHighBytes = false
  }

  #isTextUntil(end: number): boolean {
    const start = this.#checkedBytes
    this.#checkedBytes = end
    if (!this.#hasHighBytes) return true
    this.#hasHighBytes = false
    return isUtf8(this.values.subarray(start, end))
  }
}

/** Eight at a time. Returns all of them in one (or), as four bytes. */
function copyBytes(source: DataView, start: number, target: DataView, begin: number, length: number): number {
  let all = 0
  let at = 0
  for (const last = length - 8; at <= last; at += 8) {
    const a = source.getInt32(start + at, true)
    const b = source.getInt32(start + at + 4, true)
    all |= a | b
    target.setInt32(begin + at, a, true)
    target.setInt32(begin + at + 4, b, true)
  }
  for (; at < length; at++) {
    const byte = source.getUint8(start + at)
    all |= byte
    target.setUint8(begin + at, byte)
  }
  return all
}
