import type { Client, ScheduleDescription } from '@temporalio/client'
import { WorkflowNotFoundError } from '@temporalio/common'
import { describeFailure, type ShownError } from './failure.ts'

type Action = ScheduleDescription['info']['recentActions'][number]

/** What became of one run of a schedule. */
export interface ScheduledRun {
  readonly takenAt: string
  readonly workflowId: string
  /** Temporal's name in lower case (`running`, `completed`, `failed` …), or `gone` where it keeps it no longer. */
  readonly state: string
  readonly error?: ShownError
}

/** Failed ones with their error, as every verb shows it. */
export async function scheduledRunOf(client: Client, { takenAt, action: { workflow } }: Action): Promise<ScheduledRun> {
  const run = { takenAt: takenAt.toISOString(), workflowId: workflow.workflowId }
  const handle = client.workflow.getHandle(workflow.workflowId, workflow.firstExecutionRunId, { followRuns: false })
  try {
    const { status } = await handle.describe()
    const state = status.name.toLowerCase()
    if (state === 'running' || state === 'completed') return { ...run, state }
    const error = await handle.result().then(() => null, (reason: unknown) => describeFailure(reason).shown)
    return { ...run, state, ...(error === null ? {} : { error }) }
  } catch (error) {
    if (error instanceof WorkflowNotFoundError) return { ...run, state: 'gone' }
    throw error
  }
}

/** How many of its runs have failed, of those that Temporal still keeps; null where its store cannot count them. A schedule shows its last ten alone. */
export async function countFailedRuns(client: Client, scheduleId: string): Promise<number | null> {
  const counted = await client.workflow.count(`TemporalScheduledById = '${scheduleId.replaceAll("'", "''")}' AND ExecutionStatus IN ('Failed', 'TimedOut')`).catch(() => null)
  return counted?.count ?? null
}
