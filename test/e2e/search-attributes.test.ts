import { randomBytes } from 'node:crypto'
import { type Client, Connection, type WorkflowExecutionInfo, type WorkflowHandle } from '@temporalio/client'
import { defineSearchAttributeKey, TypedSearchAttributes } from '@temporalio/common'
import { afterAll, beforeAll, expect, inject, it, vi } from 'vitest'
import type * as SearchAttributesModule from '../../src/activities/search-attributes.ts'
import { SEARCH_ATTRIBUTE_NAMES } from '../../src/model/search-attributes.ts'
import { pauseUpdate, replicate, resumeUpdate, stopUpdate } from '../../src/workflows/index.ts'
import { checkTemporal } from '../../src/cli/check-temporal.ts'
import { FakeEngine } from '../support/fake-engine.ts'
import { INPUT, until, untilStatus, WorkflowHarness } from '../support/workflow-harness.ts'

const temporal = vi.hoisted(() => ({ tells: true }))
vi.mock('../../src/activities/search-attributes.ts', async (original) => {
  const { registeredSearchAttributes } = await original<typeof SearchAttributesModule>()
  return { registeredSearchAttributes: async (client: Client) => (temporal.tells ? registeredSearchAttributes(client) : null) }
})

const KEYWORD = 2
const INT = 3
const address = inject('temporalAddress')
let connection: Connection

beforeAll(async () => {
  connection = await Connection.connect({ address })
})
afterAll(async () => {
  await connection.close()
})

/** A namespace of its own, with these custom search attributes. */
async function namespaceWith(attributes: Readonly<Record<string, number>>): Promise<string> {
  const namespace = `listed-${randomBytes(4).toString('hex')}`
  await connection.workflowService.registerNamespace({ namespace, workflowExecutionRetentionPeriod: { seconds: 86_400 as never } })
  await until(async () => connection.workflowService.describeNamespace({ namespace }).then(() => true, () => false), (isThere) => isThere)
  if (Object.keys(attributes).length > 0) await connection.operatorService.addSearchAttributes({ namespace, searchAttributes: attributes })
  return namespace
}

/** What `doctor` says of the search attributes. */
async function doctor(namespace: string, registers: boolean): Promise<{ readonly state: string; readonly message: string }> {
  const checks = await checkTemporal({ TEMPORAL_ADDRESS: address, TEMPORAL_NAMESPACE: namespace }, [], registers)
  const found = checks.find(({ name }) => name === 'search attributes')
  if (found === undefined) throw new Error('doctor says nothing of search attributes')
  return found
}

async function untilListed(client: Client, query: string): Promise<WorkflowExecutionInfo> {
  const listed = async (): Promise<readonly WorkflowExecutionInfo[]> => {
    const found: WorkflowExecutionInfo[] = []
    // A namespace learns its attributes a moment later.
    try { for await (const info of client.workflow.list({ query })) found.push(info) } catch { return [] }
    return found
  }
  const [first] = await until(listed, (found) => found.length === 1)
  if (first === undefined) throw new Error('nothing is listed')
  return first
}

async function eventTypes(handle: WorkflowHandle): Promise<readonly string[]> {
  const { events } = await handle.fetchHistory()
  return (events ?? []).flatMap(({ upsertWorkflowSearchAttributesEventAttributes, workflowPropertiesModifiedEventAttributes, workflowTaskFailedEventAttributes }) => [
    ...(upsertWorkflowSearchAttributesEventAttributes ? ['search attributes'] : []),
    ...(workflowPropertiesModifiedEventAttributes ? ['memo'] : []),
    ...(workflowTaskFailedEventAttributes ? ['task failed'] : []),
  ])
}

