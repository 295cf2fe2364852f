import { inspect } from 'node:util'
import { parse } from 'pg-connection-string'
import { DomainError } from '../model/errors.ts'
import { nearest } from './nearest.ts'

/**
 * How TLS is used, in libpq's meaning: `prefer` = TLS if the server offers it, else plain; `require` = TLS, nothing verified unless
 * `sslrootcert` is given; `verify-ca` = the chain; `verify-full` = the chain and the host name.
 *
 * Source: https://www.postgresql.org/docs/current/libpq-ssl.html#LIBPQ-SSL-SSLMODE-STATEMENTS
 */
export const SSL_MODES = ['disable', 'prefer', 'require', 'verify-ca', 'verify-full'] as const
export type SslMode = (typeof SSL_MODES)[number]

/** How to reach a PostgreSQL database. Printing or serialising it shows no password. */
export interface SourceCredentials {
  /** Host name, address, or the directory of a unix socket. */
  readonly host: string
  readonly port: number
  readonly database: string
  readonly username: string
  /** null: none is sent (trust, peer, certificate). */
  readonly password: string | null
  readonly sslmode: SslMode
  /** Path of the authorities' certificates; `system` = those that come with Node.js. */
  readonly sslrootcert: string | null
  /** Paths of the client's certificate and key. */
  readonly sslcert: string | null
  readonly sslkey: string | null
  /** Binds authentication to the TLS channel where the server offers it (libpq's `prefer`; `require` is taken as that too). */
  readonly channelBinding: boolean
  /** Seconds; 0 = for ever. */
  readonly connectTimeoutSeconds: number
  readonly applicationName: string | null
  /** The user's own start-up options (`-c name=value`); what we pin wins over them. */
  readonly options: string | null
}

/** Fields of a `[sources.*]` table. `credentials` is a URL; other fields win over its parts. */
export type CredentialFields = Readonly<Record<string, string | number | undefined>>

const DEFAULT_CONNECT_TIMEOUT_SECONDS = 30

/** URL parameters and field names that mean the same. */
const FIELD_ALIASES: Readonly<Record<string, string>> = { user: 'username', dbname: 'database' }
const FIELDS = [
  'host', 'port', 'database', 'username', 'password', 'sslmode', 'sslrootcert', 'sslcert', 'sslkey', 'connect_timeout', 'application_name', 'options', 'channel_binding',
]
/** libpq's parameters that change nothing here; refusing them would refuse URLs that a provider prints. */
const IGNORED_PARAMETERS = new Set([
  'client_encoding', 'fallback_application_name', 'gssencmode', 'keepalives', 'keepalives_count', 'keepalives_idle', 'keepalives_interval',
  'krbsrvname', 'sslcompression', 'sslnegotiation', 'sslsni', 'target_session_attrs', 'tcp_user_timeout', 'uselibpqcompat',
])

/**
 * Parses a URL or the fields of a source. Throws `InvalidConfig`, which never quotes what was given.
 *
 * Source: https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-URIS
 */
export function parseCredentials(input: string | CredentialFields): SourceCredentials {
  const fields = typeof input === 'string' ? fieldsOfUrl(input) : mergedFields(input)
  const text = (name: string): string | null => {
    const value = fields[name]
    return value === undefined || value === '' ? null : String(value)
  }
  const username = text('username')
  if (username === null) throw invalid('the credentials have no username', 'Give username, or a URL such as postgresql://user:password@host:5432/database.')
  const host = text('host') ?? 'localhost'
  if (host.includes(',')) throw invalid('the credentials name several hosts', 'Give one host: a slot lives on one server.')
  const sslmode = sslModeOf(text('sslmode') ?? 'prefer')
  const sslrootcert = text('sslrootcert')
  if (sslmode === 'verify-ca' && sslrootcert === null) {
    throw invalid('sslmode verify-ca needs sslrootcert', 'Set sslrootcert to the authority\'s certificate file, or use sslmode verify-full.')
  }
  if (sslrootcert === 'system' && sslmode !== 'verify-full') {
    throw invalid('sslrootcert "system" needs sslmode verify-full', 'Use sslmode verify-full: anybody can have a certificate of a public authority.')
  }
  if ((text('sslcert') === null) !== (text('sslkey') === null)) {
    throw invalid('sslcert and sslkey belong together', 'Give both: the client\'s certificate and its key.')
  }
  return masked({
    host,
    port: integerOf('port', text('port') ?? '5432', { minimum: 1, maximum: 65_535 }),
    database: text('database') ?? username,
    username,
    password: text('password'),
    sslmode,
    sslrootcert,
    sslcert: text('sslcert'),
    sslkey: text('sslkey'),
    channelBinding: ['prefer', 'require'].includes(text('channel_binding') ?? ''),
    connectTimeoutSeconds: integerOf('connect_timeout', text('connect_timeout') ?? String(DEFAULT_CONNECT_TIMEOUT_SECONDS), { minimum: 0, maximum: 86_400 }),
    applicationName: text('application_name'),
    options: text('options'),
  })
}

