import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import type { ReplicationStream } from '../../../src/model/source.ts'
import { openReplicationStream } from '../../../src/postgres/replication-stream.ts'
import type { Cell } from '../../unit/postgres/pgoutput/recording.ts'
import { Collector, failureOf, SourceDatabase, waitFor } from './stream-harness.ts'
import { testServers } from '../../support/test-servers.ts'

/** Over `logical_decoding_work_mem`, which is 64 kB here. */
const MANY = 1_000

describe.each(testServers())('transactions streamed in progress by $name', ({ url: serverUrl }) => {
  let source: SourceDatabase
  let folder: string
  const clients: pg.Client[] = []
  const streams: ReplicationStream[] = []

  beforeAll(async () => { source = await SourceDatabase.create(serverUrl) })
  afterEach(async () => {
    for (const stream of streams.splice(0)) await stream.close()
    for (const client of clients.splice(0)) await client.end()
    await source.client.query('TRUNCATE t')
    if (folder !== '') rmSync(folder, { recursive: true, force: true })
  })
  afterAll(async () => { await source.drop() })

  async function writer(): Promise<pg.Client> {
    const client = new pg.Client({ connectionString: source.url })
    await client.connect()
    clients.push(client)
    return client
  }

  async function stream(slot: Awaited<ReturnType<SourceDatabase['createSlot']>>, collector: Collector, settings = ''): Promise<ReplicationStream> {
    folder = mkdtempSync(join(tmpdir(), 'streamed-'))
    const credentials = { ...source.credentials, options: `-c logical_decoding_work_mem=64kB ${settings}` }
    const opened = await openReplicationStream(credentials, { ...source.optionsFor(slot, collector), stagingFolder: folder })
    streams.push(opened)
    return opened
  }

  const kept = (): number => readdirSync(folder).length
  const untilKept = async (count: number): Promise<true> => waitFor(`${count} transactions on disk`, () => kept() === count)
  const insert = (first: number, text: string): string => `INSERT INTO t SELECT n, '${text} ' || n FROM generate_series(${first}, ${first + MANY - 1}) n`
  const rowsOf = (first: number, text: string): Cell[][] => Array.from({ length: MANY }, (__, index) => [String(first + index), `${text} ${String(first + index)}`])

  it('are given whole at their commits, in the order of these, whatever came in between', async () => {
    const [one, two] = [await writer(), await writer()]
    const collector = new Collector()
    await stream(await source.createSlot(), collector)
    await one.query(`BEGIN; ${insert(0, 'one')}`)
    await untilKept(1)
    await two.query(`BEGIN; ${insert(10_000, 'two')}`)
    await untilKept(2)
    await source.client.query(`INSERT INTO t VALUES (-1, 'between')`)
    await collector.waitForRows(1)
    expect(collector.rows).toEqual([['-1', 'between']])
    await one.query(insert(20_000, 'one again'))
    await two.query(`${insert(30_000, 'two again')}; COMMIT`)
    await collector.waitForRows(1 + 2 * MANY)
    await one.query('COMMIT')
    await collector.waitForRows(1 + 4 * MANY)
    expect(collector.transactions.map(({ rows }) => rows)).toEqual([
      [['-1', 'between']],
      [...rowsOf(10_000, 'two'), ...rowsOf(30_000, 'two again')],
      [...rowsOf(0, 'one'), ...rowsOf(20_000, 'one again')],
    ])
    const [, second, third] = collector.transactions
    expect(second && third && second.commitLsn < second.endLsn && second.endLsn <= third.commitLsn).toBe(true)
    await untilKept(0)
  })

  it('are without what their savepoints rolled back, the first announcement of the relation with it', async () => {
    const one = await writer()
    const collector = new Collector()
    await stream(await source.createSlot(), collector)
    await one.query(`BEGIN; SAVEPOINT a; ${insert(0, 'gone')}; SAVEPOINT b; ${insert(10_000, 'gone, too')}; RELEASE b`)
    await untilKept(1)
    await one.query(`ROLLBACK TO a; ${insert(20_000, 'kept')}; SAVEPOINT c; ${insert(30_000, 'of c')}; SAVEPOINT d; UPDATE t SET v = 'gone at last'; ROLLBACK TO d; RELEASE c; ${insert(40_000, 'last')}; COMMIT`)
    await collector.waitForRows(3 * MANY)
    expect(collector.transactions.map(({ rows }) => rows)).toEqual([[...rowsOf(20_000, 'kept'), ...rowsOf(30_000, 'of c'), ...rowsOf(40_000, 'last')]])
    // After the commit the server takes the relation for announced.
    await source.client.query(`INSERT INTO t VALUES (-1, 'after')`)
    await collector.waitForRows(3 * MANY + 1)
    await untilKept(0)
  })

  it('leave nothing behind when they are rolled back, nor when the stream is closed', async () => {
    const [one, two] = [await writer(), await writer()]
    const collector = new Collector()
    const opened = await stream(await source.createSlot(), collector)
    await one.query(`BEGIN; ${insert(0, 'one')}`)
    await untilKept(1)
    await one.query('ROLLBACK')
    await untilKept(0)
    await two.query(`BEGIN; ${insert(0, 'two')}`)
    await untilKept(1)
    await opened.close()
    expect(kept()).toBe(0)
    await two.query('ROLLBACK')
    expect(collector.transactions).toEqual([])
  })

  it('come again as a whole after a disconnection, from a position confirmed since they began', async () => {
    const one = await writer()
    const slot = await source.createSlot()
    const first = new Collector()
    const opened = await stream(slot, first)
    await one.query(`BEGIN; ${insert(0, 'before')}`)
    await untilKept(1)
    await source.client.query(`INSERT INTO t VALUES (-1, 'confirmed')`)
    await first.waitForRows(1)
    const startLsn = first.transactions[0]?.endLsn ?? slot.startLsn
    opened.confirm(startLsn)
    await waitFor('the confirmed position', async () => (await source.slotState(slot.slotName)).confirmedFlushLsn === startLsn)
    const failing = failureOf(opened)
    await source.client.query('SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = $1', [slot.slotName])
    expect(await failing).toMatchObject({ kind: 'SourceUnavailable' })
    expect(kept()).toBe(0)
    rmSync(folder, { recursive: true })

    const second = new Collector()
    await stream({ ...slot, startLsn }, second)
    await one.query(insert(10_000, 'after'))
    await untilKept(1)
    await one.query('COMMIT')
    await second.waitForRows(2 * MANY)
    expect(second.transactions.map(({ rows }) => rows)).toEqual([[...rowsOf(0, 'before'), ...rowsOf(10_000, 'after')]])
  })

  it('stop where the handler pauses, between any two changes, stay alive, and go on in order', async () => {
    const one = await writer()
    const collector = new Collector()
    const slot = await source.createSlot()
    const opened = await stream(slot, collector, '-c wal_sender_timeout=5s')
    const insertOf = collector.handler.insert.bind(collector.handler)
    let pauses = 0
    collector.handler.insert = (oid, tuple) => {
      insertOf(oid, tuple)
      if (collector.callCount === 50 || collector.callCount === 700) {
        pauses++
        opened.pause()
      }
    }
    await one.query(`BEGIN; ${insert(0, 'one')}`)
    await untilKept(1)
    await one.query('COMMIT')
    await source.client.query(`INSERT INTO t VALUES (-1, 'behind')`)
    for (const pause of [1, 2]) {
      await waitFor('a pause', () => pauses === pause)
      const { callCount } = collector
      const from = performance.now()
      await waitFor('longer than the timeout', () => performance.now() - from > 6_000)
      expect(collector.callCount).toBe(callCount)
      opened.resume()
    }
    await collector.waitForRows(MANY + 1)
    // Before 15 a server sends empty transactions too, of autovacuum for example.
    expect(collector.transactions.map(({ rows }) => rows).filter(({ length }) => length > 0)).toEqual([rowsOf(0, 'one'), [['-1', 'behind']]])
    expect((await source.slotState(slot.slotName)).activePid).not.toBeNull()
  })

  it('can be given up in the middle, by closing while paused', async () => {
    const one = await writer()
    const collector = new Collector()
    const opened = await stream(await source.createSlot(), collector)
    let hasPaused = false
    collector.handler.insert = () => {
      hasPaused = true
      opened.pause()
    }
    await one.query(`BEGIN; ${insert(0, 'one')}; COMMIT`)
    await waitFor('the pause', () => hasPaused)
    await opened.close()
    await opened.ended
    expect(collector.transactions).toEqual([])
    expect(kept()).toBe(0)
  })

  it('fail loud when what was kept of them is gone', async () => {
    const one = await writer()
    const opened = await stream(await source.createSlot(), new Collector())
    const failing = failureOf(opened)
    await one.query(`BEGIN; ${insert(0, 'one')}`)
    await untilKept(1)
    for (const name of readdirSync(folder)) rmSync(join(folder, name))
    await one.query('COMMIT')
    expect(await failing).toMatchObject({ kind: 'DestinationFailed', isRetryable: true })
  })

  it('surface what the handler throws in the middle', async () => {
    const one = await writer()
    const collector = new Collector()
    const opened = await stream(await source.createSlot(), collector)
    const failing = failureOf(opened)
    collector.handler.insert = () => { throw new RangeError('of the handler') }
    await one.query(`BEGIN; ${insert(0, 'one')}; COMMIT`)
    expect(await failing).toBeInstanceOf(RangeError)
    await untilKept(0)
  })

  it('of any size and of any kind of message are given as protocol 1 gives them', async () => {
    const one = await writer()
    await source.client.query(`CREATE TABLE wide (id int PRIMARY KEY, big text, note text); ALTER TABLE wide ALTER big SET STORAGE EXTERNAL, REPLICA IDENTITY FULL; CREATE TABLE other (id int PRIMARY KEY); ALTER PUBLICATION p ADD TABLE wide, other`)
    const [streamed, plain] = [new Collector(), new Collector()]
    const [slot, twin] = [await source.createSlot(), await source.createSlot()]
    await stream(slot, streamed)
    await one.query(`BEGIN; INSERT INTO wide SELECT n, repeat(md5(n::text), 3000), 'n' FROM generate_series(1, 30) n; UPDATE wide SET note = 'touched' WHERE id % 2 = 0; UPDATE wide SET id = id + 100 WHERE id < 10; INSERT INTO wide VALUES (0, repeat('x', 3000000)); TRUNCATE other, t`)
    await untilKept(1)
    await one.query(`ALTER TABLE wide ADD COLUMN late int DEFAULT 5; ${insert(0, 'one')}; UPDATE wide SET late = id; DELETE FROM wide WHERE id > 100; INSERT INTO other SELECT generate_series(1, 2000); COMMIT`)
    await waitFor('the transaction', () => streamed.transactions.length === 1)
    streams.push(await openReplicationStream(source.credentials, source.optionsFor(twin, plain)))
    await waitFor('the transaction without streaming', () => plain.transactions.length === 1)
    expect(streamed.transactions).toEqual(plain.transactions)
    expect(streamed.rows.length).toBeGreaterThan(MANY)
  })
})
