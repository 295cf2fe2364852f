import { isUtf8 } from 'node:buffer'
import { closeSync, openSync, rmSync, writeSync } from 'node:fs'
import type { DelimitedText, Lines } from '../../model/delimited-text.ts'
import { DELIMITER, QUOTE } from './cell-writer.ts'

/** The staging format, for a source that writes it itself. */
export const STAGING_TEXT: DelimitedText = { delimiter: String.fromCharCode(DELIMITER), quote: String.fromCharCode(QUOTE) }

/** Without it DuckDB would take a byte order mark that begins the first row's text for the file's. */
const FIRST_LINE = '\n'

/** A staging file of lines as the source wrote them, behind an empty first line. It is made with the first of them. */
export class LineFile {
  readonly path: string
  rowCount = 0
  byteCount = 0
  longestRowBytes = 0
  /** Is there text that is no UTF-8? */
  hasInvalidText = false
  #fileDescriptor: number | null = null

  constructor(path: string) {
    this.path = path
  }

  add({ buffer, start, end, rowCount, longestRowBytes }: Lines): void {
    this.#fileDescriptor ??= this.#open()
    if (!isUtf8(buffer.subarray(start, end))) this.hasInvalidText = true
    let at = start
    while (at < end) at += writeSync(this.#fileDescriptor, buffer, at, end - at)
    this.rowCount += rowCount
    this.byteCount += end - start
    this.longestRowBytes = Math.max(this.longestRowBytes, longestRowBytes)
  }

  /** After it no line is added. Idempotent. */
  close(): void {
    if (this.#fileDescriptor !== null) closeSync(this.#fileDescriptor)
    this.#fileDescriptor = null
  }

  /** Idempotent. */
  discard(): void {
    this.close()
    rmSync(this.path, { force: true })
  }

  #open(): number {
    const fileDescriptor = openSync(this.path, 'w')
    writeSync(fileDescriptor, FIRST_LINE)
    return fileDescriptor
  }
}
