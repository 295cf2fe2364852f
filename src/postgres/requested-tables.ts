import type { KnownTable } from '../model/destination.ts'
import { DomainError } from '../model/errors.ts'
import { tableKey, type TableName } from '../model/table-schema.ts'
import { failureFinding, listNames, okFinding, warningFinding, type PreflightFinding } from './findings.ts'
import { isNewcomer, withoutUnfit } from './newcomers.ts'
import type { ListedRelation, Listing } from './relations.ts'
import type { SourceRequest } from './source-request.ts'
import { quoteTable } from './sql.ts'
import { findCaseConflicts, nearMissRemedy, parseTableName } from './table-names.ts'

/** What tells which relations are meant. */
export interface TableRequest
  extends Pick<SourceRequest, 'schemaName' | 'tableNames' | 'knownTables' | 'addedTables' | 'removedTables'>,
    Partial<Pick<SourceRequest, 'destinationHasState' | 'reset'>> {
  /** True where rows are read without a slot: then it does not matter what is in the WAL, or in the stream under which name. */
  readonly readsRows?: boolean
}

/** Which relations a request means, and what is to be said of them. */
export interface RequestedTables {
  readonly tables: readonly ListedRelation[]
  readonly findings: readonly PreflightFinding[]
}

type Outcome = { readonly relation: ListedRelation } | { readonly finding: PreflightFinding }

/**
 * Resolves `tableNames` against the catalog: missing names are `InvalidInput` with the near miss, relations that have no changes to
 * replicate are `TableNotReplicable`. Without `tableNames`: every table of the schema that can be replicated; the others are warned of.
 */
export function resolveRequestedTables(request: TableRequest, listing: Listing): RequestedTables {
  const { tables, findings } = request.tableNames === null ? wholeSchema(request, listing) : namedTables(request.tableNames, { request, listing })
  const kept = tables.filter((table) => !isRemoved(request, table))
  const added = addedTables(request, listing)
  const all = [...new Map([...kept, ...added.tables].map((table) => [table.oid, table])).values()]
  const joining = withoutUnfit(request, all, (table) => caseFindings([table, ...rivalsOf(table, all, request)]))
  const found = [...findings, ...added.findings, ...joining.findings]
  return { tables: joining.tables, findings: [...found, ...caseFindings(joining.tables), ...summary(joining.tables, found)] }
}

/** Those that keep their name before a newcomer: of two of them, the first. */
function rivalsOf(table: ListedRelation, tables: readonly ListedRelation[], request: TableRequest): readonly ListedRelation[] {
  const name = tableKey(table).toLowerCase()
  return tables.filter((other, index) => other !== table && tableKey(other).toLowerCase() === name && (!isNewcomer(request, other) || index < tables.indexOf(table)))
}

/** Was it taken out by an update? */
export function isRemoved({ removedTables = [] }: Pick<TableRequest, 'removedTables'>, table: KnownTable): boolean {
  return removedTables.some((removed) => removed.oid === table.oid || exactName(removed) === exactName(table))
}

/** What updates have added. Nobody can take it out of an input: where it is gone that is a warning. */
function addedTables(request: TableRequest, { relations }: Listing): RequestedTables {
  const tables: ListedRelation[] = []
  const findings: PreflightFinding[] = []
  for (const added of request.addedTables ?? []) {
    const relation = relations.find(({ oid }) => oid === added.oid) ?? relations.find((candidate) => exactName(candidate) === exactName(added))
    const reason = relation === undefined ? null : notReplicableReason(relation, request)
    if (relation === undefined) findings.push(warningFinding('tables', `table ${JSON.stringify(tableKey(added))}, which an update added, was dropped at the source`))
    else if (reason !== null) findings.push(reason)
    else tables.push(relation)
  }
  return { tables, findings }
}

