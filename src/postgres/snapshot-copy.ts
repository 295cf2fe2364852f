import { z } from 'zod'
import type { BinaryRows } from '../model/binary-rows.ts'
import type { TupleView } from '../model/change.ts'
import type { DelimitedText, Lines } from '../model/delimited-text.ts'
import { asRecordEnd, parseLsn, type Lsn } from '../model/lsn.ts'
import { parseSnapshot } from '../model/snapshot.ts'
import type { ChangedTable, ChunkCopy, KeptSnapshot, KeyRange } from '../model/source.ts'
import { tableKey, type TableSchema } from '../model/table-schema.ts'
import { readTables } from './catalog.ts'
import type { CopyConnection, CopyConnections } from './copy-connections.ts'
import { gatherBinaryRows } from './copy-binary.ts'
import { packLines } from './copy-lines.ts'
import { copyOut, type CopyOutOptions } from './copy-out.ts'
import { readCopyRow } from './copy-text.ts'
import { keyListPredicate } from './key-lookup.ts'
import { keyRangePredicate, readKeyColumns } from './key-ranges.ts'
import { beginWithTable, type KnownTable } from './locked-table.ts'
import { xminPredicate } from './xmin-filter.ts'
import { createTupleView } from './pgoutput/tuple.ts'
import { execute, queryRow, quoteIdentifier, quoteLiteral, quoteTable } from './sql.ts'
import { toDomainError } from './sqlstate.ts'

export interface CopyRequest extends KnownTable {
  readonly range: KeyRange
  readonly sinceXid?: bigint
  readonly keys?: readonly (readonly string[])[]
  readonly signal: AbortSignal
}

/** A server that does nothing but a copy sends a megabyte in some 5 ms: longer pauses than this leave it waiting for half its time (docs/performance.md). */
const COPY_PAUSE_MS = 2

/**
 * The snapshot of the running transaction, and a position that is past the commit of everything that it sees: the **insert** position, because with
 * `synchronous_commit = off` a transaction is visible before its commit record is written. On a standby what was received:
 * a replayed commit is visible a moment before the replay position says so.
 *
 * Source: https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-ADMIN-BACKUP
 */
const SNAPSHOT = `
  SELECT pg_current_snapshot()::text AS snapshot,
    CASE WHEN pg_is_in_recovery() THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) ELSE pg_current_wal_insert_lsn() END::text AS lsn,
    (extract(epoch FROM clock_timestamp()) * 1000000)::int8::text AS micros`

const SNAPSHOT_ROW = z.object({ snapshot: z.string(), lsn: z.string(), micros: z.string() })

/**
 * Begins a transaction with the table locked in its known shape (see {@link beginWithTable}), and reads its snapshot.
 *
 * Throws a `DomainError`, or the signal's reason.
 */
export async function beginCopy(connections: CopyConnections, request: CopyRequest): Promise<ChunkCopy | ChangedTable> {
  const { table, signal } = request
  signal.throwIfAborted()
  const connection = await connections.acquire()
  const { client } = connection
  const onAbort = (): void => { client.connection.stream.destroy() }
  signal.addEventListener('abort', onAbort, { once: true })
  try {
    const subject = `copy of table ${tableKey(table)}`
    const locked = await beginWithTable(client, request)
    signal.throwIfAborted()
    if (locked.tag === 'changed') {
      await connection.release(true)
      return locked
    }
    const { stored, rowFilter } = locked
    const taken = await queryRow(client, SNAPSHOT_ROW, { subject, text: SNAPSHOT })
    const key = request.range.lower === null && request.range.upper === null ? [] : await readKeyColumns(client, table)
    signal.throwIfAborted()
    const isNew = request.sinceXid === undefined ? null : xminPredicate(request.sinceXid, parseSnapshot(taken.snapshot))
    const isListed = request.keys === undefined ? null : await keyListPredicate(client, table, { alias: 'listed', keys: request.keys })
    const conditions = [keyRangePredicate(key, request.range), rowFilter === null ? null : `(${rowFilter})`, isNew, isListed].filter((condition) => condition !== null)
    const columns = table.columns.map((column) => quoteIdentifier(column.name)).join(', ')
    const where = conditions.length === 0 ? '' : ` WHERE ${conditions.join(' AND ')}`
    return new SnapshotCopy({
      connection,
      subject,
      query: `SELECT ${columns} FROM ${stored.from}${isListed === null ? '' : ' AS listed'}${where}`,
      columnCount: table.columns.length,
      snapshotText: taken.snapshot,
      snapshotLsn: asRecordEnd(parseLsn(taken.lsn)),
      snapshotTimeMicros: BigInt(taken.micros),
      signal,
    })
  } catch (error) {
    await connection.release(false)
    signal.throwIfAborted()
    throw error
  } finally {
    signal.removeEventListener('abort', onAbort)
  }
}

/**
 * Begins to read a kept snapshot (see kept-snapshots.ts): blocks `lower` to `upper`, of a table that nobody writes. Null where it is not of the shape that is
 * asked for, not there, or empty although it was not when it was made: a crash of the server empties it whole.
 *
 * Throws a `DomainError`, or the signal's reason.
 */
