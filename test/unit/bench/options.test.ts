import { describe, expect, it } from 'vitest'
import { parseBenchOptions, WORKLOAD_NAMES } from '../../../bench/options.ts'
import { workloadsOf } from '../../../bench/workloads.ts'

describe('the command line of the benchmark', () => {
  it('runs every workload once at full size by default, but the largest', () => {
    const options = parseBenchOptions([])
    expect(options).toMatchObject({ isQuick: false, runCount: 1, postgres: 'system', jsonPath: null, chartDirectory: null, profileDirectory: null })
    expect(options?.workloads).toEqual(WORKLOAD_NAMES.filter((name) => name !== 'W3L'))
    expect(parseBenchOptions(['--large'])?.workloads).toEqual(WORKLOAD_NAMES)
  })

  it('runs a few small workloads when it has to be quick, or those that are named', () => {
    expect(parseBenchOptions(['--quick'])?.workloads).toEqual(['W1', 'W2', 'S1', 'L1'])
    expect(parseBenchOptions(['--quick', '--only', 'P4'])?.workloads).toEqual(['P4'])
  })

  it('takes workloads in any order and case, and runs them in their own', () => {
    expect(parseBenchOptions(['--only', 's1, W1'])?.workloads).toEqual(['W1', 'S1'])
  })

  it('takes a major version of PostgreSQL', () => {
    expect(parseBenchOptions(['--postgres', '17', '--quick', '--runs', '3'])).toMatchObject({ postgres: 17, isQuick: true, runCount: 3 })
  })

  it('measures programs of others only where they are given', () => {
    expect(parseBenchOptions([])?.peers).toEqual({ duckdbExtensionPath: null, dltSourcePath: null, python: 'python3', debeziumPath: null, ingestrProgram: null })
    expect(parseBenchOptions(['--debezium', 'jars', '--ingestr', 'ingestr'])?.peers).toMatchObject({ debeziumPath: 'jars', ingestrProgram: 'ingestr' })
  })

  it.each([[['--only', 'W9']], [['--runs', '0']], [['--runs', 'many']], [['--postgres', '9']], [['--fast']]])('refuses %j', (args) => {
    expect(() => parseBenchOptions(args)).toThrow()
  })

  it('gives nothing to run when help is asked for', () => {
    expect(parseBenchOptions(['--help'])).toBeNull()
  })
})

describe('the workloads', () => {
  it.each([true, false])('are made of exactly as many changes and rows as they say (quick: %s)', (isQuick) => {
    for (const { size, task } of workloadsOf({ isQuick, isLarge: false })) {
      if (task.tag === 'snapshot') expect(task.preload.reduce((sum, { count }) => sum + count, 0)).toBe(size)
      if (task.tag !== 'backlog') continue
      const { inserts, updates, deletes } = task.expected
      expect(inserts + updates + deletes).toBe(size)
      // Each delete hits a row of its own.
      expect(deletes).toBeLessThanOrEqual(task.preload[0]?.count ?? 0)
    }
  })

  it('grow to ten million changes only when the largest sizes are asked for', () => {
    const backlogs = (isLarge: boolean) => workloadsOf({ isQuick: false, isLarge }).flatMap(({ name, task }) => (name === 'G1' && task.tag === 'growth' ? task.steps.map(({ size }) => size) : []))
    expect(backlogs(false)).toEqual([10_000, 100_000, 1_000_000])
    expect(backlogs(true)).toEqual([10_000, 100_000, 1_000_000, 10_000_000])
  })

  it('have each name once', () => {
    expect(workloadsOf({ isQuick: false, isLarge: false }).map(({ name }) => name)).toEqual(WORKLOAD_NAMES)
  })
})
