import { compareRows, waitUntilClosed } from './equality.ts'
import { type ActivityTime, BenchPipeline, type BenchReplication, publicationNameOf, slotNameOf, type SyncRun, type WorkerNotes } from './pipeline.ts'
import { PeerDrains, timePeerCopies } from './peers.ts'
import { duckdbReference, timeCopy, timeRecvlogical, type ReferenceName, type ReferenceTime } from './references.ts'
import type { PeerOptions, WorkloadName } from './options.ts'
import { createDatabase, type BenchDatabase, type BenchServers } from './servers.ts'
import { insertSql } from './tables.ts'
import { measureUsage, postgresCpuMeter, type Usage } from './usage.ts'
import type { BacklogTask, FigureName, Preload, SnapshotTask, Workload } from './workloads.ts'

/** The file is closed some seconds after a workflow's end; a checkpoint may come before it. */
const CLOSE_TIMEOUT_MS = 120_000

/** Backlogs that programs of others drain too. */
const PEER_BACKLOGS: readonly WorkloadName[] = ['W1', 'W2']

/** Seconds that a reference took before and after our run, in this order. */
export interface ReferenceTimes {
  readonly name: ReferenceName
  readonly seconds: readonly number[]
}

/** One step of a task that grows. */
export interface GrowthStep {
  readonly size: number
  readonly seconds: number
  readonly workerCpuSeconds: number | null
}

/** One run of one workload. Seconds are of a wall clock; null = was not or could not be measured. */
export interface Measurement extends Usage {
  /** From the client's start of `syncChanges` to its result, and DuckDB's checkpoint when the file is closed. */
  readonly seconds: number | null
  /** Where that time went, as the workflow's history has it. */
  readonly activities: readonly ActivityTime[]
  /** From that result until the file could be opened by another program: the grace period and DuckDB's checkpoint. */
  readonly closeSeconds: number | null
  readonly references: readonly ReferenceTimes[]
  /** Every process of the server, while the first reference ran. */
  readonly referencePostgresCpuSeconds: number | null
  /** Of the workload's own kind. */
  readonly figures: Readonly<Partial<Record<FigureName, number>>>
  readonly steps: readonly GrowthStep[]
  /** What was wrong with the result; empty = nothing. */
  readonly faults: readonly string[]
}

export interface RunOptions {
  readonly servers: BenchServers
  readonly workload: Workload
  /** Tells runs and their names apart. */
  readonly run: number
  readonly profileDirectory: string | null
  readonly peers: PeerOptions
  readonly onProgress: (line: string) => void
}

/** Of a measurement in which these are nothing. */
export const NOTHING_MEASURED = {
  seconds: null, activities: [], closeSeconds: null, references: [], referencePostgresCpuSeconds: null, figures: {}, steps: [], faults: [],
  workerCpuSeconds: null, postgresCpuSeconds: null, temporalCpuSeconds: null, peakRssBytes: null,
} as const satisfies Measurement // prettier-ignore

/** Runs `work` with a database that holds these rows and a worker that replicates from it. What the worker noted is added to the result. */
export async function withPipeline(
  { servers, workload, run, profileDirectory }: RunOptions,
  setup: { readonly preload: readonly Preload[]; readonly isEncrypted?: boolean; readonly suffix?: string; readonly onNotes?: (notes: WorkerNotes) => Measurement['figures'] },
  work: (database: BenchDatabase, pipeline: BenchPipeline) => Promise<Measurement>,
): Promise<Measurement> {
  const name = `bench-${workload.name.toLowerCase()}-${run}${setup.suffix ?? ''}`
  const database = await createDatabase(servers.postgres, name.replaceAll('-', '_'))
  try {
    for (const { table, count } of setup.preload) {
      await database.client.query(table.createSql)
      if (count > 0) await database.client.query(insertSql(table, 1, count))
    }
    await database.client.query('VACUUM (ANALYZE)')
    const sourceUrl = setup.isEncrypted === true ? database.encryptedUrl : database.url
    const pipeline = await BenchPipeline.start({ name, temporal: servers.temporal, sourceUrls: [sourceUrl], profileDirectory })
    let measured: Measurement | null = null
    try {
      measured = await work(database, pipeline)
    } finally {
      const notes = await pipeline.stop()
      if (measured !== null) measured = withNotes(measured, notes, setup.onNotes)
    }
    return measured
  } finally {
    await database.drop()
  }
}

