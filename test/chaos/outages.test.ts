import { expect, inject, it } from 'vitest'
import { statusQuery, stopUpdate } from '../../src/workflows/index.ts'
import { FaultyNetwork } from '../support/faulty-network.ts'
import { FileSource } from '../support/file-source.ts'
import { untilConfirmed, untilStreaming, WorkerHarness } from '../support/worker-harness.ts'
import { untilStatus } from '../support/workflow-harness.ts'

const source = new FileSource()

it.each([
  ['half-open connections', 'stall'],
  ['a cut network', 'cut'],
] as const)('goes on after %s, and says meanwhile that the source does not answer', async (_, fault) => {
  await using network = await FaultyNetwork.before(source.database.url)
  await using harness = await WorkerHarness.open({ temporalAddress: inject('temporalAddress'), sourceUrl: network.urlOf(source.database.url) })
  await harness.startWorker()
  await source.pool.query(`CREATE TABLE ${fault} (id int PRIMARY KEY, v text); INSERT INTO ${fault} SELECT g, 'copied' FROM generate_series(1, 1000) g`)
  const slotName = `${fault}_${source.database.name}`
  const handle = await harness.startReplicate({ slotName, publicationName: fault, tableNames: fault })
  const holder = await untilStreaming(source.pool, slotName)
  await untilStatus(handle, ({ phase }) => phase === 'streaming')

  network[fault]()
  const brokenAt = performance.now()
  await source.pool.query(`INSERT INTO ${fault} SELECT g, 'unseen' FROM generate_series(2001, 2100) g; DELETE FROM ${fault} WHERE id <= 10`)
  const told = await untilStatus(handle, ({ lastError }) => lastError !== undefined, 240_000)
  const toldMs = performance.now() - brokenAt
  expect(told.lastError?.type).toBe('SourceUnavailable')
  network.mend()
  const mendedAt = performance.now()
  await untilStreaming(source.pool, slotName, holder, 240_000)
  await untilConfirmed(source.pool, slotName, 240_000)
  const backMs = performance.now() - mendedAt
  process.stderr.write(`${fault}: said after ${(toldMs / 1000).toFixed(1)} s, applied ${(backMs / 1000).toFixed(1)} s after the network was back\n`)
  await untilStatus(handle, ({ phase, lastError }) => phase === 'streaming' && lastError === undefined)
  expect((await handle.query(statusQuery)).tables[`public.${fault}`]).toMatchObject({ inserts: 100, deletes: 10 })
  await handle.executeUpdate(stopUpdate, { args: [{}] })
  expect(await harness.stopWorker()).toBe(0)
  await source.expectEqual(harness.file, fault)
})
