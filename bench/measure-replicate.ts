import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import { parseLsn } from '../src/model/lsn.ts'
import { compareRows, waitUntilClosed } from './equality.ts'
import { NOTHING_MEASURED, withPipeline, type Measurement, type RunOptions } from './measure-sync.ts'
import { slotNameOf, type DestinationCommit } from './pipeline.ts'
import { median } from './report.ts'
import { insertSql } from './tables.ts'
import type { BenchDatabase } from './servers.ts'
import { measureUsage } from './usage.ts'
import { randomUpdateSql, type IdleTask, type LatencyTask, type ReachTask } from './workloads.ts'

const CLOSE_TIMEOUT_MS = 120_000
/** Every so many transactions ask for their position. */
const SAMPLE_EVERY = 10
/** What comes in the first seconds runs on code that is still being compiled. */
const WARM_UP_SECONDS = 2

/** A commit at the source, acknowledged at `committedMs` (Unix time): all before `lsn` is committed then. */
interface Sample {
  readonly committedMs: number
  readonly lsn: bigint
}

const nowMs = (): number => performance.timeOrigin + performance.now()

/** Commits at a steady rate, and how long until each is visible at the destination. */
export async function measureLatency(options: RunOptions, task: LatencyTask): Promise<Measurement> {
  const { servers, workload, onProgress } = options
  const replication = { number: 1, tableNames: [task.table.name] }
  let samples: readonly Sample[] = []
  return await withPipeline(options, { preload: [{ table: task.table, count: 10_000 }], onNotes: ({ commits }) => latencies(samples, commits) }, async (database, pipeline) => {
    const running = await pipeline.replicate(replication)
    onProgress(`${workload.name}: ${task.seconds} s of transactions …`)
    const { usage } = await measureUsage(
      servers,
      pipeline,
      async () => {
        samples = await commitSteadily(database, task)
        await running.stop()
      },
      async () => {
        await waitUntilClosed(pipeline.fileOf(1), CLOSE_TIMEOUT_MS)
      },
    )
    return { ...NOTHING_MEASURED, ...usage, faults: await compareRows(database.client, pipeline.fileOf(1), [task.table]) }
  })
}

/** Half inserts, half updates; what is late is caught up with. */
async function commitSteadily(database: BenchDatabase, { table, transactionsPerSecond, seconds }: LatencyTask): Promise<readonly Sample[]> {
  const client = new pg.Client({ connectionString: database.url })
  await client.connect()
  const samples: Sample[] = []
  try {
    // Only what is flushed is sent.
    await client.query('SET synchronous_commit = on')
    const startMs = performance.now()
    for (let count = 0; count < transactionsPerSecond * seconds; count++) {
      const waitMs = startMs + (count * 1000) / transactionsPerSecond - performance.now()
      if (waitMs > 1) await sleep(waitMs)
      await client.query(count % 2 === 0 ? insertSql(table, 1_000_000 + count, 1_000_000 + count) : randomUpdateSql(table, `'changed ${count}'`, String(1 + ((count * 7919) % 10_000))))
      const committedMs = nowMs()
      if (count % SAMPLE_EVERY > 0) continue
      const { rows } = await client.query<{ lsn: string }>('SELECT pg_current_wal_lsn()::text AS lsn')
      if (performance.now() - startMs > WARM_UP_SECONDS * 1000) samples.push({ committedMs, lsn: parseLsn(rows[0]?.lsn ?? '') })
    }
  } finally {
    await client.end()
  }
  return samples
}

/** How long each commit took to be visible. A worker that had not shown one when it was stopped has shown it late: it counts until its end. */
export function latencies(samples: readonly Sample[], commits: readonly DestinationCommit[]): { readonly latencyP50Ms: number; readonly latencyP99Ms: number } {
  const delays: number[] = []
  let next = 0
  for (const { committedMs, lsn } of samples) {
    while (next < commits.length - 1 && (commits[next]?.appliedLsn ?? 0n) < lsn) next++
    delays.push((commits[next]?.visibleMs ?? Number.POSITIVE_INFINITY) - committedMs)
  }
  delays.sort((left, right) => left - right)
  const at = (share: number): number => delays[Math.min(delays.length - 1, Math.floor(delays.length * share))] ?? Number.POSITIVE_INFINITY
  return { latencyP50Ms: at(0.5), latencyP99Ms: at(0.99) }
}

