import { createHash } from 'node:crypto'
import type pg from 'pg'
import { z } from 'zod'
import { DomainError } from '../model/errors.ts'
import { asRecordEnd, formatLsn, parseLsn, type Lsn } from '../model/lsn.ts'
import type { KeptSnapshot } from '../model/source.ts'
import { tableKey, type TableName, type TableSchema } from '../model/table-schema.ts'
import { SNAPSHOT_MARK } from './snapshot-mark.ts'
import { execute, queryRow, queryRows, quoteIdentifier, quoteLiteral, quoteTable, type SqlClient } from './sql.ts'
import { toDomainError } from './sqlstate.ts'
import { findStoredTable } from './stored-table.ts'

const MAX_IDENTIFIER_BYTES = 63
const HASH_LENGTH = 8

const NOTE = z.object({ slot: z.string(), table: z.number(), lsn: z.string(), snapshot: z.string(), micros: z.string(), rows: z.number() })
type Note = z.infer<typeof NOTE>

/**
 * `_snapshot_<slot>_<table>` (contract §4). PostgreSQL would cut a longer name than 63 bytes, and two could become one: then it ends in a hash of what was
 * cut.
 */
export function snapshotTableName(slotName: string, tableName: string): string {
  const name = `_snapshot_${slotName}_${tableName}`
  if (Buffer.byteLength(name) <= MAX_IDENTIFIER_BYTES) return name
  const hash = createHash('sha256').update(name).digest('hex').slice(0, HASH_LENGTH)
  let cut = ''
  for (const character of name) {
    if (Buffer.byteLength(cut + character) > MAX_IDENTIFIER_BYTES - HASH_LENGTH - 1) break
    cut += character
  }
  return `${cut}_${hash}`
}

/** The kept snapshots of a slot: tables with our note, of whatever name. */
export async function listSnapshots(client: SqlClient, slotName: string): Promise<readonly KeptSnapshot[]> {
  const row = z.object({ oid: z.number(), schema: z.string(), name: z.string(), comment: z.string(), blocks: z.number() })
  const rows = await queryRows(client, row, {
    subject: `snapshot tables of slot ${JSON.stringify(slotName)}`,
    values: [SNAPSHOT_MARK],
    text: `
      SELECT c.oid, n.nspname::text AS schema, c.relname::text AS name, d.description AS comment,
        (pg_relation_size(c.oid) / current_setting('block_size')::int8)::float8 AS blocks
      FROM pg_description d JOIN pg_class c ON c.oid = d.objoid JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE d.classoid = 'pg_class'::regclass AND d.objsubid = 0 AND starts_with(d.description, $1) AND c.relkind = 'r'
      ORDER BY n.nspname, c.relname`,
  })
  return rows.flatMap(({ oid, schema, name, comment, blocks }): KeptSnapshot[] => {
    const note = readNote(comment)
    if (note?.slot !== slotName) return []
    const { table, lsn, snapshot, micros, rows: rowCount } = note
    return [{ oid, name: { schema, name }, tableOid: table, lsn: parseLsn(lsn), snapshotText: snapshot, timeMicros: BigInt(micros), rowCount, blockCount: blocks }]
  })
}

function readNote(comment: string): Note | null {
  try {
    const parsed = NOTE.safeParse(JSON.parse(comment.slice(SNAPSHOT_MARK.length)))
    return parsed.success ? parsed.data : null
  } catch {
    return null
  }
}

/** Drops kept snapshots. Idempotent; a table that has lost our note meanwhile is somebody else's. */
export async function dropSnapshots(client: SqlClient, snapshots: readonly KeptSnapshot[]): Promise<readonly string[]> {
  for (const { name } of snapshots) await execute(client, { text: `DROP TABLE IF EXISTS ${quoteTable(name)}`, subject: `snapshot table ${tableKey(name)}` })
  return snapshots.map(({ name }) => tableKey(name))
}

/** A table whose rows are kept: the columns that are replicated, and the publication's row filter. */
export interface TableToKeep {
  readonly table: TableSchema
  readonly rowFilter: string | null
}

/** Makes a slot together with the snapshots of its consistent point. */
export interface SlotWithSnapshots {
  /** A session of ours, for the tables. */
  readonly client: SqlClient
  /** A walsender session, which has no other use until the slot is made. */
  readonly walsender: pg.Client
  readonly slotName: string
  readonly isFailover: boolean
  readonly tables: readonly TableToKeep[]
  /** Runs the creation of the slot, which may wait for others' transactions. */
  readonly watched: <T>(creatorPid: number, create: () => Promise<T>) => Promise<T>
}

/**
 * Makes the slot, and with it a table for each table's rows as they were at its consistent point; returns that (LSN text).
 *
 * The slot begins as a temporary one, whose snapshot is exported; the tables are filled from that snapshot, in one transaction; then the slot is copied to its
 * name. So a slot of that name is never without its tables, and whatever a crash leaves behind is made anew. The tables are locked **before** the snapshot
 * is taken, so that nobody rewrites one in between (see {@link beginWithTable}); the lock lets rows be written. They are unlogged: nothing of them goes into the
 * WAL that the slot holds back, no publication carries them, and a crash of the server empties them, which is found before they are read.
 *
 * Source: https://www.postgresql.org/docs/current/protocol-replication.html#PROTOCOL-REPLICATION-CREATE-REPLICATION-SLOT and
 * https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-REPLICATION (pg_copy_logical_replication_slot)
 */
