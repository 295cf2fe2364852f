import type { Shape } from '../../model/shapes.ts'
import type { DatabaseSession } from './database.ts'
import { addedNames } from './added-columns.ts'
import { quoteTable } from './sql.ts'
import type { Step } from './steps.ts'
import { microsText } from './table-writer.ts'

/** A TRUNCATE of the source table in one of its shapes. */
export async function truncateShape(session: DatabaseSession, { kind, table }: Shape, { transaction, sequence }: Extract<Step, { tag: 'truncate' }>): Promise<void> {
  const name = quoteTable(table)
  const lsn = `${String(transaction.commitLsn)}::UBIGINT`
  const time = `'${microsText(transaction.commitTimeMicros)}'::TIMESTAMPTZ`
  switch (kind) {
    case 'merge':
      await session.run(`DELETE FROM ${name}`)
      return
    case 'soft':
      await session.run(`UPDATE ${name} SET _deleted_at = ${time}, _lsn = ${lsn} WHERE _deleted_at IS NULL`)
      return
    case 'append':
      await session.run(`INSERT INTO ${name} (${addedNames('append').join(', ')}) VALUES ('truncate', ${lsn}, ${String(sequence)}, ${time})`)
      return
    case 'scd2':
      // What the same transaction has written was never there for anybody.
      await session.run(
        `DELETE FROM ${name} WHERE _is_current AND _lsn = ${lsn} AND _valid_from = ${time};
         UPDATE ${name} SET _valid_to = ${time}, _closed_lsn = ${lsn}, _is_current = false WHERE _is_current`,
      )
      return
    default:
      kind satisfies never
  }
}
