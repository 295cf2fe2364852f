import { setTimeout as delay } from 'node:timers/promises'
import { z } from 'zod'
import { parseLsn } from '../model/lsn.ts'
import { remedyText } from '../model/remedy.ts'
import { isNearIdleTimeout, isNearWalBound } from '../model/slot-end.ts'
import { formatBytes, formatDuration } from '../model/units.ts'
import { okFinding, warningFinding, type PreflightFinding } from './findings.ts'
import { CURRENT_LSN, SLOT_COLUMNS, SLOT_FIGURE_COLUMNS, SLOT_FIGURES, standingOf } from './slot.ts'
import { quoteLiteral, queryRow, queryRows, type SqlClient } from './sql.ts'

/** A slot of the server, whoever uses it. */
export interface SurveyedSlot {
  readonly name: string
  /** Null for a physical one. */
  readonly database: string | null
  readonly isActive: boolean
  /** WAL that is kept for it; null where it keeps none. */
  readonly retainedBytes: number | null
  /** WAL that may still be written before the server gives it up; null where there is no bound, or where it has been given up. */
  readonly safeWalBytes: number | null
  /** `reserved`, `extended`, `unreserved`, `lost`, or null. */
  readonly walStatus: string | null
  readonly invalidationReason: string | null
  /** How long nobody has used it; null where somebody does, and before version 17, which does not tell. */
  readonly idleSeconds: number | null
  /** A standby's copy of a slot of its primary: nobody reads it here. */
  readonly isSynced: boolean
}

export interface SlotSurvey {
  readonly serverVersion: number
  readonly slots: readonly SurveyedSlot[]
  /** `max_slot_wal_keep_size`; null = there is no bound. */
  readonly maxSlotWalKeepBytes: number | null
  /** `idle_replication_slot_timeout` (18+); null = none. */
  readonly idleTimeoutSeconds: number | null
  /** WAL that the server writes: over its statistics' time, or in the last moments, whichever is more. */
  readonly walBytesPerSecond: number
}

/** The rate of the last moments is taken over this time. */
const SAMPLE_MS = 1_000
/** An unused slot that holds back so much is worth a warning, whatever the bound. */
const MUCH_WAL_BYTES = 2 ** 30

const SLOT_ROW = z.object({ ...SLOT_FIGURE_COLUMNS, slot: z.object({ ...SLOT_COLUMNS, synced: z.boolean().nullish() }) })

const SERVER_ROW = z.object({
  serverVersion: z.number(),
  currentLsn: z.string(),
  averageRate: z.number(),
  keepMegabytes: z.number(),
  idleSeconds: z.number().nullable(),
})

/**
 * Reads all slots of the server and what bounds them. Needs no privilege; takes a second, for the rate.
 *
 * Source: https://www.postgresql.org/docs/current/view-pg-replication-slots.html
 */
export async function surveySlots(client: SqlClient): Promise<SlotSurvey> {
  const server = await queryRow(client, SERVER_ROW, {
    subject: 'settings of the source',
    text: `
      SELECT current_setting('server_version_num')::int AS "serverVersion", ${CURRENT_LSN}::text AS "currentLsn",
        (SELECT coalesce(wal_bytes / greatest(extract(epoch FROM now() - stats_reset), 1), 0)::float8 FROM pg_stat_wal) AS "averageRate",
        (SELECT setting::int FROM pg_settings WHERE name = 'max_slot_wal_keep_size') AS "keepMegabytes",
        (SELECT extract(epoch FROM (setting || unit)::interval)::float8 FROM pg_settings WHERE name = 'idle_replication_slot_timeout') AS "idleSeconds"`,
  })
  const sampledAt = performance.now()
  await delay(SAMPLE_MS)
  const rows = await queryRows(client, SLOT_ROW, {
    subject: 'replication slots of the source',
    text: `
      SELECT ${SLOT_FIGURES}
      FROM pg_replication_slots s WHERE NOT s.temporary ORDER BY s.slot_name`,
  })
  const { lsn } = await queryRow(client, z.object({ lsn: z.string() }), { subject: 'position of the source', text: `SELECT ${CURRENT_LSN}::text AS lsn` })
  const sampled = (Number(parseLsn(lsn) - parseLsn(server.currentLsn)) * 1_000) / (performance.now() - sampledAt)
  return {
    serverVersion: server.serverVersion,
    maxSlotWalKeepBytes: server.keepMegabytes < 0 ? null : server.keepMegabytes * 2 ** 20,
    idleTimeoutSeconds: server.idleSeconds === null || server.idleSeconds <= 0 ? null : server.idleSeconds,
    walBytesPerSecond: Math.max(server.averageRate, sampled, 0),
    slots: rows.map((row) => {
      const { retainedWalBytes: retainedBytes, ...figures } = standingOf(row)
      return { name: row.slot.slot_name, database: row.slot.database, isActive: row.slot.active, isSynced: row.slot.synced === true, retainedBytes, ...figures }
    }),
  }
}

/** What of all slots somebody should see to; what bounds them; and what this version has for them. Pure. */
export function slotFindings(survey: SlotSurvey): readonly PreflightFinding[] {
  return [boundFinding(survey), ...survey.slots.flatMap((slot) => troubleOf(slot, survey)), summary(survey), featureFinding(survey.serverVersion)]
}

