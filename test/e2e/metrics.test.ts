import { readFileSync } from 'node:fs'
import { createServer, type Server } from 'node:net'
import { DuckDBInstance } from '@duckdb/node-api'
import type { WorkflowHandle } from '@temporalio/client'
import type pg from 'pg'
import { afterAll, beforeAll, expect, inject, it } from 'vitest'
import { findFreePort } from '../../src/embedded/ports.ts'
import { type PostgresServer, startPostgres } from '../../src/embedded/postgres-server.ts'
import { DEFAULT_METRICS_ADDRESS, METRICS, type MetricEntry } from '../../src/model/metrics.ts'
import { pauseUpdate, type replicate, resumeUpdate, stopUpdate, syncByXmin, verifyReplication } from '../../src/workflows/index.ts'
import { type Sample, scrape, valueOf } from '../support/scrape.ts'
import { sourcePool } from '../support/source-pool.ts'
import { untilConfirmed, untilStreaming, WorkerHarness } from '../support/worker-harness.ts'
import { until, untilStatus } from '../support/workflow-harness.ts'

const SLOT = 'metrics_slot'
const PIPELINE = { source: 'shop', destination: 'warehouse', slot: SLOT }
const SECRET = 'a value that must not be seen'

let server: PostgresServer
let source: pg.Pool
let address: string
let harness: WorkerHarness
let handle: WorkflowHandle<typeof replicate>

beforeAll(async () => {
  // Of this file's own: a process of it is held.
  server = await startPostgres({ settings: { max_slot_wal_keep_size: '512MB' } })
  source = sourcePool({ connectionString: server.url, max: 4 })
  address = `127.0.0.1:${String(await findFreePort())}`
  harness = await WorkerHarness.open({ temporalAddress: inject('temporalAddress'), sourceUrl: server.url, env: { REPLICATION_METRICS_ADDRESS: address } })
  await source.query(`
    CREATE TABLE items (id int PRIMARY KEY, note text); INSERT INTO items SELECT g, 'row ' || g FROM generate_series(1, 500) g;
    CREATE TABLE prices (id int PRIMARY KEY, price numeric); INSERT INTO prices VALUES (1, 1.25)`)
  await harness.startWorker()
})
afterAll(async () => {
  await harness[Symbol.asyncDispose]()
  await source.end()
  await server.stop()
})

const metric = (samples: readonly Sample[], entry: MetricEntry, labels: Readonly<Record<string, string>> = {}, suffix = ''): number | null =>
  valueOf(samples, `${entry.name}${suffix}`, { ...(entry.labels.includes('slot') ? PIPELINE : {}), ...labels })

async function untilMetric(entry: MetricEntry, isWanted: (value: number) => boolean, labels: Readonly<Record<string, string>> = {}): Promise<number> {
  const value = await until(async () => metric(await scrape(address), entry, labels), (found) => found !== null && isWanted(found), 60_000)
  return value ?? Number.NaN
}

it('counts the rows of the initial load, and measures its commits', async () => {
  handle = await harness.startReplicate({
    slotName: SLOT,
    publicationName: 'metrics_publication',
    tableNames: ['items', 'prices'],
    columns: { prices: { price: { dataType: 'decimal', precision: 5, scale: 2 } } },
    walBudgetBytes: 1 << 20,
  })
  await untilStatus(handle, ({ tables }) => Object.values(tables).length === 2 && Object.values(tables).every(({ state }) => state === 'streaming'))
  await untilMetric(METRICS.tables, (count) => count === 2, { state: 'streaming' })
  const samples = await scrape(address)
  expect(metric(samples, METRICS.copiedRows, { table: 'public.items' })).toBe(500)
  expect(metric(samples, METRICS.copiedRows, { table: 'public.prices' })).toBe(1)
  expect(metric(samples, METRICS.changes)).toBeNull()
  // Both tables are small: one commit, where nothing holds the second up.
  expect([1, 2]).toContain(metric(samples, METRICS.commitSeconds, { work: 'copy' }, '_count'))
  expect(metric(samples, METRICS.batchRows, { work: 'copy' }, '_sum')).toBe(501)
  expect(metric(samples, METRICS.batchBytes, { work: 'copy' }, '_sum')).toBeGreaterThan(0)
  expect(metric(samples, METRICS.sessions)).toBe(1)
  expect(metric(samples, METRICS.tables, { state: 'failed' })).toBe(0)
  expect(await untilMetric(METRICS.maxSlotWalKeepBytes, (bytes) => bytes > 0)).toBe(512 * 2 ** 20)
})

