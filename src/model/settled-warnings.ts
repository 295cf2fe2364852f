/**
 * What still holds of earlier warnings once an order has looked anew at tables (`schema.table`): what was said of these by name, in quotes, is said again by the order where it
 * is still so.
 */
export function withoutTables(warnings: readonly string[], tableKeys: readonly string[]): readonly string[] {
  const quoted = tableKeys.map((key) => JSON.stringify(key))
  return warnings.filter((warning) => !quoted.some((key) => warning.includes(key)))
}
