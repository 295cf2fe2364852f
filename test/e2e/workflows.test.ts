import { CompleteAsyncError } from '@temporalio/activity'
import { WorkflowFailedError, WorkflowUpdateFailedError } from '@temporalio/client'
import { ApplicationFailure, CancelledFailure } from '@temporalio/common'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, inject, it } from 'vitest'
import {
  addTablesUpdate,
  dropReplication,
  initReplication,
  pauseUpdate,
  removeTablesUpdate,
  resumeUpdate,
  resyncTablesUpdate,
  recoverUpdate,
  retryFailedUpdate,
  setOptionsUpdate,
  snapshotTables,
  statusQuery,
  stopSignal,
  stopUpdate,
  syncByXmin,
  syncChanges,
  verifyReplication,
} from '../../src/workflows/index.ts'
import { DomainError } from '../../src/model/errors.ts'
import type { ReplicationStatus } from '../../src/model/status.ts'
import { FakeEngine, slotLost, sourceDown } from '../support/fake-engine.ts'
import { INPUT, type TestWorker, until, untilStatus, WorkflowHarness } from '../support/workflow-harness.ts'

let harness: WorkflowHarness
let engine: FakeEngine
let worker: TestWorker

beforeAll(async () => {
  harness = await WorkflowHarness.open(inject('temporalAddress'))
})
afterAll(async () => {
  await harness.close()
})
beforeEach(async () => {
  engine = new FakeEngine()
  worker = await harness.start(engine)
})
afterEach(async () => {
  // One file, one task queue: what a test left running would come to the next test's worker.
  await harness.terminateAll()
  await worker.stop()
})

/** The failure that a run or an update ended with. */
async function failureOf(ending: Promise<unknown>): Promise<ApplicationFailure> {
  const error: unknown = await ending.then(
    () => new Error('did not fail'),
    (reason: unknown) => reason,
  )
  if ((error instanceof WorkflowFailedError || error instanceof WorkflowUpdateFailedError) && error.cause instanceof ApplicationFailure) return error.cause
  throw error
}

const options = (workflowId: string) => ({ taskQueue: harness.taskQueue, workflowId: `${workflowId}-${harness.taskQueue}` })

