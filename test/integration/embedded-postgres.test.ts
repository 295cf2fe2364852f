import { randomBytes } from 'node:crypto'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { access, chown, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer, type AddressInfo, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { afterEach, beforeEach, describe, expect, inject, it } from 'vitest'
import { readPostmasterLock } from '../../src/embedded/postgres-lock.ts'
import { startPostgres } from '../../src/embedded/postgres-server.ts'
import { findServerUser } from '../../src/embedded/process-user.ts'
import { createDatabase } from '../support/servers.ts'
import { endHolder, expectNoRemains, startHolder } from '../support/server-holder.ts'

async function query(url: string, sql: string): Promise<readonly Record<string, unknown>[]> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    return (await client.query<Record<string, unknown>>(sql)).rows
  } finally {
    await client.end()
  }
}

let folder = ''
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'embedded-test-'))
})
afterEach(async () => {
  await rm(folder, { recursive: true, force: true })
})

describe('startPostgres', () => {
  it('gives a server for logical replication that only listens on loopback', async () => {
    await using server = await startPostgres()
    const rows = await query(
      server.url,
      `SELECT current_setting('wal_level') AS wal_level, current_setting('listen_addresses') AS listen,
              current_setting('unix_socket_directories') AS sockets, current_setting('server_version_num')::int / 10000 AS major`,
    )
    expect(rows).toEqual([{ wal_level: 'logical', listen: '127.0.0.1', sockets: '', major: 18 }])
    await query(server.url, `SELECT pg_create_logical_replication_slot('probe', 'pgoutput')`)
  })

  it('runs as another user when this process is root', async () => {
    await using server = await startPostgres()
    const user = await findServerUser()
    expect(user === undefined).toBe(process.getuid?.() !== 0)
    const [row] = await query(server.url, `SELECT (pg_stat_file('PG_VERSION')).size > 0 AS readable`)
    expect(row).toEqual({ readable: true })
    if (user !== undefined && process.platform === 'linux') {
      const status = await readFile(`/proc/${server.pid ?? 0}/status`, 'utf8')
      expect(status).toContain(`Uid:\t${user.uid}\t`)
    }
  })

  it('keeps its data in a given folder, its password and its port over restarts', async () => {
    const first = await startPostgres({ directory: folder })
    await query(first.url, 'CREATE TABLE kept AS SELECT 7 AS value')
    await first.stop()
    await using second = await startPostgres({ directory: folder })
    expect(second.url).toBe(first.url)
    expect(await query(second.url, 'SELECT value FROM kept')).toEqual([{ value: 7 }])
  })

  it('takes another port when that of the last start is in use', async () => {
    const first = await startPostgres({ directory: folder })
    await first.stop()
    const squatter = createServer().listen(first.port, '127.0.0.1')
    try {
      await using second = await startPostgres({ directory: folder })
      expect(second.port).not.toBe((squatter.address() as AddressInfo).port)
    } finally {
      squatter.close()
    }
  })

  it('removes temporary data when it stops', async () => {
    const server = await startPostgres()
    const { dataDirectory } = server
    await server.stop()
    await expect(access(dataDirectory ?? '')).rejects.toThrow()
    expect(server.pid).toBeUndefined()
  })

  it('recovers after a crash of the server', async () => {
    await using server = await startPostgres({ settings: { fsync: true, synchronous_commit: 'on' } })
    await query(server.url, 'CREATE TABLE kept AS SELECT 7 AS value')
    await server.kill('SIGKILL')
    await server.restart()
    expect(await query(server.url, 'SELECT value FROM kept')).toEqual([{ value: 7 }])
  })

  it('stops within seconds although a walsender’s client does not read', async () => {
    await using server = await startPostgres()
    await query(server.url, `CREATE TABLE filler (id int PRIMARY KEY, text text)`)
    await query(server.url, `CREATE PUBLICATION everything FOR ALL TABLES`)
    await query(server.url, `SELECT pg_create_logical_replication_slot('stuck', 'pgoutput')`)
    await query(server.url, `INSERT INTO filler SELECT n, repeat('x', 1000) FROM generate_series(1, 20000) n`)
    const client = new pg.Client({ connectionString: `${server.url}?replication=database` })
    client.on('error', () => undefined)
    await client.connect()
    void client.query(`START_REPLICATION SLOT stuck LOGICAL 0/0 (proto_version '1', publication_names 'everything')`).catch(() => undefined)
    const deadline = Date.now() + 60_000
    const isActive = async (): Promise<boolean> => {
      const [row] = await query(server.url, `SELECT active FROM pg_replication_slots WHERE slot_name = 'stuck'`)
      return row?.['active'] === true
    }
    while (!(await isActive()) && Date.now() < deadline);
    ;(client as unknown as { connection: { stream: Socket } }).connection.stream.pause()
    const begin = Date.now()
    await server.stop()
    expect(Date.now() - begin).toBeLessThan(60_000)
  })

  it('refuses data of another major version and names it', async () => {
    await (await startPostgres({ directory: folder })).stop()
    await writeFile(join(folder, 'data', 'PG_VERSION'), '14\n')
    await expect(startPostgres({ directory: folder })).rejects.toThrow(/holds a cluster of PostgreSQL 14, not 18/)
  })

  it('refuses a data directory in which a server runs and names its process', async () => {
    await using server = await startPostgres({ directory: folder })
    await expect(startPostgres({ directory: folder })).rejects.toThrow(`(process ${server.pid ?? 0}) already runs`)
  })

  it('uses a given server and leaves it running', async () => {
    const given = await startPostgres({ url: inject('postgresUrl') })
    expect(given).toMatchObject({ owned: false, url: inject('postgresUrl') })
    await given.stop()
    expect(await query(given.url, 'SELECT 1 AS one')).toEqual([{ one: 1 }])
  })

  it('names a given server that does not answer', async () => {
    await expect(startPostgres({ url: 'postgresql://nobody@127.0.0.1:1/none' })).rejects.toThrow(/at 127\.0\.0\.1:1/)
  })
})

