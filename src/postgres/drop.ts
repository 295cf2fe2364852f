import { DomainError } from '../model/errors.ts'
import { checkReplicationRole } from './check-server.ts'
import type { SourceCredentials } from './credentials.ts'
import { withNote } from './destination-note.ts'
import { errorOfFindings, failureFinding } from './findings.ts'
import { dropSnapshots, listSnapshots } from './kept-snapshots.ts'
import { commentSql, readPublication, type PublicationState } from './publication.ts'
import { readIdentity, readServerFacts } from './server.ts'
import { connect, endQuietly } from './session.ts'
import { dropSlot, readSlot, remedyForHeldSlot, type SlotDetails } from './slot.ts'
import { execute, quoteIdentifier, type SqlClient } from './sql.ts'

/**
 * Drops slot and publication where they exist and tells which did (`slot x`, `publication y`). Idempotent. A publication that notes other
 * slots too stays for them, without our note. Throws, before anything is dropped, `SlotInUse` where a session holds the slot, and
 * `PrivilegeMissing` where our role may not drop slots, or the publication, being somebody else's.
 */
export async function dropSource(
  credentials: SourceCredentials,
  names: { readonly slotName: string; readonly publicationName: string },
): Promise<readonly string[]> {
  const client = await connect(credentials)
  try {
    return await dropSlotAndPublication(client, names)
  } finally {
    await endQuietly(client)
  }
}

/** {@link dropSource} on a session at hand. */
export async function dropSlotAndPublication(
  client: SqlClient,
  names: { readonly slotName: string; readonly publicationName: string },
): Promise<readonly string[]> {
  const dropped: string[] = []
  const slot = await readSlot(client, names.slotName)
  if (slot?.isActive === true) {
    throw new DomainError({
      kind: 'SlotInUse',
      message: `slot ${JSON.stringify(names.slotName)} is used by pid ${slot.activePid ?? 0}`,
      remedy: remedyForHeldSlot(slot),
    })
  }
  if (slot !== null && !(await isOurKind(client, slot))) {
    throw new DomainError({
      kind: 'InvalidInput',
      message: `slot ${JSON.stringify(names.slotName)} is not a pgoutput slot of this database`,
      remedy: 'Give the name of the slot that the replication used.',
    })
  }
  const publication = await readPublication(client, names.publicationName)
  await requireRights(client, { slot, publication })
  if (await dropSlot(client, names.slotName)) dropped.push(`slot ${names.slotName}`)
  for (const table of await dropSnapshots(client, await listSnapshots(client, names.slotName))) dropped.push(`snapshot table ${table}`)
  if (publication === null) return dropped
  const serves = [...publication.notes.keys()].filter((slotName) => slotName !== names.slotName)
  if (serves.length > 0) {
    const comment = withNote(publication.comment, names.slotName, null)
    if (comment !== publication.comment) await execute(client, { text: commentSql(names.publicationName, comment), subject: subjectOf(names.publicationName) })
    return dropped
  }
  await dropPublication(client, names.publicationName)
  return [...dropped, `publication ${names.publicationName}`]
}

async function requireRights(client: SqlClient, { slot, publication }: { readonly slot: SlotDetails | null; readonly publication: PublicationState | null }): Promise<void> {
  const server = await readServerFacts(client)
  const findings = [
    ...(slot === null ? [] : [checkReplicationRole(server)]),
    ...(publication === null || publication.isOwned
      ? []
      : [
          failureFinding({
            name: 'publication',
            kind: 'PrivilegeMissing',
            message: `publication ${JSON.stringify(publication.name)} belongs to ${JSON.stringify(publication.owner)}: nothing was dropped`,
            advice: 'Let its owner or a superuser drop it, then start this again for the slot:',
            sql: [`DROP PUBLICATION ${quoteIdentifier(publication.name)}`],
          }),
        ]),
  ]
  const error = errorOfFindings(findings)
  if (error !== null) throw error
}

/** PostgreSQL drops any slot from any database: a physical one, or a neighbour's, must not go by a wrong name. */
async function isOurKind(client: SqlClient, slot: SlotDetails): Promise<boolean> {
  const { databaseName } = await readIdentity(client)
  return slot.isLogical && slot.plugin === 'pgoutput' && slot.database === databaseName
}

/** Drops a publication if there is one. */
export async function dropPublication(client: SqlClient, publicationName: string): Promise<void> {
  await execute(client, { text: `DROP PUBLICATION IF EXISTS ${quoteIdentifier(publicationName)}`, subject: subjectOf(publicationName) })
}

function subjectOf(publicationName: string): string {
  return `publication ${JSON.stringify(publicationName)}`
}
