import { CELL_TEXT, CELL_UNCHANGED, type TupleView } from '../../model/change.ts'
import { CellKind, type CellEncoding } from './cell-encoding.ts'
import { rewriteInterval, rewriteTemporal } from './temporal-text.ts'

/** Separates cells; a control character, so that ordinary text, JSON included, needs no quoting. */
export const DELIMITER = 0x1f
/** Quotes cells that hold a separator, and the empty string (an unquoted empty cell is NULL). */
export const QUOTE = 0x1e
const NEWLINE = 0x0a
const CARRIAGE_RETURN = 0x0d

/** A cell shorter than this is copied byte by byte: the call into native memcpy costs more. */
const NATIVE_COPY_BYTES = 64
/** Bytes that may have to be quoted are below it, and so are tabs and other rare ones. */
const FIRST_ORDINARY = 0x20
const FOUR_ORDINARY = 0x20202020
const HIGH_BITS = 0x80808080

/** Above this, a full buffer is handed to the file. */
export const FLUSH_BYTES = 1 << 20

const TEXT_ENCODER_SCRATCH = 4096
/** A buffer that has grown for very long rows is not kept. */
const LONGEST_SPARE_BYTES = 4 * FLUSH_BYTES

/** A grown buffer that no writer has: batches come one after the other, and megabytes of garbage for each are a full collection every few of them. */
let spare: Buffer | null = null

const NO_ROOM = Buffer.alloc(0)

function takeSpare(bytes: number): Buffer | null {
  if (spare === null || spare.length < bytes) return null
  const taken = spare
  spare = null
  return taken
}

/**
 * Writes rows of the staging format (one line a row, `DELIMITER` between cells, `QUOTE` as quote and escape) into a growing buffer.
 * Cells go from the wire's bytes to the file's without a JS value in between (design.md, decision 3).
 */
export class CellWriter {
  buffer: Buffer
  position = 0
  #scratch: Buffer = Buffer.allocUnsafeSlow(TEXT_ENCODER_SCRATCH)
  /** Of the buffer, and of what was copied last. */
  #target = viewOf(NO_ROOM)
  #targetOf: Buffer = NO_ROOM
  #source = viewOf(NO_ROOM)
  #sourceOf: Buffer = NO_ROOM

  constructor(initialBytes = 16_384) {
    this.buffer = Buffer.allocUnsafeSlow(initialBytes)
  }

  /** Makes room for `bytes` more. */
  reserve(bytes: number): void {
    const needed = this.position + bytes
    if (needed <= this.buffer.length) return
    const grown = takeSpare(needed) ?? Buffer.allocUnsafeSlow(Math.max(needed, this.buffer.length * 2))
    this.buffer.copy(grown, 0, 0, this.position)
    this.buffer = grown
  }

  /** Gives its buffer to the next writer that needs one. What was written has been used up; it may write on. */
  release(): void {
    this.position = 0
    if (this.buffer.length < FLUSH_BYTES || this.buffer.length > LONGEST_SPARE_BYTES) return
    spare = this.buffer
    this.buffer = NO_ROOM
    this.#look(NO_ROOM)
  }

  delimiter(): void {
    this.buffer[this.position++] = DELIMITER
  }

  endRow(): void {
    this.buffer[this.position++] = NEWLINE
  }

  byte(value: number): void {
    this.buffer[this.position++] = value
  }

  /** Copies bytes that need no check. The caller has reserved. */
  raw(source: Buffer, start: number, end: number): void {
    if (end - start >= NATIVE_COPY_BYTES) {
      this.position += source.copy(this.buffer, this.position, start, end)
      return
    }
    this.#look(source)
    this.position = copyShort(this.#source, start, end, this.#target, this.position)
  }

  /** Makes the views those of these bytes, and of the buffer: a view costs as much as some cells. */
  #look(source: Buffer): void {
    if (this.#sourceOf !== source) {
      this.#sourceOf = source
      this.#source = viewOf(source)
    }
    if (this.#targetOf !== this.buffer) {
      this.#targetOf = this.buffer
      this.#target = viewOf(this.buffer)
    }
  }

  /** Writes an ASCII string that needs no quoting. Reserves by itself. */
  ascii(value: string): void {
    this.reserve(value.length)
    this.position += this.buffer.write(value, this.position, 'latin1')
  }

