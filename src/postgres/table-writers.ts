import { setTimeout as delay } from 'node:timers/promises'
import { z } from 'zod'
import type { OnWaiting } from '../model/source.ts'
import { REPORT_WAITING_MS } from './running-transactions.ts'
import { queryRows, type SqlClient } from './sql.ts'

const SUBJECT = 'transactions that write to a table'
const POLL_MS = 20
/** Modes that INSERT, UPDATE, DELETE, TRUNCATE and whatever rewrites rows take, on the table or on the partition that they write to. */
const WRITING_MODES = ['RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock']

const WRITER_ROW = z.object({ transaction: z.string(), pid: z.number().nullable(), preparedAs: z.string().nullable() })

/**
 * Waits until every transaction that had written to the table when it was called has ended. By their locks, which a transaction gives back only once it is
 * visible to new snapshots, also where its commit waits for a synchronous standby; so those that have nothing to do with the table are not waited for. One
 * that is prepared meanwhile has another name in the list and has not committed before: it is not waited for.
 *
 * `onWaiting` is called every {@link REPORT_WAITING_MS}. Aborting rejects with the signal's reason.
 *
 * Source: https://www.postgresql.org/docs/current/view-pg-locks.html
 */
export async function waitForWriters(client: SqlClient, oid: number, { onWaiting, signal }: { readonly onWaiting: OnWaiting; readonly signal: AbortSignal }): Promise<void> {
  let still = await readWriters(client, oid)
  let reportAt = Date.now() + REPORT_WAITING_MS
  while (still.length > 0) {
    signal.throwIfAborted()
    if (Date.now() >= reportAt) {
      reportAt = Date.now() + REPORT_WAITING_MS
      onWaiting(
        [...new Set(still.flatMap(({ pid }) => (pid === null ? [] : [pid])))].sort((a, b) => a - b),
        [...new Set(still.flatMap(({ preparedAs }) => (preparedAs === null ? [] : [preparedAs])))].sort(),
      )
    }
    await delay(POLL_MS, undefined, { signal })
    const waitingFor = new Set(still.map(({ transaction }) => transaction))
    still = (await readWriters(client, oid)).filter(({ transaction }) => waitingFor.has(transaction))
  }
}

type Writer = z.infer<typeof WRITER_ROW>

async function readWriters(client: SqlClient, oid: number): Promise<readonly Writer[]> {
  return await queryRows(client, WRITER_ROW, {
    subject: SUBJECT,
    values: [oid, WRITING_MODES],
    text: `
      SELECT DISTINCT l.virtualtransaction AS transaction, l.pid, p.gid AS "preparedAs"
      FROM pg_locks l LEFT JOIN pg_prepared_xacts p ON l.pid IS NULL AND l.virtualtransaction = '-1/' || p.transaction::text
      WHERE l.locktype = 'relation' AND l.granted AND l.mode = ANY ($2::text[])
        AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND l.relation IN (SELECT $1::oid UNION SELECT relid FROM pg_partition_tree($1::oid))`,
  })
}
