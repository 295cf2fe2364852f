import type { BinaryRows } from '../model/binary-rows.ts'
import type { CopyOutOptions } from './copy-out.ts'

const FIRST_ROWS = 1_024

/** Gathers the rows of single CopyData messages of a binary copy, so that a whole read goes on at once and no byte of it is moved. */
export function gatherBinaryRows(onRows: (rows: BinaryRows) => void): Pick<CopyOutOptions, 'isBinary' | 'onCopyData' | 'onDrained'> {
  const rows: BinaryRows = { buffer: Buffer.alloc(0), bounds: new Int32Array(2 * FIRST_ROWS), rowCount: 0 }
  return {
    isBinary: true,
    onCopyData(buffer, start, end) {
      const place = 2 * rows.rowCount
      if (place === rows.bounds.length) {
        const grown = new Int32Array(2 * place)
        grown.set(rows.bounds)
        rows.bounds = grown
      }
      rows.buffer = buffer
      rows.bounds[place] = start
      rows.bounds[place + 1] = end
      rows.rowCount++
      return undefined
    },
    onDrained() {
      if (rows.rowCount === 0) return
      onRows(rows)
      rows.rowCount = 0
    },
  }
}
