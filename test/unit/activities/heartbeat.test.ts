import type { Context } from '@temporalio/activity'
import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { heartbeatWhile } from '../../../src/activities/heartbeat.ts'
import type { LiveProgress } from '../../../src/model/replication.ts'

beforeEach(() => { vi.useFakeTimers() })
afterEach(() => { vi.useRealTimers() })

it('tells what is new within a second, and every other second that it lives', async () => {
  const beats: unknown[] = []
  const context: Pick<Context, 'heartbeat'> = { heartbeat: (details) => { beats.push(details) } }
  let report: (live: LiveProgress) => void = () => undefined
  let finish: () => void = () => undefined
  const running = heartbeatWhile(context, async (given) => {
    report = given
    await new Promise<void>((resolve) => { finish = resolve })
  })
  expect(beats).toEqual([{ activity: 'starting' }])
  await vi.advanceTimersByTimeAsync(6_000)
  expect(beats).toHaveLength(1 + 3)
  report({ activity: 'first' })
  await vi.advanceTimersByTimeAsync(1_000)
  expect(beats.at(-1)).toEqual({ activity: 'first' })
  report({ activity: 'second' })
  await vi.advanceTimersByTimeAsync(1_000)
  expect(beats.at(-1)).toEqual({ activity: 'second' })
  await vi.advanceTimersByTimeAsync(1_000)
  expect(beats).toHaveLength(6)
  finish()
  await running
  expect(vi.getTimerCount()).toBe(0)
})
