import { tableKey, type TableName } from '../model/table-schema.ts'
import type { CatalogTable } from './catalog.ts'
import type { PublicationState, PublishedTable } from './publication.ts'
import { isRemoved } from './requested-tables.ts'
import type { ServerFacts } from './server.ts'
import type { SourceRequest } from './source-request.ts'
import { quoteIdentifier, quoteLiteral, quoteTable } from './sql.ts'

/** What has to be done so that a publication publishes what was asked for. */
export interface PublicationPlan {
  /** DDL, to be run in one transaction; empty where nothing is missing. */
  readonly statements: readonly string[]
  readonly isNew: boolean
  /** True where present and future tables of the schema will be published. */
  readonly isWholeSchema: boolean
  /** Tables that the statements name: our role must own them. */
  readonly tablesToAdd: readonly CatalogTable[]
}

export interface PlanInput {
  readonly request: SourceRequest
  readonly server: ServerFacts
  /** null where there is none, or where it is dropped first. */
  readonly publication: PublicationState | null
  /** The requested tables, with all their columns. */
  readonly tables: readonly CatalogTable[]
  /** By `schema.table`. */
  readonly includeColumns: ReadonlyMap<string, readonly string[]>
}

const COLUMN_LISTS_SINCE = 150_000
const SCHEMAS_SINCE = 150_000
const GENERATED_COLUMNS_SINCE = 180_000

/**
 * Decides the publication's DDL. Pure.
 *
 * A schema is published whole (`FOR TABLES IN SCHEMA`, with its future tables) where no table was named, PostgreSQL is 15 or later and
 * our role is a superuser; else the present tables are listed. `ONLY` keeps tables that inherit from a listed one out.
 *
 * Source: https://www.postgresql.org/docs/current/sql-createpublication.html
 */
export function planPublication(input: PlanInput): PublicationPlan {
  const { request, publication } = input
  if (publication === null) return planNew(input)
  const name = quoteIdentifier(publication.name)
  const isWholeSchema = publication.isForAllTables || publication.schemas.includes(request.schemaName)
  const published = new Set(publication.tables.map((table) => table.oid))
  const missing = publication.isForAllTables ? [] : input.tables.filter((table) => !published.has(table.oid))
  const dropping = dropStatements(publication, request)
  // Schemas and column lists do not go together in one publication.
  const hasColumnLists = publication.tables.some((member) => member.hasColumnList)
  if (request.tableNames === null && !isWholeSchema && canPublishSchemas(input.server) && !hasColumnLists) {
    const elsewhere = missing.filter(({ schema }) => schema !== request.schemaName)
    const members = [`TABLES IN SCHEMA ${quoteIdentifier(request.schemaName)}`, ...(elsewhere.length === 0 ? [] : [`TABLE ${memberList(elsewhere, input, publication.operations)}`])]
    return { statements: [...dropping, `ALTER PUBLICATION ${name} ADD ${members.join(', ')}`], isNew: false, isWholeSchema: true, tablesToAdd: elsewhere }
  }
  const adding = missing.length === 0 ? [] : [`ALTER PUBLICATION ${name} ADD TABLE ${memberList(missing, input, publication.operations)}`]
  return { statements: [...dropping, ...adding], isNew: false, isWholeSchema, tablesToAdd: missing }
}

/** Members that an update took out, where that has not come about at the source yet. */
function dropStatements(publication: PublicationState, request: SourceRequest): readonly string[] {
  const members = droppableMembers(publication, request)
  return members.length === 0 ? [] : [dropMembersSql(publication.name, members)]
}

/**
 * Those of a publication's tables that an update took out and that can be taken out of it: it is ours, lists them, and serves no other slot.
 */
export function droppableMembers(publication: PublicationState, request: Pick<SourceRequest, 'slotName' | 'removedTables'>): readonly PublishedTable[] {
  const isShared = [...publication.notes.keys()].some((slotName) => slotName !== request.slotName)
  return isShared || !publication.isOwned ? [] : publication.tables.filter((member) => member.isListed && isRemoved(request, member))
}

/** Source: https://www.postgresql.org/docs/current/sql-alterpublication.html */
export function dropMembersSql(publicationName: string, members: readonly TableName[]): string {
  // ONLY is no hindrance to a partitioned table's root here.
  return `ALTER PUBLICATION ${quoteIdentifier(publicationName)} DROP TABLE ${members.map((table) => `ONLY ${quoteTable(table)}`).join(', ')}`
}

function planNew(input: PlanInput): PublicationPlan {
  const { request, server, tables } = input
  const isWholeSchema = request.tableNames === null && canPublishSchemas(server)
  const elsewhere = isWholeSchema ? tables.filter(({ schema }) => schema !== request.schemaName) : []
  const members = isWholeSchema
    ? ` FOR TABLES IN SCHEMA ${quoteIdentifier(request.schemaName)}${elsewhere.length === 0 ? '' : `, TABLE ${memberList(elsewhere, input, request.publish)}`}`
    : tables.length === 0
      ? ''
      : ` FOR TABLE ${memberList(tables, input, request.publish)}`
  const options = [
    `publish = ${quoteLiteral(request.publish.join(', '))}`,
    'publish_via_partition_root = true',
    ...(server.identity.serverVersion >= GENERATED_COLUMNS_SINCE ? ['publish_generated_columns = stored'] : []),
  ]
  const statement = `CREATE PUBLICATION ${quoteIdentifier(request.publicationName)}${members} WITH (${options.join(', ')})`
  return { statements: [statement], isNew: true, isWholeSchema, tablesToAdd: isWholeSchema ? elsewhere : tables }
}

function canPublishSchemas(server: ServerFacts): boolean {
  return server.role.isSuperuser && server.identity.serverVersion >= SCHEMAS_SINCE
}

function memberList(tables: readonly CatalogTable[], input: PlanInput, operations: readonly string[]): string {
  return tables
    .map((table) => {
      const columns = columnList(table, input, operations)
      const name = table.isPartitioned === true ? quoteTable(table) : `ONLY ${quoteTable(table)}`
      return columns === null ? name : `${name} (${columns.map(quoteIdentifier).join(', ')})`
    })
    .join(', ')
}

/** The column list that the publication gets; null = all columns, and we leave out what was not asked for. */
function columnList(table: CatalogTable, input: PlanInput, operations: readonly string[]): readonly string[] | null {
  const include = input.includeColumns.get(tableKey(table))
  if (include === undefined || input.server.identity.serverVersion < COLUMN_LISTS_SINCE) return null
  if ((input.publication?.schemas.length ?? 0) > 0 || (input.request.tableNames === null && canPublishSchemas(input.server))) return null
  // PostgreSQL refuses UPDATE and DELETE where the list lacks a column of the replica identity; FULL is all of them.
  const needsIdentity = operations.includes('update') || operations.includes('delete')
  if (needsIdentity && table.replicaIdentity === 'full') return null
  const kept = new Set([...include, ...table.key, ...(needsIdentity ? table.identityColumns : [])])
  const canListGenerated = input.server.identity.serverVersion >= GENERATED_COLUMNS_SINCE
  return table.columns
    .filter((column) => kept.has(column.name) && (!column.isGenerated || (canListGenerated && !table.virtualColumns.includes(column.name))))
    .map((column) => column.name)
}
