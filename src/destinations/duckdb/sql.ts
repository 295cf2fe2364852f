import type { TableName } from '../../model/table-schema.ts'

/** `"a ""quoted"" name"`. */
export function quoteName(name: string): string {
  return `"${name.replaceAll('"', '""')}"`
}

/** `'a ''quoted'' text'`. */
export function quoteText(text: string): string {
  return `'${text.replaceAll("'", "''")}'`
}

/** `"schema"."table"`. */
export function quoteTable(table: TableName): string {
  return `${quoteName(table.schema)}.${quoteName(table.name)}`
}

/** All of them; of none, what is always so: a table may have no columns at all. */
export function allOf(conditions: readonly string[]): string {
  return conditions.length === 0 ? 'true' : conditions.join(' AND ')
}

/** What rows are told apart by; by nothing, all are alike. */
export function groupedBy(expressions: readonly string[]): string {
  return expressions.length === 0 ? 'true' : expressions.join(', ')
}
