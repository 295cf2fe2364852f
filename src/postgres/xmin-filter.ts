import type { Snapshot } from '../model/snapshot.ts'

/** `xmin` has the low 32 bits of a transaction id. */
const EPOCH = 1n << 32n
/** Ids below stand for no transaction: rows of an old cluster that were frozen by them are as old as can be. */
const FIRST_NORMAL_XID = 3n

/**
 * The condition on `xmin` that rows written by transaction `since` (64 bits, with epoch) or a later one fulfil, as `snapshot` sees them; null where
 * all do. Never leaves out such a row; may let one in that is older by whole epochs, whose frozen `xmin` still shows what was written then.
 *
 * With `since` = `pg_snapshot_xmin` of the last reading nothing is missed: whatever that one did not see was running then or came later, so it, and
 * each of its subtransactions, has a greater id. (The snapshot's own list of running transactions would not do: it has no
 * subtransactions, and on a standby it is empty.)
 *
 * The id of a row that the snapshot sees is below its `xmax`. Where less than an epoch lies between `since` and that, the condition is a range of 32-bit
 * values that may go round; else any value may be a new one.
 *
 * Source: https://www.postgresql.org/docs/current/ddl-system-columns.html and
 * https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-PG-SNAPSHOT
 */
export function xminPredicate(since: bigint, snapshot: Snapshot): string | null {
  const newest = snapshot.xmax - 1n
  if (newest < since) return 'false'
  if (newest - since >= EPOCH - 1n) return null
  const from = since % EPOCH
  const to = newest % EPOCH
  const xid = 'xmin::text::int8'
  if (from <= to) return `${xid} BETWEEN ${String(from)} AND ${String(to)}`
  return `(${xid} >= ${String(from)} OR ${xid} BETWEEN ${String(FIRST_NORMAL_XID)} AND ${String(to)})`
}
