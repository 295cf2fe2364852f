/**
 * Rows as a source's server gives them in binary form, without anybody in between looking at a value: each is the number of its values, in two bytes, then for
 * each of them its length in four bytes (−1 = NULL) and its bytes as its type's send function gives them. All numbers are big-endian, texts are in the encoding
 * of the connection.
 *
 * Source: https://www.postgresql.org/docs/current/sql-copy.html (Binary Format, Tuples)
 */
export interface BinaryRows {
  /** Object and bytes are valid during the call that hands them over. */
  buffer: Buffer
  /** Start and end of each row. */
  bounds: Int32Array
  rowCount: number
}