describe('a lock file that a crash left', () => {
  /** Starts and stops a server, then puts its lock file back as if it had crashed, with another process id. */
  async function leaveLock(pid: number): Promise<void> {
    const server = await startPostgres({ directory: folder })
    const lock = await readFile(join(folder, 'data', 'postmaster.pid'), 'utf8')
    expect(await readPostmasterLock(join(folder, 'data'))).toEqual({ tag: 'running', pid: server.pid })
    await server.stop()
    await writeFile(join(folder, 'data', 'postmaster.pid'), lock.replace(/^\d+/, String(pid)))
    const user = await findServerUser()
    if (user !== undefined) await chown(join(folder, 'data', 'postmaster.pid'), user.uid, user.gid)
  }

  it('does not keep the server from starting when its process has ended', async () => {
    const ended = spawn('true')
    await once(ended, 'exit')
    await leaveLock(ended.pid ?? 0)
    expect(await readPostmasterLock(join(folder, 'data'))).toEqual({ tag: 'dead', pid: ended.pid })
    await using server = await startPostgres({ directory: folder })
    expect(await query(server.url, 'SELECT 1 AS one')).toEqual([{ one: 1 }])
  })

  it('does not keep the server from starting when its process id is another program’s now', async () => {
    // Of the server's own user: PostgreSQL takes any such process for a server and would refuse to start.
    const other = spawn('sleep', ['60'], { ...(await findServerUser()) })
    try {
      await leaveLock(other.pid ?? 0)
      expect(await readPostmasterLock(join(folder, 'data'))).toEqual({ tag: 'reused', pid: other.pid })
      await using server = await startPostgres({ directory: folder })
      expect(await query(server.url, 'SELECT 1 AS one')).toEqual([{ one: 1 }])
    } finally {
      other.kill()
    }
  })
})

describe('nothing is left running or lying about', () => {
  it.each(['SIGKILL', 'SIGINT', 'throw'] as const)('when the parent ends by %s', async (how) => {
    const holder = await startHolder('postgres')
    // The holder, its supervisor, the postmaster and the postmaster's own.
    expect(holder.pids.length).toBeGreaterThan(5)
    await endHolder(holder, how)
    await expectNoRemains(holder)
  })

  it('when the parent is killed while the cluster is being made', async () => {
    const holder = await startHolder('cluster')
    await endHolder(holder, 'SIGKILL')
    await expectNoRemains(holder)
  })
})

describe('createDatabase', () => {
  for (const key of ['postgresUrl', 'postgres15Url'] as const) {
    const serverUrl = inject(key)
    it.skipIf(serverUrl === null)(`drops its database with slots and prepared transactions (${key})`, async () => {
      if (serverUrl === null) return
      const database = await createDatabase(serverUrl)
      const slot = `slot_${randomBytes(4).toString('hex')}`
      await query(database.url, `SELECT pg_create_logical_replication_slot('${slot}', 'pgoutput')`)
      await query(database.url, `BEGIN; CREATE TABLE t (); PREPARE TRANSACTION '${slot}'`)
      await database.drop()
      expect(await query(serverUrl, `SELECT FROM pg_database WHERE datname = '${database.name}'`)).toEqual([])
      expect(await query(serverUrl, `SELECT FROM pg_replication_slots WHERE slot_name = '${slot}'`)).toEqual([])
    })
  }
})
