import { setTimeout as sleep } from 'node:timers/promises'
import type { WorkflowHandle } from '@temporalio/client'
import { expect, inject, it } from 'vitest'
import { type replicate, statusQuery, stopUpdate } from '../../src/workflows/index.ts'
import { ChaosPipeline } from '../support/chaos-pipeline.ts'
import { readFile } from '../support/comparison.ts'
import { FileSource } from '../support/file-source.ts'
import { randomNumbers, untilStreaming, WorkerHarness } from '../support/worker-harness.ts'

/** `KILL_SEED` chooses the moments; what the killed worker was doing then is the machine's choice. */
const SEED = Number(process.env['KILL_SEED'] ?? '1')
/**
 * A killed worker's activity is tried again only when its heartbeats have been missing for 15 s: so several workers are killed in turns, each with
 * replications of its own.
 */
const LANES = 4
const KILLS_PER_LANE = 5
/** The append replication begins with this kill, so that snapshots of both modes are met. */
const APPEND_BEGINS_WITH_KILL = 2
const COUNTER_ROWS = { merge: 200_000, append: 60_000 } as const

const source = new FileSource()

it('is equal to the source after 20 kills of the worker at random moments of snapshot and stream', async () => {
  const kills = await Promise.all(Array.from({ length: LANES }, (_, lane) => runLane(lane)))
  expect(kills.reduce((sum, count) => sum + count, 0)).toBe(20)
})

/** A pipeline at work, and the walsender that served it last. */
interface Running {
  readonly pipeline: ChaosPipeline
  readonly handle: WorkflowHandle<typeof replicate>
  holder: number | null
}

async function runLane(lane: number): Promise<number> {
  const random = randomNumbers(SEED * 100 + lane)
  await using harness = await WorkerHarness.open({ temporalAddress: inject('temporalAddress'), sourceUrl: source.database.url })
  const [merge, append] = (['merge', 'append'] as const).map(
    (mode) => new ChaosPipeline({ url: source.database.url, schema: `lane${String(lane)}_${mode}`, mode, counterRows: COUNTER_ROWS[mode] }),
  ) as [ChaosPipeline, ChaosPipeline]
  const running: Running[] = []
  const begin = async (pipeline: ChaosPipeline): Promise<void> => {
    pipeline.startWriters(1 + Math.floor(random() * 1_000))
    running.push({ pipeline, handle: await harness.startReplicate(pipeline.input), holder: null })
  }
  let kills = 0
  try {
    await Promise.all([merge.create(), append.create(), harness.startWorker()])
    for (; kills < KILLS_PER_LANE; kills++) {
      // At work again; what begins now is met anywhere in init and snapshot.
      for (const one of running) one.holder = await untilStreaming(source.pool, one.pipeline.slotName, one.holder, 120_000)
      if (kills === 0) await begin(merge)
      if (kills === APPEND_BEGINS_WITH_KILL) await begin(append)
      await sleep(random() * 3_000)
      await harness.killWorker()
      await harness.startWorker()
    }
    for (const { pipeline } of running) await pipeline.stopWriters()
    for (const { handle } of running) await handle.executeUpdate(stopUpdate, { args: [{}] })
    // The next start goes on exactly.
    for (const { pipeline } of running) await harness.sync(pipeline.input)
    expect(await harness.stopWorker(), harness.lines.slice(-5).join('\n')).toBe(0)
    await readFile(harness.file, async (query) => {
      await merge.expectEqual(query)
      await append.expectEqual(query)
    })
    process.stderr.write(`lane ${String(lane)}: ${String(kills)} kills, ${String(merge.writes)} changes merged, ${String(append.writes)} appended\n`)
    return kills
  } catch (error) {
    // What the operator would see.
    for (const { handle } of running) process.stderr.write(`lane ${String(lane)}: ${JSON.stringify(await handle.query(statusQuery).catch(String))}\n`)
    throw error
  } finally {
    await merge.close()
    await append.close()
  }
}
