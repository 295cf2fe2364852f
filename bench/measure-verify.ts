import { DuckDBInstance } from '@duckdb/node-api'
import type { VerifyReplicationResult } from '../src/workflows/index.ts'
import { waitUntilClosed } from './equality.ts'
import { NOTHING_MEASURED, withPipeline, type Measurement, type RunOptions } from './measure-sync.ts'
import type { BenchPipeline, VerifyRun } from './pipeline.ts'
import { measureUsage } from './usage.ts'
import type { VerifyTask } from './workloads.ts'

const CLOSE_TIMEOUT_MS = 120_000

/** `verifyReplication` of a table that is equal, and again after somebody has changed one of its rows at the destination by hand. CPU time and memory are of the first. */
export async function measureVerify(options: RunOptions, { table, rowCount, wrongKey }: VerifyTask): Promise<Measurement> {
  const { servers, workload, onProgress } = options
  const replication = { number: 1, tableNames: [table.name] }
  return await withPipeline(options, { preload: [{ table, count: rowCount }] }, async (database, pipeline) => {
    const settled = async (): Promise<void> => {
      await waitUntilClosed(pipeline.fileOf(1), CLOSE_TIMEOUT_MS)
    }
    await pipeline.sync(replication)
    await settled()
    await database.client.query('CHECKPOINT')
    onProgress(`${workload.name}: verifyReplication …`)
    const { result: equal, usage } = await measureUsage(servers, pipeline, async () => await pipeline.verify(replication), settled)
    await changeByHand(pipeline, `UPDATE public.${table.name} SET quantity = quantity + 1 WHERE id = ${wrongKey}`)
    onProgress(`${workload.name}: verifyReplication, with one wrong row …`)
    const wrong = await pipeline.verify(replication)
    await settled()
    return {
      ...NOTHING_MEASURED,
      ...usage,
      figures: { verifiedPerSecond: rowCount / equal.seconds, verifiedPerSecondOneWrong: rowCount / wrong.seconds },
      faults: [...faultsOf(equal, `public.${table.name}`, rowCount, []), ...faultsOf(wrong, `public.${table.name}`, rowCount, [String(wrongKey)])],
    }
  })
}

async function changeByHand(pipeline: BenchPipeline, sql: string): Promise<void> {
  const instance = await DuckDBInstance.create(pipeline.fileOf(1))
  const connection = await instance.connect()
  await connection.run(sql)
  connection.closeSync()
  instance.closeSync()
}

function faultsOf({ result }: VerifyRun, table: string, rowCount: number, wrongKeys: readonly string[]): readonly string[] {
  const found = { compared: result.tables[table]?.compared, different: result.tables[table]?.different, keys: keysOf(result, table) }
  const expected = { compared: rowCount, different: wrongKeys.length, keys: wrongKeys }
  return JSON.stringify(found) === JSON.stringify(expected) ? [] : [`verifyReplication found ${JSON.stringify(found)} instead of ${JSON.stringify(expected)}`]
}

function keysOf({ differences }: VerifyReplicationResult, table: string): readonly string[] {
  return (differences[table] ?? []).map(({ key }) => key?.join() ?? '')
}
