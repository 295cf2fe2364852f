import { DomainError } from '../model/errors.ts'
import { formatLsn } from '../model/lsn.ts'
import { SLOT_LOST_REMEDY } from '../model/remedy.ts'
import type { OnWaiting, SourceIdentity } from '../model/source.ts'
import type { PublishedOperation } from '../model/spec.ts'
import type { TableSchema, TableStorage } from '../model/table-schema.ts'
import { readStorage } from './catalog-look.ts'
import { limitColumns } from './catalog.ts'
import type { SourceCredentials } from './credentials.ts'
import { withNote } from './destination-note.ts'
import { dropPublication } from './drop.ts'
import { alterToFailover, createSlotWithSnapshots, dropSnapshots, listSnapshots } from './kept-snapshots.ts'
import { inspectSource, requireReady, type SourceInspection } from './preflight.ts'
import { publicationWarnings, wantedColumns } from './publication-warnings.ts'
import { asPublished, commentSql, readPublication, toTableSchema, type PublicationState } from './publication.ts'
import { isWaitedForBy, readFullSnapshot, reportSlotBlockers, REPORT_WAITING_MS } from './running-transactions.ts'
import { connect, endQuietly } from './session.ts'
import { advanceSlotToNow, createSlot, dropSlot } from './slot.ts'
import { makesSlotAnew, type SourceRequest } from './source-request.ts'
import { execute, inTransaction, queryRow, type SqlClient } from './sql.ts'
import type { NameScope } from './table-names.ts'
import { z } from 'zod'

export interface InitializeContext {
  /** Who holds up the creation of the slot, every few seconds while it waits. */
  readonly onWaiting: OnWaiting
  /** Aborting gives the waiting up; what was created by then is found by the next attempt. */
  readonly signal: AbortSignal
}

/** What init found or made. */
export interface SourceInit {
  readonly identity: SourceIdentity
  /** LSN text: of a new slot its consistent point, of an existing one its confirmed flush LSN. */
  readonly consistentPoint: string
  readonly created: { readonly slot: boolean; readonly publication: boolean }
  /** True where the slot was made by somebody else: its tables must be copied anew (`initial`). */
  readonly slotAdopted: boolean
  /** True where the publication brings the schema's future tables. */
  readonly wholeSchema: boolean
  /** The requested tables, columns limited to what is published and included. */
  readonly tables: readonly TableSchema[]
  readonly publishedOperations: readonly PublishedOperation[]
  readonly warnings: readonly string[]
  /** For resolving the keys of other maps (`columns`, `writeMode`) with `resolveTableMap`. */
  readonly scope: NameScope
}

const SUBJECT = 'init of the source'
const LOCK_TIMEOUT_MS = 30_000

/**
 * Creates what is missing: publication, membership, note, slot; after all checks, in this order, each step its own transaction, so that it
 * may be repeated after a crash at any statement and comes to the same end. The publication comes before the slot: decoding looks it up
 * as it was at each change.
 *
 * Throws a check's error with nothing changed; `SourceUnavailable` and others from the statements themselves. Rejects with the
 * signal's reason when aborted.
 */
export async function initializeSource(credentials: SourceCredentials, request: SourceRequest, context: InitializeContext): Promise<SourceInit> {
  // No lock timeout: creating a slot waits for transactions, by their locks.
  const client = await connect(credentials, { lockTimeoutMs: 0 })
  try {
    const inspection = await inspectSource(client, request)
    requireReady(inspection)
    context.signal.throwIfAborted()
    return await applySource(client, { request, inspection }, { ...context, openSession: () => connect(credentials), openWalsender: () => connect(credentials, { replication: true }) })
  } finally {
    await endQuietly(client)
  }
}

