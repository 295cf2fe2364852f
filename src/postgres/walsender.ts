import type pg from 'pg'
import { isSingleByte, readByteTable } from './byte-table.ts'
import type { ByteTable } from './pgoutput/source-text.ts'
import { DomainError } from '../model/errors.ts'
import { formatLsn, type Lsn } from '../model/lsn.ts'
import { TAKE_BYTES_AS_THEY_ARE } from './session.ts'
import { quoteIdentifier } from './sql.ts'

/** What is needed of a `pg` client whose connection is a walsender. */
export interface Walsender {
  readonly pid: number | null
  /** `wal_sender_timeout` in milliseconds; 0 = none. */
  readonly walSenderTimeoutMs: number
  /** `server_version_num`. */
  readonly serverVersion: number
  /** What text comes in where the server does not convert it, as it does not for a single-byte encoding; null = UTF-8, or bytes as they are (SQL_ASCII). */
  readonly byteTable: ByteTable | null
  /** Sends a CopyData message; does nothing on a connection that is closed. */
  sendCopyData(content: Buffer): void
  /** Sends Terminate and ends our side of the connection. */
  terminate(): void
}

const NO_TRANSACTION_TIMEOUT = `SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings WHERE name = 'transaction_timeout'`
const TAKE_NO_CONVERSION = `SELECT pg_catalog.set_config('client_encoding', 'SQL_ASCII', false)`
const SETTINGS = `SELECT setting AS timeout, pg_catalog.current_setting('server_version_num') AS version, pg_catalog.current_setting('server_encoding') AS encoding FROM pg_catalog.pg_settings WHERE name = 'wal_sender_timeout'`
/** The first version that streams transactions in progress. */
const STREAMING_SERVER_VERSION = 140_000

/**
 * Prepares a connected walsender session for a stream that may run for weeks: decoding a long transaction must not run into
 * `transaction_timeout` (17+).
 */
export async function prepareWalsender(client: pg.Client): Promise<Walsender> {
  await client.query(NO_TRANSACTION_TIMEOUT)
  const { rows: [settings] } = await client.query<{ timeout: string; version: string; encoding: string }>(SETTINGS)
  const encoding = settings?.encoding ?? ''
  const byteTable = isSingleByte(encoding) ? await readByteTable(client, encoding) : null
  await client.query(byteTable === null ? TAKE_BYTES_AS_THEY_ARE : TAKE_NO_CONVERSION)
  const { connection } = client
  const send: unknown = Reflect.get(connection, 'sendCopyFromChunk')
  if (typeof send !== 'function') {
    throw new DomainError({ kind: 'ProtocolViolation', message: 'the installed version of pg cannot send CopyData', remedy: 'Install the packages as package-lock.json names them: npm ci.' })
  }
  const pid: unknown = Reflect.get(client, 'processID')
  return {
    pid: typeof pid === 'number' ? pid : null,
    walSenderTimeoutMs: Number(settings?.timeout ?? 0),
    serverVersion: Number(settings?.version ?? 0),
    byteTable,
    sendCopyData: (content) => { send.call(connection, content) },
    terminate: () => { connection.end() },
  }
}

/** Does the server speak version 2 of the protocol, in which transactions in progress may be streamed? */
export function canStream({ serverVersion }: Walsender): boolean {
  return serverVersion >= STREAMING_SERVER_VERSION
}

export interface ReplicationCommandOptions {
  readonly slotName: string
  readonly publicationName: string
  readonly startLsn: Lsn
  /** True: protocol version 2, and large transactions come while they are in progress; false: version 1. */
  readonly isStreaming: boolean
}

/**
 * START_REPLICATION at exactly `startLsn`. The publication's name is an identifier in a list in a string, hence quoted twice;
 * the replication grammar knows no escape strings.
 *
 * Source: https://www.postgresql.org/docs/current/protocol-replication.html#PROTOCOL-REPLICATION-START-REPLICATION-SLOT-LOGICAL
 * and https://www.postgresql.org/docs/current/protocol-logical-replication.html#PROTOCOL-LOGICAL-REPLICATION-PARAMS
 */
export function startReplicationCommand({ slotName, publicationName, startLsn, isStreaming }: ReplicationCommandOptions): string {
  const publications = `'${quoteIdentifier(publicationName).replaceAll(`'`, `''`)}'`
  const protocol = isStreaming ? `proto_version '2', streaming 'on'` : `proto_version '1'`
  return `START_REPLICATION SLOT ${quoteIdentifier(slotName)} LOGICAL ${formatLsn(startLsn)} (${protocol}, publication_names ${publications}, binary 'false')`
}
