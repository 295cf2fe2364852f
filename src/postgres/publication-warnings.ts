import { tableKey, type TableSchema } from '../model/table-schema.ts'
import type { CatalogTable } from './catalog.ts'
import { listNames } from './findings.ts'
import { asPublished, type PublicationState } from './publication.ts'
import type { SourceRequest } from './source-request.ts'
import { quoteTable } from './sql.ts'

const COLUMN_LISTS_SINCE = 150_000

export interface PublicationWarningInput {
  readonly request: SourceRequest
  readonly publication: PublicationState
  readonly serverVersion: number
  /** The requested tables with all their columns. */
  readonly tables: readonly CatalogTable[]
  /** By `schema.table`. */
  readonly includeColumns: ReadonlyMap<string, readonly string[]>
}

/** Where the publication differs from what was asked for: it is used as it is (contract §4). Pure. */
export function publicationWarnings(input: PublicationWarningInput): string[] {
  return [...operationWarnings(input), ...scopeWarnings(input), ...tableWarnings(input)]
}

/** What of the requested tables is not sent. */
export function tableWarnings(input: PublicationWarningInput): string[] {
  return [...rowFilterWarnings(input), ...columnWarnings(input), ...refusalWarnings(input)]
}

function operationWarnings({ request, publication }: PublicationWarningInput): string[] {
  const isSame = request.publish.length === publication.operations.length && request.publish.every((operation) => publication.operations.includes(operation))
  if (isSame) return []
  const has = publication.operations.length === 0 ? 'nothing' : publication.operations.join(', ')
  return [`publication ${JSON.stringify(publication.name)} publishes ${has}, not ${request.publish.join(', ')}; it is used as it is`]
}

function scopeWarnings({ request, publication, tables }: PublicationWarningInput): string[] {
  const warnings: string[] = []
  const requested = new Set(tables.map((table) => table.oid))
  const extra = publication.tables.filter((table) => !requested.has(table.oid)).map(tableKey)
  if (extra.length > 0) warnings.push(`tables of publication ${JSON.stringify(publication.name)} that were not asked for stay out: ${listNames(extra)}`)
  const isWhole = publication.isForAllTables || publication.schemas.includes(request.schemaName)
  if (request.tableNames === null && !isWhole) {
    warnings.push(`publication ${JSON.stringify(publication.name)} lists the present tables of schema ${JSON.stringify(request.schemaName)}; future ones are not replicated (a whole schema needs a superuser and PostgreSQL 15)`)
  }
  return warnings
}

function rowFilterWarnings({ publication, tables }: PublicationWarningInput): string[] {
  const requested = new Set(tables.map((table) => table.oid))
  return publication.tables
    .filter((table) => table.rowFilter !== null && requested.has(table.oid))
    .map((table) => `publication ${JSON.stringify(publication.name)} sends only rows of ${JSON.stringify(tableKey(table))} that match its filter; the copy takes the same`)
}

/**
 * PostgreSQL refuses updates and deletes to whoever writes the table, as soon as they are published: where a row filter looks at columns, or a column list leaves some out, so that old rows cannot be
 * told or filtered.
 *
 * Source: https://www.postgresql.org/docs/current/logical-replication-row-filter.html and https://www.postgresql.org/docs/current/logical-replication-col-lists.html
 */
function refusalWarnings({ publication, tables }: PublicationWarningInput): string[] {
  const refused = publication.operations.filter((operation) => operation === 'update' || operation === 'delete').map((operation) => operation.toUpperCase())
  if (refused.length === 0) return []
  return publication.tables.flatMap((member) => {
    const table = tables.find(({ oid }) => oid === member.oid)
    if (table === undefined) return []
    const filtered = member.filterColumns.filter((column) => !table.identityColumns.includes(column))
    const left = member.hasColumnList ? table.identityColumns.filter((column) => member.columns?.includes(column) === false) : []
    const causes = [
      ...(filtered.length === 0 ? [] : [`its row filter looks at ${listNames(filtered)}, which ${filtered.length === 1 ? 'is' : 'are'} not in the replica identity`]),
      ...(left.length === 0 ? [] : [`its column list leaves out ${listNames(left)} of the replica identity`]),
    ]
    const key = JSON.stringify(tableKey(table))
    return causes.map((cause) => `publication ${JSON.stringify(publication.name)} makes every ${refused.join(' and ')} of ${key} fail at the source, for whoever writes there: ${cause}`)
  })
}

function columnWarnings(input: PublicationWarningInput): string[] {
  const warnings: string[] = []
  for (const table of input.tables) {
    const key = JSON.stringify(tableKey(table))
    const wanted = wantedColumns(table, input.includeColumns)
    const sent = new Set(asPublished(table, input.publication, input.serverVersion).columns.map((column) => column.name))
    const missing = table.columns.filter((column) => wanted.has(column.name) && !sent.has(column.name))
    const generated = missing.filter((column) => column.isGenerated).map((column) => column.name)
    const unlisted = missing.filter((column) => !column.isGenerated).map((column) => column.name)
    if (generated.length > 0) warnings.push(`generated columns of ${key} are left out, as PostgreSQL does not publish them here: ${listNames(generated)}`)
    const named = table.key.filter((name) => generated.includes(name))
    if (named.length > 0 && table.replicaIdentity !== 'full') {
      warnings.push(`the key of ${key} has a generated column that is not sent (${listNames(named)}): the first update or delete of it stops that table, unless it gets REPLICA IDENTITY FULL before: ALTER TABLE ${quoteTable(table)} REPLICA IDENTITY FULL`)
    }
    const publication = JSON.stringify(input.publication.name)
    if (unlisted.length > 0) warnings.push(`publication ${publication} lists columns of ${key}; left out: ${listNames(unlisted)}. ${relisting(table, input)}`)
    const spare = spareColumns(table, { ...input, wanted, sent })
    if (spare.length > 0) warnings.push(`publication ${publication} sends columns of ${key} that includeColumns does not name: they leave the server, and are dropped here: ${listNames(spare)}. ${relisting(table, input)}`)
  }
  return warnings
}

/** Columns that a column list of the publication could keep at the server. */
function spareColumns(table: CatalogTable, { publication, includeColumns, serverVersion, wanted, sent }: PublicationWarningInput & { readonly wanted: ReadonlySet<string>; readonly sent: ReadonlySet<string> }): readonly string[] {
  const isListed = publication.tables.some((member) => member.oid === table.oid && member.isListed)
  if (!isListed || publication.schemas.length > 0 || serverVersion < COLUMN_LISTS_SINCE || !includeColumns.has(tableKey(table))) return []
  const needed = publication.operations.some((operation) => operation === 'update' || operation === 'delete') ? table.identityColumns : []
  return [...sent].filter((column) => !wanted.has(column) && !needed.includes(column))
}

/** How a publication's columns of a table become those that the input names; one that is used stays as it is otherwise. */
function relisting(table: CatalogTable, { request, publication }: PublicationWarningInput): string {
  const isOurs = publication.isOwned && [...publication.notes.keys()].every((slotName) => slotName === request.slotName)
  return isOurs
    ? `To have what includeColumns says: the updates removeTables, then addTables, of ${tableKey(table)} (cli remove, cli add) publish it with these columns and copy it anew`
    : `Who owns the publication may change its list; then resync the table`
}

/** Names of the columns that were asked for: all, or those included and the key. */
export function wantedColumns(table: TableSchema, includeColumns: ReadonlyMap<string, readonly string[]>): Set<string> {
  const include = includeColumns.get(tableKey(table))
  return new Set(include === undefined ? table.columns.map((column) => column.name) : [...include, ...table.key])
}
