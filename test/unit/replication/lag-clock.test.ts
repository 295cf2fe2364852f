import { expect, it } from 'vitest'
import { toLsn } from '../../../src/model/lsn.ts'
import { LagClock } from '../../../src/replication/lag-clock.ts'

const SECOND = 1_000

/** A clock that has seen the source at these positions, at these seconds. */
function clockOf(...seen: readonly (readonly [second: number, lsn: number])[]): LagClock {
  const clock = new LagClock()
  for (const [second, lsn] of seen) clock.note(toLsn(BigInt(lsn)), second * SECOND)
  return clock
}

function lagSeconds(clock: LagClock, position: { readonly applied: number; readonly now: number; readonly lastCommit?: number }): number | null {
  const { applied, now, lastCommit } = position
  const lagMs = clock.lagMs({ appliedLsn: toLsn(BigInt(applied)), lastCommitTimeMicros: BigInt((lastCommit ?? 0) * 1e6), nowMs: now * SECOND })
  return lagMs === null ? null : lagMs / SECOND
}

it('knows nothing before it has seen the source', () => {
  expect(lagSeconds(clockOf(), { applied: 5, now: 10 })).toBeNull()
})

it('is 0 where everything is applied that the source was seen to have', () => {
  expect(lagSeconds(clockOf([1, 100], [3, 200]), { applied: 200, now: 60 })).toBe(0)
})

it('counts from when the source was first seen past what is applied', () => {
  const clock = clockOf([2, 100], [4, 100], [6, 200], [8, 300])
  expect(lagSeconds(clock, { applied: 100, now: 10 })).toBe(4)
  expect(lagSeconds(clock, { applied: 250, now: 10 })).toBe(2)
  expect(lagSeconds(clock, { applied: 300, now: 10 })).toBe(0)
})

it('does not take the age of the last commit for lag when other WAL has been written for a moment', () => {
  expect(lagSeconds(clockOf([7_000, 100], [7_199, 164]), { applied: 100, now: 7_200, lastCommit: 5 })).toBe(1)
})

it('takes the age of the last commit for a backlog from before it looked', () => {
  const clock = clockOf([100, 500])
  expect(lagSeconds(clock, { applied: 20, now: 101 })).toBeNull()
  expect(lagSeconds(clock, { applied: 40, now: 102, lastCommit: 12 })).toBe(90)
  expect(lagSeconds(clock, { applied: 500, now: 103, lastCommit: 99 })).toBe(0)
})

it('stays right, if coarser, after a day behind', () => {
  const clock = new LagClock()
  for (let second = 0; second <= 86_400; second += 2) clock.note(toLsn(BigInt(1_000 + second)), second * SECOND)
  const lag = lagSeconds(clock, { applied: 1_000 + 43_200, now: 86_400 })
  expect(lag).toBeGreaterThan(43_200 - 300)
  expect(lag).toBeLessThanOrEqual(43_200)
})
