/**
 * Rows as text that a source writes and a destination reads, without anybody in between looking at a cell: one line a row, ended by a
 * newline; cells in the order of the columns that were asked for, each as its type's output function gives it, `delimiter` between them.
 * A cell that holds delimiter, quote, newline or carriage return, and the empty string, stands in quotes, a quote in it doubled;
 * NULL is nothing at all. UTF-8.
 */
export interface DelimitedText {
  /** One ASCII character. */
  readonly delimiter: string
  /** Another one. */
  readonly quote: string
}

/** Whole lines, `buffer[start…end)`. Object and bytes are valid during the call that hands them over, and the bytes may be changed. */
export interface Lines {
  buffer: Buffer
  start: number
  end: number
  rowCount: number
  /** Bytes of the longest line. */
  longestRowBytes: number
}
