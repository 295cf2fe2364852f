import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest'
import { parseLsn } from '../../../src/model/lsn.ts'
import type { WriteMode } from '../../../src/model/spec.ts'
import { appendRows, readFile } from '../../support/comparison.ts'
import { differences, specOf, TestPipeline } from '../../support/pipeline.ts'
import { createDatabase, type TestDatabase } from '../../support/servers.ts'
import { until } from '../../support/workflow-harness.ts'

const NO_DIFFERENCES = { missing: [], extra: [] }
/** What an operator would do, as nothing else can end an idle slice of a test. */
const LONG_MS = 120_000

describe('transactions that come before their commit', () => {
  const serverUrl = inject('postgresUrl')
  let database: TestDatabase

  beforeAll(async () => { database = await createDatabase(serverUrl) })
  afterAll(async () => { await database.drop() })

  /** With so little memory the server streams whatever is over 64 kB; with so much nothing. */
  function pipelineOf(slotName: string, tableNames: readonly string[], { writeMode, memory }: { readonly writeMode: WriteMode; readonly memory: '64kB' | '1GB' }): TestPipeline {
    const options = encodeURIComponent(`-c logical_decoding_work_mem=${memory}`)
    return new TestPipeline(`${database.url}?options=${options}`, specOf({ slotName: `${slotName}_${database.name}`, tableNames, writeMode }))
  }

  async function withWriters(work: (one: pg.Client, two: pg.Client, three: pg.Client) => Promise<void>): Promise<void> {
    const clients = [1, 2, 3].map(() => new pg.Client({ connectionString: database.url }))
    for (const client of clients) await client.connect()
    try {
      const [one, two, three] = clients
      if (one !== undefined && two !== undefined && three !== undefined) await work(one, two, three)
    } finally {
      for (const client of clients) await client.end()
    }
  }

  function spoolFiles(pipeline: TestPipeline): string[] {
    const folder = join(`${pipeline.file}.spool`, `shop.${pipeline.spec.slotName}`)
    return existsSync(folder) ? readdirSync(folder) : []
  }

  async function untilStreamed(pipeline: TestPipeline, count: number): Promise<void> {
    await until(async () => Promise.resolve(spoolFiles(pipeline)), (files) => files.length === count)
  }

  /** A stream that runs until it is told to end. */
  function running(pipeline: TestPipeline): { readonly end: () => Promise<void>; readonly ended: Promise<unknown> } {
    const controller = new AbortController()
    const slice = pipeline.engine.runSlice({ spec: pipeline.spec, mode: 'stream', tableNames: null, untilLsn: null, maxBusyMs: LONG_MS, maxIdleMs: LONG_MS }, { ...pipeline.context(), signal: controller.signal })
    slice.catch(() => undefined)
    return {
      ended: slice,
      end: async () => {
        controller.abort()
        // It may have been opening its stream.
        await slice.catch((error: unknown) => { if (!(error instanceof Error && error.name === 'AbortError')) throw error })
      },
    }
  }

  const TABLES = ['things', 'copies']

  async function makeTables(pipeline: TestPipeline): Promise<void> {
    await pipeline.sql(`
      CREATE TABLE things (id int PRIMARY KEY, name text, big text);
      ALTER TABLE things ALTER big SET STORAGE EXTERNAL;
      CREATE TABLE copies (id int PRIMARY KEY, amount numeric);
      INSERT INTO things SELECT n, 'first', repeat(md5(n::text), 200) FROM generate_series(1, 20) n`)
  }

  /** Three sessions, transactions over and under the limit, everything that a transaction may hold. `between` comes where two are on disk. */
  async function work(pipeline: TestPipeline, between: () => Promise<void>): Promise<void> {
    await withWriters(async (one, two, three) => {
      await one.query(`BEGIN; INSERT INTO things SELECT n, 'one', 'x' FROM generate_series(100, 1500) n; UPDATE things SET name = 'touched' WHERE id <= 20`)
      await two.query(`BEGIN; INSERT INTO copies SELECT n, n / 3.0 FROM generate_series(1, 2000) n; SAVEPOINT a; DELETE FROM copies; INSERT INTO copies SELECT n, 0 FROM generate_series(1, 2000) n`)
      await three.query(`INSERT INTO things VALUES (-1, 'plain', NULL); UPDATE things SET name = 'plain, too' WHERE id = -1`)
      await between()
      await one.query(`UPDATE things SET id = id + 10000 WHERE id BETWEEN 100 AND 700; SAVEPOINT s; DELETE FROM things WHERE id > 0; INSERT INTO things SELECT n, 'gone' FROM generate_series(1, 1500) n; ROLLBACK TO s`)
      await two.query(`ROLLBACK TO a; INSERT INTO things SELECT n, 'two', repeat(md5(n::text), 100) FROM generate_series(-900, -100) n; UPDATE copies SET amount = amount + 1 WHERE id % 2 = 0`)
      await three.query(`BEGIN; INSERT INTO things SELECT n, 'rolled back' FROM generate_series(50000, 52000) n`)
      await two.query('COMMIT')
      await three.query('ROLLBACK')
      await one.query(`ALTER TABLE things ADD COLUMN later int; INSERT INTO things SELECT n, 'one', 'y', n FROM generate_series(20000, 21000) n; SAVEPOINT t; ALTER TABLE things RENAME COLUMN name TO never; INSERT INTO things (id, never) SELECT n, 'gone' FROM generate_series(30000, 31500) n; ROLLBACK TO t; ALTER TABLE things RENAME COLUMN name TO title; UPDATE things SET later = 1, title = 'renamed' WHERE id BETWEEN -200 AND 20`)
      await one.query('COMMIT')
      await three.query(`BEGIN; INSERT INTO copies SELECT n, 1 FROM generate_series(10000, 12000) n; TRUNCATE copies; INSERT INTO copies SELECT n, 2 FROM generate_series(1, 1500) n; COMMIT`)
      await two.query(`BEGIN; INSERT INTO things (id, title) SELECT n, 'prepared' FROM generate_series(60000, 61500) n; PREPARE TRANSACTION 'streamed ${database.name}'`)
      await three.query(`INSERT INTO things (id, title) VALUES (-2, 'plain, while another is prepared')`)
      await one.query(`COMMIT PREPARED 'streamed ${database.name}'`)
      await three.query('BEGIN; UPDATE things SET title = NULL WHERE id > 60000; DELETE FROM things WHERE id BETWEEN -900 AND -500; COMMIT')
    })
    await pipeline.sql('INSERT INTO copies VALUES (-1, -1)')
  }

  const faults = ['nothing', 'a pause', 'a restart', 'a disconnection'] as const

  it.each(faults)('are the same rows and the same history as those that come at it, with %s in the middle', async (fault) => {
    const suffix = fault.replace(/^an? /, '')
    await using merged = pipelineOf(`merged_${suffix}`, TABLES, { writeMode: 'merge', memory: '64kB' })
    await using history = pipelineOf(`history_${suffix}`, TABLES, { writeMode: 'append', memory: '64kB' })
    await using twin = pipelineOf(`twin_${suffix}`, TABLES, { writeMode: 'append', memory: '1GB' })
    await makeTables(merged)
    for (const pipeline of [merged, history, twin]) {
      await pipeline.initialize()
      await pipeline.catchUp()
    }
    await twin.release()
    const streams = [running(merged), running(history)]
    await work(merged, async () => {
      for (const pipeline of [merged, history]) await untilStreamed(pipeline, 2)
      if (fault === 'nothing') return
      if (fault === 'a disconnection') {
        await merged.sql(`SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name LIKE '%\\_disconnection\\_${database.name}'`)
        for (const { ended } of streams) await expect(ended).rejects.toMatchObject({ kind: 'SourceUnavailable' })
      } else {
        for (const { end } of streams) await end()
        if (fault === 'a restart') for (const pipeline of [merged, history]) await pipeline.release()
      }
      for (const pipeline of fault === 'a pause' ? [] : [merged, history]) expect(spoolFiles(pipeline)).toEqual([])
      streams.splice(0, 2, running(merged), running(history))
    })
    for (const { end } of streams) await end()
    for (const pipeline of [merged, history, twin]) await pipeline.catchUp()
    for (const table of TABLES) {
      expect(differences(await merged.destinationRows(table), await merged.sourceRows(table)), table).toEqual(NO_DIFFERENCES)
      const [streamed = [], plain] = await Promise.all([history, twin].map(async (pipeline) => {
        await pipeline.release()
        return readFile(pipeline.file, async (query) => appendRows(query, table))
      }))
      const withoutCopyLsn = (rows: typeof streamed): unknown[] => rows.map((row) => (row.op === 'snapshot' ? { ...row, lsn: 0n } : row))
      expect(streamed.filter(({ op }) => op !== 'snapshot').length, table).toBeGreaterThan(1_000)
      expect(withoutCopyLsn(streamed), table).toEqual(withoutCopyLsn(plain ?? []))
    }
    for (const pipeline of [merged, history]) expect(spoolFiles(pipeline)).toEqual([])
    await merged.sql('DROP TABLE things, copies')
    for (const pipeline of [merged, history, twin]) await pipeline.sql('SELECT pg_drop_replication_slot($1)', [pipeline.spec.slotName])
  })

  it('hold back neither the position nor others, and are whole after a restart from a position past their beginning', async () => {
    await using pipeline = pipelineOf('position', ['waiting'], { writeMode: 'merge', memory: '64kB' })
    await pipeline.sql('CREATE TABLE waiting (id int PRIMARY KEY)')
    await pipeline.initialize()
    await pipeline.catchUp()
    await withWriters(async (one, two) => {
      const stream = running(pipeline)
      await one.query('BEGIN; INSERT INTO waiting SELECT generate_series(1, 2000)')
      await untilStreamed(pipeline, 1)
      await two.query('INSERT INTO waiting VALUES (-1)')
      const { rows: [at] } = await two.query<{ lsn: string }>('SELECT pg_current_wal_lsn()::text AS lsn')
      const reached = parseLsn(at?.lsn ?? '')
      const confirmed = async (): Promise<bigint> => {
        const { rows: [slot] } = await pipeline.sql('SELECT confirmed_flush_lsn::text AS lsn FROM pg_replication_slots WHERE slot_name = $1', [pipeline.spec.slotName]) as { rows: { lsn: string }[] }
        return parseLsn(slot?.lsn ?? '')
      }
      await until(confirmed, (lsn) => lsn >= reached)
      await stream.end()
      expect(await pipeline.query('SELECT id FROM public.waiting')).toEqual([[-1]])
      // What a killed process leaves there.
      const folder = join(`${pipeline.file}.spool`, `shop.${pipeline.spec.slotName}`)
      mkdirSync(folder, { recursive: true })
      writeFileSync(join(folder, 'streamed-of-a-killed-process'), 'anything')
      const again = running(pipeline)
      // What came before the confirmed position is streamed with what comes behind it.
      await one.query('INSERT INTO waiting SELECT generate_series(2001, 4000)')
      await until(async () => Promise.resolve(spoolFiles(pipeline)), (files) => files.length === 1 && !files.includes('streamed-of-a-killed-process'))
      await one.query('INSERT INTO waiting SELECT generate_series(4001, 4500); COMMIT')
      await again.end()
      await pipeline.catchUp()
    })
    expect(differences(await pipeline.destinationRows('waiting'), await pipeline.sourceRows('waiting'))).toEqual(NO_DIFFERENCES)
    expect(await pipeline.query('SELECT count(*)::INTEGER FROM public.waiting')).toEqual([[4501]])
  })
})
