import { extname } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { MetricMeter } from '@temporalio/common'
import {
  bundleWorkflowCode,
  DefaultLogger,
  type LogEntry,
  type NativeConnection,
  Runtime,
  type RuntimeOptions,
  Worker,
  type WorkerOptions,
  type WorkflowBundle,
} from '@temporalio/worker'
import type { Logger } from 'pino'
import type { ActivitySet } from './activities/index.ts'
import type { MetricsAddress } from './config.ts'
import { DomainError } from './model/errors.ts'
import { type MetricEntry, METRICS } from './model/metrics.ts'
import { tracedWorkflowModules } from './tracing.ts'

/** The workflows' module, for the SDK's bundler: TypeScript as it lies in src/, JavaScript in dist/. */
export const WORKFLOWS_PATH = fileURLToPath(new URL(`./workflows/index${extname(import.meta.url)}`, import.meta.url))

/** A cancel is learned from a heartbeat's answer, and the SDK holds heartbeats back by 12 s unless told otherwise (facts 24). */
export const HEARTBEAT_THROTTLE = '1 second'

/** A commit that is under way at shutdown may end in this time; then the process goes, and the next attempt repeats it. */
const SHUTDOWN_LIMIT = '20 seconds'

export interface ReplicationWorkersOptions {
  readonly connection: NativeConnection
  readonly namespace: string
  /** The workflows' own task queue first, then those of destinations that are local files. */
  readonly taskQueues: readonly string[]
  /** Polled by this process alone, for activities: a pipeline stays where it is. */
  readonly ownTaskQueue?: string
  readonly activitySet: ActivitySet
  readonly workflowBundle: WorkflowBundle
  /** Interceptors and sinks of `openTracing`. */
  readonly tracing?: Pick<WorkerOptions, 'interceptors' | 'sinks'>
}

/** Bundles the workflows for the SDK's sandbox, in this process: see `loadWorkflowBundle` for a worker. */
export function bundleReplicationWorkflows({ isTraced }: { readonly isTraced: boolean }): Promise<WorkflowBundle> {
  return bundleWorkflowCode({ workflowsPath: WORKFLOWS_PATH, logger: new DefaultLogger('ERROR'), ...(isTraced ? { workflowInterceptorModules: tracedWorkflowModules() } : {}) })
}

/** The workers of one process. */
export interface ReplicationWorkers {
  /** Polls until {@link ReplicationWorkers.shutdown}; resolves when all has drained and slots and files are let go of. */
  run(): Promise<void>
  /** Running slices end after their commit and answer with what they have done. Idempotent. */
  shutdown(): void
}

/**
 * One worker for each task queue: the first has workflows and activities, the others activities only. Throws when Temporal does not
 * answer or the namespace is missing.
 */
export async function createReplicationWorkers(options: ReplicationWorkersOptions): Promise<ReplicationWorkers> {
  const { connection, namespace, taskQueues, ownTaskQueue, activitySet, workflowBundle, tracing } = options
  const shared = {
    connection,
    namespace,
    activities: activitySet.activities,
    maxHeartbeatThrottleInterval: HEARTBEAT_THROTTLE,
    // Activities are told at once; what they hold is worth no waiting.
    shutdownGraceTime: 0,
    shutdownForceTime: SHUTDOWN_LIMIT,
    ...tracing,
  } satisfies Partial<WorkerOptions>
  const workers: Worker[] = []
  for (const [index, taskQueue] of [...taskQueues, ...(ownTaskQueue === undefined ? [] : [ownTaskQueue])].entries()) {
    workers.push(await Worker.create({ ...shared, taskQueue, ...(index === 0 ? { workflowBundle } : {}) }))
  }
  const shutdown = (): void => {
    for (const worker of workers) if (worker.getState() === 'RUNNING') worker.shutdown()
  }
  return {
    shutdown,
    async run() {
      // One that ends by itself (its namespace was deleted) must not leave the others polling for what nobody does.
      const ends = await Promise.allSettled(workers.map((worker) => worker.run().finally(shutdown)))
      await activitySet.close()
      const failed = ends.find((end) => end.status === 'rejected')
      if (failed !== undefined) throw failed.reason
    },
  }
}

/** The SDK's default buckets are for milliseconds. */
const BUCKETS = Object.fromEntries(Object.values<MetricEntry>(METRICS).flatMap(({ name, buckets }) => (buckets === undefined ? [] : [[name, [...buckets]]])))

/** What of the SDK's many fields says something to people. */
const LOGGED_FIELDS = ['taskQueue', 'workflowType', 'workflowId', 'activityType', 'attempt', 'slotName'] as const

/**
 * Makes the SDK log through our logger, leave signals to us, and serve its metrics and ours under `/metrics`. Once in a process, before anything else of
 * the SDK. Returns the meter for ours.
 *
 * Throws `InvalidConfig` where the address for metrics was asked for and cannot be had; the default one is given up with a warning.
 */
export function installRuntime(logger: Logger, metrics: MetricsAddress | null): MetricMeter {
  const sdk = logger.child({ component: 'temporal' })
  const log = ({ level, message, meta }: LogEntry): void => {
    const { error } = meta ?? {}
    const fields = Object.fromEntries(LOGGED_FIELDS.flatMap((name) => (meta !== undefined && name in meta ? [[name, meta[name]]] : [])))
    // An activity's error has passed failures.ts, and is logged where it happens; others are told by their class and message of the SDK.
    const entry = { ...fields, ...(error instanceof Error ? { error: { name: error.name, message: error.message } } : {}) }
    if (level === 'ERROR') sdk.error(entry, message)
    // The queue of a destination that is a local file has activities only, on purpose.
    else if (level === 'WARN' && !message.startsWith('No workflows registered')) sdk.warn(entry, message)
    else sdk.debug(entry, message)
  }
  const options: RuntimeOptions = { logger: new DefaultLogger('INFO', log), shutdownSignals: [] }
  if (metrics === null) return Runtime.install(options).metricMeter
  try {
    const { metricMeter } = Runtime.install({ ...options, telemetryOptions: { metrics: { attachServiceName: false, prometheus: { bindAddress: metrics.address, histogramBucketOverrides: BUCKETS } } } })
    logger.info({ address: metrics.address }, `metrics at http://${metrics.address}/metrics`)
    return metricMeter
  } catch (error) {
    const reason = error instanceof Error ? (/\((os error \d+)\)/.exec(error.message)?.[0] ?? error.name) : 'error'
    if (metrics.isGiven) throw noMetrics(metrics.address, reason)
    logger.warn({ address: metrics.address, reason }, 'no metrics: their default address is taken; REPLICATION_METRICS_ADDRESS names another, or off')
    return Runtime.install(options).metricMeter
  }
}

function noMetrics(address: string, reason: string): DomainError {
  return new DomainError({
    kind: 'InvalidConfig',
    message: `metrics cannot be served at ${address} ${reason}: another program listens there, or this machine has no such address`,
    remedy: 'set REPLICATION_METRICS_ADDRESS to a free port (or to off)',
  })
}
