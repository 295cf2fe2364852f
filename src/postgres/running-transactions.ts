import { setTimeout as delay } from 'node:timers/promises'
import { z } from 'zod'
import { parseSnapshot, type Snapshot } from '../model/snapshot.ts'
import type { OnWaiting, TransactionsWait } from '../model/source.ts'
import { queryRow, queryRows, type SqlClient } from './sql.ts'

interface RunningTransaction {
  /** 64 bits, with epoch. */
  readonly xid: bigint
  readonly pid: number | null
  readonly preparedAs: string | null
  /** Null where it cannot be told. */
  readonly databaseName: string | null
}

const SUBJECT = 'running transactions of the source'
const POLL_MS = 100
/** After this time somebody should know who is waited for; then again that often. */
export const REPORT_WAITING_MS = 2_000

/**
 * Waits until each of these transactions (64-bit ids) has ended. Those that ran when a table was published (facts 10a): what such a transaction wrote before is not in the
 * stream, so a copy must be taken after its end. Transactions of other databases cannot have written here and are not waited for. A transaction counts as
 * running until it is visible to new snapshots, thus also while it waits for a synchronous standby.
 *
 * `onWaiting` is called after {@link REPORT_WAITING_MS} (at once where somebody has waited before) and every so often again. Aborting rejects with the signal's reason.
 */
export async function waitForTransactions(client: SqlClient, ids: ReadonlySet<bigint>, { onWaiting, onSnapshot, hasWaited, signal }: TransactionsWait): Promise<void> {
  const elsewhere = new Set<bigint>()
  const look = async (): Promise<ReadonlySet<bigint>> => {
    const snapshot = await readListedSnapshot(client)
    onSnapshot(snapshot)
    return new Set([...ids].filter((xid) => snapshot.running.has(xid) && !elsewhere.has(xid)))
  }
  let waitingFor = await look()
  let reportAt = Date.now() + (hasWaited ? 0 : REPORT_WAITING_MS)
  let isFirst = true
  while (waitingFor.size > 0) {
    signal.throwIfAborted()
    const mustReport = Date.now() >= reportAt
    if (isFirst || mustReport) {
      const { transactions, databaseName } = await describeTransactions(client, waitingFor)
      const here = transactions.filter((transaction) => transaction.databaseName === null || transaction.databaseName === databaseName)
      for (const transaction of transactions) if (!here.includes(transaction)) elsewhere.add(transaction.xid)
      if (mustReport && here.length > 0) report(here, onWaiting)
      if (mustReport) reportAt = Date.now() + REPORT_WAITING_MS
      isFirst = false
    }
    if ([...waitingFor].every((xid) => elsewhere.has(xid))) return
    await delay(POLL_MS, undefined, { signal })
    waitingFor = await look()
  }
}

/**
 * Tells who holds up the creation of a slot by the backend `creatorPid`: the transactions of `before` (those that ran before it
 * began) that still run, in whichever database, and what that backend is blocked by now. Returns their pids.
 */
export async function reportSlotBlockers(client: SqlClient, blocked: { readonly creatorPid: number; readonly before: ReadonlySet<bigint> }, onWaiting: OnWaiting): Promise<readonly number[]> {
  const { running } = await readListedSnapshot(client)
  const still = new Set([...blocked.before].filter((xid) => running.has(xid)))
  const { transactions } = await describeTransactions(client, still)
  const { pids } = await queryRow(client, z.object({ pids: z.array(z.number()) }), {
    text: 'SELECT pg_blocking_pids($1) AS pids',
    values: [blocked.creatorPid],
    subject: SUBJECT,
  })
  const blockers = pids.filter((pid) => pid > 0).map((pid) => ({ xid: 0n, pid, preparedAs: null, databaseName: null }))
  report([...transactions, ...blockers], onWaiting)
  return [...transactions, ...blockers].flatMap(({ pid }) => (pid === null ? [] : [pid]))
}

