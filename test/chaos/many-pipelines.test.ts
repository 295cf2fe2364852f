import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import type { WorkflowHandle } from '@temporalio/client'
import type pg from 'pg'
import { afterAll, beforeAll, expect, inject, it } from 'vitest'
import { startPostgres, type PostgresServer } from '../../src/embedded/postgres-server.ts'
import { type replicate, stopUpdate } from '../../src/workflows/index.ts'
import { sourcePool } from '../support/source-pool.ts'
import { WorkerHarness } from '../support/worker-harness.ts'
import { untilStatus } from '../support/workflow-harness.ts'

/** `MANY=50` (long mode): so many pipelines in one worker, until their slices are as long as they get. */
const COUNT = Number(process.env['MANY'] ?? '8')
const IS_LONG = process.env['MANY'] !== undefined
const SETTLE_MS = IS_LONG ? 150_000 : 5_000
const IDLE_MS = IS_LONG ? 120_000 : 10_000
/** Of a core. The aim for 50 is 5 %; a machine that does ten other things makes more of the same work. A few that have just begun take more each: they look and tell more often. */
const MAX_SHARE = 0.08
/** Of the clock that /proc tells times by. */
const TICKS_PER_SECOND = 100

let server: PostgresServer
let source: pg.Pool

beforeAll(async () => {
  server = await startPostgres({ settings: { max_connections: 400, max_replication_slots: 60, max_wal_senders: 60 } })
  source = sourcePool({ connectionString: server.url, max: 2 })
}, 120_000)
afterAll(async () => {
  await source.end()
  await server.stop()
})

/** CPU time of a process since it began, all threads. */
function cpuSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${String(pid)}/stat`, 'utf8').replace(/^.*\) /, '').split(' ')
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND
}

function residentBytes(pid: number): number {
  return Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${String(pid)}/status`, 'utf8'))?.[1] ?? NaN) * 1_024
}

it.runIf(process.platform === 'linux')('serves many pipelines at once that have nothing to do, for little CPU time and memory', async () => {
  await using harness = await WorkerHarness.open({ temporalAddress: inject('temporalAddress'), sourceUrl: server.url, env: { LOG_LEVEL: 'info' } })
  await harness.startWorker()
  const names = Array.from({ length: COUNT }, (_, index) => `many_${String(index)}`)
  const handles: WorkflowHandle<typeof replicate>[] = []
  for (const name of names) {
    await source.query(`CREATE TABLE ${name} (id int PRIMARY KEY, v text); INSERT INTO ${name} SELECT g, 'x' FROM generate_series(1, 1000) g`)
    handles.push(await harness.startReplicate({ slotName: name, publicationName: name, tableNames: name }))
  }
  for (const handle of handles) await untilStatus(handle, ({ phase, tables }) => phase === 'streaming' && Object.values(tables).every(({ state }) => state === 'streaming'), 300_000)
  // Slices get longer the longer nothing comes.
  await sleep(SETTLE_MS)
  const { pid } = harness.worker
  const before = cpuSeconds(pid)
  const lengths = async (): Promise<number> => (await Promise.all(handles.map(async (handle) => (await handle.describe()).historyLength))).reduce((sum, length) => sum + length, 0)
  const events = await lengths()
  await sleep(IDLE_MS)
  const share = (cpuSeconds(pid) - before) / (IDLE_MS / 1_000)
  const memory = residentBytes(pid)
  const eventsPer10s = (await lengths() - events) / COUNT / (IDLE_MS / 10_000)
  process.stderr.write(`${String(COUNT)} idle pipelines: ${(share * 100).toFixed(1)} % of a core, ${String(Math.round(memory / 2 ** 20))} MB, ${eventsPer10s.toFixed(2)} history events per 10 s each\n`)
  expect(memory).toBeLessThan(2 ** 30)
  if (IS_LONG) expect(eventsPer10s).toBeLessThan(1)
  expect(share).toBeLessThan(MAX_SHARE)
  await Promise.all(handles.map(async (handle) => handle.executeUpdate(stopUpdate, { args: [{}] })))
  expect(await harness.stopWorker()).toBe(0)
})
