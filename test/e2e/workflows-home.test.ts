import { Context } from '@temporalio/activity'
import { afterAll, afterEach, beforeAll, expect, inject, it } from 'vitest'
import { DomainError } from '../../src/model/errors.ts'
import { pauseUpdate, resumeUpdate, stopUpdate, verifyReplication } from '../../src/workflows/index.ts'
import { FakeEngine, sourceDown } from '../support/fake-engine.ts'
import { INPUT, type TestWorker, until, untilStatus, WorkflowHarness } from '../support/workflow-harness.ts'

/** Only one process can have a DuckDB file: of two workers on one machine the one that has it shall go on, for as long as it lives. */
let harness: WorkflowHarness
let workflows: TestWorker
const workers: TestWorker[] = []

beforeAll(async () => {
  harness = await WorkflowHarness.open(inject('temporalAddress'))
  workflows = await harness.startWorkflows()
})
afterEach(async () => {
  await harness.terminateAll()
  for (const worker of workers.splice(0)) await worker.stop()
})
afterAll(async () => {
  await workflows.stop()
  await harness.close()
})

function shortSlices(): FakeEngine {
  const engine = new FakeEngine()
  engine.maxSliceMs = 20
  return engine
}

function slicesOf(engine: FakeEngine): number {
  return engine.calls.filter(({ name }) => name === 'slice').length
}

// Cause: each slice went to either of two workers; the one that had it last had to let go of the file, and what its session knew (what a copy waits for, how far a comparison is) was lost.
it('stays at the worker that took the first slice, also for orders, a pause and the end; and goes on at the other where that one ends', async () => {
  const engines = [shortSlices(), shortSlices()] as const
  for (const engine of engines) workers.push(await harness.startDestinationAtHome(engine))
  const handle = await harness.startReplicate()
  const sliceCount = (): number => slicesOf(engines[0]) + slicesOf(engines[1])
  await until(async () => Promise.resolve(sliceCount()), (count) => count >= 12)
  const home = slicesOf(engines[0]) > 0 ? 0 : 1
  const [stays, waits] = [engines[home], engines[1 - home]] as [FakeEngine, FakeEngine]
  await handle.executeUpdate(pauseUpdate, { args: [{}] })
  await handle.executeUpdate('removeTables', { args: [{ tableNames: ['items'] }] })
  await handle.executeUpdate(resumeUpdate, { args: [{}] })
  await until(async () => Promise.resolve(sliceCount()), (count) => count >= 20)
  expect(stays.calls.map(({ name }) => name)).toContain('changeTables')
  // Where it was initialized does not matter: nothing stays open.
  expect(waits.calls.filter(({ name }) => name !== 'initialize' && name !== 'release')).toEqual([])
  await workers[home]?.stop()
  await until(async () => Promise.resolve(slicesOf(waits)), (count) => count >= 3)
  expect((await handle.query<{ lastError?: unknown }>('status')).lastError).toBeUndefined()
  stays.calls.length = 0
  await handle.executeUpdate(stopUpdate, { args: [{}] })
  await handle.result()
  expect(stays.calls).toEqual([])
  expect(waits.calls.filter(({ name, detail }) => name === 'release' && !(detail as { keepClaim: boolean }).keepClaim)).toHaveLength(1)
})

// Cause: a comparison beside a replication ended where the other worker has the file: it was told so for half a minute, and left to itself.
it('one-shot workflows go on, and let go, at the worker that took their first slice', async () => {
  const engines = [shortSlices(), shortSlices()] as const
  for (const engine of engines) workers.push(await harness.startDestinationAtHome(engine))
  for (let round = 0; round < 5; round++) {
    for (const engine of engines) engine.calls.length = 0
    await harness.client.workflow.execute('verifyReplication', { taskQueue: harness.taskQueue, workflowId: `verify-${String(round)}-${harness.taskQueue}`, args: [INPUT] })
    await harness.client.workflow.execute('syncChanges', { taskQueue: harness.taskQueue, workflowId: `sync-${String(round)}-${harness.taskQueue}`, args: [{ ...INPUT, slotName: `other_${String(round)}` }] })
    for (const name of ['verify-', 'sync-']) {
      const ran = engines.map(({ calls }) => calls.filter(({ name: call, owner, detail }) => owner.startsWith(name) && call !== 'initialize' && (call !== 'release' || !(detail as { keepClaim: boolean }).keepClaim)).length)
      expect(Math.min(...ran), name).toBe(0)
      expect(Math.max(...ran), name).toBeGreaterThanOrEqual(2)
    }
  }
})

