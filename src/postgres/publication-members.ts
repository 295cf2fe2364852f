import { DomainError } from '../model/errors.ts'
import { SLOT_LOST_REMEDY } from '../model/remedy.ts'
import { tableKey } from '../model/table-schema.ts'
import type { SourceCredentials } from './credentials.ts'
import { errorOfFindings, failureFinding, listNames } from './findings.ts'
import { changePublication, describeResult, foreseeInit, type SourceInit } from './initialize.ts'
import { inspectSource, requireReady } from './preflight.ts'
import { dropMembersSql, droppableMembers } from './publication-plan.ts'
import { tableWarnings } from './publication-warnings.ts'
import { readPublication, type PublicationState, type PublishedTable } from './publication.ts'
import { isRemoved } from './requested-tables.ts'
import { connect, endQuietly } from './session.ts'
import type { SourceRequest } from './source-request.ts'
import { execute, type SqlClient } from './sql.ts'

/** The other tables stand still meanwhile. */
const LOCK_TIMEOUT_MS = 5_000

/** Tables as the source publishes them, or will. */
export type PublishedTables = Pick<SourceInit, 'tables' | 'scope' | 'publishedOperations'>

/**
 * Publishes the requested tables for a slot that runs already, after all checks of init; one that is published already stays as it is.
 * `approve` is called with what they will be, and refuses by throwing. Throws with nothing changed.
 */
export async function publishTables(
  credentials: SourceCredentials,
  request: SourceRequest,
  { approve, signal }: { readonly approve: (foreseen: PublishedTables) => Promise<void>; readonly signal: AbortSignal },
): Promise<PublishedTables & { readonly warnings: readonly string[] }> {
  const client = await connect(credentials)
  try {
    const inspection = await inspectSource(client, request)
    requireReady(inspection)
    const { publication, scope } = inspection
    if (publication === null) throw vanished(request.publicationName)
    await approve(foreseeInit(inspection, request))
    signal.throwIfAborted()
    await changePublication(client, { request, inspection, publication, writesNote: false, lockTimeoutMs: LOCK_TIMEOUT_MS })
    const state = await readPublication(client, request.publicationName)
    if (state === null) throw vanished(request.publicationName)
    const { tables } = describeResult(state, { request, inspection })
    const { includeColumns, server } = inspection
    const warnings = tableWarnings({ request, publication: state, serverVersion: server.identity.serverVersion, tables: inspection.tables, includeColumns })
    return { tables, scope, publishedOperations: state.operations, warnings }
  } finally {
    await endQuietly(client)
  }
}

/**
 * Takes the removed tables of `request` out of the publication, after `letGo`, which takes them out of the destination. Throws
 * `PrivilegeMissing` before it where our role may not; after it nothing is thrown: what could not be done is told, and done by the next init.
 */
export async function unpublishTables(
  credentials: SourceCredentials,
  request: Pick<SourceRequest, 'slotName' | 'publicationName' | 'removedTables'>,
  letGo: () => Promise<void>,
): Promise<readonly string[]> {
  const client = await connect(credentials)
  try {
    const before = await readPublication(client, request.publicationName)
    requireRights(before, request)
    await letGo()
    const publication = await readPublication(client, request.publicationName)
    return publication === null ? [] : await dropMembers(client, publication, request)
  } finally {
    await endQuietly(client)
  }
}

async function dropMembers(client: SqlClient, publication: PublicationState, request: Pick<SourceRequest, 'slotName' | 'removedTables'>): Promise<readonly string[]> {
  const members = publication.tables.filter((member) => isRemoved(request, member))
  const droppable = droppableMembers(publication, request)
  const staying = members.filter((member) => !droppable.includes(member))
  const warnings = staying.length === 0 ? [] : [`publication ${JSON.stringify(publication.name)} goes on sending ${names(staying)}, as it ${whyStaying(publication)}; what it sends of them is left aside`]
  if (droppable.length === 0) return warnings
  const subject = `publication ${JSON.stringify(publication.name)}`
  try {
    await execute(client, { text: `SET lock_timeout = ${String(LOCK_TIMEOUT_MS)}`, subject })
    await execute(client, { text: dropMembersSql(publication.name, droppable), subject })
    return warnings
  } catch (error) {
    if (!(error instanceof DomainError)) throw error
    return [...warnings, `${names(droppable)} could not be taken out of publication ${JSON.stringify(publication.name)} (${error.message}): the next start does it`]
  }
}

function whyStaying(publication: PublicationState): string {
  if (publication.isForAllTables) return 'publishes all tables'
  return publication.notes.size > 1 ? 'serves other slots too' : 'publishes their whole schema'
}

function names(members: readonly PublishedTable[]): string {
  return listNames(members.map(tableKey))
}

function requireRights(publication: PublicationState | null, request: Pick<SourceRequest, 'removedTables'>): void {
  const listed = (publication?.tables ?? []).filter((member) => member.isListed && isRemoved(request, member))
  if (publication === null || publication.isOwned || listed.length === 0) return
  const error = errorOfFindings([
    failureFinding({
      name: 'publication',
      kind: 'PrivilegeMissing',
      message: `publication ${JSON.stringify(publication.name)} belongs to ${JSON.stringify(publication.owner)}, and our role may not take ${names(listed)} out of it`,
      advice: 'Let its owner or a superuser run this, then remove the tables again:',
      sql: [dropMembersSql(publication.name, listed)],
    }),
  ])
  if (error !== null) throw error
}

function vanished(publicationName: string): DomainError {
  return new DomainError({
    kind: 'SlotLost',
    message: `publication ${JSON.stringify(publicationName)} is gone: what was written since then cannot be decoded`,
    remedy: SLOT_LOST_REMEDY,
  })
}
