import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import type { Client, WorkflowHandle } from '@temporalio/client'
import type { TemporalServer } from '../src/embedded/temporal-server.ts'
import { startWorkerProcess, type WorkerProcess } from '../src/embedded/worker-process.ts'
import { connectClient } from '../src/temporal-connection.ts'
import type { syncChanges, SyncChangesResult } from '../src/workflows/index.ts'
import { TABLE } from './workloads.ts'

/** How long an activity of a run took, from its scheduling to its result. */
export interface ActivityTime {
  readonly activity: string
  readonly seconds: number
}

/** What a run of `syncChanges` came to. */
export interface SyncRun {
  readonly result: SyncChangesResult
  /** From the client's start to the result. */
  readonly seconds: number
  /** In their order; what is missing to `seconds` is Temporal's. */
  readonly activities: readonly ActivityTime[]
}

/** Longer than any workload takes on a slow machine. */
const WORKFLOW_TIMEOUT = '10 minutes'

/** Names that the benchmark's pipelines have; each run has a database of its own. */
export const SLOT_NAME = 'bench_slot'
export const PUBLICATION_NAME = 'bench_publication'

export interface PipelineOptions {
  readonly name: string
  readonly temporal: TemporalServer
  readonly sourceUrl: string
  /** For V8 CPU profiles of the worker. */
  readonly profileDirectory: string | null
}

/** A worker in a process of its own with one source and one DuckDB file, and a client that starts its workflows. */
export class BenchPipeline {
  readonly file: string
  readonly #name: string
  readonly #directory: string
  readonly #worker: WorkerProcess
  readonly #client: Client
  #runs = 0

  private constructor(parts: { readonly name: string; readonly directory: string; readonly worker: WorkerProcess; readonly client: Client }) {
    this.#name = parts.name
    this.#directory = parts.directory
    this.#worker = parts.worker
    this.#client = parts.client
    this.file = destinationFile(parts.directory)
  }

  /** Starts the worker and waits until it polls. */
  static async start({ name, temporal, sourceUrl, profileDirectory }: PipelineOptions): Promise<BenchPipeline> {
    const directory = await mkdtemp(join(tmpdir(), 'bench-'))
    try {
      const config = join(directory, 'replication.toml')
      await writeFile(config, '')
      if (profileDirectory !== null) await mkdir(profileDirectory, { recursive: true })
      const worker = await startWorkerProcess({
        env: {
          REPLICATION_CONFIG: config,
          REPLICATION_TASK_QUEUE: name,
          SOURCES__BENCH__CREDENTIALS: sourceUrl,
          DESTINATIONS__BENCH__PATH: destinationFile(directory),
          TEMPORAL_ADDRESS: temporal.address,
          TEMPORAL_NAMESPACE: temporal.namespace,
          LOG_LEVEL: 'warn',
...(profileDirectory === null ? {} : profilingEnvironment(join(resolve(profileDirectory), `${name}.cpuprofile`))),
        },
        onLine: (line) => {
          if (!line.startsWith('worker ready')) process.stderr.write(`worker: ${line}\n`)
        },
      })
      try {
        const client = await connectClient({ address: temporal.address, namespace: temporal.namespace, connection: {} })
        return new BenchPipeline({ name, directory, worker, client })
      } catch (error) {
        await worker.stop()
        throw error
      }
    } catch (error) {
      await rm(directory, { recursive: true, force: true })
      throw error
    }
  }

  get workerPid(): number {
    return this.#worker.pid
  }

  /** Runs `syncChanges` to its end, as a schedule would: init and snapshot where missing, then all that is committed. */
  async sync(): Promise<SyncRun> {
    const startMs = performance.now()
    const handle = await this.#client.workflow.start<typeof syncChanges>('syncChanges', {
      workflowId: `${this.#name}-${++this.#runs}`,
      taskQueue: this.#name,
      workflowExecutionTimeout: WORKFLOW_TIMEOUT,
      args: [{ slotName: SLOT_NAME, publicationName: PUBLICATION_NAME, tableNames: [TABLE] }],
    })
    const died = this.#worker.exited.then(() => {
      throw new Error('the worker ended while it was measured')
    })
    died.catch(() => undefined)
    const result = await Promise.race([handle.result(), died])
    const seconds = (performance.now() - startMs) / 1000
    return { result, seconds, activities: activityTimes(await handle.fetchHistory()) }
  }

  /** Stops the worker and removes the destination. */
  async stop(): Promise<void> {
    await this.#client.connection.close()
    await this.#worker.stop()
    await rm(this.#directory, { recursive: true, force: true })
  }
}

function profilingEnvironment(path: string): Record<string, string> {
  return { NODE_OPTIONS: `--import=${new URL('./cpu-profiler.mjs', import.meta.url).href}`, BENCH_PROFILE_PATH: path }
}

type History = Awaited<ReturnType<WorkflowHandle['fetchHistory']>>

function activityTimes(history: History): readonly ActivityTime[] {
  const events = history.events ?? []
  return events.flatMap((event) => {
    const scheduledId = event.activityTaskCompletedEventAttributes?.scheduledEventId
    const scheduled = events.find(({ eventId }) => eventId != null && scheduledId != null && String(eventId) === String(scheduledId))
    const activity = scheduled?.activityTaskScheduledEventAttributes?.activityType?.name
    if (activity == null) return []
    return [{ activity, seconds: secondsOf(event.eventTime) - secondsOf(scheduled?.eventTime) }]
  })
}

function secondsOf(time: { readonly seconds?: unknown; readonly nanos?: number | null } | null | undefined): number {
  return Number(time?.seconds ?? 0) + (time?.nanos ?? 0) / 1e9
}

function destinationFile(directory: string): string {
  return join(directory, 'warehouse.duckdb')
}