function namedTables(tableNames: readonly string[], { request, listing }: { readonly request: TableRequest; readonly listing: Listing }): RequestedTables {
  const byKey = new Map(listing.relations.map((relation) => [exactName(relation), relation]))
  const tables = new Map<string, ListedRelation>()
  const findings: PreflightFinding[] = []
  for (const spelling of tableNames) {
    if (isRemovedName(spelling, { request, listing })) continue
    const outcome = resolveOne(spelling, { request, listing, byKey })
    if ('finding' in outcome) {
      findings.push(outcome.finding)
      continue
    }
    const { relation } = outcome
    tables.set(exactName(relation), relation)
    if (tableKey(relation) !== tableKey(parseTableName(spelling, { schemaName: request.schemaName, schemas: listing.schemas }))) {
      findings.push(warningFinding('tables', `table ${JSON.stringify(spelling)} is named ${JSON.stringify(tableKey(relation))} now; it is followed`))
    }
  }
  return { tables: [...tables.values()], findings }
}

/** A name that an update took out means nothing, be the table there or not. */
function isRemovedName(spelling: string, { request, listing }: { readonly request: TableRequest; readonly listing: Listing }): boolean {
  try {
    const key = tableKey(parseTableName(spelling, { schemaName: request.schemaName, schemas: listing.schemas }))
    return (request.removedTables ?? []).some((removed) => tableKey(removed) === key)
  } catch (error) {
    if (error instanceof DomainError) return false
    throw error
  }
}

function resolveOne(
  spelling: string,
  context: { readonly request: TableRequest; readonly listing: Listing; readonly byKey: ReadonlyMap<string, ListedRelation> },
): Outcome {
  const { request, listing, byKey } = context
  let name: TableName
  try {
    name = parseTableName(spelling, { schemaName: request.schemaName, schemas: listing.schemas })
  } catch (error) {
    if (!(error instanceof DomainError)) throw error
    return { finding: failureFinding({ name: 'tables', kind: error.kind, message: error.message, advice: error.remedy }) }
  }
  const key = tableKey(name)
  const relation = byKey.get(exactName(name)) ?? renamedRelation(key, context)
  if (relation !== null) {
    const reason = notReplicableReason(relation, request)
    return reason === null ? { relation } : { finding: reason }
  }
  const temporary = listing.relations.find((candidate) => candidate.persistence === 'temporary' && candidate.name === key.slice(key.indexOf('.') + 1))
  const replaced = temporary === undefined ? null : notReplicableReason(temporary, request)
  if (replaced !== null) return { finding: replaced }
  const wasKnown = (request.knownTables ?? []).some((known) => tableKey(known) === key)
  // What could never be replicated is no help where a name is looked for.
  const candidates = listing.relations.filter(({ persistence, kind }) => persistence !== 'temporary' && kind !== 'sequence').map(tableKey)
  // Where a schema's name has a dot, what is shown of a table is not how it is written.
  const namesake = listing.relations.find((candidate) => tableKey(candidate) === spelling)
  const hint = namesake === undefined ? nearMissRemedy(key, candidates) : `Write it SQL-quoted: ${quoteTable(namesake)}`
  return {
    finding: failureFinding({
      name: 'tables',
      kind: 'InvalidInput',
      message: wasKnown ? `table ${JSON.stringify(key)} was dropped at the source` : `there is no table ${JSON.stringify(key)}`,
      advice: wasKnown ? 'Take it out of tableNames.' : hint,
    }),
  }
}

function renamedRelation(key: string, context: { readonly request: TableRequest; readonly listing: Listing }): ListedRelation | null {
  const oids = (context.request.knownTables ?? []).filter((table) => tableKey(table) === key).map(({ oid }) => oid)
  const there = oids.map((oid) => context.listing.relations.find((relation) => relation.oid === oid))
  return there.find((relation) => relation !== undefined) ?? null
}