  /** Writes a whole number from 0 on, digit by digit: a text of it would be made for each row. Reserves by itself. */
  integer(value: number): void {
    let length = 1
    for (let rest = value; rest >= 10; rest = Math.floor(rest / 10)) length++
    this.reserve(length)
    let rest = value
    for (let at = this.position + length - 1; at >= this.position; at--) {
      const next = Math.floor(rest / 10)
      this.buffer[at] = 0x30 + (rest - next * 10)
      rest = next
    }
    this.position += length
  }

  /**
   * Writes the cells of a row, a delimiter before each: `tupleIndexes[i]` is the place in the tuple of what `encodings[i]` stages, −1 = nowhere. A
   * value that the tuple leaves unchanged is taken from `oldTuple` where it is there. Reserves by itself. Returns the index of a column whose
   * value does not fit (what was written of the row is then to be taken back), or −1.
   */
  cells(encodings: readonly CellEncoding[], tupleIndexes: Int32Array, tuple: TupleView, oldTuple: TupleView | null): number {
    const room = 2 * (byteCountOf(tuple) + (oldTuple === null ? 0 : byteCountOf(oldTuple))) + 64 * (encodings.length + 1)
    this.reserve(room)
    for (let index = 0; index < encodings.length; index++) {
      this.buffer[this.position++] = DELIMITER
      const place = tupleIndexes[index] as number
      if (place < 0) continue
      let source = tuple
      let kind = tuple.kinds[place]
      if (kind === CELL_UNCHANGED && oldTuple?.kinds[place] === CELL_TEXT) {
        source = oldTuple
        kind = CELL_TEXT
      }
      if (kind !== CELL_TEXT) continue
      const encoding = encodings[index] as CellEncoding
      const start = source.starts[place] as number
      const end = source.ends[place] as number
      if (encoding.kind === CellKind.Plain) this.raw(source.buffer, start, end)
      else if (encoding.kind === CellKind.Text) this.#text(source.buffer, start, end)
      else {
        if (!this.cell(encoding, source.buffer, start, end)) return index
        // What is rewritten may take more than its share.
        this.reserve(room)
      }
    }
    return -1
  }

  /**
   * Writes one cell, checked by its encoding. The caller has reserved `2 × length + 64` bytes.
   * Returns false where the value does not fit the encoding's type exactly; what was written of the cell is then to be taken back.
   */
  cell(encoding: CellEncoding, source: Buffer, start: number, end: number): boolean {
    switch (encoding.kind) {
      case CellKind.Plain:
        this.raw(source, start, end)
        return true
      case CellKind.Text:
        this.#text(source, start, end)
        return true
      case CellKind.Numeric:
        if (!fitsDecimal(source, start, end, encoding.precision ?? 38, encoding.scale ?? 0)) return false
        this.raw(source, start, end)
        return true
      case CellKind.Date:
        if (end - start === 10 && source[end - 1] !== 0x43) {
          this.raw(source, start, end)
          return true
        }
        return this.#rewritten(rewriteTemporal(source.toString('latin1', start, end), false))
      case CellKind.Timestamp:
        if (source[start + 4] === 0x2d && source[end - 1] !== 0x43) {
          this.raw(source, start, end)
          return true
        }
        return this.#rewritten(rewriteTemporal(source.toString('latin1', start, end), true))
      case CellKind.Interval:
        return this.#rewritten(rewriteInterval(source.toString('latin1', start, end)))
      case CellKind.Array:
        return this.#array(encoding, source, start, end)
      case CellKind.Integer:
        if (!isInteger(source, start, end)) return false
        this.raw(source, start, end)
        return true
      case CellKind.ExactFloat:
        if (!isExactFloat(source.toString('latin1', start, end), encoding.isSinglePrecision === true)) return false
        this.raw(source, start, end)
        return true
      default:
        return encoding.kind satisfies never
    }
  }

