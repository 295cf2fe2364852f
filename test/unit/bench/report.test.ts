import { describe, expect, it } from 'vitest'
import { latencies } from '../../../bench/measure-replicate.ts'
import { NOTHING_MEASURED, type Measurement } from '../../../bench/measure-sync.ts'
import { median, renderReports, summarize } from '../../../bench/report.ts'
import { workloadsOf, type Workload } from '../../../bench/workloads.ts'

const MEGABYTE = 1024 * 1024

function workload(name = 'W1'): Workload {
  const found = workloadsOf({ isQuick: false, isLarge: false }).find((each) => each.name === name)
  if (found === undefined) throw new Error('no workload')
  return found
}

function drained(...seconds: readonly number[]): Pick<Measurement, 'references'> {
  return { references: [{ name: 'pg_recvlogical', seconds }] }
}

function measurement(given: Partial<Measurement>): Measurement {
  return { ...NOTHING_MEASURED, seconds: 4, closeSeconds: 2, ...drained(3, 5), workerCpuSeconds: 2, postgresCpuSeconds: 1, peakRssBytes: 500 * MEGABYTE, ...given }
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
    const runs = [measurement({ seconds: 4, ...drained(3, 5) }), measurement({ seconds: 40, ...drained(30, 50) }), measurement({ seconds: 2, ...drained(4, 4) })]
    expect(summarize(workload(), runs).ratios).toEqual([{ reference: 'pg_recvlogical', referenceSeconds: 4, ratio: 1 }])
  })

  it('has no ratio, and says so, where the reference is not on the machine', () => {
    const report = summarize(workload(), [measurement({ references: [] })])
    expect(report.ratios).toEqual([])
    expect(renderReports([report])).toContain('not measured here: ÷ pg_recvlogical (aim: ≥ 1.60 ×)')
  })

  it('gives speed and CPU seconds of a million changes', () => {
    expect(summarize(workload(), [measurement({})])).toMatchObject({ rowsPerSecond: 250_000, workerCpuSecondsPerMillion: 2, postgresCpuSecondsPerMillion: 1 })
  })

  it('takes the highest memory of all runs, and says whether it was too much', () => {
    const report = summarize(workload(), [measurement({}), measurement({ peakRssBytes: 701 * MEGABYTE }), measurement({})])
    expect(report).toMatchObject({ peakRssBytes: 701 * MEGABYTE })
    expect(renderReports([report])).toContain('NOT reached: peak RSS 701 MB (aim: ≤ 600 MB)')
  })

  it('compares the same work with and without TLS', () => {
    const plain = summarize(workload(), [measurement({ seconds: 4 })])
    expect(summarize(workload('W4'), [measurement({ seconds: 5 })], [plain]).verdicts[0]).toMatchObject({ value: 0.8, isReached: true })
  })

  it('compares the same changes with and without a history', () => {
    const merge = summarize(workload('W2'), [measurement({ seconds: 4 })])
    expect(summarize(workload('W2A'), [measurement({ seconds: 5 })], [merge]).verdicts[0]).toMatchObject({ aim: { figure: 'ratioToMerge' }, value: 0.8, isReached: false })
    expect(summarize(workload('W2S'), [measurement({ seconds: 8 })], [merge]).verdicts[0]).toMatchObject({ aim: { figure: 'ratioToMerge' }, value: 0.5, isReached: true })
    expect(summarize(workload('W2S'), [measurement({ seconds: 8 })]).verdicts[0]).toMatchObject({ value: null })
  })

  it('shows wrong rows whatever the speed', () => {
    const report = summarize(workload(), [measurement({}), measurement({ faults: ['rows differ'] })])
    expect(report.faults).toEqual(['run 2: rows differ'])
    expect(renderReports([report])).toContain('WRONG: run 2: rows differ')
  })
})

describe('latency', () => {
  const commit = (visibleMs: number, appliedLsn: bigint) => ({ visibleMs, appliedLsn, transactionMs: 1 })

  it('is from a commit until the first commit at the destination that holds it', () => {
    const samples = [{ committedMs: 100, lsn: 10n }, { committedMs: 110, lsn: 20n }, { committedMs: 120, lsn: 30n }]
    expect(latencies(samples, [commit(90, 5n), commit(150, 20n), commit(160, 30n)])).toEqual({ latencyP50Ms: 40, latencyP99Ms: 50 })
  })

  it('is without an end where a change was never shown', () => {
    expect(latencies([{ committedMs: 100, lsn: 10n }], [])).toEqual({ latencyP50Ms: Infinity, latencyP99Ms: Infinity })
  })
})
