import { z } from 'zod'
import { DomainError } from '../model/errors.ts'
import type { ChangedTable } from '../model/source.ts'
import { tableKey, type TableSchema } from '../model/table-schema.ts'
import { hasShape } from '../pipeline/schema-diff.ts'
import { describePublishedTable, describeReadableTable } from './publication.ts'
import { execute, queryRow, quoteLiteral, type SqlClient } from './sql.ts'
import { findStoredTable, type StoredTable } from './stored-table.ts'

/** A table as the replication knows it. */
export interface KnownTable {
  readonly table: TableSchema
  /** null = none: what is read is what the table has. */
  readonly publicationName: string | null
  /** True where the input names the table's columns: then others may come without changing its shape. */
  readonly hasColumnList: boolean
}

/** A table that is renamed between the look at its name and the lock on it is looked up so often. */
const MAX_LOOKUPS = 10

/** A table that nobody can alter while the transaction lasts. */
export interface LockedTable {
  readonly tag: 'locked'
  readonly stored: StoredTable
  /** The publication's row filter as SQL, or none. */
  readonly rowFilter: string | null
}

/**
 * Begins a REPEATABLE READ transaction in which the table has the shape that is known. It is locked (ACCESS SHARE) **before** the snapshot is taken:
 * otherwise an `ALTER TABLE` that rewrites the table could commit between the two, and a reader would find no row that its snapshot
 * sees. Under that lock its shape is compared: a column that came since would be missing in rows that the stream leaves to the copy.
 *
 * Where it has changed, is not published or not there any more, the transaction is over again. After an error it may be open.
 *
 * Source: https://www.postgresql.org/docs/current/mvcc-caveats.html and
 * https://www.postgresql.org/docs/current/explicit-locking.html#LOCKING-TABLES
 */
export async function beginWithTable(client: SqlClient, known: KnownTable): Promise<LockedTable | ChangedTable> {
  const { table } = known
  const subject = `table ${tableKey(table)}`
  let stored = await findStoredTable(client, table)
  for (let lookups = 1; stored !== null && !(await isLocked(client, { subject, oid: table.oid, name: stored.name })); lookups++) {
    if (lookups === MAX_LOOKUPS) throw new DomainError({ kind: 'SourceUnavailable', message: `${subject} is renamed again and again while it is about to be read`, remedy: 'It is tried again.' })
    stored = await findStoredTable(client, table)
  }
  if (stored === null) return { tag: 'changed', table: null }
  const { publicationName } = known
  const published = publicationName === null ? await describeReadableTable(client, table.oid) : await describePublishedTable(client, publicationName, table.oid)
  if (published !== null && hasShape(published.table, table, known.hasColumnList)) return { tag: 'locked', stored, rowFilter: published.rowFilter }
  await execute(client, { subject, text: 'ROLLBACK' })
  return { tag: 'changed', table: published?.table ?? null }
}

/**
 * Begins the transaction and locks the table of that name. False where another has the name, or none, and the transaction is over again: an `ALTER TABLE … RENAME` or `DROP TABLE`
 * that waits for the end of one chunk's copy comes before the next one's lock.
 */
async function isLocked(client: SqlClient, { subject, oid, name }: { readonly subject: string; readonly oid: number; readonly name: string }): Promise<boolean> {
  await execute(client, { subject, text: 'BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY' })
  try {
    await execute(client, { subject, text: `LOCK TABLE ${name} IN ACCESS SHARE MODE` })
    const { isSame } = await queryRow(client, z.object({ isSame: z.boolean() }), { subject, text: `SELECT coalesce(to_regclass(${quoteLiteral(name)})::oid = ${oid}, false) AS "isSame"` })
    if (isSame) return true
  } catch (error) {
    // That is: no table of that name.
    if (!(error instanceof DomainError) || error.kind !== 'InvalidInput') throw error
  }
  await execute(client, { subject, text: 'ROLLBACK' })
  return false
}
