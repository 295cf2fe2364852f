/**
 * A PostgreSQL log sequence number: a byte position in the write-ahead log, as a branded bigint (0 … 2^64 − 1).
 * At SQL and Temporal edges it is text (`16/B374D848`).
 *
 * Source: https://www.postgresql.org/docs/current/datatype-pg-lsn.html
 */
export type Lsn = bigint & { readonly __lsn: unique symbol }

/** The position before every record (`0/0`). */
export const ZERO_LSN = 0n as Lsn

const LSN_TEXT = /^([0-9A-Fa-f]{1,8})\/([0-9A-Fa-f]{1,8})$/

/** Parses PostgreSQL's text form. Throws `RangeError` on anything else. */
export function parseLsn(text: string): Lsn {
  const match = LSN_TEXT.exec(text)
  if (match === null) throw new RangeError(`not an LSN: ${JSON.stringify(text.slice(0, 40))}`)
  const [, high, low] = match
  return ((BigInt(`0x${high ?? '0'}`) << 32n) | BigInt(`0x${low ?? '0'}`)) as Lsn
}

/** PostgreSQL's text form, upper-case hexadecimal, without leading zeros. */
export function formatLsn(lsn: Lsn): string {
  return `${(lsn >> 32n).toString(16).toUpperCase()}/${(lsn & 0xffff_ffffn).toString(16).toUpperCase()}`
}

/** Brands a bigint that is known to be a position. */
export function toLsn(value: bigint): Lsn {
  return value as Lsn
}

/** The later of two positions. */
export function maxLsn(a: Lsn, b: Lsn): Lsn {
  return a > b ? a : b
}

/** WAL is written in pages of this size; each begins with a header of 24 bytes, a segment's first with one of 40. */
const WAL_PAGE_BYTES = 8192n
const PAGE_HEADER_BYTES: readonly bigint[] = [24n, 40n]

/**
 * The same place as PostgreSQL says it of a record's *end*: an insert position behind a page header, where the last record filled the page
 * before, is never reached by the end of any record, so waiting for it could take until something else is written.
 *
 * Source: https://github.com/postgres/postgres/blob/REL_18_STABLE/src/backend/access/transam/xlog.c (XLogBytePosToRecPtr, XLogBytePosToEndRecPtr)
 */
export function asRecordEnd(insertLsn: Lsn): Lsn {
  const offset = insertLsn % WAL_PAGE_BYTES
  return PAGE_HEADER_BYTES.includes(offset) ? ((insertLsn - offset) as Lsn) : insertLsn
}
