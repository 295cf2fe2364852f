import { describe, expect, it } from 'vitest'
import { parseBenchOptions } from '../../../bench/options.ts'
import { workloadsOf } from '../../../bench/workloads.ts'

describe('the command line of the benchmark', () => {
  it('runs every workload once at full size by default', () => {
    expect(parseBenchOptions([])).toEqual({
      isQuick: false,
      runCount: 1,
      workloads: ['W1', 'W2', 'S1'],
      postgres: 'system',
      jsonPath: null,
      profileDirectory: null,
    })
  })

  it('takes workloads in any order and case, and runs them in their own', () => {
    expect(parseBenchOptions(['--only', 's1, W1'])?.workloads).toEqual(['W1', 'S1'])
  })

  it('takes a major version of PostgreSQL', () => {
    expect(parseBenchOptions(['--postgres', '17', '--quick', '--runs', '3'])).toMatchObject({ postgres: 17, isQuick: true, runCount: 3 })
  })

  it.each([[['--only', 'W9']], [['--runs', '0']], [['--runs', 'many']], [['--postgres', '9']], [['--fast']]])('refuses %j', (args) => {
    expect(() => parseBenchOptions(args)).toThrow()
  })

  it('gives nothing to run when help is asked for', () => {
    expect(parseBenchOptions(['--help'])).toBeNull()
  })
})

describe('the workloads', () => {
  it.each([true, false])('are made of exactly as many changes as they say (quick: %s)', (isQuick) => {
    for (const { kind, size, preloadedRows, expected } of workloadsOf(isQuick)) {
      expect(expected.inserts + expected.updates + expected.deletes).toBe(kind === 'changes' ? size : 0)
      // Each delete hits a row of its own.
      expect(expected.deletes).toBeLessThanOrEqual(preloadedRows)
    }
  })
})