describe('replicate', () => {
  it('goes from init over the copy to the stream, and stop ends it COMPLETED with the slot let go of', async () => {
    const handle = await harness.startReplicate()
    const streaming = await untilStatus(handle, (status) => status.phase === 'streaming')
    expect(streaming).toMatchObject({ slotName: 'shop_slot', publicationName: 'shop_publication' })
    expect(streaming.warnings).toEqual(['a warning of init', 'a warning of the stream'])
    expect(streaming.lastError).toBeUndefined()

    const stopped = await handle.executeUpdate(stopUpdate, { args: [{}] })
    expect(stopped.phase).toBe('stopped')
    expect(await handle.result()).toEqual(stopped)
    expect((await handle.describe()).status.name).toBe('COMPLETED')
    expect(engine.isHeld).toBe(false)
    expect(engine.owner).toBeNull()
    expect(engine.maxRunning).toBe(1)
  })

  it('shows phase, tables and position in the UI, and a description of each message', async () => {
    const handle = await harness.startReplicate()
    await untilStatus(handle, (status) => status.phase === 'streaming')
    const metadata = await handle.query<{
      currentDetails: string
      definition: { updateDefinitions: { name: string; description: string }[]; queryDefinitions: { name: string; description: string }[] }
    }>('__temporal_workflow_metadata')
    expect(metadata.currentDetails).toContain('**streaming**')
    expect(metadata.currentDetails).toContain('public.orders')
    const updates = metadata.definition.updateDefinitions
    expect(updates.map(({ name }) => name).toSorted()).toEqual(
      [...['addTables', 'approveSchemaChange', 'pause', 'recover', 'removeTables', 'resume', 'resyncTables', 'retryFailed'], ...['setOptions', 'stop']],
    )
    for (const { description } of [...updates, ...metadata.definition.queryDefinitions.filter(({ name }) => name === 'status')]) {
      expect(description.length).toBeGreaterThan(20)
    }
  })

  it('answers pause after the running commit, holds, and goes on by resume; both may be repeated', async () => {
    engine.commitMs = 400
    engine.maxSliceMs = 60_000
    const handle = await harness.startReplicate()
    await until(async () => engine.namesOf('slice').length, (count) => count > 0)
    const paused = await handle.executeUpdate(pauseUpdate, { args: [{}] })
    expect(paused.phase).toBe('paused')
    expect(engine.running).toBe(0)
    // The commit that ran at the time is in the answer.
    expect(paused.appliedLsn).toBe(`0/${engine.position.toString(16).toUpperCase()}`)
    expect((await handle.executeUpdate<ReplicationStatus, []>('pause')).phase).toBe('paused')

    const { length } = engine.calls
    await until(async () => engine.isHeld, (isHeld) => !isHeld)
    expect(engine.owner).toBe(handle.workflowId)
    expect(engine.calls.slice(length).map((call) => call.name)).toEqual(engine.calls.length > length ? ['release'] : [])

    expect((await handle.executeUpdate(resumeUpdate, { args: [{}] })).phase).toBe('streaming')
    expect((await handle.executeUpdate(resumeUpdate, { args: [{}] })).phase).toBe('streaming')
    await untilStatus(handle, (status) => status.appliedLsn !== paused.appliedLsn)
    await handle.executeUpdate(stopUpdate, { args: [{}] })
  })

  it('stops at any moment of its beginning', async () => {
    // An end while the names are being looked up failed the workflow task, and the update with it: UNHANDLED_COMMAND.
    for (const delayMs of [0, 5, 15, 30, 60, 120]) {
      const handle = await harness.startReplicate()
      await new Promise((resolve) => setTimeout(resolve, delayMs))
      expect((await handle.executeUpdate(stopUpdate, { args: [{}] })).phase).toBe('stopped')
      expect((await handle.describe()).status.name).toBe('COMPLETED')
    }
  })

  it('stops by the signal, from pause', async () => {
    const handle = await harness.startReplicate()
    await handle.executeUpdate(pauseUpdate, { args: [{}] })
    await handle.signal(stopSignal)
    expect((await handle.result()).phase).toBe('stopped')
  })

  it('ends CANCELED when cancelled, with the slot let go of', async () => {
    engine.maxSliceMs = 60_000
    const handle = await harness.startReplicate()
    await until(async () => engine.namesOf('slice').length, (count) => count > 0)
    const cancelledAt = Date.now()
    await handle.cancel()
    const error: unknown = await handle.result().catch((reason: unknown) => reason)
    expect(error instanceof WorkflowFailedError && error.cause instanceof CancelledFailure).toBe(true)
    expect(Date.now() - cancelledAt).toBeLessThan(10_000)
    expect((await handle.describe()).status.name).toBe('CANCELLED')
    expect(engine.isHeld).toBe(false)
    expect(engine.owner).toBeNull()
  })

  it('lets go of the slot soon after it is terminated, and the next one takes it over', async () => {
    engine.maxSliceMs = 60_000
    const handle = await harness.startReplicate()
    await until(async () => engine.isHeld && engine.namesOf('slice').length > 0, Boolean)
    await handle.terminate()
    await until(async () => engine.isHeld, (isHeld) => !isHeld, 30_000)
    const next = await harness.startReplicate()
    await untilStatus(next, (status) => status.phase === 'streaming')
    await next.executeUpdate(stopUpdate, { args: [{}] })
  })

  it('shows a fault while it is being retried, keeps the phase, and forgets it with the next success', async () => {
    const handle = await harness.startReplicate()
    const before = await untilStatus(handle, (status) => status.phase === 'streaming')
    engine.faults.slice = [sourceDown(), sourceDown()]
    const faulty = await untilStatus(handle, (status) => status.lastError !== undefined)
    expect(faulty.phase).toBe('streaming')
    expect(faulty.lastError).toEqual({ type: 'SourceUnavailable', message: 'the source refuses connections', remedy: 'start it' })
    const after = await untilStatus(handle, (status) => status.lastError === undefined)
    expect(after.appliedLsn).not.toBe(before.appliedLsn)
    await handle.executeUpdate(stopUpdate, { args: [{}] })
  })

  it('stops at once while it waits to retry a source that is down from the beginning', async () => {
    engine.faults.initialize = Array.from({ length: 50 }, sourceDown)
    const handle = await harness.startReplicate()
    // The third try was followed by a wait of four seconds.
    await until(async () => engine.namesOf('initialize').length, (count) => count >= 3)
    const status = await handle.query(statusQuery)
    expect(status.phase).toBe('initializing')
    expect(status.lastError?.type).toBe('SourceUnavailable')
    const stoppedAt = Date.now()
    expect((await handle.executeUpdate(stopUpdate, { args: [{}] })).phase).toBe('stopped')
    expect(Date.now() - stoppedAt).toBeLessThan(3_000)
    expect((await handle.describe()).status.name).toBe('COMPLETED')
  })

  it('waits in phase failed at an error that no retry mends, and retryFailed goes on', async () => {
    engine.faults.slice = [slotLost(), slotLost()]
    const handle = await harness.startReplicate({ ...INPUT, reset: true })
    const failed = await untilStatus(handle, (status) => status.phase === 'failed')
    expect(failed.lastError).toEqual({ type: 'SlotLost', message: 'slot shop_slot has lost its WAL', remedy: 'update recover' })
    expect((await failureOf(handle.executeUpdate(resumeUpdate, { args: [{}] }))).type).toBe('InvalidInput')
    expect(await handle.query(statusQuery)).toEqual(failed)

    const again = await handle.executeUpdate(retryFailedUpdate, { args: [{}] })
    expect(again.phase === 'failed' ? again.lastError?.type : 'SlotLost').toBe('SlotLost')
    await untilStatus(handle, (status) => status.phase === 'failed')
    await handle.executeUpdate(retryFailedUpdate, { args: [{}] })
    const mended = await untilStatus(handle, (status) => status.phase === 'streaming' && status.lastError === undefined)
    expect(mended.phase).toBe('streaming')
    // `reset` once: a second one would throw the copy away.
    expect(engine.namesOf('initialize').map((call) => call.detail)).toEqual([{ reset: true }, { reset: false }, { reset: false }])
    await handle.executeUpdate(stopUpdate, { args: [{}] })
  })

  it('pauses and stops in phase failed', async () => {
    engine.faults.initialize = [slotLost()]
    const handle = await harness.startReplicate()
    await untilStatus(handle, (status) => status.phase === 'failed')
    expect((await handle.executeUpdate(pauseUpdate, { args: [{}] })).phase).toBe('failed')
    expect((await handle.executeUpdate(retryFailedUpdate, { args: [{}] })).phase).toBe('paused')
    expect((await handle.executeUpdate(resumeUpdate, { args: [{}] })).phase).not.toBe('paused')
    expect((await handle.executeUpdate(stopUpdate, { args: [{}] })).phase).toBe('stopped')
    expect(await handle.result()).toMatchObject({ phase: 'stopped' })
  })

  it('lets a failed table go on, and refuses one that is not there', async () => {
    const handle = await harness.startReplicate()
    await untilStatus(handle, (status) => status.phase === 'streaming')
    engine.tables['public.orders'] = 'failed'
    const failed = await untilStatus(handle, (status) => status.tables['public.orders']?.state === 'failed')
    expect(failed.phase).toBe('streaming')
    expect(failed.tables['public.orders']?.error?.type).toBe('UnrepresentableValue')
    const refused = await failureOf(handle.executeUpdate(retryFailedUpdate, { args: [{ tableNames: ['nowhere'] }] }))
    expect(refused.type).toBe('InvalidInput')
    expect(refused.message).toContain('there is no table nowhere')
    expect((await handle.query(statusQuery)).phase).toBe('streaming')
    await handle.executeUpdate(retryFailedUpdate, { args: [{ tableNames: 'orders' }] })
    await untilStatus(handle, (status) => status.tables['public.orders']?.state === 'streaming')
    expect(engine.maxRunning).toBe(1)
    await handle.executeUpdate(stopUpdate, { args: [{}] })
  })

  it('gives a table that failed in an earlier workflow another try', async () => {
    engine.tables['public.orders'] = 'failed'
    const handle = await harness.startReplicate()
    await untilStatus(handle, (status) => status.tables['public.orders']?.state === 'streaming')
    await handle.executeUpdate(stopUpdate, { args: [{}] })
  })

  it('refuses a second start under another id, and changes nothing', async () => {
    const first = await harness.startReplicate()
    await untilStatus(first, (status) => status.phase === 'streaming')
    const second = await harness.startReplicate()
    const failure = await failureOf(second.result())
    expect(failure.type).toBe('AlreadyReplicating')
    expect(failure.message).toContain(first.workflowId)
    const sync = await failureOf(harness.client.workflow.execute(syncChanges, { ...options('meanwhile'), args: [INPUT] }))
    expect(sync.type).toBe('AlreadyReplicating')
    expect(engine.namesOf('release').filter((call) => call.owner !== first.workflowId && call.detail === false)).toEqual([])
    expect((await first.query(statusQuery)).phase).toBe('streaming')
    await first.executeUpdate(stopUpdate, { args: [{}] })
    // Stopped, the slot is free: under another id it goes on.
    const third = await harness.startReplicate()
    await untilStatus(third, (status) => status.phase === 'streaming')
    await third.executeUpdate(stopUpdate, { args: [{}] })
  })

  it('recovers from a lost slot in the place of the initialization, and only then; what fails in that, retryFailed does again', async () => {
    engine.faults.slice = [slotLost()]
    engine.faults.recover = [sourceDown(), new DomainError({ kind: 'SlotInUse', message: 'somebody reads the slot', remedy: 'stop that' })]
    const handle = await harness.startReplicate({ ...INPUT, reset: true })
    await untilStatus(handle, (status) => status.phase === 'failed')
    const unfinished = await handle.executeUpdate(recoverUpdate, { args: [{}] })
    expect([unfinished.phase, unfinished.lastError?.type]).toEqual(['initializing', 'SourceUnavailable'])
    expect((await untilStatus(handle, (status) => status.phase === 'failed')).lastError?.type).toBe('SlotInUse')
    expect(await handle.executeUpdate(retryFailedUpdate, { args: [{}] })).toBeDefined()
    const recovered = await untilStatus(handle, (status) => status.phase === 'streaming')
    expect(recovered.warnings).toContain('a warning of recovery')
    expect(engine.namesOf('recover').map(({ detail }) => detail)).toEqual([{ reset: false }, { reset: false }, { reset: false }])
    expect(engine.namesOf('initialize')).toHaveLength(1)
    const again = await failureOf(handle.executeUpdate(recoverUpdate, { args: [{}] }))
    expect(again).toMatchObject({ type: 'InvalidInput', message: expect.stringContaining('the replication has not failed: recover makes a new slot after SlotLost') as string })

    engine.faults.slice = [new DomainError({ kind: 'AuthenticationFailed', message: 'wrong password', remedy: 'correct it' }), new DomainError({ kind: 'DifferentSource', message: 'promoted', remedy: 'update recover' })]
    await untilStatus(handle, (status) => status.phase === 'failed')
    expect((await failureOf(handle.executeUpdate(recoverUpdate, { args: [{}] }))).message).toContain('has failed with AuthenticationFailed')
    await handle.executeUpdate(retryFailedUpdate, { args: [{}] })
    await untilStatus(handle, (status) => status.lastError?.type === 'DifferentSource')
    // While it is paused the slot is made, too, and it stays paused. What fails in that is tried again by another one, or when it is resumed.
    engine.faults.recover = [sourceDown()]
    await handle.executeUpdate(pauseUpdate, { args: [{}] })
    expect(await handle.executeUpdate(recoverUpdate, { args: [{}] })).toMatchObject({ phase: 'paused', lastError: { type: 'SourceUnavailable' } })
    const made = await handle.executeUpdate(recoverUpdate, { args: [{}] })
    expect([made.phase, made.lastError, engine.namesOf('recover').length]).toEqual(['paused', undefined, 5])
    expect(await failureOf(handle.executeUpdate(recoverUpdate, { args: [{}] }))).toMatchObject({ type: 'InvalidInput', message: expect.stringContaining('send the update resume') as string })
    await handle.executeUpdate(resumeUpdate, { args: [{}] })
    await untilStatus(handle, (status) => status.phase === 'streaming' && status.lastError === undefined)
    expect(engine.namesOf('recover')).toHaveLength(5)
    await handle.executeUpdate(stopUpdate, { args: [{}] })
  })

  it('refuses inputs that it does not know', async () => {
    const handle = await harness.startReplicate()
    const before = await untilStatus(handle, (status) => status.phase === 'streaming')
    expect((await failureOf(handle.executeUpdate('recover', { args: [{ tableNames: ['x'] }] }))).message).toContain('tableNames is not a known field')
    const approval = await failureOf(handle.executeUpdate('approveSchemaChange', { args: [{ tableNames: ['x'] }] }))
    expect(approval).toMatchObject({ type: 'InvalidInput', message: expect.stringContaining('table is required') as string })
    const failure = await failureOf(handle.executeUpdate('pause', { args: [{ now: true }] }))
    expect(failure.message).toContain('now is not a known field')
    expect((await failureOf(handle.executeUpdate('pause', { args: ['{}'] }))).message).toBe('update pause takes one JSON object, not a text. Remedy: give it {}')
    expect((await failureOf(handle.executeUpdate('pause', { args: [{}, {}] }))).message).toContain('not 2 arguments')
    expect((await handle.query(statusQuery)).phase).toBe(before.phase)
    await handle.executeUpdate(stopUpdate, { args: [{}] })
  })

  it('fails at once for its input', async () => {
    const handle = await harness.startReplicate({ ...INPUT, slotName: 'Bad Name' })
    expect(await failureOf(handle.result())).toMatchObject({ type: 'InvalidInput', nonRetryable: true })
  })

  it('and every other type take one argument', async () => {
    const args = [{ ...INPUT, confirm: INPUT.slotName }, { slotName: 'another' }]
    for (const type of ['replicate', 'initReplication', 'snapshotTables', 'syncChanges', 'dropReplication', 'verifyReplication']) {
      const failure = await failureOf(harness.client.workflow.execute(type, { ...options(`two-${type}`), args }))
      expect(failure).toMatchObject({ type: 'InvalidInput', message: `${type} takes one JSON object, not 2 arguments. Remedy: put all fields into one object` })
    }
    expect(engine.calls).toEqual([])
  })

  it('repeats a credential nowhere in its history but where Temporal stored it', async () => {
    const input = { ...INPUT, source: 'postgres://u:hunter2@db/shop' }
    const handle = await harness.startReplicate(input)
    const failure = await failureOf(handle.result())
    expect(failure.message).toContain(`temporal workflow delete --workflow-id ${handle.workflowId}`)
    const { events } = await handle.fetchHistory()
    expect(JSON.stringify(events?.slice(1))).not.toContain('hunter2')
  })
})

