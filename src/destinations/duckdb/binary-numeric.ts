import { BinaryColumn, type Cells } from './binary-column.ts'

const TWO_TO_32 = 4_294_967_296
/** Of the digits on the wire. */
const BASE = 10_000
const BASE_DIGITS = 4
/** Number of digits, weight of the first one, sign, and scale of the text, in two bytes each. */
const HEADER_BYTES = 8
/** As many of them as 18 decimal digits are spread over at most. */
const MAX_DIGITS = 6
/** A number with more places before and behind the point has more than 18 digits; up to here the high half is exact. */
const MAX_PLACES = 24
const POSITIVE = 0x0000
const NEGATIVE = 0x4000
const POWERS_OF_TEN: readonly number[] = Array.from({ length: 25 }, (_, exponent) => 10 ** exponent)

/**
 * Numbers of up to 18 digits, as 64 bits times 10 to the scale. NaN, ±infinity, more digits, and digits behind the scale do not fit.
 *
 * Source: https://github.com/postgres/postgres/blob/REL_18_STABLE/src/backend/utils/adt/numeric.c (numeric_send)
 */
export class NumericColumn extends BinaryColumn {
  readonly width = -1
  readonly #scale: number
  /** A number of the column is less than this, in two halves. */
  readonly #limitHigh: number
  readonly #limitLow: number

  constructor({ precision, scale }: { readonly precision: number; readonly scale: number }) {
    super()
    this.#scale = scale
    const limit = 10n ** BigInt(precision)
    this.#limitHigh = Number(limit >> 32n)
    this.#limitLow = Number(limit & 0xffffffffn)
  }

  override take({ view, places, first, step, rowCount, firstRow }: Cells): boolean {
    this.reserve(8 * rowCount)
    const target = this.view
    const scale = this.#scale
    let to = this.valueBytes
    for (let row = 0, index = first; row < rowCount; row++, index += step) {
      const at = places[index] as number
      if (at < 0) {
        this.addNull(firstRow + row)
        continue
      }
      const digitCount = view.getUint16(at)
      const weight = view.getInt16(at + 2)
      const sign = view.getUint16(at + 4)
      if ((sign !== POSITIVE && sign !== NEGATIVE) || digitCount > MAX_DIGITS || BASE_DIGITS * (weight + 1) + scale > MAX_PLACES) return false
      let high = 0
      let low = 0
      if (digitCount > 0) {
        // How far the last digit stands before the end of the scale, in decimal places. What of it lies behind it has to be zeros.
        const shift = scale - BASE_DIGITS * (digitCount - 1 - weight)
        if (shift <= -BASE_DIGITS) return false
        const lastAt = at + HEADER_BYTES + 2 * (digitCount - 1)
        const last = view.getUint16(lastAt)
        let value = 0
        for (let digitAt = at + HEADER_BYTES; digitAt < lastAt; digitAt += 2) value = value * BASE + view.getUint16(digitAt)
        if (shift >= 0) value = (value * BASE + last) * (POWERS_OF_TEN[shift] as number)
        else {
          const power = POWERS_OF_TEN[-shift] as number
          const kept = Math.floor(last / power)
          if (kept * power !== last) return false
          value = value * (POWERS_OF_TEN[BASE_DIGITS + shift] as number) + kept
        }
        // Then no step on the way has had more.
        if (value <= Number.MAX_SAFE_INTEGER) {
          high = Math.floor(value / TWO_TO_32)
          low = value - high * TWO_TO_32
        } else [high, low] = halvesOf(view, at, shift)
        if (high > this.#limitHigh || (high === this.#limitHigh && low >= this.#limitLow)) return false
      }
      if (sign === NEGATIVE) {
        high = ~high + (low === 0 ? 1 : 0)
        low = -low
      }
      target.setInt32(to, low, true)
      target.setInt32(to + 4, high, true)
      to += 8
    }
    this.valueBytes = to
    return true
  }
}

/** The same number in two halves, neither of which ever has more digits than are exact. */
function halvesOf(view: DataView, at: number, shift: number): readonly [high: number, low: number] {
  const digitCount = view.getUint16(at)
  let high = 0
  let low = 0
  const advance = (factor: number, addend: number): void => {
    const sum = low * factor + addend
    const carry = Math.floor(sum / TWO_TO_32)
    low = sum - carry * TWO_TO_32
    high = high * factor + carry
  }
  const digitOf = (index: number): number => view.getUint16(at + HEADER_BYTES + 2 * index)
  for (let index = 0; index < digitCount - 1; index++) advance(BASE, digitOf(index))
  const last = digitOf(digitCount - 1)
  if (shift < 0) {
    advance(POWERS_OF_TEN[BASE_DIGITS + shift] as number, last / (POWERS_OF_TEN[-shift] as number))
    return [high, low]
  }
  advance(BASE, last)
  for (let rest = shift; rest > 0; rest -= BASE_DIGITS) advance(POWERS_OF_TEN[Math.min(rest, BASE_DIGITS)] as number, 0)
  return [high, low]
}
