/** How the text of one cell is checked and written into a staging file. */
export const CellKind = {
  /** ASCII text without separators that DuckDB's cast reads as it is. */
  Plain: 0,
  /** Any text; quoted where it has to be. */
  Text: 1,
  /** Digits counted against precision and scale: DECIMAL would round. */
  Numeric: 2,
  Date: 3,
  Timestamp: 4,
  Interval: 5,
  Array: 6,
  /** Pinned to an integer type: only integers. */
  Integer: 7,
  /** Pinned to a float type: only values that it gives back as they were. */
  ExactFloat: 8,
} as const

export type CellKindNumber = (typeof CellKind)[keyof typeof CellKind]

/**
 * What becomes of text that cannot be cast: an error, or NULL. Never `TRY(…)`, whose retry row by row writes outside its vector (DuckDB 1.5.5,
 * https://github.com/duckdb/duckdb/issues/25280): other tables' values became NULL by it.
 */
export type Cast = 'CAST' | 'TRY_CAST'

export interface CellEncoding {
  readonly kind: CellKindNumber
  /** The type that `read_csv` casts the staged text to. */
  readonly csvType: string
  /** The expression from the staged column to the destination's type; `cast` is `CAST` where it is not given. */
  readonly fromCsv: (csv: string, cast?: Cast) => string
  readonly precision?: number
  readonly scale?: number
  readonly element?: CellEncoding
  readonly delimiter?: string
  readonly isSinglePrecision?: boolean
}

/** The value of the text `csv`, as {@link CellEncoding.fromCsv}, where no `read_csv` has cast it. */
export function valueOfText({ csvType, fromCsv }: CellEncoding, csv: string, cast: Cast): string {
  return csvType === 'VARCHAR' ? fromCsv(csv, cast) : `${cast}(${csv} AS ${csvType})`
}
