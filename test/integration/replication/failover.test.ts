import { execFile } from 'node:child_process'
import { copyFileSync } from 'node:fs'
import { appendFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import pg from 'pg'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { startPostgres, type PostgresServer } from '../../../src/embedded/postgres-server.ts'
import { findServerUser, makeServerTemporaryDirectory } from '../../../src/embedded/process-user.ts'
import { appendRows, countsWrites, doubledChanges, falseVersions, foldAppendRows, NO_DIFFERENCES, readFile, repeatedChanges } from '../../support/comparison.ts'
import { differences, specOf, TestPipeline } from '../../support/pipeline.ts'
import { until } from '../../support/workflow-harness.ts'

const run = promisify(execFile)

/** A primary and its standby, PostgreSQL 18, which keeps the primary's failover slots. */
let folders: readonly string[]
let primary: PostgresServer
let standby: PostgresServer
let atPrimary: pg.Client
let atStandby: pg.Client

const SETTINGS = { hot_standby_feedback: true, fsync: false, full_page_writes: true } as const

beforeAll(async () => {
  const user = await findServerUser()
  const [first, second] = [await makeServerTemporaryDirectory(user), await makeServerTemporaryDirectory(user)]
  folders = [first, second]
  primary = await startPostgres({ major: 18, directory: first, settings: { ...SETTINGS, synchronized_standby_slots: 'standby_slot' } })
  atPrimary = new pg.Client({ connectionString: primary.url })
  atPrimary.on('error', () => undefined)
  await atPrimary.connect()
  await atPrimary.query("SELECT pg_create_physical_replication_slot('standby_slot', true)")
  await atPrimary.end()
  await primary.kill('SIGINT')
  await run('cp', ['-a', primary.dataDirectory ?? '', join(second, 'data')])
  await primary.restart()
  const conninfo = `host=${primary.host} port=${String(primary.port)} user=${primary.user} password=${primary.password} dbname=postgres`
  await appendFile(join(second, 'data', 'postgresql.auto.conf'), `\nprimary_conninfo = '${conninfo}'\nprimary_slot_name = 'standby_slot'\nsync_replication_slots = on\nhot_standby_feedback = on\n`)
  await run('cp', ['-a', join(second, 'data', 'PG_VERSION'), join(second, 'data', 'standby.signal')])
  standby = await startPostgres({ major: 18, directory: second, settings: SETTINGS })
  atPrimary = new pg.Client({ connectionString: primary.url })
  atPrimary.on('error', () => undefined)
  atStandby = new pg.Client({ connectionString: standby.url })
  await Promise.all([atPrimary.connect(), atStandby.connect()])
}, 180_000)

afterAll(async () => {
  await Promise.all([atPrimary.end().catch(() => undefined), atStandby.end()])
  await standby.stop()
  await primary.stop()
  for (const folder of folders) await rm(folder, { recursive: true, force: true })
})

async function untilReplayed(): Promise<void> {
  const { rows } = await atPrimary.query<{ lsn: string }>('SELECT pg_current_wal_insert_lsn()::text AS lsn')
  await until(async () => (await atStandby.query<{ done: boolean }>('SELECT pg_last_wal_replay_lsn() >= $1::pg_lsn AS done', [rows[0]?.lsn])).rows[0]?.done, (done) => done === true)
}

async function expectEqual(pipeline: TestPipeline, table: string): Promise<void> {
  expect(differences(await pipeline.destinationRows(table), await pipeline.sourceRows(table)), table).toEqual({ missing: [], extra: [] })
}

/** The new primary has the tables and the publication, on a timeline of its own, and no slot. */
async function expectRecoversWithoutSlot(before: TestPipeline): Promise<void> {
  expect((await atStandby.query("SELECT 1 FROM pg_replication_slots WHERE slot_name = 'bare'")).rowCount).toBe(0)
  await using after = new TestPipeline(standby.url, before.spec)
  copyFileSync(before.file, after.file)
  // Before the slot is looked for: another source would not have it either, and nothing could be compared with it.
  for (const attempt of [async () => after.initialize(), async () => after.catchUp()]) await expect(attempt()).rejects.toMatchObject({ kind: 'DifferentSource', remedy: expect.stringContaining('recover') as string })
  const { warnings } = await after.engine.recover({ spec: after.spec }, after.context())
  expect(warnings).toContainEqual(expect.stringContaining('the slot was lost and made anew: what was written at the source since the former source was left did not come'))
  for (const table of ['bare', 'bare_versions', 'bare_changes']) await atStandby.query(`UPDATE ${table} SET v = 'later' WHERE id < 20; INSERT INTO ${table} VALUES (5000, 'new'); DELETE FROM ${table} WHERE id = 301`)
  await after.catchUp()
  await expectEqual(after, 'bare')
  expect(differences(await after.destinationRows('bare_versions', 'public', '_is_current'), await after.sourceRows('bare_versions'))).toEqual(NO_DIFFERENCES)
  const source = await after.sourceRows('bare_changes')
  await after.release()
  await readFile(after.file, async (query) => {
    expect(await falseVersions(query, 'bare_versions', ['id'])).toEqual([])
    const changes = await appendRows(query, 'bare_changes')
    expect([doubledChanges(changes, ['id']), repeatedChanges(changes, ['id'])]).toEqual([[], []])
    expect(differences(foldAppendRows(changes, ['id']), source)).toEqual(NO_DIFFERENCES)
  })
}

it('copies and streams from a standby, whose publication the primary has made', { timeout: 240_000 }, async () => {
  await atPrimary.query("CREATE TABLE far (id int PRIMARY KEY, v text); INSERT INTO far SELECT g, 'copied' FROM generate_series(1, 1000) g; CREATE PUBLICATION far_pub FOR TABLE far")
  await untilReplayed()
  const spec = specOf({ slotName: 'far', publicationName: 'far_pub', tableNames: ['far'] })
  await using asking = new TestPipeline(standby.url, spec, { makesFailoverSlots: () => true })
  await expect(asking.initialize()).rejects.toMatchObject({ kind: 'SourceNotReady', message: expect.stringContaining('failover slots are made on the primary') as string, remedy: expect.stringContaining('failoverSlots') as string })
  expect((await atStandby.query("SELECT 1 FROM pg_replication_slots WHERE slot_name = 'far'")).rowCount).toBe(0)
  await using pipeline = new TestPipeline(standby.url, spec)
  // A slot there waits for what the primary says of running transactions: every 15 s by itself.
  const hastening = setInterval(() => void atPrimary.query('SELECT pg_log_standby_snapshot()'), 500)
  try {
    await pipeline.initialize()
    await atPrimary.query("INSERT INTO far VALUES (2000, 'streamed'); UPDATE far SET v = 'changed' WHERE id < 10; DELETE FROM far WHERE id = 500")
    await untilReplayed()
    await pipeline.catchUp()
    await expectEqual(pipeline, 'far')
    await atPrimary.query("UPDATE far SET v = 'again' WHERE id > 990")
    await untilReplayed()
    const { changes } = await pipeline.catchUp()
    expect(changes['public.far']).toMatchObject({ updates: 11 })
    await expectEqual(pipeline, 'far')
  } finally {
    clearInterval(hastening)
  }
  await pipeline.release()
  await atStandby.query("SELECT pg_drop_replication_slot('far')")
})

it('goes on with a promoted standby that has kept the slot, or has none: recover compares, and what was lost is put right', { timeout: 240_000 }, async () => {
  // An ordinary slot stays behind with the primary.
  const shaped = { tableNames: ['bare', 'bare_versions', 'bare_changes'], writeMode: { bare_versions: ['scd2'], bare_changes: ['append'] } } as const
  await using bare = new TestPipeline(primary.url, specOf({ slotName: 'bare', ...shaped }))
  for (const table of shaped.tableNames) await atPrimary.query(`CREATE TABLE ${table} (id int PRIMARY KEY, v text); INSERT INTO ${table} SELECT g, 'copied' FROM generate_series(1, 1000) g; ${countsWrites(table)}`)
  await bare.initialize()
  await bare.catchUp()
  await using before = new TestPipeline(primary.url, specOf({ slotName: 'kept', tableNames: ['kept'] }))
  await atPrimary.query("CREATE TABLE kept (id int PRIMARY KEY, v text); INSERT INTO kept SELECT g, 'copied' FROM generate_series(1, 1000) g")
  await atPrimary.query("SELECT pg_create_logical_replication_slot('kept', 'pgoutput', failover => true)")
  await before.initialize()
  // The standby takes a slot up once it has moved past what the standby has kept.
  const isKept = async (): Promise<boolean> => (await atStandby.query("SELECT 1 FROM pg_replication_slots WHERE slot_name = 'kept' AND synced AND NOT temporary")).rowCount === 1
  await until(
    async () => {
      await atPrimary.query("UPDATE kept SET v = 'moved' WHERE id = 1; SELECT pg_log_standby_snapshot()")
      await before.catchUp()
      return isKept()
    },
    (isThere) => isThere,
  )
  await before.release()
  for (const table of shaped.tableNames) await atPrimary.query(`UPDATE ${table} SET v = 'applied' WHERE id BETWEEN 100 AND 150`)
  await bare.catchUp()
  await bare.release()
  for (const table of shaped.tableNames) await atPrimary.query(`UPDATE ${table} SET v = 'unseen' WHERE id BETWEEN 140 AND 200; DELETE FROM ${table} WHERE id = 300`)
  await atPrimary.query("UPDATE kept SET v = 'changed' WHERE id < 50")
  await untilReplayed()
  await primary.kill('SIGQUIT')
  await atStandby.query('SELECT pg_promote(true)')
  await atStandby.query("DELETE FROM kept WHERE id > 980; INSERT INTO kept VALUES (5000, 'new')")
  // The host has moved: the same destination, other credentials.
  await using after = new TestPipeline(standby.url, before.spec)
  copyFileSync(before.file, after.file)
  await expect(after.initialize()).rejects.toMatchObject({ kind: 'DifferentSource', remedy: expect.stringContaining('recover') as string })
  await after.engine.recover({ spec: after.spec }, after.context())
  await atStandby.query("INSERT INTO kept VALUES (5001, 'later')")
  await after.catchUp()
  await expectEqual(after, 'kept')
  await expectRecoversWithoutSlot(bare)
  expect((await atStandby.query("SELECT failover FROM pg_replication_slots WHERE slot_name = 'kept'")).rows).toEqual([{ failover: true }])
})
