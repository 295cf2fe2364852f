import type { Client, ScheduleDescription } from '@temporalio/client'
import { WorkflowNotFoundError } from '@temporalio/common'
import { describeFailure, type ShownError } from './failure.ts'
import { printable } from './printable.ts'
import { isWhole, reportOf } from './verify.ts'

type Action = ScheduleDescription['info']['recentActions'][number]

/** What became of one run of a schedule. */
export interface ScheduledRun {
  readonly takenAt: string
  readonly workflowId: string
  /** Temporal's name in lower case (`running`, `completed`, `failed` …), or `gone` where it keeps it no longer. */
  readonly state: string
  readonly error?: ShownError
  /** Of a verification that ended: rows that differ and were not put right, and tables that were not compared. */
  readonly different?: number
  readonly notCompared?: readonly string[]
  /** False = it left tables or rows out. */
  readonly isWhole?: boolean
}

/** Failed ones with their error, as every verb shows it; verifications with what they found, as these end well whatever that is. */
export async function scheduledRunOf(client: Client, { takenAt, action: { workflow } }: Action): Promise<ScheduledRun> {
  const run = { takenAt: takenAt.toISOString(), workflowId: workflow.workflowId }
  const handle = client.workflow.getHandle(workflow.workflowId, workflow.firstExecutionRunId, { followRuns: false })
  try {
    const { status, type } = await handle.describe()
    const state = status.name.toLowerCase()
    if (state === 'completed' && type === 'verifyReplication') {
      const report = reportOf(await handle.result())
      const different = Object.values(report.tables).reduce((sum, table) => sum + table.different - table.repaired, 0)
      return { ...run, state, different, notCompared: Object.keys(report.notCompared), isWhole: isWhole(report) }
    }
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

/** `completed`; of a verification also what it found. */
export function outcomeOf({ state, different, notCompared = [], isWhole: isEverything = notCompared.length === 0 }: ScheduledRun): string {
  if (different === undefined) return state
  const equal = isEverything ? 'equal' : 'equal, as far as was compared'
  const found = different === 0 ? equal : `${different.toLocaleString('en')} rows differ`
  return `${state}: ${[found, ...(notCompared.length === 0 ? [] : [`not compared: ${notCompared.map(printable).join(', ')}`])].join('; ')}`
}