// Cause: what only one of two workers suffers from (an old password, a full disk) came back with every retry: all of them went there.
it('goes on at the other worker where the one that it is at fails', async () => {
  const engines = [shortSlices(), shortSlices()] as const
  for (const engine of engines) workers.push(await harness.startDestinationAtHome(engine))
  const handle = await harness.startReplicate()
  await until(async () => Promise.resolve(slicesOf(engines[0]) + slicesOf(engines[1])), (count) => count >= 4)
  const [fails, goesOn] = (slicesOf(engines[0]) > 0 ? engines : engines.toReversed()) as [FakeEngine, FakeEngine]
  fails.runSlice = async () => Promise.reject(sourceDown())
  await until(async () => Promise.resolve(slicesOf(goesOn)), (count) => count >= 3)
  expect((await handle.query<{ lastError?: unknown }>('status')).lastError).toBeUndefined()
})

// Cause: at home the server retried without end: once another workflow had the file at the other worker, each attempt was refused it.
it('a one-shot workflow that fails at home goes on at the other worker', async () => {
  const engines = [shortSlices(), shortSlices()] as const
  let home: FakeEngine | null = null
  for (const engine of engines) {
    const verify = engine.verify.bind(engine)
    engine.verify = async (request, context) => {
      if (request.progress === null) home = engine
      else if (home === engine) throw new DomainError({ kind: 'DestinationFailed', message: 'another process has the file open', remedy: 'end it' })
      return verify(request, context)
    }
    workers.push(await harness.startDestinationAtHome(engine))
  }
  const workflowId = `verify-elsewhere-${harness.taskQueue}`
  const result = await harness.client.workflow.execute(verifyReplication, { taskQueue: harness.taskQueue, workflowId, args: [INPUT] })
  expect(result.tables).toEqual({ 'public.orders': { compared: 10, different: 1, repaired: 0 } })
  const other = engines.find((engine) => engine !== home)
  expect(other?.namesOf('verify')).toHaveLength(1)
})

// Cause: an answer without a home left the former one standing: the next activity waited there for a worker that had said that it ends.
it('a one-shot workflow is at home nowhere after a slice that names none', async () => {
  const home = `${harness.destinationQueue}-own`
  const queues: string[] = []
  const progress = { lsn: null, tables: {}, differences: {}, notCompared: {}, warnings: [], done: [], current: null }
  const answers = [{ ended: 'time', progress, home }, { ended: 'time', progress }, { ended: 'done', progress }]
  const noteQueue = (): void => { queues.push(Context.current().info.taskQueue) }
  const activities = {
    verifySlice: async () => { noteQueue(); return Promise.resolve(answers.shift()) },
    releaseReplication: async () => { noteQueue(); return Promise.resolve() },
  }
  workers.push(await harness.startDestinationWith(activities), await harness.startDestinationWith(activities, { taskQueue: home }))
  await harness.client.workflow.execute('verifyReplication', { taskQueue: harness.taskQueue, workflowId: `verify-nowhere-${harness.taskQueue}`, args: [INPUT] })
  const common = harness.destinationQueue
  expect(queues).toEqual([common, home, common, common])
})

it('goes on where nobody takes it at home, with no error to be seen, and is stopped at once meanwhile', async () => {
  const engine = shortSlices()
  workers.push(await harness.startDestinationAtHome(engine, { ownTaskQueue: `${harness.destinationQueue}-gone`, polls: false }))
  const handle = await harness.startReplicate()
  await untilStatus(handle, ({ phase }) => phase === 'streaming')
  await until(async () => Promise.resolve(slicesOf(engine)), (count) => count >= 3)
  const status = await handle.query<{ lastError?: unknown; phase: string }>('status')
  expect(status.lastError).toBeUndefined()
  expect(status.phase).toBe('streaming')
  // The next one waits at home by now.
  const startedAt = performance.now()
  expect((await handle.executeUpdate(stopUpdate, { args: [{}] })).phase).toBe('stopped')
  expect(performance.now() - startedAt).toBeLessThan(10_000)
  await handle.result()
})
