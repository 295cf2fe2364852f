import { readFileSync } from 'node:fs'
import type { Duplex } from 'node:stream'
import type { ConnectionOptions } from 'node:tls'
import pg from 'pg'
import { DomainError } from '../model/errors.ts'
import { describeCredentials, withSslMode, type SourceCredentials } from './credentials.ts'
import { endsWithin } from './ends-within.ts'
import { watchSession } from './session-watch.ts'
import { isTlsNotOffered, sqlStateOf, toDomainError } from './sqlstate.ts'

/**
 * Settings that every source session pins, so that text has one form in copy and stream (facts 11) and that no `ALTER ROLE … SET` or
 * `ALTER DATABASE … SET` reaches us: start-up options win over both, also on replication connections.
 *
 * Source: https://www.postgresql.org/docs/current/runtime-config-client.html
 */
const PINNED_SETTINGS = {
  DateStyle: 'ISO,YMD',
  IntervalStyle: 'postgres',
  TimeZone: 'UTC',
  extra_float_digits: '3',
  bytea_output: 'hex',
  lc_monetary: 'C',
  client_encoding: 'UTF8',
  quote_all_identifiers: 'off',
  standard_conforming_strings: 'on',
  // Keys that are arrays are looked up by their text.
  array_nulls: 'on',
  // Names in our statements are qualified; an unqualified operator of ours must never be somebody else's.
  search_path: 'pg_catalog',
  default_transaction_isolation: 'read committed',
  default_transaction_read_only: 'off',
  default_transaction_deferrable: 'off',
  idle_in_transaction_session_timeout: '0',
  client_min_messages: 'warning',
  // What we commit (publication, comment) must be in the WAL when the slot is made or moved; no standby need have it.
  synchronous_commit: 'local',
  // A policy that hides rows from us must be an error, not a copy with rows missing.
  row_security: 'off',
  jit: 'off',
  // Pages are read by their ctid; without it each would be a scan of the whole table.
  enable_tidscan: 'on',
} as const satisfies Record<string, string>

/** Settings that not every supported version knows: set after connecting, where they are there. */
const VERSION_DEPENDENT_SETTINGS = { transaction_timeout: '0', idle_session_timeout: '0' } as const

/**
 * For sessions whose text goes to the destination as bytes. A database of encoding SQL_ASCII holds any; where UTF-8 is asked for, the server ends
 * the whole stream at the first that are none, while as they are only their own table stops.
 *
 * Source: https://www.postgresql.org/docs/current/multibyte.html
 */
export const TAKE_BYTES_AS_THEY_ARE = `SELECT pg_catalog.set_config('client_encoding', 'SQL_ASCII', false) WHERE pg_catalog.current_setting('server_encoding') = 'SQL_ASCII'`

/** How long a statement waits for a lock before it gives up with a retryable error. */
export const DEFAULT_LOCK_TIMEOUT_MS = 30_000
const KEEPALIVE_DELAY_MS = 10_000
const END_TIMEOUT_MS = 5_000
/** How long a session may take, to connect and for its statement, that only looks whether another one's connection works. */
const PROBE_TIMEOUT_MS = 10_000

export interface SessionOptions {
  /** `application_name`, where the credentials give none. */
  readonly applicationName?: string
  /** True for a walsender connection to the database (`replication=database`). */
  readonly replication?: boolean
  /** 0 = none (the default). */
  readonly statementTimeoutMs?: number
  /** 0 = none; default {@link DEFAULT_LOCK_TIMEOUT_MS}, on replication connections 0. */
  readonly lockTimeoutMs?: number
  /** How long this side waits for an answer; 0 = as long as the server works on it (the default). */
  readonly answerTimeoutMs?: number
  /** Makes the socket of each connection attempt; `pg`'s own by default. */
  readonly socket?: () => Duplex
}

/** What `pg.Client` takes; `replication` is missing in its types. */
export type SessionConfig = pg.ClientConfig & { readonly replication?: 'database' }

