import pg from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { parseLsn } from '../../../src/model/lsn.ts'
import type { KeyRange, TransactionsWait } from '../../../src/model/source.ts'
import type { TableSchema } from '../../../src/model/table-schema.ts'
import { readTables } from '../../../src/postgres/catalog.ts'
import { locateKeys, readRows } from '../../../src/postgres/key-lookup.ts'
import { describePublishedTables } from '../../../src/postgres/publication.ts'
import { readFullSnapshot, REPORT_WAITING_MS, waitForTransactions } from '../../../src/postgres/running-transactions.ts'
import { readHealth, readIdentity } from '../../../src/postgres/server.ts'
import { connect, endQuietly } from '../../../src/postgres/session.ts'
import { deferred, openSourceFixture, type SourceFixture } from './source-fixture.ts'
import { testServers } from '../../support/test-servers.ts'

describe.each(testServers())('catalog of the source, $name', ({ url }) => {
  let source: SourceFixture
  let client: pg.Client
  beforeAll(async () => {
    source = await openSourceFixture(url)
    client = await connect(source.credentials)
  })
  afterAll(async () => {
    await endQuietly(client)
    await source.close()
  })

  async function readTable(name: string): Promise<Awaited<ReturnType<typeof readTables>>[number]> {
    const { rows } = await source.admin.query<{ oid: number }>('SELECT $1::regclass::oid AS oid', [name])
    const [table] = await readTables(client, [rows[0]?.oid ?? 0], null)
    if (table === undefined) throw new Error(`no table ${name}`)
    return table
  }

  it('follows domains, arrays and enums to what the type mapping looks at', async () => {
    await source.admin.query(`
      CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE DOMAIN price AS numeric(10, 2); CREATE DOMAIN prices AS price[]; CREATE TYPE pair AS (a int, b int);
      CREATE TABLE shapes (gone int, n numeric(8, 3), p price, ps prices, m mood[], b box[], ints int[], pt point, v int2vector, c pair, r int4range, s varchar(5)[], x xml NOT NULL);
      ALTER TABLE shapes DROP COLUMN gone`)
    const table = await readTable('shapes')
    const base = (name: string, typeModifier = -1): unknown => expect.objectContaining({ tag: 'base', name, typeModifier })
    const array = (element: unknown, delimiter = ','): unknown => expect.objectContaining({ tag: 'array', element, delimiter })
    expect(Object.fromEntries(table.columns.map((column) => [column.name, column.shape]))).toEqual({
      n: base('numeric', ((8 << 16) | 3) + 4),
      p: base('numeric', ((10 << 16) | 2) + 4),
      ps: array(base('numeric', ((10 << 16) | 2) + 4)),
      m: array(expect.objectContaining({ tag: 'enum' })),
      b: array(base('box'), ';'),
      ints: array(base('int4')),
      pt: base('point'),
      v: base('int2vector'),
      c: expect.objectContaining({ tag: 'other' }) as unknown,
      r: expect.objectContaining({ tag: 'other' }) as unknown,
      s: array(base('varchar', 9)),
      x: base('xml'),
    })
    expect(table.columns.map((column) => column.attributeNumber)[0]).toBe(2)
    expect(table.columns.find((column) => column.name === 'x')?.isNotNull).toBe(true)
    expect(table.columns.find((column) => column.name === 'p')?.typeName).toBe('public.price')
  })

  it('gives the key that the replica identity leaves', async () => {
    await source.admin.query(`
      CREATE TABLE k_default (b int, a int, PRIMARY KEY (a, b)); CREATE TABLE k_none (a int); CREATE TABLE k_deferrable (a int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED);
      CREATE TABLE k_index (a int PRIMARY KEY, b int NOT NULL, c text NOT NULL); CREATE UNIQUE INDEX k_index_b ON k_index (b) INCLUDE (c); ALTER TABLE k_index REPLICA IDENTITY USING INDEX k_index_b;
      CREATE TABLE k_full (a int); ALTER TABLE k_full REPLICA IDENTITY FULL; CREATE TABLE k_full_pk (a int PRIMARY KEY, b int); ALTER TABLE k_full_pk REPLICA IDENTITY FULL;
      CREATE TABLE k_nothing (a int PRIMARY KEY); ALTER TABLE k_nothing REPLICA IDENTITY NOTHING`)
    const keys: Record<string, unknown> = {}
    for (const name of ['default', 'none', 'deferrable', 'index', 'full', 'full_pk', 'nothing']) {
      const { key, replicaIdentity, hasIdentity } = await readTable(`k_${name}`)
      keys[name] = [replicaIdentity, key, hasIdentity]
    }
    expect(keys).toEqual({
      default: ['default', ['a', 'b'], true],
      none: ['default', [], false],
      deferrable: ['default', [], false],
      index: ['index', ['b'], true],
      full: ['full', [], true],
      full_pk: ['full', ['a'], true],
      nothing: ['nothing', ['a'], false],
    })
  })

  it("describes published tables with the publication's columns, also after the table was renamed", async () => {
    await source.admin.query(
      'CREATE TABLE listed (id int PRIMARY KEY, a text, b text); CREATE TABLE unlisted (id int PRIMARY KEY); CREATE PUBLICATION listing FOR TABLE listed '.concat(
        source.serverVersion >= 150_000 ? '(id, b)' : '',
      ),
    )
    const oids = [(await readTable('listed')).oid, (await readTable('unlisted')).oid]
    await source.admin.query('ALTER TABLE listed RENAME TO relisted')
    const tables = await describePublishedTables(client, 'listing', { oids, serverVersion: source.serverVersion })
    expect(tables.map((table) => [table.name, table.columns.map((column) => column.name), table.key])).toEqual([
      ['relisted', source.serverVersion >= 150_000 ? ['id', 'b'] : ['id', 'a', 'b'], ['id']],
    ])
    expect(JSON.parse(JSON.stringify(tables))).toEqual(tables)
    expect(await describePublishedTables(client, 'no such publication', { oids, serverVersion: source.serverVersion })).toEqual([])
  })

  it("finds the range of a key by the order of the source's types and collations", async () => {
    await source.admin.query(`CREATE TABLE ranged (n numeric, t text COLLATE "C", PRIMARY KEY (n, t))`)
    const table = await readTable('ranged')
    const bounds = [
      ['9', 'b'],
      ['10', 'Z'],
      ['10', 'a'],
    ]
    const ranges: KeyRange[] = [...bounds, null].map((upper, index) => ({ lower: bounds[index - 1] ?? null, upper }))
    const keys = [
      ['-1', 'zz'],
      ['9', 'b'],
      ['9.0', 'c'],
      ['10', 'Z'],
      ['10', '_'],
      ['10', 'a'],
      ['10', 'b'],
      ['NaN', ''],
    ]
    expect(await locateKeys(client, table, { ranges, keys })).toEqual([0, 0, 1, 1, 2, 2, 3, 3])
    expect(await locateKeys(client, table, { ranges: [{ lower: null, upper: null }], keys })).toEqual(keys.map(() => 0))
    expect(await locateKeys(client, table, { ranges, keys: [] })).toEqual([])
  })

  it('orders a type of an extension by its own operators, although the search path does not name them', async () => {
    await source.admin.query(
      `CREATE SCHEMA ext; CREATE EXTENSION citext SCHEMA ext; CREATE TABLE folded (name ext.citext, n int, PRIMARY KEY (name, n)); INSERT INTO folded VALUES ('Ab', 1)`,
    )
    const table = await readTable('folded')
    const ranges: KeyRange[] = [
      { lower: null, upper: ['b', '1'] },
      { lower: ['b', '1'], upper: null },
    ]
    expect(
      await locateKeys(client, table, {
        ranges,
        keys: [
          ['A', '9'],
          ['B', '1'],
          ['B', '2'],
          ['c', '0'],
          ['C', '0'],
        ],
      }),
    ).toEqual([0, 0, 1, 1, 1])
    expect(await readRows(client, table, { keys: [['aB', '1']], columns: ['name'] })).toEqual([['Ab']])
  })

  it("agrees with the source's own comparison on random keys", async () => {
    await source.admin.query(
      `CREATE TABLE sorted (name varchar(20) PRIMARY KEY); INSERT INTO sorted SELECT DISTINCT left(md5(i::text), 3) FROM generate_series(1, 2000) i`,
    )
    const table = await readTable('sorted')
    const { rows } = await source.admin.query<{ name: string; place: number }>(
      `SELECT name, ntile(7) OVER (ORDER BY name)::int - 1 AS place FROM sorted ORDER BY name`,
    )
    const uppers = [0, 1, 2, 3, 4, 5].map((place) => [rows.findLast((row) => row.place === place)?.name ?? ''])
    const ranges: KeyRange[] = [...uppers, null].map((upper, index) => ({ lower: uppers[index - 1] ?? null, upper }))
    expect(await locateKeys(client, table, { ranges, keys: rows.map((row) => [row.name]) })).toEqual(rows.map((row) => row.place))
  })

  it('reads rows by key as the type output functions write them', async () => {
    await source.admin.query(`
      CREATE TABLE looked_up (id char(3), at timestamptz, flag bool, addr inet, f float8, raw bytea, PRIMARY KEY (id, at));
      CREATE TABLE looked_up_child () INHERITS (looked_up);
      INSERT INTO looked_up VALUES ('a', '2024-01-01 00:00:00+02', true, '10.0.0.1', 0.1, '\\x00ff'), ('b', 'infinity', NULL, NULL, 'NaN', NULL);
      INSERT INTO looked_up_child VALUES ('c', '2024-01-01 00:00:00+00', NULL, NULL, NULL, NULL)`)
    const table = await readTable('looked_up')
    const keys = [
      ['b  ', 'infinity'],
      ['x  ', 'infinity'],
      ['a  ', '2023-12-31 22:00:00+00'],
      ['c  ', '2024-01-01 00:00:00+00'],
    ]
    expect(await readRows(client, table, { keys, columns: ['id', 'at', 'flag', 'addr', 'f', 'raw'] })).toEqual([
      ['b  ', 'infinity', null, null, 'NaN', null],
      ['a  ', '2023-12-31 22:00:00+00', 't', '10.0.0.1', '0.1', '\\x00ff'],
    ])
    expect(await readRows(client, table, { keys: [], columns: ['id'] })).toEqual([])
    const bare: TableSchema = { ...table, key: [] }
    await expect(readRows(client, bare, { keys, columns: ['id'] })).rejects.toMatchObject({ kind: 'TableNotReplicable' })
  })

  it('reads rows of a partitioned table', async () => {
    await source.admin.query(
      `CREATE TABLE split (id int PRIMARY KEY, v text) PARTITION BY RANGE (id); CREATE TABLE split_1 PARTITION OF split FOR VALUES FROM (1) TO (9); INSERT INTO split VALUES (1, 'one')`,
    )
    expect(await readRows(client, await readTable('split'), { keys: [['1']], columns: ['v'] })).toEqual([['one']])
  })

  it('reads rows, and locates keys, of a table whose columns have other names than it is known with', async () => {
    await source.admin.query("CREATE TABLE called (id int PRIMARY KEY, v text, w text, x text); INSERT INTO called VALUES (1, 'v', 'w', 'x')")
    const table = await readTable('called')
    await source.admin.query('ALTER TABLE called RENAME id TO k; ALTER TABLE called RENAME v TO id; ALTER TABLE called RENAME w TO v; ALTER TABLE called DROP x; ALTER TABLE called ADD x text DEFAULT $$another$$')
    expect(await readRows(client, table, { keys: [['1'], ['2']], columns: ['id', 'v', 'w', 'x'] })).toEqual([['1', 'v', 'w', null]])
    expect(await locateKeys(client, table, { ranges: [{ lower: null, upper: ['1'] }, { lower: ['1'], upper: null }], keys: [['1'], ['2']] })).toEqual([0, 1])
    await source.admin.query('ALTER TABLE called DROP k')
    expect(await readRows(client, table, { keys: [['1']], columns: ['v'] })).toEqual([])
  })

  it('keeps row values out of errors', async () => {
    await source.admin.query('CREATE TABLE typed (id int PRIMARY KEY)')
    const error: unknown = await readRows(client, await readTable('typed'), { keys: [['planted-secret']], columns: ['id'] }).catch(
      (reason: unknown) => reason,
    )
    expect(error).toMatchObject({ kind: 'ProtocolViolation', message: 'table "public.typed": the server answered SQLSTATE 22P02' })
    expect(JSON.stringify(error, Object.getOwnPropertyNames(error)) + String((error as Error).cause)).not.toContain('planted')
  })

  it("identifies cluster and database, and shows the slot's health", async () => {
    const identity = await readIdentity(client)
    expect(identity).toEqual({
      systemIdentifier: expect.stringMatching(/^\d{19}$/) as string,
      timeline: 1,
      databaseName: source.databaseName,
      serverVersion: source.serverVersion,
    })
    expect((await readHealth(client, 'no_such_slot')).slot).toBeNull()
    const name = `${source.databaseName}_health`
    const { rows } = await source.admin.query<{ lsn: string }>(`SELECT lsn::text FROM pg_create_logical_replication_slot($1, 'pgoutput')`, [
      name,
    ])
    const health = await readHealth(client, name)
    expect(health.slot).toMatchObject({
      isActive: false,
      activePid: null,
      plugin: 'pgoutput',
      database: source.databaseName,
      walStatus: 'reserved',
      confirmedFlushLsn: parseLsn(rows[0]?.lsn ?? ''),
    })
    expect(health.slot?.retainedWalBytes).toBeGreaterThanOrEqual(0)
    expect(health.currentLsn).toBeGreaterThanOrEqual(parseLsn(rows[0]?.lsn ?? ''))
  })

  describe('waiting for running transactions', () => {
    const quiet: TransactionsWait = { onWaiting: () => undefined, onSnapshot: () => undefined, hasWaited: false, signal: new AbortController().signal }
    const openWriter = async (fixture: SourceFixture): Promise<{ readonly writer: pg.Client; readonly pid: number }> => {
      const writer = new pg.Client({
        host: fixture.credentials.host,
        port: fixture.credentials.port,
        database: fixture.databaseName,
        user: fixture.credentials.username,
        password: fixture.credentials.password ?? '',
      })
      await writer.connect()
      const { rows } = await writer.query<{ pid: number }>('SELECT pg_backend_pid() AS pid')
      return { writer, pid: rows[0]?.pid ?? 0 }
    }

    it('waits for writers of this database by name, not for readers, later writers or other databases', async () => {
      const other = await openSourceFixture(url)
      const [here, later, reader, elsewhere] = await Promise.all([
        openWriter(source),
        openWriter(source),
        openWriter(source),
        openWriter(other),
      ])
      await reader.writer.query('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM pg_class')
      await elsewhere.writer.query('BEGIN; SELECT pg_current_xact_id()')
      await here.writer.query('BEGIN; SELECT pg_current_xact_id()')
      const reported = deferred<readonly number[]>()
      let isDone = false
      const { running } = await readFullSnapshot(client)
      const waiting = waitForTransactions(client, running, {
        ...quiet,
        onWaiting: (pids) => {
          reported.resolve(pids)
        },
      }).then(() => {
        isDone = true
      })
      expect(await reported.promise).toEqual([here.pid])
      await later.writer.query('BEGIN; SELECT pg_current_xact_id()')
      expect(isDone).toBe(false)
      await here.writer.query('COMMIT')
      await waiting
      for (const { writer } of [here, later, reader, elsewhere]) await writer.end()
      await other.close()
    })

    it('names prepared transactions, and gives up when aborted', async () => {
      const gid = `gid-${source.databaseName}`
      await source.admin.query(`BEGIN; SELECT pg_current_xact_id(); PREPARE TRANSACTION '${gid}'`)
      const reported = deferred<readonly string[]>()
      const aborting = new AbortController()
      const { running } = await readFullSnapshot(client)
      const waiting = waitForTransactions(client, running, {
        ...quiet,
        onWaiting: (_pids, prepared) => {
          reported.resolve(prepared)
        },
        signal: aborting.signal,
      })
      const rejected = expect(waiting).rejects.toThrow()
      expect(await reported.promise).toEqual([gid])
      aborting.abort()
      await rejected
      const since = performance.now()
      const again = new AbortController()
      const named = new Promise<readonly string[]>((resolve) => {
        const onWaiting: TransactionsWait['onWaiting'] = (_pids, prepared) => { resolve(prepared) }
        waitForTransactions(client, running, { ...quiet, onWaiting, hasWaited: true, signal: again.signal }).catch(() => undefined)
      })
      expect(await named).toEqual([gid])
      // Whoever has waited before has told of nobody for long enough.
      expect(performance.now() - since).toBeLessThan(REPORT_WAITING_MS)
      again.abort()
      await source.admin.query(`ROLLBACK PREPARED '${gid}'`)
      await waitForTransactions(client, running, quiet)
      await waitForTransactions(client, (await readFullSnapshot(client)).running, quiet)
    })
  })
})
