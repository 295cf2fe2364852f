import { compareRows, waitUntilClosed } from './equality.ts'
import { flushedLsn, joinTimes, NOTHING_MEASURED, timeDrains, withNotes, type Measurement, type RunOptions } from './measure-sync.ts'
import { BenchPipeline, publicationNameOf, slotNameOf, type WorkerNotes } from './pipeline.ts'
import { createDatabase } from './servers.ts'
import { itemsTable } from './tables.ts'
import { measureUsage } from './usage.ts'
import { insertsSql, type ParallelTask } from './workloads.ts'

const CLOSE_TIMEOUT_MS = 120_000

/** Several backlogs, each of a table, slot and file of its own, drained at once by one worker. */
export async function measureParallel(options: RunOptions, { pipelineCount, changesOfEach }: ParallelTask): Promise<Measurement> {
  const { servers, workload, run, profileDirectory, onProgress } = options
  const name = `bench-${workload.name.toLowerCase()}-${run}`
  const parts = Array.from({ length: pipelineCount }, (_, index) => ({ table: itemsTable(`items_${index + 1}`), replication: { number: index + 1, tableNames: [`items_${index + 1}`] } }))
  const database = await createDatabase(servers.postgres, name.replaceAll('-', '_'))
  try {
    for (const { table } of parts) await database.client.query(table.createSql)
    const pipeline = await BenchPipeline.start({ name, temporal: servers.temporal, sourceUrls: parts.map(() => database.url), profileDirectory })
    let notes: WorkerNotes
    let measured: Measurement
    try {
      for (const { replication } of parts) {
        await pipeline.sync(replication)
        for (const place of ['before', 'after']) await database.client.query("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", [`${slotNameOf(replication)}_${place}`])
      }
      onProgress(`${workload.name}: making changes …`)
      for (const { table } of parts) await database.client.query(insertsSql(table, changesOfEach))
      const endLsn = await flushedLsn(database)
      const drainAll = async (place: 'before' | 'after') => {
        const startMs = performance.now()
        const times = await Promise.all(parts.map(async ({ replication }) => await timeDrains(options, database, { replication, endLsn, place })))
        return times.some((each) => each.length === 0) ? [] : [['pg_recvlogical', (performance.now() - startMs) / 1000] as const]
      }
      const before = await drainAll('before')
      onProgress(`${workload.name}: ${pipelineCount} × syncChanges of ${publicationNameOf({ number: 1 })} …`)
      const { result: seconds, usage } = await measureUsage(
        servers,
        pipeline,
        async () => {
          const startMs = performance.now()
          await Promise.all(parts.map(async ({ replication }) => await pipeline.sync(replication)))
          return (performance.now() - startMs) / 1000
        },
        async () => {
          for (const { replication } of parts) await waitUntilClosed(pipeline.fileOf(replication.number), CLOSE_TIMEOUT_MS)
        },
      )
      const after = await drainAll('after')
      const faults: string[] = []
      for (const { table, replication } of parts) faults.push(...(await compareRows(database.client, pipeline.fileOf(replication.number), [table])))
      measured = { ...NOTHING_MEASURED, ...usage, seconds, references: joinTimes([...before, ...after]), faults }
    } finally {
      notes = await pipeline.stop()
    }
    return withNotes(measured, notes)
  } finally {
    await database.drop()
  }
}
