import { DomainError } from '../model/errors.ts'
import { tableKey, type TableName } from '../model/table-schema.ts'
import { nearest } from './nearest.ts'

/** What names are resolved against. */
export interface NameScope {
  /** Schema of names that carry none. */
  readonly schemaName: string
  /** Schemas that exist. */
  readonly schemas: ReadonlySet<string>
}

/** Of names in a message. */
const MAX_SHOWN = 10

const QUOTED = '"(?:[^"]|"")+"'
const QUOTED_NAME = new RegExp(`^(${QUOTED})$`)
const QUALIFIED_QUOTED_NAME = new RegExp(`^(${QUOTED}|[^".]+)\\.(${QUOTED})$`)
const QUOTED_SCHEMA = new RegExp(`^(${QUOTED})\\.([^"]+)$`)

/**
 * Reads a table's name as users spell it (contract §4): exact text (`Order Items`, `sales.Order Items`), or SQL-quoted
 * (`"has.dot"."a.b"`). Unquoted, the part before the first dot is a schema when there is such a schema; nothing is folded to lower case.
 * Throws `InvalidInput` on an empty name or broken quotes. Whether there is such a table is not asked here.
 */
export function parseTableName(spelling: string, scope: NameScope): TableName {
  if (spelling === '') throw invalid('an empty table name', 'Give the name of a table.')
  const qualified = QUALIFIED_QUOTED_NAME.exec(spelling) ?? QUOTED_SCHEMA.exec(spelling)
  if (qualified !== null) return { schema: unquote(qualified[1]), name: unquote(qualified[2]) }
  if (QUOTED_NAME.test(spelling)) return { schema: scope.schemaName, name: unquote(spelling) }
  if (spelling.startsWith('"')) {
    throw invalid(`table name ${JSON.stringify(spelling)} has broken quotes`, 'Write "name" or "schema"."name"; a quote inside a name is doubled.')
  }
  const dot = spelling.indexOf('.')
  const prefix = spelling.slice(0, Math.max(dot, 0))
  if (dot > 0 && dot < spelling.length - 1 && scope.schemas.has(prefix)) return { schema: prefix, name: spelling.slice(dot + 1) }
  return { schema: scope.schemaName, name: spelling }
}

/**
 * The entries of a map whose keys are tables as users spell them, by `schema.table`. `option` names the map in errors. Throws
 * `InvalidInput` for a table that is not one of `tables` (naming the near miss, or with `isOfOrder` the tables that an order is for) and for two spellings of one table.
 */
export function resolveTableMap<T>(
  map: Readonly<Record<string, T>>,
  option: string,
  names: { readonly scope: NameScope; readonly tables: readonly TableName[]; readonly formerNames: ReadonlyMap<string, string>; readonly isOfOrder?: boolean },
): Map<string, T> {
  const keys = new Set(names.tables.map(tableKey))
  const resolved = new Map<string, T>()
  for (const [spelling, value] of Object.entries(map)) {
    const spelled = tableKey(parseTableName(spelling, names.scope))
    const key = keys.has(spelled) ? spelled : (names.formerNames.get(spelled) ?? spelled)
    if (!keys.has(key) && names.isOfOrder === true) {
      const list = [...keys].slice(0, MAX_SHOWN).map((shown) => JSON.stringify(shown)).join(', ')
      throw invalid(`${option} names ${JSON.stringify(spelling)}, which is not one of the tables of this order: ${list}${keys.size > MAX_SHOWN ? ' …' : ''}`, `Name it in tableNames too, or take it out of ${option}.`)
    }
    if (!keys.has(key)) {
      throw invalid(`${option} names ${JSON.stringify(spelling)}, which is not one of the replicated tables`, nearMissRemedy(key, [...keys]))
    }
    if (resolved.has(key)) throw invalid(`${option} names the table ${JSON.stringify(key)} twice`, 'Leave one of the two spellings out.')
    resolved.set(key, value)
  }
  return resolved
}

/** Former names of tables that have been renamed since they were known, with what they are called now: both as `schema.table`. */
export function formerNamesOf(
  tables: readonly (TableName & { readonly oid: number })[],
  known: readonly (TableName & { readonly oid: number })[],
): ReadonlyMap<string, string> {
  const now = new Map(tables.map((table) => [table.oid, tableKey(table)]))
  // Of several that had a name the first counts.
  return new Map([...known].reverse().flatMap((table) => {
    const key = now.get(table.oid)
    return key === undefined ? [] : [[tableKey(table), key] as const]
  }))
}

/** Groups of names that differ only in case, which a destination cannot hold beside each other. */
export function findCaseConflicts(names: readonly string[]): string[][] {
  const groups = new Map<string, string[]>()
  for (const name of new Set(names)) {
    const folded = name.toLowerCase()
    groups.set(folded, [...(groups.get(folded) ?? []), name])
  }
  return [...groups.values()].filter((group) => group.length > 1)
}

/** "Did you mean …?", or what there is. Candidates are `schema.table` or column names. */
export function nearMissRemedy(name: string, candidates: readonly string[]): string {
  const bare = name.slice(name.indexOf('.') + 1)
  const near = nearest(name, candidates) ?? candidates.find((candidate) => candidate.slice(candidate.indexOf('.') + 1) === bare) ?? null
  if (near !== null) return `Did you mean ${JSON.stringify(near)}?`
  if (candidates.length === 0) return 'There is none.'
  const shown = candidates.slice(0, 10).map((candidate) => JSON.stringify(candidate))
  return `There are: ${shown.join(', ')}${candidates.length > shown.length ? ' …' : ''}.`
}

function unquote(text: string | undefined): string {
  if (text === undefined) return ''
  return text.startsWith('"') ? text.slice(1, -1).replaceAll('""', '"') : text
}

function invalid(message: string, remedy: string): DomainError {
  return new DomainError({ kind: 'InvalidInput', message, remedy })
}
