import { expect, inject, it, vi } from 'vitest'
import { Readings } from '../../../src/cli/readings.ts'
import { statusText } from '../../../src/cli/status-text.ts'
import type { Destination } from '../../../src/model/destination.ts'
import type { ReplicationProgress, ReplicationStatus } from '../../../src/model/status.ts'
import { specOf, TestPipeline } from '../../support/pipeline.ts'
import { createDatabase } from '../../support/servers.ts'

const ROWS = 1_000_000

it('tells of a copy of several chunks how many of its rows are there, of how many, and how long the rest takes; nothing once it is done', async () => {
  const database = await createDatabase(inject('postgresUrl'))
  try {
    const reported: ReplicationProgress[] = []
    // Reports come by the clock: each commit waits for one that tells of the commit before it.
    const slowly = (destination: Destination): Destination => {
      let seen = 0
      return new Proxy(destination, {
        get: (target, name) => {
          const value: unknown = Reflect.get(target, name)
          if (typeof value !== 'function') return value
          if (name !== 'applyChunks') return value.bind(target) as unknown
          return async (...args: Parameters<Destination['applyChunks']>) => {
            await vi.waitFor(() => { expect(reported.length).toBeGreaterThan(seen) }, { timeout: 30_000, interval: 20 })
            seen = reported.length
            return target.applyChunks(...args)
          }
        },
      })
    }
    await using pipeline = new TestPipeline(database.url, specOf({ slotName: 'copy_progress', tableNames: ['big'] }), { around: slowly })
    await pipeline.sql(`CREATE TABLE big (id int PRIMARY KEY, note text); INSERT INTO big SELECT g, 'row ' || g FROM generate_series(1, ${String(ROWS)}) g`)
    await pipeline.sql('ANALYZE big')
    await pipeline.initialize()
    const slice = await pipeline.engine.runSlice(
      { spec: pipeline.spec, mode: 'copy', tableNames: null, untilLsn: null, maxBusyMs: 60_000, maxIdleMs: 60_000 },
      { ...pipeline.context(), report: ({ progress }) => { if (progress !== undefined) reported.push(progress) } },
    )
    expect(slice.ended).toBe('done')

    const during = reported.flatMap(({ tables }) => (tables['public.big']?.copying === undefined ? [] : [{ ...tables['public.big'], copying: tables['public.big'].copying }]))
    const ranges = during[0]?.copying.ranges ?? 0
    expect(ranges).toBeGreaterThan(2)
    // Each range that is committed is told of, with its rows, in order; the last one ends the copy.
    const done = during.map(({ copying }) => copying.rangesDone)
    expect(done).toEqual(done.toSorted((a, b) => a - b))
    expect([...new Set(done)].length).toBeGreaterThan(2)
    for (const { state, snapshotRows, copying } of during) {
      expect({ state, ranges: copying.ranges, isBegun: snapshotRows > 0 }).toEqual({ state: 'snapshotting', ranges, isBegun: copying.rangesDone > 0 })
      expect(Math.abs(copying.estimatedRows - ROWS)).toBeLessThan(ROWS / 10)
      expect(Math.abs(snapshotRows - (copying.rangesDone / ranges) * ROWS)).toBeLessThan(ROWS / ranges)
    }

    // As `cli status --watch` shows it.
    const readings = new Readings()
    const texts = reported.map((progress) => {
      const status: ReplicationStatus = { ...progress, phase: 'snapshotting', slotName: 'copy_progress', publicationName: 'copy_progress_pub' }
      readings.add(status)
      return statusText({ workflowId: 'w', runId: 'r', status, activity: null }, readings.trend)
    })
    expect(texts.filter((text) => /public\.big [█░]{20} \d+ % of about [\d,]+ rows, \d+(\.\d+)? (ms|s) left/.test(text))).not.toEqual([])

    const table = slice.progress.tables['public.big']
    expect({ ...table, isOver: table !== undefined && !('copying' in table) }).toMatchObject({ state: 'streaming', snapshotRows: ROWS, isOver: true })
    readings.add({ ...slice.progress, phase: 'streaming', slotName: 'copy_progress', publicationName: 'copy_progress_pub' })
    expect(readings.trend?.remainingMs).toEqual({})
  } finally {
    await database.drop()
  }
})