/** {@link initializeSource} on a session at hand, with the inspection already done; `openSession` gives the second one that watches. */
export async function applySource(
  client: SqlClient,
  init: { readonly request: SourceRequest; readonly inspection: SourceInspection },
  context: InitializeContext & { readonly openSession: () => ReturnType<typeof connect>; readonly openWalsender: () => ReturnType<typeof connect> },
): Promise<SourceInit> {
  const { request, inspection } = init
  if (makesSlotAnew(request)) await dropSlot(client, request.slotName)
  if (request.reset) {
    await dropPublication(client, request.publicationName)
    await dropSnapshots(client, await listSnapshots(client, request.slotName))
  }
  const publication = request.reset ? null : inspection.publication
  const slot = makesSlotAnew(request) ? null : inspection.slot
  // Somebody else's slot is noted as ours only once it stands where we need it.
  const mustMoveSlot = inspection.slotIsAdopted && request.snapshotMode !== 'never'
  await changePublication(client, { request, inspection, publication, writesNote: !mustMoveSlot })
  // Before the slot: what is done to the publication from now on shows by it.
  const storage = await readStorage(client, inspection.tables.map(({ oid }) => oid), request.publicationName)

  let consistentPoint: string
  if (slot === null) {
    const keepsSnapshots = request.snapshotMode === 'persisted' && request.recovers !== true
    consistentPoint = keepsSnapshots ? await createSlotAndSnapshots(client, init, context) : await createSlotWatched(client, { slotName: request.slotName, isFailover: isToBeFailover(init) }, context)
  } else if (mustMoveSlot) {
    consistentPoint = await advanceSlotToNow(client, request.slotName)
    await changePublication(client, { request, inspection: { ...inspection, plan: { ...inspection.plan, statements: [] } }, publication: await readPublication(client, request.publicationName), writesNote: true })
  } else {
    consistentPoint = formatSlotPosition(slot.confirmedFlushLsn, request.slotName)
    // It is made one by a statement of its own.
    if (inspection.isSlotUnfinished && isToBeFailover(init) && !slot.isFailover) await makeFailoverSlot(context, request.slotName)
  }

  const state = await readPublication(client, request.publicationName)
  if (state === null) throw vanished(request.publicationName)
  return {
    identity: inspection.server.identity,
    consistentPoint,
    created: { slot: slot === null, publication: publication === null },
    slotAdopted: inspection.slotIsAdopted,
    publishedOperations: state.operations,
    scope: inspection.scope,
    ...describeResult(state, { request, inspection: { ...inspection, tables: inspection.tables.map((table) => ({ ...table, ...storageNow(storage, table) })) } }),
  }
}

function storageNow(storage: ReadonlyMap<number, TableStorage>, { oid }: TableSchema): Pick<TableSchema, 'storage'> {
  const now = storage.get(oid)
  return now === undefined ? {} : { storage: now }
}

/** What {@link initializeSource} will find or make of a source that has passed the checks: so that what comes after can be checked before. */
export function foreseeInit(inspection: SourceInspection, request: SourceRequest): Pick<SourceInit, 'tables' | 'scope' | 'publishedOperations'> {
  const { includeColumns, server, scope } = inspection
  const publication = request.reset ? null : inspection.publication
  const { serverVersion } = server.identity
  const tables = inspection.tables.map((table) => {
    const published = publication === null ? table : asPublished(table, publication, serverVersion)
    return toTableSchema(limitColumns(published, wantedColumns(table, includeColumns)))
  })
  return { tables, scope, publishedOperations: publication?.operations ?? request.publish }
}

/** The requested tables as the publication sends them, and where it differs from the request. */
export function describeResult(
  publication: PublicationState,
  init: { readonly request: SourceRequest; readonly inspection: SourceInspection },
): Pick<SourceInit, 'tables' | 'warnings' | 'wholeSchema'> {
  const { request, inspection } = init
  const { includeColumns, server } = inspection
  const { serverVersion } = server.identity
  const published = new Set(publication.tables.map((table) => table.oid))
  const tables = inspection.tables.filter((table) => published.has(table.oid))
  const found = inspection.findings.filter((finding) => finding.state === 'warning').map((finding) => finding.message)
  const differs = publicationWarnings({ request, publication, serverVersion, tables, includeColumns })
  return {
    tables: tables.map((table) => toTableSchema(limitColumns(asPublished(table, publication, serverVersion), wantedColumns(table, includeColumns)))),
    warnings: [...new Set([...found, ...differs])],
    wholeSchema: publication.isForAllTables || publication.schemas.includes(request.schemaName),
  }
}

