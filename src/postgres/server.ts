import { z } from 'zod'
import { asRecordEnd, parseLsn, type Lsn } from '../model/lsn.ts'
import type { SourceHealth, SourceIdentity } from '../model/source.ts'
import { CURRENT_LSN, readSlot } from './slot.ts'
import { queryRow, type SqlClient } from './sql.ts'

/** The oldest version that this adapter speaks with: 14 brought what `pgoutput` and the snapshot functions need. */
export const OLDEST_SERVER_VERSION = 140_000

/** What the server and our role are, as far as checks need it. */
export interface ServerFacts {
  readonly identity: SourceIdentity
  readonly isInRecovery: boolean
  readonly walLevel: string
  readonly maxReplicationSlots: number
  readonly usedReplicationSlots: number
  readonly maxWalSenders: number
  readonly usedWalSenders: number
  readonly role: RoleFacts
}

export interface RoleFacts {
  readonly name: string
  readonly isSuperuser: boolean
  /** The attribute, or what a managed service has in its place. */
  readonly canReplicate: boolean
  /** The managed service's role that stands for the attribute; null where there is none. */
  readonly replicationRole: string | null
  readonly canCreateInDatabase: boolean
}

const IDENTITY_ROW = z.object({
  systemIdentifier: z.string(),
  timeline: z.number(),
  databaseName: z.string(),
  serverVersion: z.number(),
})

// The control file's timeline lags behind a promotion until the next checkpoint; the WAL file's name does not.
const IDENTITY_COLUMNS = `
  (SELECT system_identifier::text FROM pg_control_system()) AS "systemIdentifier",
  CASE WHEN pg_is_in_recovery() THEN (SELECT timeline_id FROM pg_control_checkpoint())
       ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int END AS timeline,
  current_database()::text AS "databaseName",
  current_setting('server_version_num')::int AS "serverVersion"`

const FACTS_ROW = IDENTITY_ROW.extend({
  isInRecovery: z.boolean(),
  walLevel: z.string(),
  maxReplicationSlots: z.number(),
  usedReplicationSlots: z.number(),
  maxWalSenders: z.number(),
  usedWalSenders: z.number(),
  roleName: z.string(),
  isSuperuser: z.boolean(),
  hasReplicationAttribute: z.boolean(),
  replicationRole: z.string().nullable(),
  hasReplicationRole: z.boolean(),
  canCreateInDatabase: z.boolean(),
})

/**
 * Which cluster and database this is: what must be the same for a stored position to mean anything.
 *
 * Source: https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-INFO-CONTROLDATA
 */
export async function readIdentity(client: SqlClient): Promise<SourceIdentity> {
  return await queryRow(client, IDENTITY_ROW, { text: `SELECT ${IDENTITY_COLUMNS}`, subject: 'identity of the source' })
}

/** Reads {@link ServerFacts} in one statement. Needs no privilege. */
export async function readServerFacts(client: SqlClient): Promise<ServerFacts> {
  const row = await queryRow(client, FACTS_ROW, {
    subject: 'settings of the source',
    text: `
      SELECT ${IDENTITY_COLUMNS},
        pg_is_in_recovery() AS "isInRecovery",
        current_setting('wal_level') AS "walLevel",
        current_setting('max_replication_slots')::int AS "maxReplicationSlots",
        (SELECT count(*)::int FROM pg_replication_slots) AS "usedReplicationSlots",
        current_setting('max_wal_senders')::int AS "maxWalSenders",
        (SELECT count(*)::int FROM pg_stat_replication) AS "usedWalSenders",
        r.rolname::text AS "roleName", r.rolsuper AS "isSuperuser", r.rolreplication AS "hasReplicationAttribute",
        managed.rolname::text AS "replicationRole",
        coalesce(pg_has_role(r.oid, managed.oid, 'USAGE'), false) AS "hasReplicationRole",
        has_database_privilege(current_database(), 'CREATE') AS "canCreateInDatabase"
      FROM pg_roles r
      LEFT JOIN pg_roles managed ON managed.rolname = 'rds_replication'
      WHERE r.rolname = current_user`,
  })
  return {
    identity: { systemIdentifier: row.systemIdentifier, timeline: row.timeline, databaseName: row.databaseName, serverVersion: row.serverVersion },
    isInRecovery: row.isInRecovery,
    walLevel: row.walLevel,
    maxReplicationSlots: row.maxReplicationSlots,
    usedReplicationSlots: row.usedReplicationSlots,
    maxWalSenders: row.maxWalSenders,
    usedWalSenders: row.usedWalSenders,
    role: {
      name: row.roleName,
      isSuperuser: row.isSuperuser,
      canReplicate: row.isSuperuser || row.hasReplicationAttribute || row.hasReplicationRole,
      replicationRole: row.replicationRole,
      canCreateInDatabase: row.canCreateInDatabase,
    },
  }
}

const COMMITTED_LSN = '(CASE WHEN pg_is_in_recovery() THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) ELSE pg_current_wal_insert_lsn() END)::text'

/** Past every commit that a query before it has seen: the insert position, as a commit may be visible before it is written. */
export async function readSeenPosition(client: SqlClient): Promise<Lsn> {
  const { lsn } = await queryRow(client, z.object({ lsn: z.string() }), { text: `SELECT ${COMMITTED_LSN} AS lsn`, subject: 'position of the source' })
  return asRecordEnd(parseLsn(lsn))
}

// Made once: zod compiles a schema when it is used first.
const HEALTH_ROW = z.object({ currentLsn: z.string(), committedLsn: z.string(), maxSlotWalKeepMegabytes: z.number(), idleSlotTimeoutSeconds: z.number() })

/** The server's write position (on a standby: the replay position) and the slot's state; `slot` is null where there is none. */
export async function readHealth(client: SqlClient, slotName: string): Promise<SourceHealth> {
  const slot = await readSlot(client, slotName)
  const row = await queryRow(client, HEALTH_ROW, {
    text: `
      SELECT ${CURRENT_LSN}::text AS "currentLsn",
        ${COMMITTED_LSN} AS "committedLsn",
        (SELECT setting::int FROM pg_settings WHERE name = 'max_slot_wal_keep_size') AS "maxSlotWalKeepMegabytes",
        coalesce((SELECT extract(epoch FROM (setting || unit)::interval)::int FROM pg_settings WHERE name = 'idle_replication_slot_timeout'), 0) AS "idleSlotTimeoutSeconds"`,
    subject: 'position of the source',
  })
  const { maxSlotWalKeepMegabytes, idleSlotTimeoutSeconds } = row
  const maxSlotWalKeepBytes = maxSlotWalKeepMegabytes < 0 ? null : maxSlotWalKeepMegabytes * 2 ** 20
  return { currentLsn: parseLsn(row.currentLsn), committedLsn: asRecordEnd(parseLsn(row.committedLsn)), maxSlotWalKeepBytes, idleSlotTimeoutSeconds: idleSlotTimeoutSeconds > 0 ? idleSlotTimeoutSeconds : null, slot }
}
