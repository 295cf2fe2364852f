import type { TableRecord, TargetColumn } from '../../model/destination.ts'
import { carriedColumns } from './columns.ts'
import type { DatabaseSession } from './database.ts'
import { type AlterMode, alterTable, hasTable, keptShapes } from './ddl.ts'

/**
 * Gives the tables whose rows outlive a copy the columns that the copy will have, so that it can be joined to them when it is whole. Returns
 * the columns: those of `now`, and where there is a history those that it has besides.
 */
export async function carryShapes(session: DatabaseSession, record: TableRecord, now: readonly TargetColumn[], mode: AlterMode): Promise<readonly TargetColumn[]> {
  const columns = carriedColumns(record.columns, now, record)
  for (const shape of keptShapes(record)) {
    if (await hasTable(session, shape.table)) await alterTable(session, shape, { before: record.columns, after: columns, values: new Map(), mode })
  }
  return columns
}