function boundFinding({ maxSlotWalKeepBytes, idleTimeoutSeconds }: SlotSurvey): PreflightFinding {
  const name = 'WAL bound'
  const idle = idleTimeoutSeconds === null ? '' : `; a slot that nobody uses for ${secondsText(idleTimeoutSeconds)} is given up (idle_replication_slot_timeout): a replication must not be paused or stopped for longer`
  if (maxSlotWalKeepBytes !== null) return okFinding(name, `a slot may hold back ${formatBytes(maxSlotWalKeepBytes)} of WAL (max_slot_wal_keep_size)${idle}`)
  return warningFinding(
    name,
    `nothing bounds the WAL that a slot holds back (max_slot_wal_keep_size is -1): one that nobody reads fills the disk${idle}`,
    remedyText('As a superuser, with room for the longest time that a replication may stand still; beyond it the slot is given up and the server lives:', ["ALTER SYSTEM SET max_slot_wal_keep_size = '50GB'", 'SELECT pg_reload_conf()']),
  )
}

function troubleOf(slot: SurveyedSlot, survey: SlotSurvey): readonly PreflightFinding[] {
  const { maxSlotWalKeepBytes, idleTimeoutSeconds, walBytesPerSecond } = survey
  const title = `slot ${JSON.stringify(slot.name)}`
  const drop = `SELECT pg_drop_replication_slot(${quoteLiteral(slot.name)})`
  const warning = (message: string, advice: string, sql: readonly string[] = []): readonly PreflightFinding[] => [warningFinding('slot health', `${title} ${message}`, remedyText(advice, sql))]
  if (slot.invalidationReason !== null) {
    return warning(`was given up by the server (${slot.invalidationReason})`, 'Its replication goes on by: npm run cli -- recover. Where there is none any more:', [drop])
  }
  const retained = slot.retainedBytes ?? 0
  const held = `holds back ${formatBytes(retained)} of WAL${slot.isActive ? '' : `, and nobody reads it${idleText(slot)}`}`
  if (isNearWalBound(slot, maxSlotWalKeepBytes)) {
    return warning(`${held}: ${formatBytes(slot.safeWalBytes ?? 0)} more and the server gives it up${untilFull(slot.safeWalBytes ?? 0, walBytesPerSecond)}`, 'Let its reader catch up (npm run cli -- resume), or raise max_slot_wal_keep_size. If nobody is to read it again:', [drop])
  }
  if (slot.isActive || slot.isSynced) return []
  if (idleTimeoutSeconds !== null && slot.idleSeconds !== null && isNearIdleTimeout(slot.idleSeconds, idleTimeoutSeconds)) {
    return warning(`is given up in ${secondsText(Math.max(0, idleTimeoutSeconds - slot.idleSeconds))} unless somebody uses it (idle_replication_slot_timeout)`, 'Let its reader go on (npm run cli -- resume). If nobody is to read it again:', [drop])
  }
  if (retained >= MUCH_WAL_BYTES) {
    const growth = slot.safeWalBytes === null ? `: ${formatBytes(walBytesPerSecond * 86_400)} more each day` : `: ${formatBytes(slot.safeWalBytes)} more and the server gives it up${untilFull(slot.safeWalBytes, walBytesPerSecond)}`
    return warning(`${held}${growth}`, 'Let its reader go on (npm run cli -- resume). If nobody is to read it again:', [drop])
  }
  return []
}

function summary({ slots, walBytesPerSecond }: SlotSurvey): PreflightFinding {
  const unused = slots.filter(({ isActive, isSynced }) => !isActive && !isSynced)
  const most = slots.reduce<SurveyedSlot | null>((worst, slot) => ((slot.retainedBytes ?? -1) > (worst?.retainedBytes ?? -1) ? slot : worst), null)
  const held = most === null ? '' : `; most WAL is held back by ${JSON.stringify(most.name)}: ${formatBytes(most.retainedBytes ?? 0)}${most.safeWalBytes === null ? '' : `, room for ${formatBytes(most.safeWalBytes)} more${untilFull(most.safeWalBytes, walBytesPerSecond)}`}`
  const names = unused.slice(0, 10).map((slot) => `${JSON.stringify(slot.name)} (${formatBytes(slot.retainedBytes ?? 0)}${idleText(slot)})`)
  const idle = unused.length === 0 ? 'none unused' : `unused: ${names.join(', ')}${unused.length > names.length ? ` and ${String(unused.length - names.length)} more` : ''}`
  return okFinding('slots', `${String(slots.length)} on this server, ${idle}${held}`)
}

/** What newer versions have for slots. */
const FEATURES: readonly (readonly [since: number, what: string])[] = [
  [150_000, 'whole schemas, row filters and column lists in publications'],
  [160_000, 'decoding on standbys'],
  [170_000, 'failover slots, slots kept by pg_upgrade'],
  [180_000, 'generated columns in publications, idle_replication_slot_timeout'],
]

function featureFinding(serverVersion: number): PreflightFinding {
  const missing = FEATURES.filter(([since]) => serverVersion < since).map(([since, what]) => `${what} (${String(since / 10_000)})`)
  return okFinding('version features', missing.length === 0 ? `PostgreSQL ${String(Math.floor(serverVersion / 10_000))} has all that is used` : `not in this version: ${missing.join('; ')}`)
}

function idleText({ idleSeconds }: SurveyedSlot): string {
  return idleSeconds === null ? '' : `, since ${secondsText(idleSeconds)}`
}

function untilFull(safeBytes: number, bytesPerSecond: number): string {
  if (bytesPerSecond < 1) return ''
  return `, in about ${secondsText(Math.max(0, safeBytes) / bytesPerSecond)} at ${formatBytes(bytesPerSecond)} of WAL a second`
}

function secondsText(seconds: number): string {
  return formatDuration(seconds * 1_000)
}
