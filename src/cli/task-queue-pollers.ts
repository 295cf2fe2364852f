import type { Client } from '@temporalio/client'

import { noWorker } from './failure.ts'

/** A poll lasts up to a minute; who has not come back after that is gone. */
const POLL_AGE_MS = 75_000
type TaskQueueType = NonNullable<Parameters<Client['workflowService']['describeTaskQueue']>[0]['taskQueueType']>
// The enum's numbers are the wire format's; its object stands in @temporalio/proto, which is no dependency of ours.
/* eslint-disable @typescript-eslint/no-unsafe-enum-assignment */
const WORKFLOW_TASKS = 1 as TaskQueueType
const ACTIVITY_TASKS = 2 as TaskQueueType
/* eslint-enable @typescript-eslint/no-unsafe-enum-assignment */

/** Whether somebody has polled the task queue lately. */
export async function hasWorker(client: Client, taskQueue: string, tasks: 'activities' | 'workflows and activities'): Promise<boolean> {
  const kinds = tasks === 'activities' ? [ACTIVITY_TASKS] : [WORKFLOW_TASKS, ACTIVITY_TASKS]
  const counts = await Promise.all(
    kinds.map(async (taskQueueType) => {
      const { pollers } = await client.workflowService.describeTaskQueue({ namespace: client.options.namespace, taskQueue: { name: taskQueue }, taskQueueType })
      return pollers.filter(({ lastAccessTime }) => Date.now() - Number(lastAccessTime?.seconds ?? 0) * 1_000 < POLL_AGE_MS).length
    }),
  )
  return counts.every((found) => found > 0)
}

/** Throws `WorkerUnavailable` where nobody would take up a workflow: waiting for its end would be for ever. */
export async function requireWorker(client: Client, taskQueue: string): Promise<void> {
  if (!(await hasWorker(client, taskQueue, 'workflows and activities'))) throw noWorker(`no worker polls task queue ${taskQueue}`)
}
