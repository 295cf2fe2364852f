import type { TableRecord, TargetColumn } from '../../model/destination.ts'
import { DomainError } from '../../model/errors.ts'
import { formatLsn, type Lsn, toLsn } from '../../model/lsn.ts'
import { keepsPast } from '../../model/shapes.ts'
import { tableKey } from '../../model/table-schema.ts'
import type { DatabaseSession } from './database.ts'
import { misfitQuery } from './misfit-query.ts'
import { quoteName } from './sql.ts'
import { keyNames, STAGED } from './staged-rows.ts'
import { OP, type RowsStep } from './steps.ts'

/**
 * Values that do not fit the type which a hint pins. Where only a table's last rows count (`merge` by key, with hard deletes), such a value may be replaced
 * before anybody sees it: by another change of the row, its delete, or a TRUNCATE in the same batch. So its row is staged with NULL and a
 * mark, and only a row that is still there at the end stops the table. Everywhere else, such a value stops the table at once.
 */
export function mayBeReplaced(step: RowsStep, op: number, index: number): boolean {
  return !step.hasTimes && !step.isFiltered && op !== OP.snapshot && step.keyIndexes.length > 0 && !step.keyIndexes.includes(index)
}

/** One table cannot go on: the transaction is rolled back, and the table named as failed. */
export class TableRefused extends Error {
  readonly oid: number
  readonly reason: DomainError

  constructor(oid: number, reason: DomainError) {
    super(reason.message)
    this.oid = oid
    this.reason = reason
  }
}

/** The rows with a marked value that are in the table, while a batch's steps are applied one after the other. */
export class Misfits {
  readonly #session: DatabaseSession
  /** Columns that have had a marked value, with the LSN of the first. */
  readonly #columns = new Map<string, Lsn>()
  #hasTable = false

  constructor(session: DatabaseSession) {
    this.#session = session
  }

  /** Takes the step's staged rows into account, before they are applied. */
  async note(step: RowsStep, record: TableRecord): Promise<void> {
    for (const [index, lsn] of step.misfits) {
      const name = step.columns[index]?.name ?? ''
      if (!this.#columns.has(name)) this.#columns.set(name, lsn)
    }
    if (this.#columns.size === 0) return
    // An unchanged value is taken from an earlier row, whose value may be one that is marked: it is not looked for how far it went.
    for (const index of step.unchanged) this.#refuseColumn(record, step.columns[index]?.name ?? '')
    const keys = step.keyIndexes.map((index) => `c${String(index)}::VARCHAR`)
    const same = keys.map((key, place) => `m.k${String(place)} = s.${key}`).join(' AND ')
    if (!this.#hasTable) {
      const columns = [...keys.map((_, place) => `k${String(place)} VARCHAR`), 'lsn UBIGINT', 'name VARCHAR']
      await this.#session.run(`CREATE OR REPLACE TEMP TABLE misfits (${columns.join(', ')})`)
      this.#hasTable = true
    }
    await this.#session.run(`DELETE FROM temp.misfits m USING (SELECT DISTINCT ${keyNames(step)} FROM ${STAGED}) s WHERE ${same}`)
    if (step.misfits.size === 0) return
    const names = `[${step.columns.map(({ name }) => `'${name.replaceAll("'", "''")}'`).join(', ')}]`
    await this.#session.run(
      `INSERT INTO temp.misfits SELECT ${keys.join(', ')}, lsn, ${names}[bad + 1] FROM ${STAGED}
       WHERE bad IS NOT NULL AND op NOT IN ('D', 'X') AND rowid IN (SELECT max(rowid) FROM ${STAGED} GROUP BY ${keyNames(step)})`,
    )
  }

  /** The table is empty, or its rows do not count any more. */
  async clear(): Promise<void> {
    this.#columns.clear()
    if (this.#hasTable) await this.#session.run('DELETE FROM temp.misfits')
  }

  /** Throws {@link TableRefused} where a marked value is still there. */
  async refuse(record: TableRecord): Promise<void> {
    if (!this.#hasTable) return
    const [row] = await this.#session.rows('SELECT name, lsn::VARCHAR FROM temp.misfits ORDER BY lsn LIMIT 1')
    await this.#session.run('DROP TABLE temp.misfits')
    this.#hasTable = false
    if (row === undefined) return
    throw refusal(record, String(row[0]), toLsn(BigInt(String(row[1]))))
  }

  #refuseColumn(record: TableRecord, name: string): void {
    const lsn = this.#columns.get(name)
    if (lsn !== undefined) throw refusal(record, name, lsn)
  }
}

/** A column that is not pinned becomes text for what its type cannot hold: there it was no text. */
function refusal(record: TableRecord, name: string, lsn: Lsn): TableRefused {
  const column: Pick<TargetColumn, 'name' | 'type' | 'isPinned'> & Partial<Pick<TargetColumn, 'shape'>> = record.columns.find((other) => other.name === name) ?? { name, type: 'its type', isPinned: true }
  return new TableRefused(record.oid, column.isPinned && column.type !== 'VARCHAR' ? unrepresentable(record, column, lsn) : invalidText(record, column, lsn))
}

/** The row is told by the transaction that wrote it, and by what tells it from others: never by its values, for which the remedy has a query where there is one. */
export function unrepresentable(table: Pick<TableRecord, 'source' | 'key' | 'writeMode' | 'otherModes'>, column: Pick<TargetColumn, 'name' | 'type'> & Partial<Pick<TargetColumn, 'shape'>>, lsn: Lsn): DomainError {
  const query = misfitQuery(table, column)
  const found = query === null ? '' : ` At the source this finds the rows: ${query};`
  return new DomainError({
    kind: 'UnrepresentableValue',
    message: `${valueOf(table, column, lsn)} does not fit ${column.type}, which a hint asks for`,
    // A history takes every change as it was: a later value at the source is one more.
    remedy: keepsPast(table)
      ? `Stop and start with another hint in columns (for example "VARCHAR"). To change the value at the source helps only where a copy has stopped: a history takes each change as it was.${found}`
      : `Change the value at the source, or stop and start with another hint in columns (for example "VARCHAR").${found}`,
  })
}

/** Text of a database of encoding SQL_ASCII that is of some other encoding than UTF-8, nobody knows of which; or a byte that the database's encoding has no character for. */
export function invalidText(table: Pick<TableRecord, 'source' | 'key'>, column: Pick<TargetColumn, 'name'>, lsn: Lsn): DomainError {
  return new DomainError({
    kind: 'UnrepresentableValue',
    message: `${valueOf(table, column, lsn)} is not UTF-8 and cannot be converted to it: the database's encoding takes bytes that are no character`,
    remedy: 'Change the value at the source; where each change is kept, let the table be copied anew then (resyncTables). Or stop and start without this column (includeColumns).',
  })
}

function valueOf(table: Pick<TableRecord, 'source' | 'key'>, column: Pick<TargetColumn, 'name'>, lsn: Lsn): string {
  const key = table.key.length === 0 ? 'no key' : `key ${table.key.map(quoteName).join(', ')}`
  return `${tableKey(table.source)} (${key}): a value of column ${quoteName(column.name)} in the transaction committed at ${formatLsn(lsn)}`
}
