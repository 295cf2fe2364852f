import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { chmod, chown, mkdtemp, rm } from 'node:fs/promises'
import { createServer, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest'
import { findServerUser, makeServerTemporaryDirectory } from '../../../src/embedded/process-user.ts'
import { startPostgres, type PostgresServer } from '../../../src/embedded/postgres-server.ts'
import { CopyConnections } from '../../../src/postgres/copy-connections.ts'
import { packLines } from '../../../src/postgres/copy-lines.ts'
import { copyOut } from '../../../src/postgres/copy-out.ts'
import { parseCredentials, type CredentialFields } from '../../../src/postgres/credentials.ts'
import { connect, endQuietly, settleSslMode } from '../../../src/postgres/session.ts'
import { toDomainError } from '../../../src/postgres/sqlstate.ts'
import { openSourceFixture } from './source-fixture.ts'
import { testServers } from '../../support/test-servers.ts'

const run = promisify(execFile)

/** Settings of a role that would change the text of values or end our statements. */
const HOSTILE_SETTINGS: Readonly<Record<string, string>> = {
  DateStyle: `'SQL, DMY'`, IntervalStyle: `'iso_8601'`, TimeZone: `'Asia/Tokyo'`, extra_float_digits: '-10', bytea_output: `'escape'`, client_encoding: `'LATIN1'`,
  search_path: `'evil'`, statement_timeout: '1', lock_timeout: '1', idle_in_transaction_session_timeout: '1', default_transaction_isolation: `'serializable'`,
  default_transaction_read_only: 'on', row_security: 'on', quote_all_identifiers: 'on', lc_monetary: `'C.UTF-8'`,
  array_nulls: `'off'`, xmlbinary: `'hex'`, xmloption: `'document'`, default_transaction_deferrable: 'on', synchronous_commit: 'off', standard_conforming_strings: 'off',
}

describe.each(testServers())('sessions, $name', ({ url }) => {
  it.each([
    ['ROLE', false],
    ['ROLE', true],
    ['DATABASE', false],
    ['DATABASE', true],
    ['ROLE in DATABASE', false],
    ['ROLE in DATABASE', true],
  ])('are reached by no ALTER %s … SET (replication: %s)', async (kind, replication) => {
    const source = await openSourceFixture(url)
    const role = await source.createRole('REPLICATION')
    const altered = { ROLE: `ROLE ${role.name}`, DATABASE: `DATABASE ${source.databaseName}`, 'ROLE in DATABASE': `ROLE ${role.name} IN DATABASE ${source.databaseName}` }[kind] ?? ''
    for (const [name, value] of Object.entries(HOSTILE_SETTINGS)) await source.admin.query(`ALTER ${altered} SET ${name} = ${value}`)
    const client = await connect(role.credentials, { replication })
    const { rows } = await client.query<{ values: unknown }>(
      `SELECT jsonb_build_array('2024-02-01 12:00+00'::timestamptz::text, '1 day 2 hours'::interval::text, '\\x00ff'::bytea::text, (0.1::float8 + 0.2::float8)::text,
        current_setting('client_encoding'), current_setting('search_path'), current_setting('transaction_isolation'), current_setting('transaction_read_only'),
        current_setting('statement_timeout'), current_setting('idle_in_transaction_session_timeout'), current_setting('row_security'), current_setting('lc_monetary'),
        ('{NULL}'::text[])[1], '''', current_setting('lock_timeout')) AS values`,
    )
    expect(rows[0]?.values).toEqual(['2024-02-01 12:00:00+00', '1 day 02:00:00', '\\x00ff', '0.30000000000000004', 'UTF8', 'pg_catalog', 'read committed', 'off', '0', '0', 'off', 'C', null, "'", replication ? '0' : '30s'])
    await endQuietly(client)
    await source.admin.query(`ALTER DATABASE ${source.databaseName} RESET ALL`)
    await source.close()
  })
})

describe('failures to connect', () => {
  const base = (): CredentialFields => {
    const url = new URL(inject('postgresUrl'))
    return { host: url.hostname, port: url.port, database: 'postgres', username: url.username, password: decodeURIComponent(url.password) }
  }
  const failure = async (fields: CredentialFields): Promise<unknown> => await connect(parseCredentials({ ...base(), ...fields })).catch((error: unknown) => error)

  it.each([
    [{ password: 'planted-password' }, 'AuthenticationFailed'],
    [{ password: '' }, 'AuthenticationFailed'],
    [{ username: 'nobody_at_all' }, 'AuthenticationFailed'],
    [{ database: 'no_such_database' }, 'InvalidConfig'],
    [{ port: 1 }, 'SourceUnavailable'],
    [{ host: 'no-such-host.invalid' }, 'SourceUnavailable'],
    [{ sslmode: 'require' }, 'InvalidConfig'],
    [{ sslmode: 'verify-ca', sslrootcert: '/no/such/file' }, 'InvalidConfig'],
  ] as const)('%j is %s', async (fields, kind) => {
    const error = await failure(fields)
    expect(error).toMatchObject({ kind, remedy: expect.stringMatching(/./) as string })
    expect(JSON.stringify(error, Object.getOwnPropertyNames(error))).not.toContain('planted-password')
  })

  it('gives up after connect_timeout where nobody answers', async () => {
    const silent = await new Promise<Server>((resolve) => {
      const server = createServer(() => undefined).listen(0, '127.0.0.1', () => { resolve(server) })
    })
    const address = silent.address()
    const port = typeof address === 'object' && address !== null ? address.port : 0
    expect(await failure({ host: '127.0.0.1', port, connect_timeout: 1 })).toMatchObject({ kind: 'SourceUnavailable', message: expect.stringContaining('connect_timeout') as string })
    silent.close()
  })

  it('does not end the process when an idle session is cut off; the next statement fails', async () => {
    const source = await openSourceFixture(inject('postgresUrl'))
    const client = await connect(source.credentials)
    const { rows } = await client.query<{ pid: number }>('SELECT pg_backend_pid() AS pid')
    const ended = new Promise((resolve) => client.once('end', resolve))
    await source.admin.query('SELECT pg_terminate_backend($1)', [rows[0]?.pid])
    await ended
    await expect(client.query('SELECT 1')).rejects.toThrow()
    await source.close()
  })
})

describe('TLS in libpq\'s meaning', () => {
  let server: PostgresServer
  let directory: string
  let ours: string
  beforeAll(async () => {
    const user = await findServerUser()
    directory = await makeServerTemporaryDirectory(user)
    ours = await mkdtemp(join(tmpdir(), 'certificates-'))
    const openssl = async (...args: string[]): Promise<unknown> => await run('openssl', args, { cwd: ours })
    for (const authority of ['ca', 'other']) {
      await openssl('req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2', '-subj', `/CN=${authority}`, '-keyout', `${authority}.key`, '-out', `${authority}.crt`)
    }
    const sign = async (name: string, subject: string, extension: string[]): Promise<void> => {
      await openssl('req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-subj', `/CN=${subject}`, ...extension, '-keyout', `${name}.key`, '-out', `${name}.csr`)
      await openssl('x509', '-req', '-in', `${name}.csr`, '-CA', 'ca.crt', '-CAkey', 'ca.key', '-CAcreateserial', '-days', '2', '-copy_extensions', 'copy', '-out', `${name}.crt`)
    }
    await sign('server', 'localhost', ['-addext', 'subjectAltName=DNS:localhost'])
    await sign('client', 'postgres', [])
    await sign('renewed', 'postgres-renewed', [])
    for (const file of ['server.key', 'server.crt', 'ca.crt']) {
      await run('cp', [join(ours, file), join(directory, file)])
      await chmod(join(directory, file), 0o600)
      if (user !== undefined) await chown(join(directory, file), user.uid, user.gid)
    }
    const file = (name: string): string => join(directory, name)
    server = await startPostgres({ settings: { ssl: true, ssl_cert_file: file('server.crt'), ssl_key_file: file('server.key'), ssl_ca_file: file('ca.crt') } })
  })
  afterAll(async () => {
    await server.stop()
    await rm(directory, { recursive: true })
    await rm(ours, { recursive: true })
  })

  const attempt = async (fields: CredentialFields): Promise<string> => {
    const credentials = parseCredentials({ host: 'localhost', port: server.port, database: 'postgres', username: server.user, password: server.password, ...fields })
    try {
      const client = await connect(credentials)
      const { rows } = await client.query<{ how: string }>(`SELECT CASE WHEN ssl THEN 'tls' ELSE 'plain' END || CASE WHEN client_dn IS NULL THEN '' ELSE ' ' || client_dn END AS how FROM pg_stat_ssl WHERE pid = pg_backend_pid()`)
      await endQuietly(client)
      return rows[0]?.how ?? ''
    } catch (error) {
      return error instanceof Error ? error.name : 'unknown'
    }
  }

  it('keeps what each sslmode promises', async () => {
    const ca = join(ours, 'ca.crt')
    const other = join(ours, 'other.crt')
    const outcomes = {
      disable: await attempt({ sslmode: 'disable' }),
      default: await attempt({}),
      prefer: await attempt({ sslmode: 'prefer' }),
      require: await attempt({ sslmode: 'require' }),
      'require, other authority': await attempt({ sslmode: 'require', sslrootcert: other }),
      'require, authority, other name': await attempt({ sslmode: 'require', sslrootcert: ca, host: '127.0.0.1' }),
      'verify-ca': await attempt({ sslmode: 'verify-ca', sslrootcert: ca }),
      'verify-ca, other name': await attempt({ sslmode: 'verify-ca', sslrootcert: ca, host: '127.0.0.1' }),
      'verify-ca, other authority': await attempt({ sslmode: 'verify-ca', sslrootcert: other }),
      'verify-full': await attempt({ sslmode: 'verify-full', sslrootcert: ca }),
      'verify-full, other name': await attempt({ sslmode: 'verify-full', sslrootcert: ca, host: '127.0.0.1' }),
      'verify-full, public authorities': await attempt({ sslmode: 'verify-full' }),
      'client certificate': await attempt({ sslmode: 'verify-full', sslrootcert: ca, sslcert: join(ours, 'client.crt'), sslkey: join(ours, 'client.key') }),
    }
    expect(outcomes).toEqual({
      disable: 'plain',
      default: 'tls',
      prefer: 'tls',
      require: 'tls',
      'require, other authority': 'AuthenticationFailed',
      'require, authority, other name': 'tls',
      'verify-ca': 'tls',
      'verify-ca, other name': 'tls',
      'verify-ca, other authority': 'AuthenticationFailed',
      'verify-full': 'tls',
      'verify-full, other name': 'AuthenticationFailed',
      'verify-full, public authorities': 'AuthenticationFailed',
      'client certificate': 'tls /CN=postgres',
    })
  })

  it('reads certificates that were replaced under their names at the next connection of a source that is at work', async () => {
    const file = (name: string): string => join(ours, `replaced-${name}`)
    const replace = async (name: string, by: string): Promise<unknown> => await run('cp', [join(ours, by), file(name)])
    await Promise.all([replace('root.crt', 'other.crt'), replace('client.crt', 'client.crt'), replace('client.key', 'client.key')])
    const fields = { sslmode: 'verify-full', sslrootcert: file('root.crt'), sslcert: file('client.crt'), sslkey: file('client.key') }
    // Parsed once, as a worker holds it.
    const source = parseCredentials({ host: 'localhost', port: server.port, database: 'postgres', username: server.user, password: server.password, ...fields })
    const subjects = async (asking: pg.Client, clients: readonly pg.Client[]): Promise<unknown[]> => {
      const pids = await Promise.all(clients.map(async (client) => (await client.query<{ pid: number }>('SELECT pg_catalog.pg_backend_pid() AS pid')).rows[0]?.pid))
      const { rows } = await asking.query<{ pid: number; dn: string }>('SELECT pid, client_dn AS dn FROM pg_stat_ssl')
      return pids.map((pid) => rows.find((row) => row.pid === pid)?.dn)
    }
    const copies = new CopyConnections(source)
    await expect(connect(source)).rejects.toMatchObject({ kind: 'AuthenticationFailed' })
    await expect(copies.acquire()).rejects.toMatchObject({ kind: 'AuthenticationFailed' })
    await replace('root.crt', 'ca.crt')
    const before = await connect(source)
    await Promise.all([replace('client.crt', 'renewed.crt'), replace('client.key', 'renewed.key')])
    const after = await connect(source)
    const walsender = await connect(source, { replication: true })
    const copying = await copies.acquire()
    expect(await subjects(after, [before, after, walsender, copying.client])).toEqual(['/CN=postgres', ...Array.from({ length: 3 }, () => '/CN=postgres-renewed')])
    await copying.release(false)
    await Promise.all([copies.close(), endQuietly(before), endQuietly(after), endQuietly(walsender)])
  })

  it('carries copies, whose socket reads into the same memory again and again', async () => {
    const fields = { host: 'localhost', port: server.port, database: 'postgres', username: server.user, password: server.password }
    const connections = new CopyConnections(parseCredentials({ ...fields, sslmode: 'verify-full', sslrootcert: join(ours, 'ca.crt') }))
    const query = `SELECT n, repeat(md5(n::text), n % 20) FROM generate_series(1, 100000) n`
    const connection = await connections.acquire()
    const { rows } = await connection.client.query<{ md5: string }>(`SELECT md5(string_agg(n || ',' || t || E'\\n', '' ORDER BY n)) AS md5 FROM (${query}) AS made(n, t)`)
    connection.socket.startBursts({ reusesSlab: true })
    const received = createHash('md5')
    const lines = packLines(({ buffer, start, end }) => {
      received.update(buffer.subarray(start, end))
    })
    const count = await copyOut(connection.client, { sql: `COPY (${query.replace('n, ', "n || ',' || ")}) TO STDOUT`, ...lines, mapError: (error) => toDomainError(error, { subject: 'copy' }) })
    connection.socket.endBursts()
    expect([count, received.digest('hex')]).toEqual([100_000, rows[0]?.md5])
    expect((await connection.client.query('SELECT 1 AS one FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl')).rowCount).toBe(1)
    await connection.release(true)
    await connections.close()
  })

  it('settles prefer by what the server offers, for connections that others open', async () => {
    const credentials = parseCredentials(server.url)
    expect((await settleSslMode(credentials)).sslmode).toBe('require')
    const plain = parseCredentials(inject('postgresUrl'))
    const settled = await settleSslMode(plain)
    expect(settled.sslmode).toBe('disable')
    expect(settled.password).toBe(plain.password)
    const client = new pg.Client({ connectionString: server.url })
    await client.connect()
    await client.end()
  })
})