/** Why a relation has no changes of its own in the stream; null where it can be replicated. */
function notReplicableReason(relation: ListedRelation, { readsRows = false }: TableRequest): PreflightFinding | null {
  const name = JSON.stringify(tableKey(relation))
  const failure = (message: string, advice: string, sql: readonly string[] = []): PreflightFinding =>
    failureFinding({ name: 'tables', kind: 'TableNotReplicable', message, advice, sql })
  if (relation.persistence === 'temporary') return failure(`${name} is a temporary table: its changes are not in the WAL`, 'Take it out of tableNames, or make it a permanent table.')
  switch (relation.kind) {
    case 'view':
    case 'materialized view':
      return failure(`${name} is a ${relation.kind}: it has no changes of its own`, 'Replicate the tables that it reads.')
    case 'foreign table':
      return failure(`${name} is a foreign table: its rows are at another server`, 'Replicate it from the server that has it.')
    case 'sequence':
      return failure(`${name} is a sequence`, 'Take it out of tableNames.')
    case 'table':
    case 'partitioned table':
      break
    default:
      return relation.kind satisfies never
  }
  if (readsRows) return null
  if (relation.persistence === 'unlogged') {
    return failure(`${name} is unlogged: its changes are not in the WAL`, 'Make it a logged table (this rewrites it):', [`ALTER TABLE ${quoteTable(relation)} SET LOGGED`])
  }
  if (relation.partitionRoot !== null) {
    return failure(`${name} is a partition of ${JSON.stringify(relation.partitionRoot)}: its changes are published as the root's`, `Replicate ${JSON.stringify(relation.partitionRoot)}.`)
  }
  return null
}

function wholeSchema(request: TableRequest, listing: Listing): RequestedTables {
  if (!listing.schemas.has(request.schemaName)) {
    const finding = failureFinding({
      name: 'tables',
      kind: 'InvalidInput',
      message: `there is no schema ${JSON.stringify(request.schemaName)}`,
      advice: nearMissRemedy(request.schemaName, [...listing.schemas]),
    })
    return { tables: [], findings: [finding] }
  }
  const inSchema = listing.relations.filter(
    (relation) => relation.schema === request.schemaName && relation.partitionRoot === null && ['table', 'partitioned table', 'foreign table'].includes(relation.kind),
  )
  const tables = inSchema.filter((relation) => notReplicableReason(relation, request) === null && !relation.isExtensionMember)
  const findings: PreflightFinding[] = []
  for (const [why, isSo] of [
    ['unlogged', (relation) => relation.persistence === 'unlogged'],
    ['foreign', (relation) => relation.kind === 'foreign table'],
    ['of an extension', (relation) => relation.isExtensionMember && relation.persistence !== 'unlogged'],
  ] as const satisfies readonly (readonly [string, (relation: ListedRelation) => boolean])[]) {
    const left = inSchema.filter((relation) => isSo(relation) && !tables.includes(relation))
    if (left.length > 0) findings.push(warningFinding('tables', `left out, being ${why}: ${listNames(left.map(tableKey))}`))
  }
  return { tables, findings }
}

/** Tells `"a.b"."c"` from `"a"."b.c"`. */
function exactName({ schema, name }: TableName): string {
  return JSON.stringify([schema, name])
}

function caseFindings(tables: readonly ListedRelation[]): PreflightFinding[] {
  const keys = tables.map(tableKey)
  const twice = [...new Set(keys.filter((key, index) => keys.indexOf(key) !== index))]
  return [
    ...twice.map((key) =>
      failureFinding({
        name: 'tables',
        kind: 'InvalidInput',
        message: `two tables are called ${JSON.stringify(key)}, as a dot in their names hides where the schema ends`,
        advice: 'Status and maps could not tell them apart: rename one, or replicate them apart from each other.',
      }),
    ),
    ...differInCase(tables),
  ]
}

function differInCase(tables: readonly ListedRelation[]): PreflightFinding[] {
  return findCaseConflicts(tables.map(tableKey)).map((group) =>
    failureFinding({
      name: 'tables',
      kind: 'InvalidInput',
      message: `tables differ only in case: ${group.map((key) => JSON.stringify(key)).join(', ')}`,
      advice: 'A destination cannot hold both: rename one, or name one of them in tableNames.',
    }),
  )
}

function summary(tables: readonly ListedRelation[], findings: readonly PreflightFinding[]): PreflightFinding[] {
  if (findings.some((finding) => finding.state === 'failure')) return []
  return [okFinding('tables', tables.length === 0 ? 'the schema has no tables yet' : listNames(tables.map(tableKey)))]
}
