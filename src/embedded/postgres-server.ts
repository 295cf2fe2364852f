import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import pg from 'pg'
import { readLogTail } from './log-tail.ts'
import { loopbackHost, preferPort } from './ports.ts'
import { findPostgresBinaries, readPostgresBinaries } from './postgres-binaries.ts'
import { ensurePostgresData, postgresEnvironment, postgresUser, writePostgresNotes } from './postgres-data.ts'
import { clearStaleLock } from './postgres-lock.ts'
import { defaultPostgresMajor, type PostgresMajor } from './postgres-majors.ts'
import { useGivenPostgres } from './postgres-given.ts'
import { makeBinariesReachable } from './postgres-package.ts'
import { findServerUser, makeServerDirectory, makeServerTemporaryDirectory } from './process-user.ts'
import type { OnProgress } from './project-directory.ts'
import { Supervisor, type ProcessUser, type SupervisedProcess } from './supervisor.ts'

/** Which PostgreSQL to start, and how. */
export interface PostgresOptions {
  /** A server that runs already; it is used as it is and never stopped. Everything else is then ignored. */
  readonly url?: string | undefined
  /** Default 18; fetched when it is not on this machine. */
  readonly major?: PostgresMajor | undefined
  /** A folder with `initdb` and `postgres` to use instead of looking for a major version. */
  readonly binDirectory?: string | undefined
  /** Kept here: the cluster (in `data`) and the log. Omitted: in a temporary folder, removed when the server stops. */
  readonly directory?: string | undefined
  /** Added to and over the defaults (`wal_level` logical, room for slots, loopback only). */
  readonly settings?: Readonly<Record<string, string | number | boolean>> | undefined
  /** Omitted: the port of the last start in this folder when it is free, else any free one. */
  readonly port?: number | undefined
  readonly onProgress?: OnProgress | undefined
}

/** A PostgreSQL server to develop against. */
export interface PostgresServer {
  /** A superuser's connection URL, for database `postgres`. */
  readonly url: string
  readonly host: string
  readonly port: number
  readonly user: string
  readonly password: string
  /** As the server says it: `18.4`. */
  readonly version: string
  readonly major: number
  /** Whether this object started the server; if not, `stop` does nothing and `kill` and `restart` throw. */
  readonly owned: boolean
  /** Undefined for a given URL. */
  readonly binDirectory: string | undefined
  readonly dataDirectory: string | undefined
  readonly logFile: string | undefined
  /** The postmaster's process id while it runs. */
  readonly pid: number | undefined
  /** Fast shutdown (SIGINT; SIGQUIT if a walsender holds that up); temporary data is removed. Idempotent. */
  stop(): Promise<void>
  /** Sends a signal to the postmaster; when it is one that ends it, resolves after the end. Data is kept. */
  kill(signal: NodeJS.Signals): Promise<void>
  /** Stops the server if it runs and starts it again on the same data and port. */
  restart(): Promise<void>
  [Symbol.asyncDispose](): Promise<void>
}

const defaultSettings = {
  wal_level: 'logical',
  max_replication_slots: 20,
  max_wal_senders: 20,
  max_prepared_transactions: 20,
} as const

/** Nothing of a temporary server is worth a disk flush. */
const temporarySettings = { fsync: false, synchronous_commit: 'off', full_page_writes: false } as const

/** Starting may include crash recovery. */
const readyTimeoutMs = 120_000

const endingSignals: ReadonlySet<NodeJS.Signals> = new Set(['SIGINT', 'SIGQUIT', 'SIGKILL', 'SIGABRT', 'SIGSEGV'])

/**
 * Starts a development PostgreSQL on loopback and waits until it answers.
 *
 * It ends with this process, however that ends, and starts again over data that a crash left. Works as root too (under
 * another account, see {@link findServerUser}). Throws an error that names the cause and the remedy when it cannot.
 */
export async function startPostgres(options: PostgresOptions = {}): Promise<PostgresServer> {
  if (options.url !== undefined) return await useGivenPostgres(options.url)
  const supervisor = await Supervisor.open()
  try {
    return await startOwnPostgres(options, supervisor)
  } catch (error) {
    await supervisor.close()
    throw error
  }
}

async function startOwnPostgres(options: PostgresOptions, supervisor: Supervisor): Promise<PostgresServer> {
  const { onProgress } = options
  const found =
    options.binDirectory === undefined
      ? await findPostgresBinaries(options.major ?? defaultPostgresMajor, onProgress)
      : await readPostgresBinaries(options.binDirectory)
  const user = await findServerUser()
  const binDirectory = await makeBinariesReachable(found.binDirectory, found.version, user)
  const binaries = { ...found, binDirectory }
  const { directory } = options
  const isTemporary = directory === undefined
  const folder = isTemporary ? await makeServerTemporaryDirectory(user) : await makeServerDirectory(directory, user)
  if (isTemporary) supervisor.removeAtEnd(folder)
  else if (folder !== directory) onProgress?.(`PostgreSQL: its user cannot enter ${directory}, so its data is in ${folder}`)
  const dataDirectory = join(folder, 'data')
  const logFile = join(folder, 'postgres.log')

  const notes = await ensurePostgresData({ supervisor, binaries, directory: dataDirectory, user, logFile, onProgress })
  const server = new OwnPostgresServer({
    supervisor,
    binDirectory,
    version: found.version,
    major: found.major,
    dataDirectory,
    logFile,
    user,
    password: notes.password,
    settings: { ...defaultSettings, ...(isTemporary ? temporarySettings : {}), ...options.settings },
  })
  await server.start(options.port, notes.port)
  if (!isTemporary) await writePostgresNotes(dataDirectory, { ...notes, port: server.port }, user)
  onProgress?.(`PostgreSQL ${found.version}: ready on port ${server.port}`)
  return server
}

