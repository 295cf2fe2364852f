import type { Client } from '@temporalio/client'

import { connectClient, readTemporalSettings } from '../temporal-connection.ts'
import { SEARCH_ATTRIBUTE_NAMES, SEARCH_ATTRIBUTES } from '../model/search-attributes.ts'
import type { Check } from './check.ts'
import { describeFailure } from './failure.ts'
import { hasWorker } from './task-queue-pollers.ts'

const SUBJECT = 'temporal'
/** Older servers lack activity pause; everything else works (facts 32). */
const RECOMMENDED_VERSION = [1, 28] as const
/**
 * Checks that Temporal answers, and that workers poll the task queues (the first is the workflows' own). With `registers` it makes the search attributes
 * that the namespace lacks.
 */
export async function checkTemporal(env: NodeJS.ProcessEnv, taskQueues: readonly string[], registers: boolean): Promise<readonly Check[]> {
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
    return [connected, namespace, await checkSearchAttributes(client, registers), ...queues]
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

type IndexedValueType = NonNullable<Parameters<Client['connection']['operatorService']['addSearchAttributes']>[0]['searchAttributes']>[string]

/** Nothing needs them: lists of workflows can be asked by them, where they are there. */
async function checkSearchAttributes({ connection, options: { namespace } }: Client, registers: boolean): Promise<Check> {
  const check = (state: Check['state'], message: string, remedy: string | null = null): Check => ({ subject: SUBJECT, name: 'search attributes', state, message, remedy })
  try {
    const { customAttributes } = await connection.operatorService.listSearchAttributes({ namespace })
    const typeOf = (name: string): number | null => (name in customAttributes ? Number(customAttributes[name]) : null)
    const others = SEARCH_ATTRIBUTE_NAMES.filter((name) => typeOf(name) !== null && typeOf(name) !== SEARCH_ATTRIBUTES[name].wireType)
    const missing = SEARCH_ATTRIBUTE_NAMES.filter((name) => typeOf(name) === null)
    if (registers && missing.length > 0) {
      // The enum's numbers are the wire format's; its object stands in @temporalio/proto, which is no dependency of ours.
      // eslint-disable-next-line @typescript-eslint/no-unsafe-enum-assignment
      const searchAttributes = Object.fromEntries(missing.map((name) => [name, SEARCH_ATTRIBUTES[name].wireType as number as IndexedValueType]))
      await connection.operatorService.addSearchAttributes({ namespace, searchAttributes })
    }
    if (others.length > 0) return check('warning', `of another type than ours: ${others.join(', ')}; these are not set`, 'temporal operator search-attribute remove and doctor --register make them anew')
    if (missing.length === 0) return check('ok', SEARCH_ATTRIBUTE_NAMES.join(', '))
    return registers
      ? check('ok', `made: ${missing.join(', ')}; a replicate sets them from its next start on`)
      : check('ok', `not registered: ${missing.join(', ')} (nothing needs them; doctor --register makes them)`)
  } catch (error) {
    const message = 'Temporal does not tell: its operator service is not for this user, or it is Temporal Cloud'
    return registers ? { ...failure('search attributes', error), message } : check('ok', message)
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
