import type { Lsn } from './lsn.ts'

/** What a cell of a tuple holds. The numbers are those of {@link TupleView.kinds}. */
export const CELL_NULL = 0
export const CELL_TEXT = 1
/** A TOASTed value that an UPDATE left as it was: the stream does not carry it (facts 6). */
export const CELL_UNCHANGED = 2
export const CELL_BINARY = 3

/**
 * One row's cells as byte ranges in the buffer that they came in. No JS value per cell (design.md, decision 3).
 *
 * The object is reused: it is valid only during the call that hands it over, and so is `buffer`.
 * `starts[i]`…`ends[i]` bound cell `i` where `kinds[i]` is `CELL_TEXT` (UTF-8, the type's output function) or `CELL_BINARY`.
 */
export interface TupleView {
  buffer: Buffer
  columnCount: number
  kinds: Uint8Array
  starts: Uint32Array
  ends: Uint32Array
}

/** A column of a pgoutput Relation message. */
export interface RelationColumn {
  readonly name: string
  readonly typeOid: number
  readonly typeModifier: number
  /** True where the column is part of the replica identity. */
  readonly isKey: boolean
}

/** A pgoutput Relation message: the shape of the tuples that follow, until the next one of the same oid. */
export interface Relation {
  readonly oid: number
  readonly schema: string
  readonly name: string
  readonly replicaIdentity: 'd' | 'n' | 'f' | 'i'
  readonly columns: readonly RelationColumn[]
}

/** Which old tuple an UPDATE or DELETE carries: the key columns only (`K`), the whole row (`O`), or none. */
export type OldTupleKind = 'none' | 'key' | 'full'

/**
 * Receives the decoded stream, in its order. All calls are synchronous; tuples are valid only during the call.
 *
 * Source: https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html
 */
export interface ChangeHandler {
  /** `commitLsn` is the LSN of the commit record; `xid` is the low 32 bits of the transaction id. */
  begin(commitLsn: Lsn, commitTimeMicros: bigint, xid: number): void
  /** `endLsn` is just past the commit record: where the next transaction may start, and what is confirmed. */
  commit(commitLsn: Lsn, endLsn: Lsn, commitTimeMicros: bigint): void
  relation(relation: Relation): void
  insert(relationOid: number, tuple: TupleView): void
  /** `oldTuple` is meaningful only where `oldKind` is not `none`. */
  update(relationOid: number, oldKind: OldTupleKind, oldTuple: TupleView, newTuple: TupleView): void
  delete(relationOid: number, oldKind: 'key' | 'full', oldTuple: TupleView): void
  truncate(relationOids: readonly number[], cascade: boolean, restartIdentity: boolean): void
  /** A data type's name, sent before a Relation message that uses it. */
  type(oid: number, schema: string, name: string): void
  origin(commitLsn: Lsn, name: string): void
  /** `pg_logical_emit_message`. */
  message(isTransactional: boolean, messageLsn: Lsn, prefix: string, content: Buffer): void
}

/** PostgreSQL's epoch (2000-01-01T00:00:00Z) in microseconds after Unix's. */
export const POSTGRES_EPOCH_MICROS = 946_684_800_000_000n
