import type { TupleView } from '../../model/change.ts'
import { CELL_TEXT } from '../../model/change.ts'

/** What no UTF-8 text has: it stands for a byte that the database's encoding has no character for. */
const NO_CHARACTER = 0xff
/** Bytes below are ASCII in every encoding that a database can have. */
const FIRST_HIGH_BYTE = 0x80
/** The longest UTF-8 of a character of a single-byte encoding. */
const MAX_BYTES = 3

/** The UTF-8 of each byte of a single-byte encoding, from 0x80 on; null where the server has no character for it. */
export type ByteTable = readonly (Buffer | null)[]

/**
 * Text of a connection whose server does not convert it. The server's own conversion ends the whole stream at a byte that the database's encoding has no
 * character for; here such a byte becomes one that no UTF-8 text has, so that its table stops alone.
 *
 * As long as no table is given, text is UTF-8 already.
 */
export class SourceText {
  #table: ByteTable | null = null
  /** Where the cells of a converted tuple are; one for each view, as an old and a new one are used together. */
  readonly #scratch = new WeakMap<TupleView, Buffer>()

  use(table: ByteTable): void {
    this.#table = table
  }

  /** A name. */
  string(buffer: Buffer, start: number, end: number): string {
    if (this.#table === null || !hasHighByte(buffer, start, end)) return buffer.toString('utf8', start, end)
    const converted = Buffer.alloc((end - start) * MAX_BYTES)
    return converted.toString('utf8', 0, write(this.#table, { buffer, start, end }, converted, 0))
  }

  /** Converts the text cells of a tuple, which get another buffer where one of them is not ASCII. */
  convert(view: TupleView): void {
    const table = this.#table
    if (table === null) return
    let byteCount = 0
    let isAscii = true
    for (let column = 0; column < view.columnCount; column++) {
      if (view.kinds[column] !== CELL_TEXT) continue
      const start = view.starts[column] ?? 0
      const end = view.ends[column] ?? 0
      byteCount += end - start
      isAscii &&= !hasHighByte(view.buffer, start, end)
    }
    if (isAscii) return
    let scratch = this.#scratch.get(view)
    if (scratch === undefined || scratch.length < byteCount * MAX_BYTES) {
      scratch = Buffer.allocUnsafe(byteCount * MAX_BYTES)
      this.#scratch.set(view, scratch)
    }
    let at = 0
    for (let column = 0; column < view.columnCount; column++) {
      if (view.kinds[column] !== CELL_TEXT) continue
      const cell = { buffer: view.buffer, start: view.starts[column] ?? 0, end: view.ends[column] ?? 0 }
      view.starts[column] = at
      at = write(table, cell, scratch, at)
      view.ends[column] = at
    }
    view.buffer = scratch
  }
}

function hasHighByte(buffer: Buffer, start: number, end: number): boolean {
  for (let at = start; at < end; at++) if ((buffer[at] ?? 0) >= FIRST_HIGH_BYTE) return true
  return false
}

/** Writes a cell in UTF-8 and returns where it ends. */
function write(table: ByteTable, cell: { readonly buffer: Buffer; readonly start: number; readonly end: number }, into: Buffer, from: number): number {
  let at = from
  for (let place = cell.start; place < cell.end; place++) {
    const byte = cell.buffer[place] ?? 0
    if (byte < FIRST_HIGH_BYTE) {
      into[at++] = byte
      continue
    }
    const character = table[byte - FIRST_HIGH_BYTE] ?? null
    if (character === null) into[at++] = NO_CHARACTER
    else for (const part of character) into[at++] = part
  }
  return at
}