/**
 * The start-up `options` (`-c name=value …`) that pin the session, for every connection to a source.
 *
 * Source: https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNECT-OPTIONS
 */
export function startupOptions(options: SessionOptions = {}): string {
  const lockTimeoutMs = options.lockTimeoutMs ?? (options.replication === true ? 0 : DEFAULT_LOCK_TIMEOUT_MS)
  const settings = { ...PINNED_SETTINGS, statement_timeout: String(options.statementTimeoutMs ?? 0), lock_timeout: String(lockTimeoutMs) }
  return Object.entries(settings)
    .map(([name, value]) => `-c ${name}=${value.replaceAll('\\', '\\\\').replaceAll(' ', '\\ ')}`)
    .join(' ')
}

/**
 * The `pg` configuration of one session. Credentials with sslmode `prefer` are taken as TLS: see {@link settleSslMode}.
 * Throws `InvalidConfig` where a certificate file cannot be read.
 */
export function clientConfigOf(credentials: SourceCredentials, options: SessionOptions = {}): SessionConfig {
  const pinned = startupOptions(options)
  return {
    host: credentials.host,
    port: credentials.port,
    database: credentials.database,
    user: credentials.username,
    ...(credentials.password === null ? {} : { password: credentials.password }),
    // Given always: otherwise pg looks at PGSSLMODE and PGSSLNEGOTIATION of the worker's environment.
    ssl: tlsOptionsOf(credentials),
    sslnegotiation: 'postgres',
    enableChannelBinding: credentials.channelBinding,
    application_name: credentials.applicationName ?? options.applicationName ?? 'temporal-pg-replication',
    options: credentials.options === null ? pinned : `${credentials.options} ${pinned}`,
    connectionTimeoutMillis: credentials.connectTimeoutSeconds * 1000,
    keepAlive: true,
    keepAliveInitialDelayMillis: KEEPALIVE_DELAY_MS,
    ...(options.answerTimeoutMs === undefined ? {} : { query_timeout: options.answerTimeoutMs }),
    ...(options.replication === true ? { replication: 'database' as const } : {}),
    ...(options.socket === undefined ? {} : { stream: options.socket }),
  }
}

/**
 * Opens a session with the pinned settings. The caller ends it (`await client.end()`). A connection that breaks while idle
 * does not end the process: the next statement fails instead.
 *
 * Throws `AuthenticationFailed`, `InvalidConfig`, `PrivilegeMissing`, `SourceNotReady`, and `SourceUnavailable` for all that time
 * mends; it does not try again.
 */
export async function connect(credentials: SourceCredentials, options: SessionOptions = {}): Promise<pg.Client> {
  if (credentials.sslmode !== 'prefer') return await connectOnce(credentials, options)
  try {
    return await connectOnce(withSslMode(credentials, 'require'), options)
  } catch (error) {
    if (!(error instanceof PlainMayWorkError)) throw error
  }
  return await connectOnce(withSslMode(credentials, 'disable'), options)
}

/**
 * Decides what sslmode `prefer` comes to at this server, for connections that others open (the replication stream): credentials
 * with `require` or `disable` instead. Other modes are returned as they are.
 */
export async function settleSslMode(credentials: SourceCredentials): Promise<SourceCredentials> {
  if (credentials.sslmode !== 'prefer') return credentials
  const withTls = withSslMode(credentials, 'require')
  try {
    const client = await connectOnce(withTls, {})
    await endQuietly(client)
    return withTls
  } catch (error) {
    if (!(error instanceof PlainMayWorkError)) throw error
    return withSslMode(credentials, 'disable')
  }
}

/**
 * Ends a session, whatever state it is in, within {@link END_TIMEOUT_MS}. For `finally`: it never throws, and a server that no longer
 * answers cannot hold it up.
 */
export async function endQuietly(client: pg.Client): Promise<void> {
  try {
    await endsWithin(client.end(), END_TIMEOUT_MS)
  } catch {
    // It was broken already: there is nothing left to end.
  } finally {
    client.connection.stream.destroy()
  }
}

