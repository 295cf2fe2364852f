import { DomainError, type ErrorKind } from '../model/errors.ts'
import { remedyText, SLOT_LOST_REMEDY } from '../model/remedy.ts'

/**
 * The one mapping of what `pg`, the server and the socket report to the errors of this domain.
 *
 * The server's own text is taken over only for classes of errors that never quote a row's value; its `detail`, `where`,
 * `internalQuery` and `hint` never are. Server messages may be in any language (`lc_messages`), so classification goes by
 * SQLSTATE and by the name of the server routine; text is looked at only for errors of the driver, which have no code.
 *
 * Source: https://www.postgresql.org/docs/current/errcodes-appendix.html
 */

/** What was being done when the error came. */
export interface ErrorContext {
  /** The object, for the message: `slot "s"`, `database "shop" at db.example:5432`. */
  readonly subject: string
  /** Replaces the remedy that the mapping would give. */
  readonly remedy?: string
  /** A slot's changes are being decoded, with the catalog as it was at each of them: what was not there then is not to be had later. */
  readonly isDecoding?: boolean
}

/** SQLSTATEs and errnos that belong to one kind whatever was being done. Two characters stand for a class. */
const KIND_BY_CODE: Readonly<Record<string, ErrorKind>> = {
  '08': 'SourceUnavailable',
  '08P01': 'SourceNotReady', // poolers refuse replication connections and start-up options with it
  '0A': 'SourceNotReady',
  '22': 'ProtocolViolation',
  '22021': 'UnrepresentableValue', // text that UTF-8 has no bytes for: of a copy its table stops alone
  '22P05': 'UnrepresentableValue',
  '23': 'SourceUnavailable', // a lost race for a catalog entry: the next attempt finds it
  '25': 'SourceUnavailable',
  '25006': 'SourceNotReady',
  '28': 'AuthenticationFailed',
  '3D000': 'InvalidConfig',
  '3F': 'InvalidInput',
  '40': 'SourceUnavailable',
  '42': 'ProtocolViolation',
  '42501': 'PrivilegeMissing',
  '42703': 'InvalidInput',
  '42704': 'SourceNotReady',
  '42710': 'SourceUnavailable', // the same race, seen one step later
  '42P01': 'InvalidInput',
  '53': 'SourceUnavailable',
  '53400': 'SourceNotReady',
  '55': 'SourceNotReady',
  '55006': 'SlotInUse',
  '55P03': 'SourceUnavailable',
  '57': 'SourceUnavailable',
  '58': 'SourceUnavailable',
  P0: 'SourceNotReady', // an event trigger of the user's refused our statement
  XX: 'SourceUnavailable',
}

/** Classes whose primary message names objects and settings, never a value of a row. */
const CLASSES_WITH_SAFE_TEXT = new Set(['08', '0A', '25', '28', '3D', '3F', '40', '42', '53', '55', '57'])

const SLOT_ROUTINES = /^(ReplicationSlotAcquire|SearchNamedReplicationSlot|ReplicationSlotDrop|ReplicationSlotName|pg_drop_replication_slot|RaiseSlotInvalidationError|CreateDecodingContext|StartLogicalReplication|WalSndSegmentOpen|wal_segment_open|read_local_xlog_page.*|pg_logical_slot_.*)$/

const UNAVAILABLE_ERRNOS = new Set([
  'ECONNREFUSED',
  'ECONNRESET',
  'ECONNABORTED',
  'EPIPE',
  'ETIMEDOUT',
  'EHOSTUNREACH',
  'EHOSTDOWN',
  'ENETUNREACH',
  'ENETDOWN',
  'ENOTFOUND',
  'EAI_AGAIN',
  'ENOENT', // the unix socket of a server that is down
  'EMFILE',
  'ENFILE',
  'EADDRNOTAVAIL',
])

const CERTIFICATE_CODES = /^(ERR_TLS_|ERR_SSL_|CERT_|DEPTH_ZERO_|SELF_SIGNED_|UNABLE_TO_|HOSTNAME_MISMATCH|INVALID_CA|INVALID_PURPOSE|EPROTO$)/