describe('a bound to the WAL that the slot holds back', () => {
  it('is watched while paused, which counts for nothing and makes way at once; without one nothing runs', async () => {
    engine.maxSliceMs = 60_000
    const handle = await harness.startReplicate()
    await untilStatus(handle, (status) => status.phase === 'streaming')
    expect((await handle.executeUpdate(pauseUpdate, { args: [{}] })).phase).toBe('paused')
    expect(engine.namesOf('spool')).toEqual([])
    expect((await handle.executeUpdate(setOptionsUpdate, { args: [{ walBudgetBytes: 5, spoolBudgetBytes: 6 }] })).phase).toBe('paused')
    const call = await until(async () => engine.namesOf('spool').at(-1), (found) => found !== undefined)
    expect(call?.spec).toMatchObject({ walBudgetBytes: 5, spoolBudgetBytes: 6 })
    expect((await handle.query(statusQuery)).phase).toBe('paused')
    // An order is carried out at once, and then it is watched again.
    await handle.executeUpdate(addTablesUpdate, { args: [{ tableNames: ['more'] }] })
    const status = await untilStatus(handle, ({ retainedWalBytes }) => retainedWalBytes === 77)
    expect(status).toMatchObject({ phase: 'paused', warnings: expect.arrayContaining(['a warning of the spool']) as unknown })
    await until(async () => engine.namesOf('spool').length, (count) => count > 1)
    expect((await handle.executeUpdate(resumeUpdate, { args: [{}] })).phase).not.toBe('paused')
    await untilStatus(handle, ({ phase, retainedWalBytes }) => phase === 'streaming' && retainedWalBytes === 0)
    expect(engine.maxRunning).toBe(1)
    await handle.executeUpdate(pauseUpdate, { args: [{}] })
    await until(async () => engine.running, (running) => running === 1)
    await handle.executeUpdate(stopUpdate, { args: [{}] })
    expect((await handle.result()).phase).toBe('stopped')
  })

  it('shows in phase failed that the slot is lost', async () => {
    const handle = await harness.startReplicate({ ...INPUT, walBudgetBytes: 5 })
    await untilStatus(handle, (status) => status.phase === 'streaming')
    engine.faults.spool = [sourceDown(), slotLost()]
    engine.maxSliceMs = 100
    await handle.executeUpdate(pauseUpdate, { args: [{}] })
    await untilStatus(handle, ({ phase, warnings }) => phase === 'paused' && warnings.includes('the slot cannot be watched: the source refuses connections'))
    // Somebody who does something has it watched again at once.
    await handle.executeUpdate(setOptionsUpdate, { args: [{ walBudgetBytes: 6 }] })
    expect((await untilStatus(handle, ({ phase }) => phase === 'failed')).lastError?.type).toBe('SlotLost')
    await handle.executeUpdate(stopUpdate, { args: [{}] })
  })
})

