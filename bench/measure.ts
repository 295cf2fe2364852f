import { measureGrowth } from './measure-growth.ts'
import { measureParallel } from './measure-parallel.ts'
import { measureIdle, measureLatency, measureReach } from './measure-replicate.ts'
import { measureSync, type Measurement, type RunOptions } from './measure-sync.ts'
import { measureVerify } from './measure-verify.ts'

/** Runs one workload once in databases, a worker and destination files of its own, and takes all of them away again. */
export async function measure(options: RunOptions): Promise<Measurement> {
  const { task } = options.workload
  switch (task.tag) {
    case 'backlog':
    case 'snapshot':
      return await measureSync(options, task)
    case 'latency':
      return await measureLatency(options, task)
    case 'reach':
      return await measureReach(options, task)
    case 'idle':
      return await measureIdle(options, task)
    case 'parallel':
      return await measureParallel(options, task)
    case 'verify':
      return await measureVerify(options, task)
    case 'growth':
      return await measureGrowth(options, task)
    default:
      return task satisfies never
  }
}
