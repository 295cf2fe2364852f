import { setTimeout as delay } from 'node:timers/promises'
import { z } from 'zod'
import { DomainError } from '../model/errors.ts'
import { limitColumns, readTables, type CatalogTable } from './catalog.ts'
import { checkIdentity } from './check-identity.ts'
import { checkServer, checkVersion } from './check-server.ts'
import { checkSlot, isAdoption } from './check-slot.ts'
import { checkSnapshots } from './check-snapshots.ts'
import { checkTables } from './check-tables.ts'
import { describeCredentials, type SourceCredentials } from './credentials.ts'
import { errorOfFindings, failureFinding, okFinding, warningFinding, type PreflightFinding } from './findings.ts'
import { areOfPosition, listSnapshots } from './kept-snapshots.ts'
import { checkPrivileges } from './privileges.ts'
import { withoutUnfit } from './newcomers.ts'
import { planPublication, type PublicationPlan } from './publication-plan.ts'
import { publicationWarnings, wantedColumns } from './publication-warnings.ts'
import { asPublished, readPublication, type PublicationState } from './publication.ts'
import { listRelations } from './relations.ts'
import { resolveRequestedTables } from './requested-tables.ts'
import { readServerFacts, type ServerFacts } from './server.ts'
import { connect, endQuietly } from './session.ts'
import { readSlot, type SlotDetails } from './slot.ts'
import { slotFindings, surveySlots } from './slot-survey.ts'
import { makesSlotAnew, type SourceRequest } from './source-request.ts'
import { queryRows, type SqlClient } from './sql.ts'
import { formerNamesOf, resolveTableMap, type NameScope } from './table-names.ts'

/** Everything that init looks at before it changes anything. */
export interface SourceInspection {
  readonly server: ServerFacts
  /** As they are now; what `reset` drops is still in them. */
  readonly publication: PublicationState | null
  readonly slot: SlotDetails | null
  readonly scope: NameScope
  /** The requested tables with all their columns. */
  readonly tables: readonly CatalogTable[]
  /** `includeColumns` by `schema.table`. */
  readonly includeColumns: ReadonlyMap<string, readonly string[]>
  readonly plan: PublicationPlan
  /** True where the slot was made by somebody else. */
  readonly slotIsAdopted: boolean
  /** True where we made the slot with its snapshots, and were cut off before the destination knew. */
  readonly isSlotUnfinished: boolean
  readonly findings: readonly PreflightFinding[]
}

/** A session that has just been cut off holds its slot for a moment still. */
const SLOT_RELEASE_MS = 5_000
const SLOT_POLL_MS = 100

/**
 * Reads and checks the source for a request; changes nothing. Failures are findings, see {@link requireReady}. Throws only where the
 * source cannot be read at all.
 */
