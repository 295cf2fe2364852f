import type { AddedColumn, TargetColumn } from '../../model/destination.ts'
import type { DatabaseSession } from './database.ts'
import { literalOf, stringOf } from './literals.ts'

/** What the rows that are there have in a column that came. */
export interface OlderRowsValue {
  readonly expression: string
  /** See {@link stringOf}. */
  readonly string: string | null
}

/** A table's columns once others have come, and the values in these of the rows that are there, by attribute number; those without one have NULL. */
export interface GrownColumns {
  readonly columns: readonly TargetColumn[]
  readonly values: ReadonlyMap<number, OlderRowsValue>
}

/** Finds out how the values of older rows are written; a column whose type cannot hold its value becomes text. */
export async function grownColumns(session: DatabaseSession, columns: readonly TargetColumn[], added: readonly AddedColumn[]): Promise<GrownColumns> {
  const values = new Map<number, OlderRowsValue>()
  const grown = [...columns]
  for (const { attributeNumber, valueOfOlderRows: text } of added) {
    const index = grown.findIndex((column) => column.attributeNumber === attributeNumber)
    const column = grown[index]
    if (text === null || column === undefined) continue
    const held = (await holds(session, literalOf(column, text, 'TRY_CAST'))) ? column : ({ ...column, type: 'VARCHAR', widenedFrom: column.type } as const)
    grown[index] = held
    values.set(attributeNumber, { expression: literalOf(held, text) ?? 'NULL', string: stringOf(held, text) })
  }
  return { columns: grown, values }
}

/** Does DuckDB make a value of it? */
async function holds(session: DatabaseSession, literal: string | null): Promise<boolean> {
  if (literal === null) return false
  const [row] = await session.rows(`SELECT ${literal} IS NOT NULL`)
  return row?.[0] === true
}