describe('setOptions', () => {
  it('is in force with the next slice, through pause and continue-as-new, and refuses what it does not know', async () => {
    engine.maxSliceMs = 60_000
    const handle = await harness.startReplicate({ ...INPUT, targetBatchSize: 7 })
    await untilStatus(handle, (status) => status.phase === 'streaming')
    expect((await handle.executeUpdate(setOptionsUpdate, { args: [{ targetBatchSize: 5, flushSlot: false }] })).phase).toBe('streaming')
    const slice = await until(async () => engine.namesOf('slice').at(-1)?.spec, (spec) => spec?.targetBatchSize === 5)
    expect(slice).toMatchObject({ targetBatchSize: 5, flushSlot: false, schemaChanges: 'apply' })
    await handle.executeUpdate(pauseUpdate, { args: [{}] })
    const { length } = engine.calls
    expect((await handle.executeUpdate(setOptionsUpdate, { args: [{ schemaChanges: 'refuse' }] })).phase).toBe('paused')
    expect(engine.calls.slice(length).filter(({ name }) => name !== 'release')).toEqual([])
    engine.maxSliceMs = 0
    const { runId } = await handle.describe()
    await handle.executeUpdate(resumeUpdate, { args: [{}] })
    await until(async () => (await handle.describe()).runId, (current) => current !== runId, 180_000)
    expect(engine.namesOf('slice').at(-1)?.spec).toMatchObject({ targetBatchSize: 5, flushSlot: false, schemaChanges: 'refuse' })
    for (const [input, message] of [
      [{}, 'update setOptions names no option'],
      [{ targetBatchSize: 0 }, 'targetBatchSize must be at least 1'],
      [{ tableNames: 'x' }, 'tableNames is not a known field'],
      [{ walBudgetBytes: 0 }, 'walBudgetBytes must be at least 1'],
    ] as const) {
      const failure = await failureOf(handle.executeUpdate('setOptions', { args: [input] }))
      expect(failure).toMatchObject({ type: 'InvalidInput', message: expect.stringContaining(message) as string })
    }
    await handle.executeUpdate(stopUpdate, { args: [{}] })
  })
})

