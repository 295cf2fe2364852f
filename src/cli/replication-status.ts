import type { Client } from '@temporalio/client'

import type { ReplicationProgress, ReplicationStatus } from '../model/status.ts'
import { CliError } from './failure.ts'
import { asObject, decodePayload, within } from './temporal.ts'

const QUERY_TIMEOUT_SECONDS = 10

/** A replication's status with what the running activity said last. */
export interface LiveStatus {
  readonly workflowId: string
  readonly runId: string
  readonly status: ReplicationStatus
  /** What the running activity is about, for people; null where none runs. */
  readonly activity: string | null
}

/**
 * Reads a replication's status: the workflow's answer (its result, once it has ended), and over it the live figures of the running
 * activity where those are newer.
 */
export async function readStatus(client: Client, workflowId: string): Promise<LiveStatus> {
  const handle = client.workflow.getHandle(workflowId)
  const description = await handle.describe()
  const { runId } = description
  const state = description.status.name
  // Its final status is its result: no worker is needed to see it. A failed one throws its failure here.
  if (state === 'COMPLETED' || state === 'FAILED' || state === 'TIMED_OUT') {
    return { workflowId, runId, status: requireStatus(workflowId, await handle.result()), activity: null }
  }
  const answer = await within(client, QUERY_TIMEOUT_SECONDS, async () => await handle.query<unknown>('status'))
  const live = newestHeartbeat(description.raw.pendingActivities ?? [])
  return { workflowId, runId, status: withLiveFigures(requireStatus(workflowId, answer), live.progress), activity: live.activity }
}

/** Ids of the replications that are open, oldest first. */
export async function listOpenReplications(client: Client): Promise<readonly string[]> {
  const found: { readonly workflowId: string; readonly startTime: Date }[] = []
  for await (const execution of client.workflow.list({ query: "WorkflowType = 'replicate' AND ExecutionStatus = 'Running'" })) {
    found.push({ workflowId: execution.workflowId, startTime: execution.startTime })
  }
  return found.sort((a, b) => a.startTime.getTime() - b.startTime.getTime()).map(({ workflowId }) => workflowId)
}

/** The workflow's status with the activity's figures and warnings (the workflow's own are among them) where they were taken later. */
export function withLiveFigures(status: ReplicationStatus, live: ReplicationProgress | null): ReplicationStatus {
  if (live === null || live.asOf <= status.asOf) return status
  return { ...status, ...live }
}

interface PendingActivity {
  readonly heartbeatDetails?: { readonly payloads?: Parameters<typeof decodePayload>[0][] | null } | null
}

/** The details of the running activity's last heartbeat; they are a hint and may be of any shape. */
export function newestHeartbeat(activities: readonly PendingActivity[]): { readonly activity: string | null; readonly progress: ReplicationProgress | null } {
  for (const pending of activities) {
    const details = asObject(decodePayload(pending.heartbeatDetails?.payloads?.[0]))
    if (typeof details['activity'] !== 'string') continue
    const progress = details['progress']
    return { activity: details['activity'] === '' ? null : details['activity'], progress: isProgress(progress) ? progress : null }
  }
  return { activity: null, progress: null }
}

function isProgress(value: unknown): value is ReplicationProgress {
  const progress = asObject(value)
  return typeof progress['asOf'] === 'string' && typeof progress['tables'] === 'object' && Array.isArray(progress['warnings'])
}

function requireStatus(workflowId: string, value: unknown): ReplicationStatus {
  if (isStatus(value)) return value
  throw new CliError({
    type: 'InvalidInput',
    message: `workflow ${workflowId} has no replication status: it is of another type`,
    remedy: 'npm run cli -- status lists the open replications',
  })
}

function isStatus(value: unknown): value is ReplicationStatus {
  return isProgress(value) && 'phase' in value && typeof value.phase === 'string'
}
