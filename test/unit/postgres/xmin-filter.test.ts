import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { xminPredicate } from '../../../src/postgres/xmin-filter.ts'

const EPOCH = 1n << 32n

/** What the condition says of a row whose `xmin` shows these 32 bits. */
function takes(predicate: string | null, shown: bigint): boolean {
  if (predicate === null) return true
  if (predicate === 'false') return false
  const ranges = [...predicate.matchAll(/BETWEEN (\d+) AND (\d+)|>= (\d+)/g)]
  return ranges.some(([, from, to, least]) => (least === undefined ? shown >= BigInt(from ?? '') && shown <= BigInt(to ?? '') : shown >= BigInt(least)))
}

function snapshotTo(xmax: bigint): Parameters<typeof xminPredicate>[1] {
  return { xmin: xmax, xmax, running: new Set() }
}

describe('the condition on xmin', () => {
  it('is a range, which goes round where an epoch ends between', () => {
    expect(xminPredicate(700n, snapshotTo(800n))).toBe('xmin::text::int8 BETWEEN 700 AND 799')
    expect(xminPredicate(EPOCH + 700n, snapshotTo(EPOCH + 800n))).toBe('xmin::text::int8 BETWEEN 700 AND 799')
    expect(xminPredicate(EPOCH - 5n, snapshotTo(EPOCH + 10n))).toBe('(xmin::text::int8 >= 4294967291 OR xmin::text::int8 BETWEEN 3 AND 9)')
  })

  it('takes nothing where nothing can be new, and everything where an epoch or more has passed', () => {
    expect(xminPredicate(800n, snapshotTo(800n))).toBe('false')
    expect(xminPredicate(800n, snapshotTo(800n + EPOCH))).toBeNull()
    expect(xminPredicate(800n, snapshotTo(800n + 5n * EPOCH))).toBeNull()
  })

  it('never leaves out a row that was written since, and takes no other of the last epoch', () => {
    const xid = fc.bigInt({ min: 3n, max: 6n * EPOCH })
    fc.assert(
      fc.property(xid, fc.bigInt({ min: 0n, max: 2n * EPOCH }), fc.bigInt({ min: 0n, max: 2n * EPOCH }), (since, more, back) => {
        const xmax = since + more
        const written = xmax - 1n - back
        // Ids 0, 1 and 2 of each epoch are given to nobody.
        if (written < 3n || written % EPOCH < 3n) return
        const isTaken = takes(xminPredicate(since, snapshotTo(xmax)), written % EPOCH)
        if (written >= since) expect(isTaken).toBe(true)
        else if (back < EPOCH && more <= EPOCH - 1n) expect(isTaken).toBe(false)
      }),
      { numRuns: 5_000, seed: 7 },
    )
  })
})