describe('orders for tables', () => {
  const tables = (...tableNames: string[]): { args: [{ tableNames: string[] }] } => ({ args: [{ tableNames }] })

  it('are carried out while it streams, two at once, and answered once they are in force', async () => {
    engine.maxSliceMs = 60_000
    engine.commitMs = 200
    const handle = await harness.startReplicate()
    await untilStatus(handle, (status) => status.phase === 'streaming')
    const [added, removed] = await Promise.all([
      handle.executeUpdate(addTablesUpdate, tables('more')),
      handle.executeUpdate(removeTablesUpdate, { args: [{ tableNames: 'items', dropDestination: true }] }),
    ])
    expect(added.tables['public.more']?.state).toBe('pending')
    expect(removed.tables['public.items']?.state).toBe('removed')
    // Which of the two reaches the workflow first is nobody's choice.
    const orders = engine.namesOf('changeTables').map(({ detail }) => detail)
    expect(orders).toHaveLength(2)
    expect(orders).toContainEqual({ tag: 'add', tableNames: ['more'] })
    expect(orders).toContainEqual({ tag: 'remove', tableNames: ['items'], dropDestination: true })
    expect(engine.maxRunning).toBe(1)
    const resynced = await handle.executeUpdate(resyncTablesUpdate, tables('orders'))
    expect(resynced).toMatchObject({ phase: 'snapshotting', tables: { 'public.orders': { state: 'pending' } } })
    expect(resynced.warnings).toContain('a warning of resync')
    await untilStatus(handle, (status) => status.phase === 'streaming' && status.tables['public.orders']?.state === 'streaming')
    await handle.executeUpdate(stopUpdate, { args: [{}] })
  })

  it('that the engine refuses change nothing, be it for the order or for a fault that time mends', async () => {
    const handle = await harness.startReplicate()
    await untilStatus(handle, (status) => status.phase === 'streaming')
    expect(await failureOf(handle.executeUpdate(addTablesUpdate, tables('nowhere')))).toMatchObject({ type: 'InvalidInput', message: expect.stringContaining('no table nowhere') as string })
    engine.faults.changeTables = [sourceDown()]
    expect(await failureOf(handle.executeUpdate(addTablesUpdate, tables('more')))).toMatchObject({ type: 'SourceUnavailable' })
    const status = await untilStatus(handle, ({ phase }) => phase === 'streaming')
    expect(status.lastError).toBeUndefined()
    expect(Object.keys(status.tables)).toEqual(['public.orders', 'public.items'])
    for (const [name, input, message] of [
      ['addTables', {}, 'update addTables: tableNames is required'],
      ['addTables', { tableNames: [] }, 'update addTables: tableNames must not be empty'],
      ['resyncTables', { tables: 'x' }, 'the nearest known one is tableNames'],
      ['removeTables', { tableNames: 'orders', dropDestinations: true }, 'the nearest known one is dropDestination'],
      ['removeTables', { tableNames: 'orders', dropDestination: 'yes' }, 'dropDestination must be true or false'],
    ] as const) {
      const failure = await failureOf(handle.executeUpdate(name, { args: [input] }))
      expect(failure).toMatchObject({ type: 'InvalidInput', message: expect.stringContaining(message) as string })
    }
    await handle.executeUpdate(stopUpdate, { args: [{}] })
  })

  it('are carried out while it is paused and while it has failed, and leave it so', async () => {
    const handle = await harness.startReplicate()
    await untilStatus(handle, (status) => status.phase === 'streaming')
    await handle.executeUpdate(pauseUpdate, { args: [{}] })
    expect(await handle.executeUpdate(addTablesUpdate, tables('more'))).toMatchObject({ phase: 'paused', tables: { 'public.more': { state: 'pending' } } })
    engine.faults.slice = [slotLost()]
    await handle.executeUpdate(resumeUpdate, { args: [{}] })
    await untilStatus(handle, (status) => status.phase === 'failed')
    expect(await handle.executeUpdate(removeTablesUpdate, tables('more'))).toMatchObject({ phase: 'failed', lastError: { type: 'SlotLost' }, tables: { 'public.more': { state: 'removed' } } })
    await handle.executeUpdate(retryFailedUpdate, { args: [{}] })
    await untilStatus(handle, (status) => status.phase === 'streaming')
    await handle.executeUpdate(stopUpdate, { args: [{}] })
  })

  it('wait for the beginning, and fail with what keeps it from beginning', async () => {
    engine.faults.initialize = [sourceDown()]
    const handle = await harness.startReplicate()
    expect(await failureOf(handle.executeUpdate(addTablesUpdate, tables('more')))).toMatchObject({ type: 'SourceUnavailable' })
    expect((await handle.executeUpdate(addTablesUpdate, tables('more'))).tables['public.more']?.state).toBe('pending')
    await handle.executeUpdate(stopUpdate, { args: [{}] })
    expect(engine.calls.findIndex(({ name }) => name === 'changeTables')).toBeGreaterThan(engine.calls.findIndex(({ name }) => name === 'initialize'))
  })

  it('that are running when it is stopped are brought to their end; later ones fail', async () => {
    engine.commitMs = 500
    const handle = await harness.startReplicate()
    await untilStatus(handle, (status) => status.phase === 'streaming')
    const first = handle.executeUpdate(addTablesUpdate, tables('more'))
    await until(async () => engine.namesOf('changeTables').length, (count) => count > 0)
    const second = failureOf(handle.executeUpdate(addTablesUpdate, tables('late')))
    await until(async () => (await handle.describe()).historyLength, (length) => length > 0)
    await handle.executeUpdate(stopUpdate, { args: [{}] })
    expect((await first).tables['public.more']?.state).toBe('pending')
    expect(await second).toMatchObject({ type: 'InvalidInput', message: expect.stringMatching(/has ended before|is being stopped/) as string })
    expect(engine.namesOf('changeTables')).toHaveLength(1)
  })
})

