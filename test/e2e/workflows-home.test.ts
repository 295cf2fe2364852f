import { afterAll, afterEach, beforeAll, expect, inject, it } from 'vitest'
import { pauseUpdate, resumeUpdate, stopUpdate } from '../../src/workflows/index.ts'
import { FakeEngine } from '../support/fake-engine.ts'
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
