import pg from 'pg'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { startPostgres, type PostgresServer } from '../../../src/embedded/postgres-server.ts'
import { slotFindings, surveySlots } from '../../../src/postgres/slot-survey.ts'
import { specOf, TestPipeline } from '../../support/pipeline.ts'

/** A server of its own: little room for WAL. Version 18, for the timeout. */
const SETTINGS = { max_slot_wal_keep_size: '64MB', max_wal_size: '64MB', min_wal_size: '32MB', idle_replication_slot_timeout: '1h', fsync: false, full_page_writes: false } as const

let server: PostgresServer
let admin: pg.Client

beforeAll(async () => {
  server = await startPostgres({ major: 18, settings: SETTINGS })
  admin = new pg.Client({ connectionString: server.url })
  await admin.connect()
}, 120_000)

afterAll(async () => {
  await admin.end()
  await server.stop()
})

async function warned(): Promise<readonly string[]> {
  return slotFindings(await surveySlots(admin)).filter(({ state }) => state === 'warning').map(({ message }) => message)
}

it('sees a slot near its end, in doctor and in status, and one that was given up', { timeout: 120_000 }, async () => {
  await using pipeline = new TestPipeline(server.url, specOf({ slotName: 'surveyed', tableNames: ['t'], flushSlot: false }))
  await pipeline.sql('CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE filler (v text)')
  await pipeline.initialize()
  await pipeline.catchUp()
  const first = await surveySlots(admin)
  expect(first).toMatchObject({ maxSlotWalKeepBytes: 64 * 2 ** 20, idleTimeoutSeconds: 3_600 })
  expect(slotFindings(first)[0]?.message).toContain('a slot that nobody uses for 60 min is given up')
  expect(await warned()).toEqual([])
  const fill = async (): Promise<void> => {
    await pipeline.sql('INSERT INTO filler SELECT repeat(md5(random()::text), 30) FROM generate_series(1, 4000)')
  }
  for (let isNear = false; !isNear; ) {
    await fill()
    isNear = (await admin.query("SELECT 1 FROM pg_replication_slots WHERE slot_name = 'surveyed' AND safe_wal_size < 14000000")).rowCount === 1
  }
  const { slotWarnings } = await pipeline.catchUp()
  expect(slotWarnings?.join()).toContain('the server gives the slot up after')
  await pipeline.release()
  expect(await warned()).toEqual([expect.stringMatching(/^slot "surveyed" holds back \d+\.\d MiB of WAL, and nobody reads it, since [\d.]+ m?s: .* more and the server gives it up/) as string])
  for (let isLost = false; !isLost; ) {
    await fill()
    await admin.query('SELECT pg_switch_wal()')
    await admin.query('CHECKPOINT')
    isLost = (await admin.query("SELECT 1 FROM pg_replication_slots WHERE slot_name = 'surveyed' AND wal_status = 'lost'")).rowCount === 1
  }
  expect(await warned()).toEqual(['slot "surveyed" was given up by the server (wal_removed)'])
})