describe('slices of a stream that is never idle', () => {
  it('cost six events of the history each: while changes flow, about one in 5 s', async () => {
    engine.maxSliceMs = 20
    const handle = await harness.startReplicate()
    // The first ones are short.
    await until(async () => engine.namesOf('slice').length, (count) => count > 12)
    await handle.executeUpdate(stopUpdate, { args: [{}] })
    const { events } = await handle.fetchHistory()
    const begun = (events ?? []).flatMap(({ eventId, activityTaskScheduledEventAttributes: scheduled }) => {
      if (scheduled?.activityType?.name !== 'replicateSlice') return []
      const [payload] = scheduled.input?.payloads ?? []
      const { maxBusyMs } = JSON.parse(Buffer.from(payload?.data ?? []).toString('utf8')) as { maxBusyMs: number }
      return [{ place: Number(eventId), maxBusyMs }]
    })
    const long = begun.filter(({ maxBusyMs }) => maxBusyMs === begun.at(-1)?.maxBusyMs)
    const [first, last] = [long.at(0), long.at(-1)]
    const perSlice = ((last?.place ?? NaN) - (first?.place ?? NaN)) / (long.length - 1)
    expect(perSlice).toBe(6)
    expect((perSlice / (last?.maxBusyMs ?? NaN)) * 5_000).toBeLessThan(1.1)
    // `status` is at most 30 s old.
    expect(last?.maxBusyMs).toBeLessThan(30_000)
  })
})