/** What one run works on. */
interface RunParts<T> {
  readonly database: BenchDatabase
  readonly pipeline: BenchPipeline
  readonly replication: BenchReplication
  readonly task: T
}

type TimeReferences = (place: 'before' | 'after') => Promise<readonly ReferenceTime[]>

/** What the worker noted belongs to the measurement; a checkpoint to what the rows took. */
export function withNotes(measured: Measurement, notes: WorkerNotes, figuresOf?: (notes: WorkerNotes) => Measurement['figures']): Measurement {
  const { eventLoopDelayP99Ms, checkpointSeconds } = notes
  const seconds = measured.seconds === null ? null : measured.seconds + checkpointSeconds
  return { ...measured, seconds, figures: { eventLoopDelayP99Ms, ...(seconds === null ? {} : { checkpointSeconds }), ...measured.figures, ...figuresOf?.(notes) } }
}

/** A backlog or a snapshot, by `syncChanges`, between two runs of each reference. */
export async function measureSync(options: RunOptions, task: BacklogTask | SnapshotTask, suffix = ''): Promise<Measurement> {
  const isEncrypted = task.tag === 'backlog' && task.isEncrypted
  return await withPipeline(options, { preload: task.preload, isEncrypted, suffix }, async (database, pipeline) => {
    const writeMode = task.tag === 'backlog' ? task.writeMode : undefined
    const replication: BenchReplication = { number: 1, tableNames: task.preload.map(({ table }) => table.name), ...(writeMode === undefined ? {} : { writeMode }) }
    const parts = { database, pipeline, replication }
    if (task.tag === 'backlog') return await measureBacklog(options, { ...parts, task })
    return await measureBetween(options, { ...parts, task }, async (place) => await timeCopies(options, database, task, place))
  })
}

/** Initial load, twin slots, the changes, and then the drains of all. */
async function measureBacklog(options: RunOptions, parts: RunParts<BacklogTask>): Promise<Measurement> {
  const { workload, peers: given, onProgress } = options
  const { database, pipeline, replication, task } = parts
  await pipeline.sync(replication)
  await waitUntilClosed(pipeline.fileOf(replication.number), CLOSE_TIMEOUT_MS)
  for (const place of ['before', 'after']) await database.client.query("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", [twinOf(replication, place)])
  const [tableName] = replication.tableNames
  const peers = PEER_BACKLOGS.includes(workload.name) && tableName !== undefined ? await PeerDrains.prepare(given, { database, replication, tableName, changeCount: workload.size }) : null
  try {
    onProgress(`${workload.name}: making changes …`)
    await database.client.query(task.changesSql)
    const endLsn = await flushedLsn(database)
    return await measureBetween(options, parts, async (place) => [
      ...(await timeDrains(options, database, { replication, endLsn, place })),
      ...(peers === null || place === 'before' ? [] : await peers.time(endLsn)),
    ])
  } finally {
    await peers?.close()
  }
}