/** The publication's DDL and its note, in one transaction: a publication of ours is never without the note. */
export async function changePublication(
  client: SqlClient,
  change: { readonly request: SourceRequest; readonly inspection: SourceInspection; readonly publication: PublicationState | null; readonly writesNote: boolean; readonly lockTimeoutMs?: number },
): Promise<void> {
  const { request, inspection, publication } = change
  const statements = [...inspection.plan.statements]
  const canComment = (publication?.isOwned ?? true) && !inspection.server.isInRecovery
  if (change.writesNote && canComment && request.destinationId !== null && publication?.notes.get(request.slotName) !== request.destinationId) {
    statements.push(commentSql(request.publicationName, withNote(publication?.comment ?? null, request.slotName, request.destinationId)))
  }
  if (statements.length === 0) return
  const subject = `publication ${JSON.stringify(request.publicationName)}`
  await inTransaction(client, subject, async () => {
    // A table that somebody rewrites must not hold us up for ever; waiting for the slot, later, may.
    await execute(client, { text: `SET LOCAL lock_timeout = ${String(change.lockTimeoutMs ?? LOCK_TIMEOUT_MS)}`, subject })
    for (const text of statements) await execute(client, { text, subject })
  })
}

/** Where it is asked for, and where the one before it was one. */
function isToBeFailover({ request, inspection }: { readonly request: SourceRequest; readonly inspection: SourceInspection }): boolean {
  return request.makesFailoverSlot === true || inspection.slot?.isFailover === true
}

/** Creates the slot on `client`. */
async function createSlotWatched(client: SqlClient, { slotName, isFailover }: { readonly slotName: string; readonly isFailover: boolean }, context: WatchContext): Promise<string> {
  const { running: before } = await readFullSnapshot(client)
  const { pid } = await queryRow(client, z.object({ pid: z.number() }), { text: 'SELECT pg_backend_pid() AS pid', subject: SUBJECT })
  return await watched({ creatorPid: pid, before }, async () => createSlot(client, slotName, isFailover), context)
}

async function makeFailoverSlot({ openWalsender }: { readonly openWalsender: () => ReturnType<typeof connect> }, slotName: string): Promise<void> {
  const walsender = await openWalsender()
  try {
    await alterToFailover(walsender, slotName)
  } finally {
    await endQuietly(walsender)
  }
}

/** `snapshotMode: "persisted"`: see {@link createSlotWithSnapshots}. */
async function createSlotAndSnapshots(
  client: SqlClient,
  { request, inspection }: { readonly request: SourceRequest; readonly inspection: SourceInspection },
  context: WatchContext & { readonly openWalsender: () => ReturnType<typeof connect> },
): Promise<string> {
  const publication = await readPublication(client, request.publicationName)
  if (publication === null) throw vanished(request.publicationName)
  const tables = describeResult(publication, { request, inspection }).tables.map((table) => ({
    table,
    rowFilter: publication.tables.find(({ oid }) => oid === table.oid)?.rowFilter ?? null,
  }))
  const { running: before } = await readFullSnapshot(client)
  const { pid: holderPid } = await queryRow(client, z.object({ pid: z.number() }), { text: 'SELECT pg_backend_pid() AS pid', subject: SUBJECT })
  const walsender = await context.openWalsender()
  try {
    return await createSlotWithSnapshots({
      client,
      walsender,
      slotName: request.slotName,
      isFailover: isToBeFailover({ request, inspection }),
      tables,
      watched: async (creatorPid, create) => watched({ creatorPid, before, holderPid }, create, context),
    })
  } finally {
    await endQuietly(walsender)
  }
}

