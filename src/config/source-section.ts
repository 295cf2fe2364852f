import { parseCredentialsUrl } from './credentials-url.ts'
import { environmentKey } from './environment.ts'
import { assign, describeSection, type Layers, noteMissing, noteUnknown, type RawSection, readLayers } from './layers.ts'
import { hideSecrets } from './mask.ts'
import {
  CREDENTIAL_OPTIONS,
  DEFAULT_CONNECT_TIMEOUT_SECONDS,
  DEFAULT_HOST,
  DEFAULT_PORT,
  SOURCE_OPTIONS,
  SSL_MODES,
  type SslMode,
} from './options.ts'
import { type GivenValue, readValue, type ReadContext, type Values } from './values.ts'

/**
 * How one PostgreSQL server is reached: the postgres adapter's `SourceCredentials`. Paths are absolute; null = not given.
 * Printing or serialising it shows no password.
 */
export interface ServerCredentials {
  /** Host name, address, or the directory of a Unix socket. */
  readonly host: string
  readonly port: number
  readonly database: string
  readonly username: string
  readonly password: string | null
  readonly sslmode: SslMode
  /** A file, or `system`. */
  readonly sslrootcert: string | null
  readonly sslcert: string | null
  readonly sslkey: string | null
  readonly channelBinding: boolean
  /** 0 = no limit of ours. */
  readonly connectTimeoutSeconds: number
  readonly applicationName: string | null
  /** libpq's `options`: command-line options for the server session. */
  readonly options: string | null
}

export interface SourceConfig {
  readonly name: string
  /** Slots are made as failover slots. */
  readonly makesFailoverSlots: boolean
  readonly credentials: ServerCredentials
}

/** Reads `[sources.<name>]`; undefined where it has problems. */
export function readSource(raw: RawSection, context: ReadContext): SourceConfig | undefined {
  const noted = context.problems.length
  const layers = readLayers(raw, SOURCE_OPTIONS, context)
  if (context.problems.length > noted) return undefined
  const credentials = readCredentials(raw, layers, context)
  const makesFailoverSlots = (layers.environment['failoverSlots'] ?? layers.file['failoverSlots']) === 'on'
  return credentials === undefined ? undefined : { name: raw.name, makesFailoverSlots, credentials }
}

/** A URL's parts as option values; the options beside the URL win. */
function expandUrl(values: Values, place: string, context: ReadContext): Values {
  const { credentials, ...fields } = values
  if (typeof credentials !== 'string') return values
  const parsed = parseCredentialsUrl(credentials)
  if (!parsed.ok) {
    context.problems.push({
      message: `${place} ${parsed.reason}`,
      remedy: 'write postgresql://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=require, or give host, port, database, username and password instead',
    })
    return fields
  }
  const parts: Record<string, string | number> = {}
  const entries = CREDENTIAL_OPTIONS.filter((entry) => entry.key !== 'credentials')
  for (const [key, value] of Object.entries(parsed.parts)) {
    const entry = entries.find((candidate) => candidate.key === key)
    const partPlace = `${key} in ${place}`
    const given: GivenValue = { value, place: partPlace, isText: true }
    if (entry === undefined) noteUnknown(`the parameter ${partPlace}`, key, { entries, context })
    else assign(parts, entry, readValue(entry, given, context))
  }
  return { ...parts, ...fields }
}

const WHERE_AND_WHO = ['host', 'port', 'database', 'username', 'password']

/** Merges file and environment and fills in the defaults; undefined, with the problems noted, where something is missing. */
export function readCredentials(raw: RawSection, layers: Layers, context: ReadContext): ServerCredentials | undefined {
  const noted = context.problems.length
  const filePlace = `${raw.file.placeOf([raw.section, raw.name, 'credentials'])}: ${describeSection(raw)}.credentials`
  const variable = raw.overrides.find(({ key }) => environmentKey(key) === 'credentials')?.variable ?? ''
  const file = expandUrl(layers.file, filePlace, context)
  const environment = expandUrl(layers.environment, `the environment variable ${variable}`, context)
  // A URL in the environment says where and who altogether: the file's password must not travel to another host.
  const isReplaced = 'credentials' in layers.environment
  const kept = Object.fromEntries(Object.entries(file).filter(([key]) => !isReplaced || !WHERE_AND_WHO.includes(key)))
  const values: Values = { ...kept, ...environment }

  if (values['username'] === undefined) {
    if (context.problems.length === noted) noteMissing(raw, ['username'], context)
    return undefined
  }
  const text = (key: string): string | null => (values[key] === undefined ? null : String(values[key]))
  const username = String(values['username'])
  const credentials: ServerCredentials = {
    host: text('host') ?? DEFAULT_HOST,
    port: Number(values['port'] ?? DEFAULT_PORT),
    database: text('database') ?? username,
    username,
    password: text('password'),
    sslmode: SSL_MODES.find((mode) => mode === values['sslmode']) ?? 'prefer',
    sslrootcert: text('sslrootcert'),
    sslcert: text('sslcert'),
    sslkey: text('sslkey'),
    channelBinding: ['prefer', 'require'].includes(text('channel_binding') ?? ''),
    connectTimeoutSeconds: Number(values['connect_timeout'] ?? DEFAULT_CONNECT_TIMEOUT_SECONDS),
    applicationName: text('application_name'),
    options: text('options'),
  }
  noteTlsContradictions(raw, credentials, context)
  return context.problems.length > noted ? undefined : hideSecrets(credentials)
}

function noteTlsContradictions(raw: RawSection, credentials: ServerCredentials, context: ReadContext): void {
  const { sslmode, sslrootcert, sslcert, sslkey } = credentials
  const note = (key: string, what: string, remedy: string): void => {
    context.problems.push({ message: `${raw.file.placeOf([raw.section, raw.name, key])}: ${describeSection(raw)}: ${what}`, remedy })
  }
  if (sslmode === 'verify-ca' && sslrootcert === null) {
    note('sslmode', 'sslmode verify-ca needs sslrootcert', "set sslrootcert to the authority's certificate file, or use sslmode verify-full")
  }
  if (sslrootcert === 'system' && sslmode !== 'verify-full') {
    note('sslrootcert', 'sslrootcert "system" needs sslmode verify-full', 'use verify-full: anybody can have a certificate of a public authority')
  }
  if ((sslcert === null) !== (sslkey === null)) {
    note('sslcert', 'sslcert and sslkey belong together', "give both: the client's certificate and its key")
  }
}