/** The same credentials with another sslmode. */
export function withSslMode(credentials: SourceCredentials, sslmode: SslMode): SourceCredentials {
  return masked({ ...credentials, sslmode })
}

/** `database "shop" at db.example:5432`: the subject of errors. */
export function describeCredentials(credentials: SourceCredentials): string {
  return `database ${JSON.stringify(credentials.database)} at ${credentials.host}:${credentials.port}`
}

function mergedFields(input: CredentialFields): CredentialFields {
  const { credentials, ...rest } = input
  const known: Record<string, string | number | undefined> = {}
  for (const [name, value] of Object.entries(rest)) known[fieldName(name)] = value
  return { ...(credentials === undefined ? {} : fieldsOfUrl(String(credentials))), ...known }
}

function fieldsOfUrl(url: string): CredentialFields {
  if (!/^(postgres|postgresql)(\+\w+)?:\/\//.test(url)) {
    throw invalid('credentials is not a PostgreSQL URL', 'Write postgresql://user:password@host:5432/database, or use the fields host, port, database, username, password.')
  }
  // A blank would make pg-connection-string encode the whole URL again, its escapes too.
  const [base = '', query = ''] = url.trim().replaceAll(' ', '%20').replace(/^postgres(ql)?\+\w+:/, 'postgresql:').split(/\?(.*)/s)
  const fields: Record<string, string> = {}
  try {
    if (query.includes('@') && !base.includes('@')) throw new Error('the password holds a question mark')
    // TLS parameters are ours: pg-connection-string would read files here, and gives sslmode another meaning than libpq.
    const parsed = parse(base)
    for (const [name, value] of Object.entries({ host: parsed.host, port: parsed.port, database: parsed.database, username: parsed.user, password: parsed.password })) {
      if (typeof value === 'string' && value !== '') fields[name] = value
    }
  } catch {
    throw invalid('credentials is not a valid URL', 'Percent-encode special characters of user name and password (@ is %40, / is %2F, # is %23, ? is %3F, % is %25).')
  }
  for (const [name, value] of new URLSearchParams(query.replaceAll('+', '%2B'))) {
    if (!IGNORED_PARAMETERS.has(name)) fields[fieldName(name)] = value
  }
  return fields
}

function fieldName(name: string): string {
  const known = FIELD_ALIASES[name] ?? name
  if (FIELDS.includes(known)) return known
  const near = nearest(known, FIELDS)
  throw invalid(`unknown credentials parameter ${JSON.stringify(name)}`, near === null ? `Known are: ${FIELDS.join(', ')}.` : `Did you mean ${near}?`)
}

function sslModeOf(text: string): SslMode {
  const mode = SSL_MODES.find((known) => known === text)
  if (mode === undefined) throw invalid(`unknown sslmode ${JSON.stringify(text)}`, `Use one of ${SSL_MODES.join(', ')}.`)
  return mode
}

function integerOf(name: string, text: string, range: { readonly minimum: number; readonly maximum: number }): number {
  const value = /^\d+$/.test(text) ? Number(text) : Number.NaN
  if (!(value >= range.minimum && value <= range.maximum)) {
    throw invalid(`${name} is not a whole number from ${range.minimum} to ${range.maximum}`, `Correct ${name} of this source.`)
  }
  return value
}

function masked(credentials: SourceCredentials): SourceCredentials {
  const shown = { ...credentials, password: credentials.password === null ? null : '***' }
  Object.defineProperty(credentials, 'toJSON', { value: () => shown })
  Object.defineProperty(credentials, inspect.custom, { value: () => shown })
  return credentials
}

function invalid(message: string, remedy: string): DomainError {
  return new DomainError({ kind: 'InvalidConfig', message, remedy })
}
