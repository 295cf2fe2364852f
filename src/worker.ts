import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import type { MetricMeter } from '@temporalio/common'
import type { NativeConnection } from '@temporalio/worker'
import { pino, type Logger } from 'pino'
import { safeStack } from './activities/failures.ts'
import { composeActivities } from './composition.ts'
import { type Config, loadConfig, taskQueuesOf } from './config.ts'
import { reportText } from './model/error-report.ts'
import { DomainError } from './model/errors.ts'
import { createReplicationWorkers, installRuntime, type ReplicationWorkers } from './replication-worker.ts'
import { connectWorker, readTemporalSettings, type TemporalSettings } from './temporal-connection.ts'
import { openTracing, type Tracing } from './tracing.ts'
import { loadWorkflowBundle } from './workflow-bundle.ts'

const MAX_CONNECT_PAUSE_MS = 10_000

/** The configuration in force. */
interface LiveConfig {
  config: Config
}

interface Running {
  readonly connection: NativeConnection
  readonly workers: ReplicationWorkers
}

/**
 * `npm start`: the composition root. Reads the configuration, waits for Temporal for as long as it takes, polls, and says `worker ready`
 * on stdout; logs go to stderr as JSON lines (`LOG_LEVEL`, default info). Whatever sources and destinations are doing, it starts.
 *
 * SIGTERM and SIGINT drain (running slices end after their commit) and exit 0; a second one exits at once. SIGHUP reads the configuration again.
 */
async function main(): Promise<void> {
  const logger = pino({ level: process.env['LOG_LEVEL'] ?? 'info', base: null }, pino.destination({ dest: 2, sync: true }))
  const stopping = stopOnSignals(logger)
  const config = loadConfig({ env: process.env })
  const settings = readTemporalSettings(process.env)
  const meter = installRuntime(logger, config.metrics)
  const live = { config }
  const taskQueues = taskQueuesOf(config)
  reloadOnHangUp(live, taskQueues, logger)
  const tracing = await openTracing(process.env, logger)
  const running = await start(live, { taskQueues, settings, logger, meter, tracing, signal: stopping })
  if (running === null) return
  const { workers, connection } = running
  stopping.addEventListener('abort', () => {
    workers.shutdown()
  })
  const end = workers.run()
  if (stopping.aborted) workers.shutdown()
  else console.log(`worker ready: task queues ${taskQueues.join(', ')}; namespace ${settings.namespace} at ${settings.address}`)
  try {
    await end
  } catch (error) {
    if (!stopping.aborted) throw error
    logger.warn({ error: nameOf(error) }, 'not everything ended in time; the next worker goes on from what was committed')
  }
  await connection.close().catch(() => undefined)
  await tracing?.close()
  logger.info('worker stopped')
}

/** Tries until Temporal answers. Null when it was told to stop meanwhile. */
async function start(
  live: LiveConfig,
  { taskQueues, settings, logger, meter, tracing, signal }: { readonly taskQueues: readonly string[]; readonly settings: TemporalSettings; readonly logger: Logger; readonly meter: MetricMeter; readonly tracing: Tracing | null; readonly signal: AbortSignal },
): Promise<Running | null> {
  const workflowBundle = await loadWorkflowBundle({ isTraced: tracing !== null })
  const ownTaskQueue = `${taskQueues[0] ?? ''}-worker-${randomUUID()}`
  const activitySet = composeActivities({ config: () => live.config, logger, meter, ownTaskQueue })
  const { namespace, address } = settings
  for (let pauseMs = 1_000; !signal.aborted; pauseMs = Math.min(MAX_CONNECT_PAUSE_MS, pauseMs * 2)) {
    let connection: NativeConnection | null = null
    try {
      connection = await connectWorker(settings)
      const workers = await createReplicationWorkers({ connection, namespace, taskQueues, ownTaskQueue, activitySet, workflowBundle, ...(tracing === null ? {} : { tracing: tracing.workerOptions }) })
      return { connection, workers }
    } catch (error) {
      await connection?.close().catch(() => undefined)
      logger.warn({ address, namespace, error: nameOf(error) }, `no Temporal at ${address} with namespace ${namespace}; trying again in ${pauseMs / 1_000} s (TEMPORAL_ADDRESS says where it is; temporal server start-dev starts one)`)
      await sleep(pauseMs, undefined, { signal }).catch(() => undefined)
    }
  }
  return null
}

function stopOnSignals(logger: Logger): AbortSignal {
  const stopping = new AbortController()
  // A terminal that is closed ends what runs in it; where there is none, a hang-up asks for the configuration to be read again.
  for (const signal of ['SIGTERM', 'SIGINT', ...(process.stdin.isTTY ? ['SIGHUP'] as const : [])] as const) {
    process.on(signal, () => {
      if (stopping.signal.aborted) process.exit(1)
      logger.info({ signal }, 'draining; a second signal ends at once')
      stopping.abort()
    })
  }
  process.on('unhandledRejection', (error) => {
    // Node's own report would print the message, which may hold anything.
    logger.fatal({ error: nameOf(error), stack: safeStack(error) }, 'an error that nobody handled; the worker ends')
    process.exit(1)
  })
  return stopping.signal
}

/**
 * SIGHUP: reads the configuration again. What connects from then on takes the new one, and sessions that run connect anew after their slice. One with problems changes nothing; nor does what
 * only a start reads: task queues, the address of the metrics.
 */
function reloadOnHangUp(live: LiveConfig, polled: readonly string[], logger: Logger): void {
  if (process.stdin.isTTY) return
  process.on('SIGHUP', () => {
    try {
      live.config = loadConfig({ env: process.env })
      const others = taskQueuesOf(live.config).filter((queue) => !polled.includes(queue))
      if (others.length > 0) logger.warn({ taskQueues: others }, 'task queues that are new in the configuration are polled after a restart')
      logger.info('configuration read again')
    } catch (error) {
      const isOurs = error instanceof DomainError
      logger.error(isOurs ? { type: error.kind, error: reportText(error) } : { error: nameOf(error) }, 'the configuration has problems: the one before stays in force')
    }
  })
}

/** Class and, for Temporal's own errors, the text: it names address or namespace. */
function nameOf(error: unknown): Record<string, unknown> {
  if (!(error instanceof Error)) return { name: 'error' }
  const isTemporals = ['TransportError', 'TemporalUnavailable', 'GracefulShutdownPeriodExpiredError'].includes(error.name)
  return { name: error.name, ...(isTemporals ? { message: error.message } : {}) }
}

try {
  await main()
  process.exit(0)
} catch (error) {
  const isOurs = error instanceof DomainError
  console.error(isOurs ? `${error.kind}: ${reportText(error)}` : `the worker ended: ${error instanceof Error ? `${error.name}\n${safeStack(error)}` : 'error'}`)
  process.exit(1)
}
