import type { TableRecord } from '../../model/destination.ts'
import type { Shape } from '../../model/shapes.ts'
import { columnsOf } from './added-columns.ts'
import { comparedValue } from './compared-values.ts'
import { quoteName, quoteTable } from './sql.ts'

/** The source's own columns that are there now, quoted. */
export function liveNames(record: Pick<TableRecord, 'columns'>): readonly string[] {
  return columnsOf('merge', record.columns).map(({ name }) => quoteName(name))
}

/**
 * `SELECT` of those rows of a shape that stand for the source's present ones, with the columns of {@link liveNames}: of a history what its changes come to.
 * `where` is a condition on the key's columns (without a key: one that is the same for equal rows); null = all rows.
 */
export function selectCurrent({ kind, table }: Shape, record: TableRecord, where: string | null): string {
  const names = liveNames(record).join(', ')
  const name = quoteTable(table)
  const and = where === null ? '' : ` AND (${where})`
  switch (kind) {
    case 'merge':
      return `SELECT ${names} FROM ${name}${where === null ? '' : ` WHERE ${where}`}`
    case 'soft':
      return `SELECT ${names} FROM ${name} WHERE _deleted_at IS NULL${and}`
    case 'scd2':
      return `SELECT ${names} FROM ${name} WHERE _is_current${and}`
    case 'append': {
      const since = `(_lsn, _seq) > (SELECT coalesce(max((_lsn, _seq)), (0::UBIGINT, -1::BIGINT)) FROM ${name} WHERE _op = 'truncate')${and}`
      const key = record.key.map(quoteName).join(', ')
      if (key !== '') {
        return `SELECT ${names} FROM (SELECT * FROM ${name} WHERE ${since} QUALIFY row_number() OVER (PARTITION BY ${key} ORDER BY _lsn DESC, _seq DESC) = 1) WHERE _op <> 'delete'`
      }
      const live = columnsOf('merge', record.columns)
      const one = live.map((column) => `any_value(${quoteName(column.name)}) AS ${quoteName(column.name)}`)
      const content = live.map((column) => comparedValue(column, quoteName(column.name)))
      return `SELECT ${names} FROM (SELECT ${names}, unnest(range(__count)) FROM (SELECT ${one.join(', ')}, greatest(0, sum(CASE WHEN _op = 'delete' THEN -1 ELSE 1 END))::BIGINT AS __count
        FROM ${name} WHERE ${since} GROUP BY ${content.join(', ')}))`
    }
    default:
      return kind satisfies never
  }
}
