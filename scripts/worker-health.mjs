/**
 * Health check of the worker's container: exits 0 when a worker of this host has polled the task queue for workflows
 * within the last two minutes (a poll lasts up to one). Asks Temporal rather than the process, because a worker that
 * runs but no longer polls is the failure worth seeing.
 */
import { hostname } from 'node:os'

import { Client, Connection } from '@temporalio/client'
import { loadClientConnectConfig } from '@temporalio/envconfig'

const TASK_QUEUE_TYPE_WORKFLOW = 1
const RECENT_MS = 120_000
const taskQueue = process.env.REPLICATION_TASK_QUEUE ?? 'pg-replication'

async function checkPollers() {
  const { connectionOptions, namespace } = loadClientConnectConfig()
  const connection = await Connection.connect({ ...connectionOptions, connectTimeout: 5_000 })
  try {
    const client = new Client({ connection, namespace })
    const { pollers } = await client.workflowService.describeTaskQueue({
      namespace: client.options.namespace,
      taskQueue: { name: taskQueue },
      taskQueueType: TASK_QUEUE_TYPE_WORKFLOW,
    })
    const recent = pollers.filter((poller) => Date.now() - Number(poller.lastAccessTime?.seconds ?? 0) * 1_000 < RECENT_MS)
    const identities = recent.map((poller) => poller.identity).join(', ')
    console.log(`${taskQueue}: ${identities === '' ? 'no worker polls' : `polled by ${identities}`}`)
    // A worker's identity is `pid@host` unless its user chose another; then any poller of the queue counts.
    const hasDefaultIdentity = recent.some((poller) => /^\d+@/.test(poller.identity ?? ''))
    const ours = recent.filter((poller) => poller.identity?.endsWith(`@${hostname()}`) ?? false)
    return (hasDefaultIdentity ? ours : recent).length > 0
  } finally {
    await connection.close()
  }
}

try {
  process.exitCode = (await checkPollers()) ? 0 : 1
} catch (error) {
  console.error(error instanceof Error ? error.message : error)
  process.exitCode = 1
}
