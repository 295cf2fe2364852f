import type { Client, WorkflowExecutionDescription } from '@temporalio/client'
import { defineSearchAttributeKey, SearchAttributeType, WorkflowNotFoundError } from '@temporalio/common'

import { shellWord } from '../model/remedy.ts'
import type { ReplicationProgress, ReplicationStatus } from '../model/status.ts'
import { CliError } from './failure.ts'
import { asObject, decodePayload, scheduleOf, within } from './temporal.ts'

const QUERY_TIMEOUT_SECONDS = 10
/** Temporal's own, of what a schedule has started. */
const SCHEDULED_BY = defineSearchAttributeKey('TemporalScheduledById', SearchAttributeType.KEYWORD)

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
  const description = await handle.describe().catch(async (error: unknown) => { throw await notAWorkflow(client, workflowId, error) })
  const { runId } = description
  const state = description.status.name
  if (description.type !== 'replicate' && state !== 'FAILED') throw otherType(description)
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

/** A schedule has its own verb: its runs have the time in their ids. */
async function notAWorkflow(client: Client, workflowId: string, error: unknown): Promise<unknown> {
  if (!(error instanceof WorkflowNotFoundError) || (await scheduleOf(client, workflowId)) === null) return error
  return new CliError({ type: 'WorkflowNotFound', message: `there is no workflow ${workflowId}, but a schedule`, remedy: `npm run cli -- schedule show ${shellWord(workflowId)} tells what became of its runs` })
}

function otherType({ workflowId, type, typedSearchAttributes }: WorkflowExecutionDescription): CliError {
  const scheduleId = typedSearchAttributes.get(SCHEDULED_BY)
  return new CliError({
    type: 'InvalidInput',
    message: `workflow ${workflowId} has no replication status: it is a ${type}`,
    remedy: scheduleId !== undefined ? `npm run cli -- schedule show ${shellWord(scheduleId)} tells what became of it` : `temporal workflow describe --workflow-id ${shellWord(workflowId)} shows it; npm run cli -- status lists the open replications`,
  })
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
