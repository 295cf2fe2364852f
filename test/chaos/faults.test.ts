import { rm } from 'node:fs/promises'
import { WorkflowFailedError } from '@temporalio/client'
import { ApplicationFailure } from '@temporalio/common'
import type pg from 'pg'
import { afterAll, beforeAll, expect, inject, it } from 'vitest'
import { startPostgres, type PostgresServer } from '../../src/embedded/postgres-server.ts'
import { pauseUpdate, resumeUpdate, retryFailedUpdate, statusQuery, stopUpdate } from '../../src/workflows/index.ts'
import { destinationRows, differences, NO_DIFFERENCES, readFile, sourceRows } from '../support/comparison.ts'
import { sourcePool } from '../support/source-pool.ts'
import { slotHolder, untilConfirmed, untilStreaming, WorkerHarness } from '../support/worker-harness.ts'
import { until, untilStatus } from '../support/workflow-harness.ts'

// A server of this file's own: it is stopped in the middle.
let server: PostgresServer
let harness: WorkerHarness
let source: pg.Pool

beforeAll(async () => {
  server = await startPostgres({ settings: { max_connections: 100 } })
  source = sourcePool({ connectionString: server.url, max: 4 })
  harness = await WorkerHarness.open({ temporalAddress: inject('temporalAddress'), sourceUrl: server.url })
  await harness.startWorker()
})
afterAll(async () => {
  await harness[Symbol.asyncDispose]()
  await source.end()
  await server.stop()
})

/** A table with rows, and the replication of it as a workflow's input. */
async function prepare(name: string) {
  await source.query(`CREATE TABLE ${name} (id int PRIMARY KEY, note text); INSERT INTO ${name} SELECT g, 'row ' || g FROM generate_series(1, 5000) g`)
  return { slotName: `${name}_slot`, publicationName: `${name}_publication`, tableNames: name, datasetName: `of_${name}` }
}

async function insert(name: string, from: number, count: number): Promise<void> {
  await source.query(`INSERT INTO ${name} SELECT g, 'later ' || g FROM generate_series($1::int, $2::int) g`, [from, from + count - 1])
}

/** Both sides hold the same rows, once the worker has let go of the file. */
async function expectEqual(name: string): Promise<void> {
  const rows = await until(async () => readFile(harness.file, (query) => destinationRows(query, name, `of_${name}`)).catch(() => null), (found) => found !== null, 15_000)
  const client = await source.connect()
  try {
    expect(differences(rows ?? [], await sourceRows(client, name))).toEqual(NO_DIFFERENCES)
  } finally {
    client.release()
  }
}

function seconds(sinceMs: number): string {
  return ((performance.now() - sinceMs) / 1000).toFixed(1)
}

async function failureTypeOf(result: Promise<unknown>): Promise<string | null | undefined> {
  const error: unknown = await result.then(
    () => null,
    (reason: unknown) => reason,
  )
  if (error instanceof WorkflowFailedError && error.cause instanceof ApplicationFailure) return error.cause.type
  throw error instanceof Error ? error : new Error('it did not fail')
}

it('drains on SIGTERM, exits 0, and goes on where it was', async () => {
  const input = await prepare('drained')
  const handle = await harness.startReplicate(input)
  await untilStreaming(source, input.slotName)
  let isWriting = true
  const write = async (): Promise<void> => {
    for (let from = 10_000; isWriting; from += 10) await insert('drained', from, 10)
  }
  const writing = write()
  const endedAt = performance.now()
  expect(await harness.stopWorker()).toBe(0)
  const drained = seconds(endedAt)
  expect(await slotHolder(source, input.slotName)).toBeNull()
  const startedAt = performance.now()
  await harness.startWorker()
  // Nobody waits for a heartbeat timeout: the drained activity has answered.
  await untilStreaming(source, input.slotName, null, 10_000)
  process.stderr.write(`SIGTERM: drained after ${drained} s, streaming ${seconds(startedAt)} s after the next start\n`)
  isWriting = false
  await writing
  await untilConfirmed(source, input.slotName)
  await handle.executeUpdate(stopUpdate, { args: [{}] })
  await expectEqual('drained')
})

it('goes on after the source ends its walsender, and shows the fault only as long as it lasts', async () => {
  const input = await prepare('disconnected')
  const handle = await harness.startReplicate(input)
  for (let round = 1; round <= 3; round++) {
    const holder = await untilStreaming(source, input.slotName)
    await insert('disconnected', round * 10_000, 500)
    await source.query('SELECT pg_terminate_backend($1)', [holder])
    await insert('disconnected', round * 10_000 + 5_000, 500)
    await untilStreaming(source, input.slotName, holder)
  }
  await untilConfirmed(source, input.slotName)
  await untilStatus(handle, ({ phase, lastError }) => phase === 'streaming' && lastError === undefined)
  await handle.executeUpdate(stopUpdate, { args: [{}] })
  await expectEqual('disconnected')
})

