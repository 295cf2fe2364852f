import pg from 'pg'
import { afterAll, beforeAll, expect, inject, it } from 'vitest'
import { statusQuery, stopUpdate } from '../../src/workflows/index.ts'
import { destinationRows, differences, NO_DIFFERENCES, readFile, sourceRows } from '../support/comparison.ts'
import { FaultyNetwork } from '../support/faulty-network.ts'
import { createDatabase, type TestDatabase } from '../support/servers.ts'
import { untilConfirmed, untilStreaming, WorkerHarness } from '../support/worker-harness.ts'
import { untilStatus } from '../support/workflow-harness.ts'

let database: TestDatabase
let source: pg.Pool

beforeAll(async () => {
  database = await createDatabase(inject('postgresUrl'))
  source = new pg.Pool({ connectionString: database.url, max: 4 })
})
afterAll(async () => {
  await source.end()
  await database.drop()
})

it.each([
  ['half-open connections', 'stall'],
  ['a cut network', 'cut'],
] as const)('goes on after %s, and says meanwhile that the source does not answer', async (_, fault) => {
  await using network = await FaultyNetwork.before(database.url)
  await using harness = await WorkerHarness.open({ temporalAddress: inject('temporalAddress'), sourceUrl: network.urlOf(database.url) })
  await harness.startWorker()
  await source.query(`CREATE TABLE ${fault} (id int PRIMARY KEY, v text); INSERT INTO ${fault} SELECT g, 'copied' FROM generate_series(1, 1000) g`)
  const slotName = `${fault}_${database.name}`
  const handle = await harness.startReplicate({ slotName, publicationName: fault, tableNames: fault })
  const holder = await untilStreaming(source, slotName)
  await untilStatus(handle, ({ phase }) => phase === 'streaming')

  network[fault]()
  const brokenAt = performance.now()
  await source.query(`INSERT INTO ${fault} SELECT g, 'unseen' FROM generate_series(2001, 2100) g; DELETE FROM ${fault} WHERE id <= 10`)
  const told = await untilStatus(handle, ({ lastError }) => lastError !== undefined, 240_000)
  const toldMs = performance.now() - brokenAt
  expect(told.lastError?.type).toBe('SourceUnavailable')
  network.mend()
  const mendedAt = performance.now()
  await untilStreaming(source, slotName, holder, 240_000)
  await untilConfirmed(source, slotName, 240_000)
  const backMs = performance.now() - mendedAt
  process.stderr.write(`${fault}: said after ${(toldMs / 1000).toFixed(1)} s, applied ${(backMs / 1000).toFixed(1)} s after the network was back\n`)
  await untilStatus(handle, ({ phase, lastError }) => phase === 'streaming' && lastError === undefined)
  expect((await handle.query(statusQuery)).tables[`public.${fault}`]).toMatchObject({ inserts: 100, deletes: 10 })
  await handle.executeUpdate(stopUpdate, { args: [{}] })
  expect(await harness.stopWorker()).toBe(0)
  const rows = await readFile(harness.file, async (query) => destinationRows(query, fault, 'public'))
  const client = await source.connect()
  expect(differences(rows, await sourceRows(client, fault))).toEqual(NO_DIFFERENCES)
  client.release()
})