export async function inspectSource(client: SqlClient, request: SourceRequest): Promise<SourceInspection> {
  const server = await readServerFacts(client)
  const version = checkVersion(server)
  if (version.state === 'failure') return emptyInspection(server, [version])
  const identity = request.reset || request.recovers === true ? [] : checkIdentity(request.knownIdentity ?? null, server.identity)
  if (identity.length > 0) return emptyInspection(server, [version, ...identity])

  const listing = await listRelations(client)
  const requested = resolveRequestedTables(request, listing)
  const scope: NameScope = { schemaName: request.schemaName, schemas: listing.schemas }
  const present = await readTables(client, requested.tables.map((table) => table.oid), request.publicationName)
  const leaves = await readLeaves(client, present.filter((table) => table.isPartitioned === true).map((table) => table.oid))
  const publication = await readPublication(client, request.publicationName)
  const kept = request.reset ? null : publication
  const operations = kept?.operations ?? request.publish
  const joining = withoutUnfit(request, present, (table) => checkTables({ tables: [table], leaves, includeColumns: new Map(), operations, publication: kept }))
  const { tables } = joining
  const slot = request.isSlotOurs === true ? await readSlot(client, request.slotName) : await readReleasedSlot(client, request.slotName)
  const included = resolveIncludeColumns(request, { scope, tables })
  const { includeColumns } = included
  const plan = planPublication({ request, server, publication: kept, tables, includeColumns })
  const wanted = tables.map((table) => limitColumns(kept === null ? table : asPublished(table, extended(kept, plan), server.identity.serverVersion), wantedColumns(table, includeColumns)))
  const isPersisted = request.snapshotMode === 'persisted' && request.recovers !== true
  const hasSnapshots = isPersisted && slot !== null && areOfPosition(await listSnapshots(client, request.slotName), slot.confirmedFlushLsn)
  const isSlotUnfinished = hasSnapshots && !request.destinationHasState && !makesSlotAnew(request)
  const slotInput = { request, databaseName: server.identity.databaseName, slot, publication, hasSnapshots }
  const warnings = kept === null ? [] : publicationWarnings({ request, publication: extended(kept, plan), serverVersion: server.identity.serverVersion, tables, includeColumns })
  const findings = [
    version,
    ...checkNames(request),
    ...requested.findings,
    ...joining.findings,
    ...included.findings,
    ...checkServer(server, { newSlot: slot === null, ...(request.makesFailoverSlot === true ? { failoverSlot: makesSlotAnew(request) || isSlotUnfinished ? null : slot } : {}), publicationChange: plan.statements.length > 0 || request.reset }),
    ...checkTables({ tables, leaves, includeColumns, operations, publication: kept }),
    ...checkPrivileges({ request, server, publication, plan, tables: wanted, relations: requested.tables }),
    ...(request.isSlotOurs === true ? [] : checkSlot(slotInput)),
    ...(isPersisted && (slot === null || request.reset) ? await checkSnapshots(client, { server, slotName: request.slotName, tables: wanted }) : []),
    ...warnings.map((warning) => warningFinding('publication', warning)),
  ]
  return { server, publication, slot, scope, tables, includeColumns, plan, slotIsAdopted: isAdoption(slotInput), isSlotUnfinished, findings }
}

/** Throws the first failure of an inspection, naming the other failed checks. */
export function requireReady(inspection: SourceInspection): void {
  const error = errorOfFindings(inspection.findings)
  if (error !== null) throw error
}

export interface PreflightOptions {
  /** What a replication is to be; null = the server alone is checked. */
  readonly request: SourceRequest | null
  /** Slots of this source are to be failover slots. */
  readonly makesFailoverSlots: boolean
}

/** What `doctor` learns of a source. */
export interface Preflight<Inspection = SourceInspection> {
  readonly findings: readonly PreflightFinding[]
  /** null without a request, and where the source could not be looked at. */
  readonly inspection: Inspection | null
}

/**
 * All checks as a list, for `doctor`: the connection first, then the server, and with a request its tables, privileges, publication and
 * slot. Never throws a `DomainError`: what cannot be checked is a failure of the check before it.
 */
export async function runPreflight(credentials: SourceCredentials, { request, makesFailoverSlots }: PreflightOptions): Promise<Preflight> {
  return connectedPreflight(credentials, async (client) => {
    if (request !== null) {
      const inspection = await inspectSource(client, { ...request, makesFailoverSlot: makesFailoverSlots })
      return { findings: [...inspection.findings, ...(await surveyed(client, inspection.server))], inspection }
    }
    const server = await readServerFacts(client)
    const version = checkVersion(server)
    const findings = version.state === 'failure' ? [version] : [version, ...checkServer(server, { newSlot: true, ...(makesFailoverSlots ? { failoverSlot: null } : {}), publicationChange: true }), ...(await surveyed(client, server))]
    return { findings, inspection: null }
  })
}

/** The connection as the first check, then what `look` finds through it. Throws as {@link runPreflight}. */
export async function connectedPreflight<Inspection>(credentials: SourceCredentials, look: (client: SqlClient) => Promise<Preflight<Inspection>>): Promise<Preflight<Inspection>> {
  try {
    const client = await connect(credentials)
    try {
      const { findings, inspection } = await look(client)
      return { findings: [okFinding('connection', `connected to ${describeCredentials(credentials)}`), ...findings], inspection }
    } finally {
      await endQuietly(client)
    }
  } catch (error) {
    if (!(error instanceof DomainError)) throw error
    return { findings: [failureFinding({ name: 'connection', kind: error.kind, message: error.message, advice: error.remedy })], inspection: null }
  }
}

/** All slots of the server, where its version is one that we know. */
async function surveyed(client: SqlClient, server: ServerFacts): Promise<readonly PreflightFinding[]> {
  return checkVersion(server).state === 'failure' ? [] : slotFindings(await surveySlots(client))
}

