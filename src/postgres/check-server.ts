import { remedyText } from '../model/remedy.ts'
import { failureFinding, okFinding, warningFinding, type PreflightFinding } from './findings.ts'
import { OLDEST_SERVER_VERSION, type ServerFacts } from './server.ts'
import { IDLE_SLOTS, type SlotDetails } from './slot.ts'
import { quoteIdentifier, quoteLiteral } from './sql.ts'

/** What the checks of the server need to know beside it. */
export interface ServerNeeds {
  /** True where a slot has to be made. */
  readonly newSlot: boolean
  /** Where slots of this source are to be failover slots: the one that is there, null for one that has to be made. */
  readonly failoverSlot?: Pick<SlotDetails, 'name' | 'isFailover'> | null
  /** True where the publication has to be made or altered. */
  readonly publicationChange: boolean
}

/** Managed services do not let settings be altered by SQL: what to look for there. */
const MANAGED = 'managed services: RDS and Aurora rds.logical_replication = 1, Cloud SQL cloudsql.logical_decoding = on, Azure wal_level = logical in the server parameters'

/** Is the version one that we speak with? The checks after it read catalogs that older servers do not have. */
export function checkVersion(server: ServerFacts): PreflightFinding {
  const version = server.identity.serverVersion
  const text = version >= 100_000 ? `${Math.floor(version / 10_000)}.${version % 10_000}` : `${Math.floor(version / 10_000)}.${Math.floor(version / 100) % 100}`
  if (version >= OLDEST_SERVER_VERSION) return okFinding('version', `PostgreSQL ${text}`)
  return failureFinding({
    name: 'version',
    kind: 'SourceNotReady',
    message: `the server is PostgreSQL ${text}; logical replication is supported from 14 on`,
    advice: 'Upgrade the server.',
  })
}

/**
 * The server's settings and our role's attribute.
 *
 * Source: https://www.postgresql.org/docs/current/logical-replication-config.html
 */
export function checkServer(server: ServerFacts, needs: ServerNeeds): PreflightFinding[] {
  return [checkRecovery(server, needs), checkWalLevel(server), checkSlots(server, needs), ...(needs.failoverSlot === undefined ? [] : [checkFailoverSlot(server, needs.failoverSlot)]), checkWalSenders(server), checkReplicationRole(server)]
}

/**
 * One that is there stays what it is: nothing is refused for it.
 *
 * Source: https://www.postgresql.org/docs/current/logicaldecoding-explanation.html#LOGICALDECODING-REPLICATION-SLOTS-SYNCHRONIZATION
 */
function checkFailoverSlot(server: ServerFacts, slot: Pick<SlotDetails, 'name' | 'isFailover'> | null): PreflightFinding {
  const name = 'failover slot'
  const title = slot === null ? 'the slot' : `slot ${JSON.stringify(slot.name)}`
  if (slot?.isFailover === true) return okFinding(name, `${title} is a failover slot`)
  const hindrance = server.identity.serverVersion < 170_000 ? 'failover slots came with PostgreSQL 17' : server.isInRecovery ? 'the server is a standby: failover slots are made on the primary' : null
  const advice = 'Set failoverSlots of this source to "off".'
  if (hindrance !== null) {
    const message = `failoverSlots is on for this source; ${hindrance}`
    return slot === null ? failureFinding({ name, kind: 'SourceNotReady', message, advice }) : warningFinding(name, `${message}: ${title} stays an ordinary one`, advice)
  }
  if (slot === null) return okFinding(name, `${title} will be a failover slot`)
  return warningFinding(
    name,
    `failoverSlots is on for this source, and ${title} is none: standbys do not have it`,
    remedyText('While its replication is paused or stopped, on a replication connection (psql "dbname=… replication=database"):', [`ALTER_REPLICATION_SLOT ${quoteIdentifier(slot.name)} (FAILOVER true)`]),
  )
}

function checkRecovery(server: ServerFacts, needs: ServerNeeds): PreflightFinding {
  const name = 'primary'
  if (!server.isInRecovery) return okFinding(name, 'the server is a primary')
  const advice = 'Connect to the primary server.'
  if (server.identity.serverVersion < 160_000) {
    return failureFinding({ name, kind: 'SourceNotReady', message: 'the server is a standby; logical decoding on standbys came with PostgreSQL 16', advice: `${advice} Or read this one without a slot, by workflow syncByXmin.` })
  }
  if (needs.publicationChange) {
    return failureFinding({ name, kind: 'SourceNotReady', message: 'the server is a standby, and the publication is not complete: it can be changed on the primary only', advice })
  }
  return warningFinding(name, 'the server is a standby: making a slot waits for the primary', remedyText('To hasten it, on the primary:', ['SELECT pg_log_standby_snapshot()']))
}

function checkWalLevel(server: ServerFacts): PreflightFinding {
  if (server.walLevel === 'logical') return okFinding('wal_level', 'wal_level is logical')
  return failureFinding({
    name: 'wal_level',
    kind: 'SourceNotReady',
    message: `wal_level is ${server.walLevel}; logical decoding needs logical`,
    advice: `As a superuser run what follows, then restart the server (${MANAGED}):`,
    sql: [`ALTER SYSTEM SET wal_level = 'logical'`],
  })
}

function checkSlots(server: ServerFacts, needs: ServerNeeds): PreflightFinding {
  const { usedReplicationSlots: used, maxReplicationSlots: maximum } = server
  const name = 'replication slots'
  if (!needs.newSlot || used < maximum) return okFinding(name, `${used} of ${maximum} in use`)
  return failureFinding({
    name,
    kind: 'SourceNotReady',
    message: `all ${maximum} replication slots are in use (max_replication_slots)`,
    advice: [remedyText('Drop one that nobody needs; those that nobody uses now:', [IDLE_SLOTS]), 'Or as a superuser run what follows, then restart the server:'].join('\n'),
    sql: [`ALTER SYSTEM SET max_replication_slots = ${quoteLiteral(String(maximum + 4))}`],
  })
}

function checkWalSenders(server: ServerFacts): PreflightFinding {
  const { usedWalSenders: used, maxWalSenders: maximum } = server
  const name = 'walsenders'
  if (used < maximum) return okFinding(name, `${used} of ${maximum} in use`)
  return failureFinding({
    name,
    kind: 'SourceNotReady',
    message: `all ${maximum} walsenders are in use (max_wal_senders)`,
    advice: 'As a superuser run what follows, then restart the server:',
    sql: [`ALTER SYSTEM SET max_wal_senders = ${quoteLiteral(String(maximum + 4))}`],
  })
}

/** May our role make, read and drop slots? */
export function checkReplicationRole(server: ServerFacts): PreflightFinding {
  const { role } = server
  const name = 'REPLICATION attribute'
  if (role.canReplicate) return okFinding(name, `role ${role.name} may replicate`)
  const quoted = quoteIdentifier(role.name)
  return failureFinding({
    name,
    kind: 'PrivilegeMissing',
    message: `role ${JSON.stringify(role.name)} may not use replication slots`,
    advice: 'As a superuser (managed services: the administrator):',
    sql: [role.replicationRole === null ? `ALTER ROLE ${quoted} REPLICATION` : `GRANT ${quoteIdentifier(role.replicationRole)} TO ${quoted}`],
  })
}
