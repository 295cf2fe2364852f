import type { TableName } from '../../model/table-schema.ts'
import type { DatabaseSession } from './database.ts'
import { quoteTable } from './sql.ts'
import { keyNames, keysMatch, STAGED } from './staged-rows.ts'
import type { RowsStep } from './steps.ts'

/** Is there a marked row? Then an insert may be of its key. */
export async function hasMarkedRow(session: DatabaseSession, table: TableName): Promise<boolean> {
  return (await session.rows(`SELECT 1 FROM ${quoteTable(table)} WHERE _deleted_at IS NOT NULL LIMIT 1`)).length > 0
}

/**
 * Merges the staged rows by key where deleted rows stay, marked. A row has the values that it had last: those of its last staged row, else
 * those that it has here; a delete adds the mark, and whatever writes the key again takes it away. `targets` are the columns and where each is staged.
 */
export async function mergeMarked(session: DatabaseSession, step: RowsStep, into: TableName, columns: { readonly targets: readonly string[]; readonly values: readonly string[] }): Promise<void> {
  const keys = keyNames(step)
  const name = quoteTable(into)
  await session.run(
    `CREATE OR REPLACE TEMP TABLE lasts AS SELECT ${keys}, max(rowid) AS last, max(rowid) FILTER (op NOT IN ('D', 'X')) AS held FROM ${STAGED} GROUP BY ${keys};
     DELETE FROM ${name} AS t USING (SELECT ${keys} FROM temp.lasts WHERE held IS NOT NULL) AS s WHERE ${keysMatch(step, 's', 't')};
     INSERT INTO ${name} (${[...columns.targets, '_lsn', '_deleted_at'].join(', ')})
       SELECT ${[...columns.values.map((value) => `h.${value}`), 'e.lsn', 'CASE WHEN l.held <> l.last THEN e.committed_at END'].join(', ')}
       FROM temp.lasts l JOIN ${STAGED} h ON h.rowid = l.held JOIN ${STAGED} e ON e.rowid = l.last ORDER BY l.held;
     UPDATE ${name} AS t SET _deleted_at = s.committed_at, _lsn = s.lsn
       FROM (SELECT e.* FROM ${STAGED} e JOIN temp.lasts l ON e.rowid = l.last WHERE l.held IS NULL) AS s WHERE t._deleted_at IS NULL AND ${keysMatch(step, 's', 't')};
     DROP TABLE temp.lasts`,
  )
}
