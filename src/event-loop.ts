import { monitorEventLoopDelay } from 'node:perf_hooks'
import type { MetricSet } from './activities/pipeline-metrics.ts'

const RESOLUTION_MS = 50
const PERIOD_MS = 5_000
const NANOSECONDS = 1e9

/** Measures, every 5 s, how late the timers of this process fire. Keeps no process alive. */
export function watchEventLoop(metrics: MetricSet): { close(): void } {
  const delays = monitorEventLoopDelay({ resolution: RESOLUTION_MS })
  delays.enable()
  const timer = setInterval(() => {
    if (delays.count > 0) {
      for (const [statistic, nanoseconds] of [['mean', delays.mean], ['p99', delays.percentile(99)], ['max', delays.max]] as const) {
        // A timer that fires in time is measured as late by its own interval.
        metrics.set('eventLoopDelay', Math.max(0, nanoseconds / NANOSECONDS - RESOLUTION_MS / 1_000), { statistic })
      }
    }
    delays.reset()
  }, PERIOD_MS)
  timer.unref()
  return {
    close: () => {
      clearInterval(timer)
      delays.disable()
    },
  }
}
