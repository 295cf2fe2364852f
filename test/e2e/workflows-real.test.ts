import { existsSync } from 'node:fs'
import { randomBytes } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Client, Connection, ScheduleOverlapPolicy } from '@temporalio/client'
import { NativeConnection } from '@temporalio/worker'
import pg from 'pg'
import { pino } from 'pino'
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest'
import { composeActivities } from '../../src/composition.ts'
import { loadConfig, taskQueuesOf } from '../../src/config.ts'
import { parseLsn } from '../../src/model/lsn.ts'
import type { ReplicationStatus } from '../../src/model/status.ts'
import { createReplicationWorkers, type ReplicationWorkers } from '../../src/replication-worker.ts'
import {
  addTablesUpdate,
  approveSchemaChangeUpdate,
  dropReplication,
  initReplication,
  pauseUpdate,
  recoverUpdate,
  removeTablesUpdate,
  replicate,
  resumeUpdate,
  resyncTablesUpdate,
  snapshotTables,
  stopUpdate,
  syncByXmin,
  syncChanges,
} from '../../src/workflows/index.ts'
import { destinationRows, readFile } from '../support/comparison.ts'
import { createDatabase, type TestDatabase } from '../support/servers.ts'
import { quietRuntime, until, untilStatus, workflowBundle } from '../support/workflow-harness.ts'

const id = randomBytes(6).toString('hex')
const taskQueue = `real-${id}`

let database: TestDatabase
let source: pg.Client
let directory: string
let connection: Connection
let native: NativeConnection
let client: Client
let workers: ReplicationWorkers
let ended: Promise<void>

beforeAll(async () => {
  quietRuntime()
  database = await createDatabase(inject('postgresUrl'))
  source = new pg.Client({ connectionString: database.url })
  await source.connect()
  await source.query('CREATE TABLE orders (id int PRIMARY KEY, note text); INSERT INTO orders SELECT g, repeat(chr(97 + g % 26), g % 9) FROM generate_series(1, 2000) g')
  directory = await mkdtemp(join(tmpdir(), 'real-'))
  const config = loadConfig({
    env: {
      REPLICATION_CONFIG: join(directory, 'replication.toml'),
      REPLICATION_TASK_QUEUE: taskQueue,
      SOURCES__SHOP__CREDENTIALS: database.url,
      DESTINATIONS__WAREHOUSE__PATH: './warehouse.duckdb',
    },
  })
  const address = inject('temporalAddress')
  connection = await Connection.connect({ address })
  native = await NativeConnection.connect({ address })
  client = new Client({ connection })
  workers = await createReplicationWorkers({
    connection: native,
    namespace: 'default',
    taskQueues: taskQueuesOf(config),
    activitySet: composeActivities({ config: () => config, logger: pino({ level: 'silent' }) }),
    workflowBundle: await workflowBundle(),
  })
  ended = workers.run()
})
afterAll(async () => {
  workers.shutdown()
  await ended
  await native.close()
  await connection.close()
  await source.end()
  await database.drop()
  await rm(directory, { recursive: true, force: true })
})

const inputOf = (name: string) => ({ slotName: `${name}_${id}`, publicationName: `${name}_${id}`, tableNames: 'orders', datasetName: name })
const options = (name: string) => ({ taskQueue, workflowId: `${name}-${id}` })

/** Where the source's log ends now. */
/** Past everything that is committed now, written or not: commits of the test server are asynchronous. */
async function currentLsn(): Promise<bigint> {
  const { rows } = await source.query<{ lsn: string }>('SELECT pg_current_wal_insert_lsn()::text AS lsn')
  return parseLsn(rows[0]?.lsn ?? '')
}

/** Source and destination hold the same rows; waits until the worker has closed the file. */
async function expectEqual(schema: string, table = 'orders'): Promise<void> {
  const file = join(directory, 'warehouse.duckdb')
  // Locks are a process's, and the worker is in this one: read while it closes the file, that would be as it was before what is in the WAL.
  await until(async () => Promise.resolve(existsSync(`${file}.wal`)), (isOpen) => !isOpen)
  const rows = await until(
    async () => readFile(file, async (query) => destinationRows(query, table, schema)).catch(() => null),
    (found) => found !== null,
  )
  const { rows: expected } = await source.query<{ row: string }>(`SELECT id || ' | ' || coalesce(note, '∅') AS row FROM ${table}`)
  expect(rows).toEqual(expected.map(({ row }) => row).sort())
}

