import { randomBytes } from 'node:crypto'
import pg from 'pg'
import { findSystemPostgres } from '../../src/embedded/postgres-binaries.ts'
import { parsePostgresMajor } from '../../src/embedded/postgres-majors.ts'
import { startPostgres, type PostgresServer } from '../../src/embedded/postgres-server.ts'
import { startTemporal, type TemporalServer } from '../../src/embedded/temporal-server.ts'

/** The servers of one test run. PostgreSQL 15 is there only where the system has it and no other version is asked for. */
export interface PostgresTestServers {
  readonly main: PostgresServer
  readonly fifteen: PostgresServer | undefined
}

/** Room for every test file's slots at once; `startPostgres` adds what makes a temporary server fast. */
export const testPostgresSettings = {
  max_connections: 200,
  max_replication_slots: 60,
  max_wal_senders: 60,
  max_prepared_transactions: 20,
} as const

/** The global setups' servers, by name. vitest gives each project its own copy of this module, in the same process. */
const registry = globalThis as unknown as Record<symbol, { server: Promise<unknown>; userCount: number } | undefined>

/** A server that all projects of a run share: started by the first that acquires it, stopped by the last release. */
class SharedServer<Server> {
  readonly #key: symbol
  readonly #start: () => Promise<Server>
  readonly #stop: (server: Server) => Promise<void>

  constructor(name: string, start: () => Promise<Server>, stop: (server: Server) => Promise<void>) {
    this.#key = Symbol.for(`temporal-pg-replication.test.${name}`)
    this.#start = start
    this.#stop = stop
  }

  async acquire(): Promise<Server> {
    const entry = (registry[this.#key] ??= { server: this.#start(), userCount: 0 })
    entry.userCount++
    return (await entry.server) as Server
  }

  async release(): Promise<void> {
    const entry = registry[this.#key]
    if (entry === undefined || --entry.userCount > 0) return
    registry[this.#key] = undefined
    await this.#stop((await entry.server) as Server)
  }
}

/**
 * The run's PostgreSQL servers. `TEST_POSTGRES_MAJOR` (14 to 18) chooses another main version than 18. The last release
 * throws when tests left databases behind.
 */
export const sharedPostgres = new SharedServer<PostgresTestServers>(
  'postgres',
  async () => {
    const wanted = process.env['TEST_POSTGRES_MAJOR']
    const fifteen = wanted === undefined ? (await findSystemPostgres()).find((binaries) => binaries.major === 15) : undefined
    const [main, other] = await Promise.all([
      startPostgres({
        major: wanted === undefined ? undefined : parsePostgresMajor(wanted),
        settings: testPostgresSettings,
        onProgress,
      }),
      fifteen === undefined ? undefined : startPostgres({ binDirectory: fifteen.binDirectory, settings: testPostgresSettings, onProgress }),
    ])
    return { main, fifteen: other }
  },
  async ({ main, fifteen }) => {
    const left: string[] = []
    for (const server of [main, fifteen]) {
      if (server === undefined) continue
      left.push(...(await listTestDatabases(server.url)))
      await server.stop()
    }
    if (left.length === 0) return
    // vitest only prints what a teardown throws; the run has to fail.
    process.exitCode = 1
    throw new Error(`tests left databases behind, so did not clean up: ${left.join(', ')}`)
  },
)

/** The run's Temporal server, never one that happens to run on this machine. */
export const sharedTemporal = new SharedServer<TemporalServer>(
  'temporal',
  async () => await startTemporal({ reuseRunning: false, headless: true, onProgress }),
  async (server) => await server.stop(),
)

/** A database of one test file's own. */
export interface TestDatabase {
  readonly url: string
  readonly name: string
  /** Ends its sessions, drops its replication slots, prepared transactions and the database. */
  drop(): Promise<void>
}

const databasePrefix = 'test_'

/** Makes a fresh, empty database on a server of {@link sharedPostgres}; whoever asks for it drops it. `encoding` by default the server's. */
export async function createDatabase(serverUrl: string, encoding?: string): Promise<TestDatabase> {
  const name = `${databasePrefix}${randomBytes(6).toString('hex')}`
  const options = encoding === undefined ? '' : ` ENCODING '${encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0`
  await withClient(serverUrl, async (client) => await client.query(`CREATE DATABASE ${name}${options}`))
  const url = new URL(serverUrl)
  url.pathname = `/${name}`
  return { url: url.href, name, drop: async () => await dropDatabase(serverUrl, url.href) }
}

async function dropDatabase(serverUrl: string, url: string): Promise<void> {
  const name = new URL(url).pathname.slice(1)
  // Slots and prepared transactions, which DROP DATABASE does not end, can only be ended from that database.
  await withClient(url, async (client) => {
    const slots = await client.query<{ slot_name: string; active_pid: number | null }>(
      'SELECT slot_name, active_pid FROM pg_replication_slots WHERE database = current_database()',
    )
    for (const slot of slots.rows) {
      // Waits up to 10 s for the walsender to end; else the slot could not be dropped yet.
      if (slot.active_pid !== null) await client.query('SELECT pg_terminate_backend($1, 10000)', [slot.active_pid])
      await client.query('SELECT pg_drop_replication_slot($1)', [slot.slot_name])
    }
    const prepared = await client.query<{ gid: string }>('SELECT gid FROM pg_prepared_xacts WHERE database = current_database()')
    for (const { gid } of prepared.rows) await client.query(`ROLLBACK PREPARED ${client.escapeLiteral(gid)}`)
  })
  await withClient(serverUrl, async (client) => await client.query(`DROP DATABASE ${name} WITH (FORCE)`))
}

async function listTestDatabases(serverUrl: string): Promise<readonly string[]> {
  return await withClient(serverUrl, async (client) => {
    const { rows } = await client.query<{ datname: string }>('SELECT datname FROM pg_database WHERE starts_with(datname, $1)', [
      databasePrefix,
    ])
    return rows.map((row) => row.datname)
  })
}

async function withClient<Result>(url: string, use: (client: pg.Client) => Promise<Result>): Promise<Result> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    return await use(client)
  } finally {
    await client.end()
  }
}

function onProgress(line: string): void {
  process.stderr.write(`${line}\n`)
}
