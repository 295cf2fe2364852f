import { z } from 'zod'
import { parseLsn } from '../model/lsn.ts'
import { remedyText } from '../model/remedy.ts'
import type { SlotState } from '../model/source.ts'
import { queryRow, queryRows, execute, type SqlClient } from './sql.ts'

/** SQL that lists the slots that nobody reads now: candidates for being dropped. */
export const IDLE_SLOTS = 'SELECT slot_name FROM pg_replication_slots WHERE NOT active'

/** What to do where another program holds a slot. */
export function remedyForHeldSlot(slot: Pick<SlotDetails, 'activePid'>): string {
  return remedyText('Stop that program, or give another slotName. To end only its connection:', [`SELECT pg_terminate_backend(${slot.activePid ?? 0})`])
}

/** A slot as `pg_replication_slots` shows it, with who holds it. */
export interface SlotDetails extends SlotState {
  readonly name: string
  readonly isLogical: boolean
  readonly isTemporary: boolean
  /** Why the server gave it up (`wal_removed`, `idle_timeout` …); null while it is good. */
  readonly invalidationReason: string | null
  /** A failover slot (17+): standbys that synchronise slots have it too. */
  readonly isFailover: boolean
  /** It decodes with the catalog as it was no earlier than before this transaction (32 bits); null where it has no catalog yet. */
  readonly catalogXmin: number | null
  /** application_name of the session that holds it, where our role may see it. */
  readonly activeApplication: string | null
}

/** Where the server's WAL ends; on a standby what it has replayed. */
export const CURRENT_LSN = '(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END)'

/** What is selected of the pg_replication_slots row `s`. Columns differ between versions (wal_status 13, conflicting 16, invalidation_reason, inactive_since and failover 17): the row is read as JSON. */
export const SLOT_FIGURES = `to_jsonb(s) AS slot, pg_wal_lsn_diff(${CURRENT_LSN}, s.restart_lsn)::bigint::text AS "retainedWalBytes",
  extract(epoch FROM now() - (to_jsonb(s) ->> 'inactive_since')::timestamptz)::float8 AS "idleSeconds"`

/** The columns of `slot` in {@link SLOT_FIGURES} that every reader needs. */
export const SLOT_COLUMNS = {
  slot_name: z.string(),
  database: z.string().nullable(),
  active: z.boolean(),
  wal_status: z.string().nullish(),
  safe_wal_size: z.number().nullish(),
  conflicting: z.boolean().nullish(),
  invalidation_reason: z.string().nullish(),
} as const

/** The others of {@link SLOT_FIGURES}. */
export const SLOT_FIGURE_COLUMNS = { retainedWalBytes: z.string().nullable(), idleSeconds: z.number().nullable() } as const

type SlotFiguresRow = z.infer<z.ZodObject<typeof SLOT_FIGURE_COLUMNS>> & { readonly slot: z.infer<z.ZodObject<typeof SLOT_COLUMNS>> }

/** How a slot stands, of a row of {@link SLOT_FIGURES}. */
export function standingOf({ slot, retainedWalBytes, idleSeconds }: SlotFiguresRow): Pick<SlotDetails, 'walStatus' | 'retainedWalBytes' | 'safeWalBytes' | 'idleSeconds' | 'invalidationReason'> {
  return {
    walStatus: slot.wal_status ?? null,
    retainedWalBytes: retainedWalBytes === null ? null : Math.max(0, Number(retainedWalBytes)),
    safeWalBytes: slot.safe_wal_size ?? null,
    idleSeconds: slot.active ? null : idleSeconds,
    invalidationReason: slot.invalidation_reason ?? (slot.wal_status === 'lost' ? 'wal_removed' : slot.conflicting === true ? 'conflict' : null),
  }
}

const SLOT_ROW = z.object({
  ...SLOT_FIGURE_COLUMNS,
  slot: z.object({
    ...SLOT_COLUMNS,
    plugin: z.string().nullable(),
    slot_type: z.string(),
    temporary: z.boolean(),
    active_pid: z.number().nullable(),
    restart_lsn: z.string().nullable(),
    confirmed_flush_lsn: z.string().nullable(),
    failover: z.boolean().nullish(),
    catalog_xmin: z.string().nullable(),
  }),
  activeApplication: z.string().nullable(),
})

/**
 * Reads one slot; null where there is none.
 *
 * Source: https://www.postgresql.org/docs/current/view-pg-replication-slots.html
 */
export async function readSlot(client: SqlClient, slotName: string): Promise<SlotDetails | null> {
  const [row] = await queryRows(client, SLOT_ROW, {
    subject: `slot ${JSON.stringify(slotName)}`,
    values: [slotName],
    text: `
      SELECT ${SLOT_FIGURES},
        (SELECT nullif(a.application_name, '') FROM pg_stat_activity a WHERE a.pid = s.active_pid) AS "activeApplication"
      FROM pg_replication_slots s WHERE s.slot_name = $1`,
  })
  if (row === undefined) return null
  const { slot } = row
  return {
    name: slot.slot_name,
    isLogical: slot.slot_type === 'logical',
    isTemporary: slot.temporary,
    confirmedFlushLsn: slot.confirmed_flush_lsn === null ? null : parseLsn(slot.confirmed_flush_lsn),
    restartLsn: slot.restart_lsn === null ? null : parseLsn(slot.restart_lsn),
    isActive: slot.active,
    activePid: slot.active_pid,
    plugin: slot.plugin ?? '',
    database: slot.database ?? '',
    ...standingOf(row),
    isFailover: slot.failover === true,
    catalogXmin: slot.catalog_xmin === null ? null : Number(slot.catalog_xmin),
    activeApplication: row.activeApplication,
  }
}

/**
 * Creates a logical slot with `pgoutput` and returns its consistent point (LSN text). Waits until every transaction that runs now, in
 * whichever database, has ended (facts 9); a session with a lock timeout gives up instead. `isFailover` (17+): standbys that synchronise slots get it too.
 *
 * Source: https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-REPLICATION
 */
export async function createSlot(client: SqlClient, slotName: string, isFailover = false): Promise<string> {
  const { lsn } = await queryRow(client, z.object({ lsn: z.string() }), {
    text: `SELECT lsn::text AS lsn FROM pg_create_logical_replication_slot($1, 'pgoutput'${isFailover ? ', failover => true' : ''})`,
    values: [slotName],
    subject: `slot ${JSON.stringify(slotName)}`,
  })
  return lsn
}

/** Drops a slot if there is one; true where there was. Throws `SlotInUse` where somebody holds it. */
export async function dropSlot(client: SqlClient, slotName: string): Promise<boolean> {
  const rows = await queryRows(client, z.object({ dropped: z.unknown() }), {
    text: `SELECT pg_drop_replication_slot(slot_name) AS dropped FROM pg_replication_slots WHERE slot_name = $1`,
    values: [slotName],
    subject: `slot ${JSON.stringify(slotName)}`,
  })
  return rows.length > 0
}

/**
 * Moves an unused slot on to the server's present position, without decoding what lies between, and returns where it then stands (LSN text).
 */
export async function advanceSlotToNow(client: SqlClient, slotName: string): Promise<string> {
  const subject = `slot ${JSON.stringify(slotName)}`
  await execute(client, { text: 'SELECT pg_replication_slot_advance($1, pg_current_wal_flush_lsn())', values: [slotName], subject })
  const row = await queryRow(client, z.object({ lsn: z.string() }), {
    text: 'SELECT confirmed_flush_lsn::text AS lsn FROM pg_replication_slots WHERE slot_name = $1',
    values: [slotName],
    subject,
  })
  return row.lsn
}