/** Does one of these backends wait for the backend `holder`, be it through others? */
export async function isWaitedForBy(client: SqlClient, holder: number, pids: readonly number[]): Promise<boolean> {
  const { waits } = await queryRow(client, z.object({ waits: z.boolean() }), {
    text: `
      WITH RECURSIVE waiting (pid) AS (SELECT unnest($1::int4[]) UNION SELECT unnest(pg_blocking_pids(pid)) FROM waiting)
      SELECT EXISTS (SELECT FROM waiting WHERE pid = $2) AS waits`,
    values: [pids, holder],
    subject: SUBJECT,
  })
  return waits
}

/**
 * A snapshot of now that lists every transaction that has an id and has not ended.
 *
 * `pg_current_snapshot()` alone does not tell: it lists what runs below its `xmax`, the id after the last one that *ended*; what began
 * after that runs unlisted. Hence a transaction of our own takes an id and ends first: every older id is then below `xmax`. (A
 * standby has no ids to give: there the list is as good as the last transaction that it replayed.)
 *
 * Source: https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-PG-SNAPSHOT
 */
export async function readFullSnapshot(client: SqlClient): Promise<Snapshot> {
  await takeTransactionId(client)
  return await readListedSnapshot(client)
}

/**
 * Runs a transaction that has an id, and so a commit record: within `wal_writer_delay` the server flushes all WAL before it. Needs no privilege. Does nothing
 * on a standby.
 *
 * Source: https://www.postgresql.org/docs/current/wal-async-commit.html
 */
export async function takeTransactionId(client: SqlClient): Promise<void> {
  await queryRow(client, z.object({ xid: z.string().nullable() }), {
    text: 'SELECT CASE WHEN NOT pg_is_in_recovery() THEN pg_current_xact_id()::text END AS xid',
    subject: SUBJECT,
  })
}

async function readListedSnapshot(client: SqlClient): Promise<Snapshot> {
  const { snapshot } = await queryRow(client, z.object({ snapshot: z.string() }), {
    text: 'SELECT pg_current_snapshot()::text AS snapshot',
    subject: SUBJECT,
  })
  return parseSnapshot(snapshot)
}

function report(transactions: readonly RunningTransaction[], onWaiting: OnWaiting): void {
  const pids = new Set<number>()
  const prepared = new Set<string>()
  for (const { pid, preparedAs } of transactions) {
    if (pid !== null) pids.add(pid)
    if (preparedAs !== null) prepared.add(preparedAs)
  }
  onWaiting([...pids].sort((a, b) => a - b), [...prepared].sort())
}

const HOLDER_ROW = z.object({
  xid: z.string(),
  pid: z.number().nullable(),
  preparedAs: z.string().nullable(),
  databaseName: z.string().nullable(),
})

/**
 * Who runs these transactions. pg_locks shows to every role which backend holds a transaction's id; pg_stat_activity's backend_xid does not.
 *
 * Source: https://www.postgresql.org/docs/current/view-pg-locks.html
 */
async function describeTransactions(
  client: SqlClient,
  xids: ReadonlySet<bigint>,
): Promise<{ readonly transactions: readonly RunningTransaction[]; readonly databaseName: string }> {
  const byShortId = new Map([...xids].map((xid) => [String(xid & 0xffff_ffffn), xid]))
  const rows = await queryRows(client, HOLDER_ROW, {
    subject: SUBJECT,
    values: [[...byShortId.keys()]],
    text: `
      SELECT l.transactionid::text AS xid, a.pid, NULL::text AS "preparedAs", a.datname::text AS "databaseName"
      FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
      WHERE l.locktype = 'transactionid' AND l.mode = 'ExclusiveLock' AND l.granted AND l.transactionid::text = ANY ($1::text[])
      UNION ALL
      SELECT p.transaction::text, NULL, p.gid, p.database::text FROM pg_prepared_xacts p WHERE p.transaction::text = ANY ($1::text[])`,
  })
  const { databaseName } = await queryRow(client, z.object({ databaseName: z.string() }), {
    text: 'SELECT current_database()::text AS "databaseName"',
    subject: SUBJECT,
  })
  const transactions = rows.map((row) => ({ ...row, xid: byShortId.get(row.xid) ?? 0n }))
  return { transactions, databaseName }
}
