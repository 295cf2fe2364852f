import { extname } from 'node:path'
import { fileURLToPath } from 'node:url'
import { SimplePlugin } from '@temporalio/plugin'
import { type BundleOptions, type ReplayWorkerOptions, Runtime, type Worker, type WorkerOptions } from '@temporalio/worker'
import { type Logger, pino } from 'pino'
import type { ActivitySet } from './activities/index.ts'
import { composeActivities } from './composition.ts'
import { type Config, loadConfig } from './config.ts'
import { HEARTBEAT_THROTTLE, WORKFLOWS_PATH } from './replication-worker.ts'

/** Ours and the host's workflows together. */
const COMBINED_PATH = fileURLToPath(new URL(`./plugin-workflows${extname(import.meta.url)}`, import.meta.url))

export interface PgReplicationPluginOptions {
  /** Default: `loadConfig` of the process's environment. */
  readonly config?: Config
  /** A pino logger. Default: JSON lines on stderr. */
  readonly logger?: Logger
}

/**
 * Adds the replication workflows and activities to somebody's own worker:
 *
 * ```ts
 * const worker = await Worker.create({ connection, taskQueue: 'mine', workflowsPath, plugins: [new PgReplicationPlugin({ config })] })
 * ```
 *
 * - Workflows: the worker's own (`workflowsPath`) and ours are bundled together; without its own, ours alone. A `workflowBundle` made
 *   beforehand must have been made with the plugin (`bundleWorkflowCode({ workflowsPath, plugins })`), or be without ours.
 * - Task queues: everything runs on the worker's own queue, so `taskQueue` of the configuration does not matter. A destination whose
 *   `taskQueue` is set to something of its own keeps it: then a worker on that queue, with the same plugin, must run where the file is.
 *   While a destination is a local file, let one process only poll the queue that serves it.
 * - A default export of the worker's workflows (Temporal's dynamic workflow) is not carried over.
 *
 * Metrics go to the worker's `Runtime`: install it (with `telemetryOptions.metrics`) before the worker is made.
 *
 * Temporal's plugins are marked experimental (facts 33a).
 */
export class PgReplicationPlugin extends SimplePlugin {
  readonly #config: Config
  readonly #logger: Logger
  /** By task queue; closed when its worker has ended. */
  readonly #activitySets = new Map<string, ActivitySet>()

  /** Throws `InvalidConfig`. */
  constructor(options: PgReplicationPluginOptions = {}) {
    super({ name: 'temporal-pg-replication' })
    this.#config = options.config ?? loadConfig({ env: process.env })
    this.#logger = options.logger ?? pino({ base: null }, pino.destination(2))
  }

  override configureWorker(options: WorkerOptions): WorkerOptions {
    const set = this.#activitiesOf(options.taskQueue)
    return {
      ...super.configureWorker(options),
      activities: { ...options.activities, ...set.activities },
      ...(options.maxHeartbeatThrottleInterval === undefined ? { maxHeartbeatThrottleInterval: HEARTBEAT_THROTTLE } : {}),
      ...workflowsOf(options),
    }
  }

  override configureReplayWorker(options: ReplayWorkerOptions): ReplayWorkerOptions {
    return { ...super.configureReplayWorker(options), ...workflowsOf(options) }
  }

  override configureBundler(options: BundleOptions): BundleOptions {
    if (options.workflowsPath === WORKFLOWS_PATH || options.workflowsPath === COMBINED_PATH) return options
    const hostPath = options.workflowsPath
    return {
      ...options,
      workflowsPath: COMBINED_PATH,
      webpackConfigHook: (given) => {
        const config = options.webpackConfigHook?.(given) ?? given
        const alias = Array.isArray(config.resolve?.alias) ? [...config.resolve.alias, { name: 'host-workflows', alias: hostPath }] : { ...config.resolve?.alias, 'host-workflows': hostPath }
        return { ...config, resolve: { ...config.resolve, alias } }
      },
    }
  }

  override async runWorker(worker: Worker, next: (worker: Worker) => Promise<void>): Promise<void> {
    try {
      await super.runWorker(worker, next)
    } finally {
      const { taskQueue } = worker.options
      const set = this.#activitySets.get(taskQueue)
      this.#activitySets.delete(taskQueue)
      await set?.close()
    }
  }

  #activitiesOf(taskQueue: string): ActivitySet {
    const existing = this.#activitySets.get(taskQueue)
    if (existing !== undefined) return existing
    const { taskQueue: mainQueue } = this.#config
    const set = composeActivities({
      config: () => this.#config,
      logger: this.#logger,
      // The host's runtime: its exporter shows our metrics beside its own.
      meter: Runtime.instance().metricMeter,
      taskQueueOf: ({ name, taskQueue: configured }) =>
        [mainQueue, `${mainQueue}-${name}`].includes(configured) ? taskQueue : configured,
    })
    this.#activitySets.set(taskQueue, set)
    return set
  }
}

/** Workflows of a worker that brings none of its own. */
function workflowsOf(options: Pick<WorkerOptions, 'workflowsPath' | 'workflowBundle'>): { readonly workflowsPath?: string } {
  const hasOwn = options.workflowsPath !== undefined || options.workflowBundle !== undefined
  return hasOwn ? {} : { workflowsPath: WORKFLOWS_PATH }
}