describe('workers that go and come', () => {
  it('returns the progress of a slice on shutdown, and the next worker goes on', async () => {
    engine.maxSliceMs = 60_000
    const handle = await harness.startReplicate()
    await until(async () => engine.namesOf('slice').length, (count) => count > 0)
    await worker.stop()
    expect(engine.isHeld).toBe(false)
    expect(engine.owner).toBe(handle.workflowId)
    const { position } = engine
    worker = await harness.start(engine)
    await untilStatus(handle, (status) => status.appliedLsn === `0/${position.toString(16).toUpperCase()}`)
    await until(async () => engine.namesOf('slice').length, (count) => count > 1)
    const { events } = await handle.fetchHistory()
    expect(events?.filter((event) => event.activityTaskFailedEventAttributes ?? event.activityTaskTimedOutEventAttributes)).toEqual([])
    await handle.executeUpdate(stopUpdate, { args: [{}] })
  })

  it('goes on after a worker was lost in the middle of a slice', async () => {
    await worker.stop()
    const workflows = await harness.startWorkflows()
    let slices = 0
    // Takes the slice and is never heard of again, as after kill -9; leaves nothing that its worker would wait for.
    const lost = await harness.startDestinationWith({
      initializeReplication: async () => ({
        ...{ slotName: 's', publicationName: 'p', consistentPoint: '0/1', created: { slot: true, publication: true }, tables: {}, warnings: [] },
        progress: { asOf: new Date().toISOString(), appliedLsn: null, tables: {}, warnings: [] },
      }),
      replicateSlice: () => {
        slices += 1
        throw new CompleteAsyncError()
      },
    })
    const handle = await harness.startReplicate()
    await until(async () => slices, (count) => count === 1)
    await lost.stop()
    const destination = await harness.startDestination(engine)
    await untilStatus(handle, (status) => status.appliedLsn !== null, 40_000)
    await handle.executeUpdate(stopUpdate, { args: [{}] })
    await Promise.all([workflows.stop(), destination.stop()])
  })

  it('stops although no worker polls the destination any more', async () => {
    await worker.stop()
    const workflows = await harness.startWorkflows()
    const handle = await harness.startReplicate()
    await until(async () => (await handle.describe()).raw.pendingActivities?.length ?? 0, (count) => count === 1)
    const status = await handle.executeUpdate(stopUpdate, { args: [{}] })
    expect(status.phase).toBe('stopped')
    await workflows.stop()
  })
})

describe('continue-as-new', () => {
  it('carries status and pause over, and loses no update on the way', async () => {
    engine.maxSliceMs = 0
    const handle = await harness.startReplicate()
    const firstRunId = (await handle.describe()).runId
    await untilStatus(handle, (status) => status.phase === 'streaming')
    let answers = 0
    const runId = async (): Promise<string> => (await handle.describe()).runId
    while ((await runId()) === firstRunId) {
      const paused = await handle.executeUpdate(pauseUpdate, { args: [{}] })
      expect(paused.phase).toBe('paused')
      const resumed = await handle.executeUpdate(resumeUpdate, { args: [{}] })
      expect(resumed.phase).toBe('streaming')
      answers += 2
    }
    expect(answers).toBeGreaterThan(2)
    const status = await handle.query(statusQuery)
    expect(status.phase).toBe('streaming')
    expect(status.appliedLsn).not.toBeNull()
    // Not initialized again.
    expect(engine.namesOf('initialize').length).toBe(1)
    await handle.executeUpdate(stopUpdate, { args: [{}] })
    expect(engine.owner).toBeNull()
  })
})

