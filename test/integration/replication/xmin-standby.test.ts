import { execFile } from 'node:child_process'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import pg from 'pg'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { findSystemPostgres } from '../../../src/embedded/postgres-binaries.ts'
import { startPostgres, type PostgresServer } from '../../../src/embedded/postgres-server.ts'
import { findServerUser, makeServerTemporaryDirectory } from '../../../src/embedded/process-user.ts'
import { differences, specOf, TestPipeline } from '../../support/pipeline.ts'
import { XminPipeline } from '../../support/xmin.ts'

const run = promisify(execFile)
const SETTINGS = { wal_level: 'replica', hot_standby_feedback: true, max_standby_streaming_delay: '30s' } as const

let primary: PostgresServer
let standby: PostgresServer
let folder: string
let source: pg.Client

beforeAll(async () => {
  const binaries = (await findSystemPostgres()).find(({ major }) => major === 15)
  if (binaries === undefined) throw new Error('needs PostgreSQL 15 of the system, whose pg_basebackup makes the standby')
  const { binDirectory } = binaries
  primary = await startPostgres({ binDirectory, settings: SETTINGS })
  source = new pg.Client({ connectionString: primary.url })
  await source.connect()
  const user = await findServerUser()
  folder = await makeServerTemporaryDirectory(user)
  const connection = `host=${primary.host} port=${String(primary.port)} user=${primary.user} password=${primary.password}`
  await run(join(binDirectory, 'pg_basebackup'), ['--pgdata', join(folder, 'data'), '--dbname', connection, '--write-recovery-conf', '--checkpoint=fast', '--no-sync'], { cwd: '/', ...user })
  standby = await startPostgres({ binDirectory, directory: folder, settings: { ...SETTINGS, fsync: false } })
}, 180_000)

afterAll(async () => {
  await source.end()
  await standby.stop()
  await primary.stop()
  await rm(folder, { recursive: true, force: true })
})

/** Waits until the standby shows everything that is committed. */
async function untilReplayed(pipeline: XminPipeline): Promise<void> {
  // Cause: the test servers commit without waiting for the disk, and a position that is written may be before a commit that is not.
  await source.query("BEGIN; SET LOCAL synchronous_commit = local; SELECT pg_logical_emit_message(true, '', ''); COMMIT")
  const { rows } = await source.query<{ lsn: string }>('SELECT pg_current_wal_flush_lsn()::text AS lsn')
  const deadlineMs = Date.now() + 60_000
  for (;;) {
    const replayed = await pipeline.sql('SELECT pg_last_wal_replay_lsn() >= $1::pg_lsn AS done', [rows[0]?.lsn])
    if ((replayed.rows as { done: boolean }[])[0]?.done === true) return
    if (Date.now() > deadlineMs) throw new Error('the standby does not catch up')
  }
}

it('reads from a standby without logical decoding, open transactions and their savepoints included', { timeout: 600_000 }, async () => {
  await source.query(`CREATE TABLE seen (id int PRIMARY KEY, v text); INSERT INTO seen SELECT i, 'v' FROM generate_series(1, 100) i`)
  await using pipeline = new XminPipeline(standby.url, { tableNames: ['seen'], deletes: 'compare' })
  await untilReplayed(pipeline)
  expect((await pipeline.sql('SELECT pg_is_in_recovery() AS standby, current_setting($1) AS level', ['wal_level'])).rows).toEqual([{ standby: true, level: 'replica' }])
  expect((await pipeline.sync()).tables['public.seen']?.rows).toBe(100)
  const open = new pg.Client({ connectionString: primary.url })
  await open.connect()
  try {
    await open.query(`BEGIN; INSERT INTO seen VALUES (1000, 'open'); SAVEPOINT s; INSERT INTO seen VALUES (1001, 'savepoint'); UPDATE seen SET v = 'w' WHERE id = 50`)
    await source.query(`UPDATE seen SET v = 'x' WHERE id <= 10; DELETE FROM seen WHERE id > 95`)
    await untilReplayed(pipeline)
    // A standby's snapshot does not list what is running: only its xmin tells.
    expect((await pipeline.sql('SELECT pg_current_snapshot()::text AS snapshot')).rows).toEqual([{ snapshot: expect.stringMatching(/^\d+:\d+:$/) as string }])
    await pipeline.sync()
    expect(await pipeline.destinationRows('seen')).toHaveLength(95)
    await open.query('COMMIT')
  } finally {
    await open.end()
  }
  await untilReplayed(pipeline)
  await pipeline.sync()
  expect(differences(await pipeline.destinationRows('seen'), await pipeline.sourceRows('seen'))).toEqual({ missing: [], extra: [] })
})

it('is what a replication by slot is told to be instead', async () => {
  await using pipeline = new TestPipeline(standby.url, specOf({ slotName: 'of_standby', tableNames: ['seen'] }))
  await expect(pipeline.initialize()).rejects.toMatchObject({ kind: 'SourceNotReady', message: expect.stringContaining('the server is a standby') as unknown, remedy: expect.stringContaining('syncByXmin') as unknown })
})
