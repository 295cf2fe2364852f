import { describe, expect, it } from 'vitest'
import { parseSnapshot } from '../../../src/model/snapshot.ts'
import { isVisible, widenXid } from '../../../src/pipeline/visibility.ts'

describe('visibility', () => {
  const snapshot = parseSnapshot('100:110:103,105')

  it('sees what had ended, not what was running or had not begun', () => {
    expect(isVisible(snapshot, 99n)).toBe(true)
    expect(isVisible(snapshot, 100n)).toBe(true)
    expect(isVisible(snapshot, 103n)).toBe(false)
    expect(isVisible(snapshot, 104n)).toBe(true)
    expect(isVisible(snapshot, 110n)).toBe(false)
  })
})

describe('a 32-bit transaction id', () => {
  const epoch = 1n << 32n

  it('is widened to the nearest 64-bit one, across the wraparound both ways', () => {
    expect(widenXid(5, 3n * epoch + 7n)).toBe(3n * epoch + 5n)
    expect(widenXid(0xffff_fff0, 3n * epoch + 7n)).toBe(2n * epoch + 0xffff_fff0n)
    expect(widenXid(3, 2n * epoch + 0xffff_fff0n)).toBe(3n * epoch + 3n)
    expect(widenXid(700, 650n)).toBe(700n)
  })
})
