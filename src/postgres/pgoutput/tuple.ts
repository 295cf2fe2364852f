import type { TupleView } from '../../model/change.ts'
import { CELL_BINARY, CELL_NULL, CELL_TEXT, CELL_UNCHANGED } from '../../model/change.ts'
import type { MessageReader } from './message-reader.ts'

const KIND_NULL = 0x6e // n
const KIND_TEXT = 0x74 // t
const KIND_UNCHANGED = 0x75 // u
const KIND_BINARY = 0x62 // b

const NO_BYTES = Buffer.alloc(0)

/** An empty view whose arrays hold `capacity` cells; {@link growTupleView} widens it. */
export function createTupleView(capacity = 16): TupleView {
  return {
    buffer: NO_BYTES,
    columnCount: 0,
    kinds: new Uint8Array(capacity),
    starts: new Uint32Array(capacity),
    ends: new Uint32Array(capacity),
  }
}

/** Makes room for `columnCount` cells; the arrays are replaced, their content is lost. */
export function growTupleView(view: TupleView, columnCount: number): void {
  if (view.kinds.length >= columnCount) return
  view.kinds = new Uint8Array(columnCount)
  view.starts = new Uint32Array(columnCount)
  view.ends = new Uint32Array(columnCount)
}

/**
 * Reads a TupleData of exactly `columnCount` columns into `view`: byte ranges only, nothing is copied or decoded.
 *
 * Source: https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html#PROTOCOL-LOGICALREP-MESSAGE-FORMATS-TUPLEDATA
 */
export function readTuple(reader: MessageReader, view: TupleView, columnCount: number): void {
  const announced = reader.uint16()
  if (announced !== columnCount) reader.fail(`tuple of ${announced} columns for a relation of ${columnCount}`, reader.position - 2)
  growTupleView(view, columnCount)
  const { buffer, end } = reader
  const { kinds, starts, ends } = view
  view.buffer = buffer
  view.columnCount = columnCount
  let at = reader.position
  for (let column = 0; column < columnCount; column++) {
    if (at >= end) reader.fail(`truncated: tuple ends before column ${column}`, at)
    const kind = buffer[at]
    if (kind === KIND_TEXT || kind === KIND_BINARY) {
      if (end - at < 5) reader.fail(`truncated: length of column ${column}`, at)
      const length =
        (((buffer[at + 1] ?? 0) << 24) | ((buffer[at + 2] ?? 0) << 16) | ((buffer[at + 3] ?? 0) << 8) | (buffer[at + 4] ?? 0)) >>> 0
      at += 5
      if (length > end - at) reader.fail(`truncated: column ${column} of ${length} bytes, ${end - at} left`, at - 4)
      kinds[column] = kind === KIND_TEXT ? CELL_TEXT : CELL_BINARY
      starts[column] = at
      at += length
      ends[column] = at
      continue
    }
    if (kind === KIND_NULL) kinds[column] = CELL_NULL
    else if (kind === KIND_UNCHANGED) kinds[column] = CELL_UNCHANGED
    else reader.fail(`unknown kind of column ${column}`, at)
    at++
    starts[column] = at
    ends[column] = at
  }
  reader.position = at
}
