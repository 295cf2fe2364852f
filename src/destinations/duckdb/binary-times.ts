import { BinaryColumn, type Cells } from './binary-column.ts'

const TWO_TO_32 = 4_294_967_296
const MIN_INT32 = -0x80000000
const MAX_INT32 = 0x7fffffff
const MAX_UINT32 = 0xffffffff

/** 2000-01-01, from where PostgreSQL counts, after 1970-01-01: days, and microseconds in two halves. */
const EPOCH_DAYS = 10_957
const EPOCH_MICROS = EPOCH_DAYS * 86_400_000_000
const EPOCH_HIGH = Math.floor(EPOCH_MICROS / TWO_TO_32)
const EPOCH_LOW = EPOCH_MICROS % TWO_TO_32

/**
 * Days after 2000, which become days after 1970. ±infinity are the greatest and the least number; DuckDB's −infinity is the least but one.
 *
 * Source: https://github.com/postgres/postgres/blob/REL_18_STABLE/src/include/utils/date.h
 */
export class DateColumn extends BinaryColumn {
  readonly width = 4

  override take({ view, places, first, step, rowCount, firstRow }: Cells): boolean {
    this.reserve(4 * rowCount)
    const target = this.view
    let to = this.valueBytes
    for (let row = 0, index = first; row < rowCount; row++, index += step) {
      const at = places[index] as number
      if (at < 0) this.addNull(firstRow + row)
      else {
        const days = view.getInt32(at)
        target.setInt32(to, days === MAX_INT32 ? MAX_INT32 : days === MIN_INT32 ? -MAX_INT32 : days + EPOCH_DAYS, true)
        to += 4
      }
    }
    this.valueBytes = to
    return true
  }
}

/** Microseconds after 2000, which become microseconds after 1970; ±infinity as with {@link DateColumn}. DuckDB's last moment comes before PostgreSQL's: what lies behind it does not fit. */
export class TimestampColumn extends BinaryColumn {
  readonly width = 8

  override take({ view, places, first, step, rowCount, firstRow }: Cells): boolean {
    this.reserve(8 * rowCount)
    const target = this.view
    let to = this.valueBytes
    for (let row = 0, index = first; row < rowCount; row++, index += step) {
      const at = places[index] as number
      if (at < 0) {
        this.addNull(firstRow + row)
        continue
      }
      let high = view.getInt32(at)
      let low = view.getUint32(at + 4)
      if (high === MIN_INT32 && low === 0) low = 1
      else if (high !== MAX_INT32 || low !== MAX_UINT32) {
        low += EPOCH_LOW
        high += EPOCH_HIGH + (low > MAX_UINT32 ? 1 : 0)
        low |= 0
        if (high > MAX_INT32 || (high === MAX_INT32 && low === -1)) return false
      }
      target.setInt32(to, low, true)
      target.setInt32(to + 4, high, true)
      to += 8
    }
    this.valueBytes = to
    return true
  }
}
