import type { BenchPipeline } from './pipeline.ts'
import { readCpuSeconds, readTreeCpuSeconds, watchMemory } from './process-usage.ts'
import type { BenchServers } from './servers.ts'

/** What a run took, beside time. Null = could not be measured here. */
export interface Usage {
  readonly workerCpuSeconds: number | null
  /** Every process of the server. */
  readonly postgresCpuSeconds: number | null
  readonly temporalCpuSeconds: number | null
  readonly peakRssBytes: number | null
}

/** Measures what `work` takes, and then what the worker takes until `settled` has resolved (it closes its files some time after a workflow's end). */
export async function measureUsage<T>(servers: BenchServers, pipeline: BenchPipeline, work: () => Promise<T>, settled: () => Promise<void>): Promise<{ readonly result: T; readonly usage: Usage }> {
  const { temporal } = servers
  const memory = await watchMemory(pipeline.workerPid)
  const workerCpu = await cpuMeter(async () => await readCpuSeconds(pipeline.workerPid))
  const temporalCpu = await cpuMeter(async () => (temporal.pid === undefined ? null : await readCpuSeconds(temporal.pid)))
  const postgresCpu = await postgresCpuMeter(servers)
  const result = await work()
  const postgresCpuSeconds = await postgresCpu()
  const temporalCpuSeconds = await temporalCpu()
  await settled()
  return { result, usage: { workerCpuSeconds: await workerCpu(), postgresCpuSeconds, temporalCpuSeconds, peakRssBytes: await memory.stop() } }
}

/** Each call gives the CPU seconds of all PostgreSQL processes since the one before it. */
export async function postgresCpuMeter({ postgres }: BenchServers): Promise<() => Promise<number | null>> {
  return await cpuMeter(async () => (postgres.pid === undefined ? null : await readTreeCpuSeconds(postgres.pid)))
}

async function cpuMeter(read: () => Promise<number | null>): Promise<() => Promise<number | null>> {
  let last = await read()
  return async () => {
    const now = await read()
    const spent = now === null || last === null ? null : now - last
    last = now
    return spent
  }
}
