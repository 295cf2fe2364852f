import { z } from 'zod'
import { tableKey, type TableSchema } from '../model/table-schema.ts'
import { queryRows, quoteTable, type SqlClient } from './sql.ts'

/** How a table is read. */
export interface StoredTable {
  /** For `FROM`: with `ONLY`, except for a partitioned table, whose rows are all in its partitions. */
  readonly from: string
  /** The same name for `LOCK TABLE`. */
  readonly name: string
  readonly isPartitioned: boolean
  /** One file of pages with rows, in PostgreSQL's own format: its rows can be read by ranges of their ctid. */
  readonly isHeap: boolean
  /** Pages of the table, partitions included; TOAST tables are not. */
  readonly pageCount: number
}

/**
 * Finds a table by its oid, under the name that it has now. A table with inheritance children is read with `ONLY`: publications
 * hold the children as tables of their own.
 *
 * Null where it was dropped.
 *
 * Source: https://www.postgresql.org/docs/current/ddl-inherit.html
 */
export async function findStoredTable(client: SqlClient, table: TableSchema): Promise<StoredTable | null> {
  const rows = await queryRows(client, z.object({ schema: z.string(), name: z.string(), kind: z.string(), isHeap: z.boolean(), pages: z.number().nullable() }), {
    subject: `table ${tableKey(table)}`,
    values: [table.oid],
    text: `
      SELECT n.nspname::text AS schema, c.relname::text AS name, c.relkind::text AS kind,
        c.relkind = 'r' AND EXISTS (SELECT FROM pg_am a WHERE a.oid = c.relam AND a.amname = 'heap') AS "isHeap",
        (CASE c.relkind
           WHEN 'p' THEN (SELECT coalesce(sum(pg_relation_size(relid)), 0) FROM pg_partition_tree(c.oid) WHERE isleaf)
           ELSE pg_relation_size(c.oid)
         END / current_setting('block_size')::int8)::float8 AS pages
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
       WHERE c.oid = $1`,
  })
  const [row] = rows
  // Where the DROP TABLE that it waited for has committed, the table has no size.
  if (row === undefined || row.pages === null) return null
  const name = quoteTable(row)
  const isPartitioned = row.kind === 'p'
  return { name, isPartitioned, isHeap: row.isHeap, from: isPartitioned ? name : `ONLY ${name}`, pageCount: Math.ceil(row.pages) }
}
