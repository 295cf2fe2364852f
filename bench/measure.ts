import { areEqual, fingerprintDestination, fingerprintSource, waitUntilClosed } from './equality.ts'
import { type ActivityTime, BenchPipeline, PUBLICATION_NAME, SLOT_NAME } from './pipeline.ts'
import { readCpuSeconds, readTreeCpuSeconds, watchMemory } from './process-usage.ts'
import { timeCopy, timeRecvlogical } from './references.ts'
import { createDatabase, type BenchDatabase, type BenchServers } from './servers.ts'
import { preloadSql, SCHEMA_SQL, TABLE, type Workload } from './workloads.ts'

/** The file is closed some seconds after a workflow's end; a checkpoint may come before it. */
const CLOSE_TIMEOUT_MS = 60_000

/** One run of one workload. Seconds are of a wall clock; null = could not be measured here. */
export interface Measurement {
  /** From the client's start of `syncChanges` to its result. */
  readonly seconds: number
  /** Where that time went, as the workflow's history has it. */
  readonly activities: readonly ActivityTime[]
  /** From that result until the file could be opened by another program: the grace period and DuckDB's checkpoint. */
  readonly closeSeconds: number
  /** The reference before and after, in this order; empty where it is not on the machine. */
  readonly referenceSeconds: readonly number[]
  readonly workerCpuSeconds: number | null
  /** Every process of the server, while we ran. */
  readonly postgresCpuSeconds: number | null
  readonly temporalCpuSeconds: number | null
  /** Every process of the server, while the first reference ran. */
  readonly referencePostgresCpuSeconds: number | null
  readonly peakRssBytes: number | null
  /** What was wrong with the result; empty = nothing. */
  readonly faults: readonly string[]
}

export interface RunOptions {
  readonly servers: BenchServers
  readonly workload: Workload
  /** Tells runs and their names apart. */
  readonly run: number
  readonly profileDirectory: string | null
  readonly onProgress: (line: string) => void
}

/** Runs one workload once in a database, a worker and a destination file of its own, and takes all of them away again. */
export async function measure(options: RunOptions): Promise<Measurement> {
  const { servers, workload, run } = options
  const database = await createDatabase(servers.postgres, `bench_${workload.name.toLowerCase()}_${run}`)
  try {
    await database.client.query(SCHEMA_SQL)
    await database.client.query(preloadSql(workload.preloadedRows))
    await database.client.query(`VACUUM (ANALYZE) ${TABLE}`)
    const pipeline = await BenchPipeline.start({
      name: `bench-${workload.name.toLowerCase()}-${run}`,
      temporal: servers.temporal,
      sourceUrl: database.url,
      profileDirectory: options.profileDirectory,
    })
    try {
      return await measurePipeline(options, database, pipeline)
    } finally {
      await pipeline.stop()
    }
  } finally {
    await database.drop()
  }
}

async function measurePipeline(options: RunOptions, database: BenchDatabase, pipeline: BenchPipeline): Promise<Measurement> {
  const { servers, workload, onProgress } = options
  const { postgres, programs } = servers
  const reference = workload.kind === 'changes' ? await prepareBacklog(options, database, pipeline) : null
  await database.client.query('CHECKPOINT')
  const target = { postgres, database: database.name }
  const timeReference = async (place: number): Promise<readonly number[]> => {
    if (reference !== null) {
      const slotName = reference.twins[place]
      if (programs.recvlogical === null || slotName === undefined) return []
      return [await timeRecvlogical(programs.recvlogical, target, { slotName, publicationName: PUBLICATION_NAME, endLsn: reference.endLsn })]
    }
    return programs.psql === null ? [] : [await timeCopy(programs.psql, target)]
  }

  const postgresCpu = await cpuMeter(async () => (postgres.pid === undefined ? null : await readTreeCpuSeconds(postgres.pid)))
  const before = await timeReference(0)
  const referencePostgresCpuSeconds = before.length === 0 ? null : await postgresCpu()

  onProgress(`${workload.name}: syncChanges …`)
  const memory = await watchMemory(pipeline.workerPid)
  const workerCpu = await cpuMeter(async () => await readCpuSeconds(pipeline.workerPid))
  const temporalCpu = await cpuMeter(async () => (servers.temporal.pid === undefined ? null : await readCpuSeconds(servers.temporal.pid)))
  await postgresCpu()
  const { result, seconds, activities } = await pipeline.sync()
  const postgresCpuSeconds = await postgresCpu()
  const temporalCpuSeconds = await temporalCpu()
  const closeSeconds = (await waitUntilClosed(pipeline.file, CLOSE_TIMEOUT_MS)) / 1000
  const workerCpuSeconds = await workerCpu()
  const peakRssBytes = await memory.stop()

  const after = await timeReference(1)
  const faults: string[] = []
  const [source, destination] = [await fingerprintSource(database.client), await fingerprintDestination(pipeline.file)]
  if (!areEqual(source, destination)) faults.push(`rows differ: the source has ${source.rowCount}, the destination ${destination.rowCount}, or their content differs`)
  const { inserts, updates, deletes } = Object.values(result.tables)[0] ?? { inserts: -1, updates: -1, deletes: -1 }
  const { expected } = workload
  if (inserts !== expected.inserts || updates !== expected.updates || deletes !== expected.deletes) {
    faults.push(`syncChanges reported ${inserts} inserts, ${updates} updates, ${deletes} deletes instead of ${expected.inserts}, ${expected.updates}, ${expected.deletes}`)
  }
  return {
    seconds,
    activities,
    closeSeconds,
    referenceSeconds: [...before, ...after],
    workerCpuSeconds,
    postgresCpuSeconds,
    temporalCpuSeconds,
    referencePostgresCpuSeconds,
    peakRssBytes,
    faults,
  }
}

interface Backlog {
  /** Slots that stand where ours does, for the reference before and after. */
  readonly twins: readonly [string, string]
  /** Everything of the backlog ended before it. */
  readonly endLsn: string
}

/** Initial load, twin slots, and then the changes that are to be drained. */
async function prepareBacklog(options: RunOptions, database: BenchDatabase, pipeline: BenchPipeline): Promise<Backlog> {
  const { workload, onProgress } = options
  await pipeline.sync()
  await waitUntilClosed(pipeline.file, CLOSE_TIMEOUT_MS)
  const twins = [`${SLOT_NAME}_before`, `${SLOT_NAME}_after`] as const
  for (const twin of twins) await database.client.query("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", [twin])
  onProgress(`${workload.name}: making ${workload.size.toLocaleString('en')} changes …`)
  if (workload.backlogSql !== null) await database.client.query(workload.backlogSql)
  // A commit that is flushed: the walsender sends no more than that.
  await database.client.query('SET synchronous_commit = on; SELECT txid_current()')
  const { rows } = await database.client.query<{ lsn: string }>('SELECT pg_current_wal_lsn()::text AS lsn')
  return { twins, endLsn: rows[0]?.lsn ?? '' }
}

/** Each call gives the CPU seconds since the one before it. */
async function cpuMeter(read: () => Promise<number | null>): Promise<() => Promise<number | null>> {
  let last = await read()
  return async () => {
    const now = await read()
    const spent = now === null || last === null ? null : now - last
    last = now
    return spent
  }
}