/** Messages of `pg` itself, which carry no code (pg/lib/client.js, pg/lib/connection.js). */
const DRIVER_MESSAGES: readonly (readonly [RegExp, ErrorKind])[] = [
  [/^timeout expired$/, 'SourceUnavailable'],
  [/^Query read timeout$/, 'SourceUnavailable'],
  [/^Connection terminated/, 'SourceUnavailable'],
  [/is not queryable$/, 'SourceUnavailable'],
  [/^There was an error establishing an SSL connection$/, 'SourceUnavailable'],
  [/^The server does not support SSL connections$/, 'InvalidConfig'],
  [/^SASL: /, 'AuthenticationFailed'],
]

interface ErrorFacts {
  readonly name: string
  readonly message: string
  /** SQLSTATE, errno or null. */
  readonly code: string | null
  readonly isFromServer: boolean
  readonly routine: string | null
}

/** Classifies whatever was thrown while talking to PostgreSQL. A `DomainError` is returned as it is. */
export function toDomainError(error: unknown, context: ErrorContext): DomainError {
  if (error instanceof DomainError) return error
  const facts = factsOf(error)
  const lacksPublication = context.isDecoding === true && facts.isFromServer && facts.code === '42704' && facts.routine === 'get_publication_oid'
  const kind = lacksPublication ? 'SlotLost' : kindOf(facts)
  const text = lacksPublication ? `${safeText(facts)} where the stream stands: what was written while it was not there cannot be decoded` : safeText(facts)
  return new DomainError({
    kind,
    message: `${context.subject}: ${text}`,
    remedy: context.remedy ?? remedyOf(kind, facts),
    cause: causeOf(facts, text),
  })
}

/** The SQLSTATE of an error that the server sent, else null. */
export function sqlStateOf(error: unknown): string | null {
  const facts = factsOf(error)
  return facts.isFromServer ? facts.code : null
}

/** True for the driver's answer to a server without TLS. */
export function isTlsNotOffered(error: unknown): boolean {
  return factsOf(error).message === 'The server does not support SSL connections'
}

function kindOf(facts: ErrorFacts): ErrorKind {
  const { code } = facts
  if (facts.isFromServer && code !== null) {
    if (SLOT_ROUTINES.test(facts.routine ?? '')) {
      const kind = slotErrorKind(code, facts.message)
      if (kind !== null) return kind
    }
    if (isTooLarge(facts)) return 'UnrepresentableValue'
    return KIND_BY_CODE[code] ?? KIND_BY_CODE[code.slice(0, 2)] ?? 'ProtocolViolation'
  }
  if (code !== null) {
    if (UNAVAILABLE_ERRNOS.has(code)) return 'SourceUnavailable'
    if (CERTIFICATE_CODES.test(code)) return 'AuthenticationFailed'
    if (code.startsWith('ERR_OSSL_')) return 'InvalidConfig'
  }
  return DRIVER_MESSAGES.find(([pattern]) => pattern.test(facts.message))?.[1] ?? 'ProtocolViolation'
}

/** What an error of the slot's own routines means; null where the code alone says it. */
function slotErrorKind(code: string, message: string): ErrorKind | null {
  switch (code) {
    case '42704': // no such slot
    case '58P01': // its WAL is gone
      return 'SlotLost'
    case '55000':
      // One code and one routine for three things. The two that preflight finds first have only their (English) text.
      return /physical|not created in this database|not a logical/.test(message) ? 'InvalidInput' : 'SlotLost'
    default:
      return null
  }
}

/**
 * Cannot the server make the text of a row? No string of it is longer than 1 GB less a byte, of which a byte of `bytea` takes two. (The first of both texts is not translated.)
 *
 * Source: https://github.com/postgres/postgres/blob/REL_18_STABLE/src/include/utils/memutils.h (MaxAllocSize)
 */
function isTooLarge({ isFromServer, code, routine, message }: ErrorFacts): boolean {
  if (!isFromServer) return false
  return code === 'XX000' ? /^invalid memory alloc request size \d+$/.test(message) : code === '54000' && routine === 'enlargeStringInfo'
}

function safeText(facts: ErrorFacts): string {
  if (!facts.isFromServer) {
    const isOurs = facts.code !== null || DRIVER_MESSAGES.some(([pattern]) => pattern.test(facts.message))
    if (!isOurs) return `unexpected ${facts.name}`
    return facts.message === 'timeout expired' ? 'no connection within connect_timeout' : facts.message
  }
  const code = facts.code ?? '?'
  if (isTooLarge(facts)) return `a row is longer as text than the 1 GB that PostgreSQL can send (SQLSTATE ${code})`
  if (KIND_BY_CODE[code] === 'UnrepresentableValue') return `a text of the database cannot be converted to UTF-8 (SQLSTATE ${code})`
  return CLASSES_WITH_SAFE_TEXT.has(code.slice(0, 2)) ? `${facts.message} (SQLSTATE ${code})` : `the server answered SQLSTATE ${code}`
}

