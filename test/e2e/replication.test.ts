import { DuckDBInstance } from '@duckdb/node-api'
import type { WorkflowHandle } from '@temporalio/client'
import type pg from 'pg'
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest'
import {
  dropReplication,
  initReplication,
  pauseUpdate,
  type replicate,
  resumeUpdate,
  retryFailedUpdate,
  snapshotTables,
  stopUpdate,
  verifyReplication,
  type VerifyReplicationResult,
} from '../../src/workflows/index.ts'
import { destinationRows, differences, NO_DIFFERENCES, readFile, sourceRows } from '../support/comparison.ts'
import { createDatabase, type TestDatabase } from '../support/servers.ts'
import { sourcePool } from '../support/source-pool.ts'
import { testServers } from '../support/test-servers.ts'
import { slotHolder, untilConfirmed, untilStreaming, WorkerHarness } from '../support/worker-harness.ts'
import { until, untilStatus } from '../support/workflow-harness.ts'

/** The contract's limits, from the moment that the client has its answer (or has asked, where there is none). */
const SLOT_LET_GO_MS = 10_000
const SLOT_LET_GO_AFTER_TERMINATE_MS = 30_000
const FILE_CLOSED_MS = 5_000

let verifications = 0

describe.each(testServers())('with the real worker and $name', ({ url }) => {
  /** What no version does in its own way. */
  const itOnMain: (name: string, test: () => Promise<void>) => void = url === inject('postgresUrl') ? it : () => undefined
  let database: TestDatabase
  let source: pg.Pool
  let harness: WorkerHarness

  beforeAll(async () => {
    database = await createDatabase(url)
    source = sourcePool({ connectionString: database.url, max: 4 })
    harness = await WorkerHarness.open({ temporalAddress: inject('temporalAddress'), sourceUrl: database.url })
    await harness.startWorker()
  })
  afterAll(async () => {
    await harness[Symbol.asyncDispose]()
    await source.end()
    await database.drop()
  })

  const inputOf = (schema: string) => ({ slotName: `${schema}_slot`, publicationName: `${schema}_publication`, schemaName: schema })
  const options = (name: string) => ({ taskQueue: harness.taskQueue, workflowId: `${name}-${harness.taskQueue}` })

  async function isFileFree(): Promise<boolean> {
    return readFile(harness.file, async () => Promise.resolve(true)).catch(() => false)
  }

  async function expectEqual(schema: string, tables: readonly string[]): Promise<void> {
    await until(isFileFree, (isFree) => isFree)
    const client = await source.connect()
    try {
      await readFile(harness.file, async (query) => {
        for (const table of tables) expect(differences(await destinationRows(query, table, schema), await sourceRows(client, table, schema)), table).toEqual(NO_DIFFERENCES)
      })
    } finally {
      client.release()
    }
  }

  it('init, snapshot, sync twice, replicate, drop: each step goes on where the one before ended', async () => {
    await source.query(`CREATE SCHEMA steps;
      CREATE TABLE steps.items (id int PRIMARY KEY, price numeric(10,2), big text);
      CREATE TABLE steps.tags (item int, tag text); ALTER TABLE steps.tags REPLICA IDENTITY FULL;
      INSERT INTO steps.items SELECT g, g / 7.0, repeat(md5(g::text), 100) FROM generate_series(1, 500) g; INSERT INTO steps.tags SELECT g % 50, 'tag' FROM generate_series(1, 200) g`)
    const input = { ...inputOf('steps'), tableNames: ['items', 'tags'] }
    await harness.client.workflow.execute(initReplication, { ...options('init'), args: [input] })
    await source.query("UPDATE steps.items SET price = -1 WHERE id <= 10; DELETE FROM steps.tags WHERE ctid IN (SELECT ctid FROM steps.tags WHERE item = 3 LIMIT 2)")
    const copied = await harness.client.workflow.execute(snapshotTables, { ...options('snapshot'), args: [input] })
    expect(copied.tables).toEqual({ 'steps.items': { rows: 500 }, 'steps.tags': { rows: 198 } })
    await source.query("UPDATE steps.items SET id = id + 1000 WHERE id <= 5; UPDATE steps.tags SET tag = 'changed' WHERE item = 4")
    const first = await harness.sync(input)
    expect(first.tables['steps.items']).toMatchObject({ updates: 5 })
    const second = await harness.sync(input)
    expect(second.transactions).toBe(0)
    await expectEqual('steps', ['items', 'tags'])

    const handle = await harness.startReplicate(input)
    await untilStreaming(source, input.slotName)
    await source.query('TRUNCATE steps.tags; DELETE FROM steps.items WHERE id % 3 = 0')
    await handle.executeUpdate(pauseUpdate, { args: [{}] })
    await source.query("INSERT INTO steps.tags VALUES (1, 'while paused'), (1, 'while paused')")
    await handle.executeUpdate(resumeUpdate, { args: [{}] })
    await untilStreaming(source, input.slotName)
    await untilConfirmed(source, input.slotName)
    await handle.executeUpdate(stopUpdate, { args: [{}] })
    await expectEqual('steps', ['items', 'tags'])

    const { dropped } = await harness.client.workflow.execute(dropReplication, { ...options('drop'), args: [{ ...input, confirm: input.slotName, dropDestination: true }] })
    expect(dropped.length).toBeGreaterThanOrEqual(4)
    const { rowCount } = await source.query('SELECT FROM pg_replication_slots WHERE slot_name = $1', [input.slotName])
    expect(rowCount).toBe(0)
  })

  itOnMain('lets go of slot and file in time, however it ends, and goes on exactly', async () => {
    await source.query("CREATE SCHEMA ends; CREATE TABLE ends.t (id int PRIMARY KEY, note text); INSERT INTO ends.t VALUES (0, 'there')")
    const input = { ...inputOf('ends'), tableNames: 't' }
    const endings: Readonly<Record<string, (handle: WorkflowHandle<typeof replicate>) => Promise<unknown>>> = {
      pause: (handle) => handle.executeUpdate(pauseUpdate, { args: [{}] }),
      stop: (handle) => handle.executeUpdate(stopUpdate, { args: [{}] }),
      cancel: async (handle) => handle.cancel().then(() => handle.result().catch(() => undefined)),
      terminate: (handle) => handle.terminate(),
    }
    let place = 0
    for (const [name, end] of Object.entries(endings)) {
      const handle = await harness.startReplicate(input, `ends-${name}-${harness.taskQueue}`)
      await untilStreaming(source, input.slotName)
      await source.query('INSERT INTO ends.t SELECT g, $1 FROM generate_series($2::int, $2::int + 99) g', [name, (place += 1_000)])
      await end(handle)
      const endedAt = Date.now()
      await until(() => slotHolder(source, input.slotName), (pid) => pid === null, name === 'terminate' ? SLOT_LET_GO_AFTER_TERMINATE_MS : SLOT_LET_GO_MS)
      const slotMs = Date.now() - endedAt
      await until(isFileFree, (isFree) => isFree, name === 'terminate' ? FILE_CLOSED_MS : Math.max(0, FILE_CLOSED_MS - slotMs))
      if (name === 'pause') await handle.executeUpdate(stopUpdate, { args: [{}] })
    }
    await harness.sync(input)
    await expectEqual('ends', ['t'])
  })

  itOnMain('verifies with nothing running and beside a running replicate, and repairs', async () => {
    await source.query("CREATE SCHEMA proof; CREATE TABLE proof.t (id int PRIMARY KEY, note text); INSERT INTO proof.t SELECT g, 'n' || g FROM generate_series(1, 1000) g")
    const input = { ...inputOf('proof'), tableNames: 't' }
    await harness.sync(input)
    await until(isFileFree, (isFree) => isFree, 15_000)
    const instance = await DuckDBInstance.create(harness.file)
    const connection = await instance.connect()
    await connection.run("UPDATE proof.t SET note = 'by hand' WHERE id = 7; DELETE FROM proof.t WHERE id = 8")
    connection.closeSync()
    instance.closeSync()
    await source.query("INSERT INTO proof.t VALUES (1001, 'not yet there')")
    const verify = async (more: object = {}): Promise<VerifyReplicationResult> =>
      harness.client.workflow.execute(verifyReplication, { taskQueue: harness.taskQueue, workflowId: `verify-${harness.taskQueue}-${String(verifications++)}`, args: [{ ...input, ...more }] })
    const alone = await verify()
    expect(alone).toMatchObject({ tables: { 'proof.t': { compared: 1001, different: 2, repaired: 0 } }, notCompared: {}, warnings: [] })
    expect(alone.differences['proof.t']).toEqual(expect.arrayContaining([{ kind: 'changed', key: ['7'] }, { kind: 'missing', key: ['8'] }]))

    const handle = await harness.startReplicate(input)
    await untilStreaming(source, input.slotName)
    const writers = new AbortController()
    const writing = (async () => {
      for (let value = 0; !writers.signal.aborted; value++) await source.query("UPDATE proof.t SET note = 'w' || $1 WHERE id % 100 = 50", [value])
    })()
    try {
      // Of the rows that are written all the time some may not be decided.
      expect((await verify({ repair: true })).tables).toMatchObject({ 'proof.t': { compared: 1001, different: 2, repaired: 2 } })
      expect((await verify({ maxRowsPerSecond: 2_000 })).tables).toMatchObject({ 'proof.t': { compared: 1001, different: 0, repaired: 0 } })
    } finally {
      writers.abort()
      await writing
    }
    await handle.executeUpdate(stopUpdate, { args: [{}] })
    await harness.sync(input)
    await expectEqual('proof', ['t'])
  })

  itOnMain('replicates a whole schema, with tables that come later', async () => {
    await source.query("CREATE SCHEMA whole; CREATE TABLE whole.first (id int PRIMARY KEY); INSERT INTO whole.first SELECT generate_series(1, 100); CREATE TABLE whole.empty (id int PRIMARY KEY)")
    const input = inputOf('whole')
    const handle = await harness.startReplicate(input)
    await untilStatus(handle, ({ phase }) => phase === 'streaming')
    await source.query("CREATE TABLE whole.later (id int PRIMARY KEY, note text); INSERT INTO whole.later SELECT g, 'later ' || g FROM generate_series(1, 300) g; UPDATE whole.later SET note = NULL WHERE id < 10")
    await source.query('INSERT INTO whole.first VALUES (1000)')
    await untilStatus(handle, ({ tables }) => tables['whole.later']?.state === 'streaming')
    await source.query('DELETE FROM whole.later WHERE id > 290')
    await untilConfirmed(source, input.slotName)
    await handle.executeUpdate(stopUpdate, { args: [{}] })
    await expectEqual('whole', ['first', 'empty', 'later'])
  })

  itOnMain('stops one table at a value that its hint cannot hold, and goes on with it once the data is mended', async () => {
    await source.query(`CREATE SCHEMA hints; CREATE TABLE hints.pinned (id int PRIMARY KEY, v numeric); CREATE TABLE hints.other (id int PRIMARY KEY);
      CREATE TABLE hints.log (id int PRIMARY KEY, v numeric); INSERT INTO hints.pinned VALUES (1, 1.25); INSERT INTO hints.log VALUES (1, 1.25)`)
    const hint = { v: { dataType: 'decimal', precision: 5, scale: 2 } }
    const input = { ...inputOf('hints'), tableNames: ['pinned', 'other', 'log'], columns: { pinned: hint, log: hint }, writeMode: { log: 'append' } as const }
    const handle = await harness.startReplicate(input)
    await untilStatus(handle, ({ phase }) => phase === 'streaming')
    await source.query('INSERT INTO hints.pinned VALUES (2, 98765.4321); INSERT INTO hints.other VALUES (1); INSERT INTO hints.log VALUES (2, 2); INSERT INTO hints.log VALUES (3, 98765.4321)')
    const stopped = await untilStatus(handle, ({ tables }) => ['pinned', 'log'].every((name) => tables[`hints.${name}`]?.state === 'failed'))
    expect(stopped.tables['hints.pinned']?.error).toMatchObject({ type: 'UnrepresentableValue', message: expect.stringContaining('"v"') as string })
    expect(JSON.stringify(stopped)).not.toContain('98765')
    expect(stopped.tables['hints.other']?.state).toBe('streaming')
    await source.query('INSERT INTO hints.other VALUES (2); INSERT INTO hints.pinned VALUES (3, 3); UPDATE hints.log SET v = 3 WHERE id = 3')
    await untilStatus(handle, ({ tables }) => tables['hints.other']?.inserts === 2)

    await source.query('UPDATE hints.pinned SET v = 9.5 WHERE id = 2')
    await handle.executeUpdate(retryFailedUpdate, { args: [{}] })
    const mended = await untilStatus(handle, ({ tables }) => tables['hints.pinned']?.state === 'streaming' && tables['hints.log']?.state === 'failed')
    // Not copied anew: one row was copied ever, and every change counts.
    expect(mended.tables['hints.pinned']).toMatchObject({ snapshotRows: 1, inserts: 2, updates: 1 })
    await source.query('INSERT INTO hints.pinned VALUES (4, 4.75)')
    await untilConfirmed(source, input.slotName)
    await handle.executeUpdate(stopUpdate, { args: [{}] })
    await expectEqual('hints', ['pinned', 'other'])

    // Of a history every version counts: it goes on under a hint that holds them all.
    const again = await harness.startReplicate({ ...input, columns: { pinned: hint } })
    const whole = await untilStatus(again, ({ tables }) => tables['hints.log']?.state === 'streaming')
    expect(whole.tables['hints.log']).toMatchObject({ snapshotRows: 1, inserts: 2, updates: 1 })
    await again.executeUpdate(stopUpdate, { args: [{}] })
    await until(isFileFree, (isFree) => isFree)
    await readFile(harness.file, async (query) => {
      expect(await query('SELECT id, v::DOUBLE, _op FROM hints.log ORDER BY _lsn, _seq')).toEqual([[1, 1.25, 'snapshot'], [2, 2, 'insert'], [3, 98765.4321, 'insert'], [3, 3, 'update']])
    })
  })
})
