import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Client, WorkflowHandle } from '@temporalio/client'
import { newestHeartbeat, readStatus, withLiveFigures } from '../cli/replication-status.ts'
import { parseLsn } from '../model/lsn.ts'
// What users import as `temporal-pg-replication/workflows`: types only, the names of workflows and messages are texts to a client.
import type { ReplicationInput, ReplicationStatus } from '../workflows/index.ts'

const POLL_MS = 250

/** Which replication to drive. */
export interface ReplicationOptions {
  readonly client: Client
  readonly workflowId: string
  readonly taskQueue: string
  readonly input: ReplicationInput
  readonly signal: AbortSignal
}

/** What a client can know while no worker answers: Temporal's own view of the running activity. */
export interface ActivityView {
  /** Which attempt of which activity it is: another one where another worker has taken over. */
  readonly attempt: string
  readonly lastHeartbeatMs: number | null
}

/** The `replicate` workflow, as any client of Temporal sees it. */
export class Replication {
  readonly #options: ReplicationOptions
  readonly #handle: WorkflowHandle
  #last: ReplicationStatus | null = null
  /** Workflows that are open or being started, by id. */
  readonly #open = new Map<string, Promise<WorkflowHandle>>()

  constructor(options: ReplicationOptions) {
    this.#options = options
    this.#handle = options.client.workflow.getHandle(options.workflowId)
  }

  get workflowId(): string {
    return this.#options.workflowId
  }

  /** Starts the workflow, again too: under the same id it goes on where it was stopped. */
  async start(): Promise<void> {
    const { workflowId, input } = this.#options
    await this.#start('replicate', workflowId, input)
    this.#last = null
  }

  /** The workflow's answer to query `status`, with the running activity's newest figures over it. */
  async readStatus(): Promise<ReplicationStatus> {
    const { status } = await readStatus(this.#options.client, this.workflowId)
    this.#last = status
    return status
  }

  /**
   * Reads the status until `isDone`; `onStatus` hears each. Throws what the replication says when it has failed, and after `limitMs`.
   */
  async follow(isDone: (status: ReplicationStatus) => boolean, options: { readonly limitMs: number; readonly onStatus?: (status: ReplicationStatus) => void }): Promise<ReplicationStatus> {
    const deadlineMs = performance.now() + options.limitMs
    for (;;) {
      const status = await this.readStatus()
      options.onStatus?.(status)
      const problem = status.phase === 'failed' ? status.lastError : Object.values(status.tables).find(({ state }) => state === 'failed')?.error
      if (problem !== undefined) throw new Error(`the replication has failed: ${problem.type}: ${problem.message}\n${problem.remedy}`)
      if (isDone(status)) return status
      if (performance.now() > deadlineMs) {
        const why = status.lastError === undefined ? '' : `; it says ${status.lastError.type}: ${status.lastError.message}`
        throw new Error(`the replication did not get there in ${options.limitMs / 1_000} s (phase ${status.phase}, applied ${status.appliedLsn ?? 'nothing'})${why}`)
      }
      await sleep(POLL_MS, undefined, { signal: this.#options.signal })
    }
  }

  /** Whether all that committed at the source before `lsn` is in the destination. */
  hasApplied(status: ReplicationStatus, lsn: string): boolean {
    return status.appliedLsn !== null && parseLsn(status.appliedLsn) >= parseLsn(lsn)
  }

  /** Temporal's view of the running activity, and its figures over the last status. Asks no worker. */
  async observe(): Promise<{ readonly activity: ActivityView | null; readonly status: ReplicationStatus | null }> {
    const { raw } = await this.#handle.describe()
    const pending = raw.pendingActivities ?? []
    if (this.#last !== null) this.#last = withLiveFigures(this.#last, newestHeartbeat(pending).progress)
    const [first] = pending
    if (first === undefined) return { activity: null, status: this.#last }
    const heartbeat = first.lastHeartbeatTime
    const lastHeartbeatMs = heartbeat === undefined || heartbeat === null ? null : Number(heartbeat.seconds ?? 0) * 1_000 + (heartbeat.nanos ?? 0) / 1e6
    return { activity: { attempt: `${first.activityId ?? ''}.${first.attempt ?? 1}`, lastHeartbeatMs }, status: this.#last }
  }

  /** Update `stop`: the workflow ends COMPLETED after the running commit. Returns the final status, which is its result. */
  async stop(): Promise<ReplicationStatus> {
    await this.#handle.executeUpdate('stop', { args: [{}], updateId: randomUUID() })
    const status = (await this.#handle.result()) as ReplicationStatus
    this.#open.delete(this.workflowId)
    return status
  }

  /** Runs `dropReplication` to its end: slot and publication go. */
  async drop(): Promise<readonly string[]> {
    const { input } = this.#options
    const workflowId = `${this.workflowId}-drop`
    const handle = await this.#start('dropReplication', workflowId, { ...input, confirm: input.slotName })
    const result = (await handle.result()) as { readonly dropped: readonly string[] }
    this.#open.delete(workflowId)
    return result.dropped
  }

  async #start(type: string, workflowId: string, input: object): Promise<WorkflowHandle> {
    const { client, taskQueue, signal } = this.#options
    signal.throwIfAborted()
    const staticSummary = 'The demo’s shop: four tables of PostgreSQL into DuckDB'
    const starting = client.workflow.start(type, { workflowId, taskQueue, args: [input], staticSummary })
    this.#open.set(workflowId, starting)
    return starting
  }

  /** Leaves no workflow behind on a server that goes on without us. Never throws. */
  async terminate(): Promise<void> {
    for (const [workflowId, starting] of this.#open) {
      // A start that is on its way would arrive when nobody is left to end it.
      await starting.catch(() => undefined)
      await this.#options.client.workflow.getHandle(workflowId).terminate('the demo was ended').catch(() => undefined)
    }
    this.#open.clear()
  }
}
