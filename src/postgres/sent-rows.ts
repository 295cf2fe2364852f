import { z } from 'zod'
import { DomainError } from '../model/errors.ts'
import { tableKey, type TableName } from '../model/table-schema.ts'
import { execute, inTransaction, queryRow, quoteTable, type SqlClient } from './sql.ts'

/** At each end of the table: half a megabyte with PostgreSQL's usual blocks. */
const BLOCKS = 64

/** Whoever looks at the catalog meanwhile waits as well. */
const LOCK_TIMEOUT_MS = 200

/** Transaction ids that are further apart cannot be compared by age: https://www.postgresql.org/docs/current/routine-vacuuming.html#VACUUM-FOR-WRAPAROUND */
const COMPARABLE_XIDS = 2_000_000_000

const ENDS_ROW = z.object({ blocks: z.number(), isComparable: z.boolean() })
const FOUND_ROW = z.object({ isFound: z.boolean() })

/**
 * See `Source.hasSentRows`. VACUUM FULL and CLUSTER keep a row's xmin, also where they freeze it. ALTER TABLE gives its own transaction to each, and writes the table's entry in pg_class
 * after them: by their commands (cmin) they are told from what was written after a TRUNCATE of the same transaction.
 *
 * Source: https://www.postgresql.org/docs/current/ddl-system-columns.html
 */
export async function hasSentRows(client: SqlClient, table: TableName, { horizon, truncatedBy }: { readonly horizon: string; readonly truncatedBy: number | null }): Promise<boolean> {
  const subject = tableKey(table)
  const name = quoteTable(table)
  const isOlder = 'age(t.xmin) > age(($1::xid8)::xid)'
  const isAtFront = `t.ctid < '(${String(BLOCKS)},0)'`
  try {
    return await inTransaction(client, subject, async () => {
      await execute(client, { text: `SET LOCAL lock_timeout = ${String(LOCK_TIMEOUT_MS)}`, subject })
      const { blocks, isComparable } = await queryRow(client, ENDS_ROW, {
        subject,
        values: [name, horizon],
        text: `SELECT (pg_relation_size($1::regclass) / current_setting('block_size')::int8)::int4 AS blocks,
          pg_snapshot_xmax(pg_current_snapshot())::text::numeric - $2::numeric < ${String(COMPARABLE_XIDS)} AS "isComparable"`,
      })
      if (!isComparable) return false
      const { isFound } = await queryRow(client, FOUND_ROW, {
        subject,
        values: [horizon, truncatedBy === null ? null : String(truncatedBy), name],
        text: `SELECT EXISTS (SELECT FROM ONLY ${name} t WHERE ${isAtFront} AND ${isOlder})
          OR EXISTS (SELECT FROM ONLY ${name} t WHERE t.ctid >= '(${String(Math.max(0, blocks - BLOCKS))},0)' AND ${isOlder})
          OR EXISTS (SELECT FROM pg_class c WHERE c.oid = $3::regclass AND c.xmin::text = $2
            AND NOT EXISTS (SELECT FROM ONLY ${name} t WHERE ${isAtFront} AND t.xmin = c.xmin AND t.cmin::text::int8 <= c.cmin::text::int8)) AS "isFound"`,
      })
      return isFound
    })
  } catch (error) {
    if (error instanceof DomainError && !error.isRetryable) return false
    throw error
  }
}