export async function createSlotWithSnapshots({ client, walsender, slotName, isFailover, tables, watched }: SlotWithSnapshots): Promise<string> {
  const subject = `slot ${JSON.stringify(slotName)}`
  await dropSnapshots(client, await listSnapshots(client, slotName))
  const stored: { readonly from: string; readonly lock: string }[] = []
  for (const { table } of tables) {
    const found = await findStoredTable(client, table)
    if (found === null) throw vanished(table)
    stored.push({ from: found.from, lock: found.name })
  }
  await execute(client, { text: 'BEGIN ISOLATION LEVEL REPEATABLE READ', subject })
  try {
    for (const { lock } of stored) await execute(client, { text: `LOCK TABLE ${lock} IN ACCESS SHARE MODE`, subject })
    const temporary = `snapshot_${createHash('sha256').update(slotName).digest('hex').slice(0, HASH_LENGTH)}_${String(walsenderPid(walsender))}`
    const { consistentPoint, snapshotName } = await watched(walsenderPid(walsender), async () => exportSnapshot(walsender, temporary, subject))
    await execute(client, { text: `SET TRANSACTION SNAPSHOT ${quoteLiteral(snapshotName)}`, subject })
    const taken = await queryRow(client, z.object({ snapshot: z.string(), micros: z.string() }), {
      text: `SELECT pg_current_snapshot()::text AS snapshot, (extract(epoch FROM clock_timestamp()) * 1000000)::int8::text AS micros`,
      subject,
    })
    for (const [index, kept] of tables.entries()) {
      const name = { schema: kept.table.schema, name: snapshotTableName(slotName, kept.table.name) }
      const rows = await keepRows(client, kept, { name, from: stored[index]?.from ?? '' })
      const note: Note = { slot: slotName, table: kept.table.oid, lsn: consistentPoint, ...taken, rows }
      await execute(client, { text: `COMMENT ON TABLE ${quoteTable(name)} IS ${quoteLiteral(SNAPSHOT_MARK + JSON.stringify(note))}`, subject })
    }
    await execute(client, { text: 'COMMIT', subject })
    await command(walsender, `SELECT pg_copy_logical_replication_slot(${plainLiteral(temporary)}, ${plainLiteral(slotName)}, false)`, subject)
    // A copy never is one by itself. Cut off before this, init makes it one when it goes on.
    if (isFailover) await alterToFailover(walsender, slotName)
    return consistentPoint
  } catch (error) {
    await client.query('ROLLBACK').catch(() => undefined)
    throw error
  }
}

async function exportSnapshot(walsender: pg.Client, name: string, subject: string): Promise<{ readonly consistentPoint: string; readonly snapshotName: string }> {
  const [row] = await command(walsender, `CREATE_REPLICATION_SLOT ${quoteIdentifier(name)} TEMPORARY LOGICAL pgoutput EXPORT_SNAPSHOT`, subject)
  const parsed = z.object({ consistent_point: z.string(), snapshot_name: z.string() }).safeParse(row)
  if (!parsed.success) throw new DomainError({ kind: 'ProtocolViolation', message: `${subject}: the server made a slot without a snapshot`, remedy: 'Report this with the server\'s version.' })
  return { consistentPoint: parsed.data.consistent_point, snapshotName: parsed.data.snapshot_name }
}

/** Makes a slot that nobody uses a failover slot (17+). Idempotent. */
export async function alterToFailover(walsender: pg.Client, slotName: string): Promise<void> {
  await command(walsender, `ALTER_REPLICATION_SLOT ${quoteIdentifier(slotName)} (FAILOVER true)`, `slot ${JSON.stringify(slotName)}`)
}

/** A walsender takes simple queries only. */
async function command(walsender: pg.Client, text: string, subject: string): Promise<unknown[]> {
  try {
    return (await walsender.query<Record<string, unknown>>(text)).rows
  } catch (error) {
    throw toDomainError(error, { subject })
  }
}

async function keepRows(client: SqlClient, { table, rowFilter }: TableToKeep, { name, from }: { readonly name: TableName; readonly from: string }): Promise<number> {
  const columns = table.columns.map((column) => quoteIdentifier(column.name)).join(', ')
  try {
    const result = await client.query(`CREATE UNLOGGED TABLE ${quoteTable(name)} AS SELECT ${columns} FROM ${from}${rowFilter === null ? '' : ` WHERE ${rowFilter}`}`)
    return result.rowCount ?? 0
  } catch (error) {
    throw toDomainError(error, { subject: `snapshot table ${tableKey(name)}` })
  }
}

function walsenderPid(walsender: pg.Client): number {
  const pid: unknown = Reflect.get(walsender, 'processID')
  return typeof pid === 'number' ? pid : 0
}

/** Slot names hold nothing that would have to be escaped. */
function plainLiteral(text: string): string {
  return `'${text}'`
}

function vanished(table: TableName): DomainError {
  return new DomainError({ kind: 'SourceUnavailable', message: `table ${JSON.stringify(tableKey(table))} vanished while its snapshot was being taken`, remedy: 'It is tried again.' })
}

/** Do all kept snapshots belong to the position at which the slot stands? Then init was cut off behind them, and may go on. */
export function areOfPosition(snapshots: readonly KeptSnapshot[], position: Lsn | null): boolean {
  return position !== null && snapshots.length > 0 && snapshots.every(({ lsn }) => formatLsn(asRecordEnd(lsn)) === formatLsn(asRecordEnd(position)))
}
