import { execFile } from 'node:child_process'
import { access, chmod, chown, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import pg from 'pg'
import { findSystemPostgres } from '../src/embedded/postgres-binaries.ts'
import type { PostgresMajor } from '../src/embedded/postgres-majors.ts'
import { startPostgres, type PostgresServer } from '../src/embedded/postgres-server.ts'
import { findServerUser, makeServerTemporaryDirectory } from '../src/embedded/process-user.ts'
import { startTemporal, type TemporalServer } from '../src/embedded/temporal-server.ts'

const run = promisify(execFile)

/** PostgreSQL's own client programs that are measured beside us; null = not on this machine. */
export interface ClientPrograms {
  readonly psql: string | null
  readonly recvlogical: string | null
}

/** What every workload runs against. */
export interface BenchServers {
  readonly postgres: PostgresServer
  readonly temporal: TemporalServer
  readonly programs: ClientPrograms
  /** Files of the server's certificate, to be removed with it; null = it speaks no TLS. */
  readonly certificateDirectory: string | null
}

/** Nothing but the workload shall use the machine, and nothing shall wait for a disk. */
const SETTINGS = {
  fsync: false,
  synchronous_commit: 'off',
  full_page_writes: false,
  autovacuum: false,
  checkpoint_timeout: '1h',
  max_wal_size: '32GB',
  shared_buffers: '512MB',
  jit: false,
  track_activities: true,
} as const

/**
 * Starts PostgreSQL (TCP on loopback) and a Temporal server of the benchmark's own. Both end with this process. A system PostgreSQL
 * with its client programs is preferred: they are what we are compared with.
 */
export async function startServers({ postgres: choice, needsTls }: { readonly postgres: 'system' | PostgresMajor; readonly needsTls: boolean }, onProgress: (line: string) => void): Promise<BenchServers> {
  const certificateDirectory = needsTls ? await makeCertificate() : null
  const tls = certificateDirectory === null ? {} : { ssl: true, ssl_cert_file: join(certificateDirectory, 'crt'), ssl_key_file: join(certificateDirectory, 'key') }
  const installed = choice === 'system' ? await findInstallation() : null
  const postgres = await startPostgres({
    settings: { ...SETTINGS, ...tls },
    onProgress,
    ...(installed === null ? { major: choice === 'system' ? undefined : choice } : { binDirectory: installed }),
  })
  try {
    const temporal = await startTemporal({ reuseRunning: false, headless: true, onProgress })
    return { postgres, temporal, programs: await findPrograms(postgres.binDirectory), certificateDirectory }
  } catch (error) {
    await postgres.stop()
    throw error
  }
}

/** Stops what {@link startServers} started. */
export async function stopServers({ postgres, temporal, certificateDirectory }: BenchServers): Promise<void> {
  await temporal.stop()
  await postgres.stop()
  if (certificateDirectory !== null) await rm(certificateDirectory, { recursive: true, force: true })
}

/** A certificate for localhost, in a folder that the server can read. Throws where `openssl` is not on the machine. */
async function makeCertificate(): Promise<string> {
  const user = await findServerUser()
  const directory = await makeServerTemporaryDirectory(user)
  await run('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2', '-subj', '/CN=localhost', '-keyout', 'key', '-out', 'crt'], { cwd: directory })
  for (const file of ['key', 'crt']) {
    await chmod(join(directory, file), 0o600)
    if (user !== undefined) await chown(join(directory, file), user.uid, user.gid)
  }
  return directory
}

/** The newest system PostgreSQL that has both client programs; null where there is none. */
async function findInstallation(): Promise<string | null> {
  for (const { binDirectory } of await findSystemPostgres()) {
    const { psql, recvlogical } = await programsIn(binDirectory)
    if (psql !== null && recvlogical !== null) return binDirectory
  }
  return null
}

/** Beside the server, else in any system installation, else what the PATH has. */
async function findPrograms(binDirectory: string | undefined): Promise<ClientPrograms> {
  const folders = [...(binDirectory === undefined ? [] : [binDirectory]), ...(await findSystemPostgres()).map((found) => found.binDirectory)]
  const candidates = [...(await Promise.all(folders.map(programsIn))), { psql: await onPath('psql'), recvlogical: await onPath('pg_recvlogical') }]
  return {
    psql: candidates.find(({ psql }) => psql !== null)?.psql ?? null,
    recvlogical: candidates.find(({ recvlogical }) => recvlogical !== null)?.recvlogical ?? null,
  }
}

async function programsIn(folder: string): Promise<ClientPrograms> {
  const find = async (name: string): Promise<string | null> => {
    const path = join(folder, name)
    return await access(path).then(
      () => path,
      () => null,
    )
  }
  return { psql: await find('psql'), recvlogical: await find('pg_recvlogical') }
}

async function onPath(program: string): Promise<string | null> {
  return await run(program, ['--version']).then(
    () => program,
    () => null,
  )
}

/** A database of one run's own. */
export interface BenchDatabase {
  readonly name: string
  readonly url: string
  /** The same through TLS, where the server speaks it. */
  readonly encryptedUrl: string
  readonly client: pg.Client
  /** Drops its slots and the database itself. */
  drop(): Promise<void>
}

/** Makes an empty database and connects to it. */
export async function createDatabase(postgres: PostgresServer, name: string): Promise<BenchDatabase> {
  const admin = new pg.Client({ connectionString: postgres.url })
  await admin.connect()
  await admin.query(`DROP DATABASE IF EXISTS ${name} WITH (FORCE)`)
  await admin.query(`CREATE DATABASE ${name}`)
  const url = new URL(postgres.url)
  url.pathname = `/${name}`
  url.searchParams.set('sslmode', 'disable')
  const encrypted = new URL(url)
  encrypted.searchParams.set('sslmode', 'require')
  const client = new pg.Client({ connectionString: url.href })
  await client.connect()
  return {
    name,
    url: url.href,
    encryptedUrl: encrypted.href,
    client,
    drop: async () => {
      try {
        await client.query('SELECT pg_terminate_backend(active_pid, 10000) FROM pg_replication_slots WHERE database = current_database() AND active')
        await client.query('SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = current_database()')
        await client.end()
        await admin.query(`DROP DATABASE ${name} WITH (FORCE)`)
      } finally {
        await admin.end()
      }
    },
  }
}
