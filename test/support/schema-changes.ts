import { performance } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect } from 'vitest'
import type { ReplicationProgress } from '../../src/model/status.ts'
import { differences, specOf, TestPipeline } from './pipeline.ts'

const DEADLINE_MS = 90_000

/** A pipeline over fresh tables, initialized and copied; what it made is dropped with it. */
export class ChangingPipeline extends TestPipeline {
  static async over(url: string, slotName: string, ddl: string, given: Partial<Parameters<typeof specOf>[0]> = {}): Promise<ChangingPipeline> {
    const pipeline = new ChangingPipeline(url, specOf({ slotName, tableNames: [slotName], ...given }))
    await pipeline.sql(ddl)
    await pipeline.initialize()
    await pipeline.copy()
    return pipeline
  }

  async expectEqual(table: string, schema = 'public'): Promise<string[]> {
    const source = await this.sourceRows(table, schema)
    expect(differences(await this.destinationRows(table, schema), source)).toEqual({ missing: [], extra: [] })
    return source
  }

  /** Names of the destination's tables, ours aside. */
  async targets(): Promise<string[]> {
    const rows = await this.query("SELECT schema_name || '.' || table_name FROM duckdb_tables() WHERE schema_name <> '_replication' ORDER BY 1")
    return rows.map(([name]) => String(name))
  }

  /** Streams while `work` runs; it may wait for what the status shows. */
  async whileStreaming(work: (until: (isSo: (progress: ReplicationProgress) => boolean) => Promise<ReplicationProgress>) => Promise<void>): Promise<void> {
    const ended = new AbortController()
    const latest: { progress: ReplicationProgress | null } = { progress: null }
    const slice = this.engine.runSlice(
      { spec: this.spec, mode: 'stream', tableNames: null, untilLsn: null, maxBusyMs: 10 * DEADLINE_MS, maxIdleMs: 10 * DEADLINE_MS },
      {
        ...this.context(),
        signal: ended.signal,
        report: ({ progress }) => {
          latest.progress = progress ?? latest.progress
        },
      },
    )
    const until = async (isSo: (progress: ReplicationProgress) => boolean): Promise<ReplicationProgress> => {
      const deadline = performance.now() + DEADLINE_MS
      for (;;) {
        const seen = latest.progress
        if (seen !== null && isSo(seen)) return seen
        if (performance.now() > deadline) throw new Error(`not so within ${String(DEADLINE_MS)} ms: ${JSON.stringify(seen)}`)
        await sleep(50)
      }
    }
    try {
      await Promise.race([work(until), slice.then(() => { throw new Error('the slice ended before the test did') })])
    } finally {
      ended.abort()
      await slice.catch(() => undefined)
    }
  }

  override async [Symbol.asyncDispose](): Promise<void> {
    const { slotName, publicationName } = this.spec
    await this.engine.drop({ source: 'shop', destination: 'warehouse', slotName, publicationName, dropDestination: true }, this.context())
    await super[Symbol.asyncDispose]()
  }
}
