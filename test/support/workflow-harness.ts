import { randomBytes } from 'node:crypto'
import { Client, Connection, type WorkflowHandle } from '@temporalio/client'
import { DefaultLogger, NativeConnection, Runtime, Worker, type WorkflowBundle } from '@temporalio/worker'
import { pino } from 'pino'
import { createActivities } from '../../src/activities/index.ts'
import type { ReplicationEngine } from '../../src/model/replication.ts'
import type { ReplicationInput } from '../../src/model/spec.ts'
import type { ReplicationStatus } from '../../src/model/status.ts'
import { HEARTBEAT_THROTTLE } from '../../src/replication-worker.ts'
import { loadWorkflowBundle } from '../../src/workflow-bundle.ts'
import { replicate, statusQuery } from '../../src/workflows/index.ts'

let bundle: Promise<WorkflowBundle> | undefined

/** The workflows' bundle, made once in a process. */
export function workflowBundle(): Promise<WorkflowBundle> {
  bundle ??= loadWorkflowBundle()
  return bundle
}

let isRuntimeInstalled = false

/** Keeps the SDK's log lines out of the tests' output, warnings of its own apart. */
export function quietRuntime(): void {
  if (isRuntimeInstalled) return
  isRuntimeInstalled = true
  Runtime.install({ logger: new DefaultLogger('ERROR'), shutdownSignals: [] })
}

/** A running worker of a test. */
export interface TestWorker {
  /** Drains and stops. Idempotent. */
  stop(): Promise<void>
}

export const INPUT: ReplicationInput = { slotName: 'shop_slot', publicationName: 'shop_publication' }

/**
 * Workers with a given engine on task queues of their own: one for the workflows, one for the destination. Each test file opens one and
 * closes it.
 */
export class WorkflowHarness {
  readonly client: Client
  readonly taskQueue: string
  readonly #address: string
  readonly #connection: Connection
  readonly #native: NativeConnection
  readonly #workers = new Set<TestWorker>()

  private constructor(address: string, { connection, native, namespace }: { readonly connection: Connection; readonly native: NativeConnection; readonly namespace: string }) {
    this.#address = address
    this.#connection = connection
    this.#native = native
    this.client = new Client({ connection, namespace })
    this.taskQueue = `test-${randomBytes(6).toString('hex')}`
  }

  static async open(address: string, namespace = 'default'): Promise<WorkflowHarness> {
    quietRuntime()
    const [connection, native] = await Promise.all([Connection.connect({ address }), NativeConnection.connect({ address })])
    return new WorkflowHarness(address, { connection, native, namespace })
  }

  get destinationQueue(): string {
    return `${this.taskQueue}-warehouse`
  }

