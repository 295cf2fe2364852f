import { existsSync } from 'node:fs'
import { type MetricMeter, noopMetricMeter } from '@temporalio/common'
import type { Logger } from 'pino'
import { type ActivitySet, createActivities } from './activities/index.ts'
import { MetricSet } from './activities/pipeline-metrics.ts'
import { type Config, resolveDestination, resolveSource } from './config.ts'
import { closeIdleDatabases } from './destinations/duckdb/database.ts'
import { openDuckDbDestination } from './destinations/duckdb/destination.ts'
import { spoolFolderOf } from './destinations/duckdb/spool-folder.ts'
import { watchEventLoop } from './event-loop.ts'
import { createEngine } from './replication/engine.ts'

export interface CompositionOptions {
  /** The one in force: asked for whenever something of it is used. */
  readonly config: () => Config
  readonly logger: Logger
  /** Polled by this process alone; none by default. */
  readonly ownTaskQueue?: string
  /** Where measures go; nowhere by default. */
  readonly meter?: MetricMeter
  /** The task queue of a destination's activities; the configured one by default. */
  readonly taskQueueOf?: (destination: { readonly name: string; readonly taskQueue: string }) => string
}

/** Configuration → adapters → engine → activities. Touches no source and no destination: each is when it is used. */
export function composeActivities({ config, logger, ownTaskQueue, meter = noopMetricMeter, taskQueueOf }: CompositionOptions): ActivitySet {
  const metrics = new MetricSet(meter)
  const engine = createEngine({
    credentialsOf: (name) => resolveSource(config(), name).credentials,
    makesFailoverSlots: (name) => resolveSource(config(), name).makesFailoverSlots,
    destinationNames: () => Object.keys(config().destinations),
    hasDestination: (name) => {
      const { path, isLocalFile } = resolveDestination(config(), name)
      return !isLocalFile || existsSync(path)
    },
    spoolFolder: (name, key) => spoolFolderOf(resolveDestination(config(), name).path, key),
    openDestination: async (name) => openDuckDbDestination(resolveDestination(config(), name)),
  })
  const { activities, close } = createActivities({
    engine,
    logger,
    metrics,
    ...(ownTaskQueue === undefined ? {} : { ownTaskQueue }),
    resolvePipeline: (names) => {
      const source = resolveSource(config(), names.source ?? undefined)
      const destination = resolveDestination(config(), names.destination ?? undefined)
      return { source: source.name, destination: destination.name, taskQueue: taskQueueOf?.(destination) ?? destination.taskQueue }
    },
  })
  const eventLoop = watchEventLoop(metrics)
  return {
    activities,
    close: async () => {
      eventLoop.close()
      await close()
      await closeIdleDatabases()
    },
  }
}