/** Our run, with the references before and after it. */
async function measureBetween({ servers, workload, onProgress }: RunOptions, parts: RunParts<BacklogTask | SnapshotTask>, timeReferences: TimeReferences): Promise<Measurement> {
  const { database, pipeline, replication, task } = parts
  await database.client.query('CHECKPOINT')
  const referenceCpu = await postgresCpuMeter(servers)
  const before = await timeReferences('before')
  const referencePostgresCpuSeconds = before.length === 0 ? null : await referenceCpu()
  onProgress(`${workload.name}: syncChanges …`)
  let closeSeconds: number | null = null
  const { result, usage } = await measureUsage(
    servers,
    pipeline,
    async () => await pipeline.sync(replication),
    async () => {
      closeSeconds = (await waitUntilClosed(pipeline.fileOf(1), CLOSE_TIMEOUT_MS)) / 1000
    },
  )
  const after = await timeReferences('after')
  const tables = task.preload.map(({ table }) => table)
  return {
    ...NOTHING_MEASURED,
    ...usage,
    seconds: result.seconds,
    activities: result.activities,
    closeSeconds,
    references: joinTimes([...before, ...after]),
    referencePostgresCpuSeconds,
    faults: [...(await compareRows(database.client, pipeline.fileOf(1), tables, replication.writeMode)), ...countFaults(result, task.tag === 'backlog' ? task.expected : null)],
  }
}

/** The seconds of each reference, in the order in which they were taken. */
export function joinTimes(times: readonly ReferenceTime[]): readonly ReferenceTimes[] {
  const names = [...new Set(times.map(([name]) => name))]
  return names.map((name) => ({ name, seconds: times.flatMap(([other, seconds]) => (other === name ? [seconds] : [])) }))
}

function countFaults({ result }: SyncRun, expected: BacklogTask['expected'] | null): readonly string[] {
  if (expected === null) return []
  const total = { inserts: 0, updates: 0, deletes: 0 }
  for (const { inserts, updates, deletes } of Object.values(result.tables)) {
    total.inserts += inserts
    total.updates += updates
    total.deletes += deletes
  }
  if (total.inserts === expected.inserts && total.updates === expected.updates && total.deletes === expected.deletes) return []
  return [`syncChanges reported ${total.inserts} inserts, ${total.updates} updates, ${total.deletes} deletes instead of ${expected.inserts}, ${expected.updates}, ${expected.deletes}`]
}

/** The position behind a commit that is flushed: the walsender sends no more than that. */
export async function flushedLsn(database: BenchDatabase): Promise<string> {
  await database.client.query('SET synchronous_commit = on; SELECT txid_current()')
  const { rows } = await database.client.query<{ lsn: string }>('SELECT pg_current_wal_lsn()::text AS lsn')
  return rows[0]?.lsn ?? ''
}

/** Slots that stand where ours does, for the references before and after. */
function twinOf(replication: BenchReplication, place: string): string {
  return `${slotNameOf(replication)}_${place}`
}

/** Times `pg_recvlogical`, on a slot that stands where ours does. */
export async function timeDrains(
  { servers: { postgres, programs } }: RunOptions,
  database: BenchDatabase,
  drain: { readonly replication: BenchReplication; readonly endLsn: string; readonly place: 'before' | 'after' },
): Promise<readonly ReferenceTime[]> {
  const slot = { slotName: twinOf(drain.replication, drain.place), publicationName: publicationNameOf(drain.replication), endLsn: drain.endLsn }
  const target = { postgres, database: database.name }
  return programs.recvlogical === null ? [] : [['pg_recvlogical', await timeRecvlogical(programs.recvlogical, target, slot)]]
}

async function timeCopies(
  { servers: { postgres, programs }, peers, workload }: RunOptions,
  database: BenchDatabase,
  { preload }: BacklogTask | SnapshotTask,
  place: 'before' | 'after',
): Promise<readonly ReferenceTime[]> {
  const names = preload.map(({ table }) => table.name)
  const times: ReferenceTime[] = []
  if (programs.psql !== null) times.push(['COPY csv', await timeCopy(programs.psql, { postgres, database: database.name }, names)])
  if (workload.name !== 'S1') return times
  if (peers.duckdbExtensionPath !== null) times.push(['DuckDB postgres', await duckdbReference(peers.duckdbExtensionPath, database.url, names)])
  if (place === 'after') times.push(...(await timePeerCopies(peers, database, { tableNames: names, rowCount: workload.size })))
  return times
}