it('shows phase, source, slot and lag in the list, once doctor --register has made the attributes', async () => {
  const namespace = await namespaceWith({})
  expect(await doctor(namespace, false)).toMatchObject({ state: 'ok', message: expect.stringContaining('not registered: ReplicationPhase') as string })
  expect(await doctor(namespace, true)).toMatchObject({ state: 'ok', message: expect.stringContaining('made: ReplicationPhase, ReplicationSource, ReplicationSlot, ReplicationLagBytes') as string })
  expect(await until(async () => doctor(namespace, true), ({ message }) => !message.startsWith('made'))).toMatchObject({ state: 'ok', message: SEARCH_ATTRIBUTE_NAMES.join(', ') })
  const harness = await WorkflowHarness.open(address, namespace)
  try {
    await harness.start(new FakeEngine())
    const handle = await harness.startReplicate()
    await untilStatus(handle, ({ phase }) => phase === 'streaming')
    const info = await untilListed(harness.client, `ReplicationPhase = 'streaming' AND ReplicationSource = 'shop' AND ReplicationSlot = '${INPUT.slotName}' AND ReplicationLagBytes >= 0`)
    expect(info.workflowId).toBe(handle.workflowId)
    expect(info.memo).toMatchObject({ source: 'shop', destination: 'warehouse', slotName: INPUT.slotName, publicationName: INPUT.publicationName })
    await handle.executeUpdate(pauseUpdate, { args: [{}] })
    await untilListed(harness.client, "ReplicationPhase = 'paused'")
    await handle.executeUpdate(resumeUpdate, { args: [{}] })
    await untilListed(harness.client, "ReplicationPhase = 'streaming'")
    await handle.executeUpdate(stopUpdate, { args: [{}] })
    await untilListed(harness.client, `ReplicationPhase = 'stopped' AND ExecutionStatus = 'Completed'`)
    const written = (await eventTypes(handle)).filter((type) => type !== 'task failed')
    // A phase, or a lag of another magnitude: not once a slice.
    expect(written.filter((type) => type === 'search attributes').length).toBeLessThanOrEqual(12)
    expect(written.filter((type) => type === 'memo')).toHaveLength(1)
  } finally {
    await harness.terminateAll()
    await harness.close()
  }
})

it('does everything the same where the namespace has none of them', async () => {
  const namespace = await namespaceWith({})
  const harness = await WorkflowHarness.open(address, namespace)
  try {
    await harness.start(new FakeEngine())
    const handle = await harness.startReplicate()
    await untilStatus(handle, ({ phase }) => phase === 'streaming')
    await handle.executeUpdate(pauseUpdate, { args: [{}] })
    await handle.executeUpdate(stopUpdate, { args: [{}] })
    expect(await eventTypes(handle)).toEqual(['memo'])
  } finally {
    await harness.terminateAll()
    await harness.close()
  }
})

it('leaves out what is there under another type, and sets the rest', async () => {
  const namespace = await namespaceWith({ ReplicationPhase: INT, ReplicationSlot: KEYWORD })
  await until(async () => doctor(namespace, false), ({ message }) => message.includes('ReplicationPhase'))
  expect(await doctor(namespace, false)).toMatchObject({ state: 'warning', message: 'of another type than ours: ReplicationPhase; these are not set' })
  const harness = await WorkflowHarness.open(address, namespace)
  try {
    await harness.start(new FakeEngine())
    const handle = await harness.startReplicate()
    await untilStatus(handle, ({ phase }) => phase === 'streaming')
    expect((await untilListed(harness.client, `ReplicationSlot = '${INPUT.slotName}'`)).workflowId).toBe(handle.workflowId)
    await handle.executeUpdate(pauseUpdate, { args: [{}] })
    await handle.executeUpdate(stopUpdate, { args: [{}] })
    expect((await eventTypes(handle)).filter((type) => type === 'search attributes')).toHaveLength(1)
  } finally {
    await harness.terminateAll()
    await harness.close()
  }
})

it('goes on with what it has shown so far, as a run that continues another has it, where Temporal does not tell', async () => {
  const namespace = await namespaceWith({ ReplicationPhase: KEYWORD, ReplicationSlot: KEYWORD })
  await until(async () => doctor(namespace, false), ({ message }) => message.includes('not registered: ReplicationSource'))
  const harness = await WorkflowHarness.open(address, namespace)
  temporal.tells = false
  try {
    await harness.start(new FakeEngine())
    const handle = await until(
      async () =>
        harness.client.workflow
          .start(replicate, {
            taskQueue: harness.taskQueue,
            workflowId: namespace,
            args: [INPUT],
            typedSearchAttributes: new TypedSearchAttributes([{ key: defineSearchAttributeKey('ReplicationPhase', 'KEYWORD'), value: 'streaming of before' }]),
          })
          .catch(() => null),
      (started) => started !== null,
    )
    if (handle === null) throw new Error('it did not start')
    await untilStatus(handle, ({ phase }) => phase === 'streaming')
    await handle.executeUpdate(pauseUpdate, { args: [{}] })
    const { typedSearchAttributes } = await untilListed(harness.client, "ReplicationPhase = 'paused'")
    expect(typedSearchAttributes.getAll().map(({ key }) => key.name)).not.toContain('ReplicationSlot')
    await handle.executeUpdate(stopUpdate, { args: [{}] })
  } finally {
    temporal.tells = true
    await harness.terminateAll()
    await harness.close()
  }
})