it('counts changes by table and operation, and measures their commits', async () => {
  await source.query(`INSERT INTO items SELECT g, '${SECRET}' FROM generate_series(501, 510) g`)
  await source.query('UPDATE items SET note = upper(note) WHERE id <= 5')
  await source.query('DELETE FROM items WHERE id > 507')
  await untilConfirmed(source, SLOT)
  await source.query('TRUNCATE items')
  await untilConfirmed(source, SLOT)
  const samples = await scrape(address)
  const counts = (['insert', 'update', 'delete', 'truncate'] as const).map((operation) => metric(samples, METRICS.changes, { table: 'public.items', operation }))
  expect(counts).toEqual([10, 5, 3, 1])
  expect(metric(samples, METRICS.batchRows, { work: 'stream' }, '_sum')).toBe(18)
  const commits = metric(samples, METRICS.commitSeconds, { work: 'stream' }, '_count') ?? 0
  expect(commits).toBeGreaterThanOrEqual(2)
  expect(metric(samples, METRICS.commitSeconds, { work: 'stream' }, '_sum')).toBeGreaterThan(0)
  // Buckets are in seconds: the last bound is above every commit here.
  expect(metric(samples, METRICS.commitSeconds, { work: 'stream', le: '300' }, '_bucket')).toBe(commits)
  await untilMetric(METRICS.lagBytes, (bytes) => bytes === 0)
  await untilMetric(METRICS.lagSeconds, (seconds) => seconds === 0)
})

it('shows lag in bytes and seconds, and WAL that is held back, while the stream stands', async () => {
  const walsender = await untilStreaming(source, SLOT)
  const before = await untilMetric(METRICS.retainedWalBytes, (bytes) => bytes >= 0)
  process.kill(walsender, 'SIGSTOP')
  try {
    await source.query(`INSERT INTO items SELECT g, repeat('x', 200) FROM generate_series(1, 5000) g`)
    await untilMetric(METRICS.lagBytes, (bytes) => bytes > 1_000_000)
    await untilMetric(METRICS.lagSeconds, (seconds) => seconds > 3)
    await untilMetric(METRICS.retainedWalBytes, (bytes) => bytes > before + 1_000_000)
  } finally {
    process.kill(walsender, 'SIGCONT')
  }
  await untilMetric(METRICS.lagSeconds, (seconds) => seconds === 0)
  expect(await untilMetric(METRICS.lagBytes, (bytes) => bytes === 0)).toBe(0)
})

it('counts failures and new sessions after one', async () => {
  const sessions = metric(await scrape(address), METRICS.sessions) ?? 0
  const walsender = await untilStreaming(source, SLOT)
  await source.query('SELECT pg_terminate_backend($1)', [walsender])
  await untilMetric(METRICS.failures, (count) => count === 1, { type: 'SourceUnavailable', final: 'false' })
  await untilMetric(METRICS.sessions, (count) => count === sessions + 1)
})

it('shows a stopped table and the changes that are kept for it, and logs it with table and pipeline', async () => {
  expect(metric(await scrape(address), METRICS.spoolBytes)).toBe(0)
  await source.query('INSERT INTO prices VALUES (2, 98765.4321)')
  await untilMetric(METRICS.tables, (count) => count === 1, { state: 'failed' })
  await source.query('INSERT INTO prices VALUES (3, 3)')
  await untilMetric(METRICS.spoolBytes, (bytes) => bytes > 0)
  const lines = harness.lines.filter((line) => line.includes('public.prices') && line.includes('has stopped')).map((line) => JSON.parse(line) as Record<string, unknown>)
  expect(lines).toMatchObject([
    { level: 40, workflowId: handle.workflowId, source: 'shop', destination: 'warehouse', slotName: SLOT, table: 'public.prices', state: 'failed', former: 'streaming', error: { type: 'UnrepresentableValue' } },
  ])
})

it('shows the WAL of a paused pipeline, and what is read into the spool for it', async () => {
  await handle.executeUpdate(pauseUpdate, { args: [{}] })
  const before = await untilMetric(METRICS.spoolBytes, (bytes) => bytes > 0)
  await source.query(`INSERT INTO items SELECT g, repeat('y', 400) FROM generate_series(10001, 20000) g`)
  await untilMetric(METRICS.spoolBytes, (bytes) => bytes > before + 1_000_000)
  await handle.executeUpdate(resumeUpdate, { args: [{}] })
  // From the spool: the slot has long been told.
  await untilMetric(METRICS.changes, (count) => count === 10 + 5_000 + 10_000, { table: 'public.items', operation: 'insert' })
})

it('knows no figures of a pipeline that has ended, and keeps its counts', async () => {
  await untilMetric(METRICS.figuresTime, (seconds) => Math.abs(Date.now() / 1_000 - seconds) < 10)
  await handle.executeUpdate(stopUpdate, { args: [{}] })
  await handle.result()
  const samples = await scrape(address)
  for (const entry of [METRICS.lagBytes, METRICS.lagSeconds, METRICS.retainedWalBytes, METRICS.spoolBytes, METRICS.figuresTime, METRICS.tables]) {
    expect([entry.name, metric(samples, entry)]).toEqual([entry.name, Number.NaN])
  }
  expect(metric(samples, METRICS.changes, { table: 'public.items', operation: 'insert' })).toBe(10 + 5_000 + 10_000)
})