  #rewritten(text: string | null): boolean {
    if (text === null) return false
    this.ascii(text)
    return true
  }

  #text(source: Buffer, start: number, end: number): void {
    const out = this.buffer
    const begin = this.position
    if (start === end) {
      out[begin] = QUOTE
      out[begin + 1] = QUOTE
      this.position = begin + 2
      return
    }
    this.#look(source)
    const position = copyOrdinary(this.#source, start, end, this.#target, begin)
    if (position >= 0) this.position = position
    else if (needsQuotes(source, start, end)) this.#quotedText(source, start, end)
    else this.raw(source, start, end)
  }

  #quotedText(source: Buffer, start: number, end: number): void {
    const out = this.buffer
    let position = this.position
    out[position++] = QUOTE
    for (let i = start; i < end; i++) {
      const byte = source[i] as number
      if (byte === QUOTE) out[position++] = QUOTE
      out[position++] = byte
    }
    out[position++] = QUOTE
    this.position = position
  }

  /**
   * `{1,NULL,"a b"}` → `["1",null,"a b"]`: JSON's quoting is defined to the letter, DuckDB's list text is not. Several dimensions and
   * lower bounds other than 1 do not fit a list.
   *
   * Source: https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO
   */
  #array(encoding: CellEncoding, source: Buffer, start: number, end: number): boolean {
    const element = encoding.element
    const delimiter = (encoding.delimiter ?? ',').charCodeAt(0)
    if (element === undefined || source[start] !== 0x7b || source[end - 1] !== 0x7d) return false
    this.reserve((end - start) * 8 + 64)
    this.buffer[this.position++] = 0x5b // [
    let i = start + 1
    const last = end - 1
    let isFirst = true
    while (i < last) {
      if (!isFirst) {
        if (source[i] !== delimiter) return false
        i++
        this.buffer[this.position++] = 0x2c // ,
      }
      isFirst = false
      if (source[i] === 0x7b) return false // a second dimension
      if (source[i] === 0x22) {
        i++
        let length = 0
        if (this.#scratch.length < end - i) this.#scratch = Buffer.allocUnsafeSlow(end - i)
        while (i < last && source[i] !== 0x22) {
          if (source[i] === 0x5c) i++
          this.#scratch[length++] = source[i] as number
          i++
        }
        i++
        if (!this.#arrayItem(element, this.#scratch, 0, length)) return false
      } else {
        const from = i
        while (i < last && source[i] !== delimiter) i++
        if (i - from === 4 && source.toString('latin1', from, i) === 'NULL') this.#literal('null')
        else if (!this.#arrayItem(element, source, from, i)) return false
      }
    }
    this.buffer[this.position++] = 0x5d // ]
    return true
  }

  #literal(value: string): void {
    this.position += this.buffer.write(value, this.position, 'latin1')
  }

  #arrayItem(element: CellEncoding, source: Buffer, start: number, end: number): boolean {
    if (element.kind === CellKind.Numeric && !fitsDecimal(source, start, end, element.precision ?? 38, element.scale ?? 0)) return false
    let bytes = source
    let from = start
    let to = end
    if (element.kind === CellKind.Date || element.kind === CellKind.Timestamp || element.kind === CellKind.Interval) {
      const given = source.toString('latin1', start, end)
      const text = element.kind === CellKind.Interval ? rewriteInterval(given) : rewriteTemporal(given, element.kind === CellKind.Timestamp)
      if (text === null) return false
      bytes = Buffer.from(text, 'latin1')
      from = 0
      to = bytes.length
    }
    const out = this.buffer
    out[this.position++] = 0x22
    for (let i = from; i < to; i++) {
      const byte = bytes[i] as number
      if (byte < 0x20) this.#literal(`\\u00${byte.toString(16).padStart(2, '0')}`)
      else {
        if (byte === 0x22 || byte === 0x5c) out[this.position++] = 0x5c
        out[this.position++] = byte
      }
    }
    out[this.position++] = 0x22
    return true
  }
}

/**
 * Copies bytes as long as all are ordinary; returns the position behind them, or −1 where one is not. Four at a time, with one comparison for
 * all: this loop is where most of the time of staging goes.
 */