  /** Polls both queues. */
  async start(engine: ReplicationEngine): Promise<TestWorker> {
    const workflows = await this.startWorkflows()
    const destination = await this.startDestination(engine)
    return this.#track(async () => {
      await Promise.all([workflows.stop(), destination.stop()])
    })
  }

  async startWorkflows(): Promise<TestWorker> {
    // It only looks pipelines up: no activity of the engine comes to this queue.
    const unused = {} as ReplicationEngine
    const { activities } = createActivities({ engine: unused, resolvePipeline: this.#resolve, logger: pino({ level: 'silent' }) })
    const worker = await Worker.create({
      connection: this.#native,
      namespace: this.client.options.namespace,
      taskQueue: this.taskQueue,
      workflowBundle: await workflowBundle(),
      activities,
      maxHeartbeatThrottleInterval: HEARTBEAT_THROTTLE,
    })
    return this.#run(worker, async () => undefined)
  }

  async startDestination(engine: ReplicationEngine): Promise<TestWorker> {
    const set = createActivities({ engine, resolvePipeline: this.#resolve, logger: pino({ level: 'silent' }), lingerMs: 500 })
    return this.startDestinationWith(set.activities, { close: set.close })
  }

  /** As a process of its own: its answers name a queue of its own, which it polls, too, where `polls`. */
  async startDestinationAtHome(engine: ReplicationEngine, { ownTaskQueue = `${this.destinationQueue}-${randomBytes(6).toString('hex')}`, polls = true } = {}): Promise<TestWorker> {
    const set = createActivities({ engine, resolvePipeline: this.#resolve, logger: pino({ level: 'silent' }), lingerMs: 500, ownTaskQueue })
    // On one connection a queue has one worker.
    const connection = await NativeConnection.connect({ address: this.#address })
    const workers = [await this.startDestinationWith(set.activities, { close: set.close, connection })]
    if (polls) workers.push(await this.startDestinationWith(set.activities, { taskQueue: ownTaskQueue, connection }))
    return this.#track(async () => {
      await Promise.all(workers.map(async (worker) => worker.stop()))
      await connection.close()
    })
  }

  /** Activities of the test's own. */
  async startDestinationWith(
    activities: object,
    { close = async () => undefined, taskQueue = this.destinationQueue, connection = this.#native }: { readonly close?: () => Promise<void>; readonly taskQueue?: string; readonly connection?: NativeConnection } = {},
  ): Promise<TestWorker> {
    const worker = await Worker.create({
      connection,
      namespace: this.client.options.namespace,
      taskQueue,
      activities,
      maxHeartbeatThrottleInterval: HEARTBEAT_THROTTLE,
      shutdownForceTime: '5 seconds',
    })
    return this.#run(worker, close)
  }

  async startReplicate(input: ReplicationInput = INPUT, workflowId = `replicate-${randomBytes(6).toString('hex')}`): Promise<WorkflowHandle<typeof replicate>> {
    return this.client.workflow.start(replicate, { taskQueue: this.taskQueue, workflowId, args: [input] })
  }

  /** Ends what a test left running: its task queue is the next test's too. */
  async terminateAll(): Promise<void> {
    const open = this.client.workflow.list({ query: `TaskQueue = '${this.taskQueue}' AND ExecutionStatus = 'Running'` })
    for await (const { workflowId } of open) {
      // The list is a moment old.
      await this.client.workflow.getHandle(workflowId).terminate().catch(() => undefined)
    }
  }

  async close(): Promise<void> {
    for (const worker of this.#workers) await worker.stop()
    await this.#native.close()
    await this.#connection.close()
  }

  readonly #resolve = () => ({ source: 'shop', destination: 'warehouse', taskQueue: this.destinationQueue })

  #run(worker: Worker, close: () => Promise<void>): TestWorker {
    const ended = worker.run().then(close, close)
    return this.#track(async () => {
      if (worker.getState() === 'RUNNING') worker.shutdown()
      await ended
    })
  }

  #track(stop: () => Promise<void>): TestWorker {
    let stopped: Promise<void> | undefined
    const tracked: TestWorker = {
      stop: () => {
        this.#workers.delete(tracked)
        stopped ??= stop()
        return stopped
      },
    }
    this.#workers.add(tracked)
    return tracked
  }
}

/** Asks for the status until it is as wanted. Throws with the last one after the deadline. */
export async function untilStatus(
  handle: WorkflowHandle,
  isWanted: (status: ReplicationStatus) => boolean,
  timeoutMs = 120_000,
): Promise<ReplicationStatus> {
  return until(() => handle.query(statusQuery), isWanted, timeoutMs)
}

/** Asks until the answer is as wanted. Throws with the last one after the deadline. */
export async function until<T>(ask: () => Promise<T>, isWanted: (answer: T) => boolean, timeoutMs = 120_000): Promise<T> {
  const deadline = Date.now() + timeoutMs
  for (;;) {
    const answer = await ask()
    if (isWanted(answer)) return answer
    if (Date.now() > deadline) throw new Error(`not as wanted after ${timeoutMs} ms: ${JSON.stringify(answer)}`)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}