const CERTIFICATE_REMEDY =
  'Set sslrootcert to the certificate of the authority that signed the server\'s (and sslcert and sslkey where the server asks for a client certificate), and connect by the host name that stands in it.'

const NO_UTF8_REMEDY = 'Some text of the database cannot be converted to UTF-8. Change it at the source; where it has come in the stream already, start again with "reset": true.'

const TOO_LARGE_REMEDY =
  'Make the value smaller at the source (a bytea has two characters a byte), or leave its column out with includeColumns. Where it has come in the stream already, start again with "reset": true.'

const REMEDY_BY_CODE: Readonly<Record<string, string>> = {
  '08P01': 'Connect to the server itself, not through a connection pooler.',
  '22021': NO_UTF8_REMEDY,
  '22P05': NO_UTF8_REMEDY,
  '25006': 'Connect to the primary server.',
  '3D000': 'Correct the database name of this source in the configuration.',
  '53300': 'Raise max_connections (max_wal_senders for replication), or end idle sessions. It is tried again.',
  '53400': remedyText('Raise max_replication_slots, or drop a slot that nobody needs; those that nobody uses now:', ['SELECT slot_name FROM pg_replication_slots WHERE NOT active']),
  '55P03': 'Another session holds the lock; see pg_locks and pg_stat_activity. It is tried again.',
}

const REMEDY_BY_KIND: Partial<Readonly<Record<ErrorKind, string>>> = {
  AuthenticationFailed: remedyText('Correct username and password of this source, or allow the connection in the server\'s pg_hba.conf and then run:', ['SELECT pg_reload_conf()']),
  InvalidConfig: 'Switch on TLS at the server (ssl = on), set sslmode to prefer or disable, or correct sslcert and sslkey.',
  InvalidInput: 'Correct the name that the server does not know.',
  PrivilegeMissing: 'Grant the missing privilege to the source\'s role.',
  SlotInUse: remedyText('Give another slotName, or stop the program that uses the slot:', ['SELECT slot_name, active_pid FROM pg_replication_slots WHERE active']),
  SlotLost: SLOT_LOST_REMEDY,
  SourceNotReady: 'Mend what the server names, then start again.',
  SourceUnavailable: 'See that the server runs and can be reached from this worker. It is tried again.',
}

function remedyOf(kind: ErrorKind, facts: ErrorFacts): string {
  const code = facts.code ?? ''
  if (!facts.isFromServer && CERTIFICATE_CODES.test(code)) return CERTIFICATE_REMEDY
  if (isTooLarge(facts)) return TOO_LARGE_REMEDY
  return (facts.isFromServer ? REMEDY_BY_CODE[code] : undefined) ?? REMEDY_BY_KIND[kind] ?? 'See the server\'s log at this time.'
}

/** The name of a {@link DomainError}'s cause that the server sent. */
export const SERVER_ERROR = 'PostgresError'

/** A copy that is safe to keep: the code for programs, no text that could hold a value, no properties of the driver's. */
function causeOf(facts: ErrorFacts, text: string): Error {
  const cause = new Error(text)
  cause.name = facts.isFromServer ? SERVER_ERROR : facts.name
  delete cause.stack
  return Object.assign(cause, facts.code === null ? {} : { code: facts.code })
}

function factsOf(error: unknown): ErrorFacts {
  if (!(error instanceof Error)) return { name: 'error', message: '', code: null, isFromServer: false, routine: null }
  // Happy eyeballs: one error per address, the code stands on the aggregate.
  const first: unknown = error instanceof AggregateError && error.message === '' ? error.errors[0] : undefined
  const code = stringOf(error, 'code') ?? (first instanceof Error ? stringOf(first, 'code') : null)
  return {
    name: error.name,
    message: first instanceof Error ? first.message : error.message,
    code,
    isFromServer: stringOf(error, 'severity') !== null && code !== null && /^[0-9A-Z]{5}$/.test(code),
    routine: stringOf(error, 'routine'),
  }
}

function stringOf(error: Error, property: string): string | null {
  const value: unknown = Reflect.get(error, property)
  return typeof value === 'string' ? value : null
}
