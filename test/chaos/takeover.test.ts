import { readdirSync, readlinkSync } from 'node:fs'
import type pg from 'pg'
import { afterAll, beforeAll, expect, inject, it } from 'vitest'
import { startWorkerProcess, type WorkerProcess } from '../../src/embedded/worker-process.ts'
import { stopUpdate } from '../../src/workflows/index.ts'
import { FileSource } from '../support/file-source.ts'
import { sourcePool } from '../support/source-pool.ts'
import { slotHolder, untilConfirmed, untilStreaming, WorkerHarness } from '../support/worker-harness.ts'
import { until, untilStatus } from '../support/workflow-harness.ts'

const MAX_TAKEOVER_MS = 30_000
const ROUNDS = 2

const fileSource = new FileSource()
let source: pg.Pool
beforeAll(() => {
  source = sourcePool({ connectionString: fileSource.database.url, max: 2 })
})
afterAll(async () => {
  await source.end()
})

/** Has that process the file open? */
function hasOpen({ pid }: WorkerProcess, file: string): boolean {
  const folder = `/proc/${String(pid)}/fd`
  return readdirSync(folder).some((fd) => {
    try {
      return readlinkSync(`${folder}/${fd}`) === file
    } catch {
      return false
    }
  })
}

it.runIf(process.platform === 'linux')('of two workers on a machine one is killed, and the other applies the next change within 30 s', async () => {
  await source.query(`CREATE TABLE taken (id int PRIMARY KEY, v text); INSERT INTO taken SELECT g, 'x' FROM generate_series(1, 1000) g`)
  await using harness = await WorkerHarness.open({ temporalAddress: inject('temporalAddress'), sourceUrl: fileSource.database.url })
  const workers = new Set<WorkerProcess>()
  const slicesOf = new Map<WorkerProcess, () => number>()
  const start = async (): Promise<void> => {
    let slices = 0
    const onLine = (line: string): void => {
      harness.lines.push(line)
      if (line.includes('"slice done"')) slices++
    }
    const worker = await startWorkerProcess({ env: harness.env, onLine, readyTimeoutMs: 120_000 })
    workers.add(worker)
    slicesOf.set(worker, () => slices)
  }
  try {
    await start()
    await start()
    const slotName = `taken_${fileSource.database.name}`
    const handle = await harness.startReplicate({ slotName, publicationName: 'taken', tableNames: 'taken' })
    await untilStatus(handle, ({ phase, tables }) => phase === 'streaming' && tables['public.taken']?.state === 'streaming')
    const tookMs: number[] = []
    for (let round = 0; round < ROUNDS; round++) {
      await untilStreaming(source, slotName)
      await source.query('INSERT INTO taken VALUES ($1, $2)', [2_000 + round, 'before'])
      await untilConfirmed(source, slotName)
      const [writer] = await until(async () => [...workers].filter((worker) => hasOpen(worker, harness.file)), (found) => found.length === 1)
      if (writer === undefined) throw new RangeError('no worker has the file')
      expect(workers.size).toBe(2)
      // It stays where it is: the other one has had nothing to do.
      if (round === 0) await until(async () => Promise.resolve(slicesOf.get(writer)?.() ?? 0), (count) => count >= 3)
      for (const worker of workers) if (worker !== writer) expect(slicesOf.get(worker)?.()).toBe(0)
      const killedAt = performance.now()
      await writer.kill()
      workers.delete(writer)
      await source.query('INSERT INTO taken VALUES ($1, $2)', [3_000 + round, 'after'])
      await untilConfirmed(source, slotName)
      tookMs.push(Math.round(performance.now() - killedAt))
      await start()
    }
    process.stderr.write(`taken over after ${tookMs.join(' and ')} ms\n`)
    for (const ms of tookMs) expect(ms).toBeLessThan(MAX_TAKEOVER_MS)
    // What goes to the other one all the same waits until the file is let go of.
    expect(harness.lines.filter((line) => line.includes('DestinationFailed'))).toEqual([])
    const stopped = await handle.executeUpdate(stopUpdate, { args: [{}] })
    expect(stopped.tables['public.taken']).toMatchObject({ snapshotRows: 1_000, inserts: 2 * ROUNDS })
    await until(() => slotHolder(source, slotName), (pid) => pid === null)
    for (const worker of workers) expect((await worker.stop()).code).toBe(0)
  } finally {
    for (const worker of workers) await worker.stop()
  }
})
