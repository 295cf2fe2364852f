import { type Client, type ScheduleDescription, ScheduleNotFoundError, type WorkflowHandle } from '@temporalio/client'
import { defaultPayloadConverter, type Payload } from '@temporalio/common'

import { connectClient, readTemporalSettings } from '../temporal-connection.ts'

/** Connects, runs, and closes the connection whatever happens. Throws `TemporalUnavailable`. */
export async function withClient<T>(run: (client: Client) => Promise<T>): Promise<T> {
  const client = await connectClient(readTemporalSettings(process.env))
  try {
    return await run(client)
  } finally {
    await client.connection.close()
  }
}

/** Runs with a limit on every call to Temporal in it: without a worker, an update or a query would wait for ever. */
export async function within<T>(client: Client, timeoutSeconds: number, run: () => Promise<T>): Promise<T> {
  return await client.withDeadline(Date.now() + timeoutSeconds * 1000, run)
}

/** A workflow's page in the Temporal UI, where `TEMPORAL_UI_URL` says where that is. */
export function uiLink(client: Client, workflowId: string, runId?: string): string | null {
  const base = process.env['TEMPORAL_UI_URL']
  if (base === undefined || base === '') return null
  const namespace = encodeURIComponent(client.options.namespace)
  const run = runId === undefined ? '' : `/${encodeURIComponent(runId)}/history`
  return `${base.replace(/\/+$/, '')}/namespaces/${namespace}/workflows/${encodeURIComponent(workflowId)}${run}`
}

/** The schedule of this id; null where there is none. */
export async function scheduleOf(client: Client, scheduleId: string): Promise<ScheduleDescription | null> {
  return await client.schedule.getHandle(scheduleId).describe().catch((error: unknown) => {
    if (error instanceof ScheduleNotFoundError) return null
    throw error
  })
}

/** The JSON object that a workflow was started with; empty where it had none. */
export async function workflowInput(client: Client, handle: WorkflowHandle): Promise<Readonly<Record<string, unknown>>> {
  const { history } = await client.workflowService.getWorkflowExecutionHistory({
    namespace: client.options.namespace,
    execution: { workflowId: handle.workflowId },
    maximumPageSize: 1,
  })
  const payloads = history?.events?.[0]?.workflowExecutionStartedEventAttributes?.input?.payloads
  return asObject(decodePayload(payloads?.[0]))
}

/** A payload's value, or undefined where there is none or it is in an encoding that only a codec knows. */
export function decodePayload(payload: Payload | null | undefined): unknown {
  if (payload === null || payload === undefined) return undefined
  try {
    return defaultPayloadConverter.fromPayload<unknown>(payload)
  } catch {
    return undefined
  }
}

/** The value where it is an object, else an empty one. */
export function asObject(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? { ...value } : {}
}
