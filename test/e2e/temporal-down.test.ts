import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { afterAll, beforeAll, expect, inject, it } from 'vitest'
import { startTemporal, type TemporalServer } from '../../src/embedded/temporal-server.ts'
import { statusQuery, stopUpdate } from '../../src/workflows/index.ts'
import { destinationRows, readFile } from '../support/comparison.ts'
import { createDatabase, type TestDatabase } from '../support/servers.ts'
import { slotHolder, untilConfirmed, WorkerHarness } from '../support/worker-harness.ts'
import { until, untilStatus } from '../support/workflow-harness.ts'

let database: TestDatabase
let source: pg.Client
let directory: string
let server: TemporalServer

beforeAll(async () => {
  database = await createDatabase(inject('postgresUrl'))
  source = new pg.Client({ connectionString: database.url })
  await source.connect()
  directory = await mkdtemp(join(tmpdir(), 'temporal-'))
  server = await startTemporal({ reuseRunning: false, headless: true, databaseFile: join(directory, 'temporal.db') })
})
afterAll(async () => {
  await server.stop()
  await source.end()
  await database.drop()
  await rm(directory, { recursive: true, force: true })
})

it('goes on when Temporal was away for a while: nothing is lost, nothing is done twice', async () => {
  await source.query("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT g, 'copied' FROM generate_series(1, 100) g")
  await using harness = await WorkerHarness.open({ temporalAddress: server.address, sourceUrl: database.url })
  await harness.startWorker()
  const slotName = `away_${database.name}`
  const handle = await harness.startReplicate({ slotName, publicationName: 'away', tableNames: 't' })
  await untilStatus(handle, ({ phase }) => phase === 'streaming', 60_000)

  await server.kill()
  // The slice that runs ends by itself, and can tell nobody; nothing new begins.
  await source.query("INSERT INTO t SELECT g, 'while it is away' FROM generate_series(1001, 1100) g; UPDATE t SET v = 'changed' WHERE id <= 10")
  await until(async () => slotHolder(source, slotName), (holder) => holder === null, 60_000)
  await server.restart()
  const backAt = performance.now()
  await source.query('DELETE FROM t WHERE id BETWEEN 50 AND 59')
  await untilConfirmed(source, slotName, 120_000)
  process.stderr.write(`Temporal away: applied ${((performance.now() - backAt) / 1000).toFixed(1)} s after it was back\n`)
  const status = await until(
    async () => handle.query(statusQuery).catch(() => null),
    (found) => found?.tables['public.t']?.deletes === 10,
    120_000,
  )
  expect(status?.tables['public.t']).toMatchObject({ inserts: 100, updates: 10, deletes: 10, state: 'streaming' })
  await handle.executeUpdate(stopUpdate, { args: [{}] })
  expect(await harness.stopWorker()).toBe(0)
  const { rows } = await source.query<{ row: string }>("SELECT id || ' | ' || v AS row FROM t")
  expect(await readFile(harness.file, async (query) => destinationRows(query, 't', 'public'))).toEqual(rows.map(({ row }) => row).sort())
})
