import type { TupleView } from '../model/change.ts'
import { tableKey, type TableSchema } from '../model/table-schema.ts'
import { copyOut } from './copy-out.ts'
import { readCopyRow } from './copy-text.ts'
import type { SourceCredentials } from './credentials.ts'
import { createTupleView } from './pgoutput/tuple.ts'
import { connect, endQuietly } from './session.ts'
import { quoteIdentifier } from './sql.ts'
import { toDomainError } from './sqlstate.ts'
import { findStoredTable } from './stored-table.ts'

/** 2 MB of a table's own pages, chosen at random: a large table costs its source no more than a small one. */
const SAMPLED_PAGES = 256
/** What TOAST holds of a sample's rows may be any amount. */
const SAMPLED_BYTES = 64 * 2 ** 20

export interface ValuesRequest {
  /** Its columns are those that are read. */
  readonly table: TableSchema
  /** The publication's row filter as SQL, or none. */
  readonly rowFilter: string | null
  /** False: every row. */
  readonly isSample: boolean
}

export interface ReadValues {
  readonly rowCount: number
  /** True where no row was left out. */
  readonly isWhole: boolean
}

/** Ends a COPY early. */
class EnoughRead extends Error {}

/**
 * Reads a table's values as its copy would, with `onRow` as in `ChunkCopy.rows`: by one statement, on a connection of its own, changing and
 * waiting for nothing. A sample is of random pages. A table that is gone has no rows. Throws a `DomainError`.
 *
 * Source: https://www.postgresql.org/docs/current/sql-select.html#SQL-FROM (TABLESAMPLE)
 */
export async function readValues(credentials: SourceCredentials, request: ValuesRequest, onRow: (tuple: TupleView) => Promise<void> | undefined): Promise<ReadValues> {
  const { table, rowFilter, isSample } = request
  const subject = `values of table ${tableKey(table)}`
  const client = await connect(credentials)
  try {
    const stored = await findStoredTable(client, table)
    if (stored === null) return { rowCount: 0, isWhole: true }
    const isPart = isSample && stored.pageCount > SAMPLED_PAGES
    const from = isPart ? `${stored.from} TABLESAMPLE SYSTEM (${String((100 * SAMPLED_PAGES) / stored.pageCount)})` : stored.from
    const columnCount = table.columns.length
    const view = createTupleView(columnCount)
    let byteCount = 0
    let rowCount = 0
    try {
      await copyOut(client, {
        sql: `COPY (SELECT ${table.columns.map(({ name }) => quoteIdentifier(name)).join(', ')} FROM ${from}${rowFilter === null ? '' : ` WHERE ${rowFilter}`}) TO STDOUT (FORMAT text)`,
        onCopyData: (buffer, start, end) => {
          if (isSample && byteCount > SAMPLED_BYTES) throw new EnoughRead()
          if (!readCopyRow({ buffer, start, end }, view, columnCount)) return undefined
          byteCount += end - start
          rowCount++
          return onRow(view)
        },
        mapError: (error) => toDomainError(error, { subject }),
      })
    } catch (error) {
      if (!(error instanceof EnoughRead)) throw error
      return { rowCount, isWhole: false }
    }
    return { rowCount, isWhole: !isPart }
  } finally {
    await endQuietly(client)
  }
}
