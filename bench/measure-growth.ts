import { measureSync, NOTHING_MEASURED, type Measurement, type RunOptions } from './measure-sync.ts'
import type { GrowthTask } from './workloads.ts'

/** Runs the steps one after the other. The cost of the last step's unit, by that of the cheapest before it, tells whether cost grows faster than size. */
export async function measureGrowth(options: RunOptions, { steps }: GrowthTask): Promise<Measurement> {
  const measured: { readonly size: number; readonly measurement: Measurement }[] = []
  for (const { size, task } of steps) measured.push({ size, measurement: await measureSync(options, task, `-${size}`) })
  const rows = measured.map(({ size, measurement: { seconds, workerCpuSeconds } }) => ({ size, seconds: seconds ?? 0, workerCpuSeconds }))
  const costs = rows.map(({ size, seconds }) => seconds / size)
  const last = costs.at(-1) ?? 0
  return {
    ...NOTHING_MEASURED,
    figures: costs.length < 2 ? {} : { costGrowth: last / Math.min(...costs.slice(0, -1)) },
    steps: rows,
    faults: measured.flatMap(({ size, measurement }) => measurement.faults.map((fault) => `${size}: ${fault}`)),
  }
}
