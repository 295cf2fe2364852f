import { describe, expect, it } from 'vitest'
import { drawCharts } from '../../../bench/charts.ts'
import { NOTHING_MEASURED } from '../../../bench/measure-sync.ts'
import { summarize } from '../../../bench/report.ts'
import { workloadsOf } from '../../../bench/workloads.ts'

function reportOf(name: string, given: Partial<typeof NOTHING_MEASURED> | object) {
  const workload = workloadsOf({ isQuick: false, isLarge: false }).find((each) => each.name === name)
  if (workload === undefined) throw new Error('no workload')
  return summarize(workload, [{ ...NOTHING_MEASURED, ...given }])
}

describe('charts', () => {
  it('show speed beside that of the references, and growth on logarithmic axes', () => {
    const charts = drawCharts([
      reportOf('W1', { seconds: 4, references: [{ name: 'pg_recvlogical', seconds: [8] }] }),
      reportOf('G1', { steps: [{ size: 10, seconds: 1, workerCpuSeconds: 1 }, { size: 100, seconds: 10, workerCpuSeconds: 1 }, { size: 1000, seconds: 100, workerCpuSeconds: 1 }] }),
    ])
    expect(charts.map(({ name }) => name)).toEqual(['throughput', 'growth-g1'])
    expect(charts[0]?.svg).toContain('250 k')
    expect(charts[0]?.svg).toContain('125 k')
    const [, points = ''] = /polyline points="([^"]+)"/.exec(charts[1]?.svg ?? '') ?? []
    const [first, middle, last] = points.split(' ').map((point) => point.split(',').map(Number))
    for (const axis of [0, 1]) expect((middle?.[axis] ?? 0) * 2).toBeCloseTo((first?.[axis] ?? 0) + (last?.[axis] ?? 0), 0)
  })

  it('are none where nothing was compared', () => {
    expect(drawCharts([reportOf('W1', { seconds: 4 })])).toEqual([])
  })
})
