import { writeFile } from 'node:fs/promises'
import type pg from 'pg'
import { afterAll, beforeAll, expect, inject, it } from 'vitest'
import { startPostgres, type PostgresServer } from '../../src/embedded/postgres-server.ts'
import { retryFailedUpdate, statusQuery, stopUpdate } from '../../src/workflows/index.ts'
import { FaultyNetwork } from '../support/faulty-network.ts'
import { sourcePool } from '../support/source-pool.ts'
import { untilConfirmed, untilStreaming, WorkerHarness } from '../support/worker-harness.ts'
import { until, untilStatus } from '../support/workflow-harness.ts'

let server: PostgresServer
let source: pg.Pool
beforeAll(async () => {
  server = await startPostgres()
  source = sourcePool({ connectionString: server.url, max: 2 })
})
afterAll(async () => {
  await source.end()
  await server.stop()
})

/** The role's URL with that password, by way of `through`. */
function urlOf(password: string, through = server.url): string {
  const url = new URL(through)
  url.username = 'rotated'
  url.password = password
  return url.toString()
}

async function configure(harness: WorkerHarness, url: string): Promise<void> {
  await writeFile(harness.configFile, `[sources.shop]\ncredentials = ${JSON.stringify(url)}\n\n[destinations.warehouse]\ntype = "duckdb"\npath = "./warehouse.duckdb"\n`)
}

/** SIGHUP; resolves when the worker has said that line. */
async function reload(harness: WorkerHarness, said: string): Promise<void> {
  const before = harness.lines.filter((line) => line.includes(said)).length
  process.kill(harness.worker.pid, 'SIGHUP')
  await until(async () => harness.lines.filter((line) => line.includes(said)).length, (count) => count > before)
}

/** Ends every session of the role, as a server that restarts does. */
async function endSessions(): Promise<void> {
  await source.query(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'rotated'`)
}

it('goes on with another password and another host that SIGHUP has read, and with the former ones where the file has problems', async () => {
  await source.query(`CREATE ROLE rotated LOGIN SUPERUSER PASSWORD 'first'; CREATE TABLE rotating (id int PRIMARY KEY); INSERT INTO rotating SELECT generate_series(1, 100)`)
  await using network = await FaultyNetwork.before(server.url)
  await using harness = await WorkerHarness.open({ temporalAddress: inject('temporalAddress'), sourceUrl: urlOf('first') })
  await harness.startWorker()
  const slotName = 'rotating'
  const handle = await harness.startReplicate({ slotName, publicationName: 'rotating', tableNames: 'rotating' })
  await untilStatus(handle, ({ tables }) => tables['public.rotating']?.state === 'streaming')

  // The password of sessions that are open is not asked for again: first the role, then the worker.
  await source.query(`ALTER ROLE rotated PASSWORD 'second'`)
  await configure(harness, urlOf('second'))
  await reload(harness, 'configuration read again')
  const before = await untilStreaming(source, slotName)
  await endSessions()
  await source.query('INSERT INTO rotating VALUES (201)')
  await untilStreaming(source, slotName, before)
  await untilConfirmed(source, slotName)
  expect(harness.lines.filter((line) => line.includes('AuthenticationFailed'))).toEqual([])

  // Another host: the session that runs connects to it after its slice, which a change ends.
  await configure(harness, network.urlOf(urlOf('second')))
  await reload(harness, 'configuration read again')
  const direct = await untilStreaming(source, slotName)
  await source.query('INSERT INTO rotating VALUES (202)')
  await untilStreaming(source, slotName, direct)
  const throughRelay = await untilStreaming(source, slotName)
  network.cut()
  await until(async () => (await source.query<{ pid: number }>('SELECT pid FROM pg_stat_replication WHERE pid = $1', [throughRelay])).rowCount, (count) => count === 0)
  network.mend()
  await source.query('INSERT INTO rotating VALUES (203)')
  await untilConfirmed(source, slotName)

  await writeFile(harness.configFile, '[sources.shop]\nhots = "nowhere"\n')
  await reload(harness, 'the one before stays in force')
  expect(harness.lines.at(-1)).toContain('InvalidConfig')
  await endSessions()
  await source.query('INSERT INTO rotating VALUES (204)')
  await untilConfirmed(source, slotName)

  // Too late: what connected meanwhile was refused, and waits for somebody.
  await source.query(`ALTER ROLE rotated PASSWORD 'third'`)
  await endSessions()
  await untilStatus(handle, ({ phase, lastError }) => phase === 'failed' && lastError?.type === 'AuthenticationFailed')
  await configure(harness, urlOf('third'))
  await reload(harness, 'configuration read again')
  await source.query('INSERT INTO rotating VALUES (205)')
  await handle.executeUpdate(retryFailedUpdate, { args: [{}] })
  await untilConfirmed(source, slotName)
  await handle.executeUpdate(stopUpdate, { args: [{}] })
  expect((await handle.query(statusQuery)).tables['public.rotating']).toMatchObject({ snapshotRows: 100, inserts: 5 })
  expect(await harness.stopWorker()).toBe(0)
})
