import { isUtf8 } from 'node:buffer'
import { closeSync, openSync, readSync, renameSync, writeSync } from 'node:fs'
import { type Lsn, toLsn } from '../../model/lsn.ts'
import { DELIMITER, QUOTE } from './cell-writer.ts'
import { stagingColumns, type RowsStep } from './steps.ts'

/** Read at once, or as much again as a row has that is longer. */
const PIECE_BYTES = 1 << 20
const NEWLINE = 0x0a

/** A row of a staging file: `buffer[starts[i]…ends[i])` are its cells, quotes included. Valid until the next one is asked for. */
interface StagedRow {
  readonly buffer: Buffer
  readonly starts: readonly number[]
  readonly ends: readonly number[]
}

/**
 * Columns of a staging file that have text which is no UTF-8, with the commit LSN of the first: only a database has such whose encoding
 * is SQL_ASCII, or has no character for some byte; and DuckDB reads no row of a file that holds one.
 */
export function findInvalidText(step: RowsStep): ReadonlyMap<number, Lsn> {
  const found = new Map<number, Lsn>()
  for (const row of stagedRows(step.path)) for (const index of invalidCells(row, step)) if (!found.has(index)) found.set(index, lsnOf(row, step))
  return found
}

/** Writes a staging file anew with NULL and a mark (see `misfits.ts`) where text is no UTF-8. */
export function markInvalidText(step: RowsStep): void {
  const path = `${step.path}.valid`
  const file = openSync(path, 'w')
  try {
    for (const row of stagedRows(step.path)) {
      const invalid = new Set(invalidCells(row, step))
      const marks = [...invalid].map((index) => `!${String(index)}!`).join('')
      const first = firstValue(step)
      for (const [place, start] of row.starts.entries()) {
        if (place > 0) writeSync(file, Buffer.of(DELIMITER))
        if (!invalid.has(place - first)) writeAll(file, row.buffer.subarray(start, row.ends[place]))
        if (place === first - 1) writeSync(file, marks)
      }
      writeSync(file, Buffer.of(NEWLINE))
    }
  } finally {
    closeSync(file)
  }
  renameSync(path, step.path)
}

function firstValue(step: RowsStep): number {
  return stagingColumns(step).length - step.encodings.length
}

function invalidCells({ buffer, starts, ends }: StagedRow, step: RowsStep): readonly number[] {
  const first = firstValue(step)
  return starts.flatMap((start, place) => (place < first || isUtf8(buffer.subarray(start, ends[place])) ? [] : [place - first]))
}

function lsnOf({ buffer, starts, ends }: StagedRow, { common }: RowsStep): Lsn {
  return common?.commitLsn ?? toLsn(BigInt(buffer.toString('latin1', starts[0], ends[0])))
}

function* stagedRows(path: string): Generator<StagedRow> {
  const file = openSync(path, 'r')
  try {
    let buffer = Buffer.alloc(0)
    let starts = [0]
    let ends: number[] = []
    let at = 0
    let isQuoted = false
    for (;;) {
      for (; at < buffer.length; at++) {
        const byte = buffer[at]
        if (byte === QUOTE) isQuoted = !isQuoted
        if (isQuoted || (byte !== DELIMITER && byte !== NEWLINE)) continue
        ends.push(at)
        if (byte === NEWLINE) {
          yield { buffer, starts, ends }
          starts = []
          ends = []
        }
        starts.push(at + 1)
      }
      const rowStart = starts[0] ?? 0
      const unread = buffer.length - rowStart
      const piece = Buffer.allocUnsafeSlow(unread + Math.max(PIECE_BYTES, unread))
      buffer.copy(piece, 0, rowStart)
      const byteCount = readSync(file, piece, unread, piece.length - unread, null)
      if (byteCount === 0) return
      buffer = piece.subarray(0, unread + byteCount)
      starts = starts.map((start) => start - rowStart)
      ends = ends.map((end) => end - rowStart)
      at -= rowStart
    }
  } finally {
    closeSync(file)
  }
}

function writeAll(file: number, bytes: Buffer): void {
  for (let at = 0; at < bytes.length;) at += writeSync(file, bytes, at)
}
