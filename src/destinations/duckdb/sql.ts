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
