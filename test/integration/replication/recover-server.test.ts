import { execFile } from 'node:child_process'
import { appendFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { startPostgres, type PostgresServer } from '../../../src/embedded/postgres-server.ts'
import { findServerUser, makeServerTemporaryDirectory } from '../../../src/embedded/process-user.ts'
import { differences, specOf, TestPipeline } from '../../support/pipeline.ts'

/** What needs a server of its own: little room for WAL, and one that is put back to an earlier state. */
const SETTINGS = { max_slot_wal_keep_size: '48MB', max_wal_size: '48MB', min_wal_size: '32MB', fsync: false, full_page_writes: false } as const

const run = promisify(execFile)

let folder: string
let server: PostgresServer

beforeAll(async () => {
  folder = await makeServerTemporaryDirectory(await findServerUser())
  server = await startPostgres({ directory: folder, settings: SETTINGS })
}, 120_000)

afterAll(async () => {
  await server.stop()
  await rm(folder, { recursive: true, force: true })
})

async function pipelineOf(slotName: string, ddl: string, tableNames: readonly string[] = [slotName]): Promise<TestPipeline> {
  const pipeline = new TestPipeline(server.url, specOf({ slotName, tableNames, writeMode: Object.fromEntries(tableNames.map((name) => [name, [name.endsWith('_past') ? 'scd2' : 'merge'] as const])) }))
  await pipeline.sql(ddl)
  await pipeline.initialize()
  await pipeline.catchUp()
  return pipeline
}

async function recover(pipeline: TestPipeline): Promise<readonly string[]> {
  return (await pipeline.engine.recover({ spec: pipeline.spec }, pipeline.context())).warnings
}

async function expectEqual(pipeline: TestPipeline, table: string, where = 'true'): Promise<void> {
  expect(differences(await pipeline.destinationRows(table, 'public', where), await pipeline.sourceRows(table)), table).toEqual({ missing: [], extra: [] })
}

it('recovers from a slot whose WAL the server has removed', { timeout: 120_000 }, async () => {
  await using pipeline = await pipelineOf('s_lost', 'CREATE TABLE s_lost (id int PRIMARY KEY, v text); INSERT INTO s_lost SELECT g, g FROM generate_series(1, 100) g; CREATE TABLE filler (v text)')
  await pipeline.release()
  await pipeline.sql("UPDATE s_lost SET v = 'unseen' WHERE id < 10; DELETE FROM s_lost WHERE id > 95")
  for (let isLost = false; !isLost; ) {
    await pipeline.sql('INSERT INTO filler SELECT repeat(md5(random()::text), 30) FROM generate_series(1, 50000)')
    await pipeline.sql('TRUNCATE filler')
    await pipeline.sql('SELECT pg_switch_wal()')
    await pipeline.sql('CHECKPOINT')
    isLost = (await pipeline.sql("SELECT 1 FROM pg_replication_slots WHERE slot_name = 's_lost' AND wal_status = 'lost'")).rowCount === 1
  }
  await expect(pipeline.initialize()).rejects.toMatchObject({ kind: 'SlotLost', message: expect.stringContaining('given up by the server (wal_removed)') as string })
  await expect(pipeline.catchUp()).rejects.toMatchObject({ kind: 'SlotLost' })
  await recover(pipeline)
  await pipeline.sql("INSERT INTO s_lost VALUES (99, 'seen')")
  await pipeline.catchUp()
  await expectEqual(pipeline, 's_lost')
})

it('notices a source that was put back to an earlier state, with the same timeline or another, and recovers from it', { timeout: 120_000 }, async () => {
  await using pipeline = await pipelineOf(
    's_back',
    'CREATE TABLE s_back (id int PRIMARY KEY, v int); INSERT INTO s_back SELECT g, g FROM generate_series(1, 50) g; CREATE TABLE s_past (LIKE s_back INCLUDING ALL); INSERT INTO s_past SELECT * FROM s_back',
    ['s_back', 's_past'],
  )
  await pipeline.release()
  const data = server.dataDirectory ?? ''
  const kept = join(folder, 'kept')
  await server.kill('SIGINT')
  await run('cp', ['-a', data, kept])
  await server.restart()
  await pipeline.sql('UPDATE s_back SET v = -v; DELETE FROM s_back WHERE id < 5; UPDATE s_past SET v = 0 WHERE id = 1')
  await pipeline.catchUp()
  await pipeline.release()
  const putBack = async (): Promise<void> => {
    await server.kill('SIGINT')
    await rm(data, { recursive: true })
    await run('cp', ['-a', kept, data])
  }
  await putBack()
  await server.restart()
  await expect(pipeline.catchUp()).rejects.toMatchObject({ kind: 'SlotLost', message: expect.stringContaining('put back to an earlier state') as string })
  await expect(recover(pipeline)).rejects.toMatchObject({ kind: 'InvalidInput', message: expect.stringContaining('public.s_past hold the past up to') as string })
  await pipeline.order({ tag: 'remove', tableNames: ['s_past'], dropDestination: false })
  await recover(pipeline)
  await pipeline.sql('UPDATE s_back SET v = 7 WHERE id IN (1, 2)')
  await pipeline.catchUp()
  await expectEqual(pipeline, 's_back')
  await pipeline.release()

  await putBack()
  // As a standby that is promoted, or a recovery to a point in time.
  await appendFile(join(data, 'postgresql.auto.conf'), "\nrestore_command = 'false'\n")
  // The server's own by owner and mode.
  await run('cp', ['-a', join(data, 'PG_VERSION'), join(data, 'recovery.signal')])
  await server.restart()
  await expect(pipeline.initialize()).rejects.toMatchObject({ kind: 'DifferentSource', remedy: expect.stringContaining('recover') as string })
  const warnings = await recover(pipeline)
  expect(warnings).toContainEqual(expect.stringContaining('since the former source was left'))
  await pipeline.sql('UPDATE s_back SET v = 8 WHERE id IN (1, 2)')
  await pipeline.catchUp()
  await expectEqual(pipeline, 's_back')
})
