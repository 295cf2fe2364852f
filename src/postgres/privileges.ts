import { remedyText } from '../model/remedy.ts'
import { tableKey } from '../model/table-schema.ts'
import type { CatalogTable } from './catalog.ts'
import { failureFinding, listNames, okFinding, warningFinding, type PreflightFinding } from './findings.ts'
import type { PublicationPlan } from './publication-plan.ts'
import type { PublicationState } from './publication.ts'
import type { ListedRelation } from './relations.ts'
import type { ServerFacts } from './server.ts'
import type { SourceRequest } from './source-request.ts'
import { quoteIdentifier, quoteTable } from './sql.ts'

export interface PrivilegeInput {
  readonly request: SourceRequest
  readonly server: ServerFacts
  readonly publication: PublicationState | null
  readonly plan: PublicationPlan
  /** Requested tables with the columns that are to be replicated. */
  readonly tables: readonly CatalogTable[]
  readonly relations: readonly ListedRelation[]
}

/** What the checks of reading look at. */
export interface ReadingInput extends Pick<PrivilegeInput, 'server' | 'tables' | 'relations'> {
  readonly request: Pick<SourceRequest, 'snapshotMode'>
}

/** What our role needs to read the tables. */
export function checkReading(input: ReadingInput): PreflightFinding[] {
  return [checkUsage(input), checkSelect(input), checkRowSecurity(input)]
}

/**
 * What our role needs: rights on the publication, on the tables that it has to publish, and on those that it has to read.
 *
 * Source: https://www.postgresql.org/docs/current/logical-replication-security.html
 */
export function checkPrivileges(input: PrivilegeInput): PreflightFinding[] {
  return [checkPublicationRights(input), checkOwnership(input), ...checkReading(input)]
}

function checkPublicationRights(input: PrivilegeInput): PreflightFinding {
  const { request, server, publication, plan } = input
  const name = 'publication'
  const role = quoteIdentifier(server.role.name)
  const title = JSON.stringify(request.publicationName)
  if (request.reset && publication !== null && !publication.isOwned) {
    return failureFinding({
      name,
      kind: 'PrivilegeMissing',
      message: `reset drops publication ${title}, which belongs to ${JSON.stringify(publication.owner)}`,
      advice: 'As its owner or a superuser:',
      sql: [`GRANT ${quoteIdentifier(publication.owner)} TO ${role}`],
    })
  }
  if (plan.isNew) {
    if (server.role.canCreateInDatabase) return okFinding(name, `publication ${title} will be created`)
    return failureFinding({
      name,
      kind: 'PrivilegeMissing',
      message: `role ${JSON.stringify(server.role.name)} may not create publication ${title}: it lacks CREATE on the database`,
      advice: 'As the database\'s owner or a superuser:',
      sql: [`GRANT CREATE ON DATABASE ${quoteIdentifier(server.identity.databaseName)} TO ${role}`],
    })
  }
  if (publication === null) return okFinding(name, `publication ${title}`)
  if (plan.statements.length > 0 && !publication.isOwned) {
    return failureFinding({
      name,
      kind: 'PrivilegeMissing',
      message: `publication ${title} belongs to ${JSON.stringify(publication.owner)} and lacks ${listNames(plan.tablesToAdd.map(tableKey))}`,
      advice: 'As its owner or a superuser:',
      sql: plan.statements,
    })
  }
  if (!publication.isOwned) {
    return warningFinding(name, `publication ${title} belongs to ${JSON.stringify(publication.owner)}: which destination the slot is served into cannot be noted on it`)
  }
  return okFinding(name, plan.statements.length === 0 ? `publication ${title} exists` : `publication ${title} will be extended`)
}

function checkOwnership(input: PrivilegeInput): PreflightFinding {
  const name = 'table ownership'
  if (input.publication?.isOwned === false && !input.request.reset) return okFinding(name, 'not needed: the publication is its owner\'s to change')
  const toAdd = new Set(input.plan.tablesToAdd.map((table) => table.oid))
  const foreign = input.relations.filter((relation) => toAdd.has(relation.oid) && !relation.isOwned)
  if (foreign.length === 0) return okFinding(name, toAdd.size === 0 ? 'not needed: nothing is to be published' : 'the tables to be published are ours')
  const owners = [...new Set(foreign.map((relation) => relation.owner))]
  return failureFinding({
    name,
    kind: 'PrivilegeMissing',
    message: `only a table's owner can publish it; not owned by ${JSON.stringify(input.server.role.name)}: ${listNames(foreign.map(tableKey))}`,
    advice: [remedyText('Let the owner or a superuser run the publication\'s own statement:', input.plan.statements), 'Or, as a superuser, make the role a member of the owner\'s:'].join('\n'),
    sql: owners.map((owner) => `GRANT ${quoteIdentifier(owner)} TO ${quoteIdentifier(input.server.role.name)}`),
  })
}

function checkUsage(input: ReadingInput): PreflightFinding {
  const name = 'USAGE on schema'
  const closed = [...new Set(input.relations.filter((relation) => !relation.hasSchemaUsage).map((relation) => relation.schema))]
  if (closed.length === 0) return okFinding(name, 'granted')
  return readingFinding(input, {
    name,
    message: `role ${JSON.stringify(input.server.role.name)} lacks USAGE on schema ${listNames(closed)}`,
    sql: closed.map((schema) => `GRANT USAGE ON SCHEMA ${quoteIdentifier(schema)} TO ${quoteIdentifier(input.server.role.name)}`),
  })
}

function checkSelect(input: ReadingInput): PreflightFinding {
  const name = 'SELECT'
  const unreadable = input.tables.filter((table) => table.columns.some((column) => table.unreadableColumns.includes(column.name)))
  if (unreadable.length === 0) return okFinding(name, 'granted')
  return readingFinding(input, {
    name,
    message: `role ${JSON.stringify(input.server.role.name)} may not read ${listNames(unreadable.map(tableKey))}`,
    sql: unreadable.map((table) => `GRANT SELECT ON ${quoteTable(table)} TO ${quoteIdentifier(input.server.role.name)}`),
  })
}

function checkRowSecurity(input: ReadingInput): PreflightFinding {
  const name = 'row security'
  const filtered = input.relations.filter((relation) => relation.isRowSecurityActive)
  if (filtered.length === 0) return okFinding(name, 'no policy hides rows from us')
  return readingFinding(input, {
    name,
    message: `row-level security would hide rows of ${listNames(filtered.map(tableKey))} from role ${JSON.stringify(input.server.role.name)}`,
    sql: [`ALTER ROLE ${quoteIdentifier(input.server.role.name)} BYPASSRLS`],
  })
}

/** Reading is needed for the copy; with snapshotMode `never` only for a TOAST value that nobody has. */
function readingFinding(input: ReadingInput, init: { readonly name: string; readonly message: string; readonly sql: readonly string[] }): PreflightFinding {
  const failure = failureFinding({ ...init, kind: 'PrivilegeMissing', advice: 'As the owner or a superuser:' })
  return input.request.snapshotMode === 'never' ? { ...failure, state: 'warning', kind: null } : failure
}