describe('one-shot workflows', () => {
  it('initReplication answers as the contract says, and lets go', async () => {
    const result = await harness.client.workflow.execute(initReplication, { ...options('init'), args: [INPUT] })
    expect(result).toEqual({
      slotName: 'shop_slot',
      publicationName: 'shop_publication',
      consistentPoint: '0/1000',
      created: { slot: true, publication: true },
      tables: { 'public.orders': { key: ['id'], replicaIdentity: 'default' }, 'public.items': { key: ['id'], replicaIdentity: 'default' } },
      warnings: ['a warning of init'],
    })
    expect(engine.owner).toBeNull()
  })

  it('snapshotTables copies what is not loaded yet', async () => {
    const result = await harness.client.workflow.execute(snapshotTables, { ...options('snapshot'), args: [INPUT] })
    expect(result).toEqual({ tables: { 'public.orders': { rows: 10 }, 'public.items': { rows: 10 } } })
    expect(engine.namesOf('initialize')).toEqual([])
  })

  it('syncChanges initializes, copies, streams up to now and ends', async () => {
    const result = await harness.client.workflow.execute(syncChanges, { ...options('sync'), args: [{ ...INPUT, reset: true }] })
    expect(result).toEqual({
      fromLsn: '0/1000',
      toLsn: '0/1020',
      transactions: 1,
      tables: {
        'public.orders': { inserts: 32, updates: 0, deletes: 0, truncates: 0 },
        'public.items': { inserts: 32, updates: 0, deletes: 0, truncates: 0 },
      },
    })
    expect(engine.calls.map((call) => [call.name, call.detail])).toEqual([
      ['initialize', { reset: true }],
      ['slice', { mode: 'copy', reset: false }],
      ['slice', { mode: 'stream', reset: false }],
      ['release', { keepClaim: false }],
    ])
  })

  it('retries what time mends and fails at once for the rest, with the error itself as failure', async () => {
    engine.faults.initialize = [sourceDown(), slotLost()]
    const failure = await failureOf(harness.client.workflow.execute(initReplication, { ...options('faults'), args: [INPUT] }))
    expect(failure.type).toBe('SlotLost')
    expect(failure.message).toBe('slot shop_slot has lost its WAL. Remedy: update recover')
    expect(engine.namesOf('initialize').length).toBe(2)
  })

  it('fails after the others are done where a table has stopped', async () => {
    engine.tables['public.items'] = 'streaming'
    const copy = engine.runSlice.bind(engine)
    engine.runSlice = async (request, context) => {
      engine.tables['public.orders'] = 'failed'
      return copy(request, context)
    }
    const failure = await failureOf(harness.client.workflow.execute(syncChanges, { ...options('left'), args: [INPUT] }))
    expect(failure.type).toBe('UnrepresentableValue')
    expect(failure.message).toContain('public.orders')
    expect(engine.owner).toBeNull()
  })

  it('ends CANCELED when cancelled, with the slot let go of', async () => {
    engine.faults.initialize = Array.from({ length: 50 }, sourceDown)
    const handle = await harness.client.workflow.start(syncChanges, { ...options('cancel'), args: [INPUT] })
    await until(async () => engine.namesOf('initialize').length, (count) => count >= 2)
    await handle.cancel()
    const error: unknown = await handle.result().catch((reason: unknown) => reason)
    expect(error instanceof WorkflowFailedError && error.cause instanceof CancelledFailure).toBe(true)
    expect(engine.calls.at(-1)).toMatchObject({ name: 'release', detail: { keepClaim: false } })
  })

  it('dropReplication needs the confirmation', async () => {
    const failure = await failureOf(
      harness.client.workflow.execute(dropReplication, { ...options('drop-no'), args: [{ ...INPUT, confirm: 'other' }] }),
    )
    expect(failure.type).toBe('InvalidInput')
    const result = await harness.client.workflow.execute(dropReplication, { ...options('drop'), args: [{ ...INPUT, confirm: 'shop_slot' }] })
    expect(result).toEqual({ dropped: ['slot shop_slot', 'publication shop_publication'] })
    expect(engine.namesOf('drop')[0]?.detail).toEqual({
      ...{ source: 'shop', destination: 'warehouse', slotName: 'shop_slot', publicationName: 'shop_publication', dropDestination: false },
    })
  })

  it('syncByXmin answers with rows, watermarks and warnings, and refuses what means a slot', async () => {
    const result = await harness.client.workflow.execute(syncByXmin, { ...options('syncByXmin'), args: [{ tableNames: 'orders' }] })
    expect(result).toEqual({ tables: { 'public.orders': { rows: 10, watermark: '733' } }, warnings: ['deletes are not seen'] })
    expect(engine.namesOf('xmin')).toMatchObject([{ detail: { source: 'shop', destination: 'warehouse', tableNames: ['orders'], deletes: 'ignore' } }])
    const failure = await failureOf(harness.client.workflow.execute(syncByXmin.name, { ...options('refused'), args: [INPUT] }))
    expect(failure).toMatchObject({ type: 'InvalidInput', message: expect.stringContaining('syncByXmin takes no slotName') as string })
  })

  it('verifies in as many slices as it takes, and lets go of the slot', async () => {
    const result = await harness.client.workflow.execute(verifyReplication, { ...options('verify'), args: [{ ...INPUT, repair: true, maxRowsPerSecond: 500 }] })
    expect(result).toEqual({
      lsn: '0/1000',
      tables: { 'public.orders': { compared: 10, different: 1, repaired: 1 } },
      differences: { 'public.orders': [{ kind: 'changed', key: ['7'] }] },
      notCompared: { 'public.items': 'it has stopped' },
      warnings: ['a warning of it'],
    })
    expect(engine.namesOf('verify').map(({ detail }) => detail)).toEqual([
      { repair: true, maxRowsPerSecond: 500, isFirst: true },
      { repair: true, maxRowsPerSecond: 500, isFirst: false },
    ])
    expect(engine.calls.at(-1)?.name).toBe('release')
    const failure = await failureOf(harness.client.workflow.execute(verifyReplication, { ...options('refused'), args: [{ ...INPUT, reset: true }] }))
    expect(failure).toMatchObject({ type: 'InvalidInput', message: expect.stringContaining('reset would throw away') as string })
  })
})
