import { setTimeout as sleep } from 'node:timers/promises'
import type { SourceCredentials } from './credentials.ts'
import { clientConfigOf, connect, endQuietly } from './session.ts'

const POLL_MS = 100

/**
 * True where a connection with our `application_name` holds the slot, or nobody any more: a worker of ours that was killed, whose
 * walsender has not yet noticed. The name of another role's connection is hidden from us: that is not ours.
 *
 * Source: https://www.postgresql.org/docs/current/monitoring-stats.html#MONITORING-PG-STAT-ACTIVITY-VIEW
 */
export async function isHeldByUs(credentials: SourceCredentials, slotName: string): Promise<boolean> {
  const client = await connect(credentials)
  try {
    const holder = await client.query<{ name: string | null; isGone: boolean }>(
      `SELECT a.application_name AS name, a.pid IS NULL AS "isGone"
         FROM pg_catalog.pg_replication_slots s LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = s.active_pid
        WHERE s.slot_name = $1 AND s.active_pid IS NOT NULL`,
      [slotName],
    )
    const [row] = holder.rows
    // Between the two looks of this statement a holder may have ended.
    return row === undefined || row.isGone || row.name === clientConfigOf(credentials, { replication: true }).application_name
  } finally {
    await endQuietly(client)
  }
}

/**
 * Waits until `pid` no longer holds the slot, at most `timeoutMs`. Never throws: a server that cannot be asked has nobody who
 * holds anything, and the next start finds out.
 */
export async function waitUntilReleased(
  credentials: SourceCredentials,
  slot: { readonly slotName: string; readonly pid: number | null; readonly timeoutMs: number },
): Promise<void> {
  const deadlineMs = performance.now() + slot.timeoutMs
  try {
    const client = await connect(credentials, { statementTimeoutMs: slot.timeoutMs })
    try {
      for (;;) {
        const holder = await client.query('SELECT 1 FROM pg_catalog.pg_replication_slots WHERE slot_name = $1 AND active_pid = coalesce($2, active_pid)', [slot.slotName, slot.pid])
        if (holder.rowCount === 0 || performance.now() >= deadlineMs) return
        await sleep(POLL_MS)
      }
    } finally {
      await endQuietly(client)
    }
  } catch {
    return
  }
}