/** Not an error for users: TLS failed in a way that lets `prefer` try without. */
class PlainMayWorkError extends DomainError {}

async function connectOnce(credentials: SourceCredentials, options: SessionOptions): Promise<pg.Client> {
  const client = new pg.Client(clientConfigOf(credentials, options))
  client.on('error', () => undefined)
  const context = { subject: describeCredentials(credentials) }
  try {
    await client.connect()
    if (options.answerTimeoutMs === undefined) watchAnswers(client, credentials)
    if (options.replication !== true) await pinVersionDependentSettings(client)
    return client
  } catch (error) {
    await endQuietly(client)
    const mapped = toDomainError(error, context)
    // libpq goes on without TLS where the server has none and where it refuses the encrypted session (pg_hba's hostnossl).
    if (isTlsNotOffered(error) || sqlStateOf(error) === '28000') {
      throw new PlainMayWorkError({ kind: mapped.kind, message: mapped.message, remedy: mapped.remedy, cause: mapped.cause })
    }
    throw mapped
  }
}

/**
 * Ends the session when its connection turns out to be half open, see {@link watchSession}. For `credentials` whose sslmode is settled. Returns what
 * stops the watch; it stops by itself with the session.
 */
export function watchAnswers(client: pg.Client, credentials: SourceCredentials): () => void {
  const { connectTimeoutSeconds } = credentials
  const impatient = { ...credentials, connectTimeoutSeconds: Math.min(connectTimeoutSeconds === 0 ? Infinity : connectTimeoutSeconds, PROBE_TIMEOUT_MS / 1_000) }
  const openProbe = async (): Promise<pg.Client> => connectOnce(impatient, { statementTimeoutMs: PROBE_TIMEOUT_MS, answerTimeoutMs: PROBE_TIMEOUT_MS })
  return watchSession(client, { openProbe, end: endQuietly })
}

async function pinVersionDependentSettings(client: pg.Client): Promise<void> {
  await client.query('SELECT pg_catalog.set_config(s.name, w.value, false) FROM pg_catalog.pg_settings s JOIN pg_catalog.json_each_text($1::json) w ON w.key = s.name', [
    JSON.stringify(VERSION_DEPENDENT_SETTINGS),
  ])
}

/**
 * libpq's meaning of sslmode in Node.js's TLS options.
 *
 * Source: https://www.postgresql.org/docs/current/libpq-ssl.html
 */
function tlsOptionsOf(credentials: SourceCredentials): ConnectionOptions | false {
  const { sslmode, sslrootcert } = credentials
  if (sslmode === 'disable' || credentials.host.startsWith('/')) return false
  const files: ConnectionOptions = {
    ...(sslrootcert === null || sslrootcert === 'system' ? {} : { ca: readFile('sslrootcert', sslrootcert) }),
    ...(credentials.sslcert === null ? {} : { cert: readFile('sslcert', credentials.sslcert) }),
    ...(credentials.sslkey === null ? {} : { key: readFile('sslkey', credentials.sslkey) }),
  }
  switch (sslmode) {
    case 'verify-full':
      return { ...files, rejectUnauthorized: true }
    case 'verify-ca':
      return { ...files, rejectUnauthorized: true, checkServerIdentity: () => undefined }
    case 'prefer':
    case 'require':
      // With an authority at hand libpq checks the chain in these modes too.
      return sslrootcert === null ? { ...files, rejectUnauthorized: false } : { ...files, rejectUnauthorized: true, checkServerIdentity: () => undefined }
    default:
      return sslmode satisfies never
  }
}

function readFile(parameter: string, path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    const code = error instanceof Error ? String(Reflect.get(error, 'code')) : 'unknown'
    throw new DomainError({
      kind: 'InvalidConfig',
      message: `${parameter}: cannot read ${path} (${code})`,
      remedy: `Correct ${parameter} of this source, or make the file readable for the worker.`,
    })
  }
}
