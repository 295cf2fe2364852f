import type { Client } from '@temporalio/client'

import { connectClient, readTemporalSettings } from '../temporal-connection.ts'
import type { Check } from './check.ts'
import { describeFailure } from './failure.ts'
import { hasWorker } from './task-queue-pollers.ts'

const SUBJECT = 'temporal'
/** Older servers lack activity pause; everything else works (facts 32). */
const RECOMMENDED_VERSION = [1, 28] as const
/** Checks that Temporal answers, and that workers poll the task queues (the first is the workflows' own). */
export async function checkTemporal(env: NodeJS.ProcessEnv, taskQueues: readonly string[]): Promise<readonly Check[]> {
  let client: Client
  try {
    client = await connectClient(readTemporalSettings(env))
  } catch (error) {
    return [failure('connection', error)]
  }
  try {
    const connected = await checkServer(client)
    const namespace = await checkNamespace(client)
    if (namespace.state === 'failure') return [connected, namespace]
    const queues = await Promise.all(taskQueues.map(async (taskQueue, index) => await checkTaskQueue(client, taskQueue, index === 0)))
    return [connected, namespace, ...queues]
  } catch (error) {
    return [failure('connection', error)]
  } finally {
    await client.connection.close()
  }
}

function failure(name: string, error: unknown): Check {
  const { message, remedy } = describeFailure(error).shown
  return { subject: SUBJECT, name, state: 'failure', message, remedy }
}

async function checkServer(client: Client): Promise<Check> {
  const { serverVersion } = await client.workflowService.getSystemInfo({})
  const [major = 0, minor = 0] = serverVersion.split('.').map(Number)
  const isOld = major < RECOMMENDED_VERSION[0] || (major === RECOMMENDED_VERSION[0] && minor < RECOMMENDED_VERSION[1])
  const { address } = readTemporalSettings(process.env)
  return {
    subject: SUBJECT,
    name: 'connection',
    state: isOld ? 'warning' : 'ok',
    message: `server ${serverVersion} answers at ${address}`,
    remedy: isOld ? `activities can be paused from ${RECOMMENDED_VERSION.join('.')} on` : null,
  }
}

async function checkNamespace(client: Client): Promise<Check> {
  const { namespace } = client.options
  try {
    await client.workflowService.describeNamespace({ namespace })
    return { subject: SUBJECT, name: 'namespace', state: 'ok', message: namespace, remedy: null }
  } catch (error) {
    return failure('namespace', error)
  }
}

async function checkTaskQueue(client: Client, taskQueue: string, isWorkflowQueue: boolean): Promise<Check> {
  const isPolled = await hasWorker(client, taskQueue, isWorkflowQueue ? 'workflows and activities' : 'activities')
  return {
    subject: SUBJECT,
    name: 'worker',
    state: isPolled ? 'ok' : 'warning',
    message: isPolled ? `task queue ${taskQueue} is polled` : `no worker polls task queue ${taskQueue}`,
    remedy: isPolled ? null : 'npm start runs a worker (npm run dev: one with servers to try things)',
  }
}