export async function beginSnapshotRead(
  connections: CopyConnections,
  request: { readonly snapshot: KeptSnapshot; readonly table: TableSchema; readonly range: KeyRange; readonly signal: AbortSignal },
): Promise<ChunkCopy | null> {
  const { snapshot, table, range, signal } = request
  const connection = await connections.acquire()
  const { client } = connection
  try {
    const subject = `snapshot table ${tableKey(snapshot.name)}`
    const from = quoteTable(snapshot.name)
    await execute(client, { subject, text: 'BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY' })
    const [described] = await readTables(client, [snapshot.oid], null)
    const isSame = described !== undefined && table.columns.every((column) => described.columns.some(({ name, typeOid, typeModifier }) => name === column.name && typeOid === column.typeOid && typeModifier === column.typeModifier))
    const isWhole = isSame && (snapshot.rowCount === 0 || (await queryRow(client, z.object({ isThere: z.boolean() }), { subject, text: `SELECT EXISTS (SELECT FROM ${from}) AS "isThere"` })).isThere)
    if (!isWhole) {
      await execute(client, { subject, text: 'ROLLBACK' })
      await connection.release(true)
      return null
    }
    const bounds = [
      ...(range.lower === null ? [] : [`ctid >= '(${String(Number(range.lower[0]))},0)'::tid`]),
      ...(range.upper === null ? [] : [`ctid < '(${String(Number(range.upper[0]))},0)'::tid`]),
    ]
    const columns = table.columns.map((column) => quoteIdentifier(column.name)).join(', ')
    return new SnapshotCopy({
      connection,
      subject,
      query: `SELECT ${columns} FROM ${from}${bounds.length === 0 ? '' : ` WHERE ${bounds.join(' AND ')}`}`,
      columnCount: table.columns.length,
      snapshotText: snapshot.snapshotText,
      snapshotLsn: snapshot.lsn,
      snapshotTimeMicros: snapshot.timeMicros,
      signal,
    })
  } catch (error) {
    await connection.release(false)
    signal.throwIfAborted()
    throw error
  }
}

interface SnapshotCopyInit {
  readonly connection: CopyConnection
  readonly subject: string
  readonly query: string
  readonly columnCount: number
  readonly snapshotText: string
  readonly snapshotLsn: Lsn
  readonly snapshotTimeMicros: bigint
  readonly signal: AbortSignal
}

/** States: *open* (its transaction runs) → (`rows`, `lines` or `binaryRows`) → *copying* → *open* or, after an error, *broken*; each → (`close`) → *closed*. */
class SnapshotCopy implements ChunkCopy {
  readonly tag = 'copy'
  readonly snapshotText: string
  readonly snapshot
  readonly snapshotLsn: Lsn
  readonly snapshotTimeMicros: bigint
  readonly #init: SnapshotCopyInit
  #state: 'open' | 'copying' | 'broken' = 'open'
  #closing: Promise<void> | null = null

  constructor(init: SnapshotCopyInit) {
    this.#init = init
    this.snapshotText = init.snapshotText
    this.snapshot = parseSnapshot(init.snapshotText)
    this.snapshotLsn = init.snapshotLsn
    this.snapshotTimeMicros = init.snapshotTimeMicros
  }

  async rows(onRow: (tuple: TupleView) => Promise<void> | undefined): Promise<number> {
    const { columnCount } = this.#init
    const view = createTupleView(columnCount)
    const row: { buffer: Buffer; start: number; end: number } = { buffer: Buffer.alloc(0), start: 0, end: 0 }
    return this.#copy('FORMAT text', {
      onCopyData: (buffer, start, end) => {
        row.buffer = buffer
        row.start = start
        row.end = end
        return readCopyRow(row, view, columnCount) ? onRow(view) : undefined
      },
    })
  }

  async lines({ delimiter, quote }: DelimitedText, onLines: (lines: Lines) => void): Promise<number> {
    const quoted = quoteLiteral(quote)
    return this.#copy(`FORMAT csv, DELIMITER ${quoteLiteral(delimiter)}, QUOTE ${quoted}, ESCAPE ${quoted}`, packLines(onLines))
  }

  async binaryRows(onRows: (rows: BinaryRows) => void): Promise<number> {
    return this.#copy('FORMAT binary', gatherBinaryRows(onRows))
  }

  /** Source: https://www.postgresql.org/docs/current/sql-copy.html */
  async #copy(format: string, handlers: Pick<CopyOutOptions, 'isBinary' | 'onCopyData' | 'onDrained'>): Promise<number> {
    const { connection, query, signal, subject } = this.#init
    if (this.#state !== 'open' || this.#closing !== null) throw new Error('a copy that is closed or runs already')
    signal.throwIfAborted()
    this.#state = 'copying'
    // Nothing else ends a COPY at once; the server notices when it sends on.
    const onAbort = (): void => { connection.client.connection.stream.destroy() }
    signal.addEventListener('abort', onAbort, { once: true })
    // Lines are used up at once; a row may be waited for.
    connection.socket.startBursts({ reusesSlab: handlers.onDrained !== undefined, longestPauseMs: COPY_PAUSE_MS })
    try {
      const rowCount = await copyOut(connection.client, {
        sql: `COPY (${query}) TO STDOUT (${format})`,
        ...handlers,
        mapError: (error) => toDomainError(error, { subject }),
      })
      this.#state = 'open'
      return rowCount
    } catch (error) {
      this.#state = 'broken'
      signal.throwIfAborted()
      throw error
    } finally {
      connection.socket.endBursts()
      signal.removeEventListener('abort', onAbort)
    }
  }

  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close(): Promise<void> {
    const { connection } = this.#init
    let isReusable = false
    if (this.#state === 'open') {
      isReusable = await connection.client.query('ROLLBACK').then(
        () => true,
        () => false,
      )
    }
    await connection.release(isReusable)
  }
}