type WatchContext = InitializeContext & { readonly openSession: () => ReturnType<typeof connect> }

type Blocked = Parameters<typeof reportSlotBlockers>[1] & {
  /** A backend of ours that holds locks on tables meanwhile. */
  readonly holderPid?: number
}

/**
 * Runs the creation of a slot; meanwhile a second session tells who is waited for, and cancels on abort. It cancels, too, where one who is waited for
 * waits for a lock of ours: PostgreSQL sees no deadlock in that, as we only wait in this program.
 */
async function watched<T>(blocked: Blocked, create: () => Promise<T>, context: WatchContext): Promise<T> {
  const ended = new AbortController()
  const watching = watchSlotCreation(blocked, { ...context, ended: ended.signal })
  try {
    return await create()
  } catch (error) {
    context.signal.throwIfAborted()
    ended.abort()
    if ((await watching) === 'deadlock') throw deadlocked()
    throw error
  } finally {
    ended.abort()
    await watching
  }
}

async function watchSlotCreation(
  blocked: Blocked,
  context: InitializeContext & { readonly openSession: () => ReturnType<typeof connect>; readonly ended: AbortSignal },
): Promise<'ended' | 'deadlock'> {
  const { ended, signal } = context
  let watcher: Awaited<ReturnType<typeof connect>> | null = null
  try {
    for (;;) {
      await sleepUntil(REPORT_WAITING_MS, [ended, signal])
      if (ended.aborted) return 'ended'
      watcher ??= await context.openSession()
      if (signal.aborted) {
        await execute(watcher, { text: 'SELECT pg_cancel_backend($1)', values: [blocked.creatorPid], subject: SUBJECT })
        await sleepUntil(REPORT_WAITING_MS, [ended])
      } else {
        const pids = await reportSlotBlockers(watcher, blocked, context.onWaiting)
        if (blocked.holderPid === undefined || !(await isWaitedForBy(watcher, blocked.holderPid, pids))) continue
        await execute(watcher, { text: 'SELECT pg_cancel_backend($1)', values: [blocked.creatorPid], subject: SUBJECT })
        return 'deadlock'
      }
    }
  } catch (error) {
    // Watching is a service: what is wrong with the source shows in the creation itself.
    if (!(error instanceof DomainError)) throw error
    return 'ended'
  } finally {
    if (watcher !== null) await endQuietly(watcher)
  }
}

/** Resolves after `timeoutMs` or as soon as one of the signals is aborted. */
async function sleepUntil(timeoutMs: number, signals: readonly AbortSignal[]): Promise<void> {
  await new Promise<void>((resolve) => {
    const finish = (): void => {
      clearTimeout(timer)
      for (const signal of signals) signal.removeEventListener('abort', finish)
      resolve()
    }
    const timer = setTimeout(finish, timeoutMs)
    for (const signal of signals) {
      if (signal.aborted) finish()
      else signal.addEventListener('abort', finish)
    }
  })
}

function formatSlotPosition(confirmedFlushLsn: Parameters<typeof formatLsn>[0] | null, slotName: string): string {
  if (confirmedFlushLsn !== null) return formatLsn(confirmedFlushLsn)
  throw new DomainError({
    kind: 'SlotLost',
    message: `slot ${JSON.stringify(slotName)} has no position: its creation was never finished`,
    remedy: SLOT_LOST_REMEDY,
  })
}

function deadlocked(): DomainError {
  return new DomainError({
    kind: 'SourceUnavailable',
    message: 'the creation of the slot waits for a transaction that waits for one of the tables whose snapshots are to be kept (ALTER TABLE, TRUNCATE or LOCK TABLE)',
    remedy: 'Nothing: the tables have been let go of, and it is tried again.',
  })
}

function vanished(publicationName: string): DomainError {
  return new DomainError({
    kind: 'SourceUnavailable',
    message: `publication ${JSON.stringify(publicationName)} vanished while it was being set up`,
    remedy: 'See who drops it. It is tried again.',
  })
}
