import { randomBytes } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Client, Connection, type WorkflowHandle } from '@temporalio/client'
import type pg from 'pg'
import { startWorkerProcess, type WorkerProcess } from '../../src/embedded/worker-process.ts'
import { parseLsn } from '../../src/model/lsn.ts'
import type { ReplicationInput } from '../../src/model/spec.ts'
import { replicate, syncChanges, type SyncChangesResult } from '../../src/workflows/index.ts'
import { until } from './workflow-harness.ts'

export interface WorkerHarnessOptions {
  readonly temporalAddress: string
  /** The database that `[sources.shop]` names. */
  readonly sourceUrl: string
  /** Further variables of the worker's environment. */
  readonly env?: Readonly<Record<string, string>>
  /** The worker dies where {@link WorkerHarness.killPointFile} says, as soon as that file is there. */
  readonly hasKillPoints?: boolean
}

const KILL_POINTS = new URL('./kill-points.mjs', import.meta.url).href

/**
 * The real worker as a process of its own, on a task queue of its own, with source `shop` and destination `warehouse`, and a client.
 * Each test that uses one closes it.
 */
export class WorkerHarness implements AsyncDisposable {
  readonly client: Client
  readonly directory: string
  readonly file: string
  readonly configFile: string
  readonly taskQueue = `chaos-${randomBytes(6).toString('hex')}`
  /** Everything that the workers wrote, both outputs. */
  readonly lines: string[] = []
  readonly #options: WorkerHarnessOptions
  readonly #connection: Connection
  #worker: WorkerProcess | null = null

  private constructor(options: WorkerHarnessOptions, connection: Connection, directory: string) {
    this.#options = options
    this.#connection = connection
    this.client = new Client({ connection })
    this.directory = directory
    this.file = join(directory, 'warehouse.duckdb')
    this.configFile = join(directory, 'replication.toml')
  }

  static async open(options: WorkerHarnessOptions): Promise<WorkerHarness> {
    const [connection, directory] = await Promise.all([Connection.connect({ address: options.temporalAddress }), mkdtemp(join(tmpdir(), 'worker-'))])
    const harness = new WorkerHarness(options, connection, directory)
    await writeFile(harness.configFile, `[sources.shop]\ncredentials = ${JSON.stringify(options.sourceUrl)}\n\n[destinations.warehouse]\ntype = "duckdb"\npath = "./warehouse.duckdb"\n`)
    return harness
  }

  get env(): Readonly<Record<string, string>> {
    return {
      REPLICATION_CONFIG: this.configFile,
      REPLICATION_TASK_QUEUE: this.taskQueue,
      TEMPORAL_ADDRESS: this.#options.temporalAddress,
      LOG_LEVEL: 'debug',
      ...(this.#options.hasKillPoints === true ? { NODE_OPTIONS: `--import ${KILL_POINTS}`, KILL_POINT: this.killPointFile } : {}),
      ...this.#options.env,
    }
  }

  /** See `kill-points.mjs`. */
  get killPointFile(): string {
    return join(this.directory, 'kill-point')
  }

  get worker(): WorkerProcess {
    if (this.#worker === null) throw new Error('no worker runs')
    return this.#worker
  }

  /** Resolves when it polls. */
  async startWorker(): Promise<void> {
    this.#worker = await startWorkerProcess({ env: this.env, onLine: (line) => this.lines.push(line), readyTimeoutMs: 120_000 })
  }

  /** SIGKILL, as a crash would. */
  async killWorker(): Promise<void> {
    const worker = this.#worker
    this.#worker = null
    await worker?.kill()
  }

  /** SIGTERM. Resolves to the exit code. */
  async stopWorker(): Promise<number | null> {
    const worker = this.#worker
    this.#worker = null
    return worker === null ? null : (await worker.stop()).code
  }

  async startReplicate(input: ReplicationInput, workflowId = `${input.slotName}-${this.taskQueue}`): Promise<WorkflowHandle<typeof replicate>> {
    return this.client.workflow.start(replicate, { taskQueue: this.taskQueue, workflowId, args: [input] })
  }

  async sync(input: ReplicationInput, workflowId = `sync-${input.slotName}-${randomBytes(4).toString('hex')}`): Promise<SyncChangesResult> {
    return this.client.workflow.execute(syncChanges, { taskQueue: this.taskQueue, workflowId, args: [input] })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // What a failed test left open would be retried by nobody, and shown by everybody's lists.
    for await (const { workflowId } of this.client.workflow.list({ query: `TaskQueue = '${this.taskQueue}' AND ExecutionStatus = 'Running'` })) {
      await this.client.workflow.getHandle(workflowId).terminate().catch(() => undefined)
    }
    await this.stopWorker()
    await this.#connection.close()
    await rm(this.directory, { recursive: true, force: true })
  }
}

/** The walsender that serves a slot; null = none. */
export async function slotHolder(source: pg.Pool | pg.Client, slotName: string): Promise<number | null> {
  const { rows } = await source.query<{ active_pid: number | null }>('SELECT active_pid FROM pg_replication_slots WHERE slot_name = $1', [slotName])
  return rows[0]?.active_pid ?? null
}

/** The walsender that streams a slot, and not one that is making it; null = none. */
async function slotStreamer(source: pg.Pool | pg.Client, slotName: string): Promise<number | null> {
  const { rows } = await source.query<{ pid: number }>("SELECT r.pid FROM pg_replication_slots s JOIN pg_stat_replication r ON r.pid = s.active_pid WHERE s.slot_name = $1 AND r.state IN ('catchup', 'streaming')", [slotName])
  return rows[0]?.pid ?? null
}

/** Waits until a walsender other than `before` streams the slot. */
export async function untilStreaming(source: pg.Pool | pg.Client, slotName: string, before: number | null = null, timeoutMs = 120_000): Promise<number> {
  const pid = await until(() => slotStreamer(source, slotName), (streamer) => streamer !== null && streamer !== before, timeoutMs)
  if (pid === null) throw new RangeError('nobody serves the slot')
  return pid
}

/** Waits until the slot's confirmed position is past everything that is committed now: then it is durable at the destination. */
export async function untilConfirmed(source: pg.Pool | pg.Client, slotName: string, timeoutMs = 120_000): Promise<void> {
  const { rows } = await source.query<{ lsn: string }>('SELECT pg_current_wal_insert_lsn()::text AS lsn')
  const wanted = parseLsn(rows[0]?.lsn ?? '')
  await until(
    async () => (await source.query<{ lsn: string | null }>('SELECT confirmed_flush_lsn::text AS lsn FROM pg_replication_slots WHERE slot_name = $1', [slotName])).rows[0]?.lsn ?? null,
    (confirmed) => confirmed !== null && parseLsn(confirmed) >= wanted,
    timeoutMs,
  )
}

/** Numbers from 0 up to 1, the same ones for the same seed (mulberry32). */
export function randomNumbers(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296
  }
}