it('refuses a second start for the slot, and leaves the first alone', async () => {
  const input = await prepare('owned')
  const handle = await harness.startReplicate(input)
  await untilStatus(handle, ({ phase, tables }) => phase === 'streaming' && tables['public.owned']?.state === 'streaming')
  // Only now: while it is made the slot is held by who makes it.
  const holder = await untilStreaming(source, input.slotName)
  const second = await harness.startReplicate({ ...input, reset: true }, `second-${harness.taskQueue}`)
  expect(await failureTypeOf(second.result())).toBe('AlreadyReplicating')
  expect(await failureTypeOf(harness.sync(input))).toBe('AlreadyReplicating')
  expect(await slotHolder(source, input.slotName)).toBe(holder)
  expect((await handle.query(statusQuery)).phase).toBe('streaming')
  await insert('owned', 10_000, 100)
  await untilConfirmed(source, input.slotName)
  await handle.executeUpdate(stopUpdate, { args: [{}] })
  await expectEqual('owned')
})

it('stops with SlotLost when the slot was dropped behind its back, and when it was made anew', async () => {
  const input = await prepare('robbed')
  const handle = await harness.startReplicate(input)
  await untilStreaming(source, input.slotName)
  await untilStatus(handle, ({ phase }) => phase === 'streaming')
  await handle.executeUpdate(pauseUpdate, { args: [{}] })
  await until(() => slotHolder(source, input.slotName), (pid) => pid === null)
  await source.query('SELECT pg_drop_replication_slot($1)', [input.slotName])
  await insert('robbed', 10_000, 100)
  await handle.executeUpdate(resumeUpdate, { args: [{}] })
  const dropped = await untilStatus(handle, ({ phase }) => phase === 'failed')
  expect(dropped.lastError?.type).toBe('SlotLost')
  await source.query("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", [input.slotName])
  await handle.executeUpdate(retryFailedUpdate, { args: [{}] })
  const remade = await untilStatus(handle, ({ phase }) => phase === 'failed')
  expect(remade.lastError?.type).toBe('SlotLost')
  await handle.executeUpdate(stopUpdate, { args: [{}] })
  await handle.result()
  // The way out that the error names.
  await harness.sync({ ...input, reset: true })
  await expectEqual('robbed')
})

it('stops with DestinationLost when the file was removed, while it is open and while it is not', async () => {
  const input = await prepare('emptied')
  const isFileFree = (): Promise<boolean> => readFile(harness.file, async () => Promise.resolve(true)).catch(() => false)
  const handle = await harness.startReplicate(input)
  await untilStatus(handle, ({ phase }) => phase === 'streaming')
  await rm(harness.file)
  // Commits into a file without a name would be read by nobody.
  await insert('emptied', 10_000, 100)
  const removed = await untilStatus(handle, ({ phase }) => phase === 'failed')
  expect(removed.lastError?.type).toBe('DestinationLost')
  await handle.executeUpdate(stopUpdate, { args: [{}] })
  expect(await failureTypeOf(harness.sync(input))).toBe('DestinationLost')

  const again = await harness.startReplicate({ ...input, reset: true })
  await untilStatus(again, ({ phase }) => phase === 'streaming')
  await again.executeUpdate(pauseUpdate, { args: [{}] })
  await until(isFileFree, (isFree) => isFree, 15_000)
  await rm(harness.file)
  await again.executeUpdate(resumeUpdate, { args: [{}] })
  const missing = await untilStatus(again, ({ phase }) => phase === 'failed')
  expect(missing.lastError?.type).toBe('DestinationLost')
  await again.executeUpdate(stopUpdate, { args: [{}] })
  await harness.sync({ ...input, reset: true })
  await expectEqual('emptied')
})

it('retries while the source is down, says so, and goes on after its crash recovery', async () => {
  const input = await prepare('crashed')
  const handle = await harness.startReplicate(input)
  await untilStatus(handle, ({ phase }) => phase === 'streaming')
  await untilStreaming(source, input.slotName)
  await insert('crashed', 10_000, 1_000)
  const endedAt = performance.now()
  await server.kill('SIGQUIT')
  const status = await untilStatus(handle, ({ lastError }) => lastError !== undefined)
  const said = seconds(endedAt)
  expect(status.phase).toBe('streaming')
  expect(status.lastError?.type).toBe('SourceUnavailable')
  await server.restart()
  const backAt = performance.now()
  await insert('crashed', 20_000, 1_000)
  await untilStreaming(source, input.slotName)
  await untilConfirmed(source, input.slotName)
  const applied = seconds(backAt)
  await untilStatus(handle, ({ lastError }) => lastError === undefined)
  process.stderr.write(`source stopped at once: said after ${said} s, applied ${applied} s after it answered again, and not said any more after ${seconds(backAt)} s\n`)
  await handle.executeUpdate(stopUpdate, { args: [{}] })
  await expectEqual('crashed')
})
