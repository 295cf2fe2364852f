import pg from 'pg'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { startPostgres, type PostgresServer } from '../../../src/embedded/postgres-server.ts'
import type { OperationContext } from '../../../src/model/replication.ts'
import { endsWithin } from '../../../src/postgres/ends-within.ts'
import { appendRows, differences, doubledChanges, foldAppendRows, NO_DIFFERENCES, readFile } from '../../support/comparison.ts'
import { specOf, TestPipeline } from '../../support/pipeline.ts'
import { until } from '../../support/workflow-harness.ts'

/**
 * With a synchronous standby that is not there a commit is in the log, and in the stream, and nobody sees it for as long as it takes. So a snapshot must not be
 * taken for one that has what the stream has had already, and whoever waits for such a transaction must say so.
 */
let server: PostgresServer

beforeAll(async () => {
  server = await startPostgres({ settings: { synchronous_commit: 'on' } })
})
afterAll(async () => {
  await server.stop()
})

async function setStandby(name: string): Promise<void> {
  const admin = new pg.Client({ connectionString: server.url })
  await admin.connect()
  await admin.query(`ALTER SYSTEM SET synchronous_standby_names = '${name}'`)
  await admin.query('SELECT pg_reload_conf()')
  await until(async () => (await admin.query<{ synchronous_standby_names: string }>('SHOW synchronous_standby_names')).rows[0]?.synchronous_standby_names, (shown) => shown === name)
  if (name !== '') await untilCommitsWait(admin)
  await admin.end()
}

/** The setting counts once the checkpointer has read it, which is later than that a session shows it. */
async function untilCommitsWait(admin: pg.Client): Promise<void> {
  const writer = new pg.Client({ connectionString: server.url })
  await writer.connect()
  const { rows } = await writer.query<{ pid: number }>('SELECT pg_backend_pid() AS pid')
  const isWaiting = async (): Promise<boolean> => {
    const committing = writer.query("SELECT pg_logical_emit_message(true, 'nobody hears it', '')")
    const waits = !(await endsWithin(committing, 500))
    // The commit is in the log, and is not waited for any more.
    if (waits) await admin.query('SELECT pg_cancel_backend($1)', [rows[0]?.pid])
    await committing
    return waits
  }
  await until(isWaiting, (waits) => waits)
  await writer.end()
}

it.each(['merge', 'append'] as const)('loses and doubles nothing of commits that wait for a standby across the copy of their table (%s)', { timeout: 600_000 }, async (writeMode) => {
  await using pipeline = new TestPipeline(server.url, specOf({ slotName: `absent_${writeMode}`, tableNames: ['first', 'later'], schemaName: writeMode, writeMode }))
  await pipeline.sql(`CREATE SCHEMA ${writeMode}; CREATE TABLE ${writeMode}.first (id int PRIMARY KEY, v int); CREATE TABLE ${writeMode}.later (id int PRIMARY KEY, v int);
    INSERT INTO ${writeMode}.first SELECT g, 0 FROM generate_series(1, 100) g; INSERT INTO ${writeMode}.later SELECT g, 0 FROM generate_series(1, 100) g`)
  await pipeline.initialize()
  const writers = Array.from({ length: 4 }, () => new pg.Client({ connectionString: server.url }))
  for (const writer of writers) await writer.connect()
  const waiting: Promise<unknown>[] = []
  try {
    await setStandby('nobody')
    waiting.push(...writers.slice(0, 2).map(async (writer, index) => writer.query(`BEGIN; UPDATE ${writeMode}.later SET v = v + 1 WHERE id % 2 = ${String(index)}; INSERT INTO ${writeMode}.first VALUES (${String(200 + index)}, 1); COMMIT`)))
    // Cause of a rare failure on a busy machine: the slice was done before they began.
    await until(async () => (await pipeline.sql("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'")).rowCount, (count) => count === 2)
    const activities: string[] = []
    const context: OperationContext = { ...pipeline.context(), report: ({ activity }) => activities.push(activity) }
    const slice = pipeline.engine.runSlice({ spec: pipeline.spec, mode: 'stream', tableNames: null, untilLsn: 'now', maxBusyMs: 120_000, maxIdleMs: 120_000 }, context)
    await until(async () => Promise.resolve(activities.some((activity) => /waits for transactions.*pids? \d+|waits.*\d+/.test(activity))), (isSaid) => isSaid)
    waiting.push(...writers.slice(2).map(async (writer, index) => writer.query(`BEGIN; DELETE FROM ${writeMode}.later WHERE id = ${String(50 + index)}; UPDATE ${writeMode}.first SET v = 2 WHERE id = ${String(10 + index)}; COMMIT`).catch(() => undefined)))
    await setStandby('')
    await Promise.all(waiting)
    expect((await slice).ended).toBe('done')
    await pipeline.catchUp()
    for (const table of ['first', 'later']) {
      const source = await pipeline.sourceRows(table, writeMode)
      if (writeMode === 'merge') expect(differences(await pipeline.destinationRows(table, writeMode), source), table).toEqual(NO_DIFFERENCES)
      await pipeline.release()
      if (writeMode === 'merge') continue
      const rows = await readFile(pipeline.file, async (query) => appendRows(query, table, writeMode))
      expect(doubledChanges(rows, ['id']), table).toEqual([])
      expect(differences(foldAppendRows(rows, ['id']), source), table).toEqual(NO_DIFFERENCES)
    }
  } finally {
    await setStandby('')
    await Promise.allSettled(waiting)
    for (const writer of writers) await writer.end()
    const { slotName, publicationName } = pipeline.spec
    await pipeline.engine.drop({ source: 'shop', destination: 'warehouse', slotName, publicationName, dropDestination: true }, pipeline.context())
  }
})
