import type { TableRecord } from '../model/destination.ts'
import { DomainError } from '../model/errors.ts'
import { tableKey, type TableName } from '../model/table-schema.ts'
import { nearMissRemedy, parseTableName } from '../postgres/table-names.ts'

/** All names that the destination's tables have or had, first those that they have; names of removed tables, which may be others' by now, last. */
export function knownNames(tables: readonly TableRecord[]): readonly (TableName & { readonly oid: number })[] {
  const live = tables.filter(({ state }) => state !== 'removed')
  const removed = tables.filter(({ state }) => state === 'removed')
  return [
    ...live.map(({ oid, source }) => ({ ...source, oid })),
    ...[...live, ...removed].flatMap(({ oid, formerNames }) => (formerNames ?? []).map((name) => ({ ...name, oid }))),
    ...removed.map(({ oid, source }) => ({ ...source, oid })),
  ]
}

/**
 * The replicated tables that `tableNames` means, each once: spelled as in the input that they were started with, by a former name too (contract §4). Throws
 * `InvalidInput` with the near miss for one that is not among `tables`.
 */
export function namedTables(tables: readonly TableRecord[], tableNames: readonly string[], schemaName: string): readonly TableRecord[] {
  const tableOf = new Map(tables.map((table) => [table.oid, table]))
  const names = knownNames(tables)
  // Of several tables the first has the name now.
  const known = new Map([...names].reverse().map((name) => [tableKey(name), tableOf.get(name.oid)]))
  const scope = { schemaName, schemas: new Set(names.map(({ schema }) => schema)) }
  const named = tableNames.map((spelling) => {
    const key = tableKey(parseTableName(spelling, scope))
    const table = known.get(key)
    if (table !== undefined) return table
    throw new DomainError({
      kind: 'InvalidInput',
      message: `tableNames names ${JSON.stringify(spelling)}, which is not one of the replicated tables`,
      remedy: nearMissRemedy(key, tables.map(({ source }) => tableKey(source))),
    })
  })
  return [...new Set(named)]
}