/** Inspects through a session of its own and throws the first failure: the checks alone. */
export async function preflightSource(credentials: SourceCredentials, request: SourceRequest): Promise<SourceInspection> {
  const client = await connect(credentials)
  try {
    const inspection = await inspectSource(client, request)
    requireReady(inspection)
    return inspection
  } finally {
    await endQuietly(client)
  }
}

/** The publication as it will be: planned tables are in it, with what they will send. */
function extended(publication: PublicationState, plan: PublicationPlan): PublicationState {
  const added = plan.tablesToAdd.map((table) => ({ oid: table.oid, schema: table.schema, name: table.name, columns: null, hasColumnList: false, rowFilter: null, filterColumns: [], isListed: true }))
  return { ...publication, tables: [...publication.tables, ...added] }
}

function checkNames(request: SourceRequest): PreflightFinding[] {
  const findings: PreflightFinding[] = []
  if (!/^[a-z0-9_]{1,63}$/.test(request.slotName)) {
    findings.push(
      failureFinding({
        name: 'slot',
        kind: 'InvalidInput',
        message: `slotName ${JSON.stringify(request.slotName)} is no name for a slot`,
        advice: 'Use lower-case letters, digits and underscores, at most 63.',
      }),
    )
  }
  const bytes = Buffer.byteLength(request.publicationName)
  if (bytes === 0 || bytes > 63) {
    findings.push(failureFinding({ name: 'publication', kind: 'InvalidInput', message: 'publicationName is empty or longer than 63 bytes', advice: 'Give a shorter name.' }))
  }
  return findings
}

/** `includeColumns` by `schema.table`, or what is wrong with its names. */
export function resolveIncludeColumns(
  request: Pick<SourceRequest, 'includeColumns' | 'knownTables' | 'otherTables'>,
  names: { readonly scope: NameScope; readonly tables: readonly CatalogTable[] },
): { readonly includeColumns: ReadonlyMap<string, readonly string[]>; readonly findings: readonly PreflightFinding[] } {
  try {
    const tables = [...names.tables, ...(request.otherTables ?? [])]
    return { includeColumns: resolveTableMap(request.includeColumns, 'includeColumns', { scope: names.scope, tables, formerNames: formerNamesOf(tables, request.knownTables ?? []) }), findings: [] }
  } catch (error) {
    if (!(error instanceof DomainError)) throw error
    const finding = failureFinding({ name: 'columns', kind: error.kind, message: error.message, advice: error.remedy })
    return { includeColumns: new Map(), findings: [finding] }
  }
}

async function readReleasedSlot(client: SqlClient, slotName: string): Promise<SlotDetails | null> {
  const deadline = Date.now() + SLOT_RELEASE_MS
  for (;;) {
    const slot = await readSlot(client, slotName)
    if (slot === null || !slot.isActive || Date.now() >= deadline) return slot
    await delay(SLOT_POLL_MS)
  }
}

async function readLeaves(client: SqlClient, roots: readonly number[]): Promise<Map<number, CatalogTable[]>> {
  const leaves = new Map<number, CatalogTable[]>()
  if (roots.length === 0) return leaves
  const rows = await queryRows(client, z.object({ root: z.number(), leaf: z.number() }), {
    subject: 'partitions of the source',
    values: [[...roots]],
    text: `
      SELECT root.oid AS root, part.relid::oid AS leaf
      FROM unnest($1::oid[]) root(oid) CROSS JOIN LATERAL pg_partition_tree(root.oid) part
      JOIN pg_class c ON c.oid = part.relid WHERE part.isleaf AND c.relkind = 'r'`,
  })
  const tables = new Map((await readTables(client, rows.map((row) => row.leaf), null)).map((table) => [table.oid, table]))
  for (const { root, leaf } of rows) {
    const table = tables.get(leaf)
    if (table !== undefined) leaves.set(root, [...(leaves.get(root) ?? []), table])
  }
  return leaves
}

function emptyInspection(server: ServerFacts, findings: readonly PreflightFinding[]): SourceInspection {
  const plan: PublicationPlan = { statements: [], isNew: false, isWholeSchema: false, tablesToAdd: [] }
  const scope: NameScope = { schemaName: '', schemas: new Set() }
  return { server, publication: null, slot: null, scope, tables: [], includeColumns: new Map(), plan, slotIsAdopted: false, isSlotUnfinished: false, findings }
}
