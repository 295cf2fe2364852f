import { type ForeseenChange, type Foresight, shapingThere, type TableNames, type TableRecord } from '../../model/destination.ts'
import { keepsPast, shapesOf } from '../../model/shapes.ts'
import type { TableName } from '../../model/table-schema.ts'
import { alteredColumns } from './columns.ts'
import type { DatabaseSession } from './database.ts'
import { alterStatements, hasTable, moveStatements, tablesOf } from './ddl.ts'
import { grownColumns, type OlderRowsValue } from './older-rows.ts'
import { quoteTable } from './sql.ts'

/** Stands for a value that rows have: none of them is shown. */
const HIDDEN: OlderRowsValue = { expression: "'…'", string: "'…'" }

/** See `foresee` of the destination contract. */
export async function foresee(session: DatabaseSession, record: TableRecord, change: ForeseenChange): Promise<Foresight> {
  switch (change.tag) {
    case 'alter': {
      const altered = alteredColumns(record.columns, change.change, record)
      const { columns, values } = await grownColumns(session, altered, keepsPast(record) ? [] : change.change.added)
      const hidden = new Map([...values].map(([number, { string }]) => [number, { ...HIDDEN, string: string === null ? null : HIDDEN.string }]))
      const altering = tablesOf(record).map((shape) => ({ table: shape.table, ...alterStatements(shape, { before: record.columns, after: columns, values: hidden, mode: 'inPlace' }) }))
      const written = altering.filter(({ writesRows }) => writesRows).map(({ table }) => table)
      return { statements: altering.flatMap(({ statements }) => statements), rowCount: await countRows(session, written) }
    }
    case 'rename':
      return foreseeMove(session, record, change.names)
    case 'copy':
      return { statements: [], rowCount: await countRows(session, shapesOf(shapingThere(record), record.target).slice(0, 1).map(({ table }) => table)) }
    default:
      return change satisfies never
  }
}

async function foreseeMove(session: DatabaseSession, record: TableRecord, { target }: TableNames): Promise<Foresight> {
  if (target.schema === record.target.schema && target.name === record.target.name) return { statements: [], rowCount: 0 }
  const shaping = shapingThere(record)
  const names = shapesOf(shaping, target)
  const present = shapesOf(shaping, record.target).map(({ table }) => table)
  const statements = present.flatMap((table, index) => {
    const to = names[index]?.table
    return to === undefined ? [] : moveStatements(table, to)
  })
  return { statements, rowCount: target.schema === record.target.schema ? 0 : await countRows(session, present) }
}

async function countRows(session: DatabaseSession, tables: readonly TableName[]): Promise<number> {
  let rowCount = 0
  for (const table of tables) {
    if (!(await hasTable(session, table))) continue
    const [row] = await session.rows(`SELECT count(*) FROM ${quoteTable(table)}`)
    rowCount += Number(row?.[0])
  }
  return rowCount
}
