/** Types of which DuckDB takes two values for equal whose texts differ: `1 month` and `30 days`, 0 and −0. */
const BY_TEXT = /^(?:INTERVAL|FLOAT|DOUBLE|TIMETZ)(?:\[\])?$/

/** Do only their texts tell whether two values of this type are the same? */
export function isToldByText(type: string): boolean {
  return BY_TEXT.test(type)
}

/**
 * What tells a value of a whole row from others: `1 month` equals `30 days`, in both databases, and is not the same. Not so 0 and −0, which
 * DuckDB's storage does not always keep apart: a row must be found.
 */
export function identityOf(type: string, value: string): string {
  return type.startsWith('INTERVAL') ? `${value}::VARCHAR` : value
}
