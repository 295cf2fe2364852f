import { expect, it } from 'vitest'
import { parseCpuTime, parseProcessStat } from '../../../bench/process-usage.ts'

it('reads CPU ticks and the parent of a process whose name has spaces and parentheses', () => {
  const stat = '4711 (a (b) c) S 42 4711 4711 0 -1 4194560 2133 99 0 0 130 25 7 3 20 0 11 0 5321 1000 200 18446744073709551615'
  expect(parseProcessStat(stat)).toEqual({ parentPid: 42, ownTicks: 155, endedChildrenTicks: 10 })
})

it.each([
  ['00:01:05', 65],
  ['  0:07.25', 7.25],
  ['1-02:00:00', 93_600],
])('reads the cumulative CPU time %j of ps', (text, seconds) => {
  expect(parseCpuTime(text)).toBe(seconds)
})
