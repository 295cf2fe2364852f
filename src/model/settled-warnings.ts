import type { TableState } from './status.ts'

/**
 * What still holds of earlier warnings once an order has looked anew at tables (`schema.table`): what was said of these by name, in quotes, is said again by the order where it
 * is still so.
 */
export function withoutTables(warnings: readonly string[], tableKeys: readonly string[]): readonly string[] {
  const quoted = tableKeys.map((key) => JSON.stringify(key))
  return warnings.filter((warning) => !quoted.some((key) => warning.includes(key)))
}

/** What still holds of earlier warnings where these tables are replicated: why one stayed out is over once it has joined. */
export function withoutJoined(warnings: readonly string[], tables: Readonly<Record<string, { readonly state: TableState }>>): readonly string[] {
  const joined = Object.entries(tables).filter(([, { state }]) => state !== 'removed')
  return warnings.filter((warning) => !joined.some(([key]) => warning.startsWith(stayingOutBy(key))))
}

/** What a warning says first of a table (`schema.table`) that could not join. */
export function stayingOutBy(tableKey: string): string {
  return `${JSON.stringify(tableKey)} stays out until this is mended: `
}