function copyOrdinary(source: DataView, start: number, end: number, target: DataView, begin: number): number {
  let at = start
  let position = begin
  for (const last = end - 4; at <= last; at += 4, position += 4) {
    const four = source.getInt32(at)
    // The highest bit of a byte that is less than FIRST_ORDINARY, and perhaps of one above it.
    if (((four - FOUR_ORDINARY) & ~four & HIGH_BITS) !== 0) return -1
    target.setInt32(position, four)
  }
  for (; at < end; at++) {
    const byte = source.getUint8(at)
    if (byte < FIRST_ORDINARY) return -1
    target.setUint8(position++, byte)
  }
  return position
}

/** Copies `source[start…end)`. Returns where it ends. */
function copyShort(source: DataView, start: number, end: number, target: DataView, begin: number): number {
  let at = start
  let position = begin
  for (const last = end - 4; at <= last; at += 4, position += 4) target.setInt32(position, source.getInt32(at))
  for (; at < end; at++) target.setUint8(position++, source.getUint8(at))
  return position
}

function viewOf(bytes: Buffer): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

function needsQuotes(source: Buffer, start: number, end: number): boolean {
  for (let at = start; at < end; at++) {
    const byte = source[at]
    if (byte === NEWLINE || byte === CARRIAGE_RETURN || byte === DELIMITER || byte === QUOTE) return true
  }
  return false
}

/** At least as many bytes as the tuple's cells have. */
function byteCountOf({ starts, ends, columnCount }: TupleView): number {
  let byteCount = 0
  for (let place = 0; place < columnCount; place++) byteCount += (ends[place] as number) - (starts[place] as number)
  return byteCount
}

/** Does the decimal text have at most `precision − scale` digits before the point and `scale` after it (trailing zeros apart)? NaN and infinity do not fit. */
export function fitsDecimal(source: Buffer, start: number, end: number, precision: number, scale: number): boolean {
  if (start === end) return false // an empty text: it would be staged as NULL
  let i = start
  if (source[i] === 0x2d) i++
  if (source[i] === 0x30 && i + 1 < end) i++ // a lone zero before the point is no digit of the precision
  let digits = 0
  while (i < end) {
    const byte = source[i] as number
    if (byte === 0x2e) break
    if (byte < 0x30 || byte > 0x39) return false
    digits++
    i++
  }
  if (digits > precision - scale && !(digits === 1 && source[i - 1] === 0x30)) return false
  if (i === end) return true
  let last = end - 1
  while (last > i && source[last] === 0x30) last--
  for (let k = i + 1; k <= last; k++) {
    const byte = source[k] as number
    if (byte < 0x30 || byte > 0x39) return false
  }
  return last - i <= scale
}

function isInteger(source: Buffer, start: number, end: number): boolean {
  let i = start
  if (source[i] === 0x2d) i++
  if (i === end) return false
  for (; i < end; i++) {
    const byte = source[i] as number
    if (byte < 0x30 || byte > 0x39) return false
  }
  return true
}

/** Is the shortest text of the nearest float the same number as the given text? */
export function isExactFloat(text: string, isSinglePrecision: boolean): boolean {
  if (text === 'NaN' || text === 'Infinity' || text === '-Infinity') return true
  const given = significantDigits(text)
  if (given === null) return false
  const value = isSinglePrecision ? Math.fround(Number(text)) : Number(text)
  if (!Number.isFinite(value)) return false
  const shown = isSinglePrecision ? shortestSingle(value) : String(value)
  return significantDigits(shown) === given
}

function shortestSingle(value: number): string {
  for (let digits = 1; digits <= 9; digits++) {
    const shown = value.toPrecision(digits)
    if (Math.fround(Number(shown)) === value) return shown
  }
  return String(value)
}

/** Sign, digits without outer zeros, and exponent: the same for two texts of one number. Null for what is no decimal number. */
function significantDigits(text: string): string | null {
  const match = /^(-?)(\d*)(?:\.(\d*))?(?:[eE]([+-]?\d+))?$/.exec(text)
  if (match === null) return null
  const fraction = match[3] ?? ''
  const all = (match[2] ?? '') + fraction
  const digits = all.replace(/^0+/, '')
  const trimmed = digits.replace(/0+$/, '')
  if (trimmed === '') return all === '' ? null : '0'
  const exponent = Number(match[4] ?? 0) - fraction.length + (digits.length - trimmed.length)
  return `${match[1] ?? ''}${trimmed}e${String(exponent)}`
}
