import { describe, expect, it } from 'vitest'
import type { Measurement } from '../../../bench/measure.ts'
import { median, renderReports, summarize } from '../../../bench/report.ts'
import { workloadsOf, type Workload } from '../../../bench/workloads.ts'

const MEGABYTE = 1024 * 1024

function workload(): Workload {
  const [first] = workloadsOf(false)
  if (first === undefined) throw new Error('no workload')
  return first
}

function measurement(given: Partial<Measurement>): Measurement {
  return {
    seconds: 4,
    activities: [],
    closeSeconds: 2,
    referenceSeconds: [3, 5],
    workerCpuSeconds: 2,
    postgresCpuSeconds: 1,
    temporalCpuSeconds: 0.1,
    referencePostgresCpuSeconds: 1,
    peakRssBytes: 500 * MEGABYTE,
    faults: [],
    ...given,
  }
}

describe('the median', () => {
  it('is the middle value, or the mean of the two in the middle', () => {
    expect(median([3, 1, 2])).toBe(2)
    expect(median([4, 1, 2, 3])).toBe(2.5)
  })

  it('is unknown where a value is, and where there are none', () => {
    expect(median([1, null])).toBeNull()
    expect(median([])).toBeNull()
  })
})

describe('a report', () => {
  it('compares each run with the references around it, not with those of other runs', () => {
    const runs = [measurement({ seconds: 4, referenceSeconds: [3, 5] }), measurement({ seconds: 40, referenceSeconds: [30, 50] }), measurement({ seconds: 2, referenceSeconds: [4, 4] })]
    expect(summarize(workload(), runs).ratio).toBe(1)
  })

  it('has no ratio, and says why, where the reference is not on the machine', () => {
    const report = summarize(workload(), [measurement({ referenceSeconds: [] })])
    expect(report).toMatchObject({ ratio: null, isRatioReached: null, referenceRowsPerSecond: null })
    expect(renderReports([report])).toContain('pg_recvlogical is not on this machine')
  })

  it('gives speed and CPU seconds of a million changes', () => {
    expect(summarize(workload(), [measurement({})])).toMatchObject({
      rowsPerSecond: 125_000,
      referenceRowsPerSecond: 125_000,
      workerCpuSecondsPerMillion: 4,
      postgresCpuSecondsPerMillion: 2,
    })
  })

  it('takes the highest memory of all runs', () => {
    const report = summarize(workload(), [measurement({}), measurement({ peakRssBytes: 701 * MEGABYTE }), measurement({})])
    expect(report).toMatchObject({ peakRssBytes: 701 * MEGABYTE, isMemoryReached: false })
    expect(renderReports([report])).toContain('NOT reached: peak RSS 701 MB')
  })

  it('shows wrong rows whatever the speed', () => {
    const report = summarize(workload(), [measurement({}), measurement({ faults: ['rows differ'] })])
    expect(report.faults).toEqual(['run 2: rows differ'])
    expect(renderReports([report])).toContain('WRONG: run 2: rows differ')
  })
})
