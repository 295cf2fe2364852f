import { execFileSync } from 'node:child_process'
import { copyFileSync, rmSync } from 'node:fs'
import { expect, inject, it } from 'vitest'
import { stopUpdate } from '../../src/workflows/index.ts'
import { FileSource } from '../support/file-source.ts'
import { untilConfirmed, untilStreaming, WorkerHarness } from '../support/worker-harness.ts'
import { untilStatus } from '../support/workflow-harness.ts'

const source = new FileSource()

/** A file system of its own size, over a folder. Only root may make one. */
class SmallDisk implements Disposable {
  readonly #folder: string

  constructor(folder: string, megabytes: number) {
    this.#folder = folder
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${String(megabytes)}m`, 'tmpfs', folder])
  }

  resize(megabytes: number): void {
    execFileSync('mount', ['-o', `remount,size=${String(megabytes)}m`, this.#folder])
  }

  [Symbol.dispose](): void {
    execFileSync('umount', ['-l', this.#folder])
  }
}

it.runIf(process.getuid?.() === 0)('waits while the disk of the destination is full, says so, and goes on when there is room', async () => {
  await using harness = await WorkerHarness.open({ temporalAddress: inject('temporalAddress'), sourceUrl: source.database.url })
  const kept = `${harness.directory}.toml`
  copyFileSync(harness.configFile, kept)
  using disk = new SmallDisk(harness.directory, 24)
  copyFileSync(kept, harness.configFile)
  rmSync(kept)
  await harness.startWorker()
  await source.pool.query("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT g, 'copied' FROM generate_series(1, 1000) g")
  const slotName = `full_${source.database.name}`
  const handle = await harness.startReplicate({ slotName, publicationName: 'full', tableNames: 't' })
  await untilStreaming(source.pool, slotName)
  await untilStatus(handle, ({ phase }) => phase === 'streaming')

  // Nothing that can be compressed: 64 MB.
  await source.pool.query("INSERT INTO t SELECT g, (SELECT string_agg(md5(random()::text || g || n), '') FROM generate_series(1, 40) n) FROM generate_series(10001, 60000) g")
  const full = await untilStatus(handle, ({ lastError }) => lastError?.type === 'DestinationFailed', 120_000)
  expect(full.lastError?.remedy).toContain('room')
  await source.pool.query('DELETE FROM t WHERE id <= 10')

  disk.resize(512)
  const mendedAt = performance.now()
  await untilConfirmed(source.pool, slotName, 240_000)
  process.stderr.write(`disk full: applied ${((performance.now() - mendedAt) / 1000).toFixed(1)} s after there was room\n`)
  await untilStatus(handle, ({ phase, lastError }) => phase === 'streaming' && lastError === undefined)
  await handle.executeUpdate(stopUpdate, { args: [{}] })
  expect(await harness.stopWorker()).toBe(0)
  await source.expectEqual(harness.file, 't')
})