/** How long the transactions take in which random changes become visible, on a large table and on a small one. */
export async function measureReach(options: RunOptions, { table, rowCounts, changeCount }: ReachTask): Promise<Measurement> {
  const { workload, onProgress } = options
  const medians: number[] = []
  const faults: string[] = []
  for (const rowCount of rowCounts) {
    let firstChangeMs = Number.POSITIVE_INFINITY
    const measured = await withPipeline(
      options,
      {
        preload: [{ table, count: rowCount }],
        suffix: `-${rowCount}`,
        onNotes: ({ commits }) => {
          // Position alone is written in no time.
          const times = commits.filter(({ visibleMs }) => visibleMs >= firstChangeMs).map(({ transactionMs }) => transactionMs).sort((left, right) => right - left)
          medians.push(median(times.slice(0, REACH_ROUNDS)) ?? 0)
          return {}
        },
      },
      async (database, pipeline) => {
        onProgress(`${workload.name}: loading ${rowCount.toLocaleString('en')} rows …`)
        const replication = { number: 1, tableNames: [table.name] }
        const running = await pipeline.replicate(replication)
        await changeInRounds(database, slotNameOf(replication), { table, rowCount, changeCount, onStart: () => { firstChangeMs = nowMs() } })
        await running.stop()
        await waitUntilClosed(pipeline.fileOf(1), CLOSE_TIMEOUT_MS)
        return { ...NOTHING_MEASURED, faults: await compareRows(database.client, pipeline.fileOf(1), [table]) }
      },
    )
    faults.push(...measured.faults)
  }
  const [small = 0, large = 0] = medians
  return { ...NOTHING_MEASURED, figures: { reachRatio: large / small, reachSmallMs: small, reachLargeMs: large }, faults }
}

const REACH_ROUNDS = 5

async function changeInRounds(
  database: BenchDatabase,
  slotName: string,
  { table, rowCount, changeCount, onStart }: Pick<ReachTask, 'table' | 'changeCount'> & { readonly rowCount: number; readonly onStart: () => void },
): Promise<void> {
  for (let round = 0; round <= REACH_ROUNDS; round++) {
    // The first one reads the file into memory.
    if (round === 1) onStart()
    await database.client.query(`
      DO $$
      DECLARE
        -- A volatile function in the condition would be asked for each row of the table.
        target bigint;
      BEGIN
        PERFORM setseed(0.${round + 1});
        FOR change IN 1 .. ${changeCount} LOOP
          target := 1 + floor(random() * ${rowCount});
          ${randomUpdateSql(table, "'changed ' || change", 'target')};
        END LOOP;
      END $$`)
    await untilConfirmed(database, slotName)
  }
}

/** What is confirmed is committed at the destination. */
async function untilConfirmed({ client }: BenchDatabase, slotName: string): Promise<void> {
  const { rows } = await client.query<{ lsn: string }>('SELECT pg_current_wal_insert_lsn()::text AS lsn')
  const isConfirmed = async (): Promise<boolean> =>
    (await client.query('SELECT FROM pg_replication_slots WHERE slot_name = $1 AND confirmed_flush_lsn >= $2::pg_lsn', [slotName, rows[0]?.lsn])).rowCount === 1
  while (!(await isConfirmed())) await sleep(50)
}

/** What a replication takes while nothing changes. */
export async function measureIdle(options: RunOptions, task: IdleTask): Promise<Measurement> {
  const { servers, workload, onProgress } = options
  return await withPipeline(options, { preload: [{ table: task.table, count: 1_000 }] }, async (database, pipeline) => {
    const running = await pipeline.replicate({ number: 1, tableNames: [task.table.name] })
    await sleep(IDLE_SETTLE_MS)
    const eventsBefore = await running.countEvents()
    onProgress(`${workload.name}: idle for ${task.seconds} s …`)
    const { result: events, usage } = await measureUsage(
      servers,
      pipeline,
      async () => {
        await sleep(task.seconds * 1000)
        return (await running.countEvents()) - eventsBefore
      },
      async () => Promise.resolve(),
    )
    await running.stop()
    await waitUntilClosed(pipeline.fileOf(1), CLOSE_TIMEOUT_MS)
    const share = usage.workerCpuSeconds === null ? {} : { idleCpuShare: usage.workerCpuSeconds / task.seconds }
    return { ...NOTHING_MEASURED, ...usage, figures: { ...share, idleEventsPer10s: (events / task.seconds) * 10 }, faults: await compareRows(database.client, pipeline.fileOf(1), [task.table]) }
  })
}

/** Slices of the stream that find nothing are each twice as long as the one before, from 4 s to 120 s. */
const IDLE_SETTLE_MS = 130_000
