import { POSTGRES_EPOCH_MICROS } from '../model/change.ts'
import { ZERO_LSN, type Lsn } from '../model/lsn.ts'

const TAG_STANDBY_STATUS = 0x72 // r
const MESSAGE_BYTES = 34

/**
 * A Standby status update that confirms `flushLsn` **exactly**: the server will send every transaction whose commit LSN is at or past it.
 *
 * `pg-logical-replication`'s `acknowledge(lsn)` is not used, because it sends `lsn + 1`: after the end LSN of a transaction that is one byte
 * into the next one's record, which a restarted stream then leaves out (facts 1). Written, flushed and applied are one position: with
 * `synchronous_commit = remote_write` a larger written position would let a commit return before its changes are durable here.
 * `null` confirms nothing (0/0, which the server ignores) and only shows that we are alive.
 *
 * Source: https://www.postgresql.org/docs/current/protocol-replication.html#PROTOCOL-REPLICATION-STANDBY-STATUS-UPDATE
 */
export function encodeStandbyStatus(flushLsn: Lsn | null, nowMs: number, isReplyRequested: boolean): Buffer {
  const lsn = flushLsn ?? ZERO_LSN
  const message = Buffer.alloc(MESSAGE_BYTES)
  message[0] = TAG_STANDBY_STATUS
  message.writeBigUInt64BE(lsn, 1)
  message.writeBigUInt64BE(lsn, 9)
  message.writeBigUInt64BE(lsn, 17)
  message.writeBigInt64BE(BigInt(Math.trunc(nowMs)) * 1000n - POSTGRES_EPOCH_MICROS, 25)
  message[33] = isReplyRequested ? 1 : 0
  return message
}

const LONGEST_INTERVAL_MS = 5_000

/**
 * How often the server must hear from us: at most every 5 s, and three times within its `wal_sender_timeout` (0 = it waits for ever), so that
 * neither a late timer nor one lost update ends the connection.
 *
 * Source: https://www.postgresql.org/docs/current/runtime-config-replication.html#GUC-WAL-SENDER-TIMEOUT
 */
export function statusIntervalMs(walSenderTimeoutMs: number): number {
  if (walSenderTimeoutMs <= 0) return LONGEST_INTERVAL_MS
  return Math.max(1, Math.min(LONGEST_INTERVAL_MS, Math.floor(walSenderTimeoutMs / 3)))
}