interface OwnPostgresParts {
  readonly supervisor: Supervisor
  readonly binDirectory: string
  readonly version: string
  readonly major: number
  readonly dataDirectory: string
  readonly logFile: string
  readonly user: ProcessUser | undefined
  readonly password: string
  readonly settings: Readonly<Record<string, string | number | boolean>>
}

/** States: down --start--> up --stop/kill--> down --restart--> up …; `stop` also ends the supervisor, for good. */
class OwnPostgresServer implements PostgresServer {
  readonly #parts: OwnPostgresParts
  #process: SupervisedProcess | undefined
  #port = 0
  readonly host = loopbackHost
  readonly user = postgresUser
  readonly owned = true

  constructor(parts: OwnPostgresParts) {
    this.#parts = parts
  }

  get port(): number {
    return this.#port
  }
  get password(): string {
    return this.#parts.password
  }
  get url(): string {
    return `postgresql://${this.user}:${this.password}@${this.host}:${this.#port}/postgres`
  }
  get version(): string {
    return this.#parts.version
  }
  get major(): number {
    return this.#parts.major
  }
  get binDirectory(): string {
    return this.#parts.binDirectory
  }
  get dataDirectory(): string {
    return this.#parts.dataDirectory
  }
  get logFile(): string {
    return this.#parts.logFile
  }
  get pid(): number | undefined {
    return this.#process?.exit === undefined ? this.#process?.pid : undefined
  }

  /**
   * Starts the server on `fixedPort`, or on `preferredPort` if it is free, else on any.
   *
   * Tried three times: another program may take the port first, and after a SIGKILL of the postmaster its children hold
   * the shared memory for an instant, in which PostgreSQL refuses to start.
   */
  async start(fixedPort: number | undefined, preferredPort: number | undefined): Promise<void> {
    await clearStaleLock(this.#parts.dataDirectory)
    for (let attempt = 1; ; attempt++) {
      this.#port = fixedPort ?? (await preferPort(preferredPort))
      const postmaster = await this.#spawn()
      this.#process = postmaster
      if (await this.#waitUntilReady(postmaster)) return
      if (attempt === 3) {
        const tail = await readLogTail(this.#parts.logFile)
        throw new Error(`PostgreSQL ${this.version} did not start on port ${this.#port}; its log (${this.logFile}) ends:\n${tail}`)
      }
      await delay(300)
    }
  }

  async stop(): Promise<void> {
    await this.#process?.stop()
    await this.#parts.supervisor.close()
  }

  async kill(signal: NodeJS.Signals): Promise<void> {
    const running = this.#process
    if (running === undefined || running.exit !== undefined) return
    running.signal(signal)
    if (endingSignals.has(signal)) await this.#parts.supervisor.whileReferenced(running.exited)
  }

  async restart(): Promise<void> {
    await this.#process?.stop()
    await this.start(this.#port, undefined)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
  }

  async #spawn(): Promise<SupervisedProcess> {
    const { supervisor, binDirectory, dataDirectory, logFile, user, settings } = this.#parts
    const all = {
      ...settings,
      listen_addresses: loopbackHost,
      port: this.#port,
      // Nobody needs a socket file, whose path would have to be short and reachable.
      unix_socket_directories: '',
      logging_collector: false,
    }
    return await supervisor.run({
      command: join(binDirectory, 'postgres'),
      args: ['-D', dataDirectory, ...Object.entries(all).flatMap(([name, value]) => ['-c', `${name}=${String(value)}`])],
      cwd: '/',
      env: postgresEnvironment(),
      user,
      // A fast shutdown waits for walsenders to send everything, so a client that does not read would hold it up.
      stopSignals: [
        { signal: 'SIGINT', graceMs: 5_000 },
        { signal: 'SIGQUIT', graceMs: 5_000 },
      ],
      output: { tag: 'file', path: logFile },
    })
  }

  async #waitUntilReady(postmaster: SupervisedProcess): Promise<boolean> {
    const deadline = Date.now() + readyTimeoutMs
    while (postmaster.exit === undefined && Date.now() < deadline) {
      if (await answers(this.url)) return true
      await delay(30)
    }
    await postmaster.stop()
    return false
  }
}

async function answers(url: string): Promise<boolean> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 5_000 })
  client.on('error', () => undefined)
  try {
    await client.connect()
    return true
  } catch {
    return false
  } finally {
    await client.end().catch(() => undefined)
  }
}
