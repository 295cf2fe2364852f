import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import type { Client, WorkflowHandle } from '@temporalio/client'
import { projectRoot } from '../src/embedded/project-directory.ts'
import type { TemporalServer } from '../src/embedded/temporal-server.ts'
import { startWorkerProcess, type WorkerProcess } from '../src/embedded/worker-process.ts'
import type { ReplicationInput, WriteMode } from '../src/model/spec.ts'
import type { ReplicationStatus } from '../src/model/status.ts'
import { connectClient } from '../src/temporal-connection.ts'
import type { replicate, syncChanges, SyncChangesResult, verifyReplication, VerifyReplicationResult } from '../src/workflows/index.ts'

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

/** What a run of `verifyReplication` came to. */
export interface VerifyRun {
  readonly result: VerifyReplicationResult
  /** From the client's start to the result. */
  readonly seconds: number
}

/** A commit at the destination: when its rows were visible, in milliseconds of Unix time, and how long its transaction took. */
export interface DestinationCommit {
  readonly visibleMs: number
  readonly appliedLsn: bigint
  readonly transactionMs: number
}

/** What the worker noted of itself until it ended. */
export interface WorkerNotes {
  readonly eventLoopDelayP99Ms: number
  /** What DuckDB had left to write when its files were closed. */
  readonly checkpointSeconds: number
  readonly commits: readonly DestinationCommit[]
}

/** A machine may be busy with something else. */
const READY_TIMEOUT_MS = 5 * 60_000
/** Longer than any workload takes on a slow machine. */
const WORKFLOW_TIMEOUT = '60 minutes'

export interface PipelineOptions {
  readonly name: string
  readonly temporal: TemporalServer
  /** A connection URL for each replication: source and destination `bench1`, `bench2` … */
  readonly sourceUrls: readonly string[]
  /** For V8 CPU profiles of the worker. */
  readonly profileDirectory: string | null
}

/** A replication of a {@link BenchPipeline}, by its number, and what it replicates. */
export interface BenchReplication {
  readonly number: number
  readonly tableNames: readonly string[]
  /** Absent = `merge`. */
  readonly writeMode?: WriteMode
}

/** Names that the benchmark's replications have. */
export function slotNameOf({ number }: Pick<BenchReplication, 'number'>): string {
  return `bench_slot_${number}`
}

export function publicationNameOf({ number }: Pick<BenchReplication, 'number'>): string {
  return `bench_publication_${number}`
}

