import { z } from 'zod'
import type { SourceIdentity } from '../model/source.ts'
import { tableKey, type TableSchema } from '../model/table-schema.ts'
import { limitColumns, readTables, type CatalogTable } from './catalog.ts'
import { checkVersion } from './check-server.ts'
import { checkColumnNames } from './check-tables.ts'
import type { SourceCredentials } from './credentials.ts'
import { errorOfFindings, failureFinding, listNames, okFinding, type PreflightFinding, warningFinding } from './findings.ts'
import { connectedPreflight, type Preflight, resolveIncludeColumns } from './preflight.ts'
import { checkReading } from './privileges.ts'
import { wantedColumns } from './publication-warnings.ts'
import { asReadable, toTableSchema } from './publication.ts'
import { listRelations, type ListedRelation } from './relations.ts'
import { resolveRequestedTables } from './requested-tables.ts'
import { readServerFacts } from './server.ts'
import { connect, endQuietly } from './session.ts'
import type { SourceRequest } from './source-request.ts'
import { queryRows, quoteIdentifier, quoteTable, type SqlClient } from './sql.ts'
import type { NameScope } from './table-names.ts'

/** The spec's part that concerns the source, and what the destination knows. */
export type XminSourceRequest = Pick<SourceRequest, 'schemaName' | 'tableNames' | 'includeColumns' | 'knownTables'>

/** What is there to be read. */
export interface XminInspection {
  readonly identity: SourceIdentity
  /** The tables, columns limited to those that are included. */
  readonly tables: readonly TableSchema[]
  /** Every relation of the database. */
  readonly relations: ReadonlySet<number>
  readonly scope: NameScope
  readonly warnings: readonly string[]
}

/** Checks and describes what `syncByXmin` reads; changes nothing. Throws the first failure. Needs SELECT alone, and works on a standby too. */
export async function inspectForXmin(credentials: SourceCredentials, request: XminSourceRequest): Promise<XminInspection> {
  const client = await connect(credentials)
  try {
    const { findings, inspection } = await look(client, request)
    const error = errorOfFindings(findings)
    if (error !== null) throw error
    if (inspection === null) throw new RangeError('nothing was looked at, and nothing has failed')
    return inspection
  } finally {
    await endQuietly(client)
  }
}

/** The same checks as a list, for `doctor`, the connection first. Never throws a `DomainError`. */
export async function runXminPreflight(credentials: SourceCredentials, request: XminSourceRequest): Promise<Preflight<XminInspection>> {
  return connectedPreflight(credentials, async (client) => look(client, request))
}

async function look(client: SqlClient, request: XminSourceRequest): Promise<Preflight<XminInspection>> {
  const server = await readServerFacts(client)
  const version = checkVersion(server)
  if (version.state === 'failure') return { findings: [version], inspection: null }
  const listing = await listRelations(client)
  const requested = resolveRequestedTables({ ...request, readsRows: true }, listing)
  const scope: NameScope = { schemaName: request.schemaName, schemas: listing.schemas }
  const found = await readTables(client, requested.tables.map(({ oid }) => oid), null)
  const included = resolveIncludeColumns(request, { scope, tables: found })
  const tables = found.map((table) => limitColumns(asReadable(table), wantedColumns(table, included.includeColumns)))
  const findings = [
    version,
    ...requested.findings,
    ...included.findings,
    checkKeys(tables),
    ...(server.isInRecovery ? checkUnlogged(requested.tables) : []),
    ...(await checkPartitions(client, tables)),
    ...checkColumnNames({ tables: found, includeColumns: included.includeColumns }),
    ...checkReading({ request: { snapshotMode: 'initial' }, server, tables, relations: requested.tables }),
    ...virtualColumnWarnings(found),
  ]
  const inspection = {
    identity: server.identity,
    tables: tables.map(toTableSchema),
    relations: new Set(listing.relations.map(({ oid }) => oid)),
    scope,
    warnings: findings.filter(({ state }) => state === 'warning').map(({ message }) => message),
  }
  return { findings, inspection }
}

/** Which row a newer version replaces is told by its key alone. */
function checkKeys(tables: readonly CatalogTable[]): PreflightFinding {
  const name = 'key'
  const without = tables.filter(({ key }) => key.length === 0)
  if (without.length === 0) return okFinding(name, 'every table has one')
  return failureFinding({
    name,
    kind: 'TableNotReplicable',
    message: `syncByXmin tells by a primary key, or the replica identity's index, which rows are new versions of which; without: ${listNames(without.map(tableKey))}`,
    advice: 'Leave them out of tableNames, or replicate them through a slot. Or give each a key, such as:',
    sql: without.map((table) => `ALTER TABLE ${quoteTable(table)} ADD COLUMN ${quoteIdentifier('row_id')} bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY`),
  })
}

/** A standby does not have the rows of unlogged tables. */
function checkUnlogged(relations: readonly ListedRelation[]): readonly PreflightFinding[] {
  const unlogged = relations.filter(({ persistence }) => persistence === 'unlogged')
  if (unlogged.length === 0) return []
  const message = `a standby does not have the rows of unlogged tables: ${listNames(unlogged.map(tableKey))}`
  return [failureFinding({ name: 'tables', kind: 'TableNotReplicable', message, advice: 'Leave them out of tableNames, or read them from the primary.' })]
}

/** Rows of a foreign partition have no `xmin` of this server. */
async function checkPartitions(client: SqlClient, tables: readonly CatalogTable[]): Promise<readonly PreflightFinding[]> {
  const roots = tables.filter(({ isPartitioned }) => isPartitioned === true)
  if (roots.length === 0) return []
  const rows = await queryRows(client, z.object({ name: z.string() }), {
    subject: 'partitions of the source',
    values: [roots.map(({ oid }) => oid)],
    text: `
      SELECT n.nspname || '.' || c.relname AS name FROM unnest($1::oid[]) root(oid) CROSS JOIN LATERAL pg_partition_tree(root.oid) part
      JOIN pg_class c ON c.oid = part.relid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'f'`,
  })
  if (rows.length === 0) return []
  const message = `partitions are foreign tables, whose rows have no xmin here: ${listNames(rows.map(({ name }) => name))}`
  return [failureFinding({ name: 'partitions', kind: 'TableNotReplicable', message, advice: 'Name the other partitions in tableNames instead of the root.' })]
}

function virtualColumnWarnings(tables: readonly CatalogTable[]): readonly PreflightFinding[] {
  return tables
    .filter(({ virtualColumns }) => virtualColumns.length > 0)
    .map((table) => warningFinding('columns', `generated columns of ${JSON.stringify(tableKey(table))} that are computed when read are left out: ${listNames(table.virtualColumns)}`))
}
