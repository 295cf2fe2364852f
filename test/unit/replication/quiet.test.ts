import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { Bell } from '../../../src/replication/bell.ts'
import { Quiet } from '../../../src/replication/quiet.ts'

beforeEach(() => { vi.useFakeTimers() })
afterEach(() => { vi.useRealTimers() })

it('works less often once nothing has happened for 5 s, and as often as before after a stir', () => {
  const quiet = new Quiet()
  let calls = 0
  const timer = quiet.every({ intervalMs: 500, quietTicks: 4 }, () => { calls += 1 })
  vi.advanceTimersByTime(4_999)
  expect(calls).toBe(9)
  expect(quiet.isQuiet).toBe(false)
  vi.advanceTimersByTime(20_001)
  expect(quiet.isQuiet).toBe(true)
  expect(calls).toBe(9 + 10)
  quiet.stir()
  vi.advanceTimersByTime(500)
  expect(calls).toBe(20)
  vi.advanceTimersByTime(1_000)
  expect(calls).toBe(22)
  clearInterval(timer)
})

it('wakes all who wait when it rings, and each by itself when its time is over', async () => {
  const bell = new Bell()
  const woken: string[] = []
  const first = bell.wait(1_000).then(() => woken.push('first'))
  const second = bell.wait(5_000).then(() => woken.push('second'))
  const third = bell.wait(5_000).then(() => woken.push('third'))
  await vi.advanceTimersByTimeAsync(1_000)
  expect(woken).toEqual(['first'])
  bell.ring()
  await Promise.all([first, second, third])
  expect(woken).toEqual(['first', 'second', 'third'])
  expect(vi.getTimerCount()).toBe(0)
})