/** A worker in a process of its own with sources, a DuckDB file for each, and a client that starts its workflows. */
export class BenchPipeline {
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
  }

  /** Starts the worker and waits until it polls. */
  static async start({ name, temporal, sourceUrls, profileDirectory }: PipelineOptions): Promise<BenchPipeline> {
    const directory = await mkdtemp(join(tmpdir(), 'bench-'))
    try {
      const config = join(directory, 'replication.toml')
      await writeFile(config, '')
      if (profileDirectory !== null) await mkdir(profileDirectory, { recursive: true })
      const places: Record<string, string> = {}
      for (const [index, url] of sourceUrls.entries()) {
        places[`SOURCES__BENCH${index + 1}__CREDENTIALS`] = url
        places[`DESTINATIONS__BENCH${index + 1}__PATH`] = fileIn(directory, index + 1)
      }
      const worker = await startWorkerProcess({
        env: {
          ...places,
          REPLICATION_CONFIG: config,
          REPLICATION_TASK_QUEUE: name,
          TEMPORAL_ADDRESS: temporal.address,
          TEMPORAL_NAMESPACE: temporal.namespace,
          LOG_LEVEL: 'warn',
          NODE_OPTIONS: `--import=${new URL('./worker-probe.mjs', import.meta.url).href}`,
          BENCH_PROJECT: join(projectRoot, 'package.json'),
          BENCH_PROBE_PATH: notesIn(directory),
          ...(profileDirectory === null ? {} : { BENCH_PROFILE_PATH: join(resolve(profileDirectory), `${name}.cpuprofile`) }),
        },
        readyTimeoutMs: READY_TIMEOUT_MS,
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

  /** The DuckDB file of replication `number`. */
  fileOf(number: number): string {
    return fileIn(this.#directory, number)
  }

  /** Runs `syncChanges` to its end, as a schedule would: init and snapshot where missing, then all that is committed. */
  async sync(replication: BenchReplication): Promise<SyncRun> {
    const startMs = performance.now()
    const handle = await this.#client.workflow.start<typeof syncChanges>('syncChanges', { ...this.#workflowOptions(), args: [inputOf(replication)] })
    const result = await this.#orDied(handle.result())
    const seconds = (performance.now() - startMs) / 1000
    return { result, seconds, activities: activityTimes(await handle.fetchHistory()) }
  }

  /** Runs `verifyReplication` to its end. */
  async verify(replication: BenchReplication): Promise<VerifyRun> {
    const startMs = performance.now()
    const handle = await this.#client.workflow.start<typeof verifyReplication>('verifyReplication', { ...this.#workflowOptions(), args: [inputOf(replication)] })
    const result = await this.#orDied(handle.result())
    return { result, seconds: (performance.now() - startMs) / 1000 }
  }

  /** Starts `replicate` and resolves when it streams. */
  async replicate(replication: BenchReplication): Promise<RunningReplication> {
    const handle = await this.#client.workflow.start<typeof replicate>('replicate', { ...this.#workflowOptions(), args: [inputOf(replication)] })
    const running = new RunningReplication(handle)
    await this.#orDied(running.untilStreaming())
    return running
  }

  /** Stops the worker, removes the destinations and returns what the worker has noted. Call it once. */
  async stop(): Promise<WorkerNotes> {
    await this.#client.connection.close()
    await this.#worker.stop()
    try {
      return parseNotes(await readFile(notesIn(this.#directory), 'utf8'))
    } finally {
      await rm(this.#directory, { recursive: true, force: true })
    }
  }

  #workflowOptions(): { readonly workflowId: string; readonly taskQueue: string; readonly workflowExecutionTimeout: string } {
    return { workflowId: `${this.#name}-${++this.#runs}`, taskQueue: this.#name, workflowExecutionTimeout: WORKFLOW_TIMEOUT }
  }

  async #orDied<T>(result: Promise<T>): Promise<T> {
    const died = this.#worker.exited.then(() => {
      throw new Error('the worker ended while it was measured')
    })
    died.catch(() => undefined)
    return await Promise.race([result, died])
  }
}

/** A `replicate` workflow that runs. */
export class RunningReplication {
  readonly #handle: WorkflowHandle<typeof replicate>

  constructor(handle: WorkflowHandle<typeof replicate>) {
    this.#handle = handle
  }

  async untilStreaming(): Promise<void> {
    for (;;) {
      const { phase, lastError } = await this.#status()
      if (phase === 'streaming') return
      if (phase === 'failed' || phase === 'stopped') throw new Error(`the replication is ${phase}: ${lastError?.message ?? ''}`)
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
  }

  /** Number of events of the workflow's history so far, over all its runs that follow this one. */
  async countEvents(): Promise<number> {
    return (await this.#handle.fetchHistory()).events?.length ?? 0
  }

  /** Ends it after its running commit. */
  async stop(): Promise<void> {
    await this.#handle.executeUpdate('stop', { args: [{}] })
    await this.#handle.result()
  }

  async #status(): Promise<ReplicationStatus> {
    return await this.#handle.query<ReplicationStatus>('status')
  }
}

function inputOf(replication: BenchReplication): ReplicationInput {
  const name = `bench${replication.number}`
  const { tableNames, writeMode } = replication
  return { source: name, destination: name, slotName: slotNameOf(replication), publicationName: publicationNameOf(replication), tableNames: [...tableNames], ...(writeMode === undefined ? {} : { writeMode }) }
}

function parseNotes(text: string): WorkerNotes {
  const { eventLoopDelayP99Ms, checkpointMs, commits } = JSON.parse(text) as { eventLoopDelayP99Ms: number; checkpointMs: number; commits: readonly (readonly [number, string, number])[] }
  return { eventLoopDelayP99Ms, checkpointSeconds: checkpointMs / 1000, commits: commits.map(([visibleMs, lsn, transactionMs]) => ({ visibleMs, appliedLsn: BigInt(lsn), transactionMs })) }
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

function fileIn(directory: string, number: number): string {
  return join(directory, `warehouse${number}.duckdb`)
}

function notesIn(directory: string): string {
  return join(directory, 'notes.json')
}
