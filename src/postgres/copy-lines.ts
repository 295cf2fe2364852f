import type { Lines } from '../model/delimited-text.ts'
import type { CopyOutOptions } from './copy-out.ts'

/**
 * Makes runs of lines out of single CopyData messages: each line is moved up to the one before it, over the message header between them,
 * so that a whole read goes on at once and no byte of it is looked at.
 */
export function packLines(onLines: (lines: Lines) => void): Pick<CopyOutOptions, 'onCopyData' | 'onDrained'> {
  const run: Lines = { buffer: Buffer.alloc(0), start: 0, end: 0, rowCount: 0, longestRowBytes: 0 }
  return {
    onCopyData(buffer, start, end) {
      if (run.rowCount === 0) {
        run.buffer = buffer
        run.start = start
        run.end = start
      }
      const byteCount = end - start
      if (run.end !== start) buffer.copyWithin(run.end, start, end)
      run.end += byteCount
      run.rowCount++
      if (byteCount > run.longestRowBytes) run.longestRowBytes = byteCount
      return undefined
    },
    onDrained() {
      if (run.rowCount === 0) return
      onLines(run)
      run.rowCount = 0
      run.longestRowBytes = 0
    },
  }
}
