import { CELL_NULL, CELL_TEXT, type TupleView } from '../model/change.ts'
import { DomainError } from '../model/errors.ts'
import { growTupleView } from './pgoutput/tuple.ts'

const TAB = 0x09
const NEWLINE = 0x0a
const DOT = 0x2e
const BACKSLASH = 0x5c
const LETTER_N = 0x4e

/** What `\b`, `\f`, `\n`, `\r`, `\t`, `\v` and `\\` stand for: all that COPY TO writes. 0 = not an escape. */
const UNESCAPED = new Uint8Array(256)
for (const [letter, byte] of [['b', 8], ['f', 12], ['n', 10], ['r', 13], ['t', 9], ['v', 11], ['\\', BACKSLASH]] as const) UNESCAPED[letter.charCodeAt(0)] = byte

/**
 * Reads one row of COPY's text format, `buffer[start…end)`, its newline included, into `view`. Returns false for the end-of-data
 * marker `\.`, which is no row. Throws `ProtocolViolation` naming the column.
 *
 * Cells without a backslash stay where they are; the others are unescaped **in place** (the result is never longer), so the bytes of
 * the row are changed, no scratch area is needed, and all cells of a row lie in one buffer. No JS value is made per cell.
 *
 * Source: https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.3.55.9.2
 */
export function readCopyRow(row: { readonly buffer: Buffer; readonly start: number; readonly end: number }, view: TupleView, columnCount: number): boolean {
  const { buffer } = row
  const last = row.end - 1
  if (last < row.start || buffer[last] !== NEWLINE) throw violation('no newline at the end', 0)
  if (last === row.start + 2 && buffer[row.start] === BACKSLASH && buffer[row.start + 1] === DOT) return false
  growTupleView(view, columnCount)
  const { kinds, starts, ends } = view
  view.buffer = buffer
  view.columnCount = columnCount
  if (columnCount === 0) {
    if (last !== row.start) throw violation('bytes where there are no columns', 0)
    return true
  }
  let column = 0
  let at = row.start
  for (;;) {
    const cellStart = at
    let byte = buffer[at]
    // Every tab or newline in a value is escaped: the first one ends the cell, and the row's own newline ends the scan.
    while (byte !== TAB && byte !== NEWLINE && byte !== BACKSLASH) byte = buffer[++at]
    starts[column] = cellStart
    if (byte !== BACKSLASH) {
      kinds[column] = CELL_TEXT
      ends[column] = at
    } else if (at === cellStart && buffer[at + 1] === LETTER_N && isEndOfCell(buffer[at + 2])) {
      kinds[column] = CELL_NULL
      ends[column] = at
      at += 2
    } else {
      let write = at
      while (byte !== TAB && byte !== NEWLINE) {
        if (byte === BACKSLASH) {
          byte = UNESCAPED[buffer[++at] ?? 0] ?? 0
          if (byte === 0) throw violation('unknown escape', column)
        }
        buffer[write++] = byte ?? 0
        byte = buffer[++at]
      }
      kinds[column] = CELL_TEXT
      ends[column] = write
    }
    column++
    if (at === last) break
    if (buffer[at] === NEWLINE) throw violation('a newline inside the row', column - 1)
    if (column === columnCount) throw violation(`more than ${columnCount} columns`, column)
    at++
  }
  if (column !== columnCount) throw violation(`${column} columns instead of ${columnCount}`, column)
  return true
}

function isEndOfCell(byte: number | undefined): boolean {
  return byte === TAB || byte === NEWLINE
}

function violation(what: string, column: number): DomainError {
  return new DomainError({
    kind: 'ProtocolViolation',
    message: `row of COPY: ${what} (column ${column})`,
    remedy: 'Check that nothing between this program and PostgreSQL alters the connection; if it is direct, report the server version and this message.',
  })
}