// Cause: a scheduled verification ends well whatever it finds, so that nobody was told that rows differ.
it('shows what the last verification found, and that it could not compare a table', async () => {
  const input = { slotName: SLOT, publicationName: 'metrics_publication', tableNames: ['items', 'prices'], columns: { prices: { price: { dataType: 'decimal', precision: 5, scale: 2 } } } }
  const verify = async (repair: boolean): Promise<readonly Sample[]> => {
    await harness.client.workflow.execute(verifyReplication, { taskQueue: harness.taskQueue, workflowId: `verify-${harness.taskQueue}`, args: [{ ...input, repair }] })
    return scrape(address)
  }
  // The worker closes the file some seconds after the stop.
  const instance = await until(async () => DuckDBInstance.create(harness.file).catch(() => null), (opened) => opened !== null, 60_000)
  const connection = await instance?.connect()
  await connection?.run('DELETE FROM public.items WHERE id IN (3, 4)')
  connection?.closeSync()
  instance?.closeSync()
  const found = await verify(false)
  expect(metric(found, METRICS.verifiedRows, { table: 'public.items' })).toBe(15_000)
  expect(metric(found, METRICS.differentRows, { table: 'public.items' })).toBe(2)
  expect(metric(found, METRICS.differentRows, { table: 'public.prices' })).toBe(Number.NaN)
  expect(Math.abs(Date.now() / 1_000 - (metric(found, METRICS.verifiedTime) ?? 0))).toBeLessThan(60)
  expect(metric(await verify(true), METRICS.differentRows, { table: 'public.items' })).toBe(0)
})

it('shows what stopped a pipeline that no retry mends, until somebody ends it', async () => {
  const refused = await harness.startReplicate({ slotName: 'refused', publicationName: 'refused', tableNames: 'not_there' })
  const labels = { slot: 'refused', type: 'InvalidInput' }
  await untilMetric(METRICS.stopped, (value) => value === 1, labels)
  expect(metric(await scrape(address), METRICS.failures, { ...labels, final: 'true' })).toBe(1)
  await refused.executeUpdate(stopUpdate, { args: [{}] })
  await untilMetric(METRICS.stopped, (value) => value === 0, labels)
})

it('counts what syncByXmin reads', async () => {
  await source.query('CREATE TABLE by_xmin (id int PRIMARY KEY); INSERT INTO by_xmin SELECT generate_series(1, 7)')
  await harness.client.workflow.execute(syncByXmin, { taskQueue: harness.taskQueue, workflowId: `xmin-${harness.taskQueue}`, args: [{ tableNames: 'by_xmin', datasetName: 'xmin' }] })
  expect(metric(await scrape(address), METRICS.copiedRows, { slot: '', table: 'public.by_xmin' })).toBe(7)
})

it('shows how late the timers of the worker fire, and the metrics of the SDK', async () => {
  for (const statistic of ['mean', 'p99', 'max']) expect(await untilMetric(METRICS.eventLoopDelay, (seconds) => seconds >= 0, { statistic })).toBeLessThan(60)
  const samples = await scrape(address)
  expect(valueOf(samples, 'temporal_workflow_completed')).toBeGreaterThanOrEqual(2)
  expect(harness.lines.filter((line) => line.includes(`metrics at http://${address}/metrics`))).toHaveLength(1)
})

it('has shown every metric, under its labels, and no value of a row', async () => {
  const samples = await scrape(address)
  for (const entry of Object.values<MetricEntry>(METRICS)) {
    const found = samples.filter(({ name }) => name === entry.name || (entry.kind === 'histogram' && name === `${entry.name}_count`))
    expect(found, entry.name).not.toEqual([])
    for (const { labels } of found) expect(Object.keys(labels).sort(), entry.name).toEqual([...entry.labels].sort())
  }
  const text = await (await fetch(`http://${address}/metrics`)).text()
  const { password } = new URL(server.url)
  for (const secret of [SECRET, SECRET.toUpperCase(), '98765', ...(password === '' ? [] : [password])]) expect(text).not.toContain(secret)
  expect(readFileSync(harness.configFile, 'utf8')).toContain(server.url)
})

it('does not start where the address that was asked for is taken, and goes without metrics where the default one is', async () => {
  const options = { temporalAddress: inject('temporalAddress'), sourceUrl: server.url }
  await using second = await WorkerHarness.open({ ...options, env: { REPLICATION_METRICS_ADDRESS: address } })
  await expect(second.startWorker()).rejects.toThrow(/InvalidConfig: metrics cannot be served at .*REPLICATION_METRICS_ADDRESS/s)

  const [, port = ''] = DEFAULT_METRICS_ADDRESS.split(':')
  // Where another worker of this machine keeps it, that is just as well; one that is about to end is waited for.
  const holder = await until(async () => listenOn(Number(port)), (server) => server !== null, 20_000).catch(() => null)
  try {
    await using third = await WorkerHarness.open(options)
    await third.startWorker()
    expect(third.lines.filter((line) => line.includes('no metrics'))).toHaveLength(1)
    expect(third.lines.some((line) => line.includes('worker ready'))).toBe(true)
  } finally {
    holder?.close()
  }
})

/** Null where somebody else has the port. */
async function listenOn(port: number): Promise<Server | null> {
  const holder = createServer()
  return new Promise((resolve) => {
    holder.once('error', () => { resolve(null) }).listen(port, '127.0.0.1', () => { resolve(holder) })
  })
}
