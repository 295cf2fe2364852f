import { expect } from 'vitest'
import { closeIdleDatabases } from '../../src/destinations/duckdb/database.ts'
import type { XminResult } from '../../src/model/replication.ts'
import type { XminSpec } from '../../src/model/spec.ts'
import { specOf, TestPipeline, type TestPipelineOptions } from './pipeline.ts'

/** A spec of `syncByXmin` with its defaults. */
export function xminSpecOf(given: Partial<XminSpec> & Pick<XminSpec, 'tableNames'>): XminSpec {
  return {
    source: 'shop', destination: 'warehouse', schemaName: 'public', includeColumns: {}, columns: {}, datasetName: null, writeMode: 'merge',
    schemaChanges: 'apply', reset: false, targetBatchSize: null, deletes: 'ignore', ...given,
  } // prettier-ignore
}

let runs = 0

/** The engine reading by xmin, without Temporal. */
export class XminPipeline extends TestPipeline {
  xmin: XminSpec

  constructor(url: string, spec: Partial<XminSpec> & Pick<XminSpec, 'tableNames'>, options: TestPipelineOptions = {}) {
    super(url, specOf({ slotName: 'xmin_beside', tableNames: spec.tableNames }), options)
    this.xmin = xminSpecOf(spec)
  }

  /** One call of the engine, as an activity makes it. */
  async call(runId: string, maxMs = 60_000): Promise<XminResult> {
    return this.engine.syncByXmin({ spec: this.xmin, runId, maxMs }, this.context())
  }

  /** A whole run. Throws where a table has stopped. */
  async sync(): Promise<XminResult> {
    runs += 1
    const runId = `run-${String(runs)}`
    let result = await this.call(runId)
    while (result.ended === 'time') result = await this.call(runId)
    if (Object.keys(result.failed).length > 0) throw new Error(JSON.stringify(result.failed))
    return result
  }

  /**
   * Waits until what runs at the server now has ended, in other databases too: a pass reads again what came since the oldest transaction began that
   * ran beside the one before it, so rows can be counted only where it began after them.
   */
  async settle(): Promise<void> {
    const { rows } = await this.sql('SELECT pg_current_xact_id()::text AS id')
    const [{ id } = { id: '' }] = rows as { id: string }[]
    const isPast = async (): Promise<unknown> => (await this.sql('SELECT pg_snapshot_xmin(pg_current_snapshot()) > $1::xid8 AS "isPast"', [id])).rows
    await expect.poll(isPast, { timeout: 240_000 }).toEqual([{ isPast: true }])
  }

  override async release(): Promise<void> {
    await closeIdleDatabases()
  }
}
