import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { DuckDBInstance } from '@duckdb/node-api'
import { expect, inject, it } from 'vitest'
import { spoolFolderOf } from '../../src/destinations/duckdb/spool-folder.ts'
import { pauseUpdate, resumeUpdate, statusQuery, stopUpdate } from '../../src/workflows/index.ts'
import { appendRows, doubledChanges, foldAppendRows, readFile } from '../support/comparison.ts'
import { FileSource } from '../support/file-source.ts'
import { untilConfirmed, untilStreaming, WorkerHarness } from '../support/worker-harness.ts'
import { until, untilStatus } from '../support/workflow-harness.ts'

const source = new FileSource()

it('keeps the stream beside a destination that another process has open, lets the slot go on, and applies it once', async () => {
  await using harness = await WorkerHarness.open({ temporalAddress: inject('temporalAddress'), sourceUrl: source.database.url })
  await harness.startWorker()
  await source.pool.query("CREATE TABLE m (id int PRIMARY KEY, v text); CREATE TABLE h (id int PRIMARY KEY, v text); INSERT INTO m SELECT g, 'copied' FROM generate_series(1, 100) g")
  const slotName = `down_${source.database.name}`
  const handle = await harness.startReplicate({ slotName, publicationName: 'down', tableNames: ['m', 'h'], writeMode: { h: 'append' }, walBudgetBytes: 1 })
  await untilStreaming(source.pool, slotName)
  await untilStatus(handle, ({ phase }) => phase === 'streaming')
  // Whoever opens the file meanwhile has it. This process is another one than the worker.
  await handle.executeUpdate(pauseUpdate, { args: [{}] })
  const holder = await until(async () => DuckDBInstance.create(harness.file).catch(() => null), (instance) => instance !== null)
  const folder = join(spoolFolderOf(harness.file, { source: 'shop', slotName }), 'stream')
  try {
    await handle.executeUpdate(resumeUpdate, { args: [{}] })
    const down = await untilStatus(handle, ({ lastError }) => lastError !== undefined)
    expect(down.lastError).toMatchObject({ type: 'DestinationFailed', message: expect.stringContaining(`PID ${String(process.pid)}`) as string })
    await source.pool.query("INSERT INTO m SELECT g, repeat('x', 2000) FROM generate_series(1000, 1200) g; INSERT INTO h SELECT g, 'h' FROM generate_series(1, 50) g; UPDATE h SET v = 'u' WHERE id <= 10; DELETE FROM m WHERE id <= 10; DELETE FROM h WHERE id = 50")
    const writtenAt = performance.now()
    await untilConfirmed(source.pool, slotName, 240_000)
    process.stderr.write(`destination down: the slot went on ${((performance.now() - writtenAt) / 1000).toFixed(1)} s after it was written to\n`)
    expect(readdirSync(folder).length).toBeGreaterThan(0)
    const kept = await untilStatus(handle, ({ warnings }) => warnings.some((warning) => warning.includes('are in the spool beside the destination')))
    expect(kept.lastError?.type).toBe('DestinationFailed')
  } finally {
    holder?.closeSync()
  }
  await untilStatus(handle, ({ phase, lastError }) => phase === 'streaming' && lastError === undefined, 240_000)
  await untilConfirmed(source.pool, slotName)
  expect((await handle.query(statusQuery)).tables).toMatchObject({ 'public.m': { state: 'streaming' }, 'public.h': { state: 'streaming' } })
  await handle.executeUpdate(stopUpdate, { args: [{}] })
  expect(await harness.stopWorker()).toBe(0)
  await source.expectEqual(harness.file, 'm')
  const changes = await readFile(harness.file, async (query) => appendRows(query, 'h'))
  expect(doubledChanges(changes, ['id'])).toEqual([])
  // 50 inserts, 10 updates, one delete.
  expect(changes).toHaveLength(61)
  const { rows } = await source.pool.query<[string]>({ text: "SELECT id || ' | ' || v FROM h ORDER BY 1", rowMode: 'array' })
  expect(foldAppendRows(changes, ['id']).toSorted()).toEqual(rows.flat().toSorted())
  expect(existsSync(folder) ? readdirSync(folder) : []).toEqual([])
})