describe('with real PostgreSQL and DuckDB', () => {
  it('replicate says that its slot is lost, and recover copies what differs', async () => {
    await source.query("CREATE TABLE lost (id int PRIMARY KEY, note text); INSERT INTO lost SELECT g, 'first' FROM generate_series(1, 500) g")
    const input = { ...inputOf('lost'), tableNames: 'lost' }
    const handle = await client.workflow.start(replicate, { ...options('lost'), args: [input] })
    await untilStatus(handle, (status) => status.phase === 'streaming')
    await handle.executeUpdate(pauseUpdate, { args: [{}] })
    // The worker lets go of the slot a moment after the last commit.
    await until(
      async () => source.query('SELECT pg_drop_replication_slot($1)', [input.slotName]).catch(() => null),
      (dropped) => dropped !== null,
    )
    await source.query("UPDATE lost SET note = 'unseen' WHERE id <= 5; DELETE FROM lost WHERE id > 490; INSERT INTO lost VALUES (1000, 'unseen')")
    await handle.executeUpdate(resumeUpdate, { args: [{}] })
    const failed = await untilStatus(handle, (status) => status.phase === 'failed')
    expect(failed.lastError).toMatchObject({ type: 'SlotLost', remedy: expect.stringContaining('update recover') as string })
    const recovered = await handle.executeUpdate(recoverUpdate, { args: [{}] })
    expect(recovered.tables['public.lost']?.state).toBe('snapshotting')
    await source.query("INSERT INTO lost VALUES (1001, 'seen')")
    const done = await untilStatus(handle, (status) => status.tables['public.lost']?.state === 'streaming')
    expect(done.warnings).toContainEqual(expect.stringMatching(/public\.lost was compared with the source in the recovery: 49[12] rows, of which 16 were put right/))
    const until1001 = await currentLsn()
    await untilStatus(handle, (status) => parseLsn(status.appliedLsn ?? '0/0') >= until1001)
    await handle.executeUpdate(stopUpdate, { args: [{}] })
    await expectEqual('lost', 'lost')
  })

  it('replicate goes on exactly after pause, an activity paused in the UI, and a workflow reset', async () => {
    const handle = await client.workflow.start(replicate, { ...options('whole'), args: [inputOf('whole')] })
    await untilStatus(handle, (status) => status.phase === 'streaming')
    await source.query("INSERT INTO orders SELECT g, 'first' FROM generate_series(3000, 3499) g; DELETE FROM orders WHERE id <= 10")
    await handle.executeUpdate(pauseUpdate, { args: [{}] })
    await source.query("UPDATE orders SET note = 'while paused' WHERE id % 7 = 0")
    await handle.executeUpdate(resumeUpdate, { args: [{}] })

    const execution = { workflowId: handle.workflowId }
    await until(async () => (await handle.describe()).raw.pendingActivities?.length ?? 0, (count) => count === 1)
    await client.workflowService.pauseActivity({ namespace: 'default', execution, type: 'replicateSlice' })
    // Its session is let go of.
    await until(async () => (await source.query<{ active: boolean }>('SELECT active FROM pg_replication_slots WHERE slot_name = $1', [`whole_${id}`])).rows[0]?.active, (active) => active === false)
    await source.query("INSERT INTO orders SELECT g, 'second' FROM generate_series(4000, 4099) g")
    await client.workflowService.unpauseActivity({ namespace: 'default', execution, type: 'replicateSlice' })

    const { events } = await handle.fetchHistory()
    const firstTask = events?.find((event) => event.workflowTaskCompletedEventAttributes != null)
    await client.workflowService.resetWorkflowExecution({
      namespace: 'default',
      workflowExecution: execution,
      reason: 'a test',
      requestId: id,
      workflowTaskFinishEventId: firstTask?.eventId ?? null,
    })
    await source.query("INSERT INTO orders SELECT g, 'third' FROM generate_series(5000, 5099) g")
    const lsn = await currentLsn()
    const newest = client.workflow.getHandle<typeof replicate>(handle.workflowId)
    await untilStatus(newest, ({ appliedLsn }) => appliedLsn !== null && parseLsn(appliedLsn) >= lsn, 60_000)
    await newest.executeUpdate(stopUpdate, { args: [{}] })
    await expectEqual('whole')
  })

  it('tables are added, copied anew and removed beside a writer, two orders at once, and a start under another id with the same input keeps it so', async () => {
    await source.query('CREATE TABLE extra (id int PRIMARY KEY, note text); CREATE TABLE late (id int PRIMARY KEY, note text)')
    await source.query("INSERT INTO extra SELECT g, 'before' FROM generate_series(1, 500) g; INSERT INTO late SELECT g, 'before' FROM generate_series(1, 500) g")
    const handle = await client.workflow.start(replicate, { ...options('live'), args: [inputOf('live')] })
    await untilStatus(handle, (status) => status.phase === 'streaming')
    const writing = new AbortController()
    const writer = (async () => {
      for (let round = 1; !writing.signal.aborted; round++) {
        for (const table of ['orders', 'extra', 'late']) {
          await source.query(`INSERT INTO ${table} VALUES (${100_000 + round}, 'live'); UPDATE ${table} SET note = 'changed ${round}' WHERE id % 50 = ${round % 50}; DELETE FROM ${table} WHERE id = ${round}`)
        }
      }
    })()
    const [added] = await Promise.all([
      handle.executeUpdate(addTablesUpdate, { args: [{ tableNames: ['extra', 'late'] }] }),
      handle.executeUpdate(resyncTablesUpdate, { args: [{ tableNames: 'orders' }] }),
    ])
    expect(added.tables['public.extra']?.state).toBe('pending')
    const isStreaming = (...names: string[]) => ({ tables }: ReplicationStatus) => names.every((name) => tables[`public.${name}`]?.state === 'streaming')
    await untilStatus(handle, isStreaming('orders', 'extra', 'late'), 60_000)
    const removed = await handle.executeUpdate(removeTablesUpdate, { args: [{ tableNames: ['late'] }] })
    expect(removed.tables['public.late']?.state).toBe('removed')
    await handle.executeUpdate(stopUpdate, { args: [{}] })
    const again = await client.workflow.start(replicate, { ...options('live-again'), args: [inputOf('live')] })
    await untilStatus(again, (status) => status.phase === 'streaming' && isStreaming('orders', 'extra')(status))
    writing.abort()
    await writer
    const lsn = await currentLsn()
    await untilStatus(again, ({ appliedLsn }) => appliedLsn !== null && parseLsn(appliedLsn) >= lsn, 60_000)
    expect((await again.executeUpdate(stopUpdate, { args: [{}] })).tables['public.late']?.state).toBe('removed')
    await expectEqual('live')
    await expectEqual('live', 'extra')
    const { rows } = await source.query<{ tablename: string }>('SELECT tablename FROM pg_publication_tables WHERE pubname = $1 ORDER BY 1', [`live_${id}`])
    expect(rows.map(({ tablename }) => tablename)).toEqual(['extra', 'orders'])
  })

  it('a changed table waits until its change is approved, while the other goes on; a change that nobody waits for is refused', async () => {
    await source.query("CREATE TABLE asked (id int PRIMARY KEY, note text); INSERT INTO asked VALUES (1, 'one')")
    const input = { ...inputOf('asked'), tableNames: ['orders', 'asked'], schemaChanges: 'ask' } as const
    const handle = await client.workflow.start(replicate, { ...options('asked'), args: [input] })
    await untilStatus(handle, (status) => status.phase === 'streaming')
    await source.query("ALTER TABLE asked RENAME COLUMN note TO remark; INSERT INTO asked VALUES (2, 'two'); INSERT INTO orders VALUES (900000, 'beside it')")
    const waiting = await untilStatus(handle, ({ tables }) => tables['public.asked']?.state === 'failed', 60_000)
    expect(waiting.tables['public.asked']?.error?.message).toContain('ALTER TABLE "asked"."asked" RENAME COLUMN')
    const early = await handle.executeUpdate(approveSchemaChangeUpdate, { args: [{ table: 'orders' }] }).catch((error: unknown) => error)
    expect(early).toMatchObject({ cause: { type: 'InvalidInput', message: expect.stringContaining('no schema change that waits for approval') as string } })
    const approved = await handle.executeUpdate(approveSchemaChangeUpdate, { args: [{ table: 'public.asked' }] })
    expect(approved.tables['public.asked']).toMatchObject({ state: 'pending' })
    const lsn = await currentLsn()
    await untilStatus(handle, ({ tables, appliedLsn }) => tables['public.asked']?.state === 'streaming' && appliedLsn !== null && parseLsn(appliedLsn) >= lsn, 60_000)
    await handle.executeUpdate(stopUpdate, { args: [{}] })
    await source.query('ALTER TABLE asked RENAME COLUMN remark TO note')
    // One-shot: nobody is there to ask, the table's error is the run's; what has been approved before does not count for another change.
    const sync = await client.workflow.execute(syncChanges, { ...options('asked-sync'), args: [input] }).catch((error: unknown) => error)
    expect(sync).toMatchObject({ tables: { 'public.orders': expect.anything() as unknown } })
    await source.query("INSERT INTO asked VALUES (3, 'three')")
    const failed = await client.workflow.execute(syncChanges, { ...options('asked-failed'), args: [input] }).catch((error: unknown) => error)
    expect(failed).toMatchObject({ cause: { type: 'SchemaChangeRefused', message: expect.stringContaining('RENAME COLUMN') as string } })
    await client.workflow.execute(syncChanges, { ...options('asked-apply'), args: [{ ...input, schemaChanges: 'apply' }] })
    await expectEqual('asked')
    await expectEqual('asked', 'asked')
  })

  it('a paused replication keeps its changes beside the destination, which readers have, and lets the slot go on; resumed it applies them', async () => {
    const input = { ...inputOf('held'), walBudgetBytes: 1 }
    const handle = await client.workflow.start(replicate, { ...options('held'), args: [input] })
    await untilStatus(handle, (status) => status.phase === 'streaming')
    const paused = await handle.executeUpdate(pauseUpdate, { args: [{}] })
    expect(paused.phase).toBe('paused')
    await source.query("INSERT INTO orders SELECT g, 'held' FROM generate_series(600000, 600499) g; UPDATE orders SET note = 'held too' WHERE id % 11 = 0")
    const lsn = await currentLsn()
    await until(
      async () => (await source.query<{ lsn: string }>('SELECT confirmed_flush_lsn::text AS lsn FROM pg_replication_slots WHERE slot_name = $1', [`held_${id}`])).rows[0]?.lsn ?? '0/0',
      (confirmed) => parseLsn(confirmed) >= lsn,
      60_000,
    )
    const rows = await until(async () => readFile(join(directory, 'warehouse.duckdb'), async (query) => query("SELECT count(*) FROM held.orders WHERE note = 'held'")).catch(() => null), (found) => found !== null)
    expect(JSON.stringify(rows)).toContain('0')
    await source.query("INSERT INTO orders SELECT g, 'afterwards' FROM generate_series(700000, 700099) g")
    const last = await currentLsn()
    const held = await untilStatus(handle, ({ warnings }) => warnings.join().includes('are in the spool beside the destination'), 60_000)
    expect(held.phase).toBe('paused')
    await handle.executeUpdate(resumeUpdate, { args: [{}] })
    await untilStatus(handle, ({ appliedLsn }) => appliedLsn !== null && parseLsn(appliedLsn) >= last, 60_000)
    await handle.executeUpdate(stopUpdate, { args: [{}] })
    await expectEqual('held')
  })

  it('a plain schedule of syncChanges brings the destination up to date each time', async () => {
    const schedule = await client.schedule.create({
      scheduleId: `nightly-${id}`,
      spec: { intervals: [{ every: '1 day' }] },
      policies: { overlap: ScheduleOverlapPolicy.SKIP },
      action: { type: 'startWorkflow', workflowType: syncChanges, ...options('nightly'), args: [inputOf('nightly')] },
    })
    try {
      for (const round of [1, 2]) {
        await source.query(`INSERT INTO orders SELECT g, 'scheduled' FROM generate_series(${round}0000, ${round}0009) g`)
        await schedule.trigger(ScheduleOverlapPolicy.SKIP)
        const { recentActions, runningActions } = await until(
          async () => (await schedule.describe()).info,
          (info) => info.recentActions.length === round && info.runningActions.length === 0,
        )
        expect(runningActions).toEqual([])
        const action = recentActions.at(-1)?.action
        const result = await client.workflow.getHandle<typeof syncChanges>(action?.workflow.workflowId ?? '').result()
        // The first one copies.
        expect(result.tables['public.orders']?.inserts).toBe(round === 1 ? 0 : 10)
      }
    } finally {
      await schedule.delete()
    }
    await expectEqual('nightly')
  })

  it('syncByXmin brings the destination up to date without a slot, one run after the other, beside none other', async () => {
    const input = { tableNames: 'orders', datasetName: 'xmin', deletes: 'compare' } as const
    const { rows } = await source.query<{ count: number }>('SELECT count(*)::int AS count FROM orders')
    const first = await client.workflow.execute(syncByXmin, { ...options('xmin'), args: [input] })
    expect(first).toMatchObject({ tables: { 'public.orders': { rows: rows[0]?.count } }, warnings: [] })
    await source.query("UPDATE orders SET note = 'by xmin' WHERE id IN (SELECT id FROM orders ORDER BY id LIMIT 10); DELETE FROM orders WHERE id IN (SELECT id FROM orders ORDER BY id DESC LIMIT 5)")
    const second = await client.workflow.execute(syncByXmin, { ...options('xmin-again'), args: [input] })
    // A transaction of another test, open in between, makes the run read again what was written since it began.
    expect(second.tables['public.orders']?.rows).toBeGreaterThanOrEqual(10)
    expect(BigInt(second.tables['public.orders']?.watermark ?? 0)).toBeGreaterThanOrEqual(BigInt(first.tables['public.orders']?.watermark ?? 0))
    await expectEqual('xmin')
    const refused: unknown = await client.workflow.execute(syncByXmin.name, { ...options('xmin-refused'), args: [{ tableNames: 'ordres' }] }).catch((error: unknown) => error)
    expect(refused).toMatchObject({ cause: { type: 'InvalidInput', message: expect.stringContaining('Did you mean "public.orders"?') as string } })
  })

  it('the steps one by one: init, snapshot, sync, drop', async () => {
    const input = inputOf('steps')
    const early: unknown = await client.workflow.execute(snapshotTables, { ...options('early'), args: [input] }).catch((error: unknown) => error)
    expect(early).toMatchObject({ cause: { type: 'InvalidInput' } })

    const init = await client.workflow.execute(initReplication, { ...options('init'), args: [input] })
    expect(init).toMatchObject({ created: { slot: true, publication: true }, tables: { 'public.orders': { key: ['id'], replicaIdentity: 'default' } } })
    const again = await client.workflow.execute(initReplication, { ...options('init-again'), args: [input] })
    expect(again.created).toEqual({ slot: false, publication: false })

    const { rows } = await source.query<{ count: number }>('SELECT count(*)::int AS count FROM orders')
    const snapshot = await client.workflow.execute(snapshotTables, { ...options('snapshot'), args: [input] })
    expect(snapshot).toEqual({ tables: { 'public.orders': { rows: rows[0]?.count } } })

    await source.query("UPDATE orders SET note = 'synced' WHERE id IN (SELECT id FROM orders ORDER BY id LIMIT 10); DELETE FROM orders WHERE id IN (SELECT id FROM orders ORDER BY id DESC LIMIT 5)")
    const sync = await client.workflow.execute(syncChanges, { ...options('sync'), args: [input] })
    expect(sync.tables['public.orders']).toEqual({ inserts: 0, updates: 10, deletes: 5, truncates: 0 })
    expect(parseLsn(sync.toLsn)).toBeGreaterThan(parseLsn(sync.fromLsn))
    await expectEqual('steps')

    const { dropped } = await client.workflow.execute(dropReplication, { ...options('drop'), args: [{ ...input, confirm: input.slotName, dropDestination: true }] })
    expect(dropped.join(' ')).toContain(input.slotName)
    const left = await source.query('SELECT 1 FROM pg_replication_slots WHERE slot_name = $1', [input.slotName])
    expect(left.rowCount).toBe(0)
  })
})
