import type { Destination, Fence, KnownTable, PipelineState, Reshaping, TableRecord, TableRegistration } from '../model/destination.ts'
import { DomainError } from '../model/errors.ts'
import { ZERO_LSN } from '../model/lsn.ts'
import type { ChangeTablesResult, OperationContext, TablesOrder } from '../model/replication.ts'
import type { CatalogLook } from '../model/source.ts'
import type { ReplicationSpec } from '../model/spec.ts'
import { tableKey } from '../model/table-schema.ts'
import { replicatedShape } from '../pipeline/schema-diff.ts'
import type { SourceCredentials } from '../postgres/credentials.ts'
import { publishTables, unpublishTables, type PublishedTables } from '../postgres/publication-members.ts'
import type { SourceRequest } from '../postgres/source-request.ts'
import { nearMissRemedy, parseTableName } from '../postgres/table-names.ts'
import { amendmentOf, namesOf, withAdded, withRemoved } from './amendment.ts'
import { progressOf } from './progress.ts'
import { registrationsOf, reshapingsOf } from './registration.ts'
import { copiedAnew, toGoOn } from './retry.ts'
import { approvedAsIs, isPending, withApproval, withoutPending } from './schema-approval.ts'

const NOTHING_SAID: OrderOutcome = { warnings: [], about: [] }

/** What an order is carried out on. */
export interface TableOrderContext {
  readonly spec: ReplicationSpec
  readonly credentials: SourceCredentials
  readonly destination: Destination
  /** As it was when the order was looked at. */
  readonly state: PipelineState
  readonly request: SourceRequest
  readonly context: OperationContext
  /** Ends the session that runs, whose records will not be the present ones any more, and claims the pipeline anew. */
  readonly takeOver: () => Promise<{ readonly state: PipelineState; readonly fence: Fence }>
  readonly look: (oids: readonly number[]) => Promise<CatalogLook>
}

/**
 * Carries out an order for tables of a replication that has been initialized. What refuses it is thrown before anything is changed. Steps:
 *
 * - add: checks → published → registered as `pending`, with the amendment. Killed in between, it is published without effect.
 * - remove: checks → out of the destination, with the amendment → out of the publication. Killed in between, the publication goes on
 *   sending what nobody takes; the next init takes it out.
 * - resync: checks → `pending` again, beside the rows that are there, and in the shapes that are ordered.
 * - approve: the change that the table waits at is noted as approved, and the table goes on.
 *
 * Whoever copies and swaps is the session that begins afterwards.
 */
export async function carryOut(order: TablesOrder, on: TableOrderContext): Promise<ChangeTablesResult> {
  switch (order.tag) {
    case 'add':
      return resultOf(on, await addTables(order.tableNames, on))
    case 'remove':
      return resultOf(on, await removeTables(order, on))
    case 'resync':
      return resultOf(on, await resyncTables(order, on))
    case 'approve':
      return resultOf(on, await approveChange(order.tableNames[0], on))
    default:
      return order satisfies never
  }
}

/** What an order warns of, and the tables that it has looked at anew. */
interface OrderOutcome {
  readonly warnings: readonly string[]
  readonly about: readonly string[]
}

async function resultOf({ destination, state: { key, appliedLsn } }: TableOrderContext, { warnings, about }: OrderOutcome): Promise<ChangeTablesResult> {
  const state = await destination.loadPipeline(key)
  const progress = progressOf(state?.tables ?? [], { appliedLsn: appliedLsn ?? state?.appliedLsn ?? ZERO_LSN, health: null, lagMs: null, warnings })
  return { tables: progress.tables, warnings: progress.warnings, about }
}

async function addTables(tableNames: readonly string[], on: TableOrderContext): Promise<OrderOutcome> {
  const { spec, destination, state, context, look } = on
  const registrations = ({ tables, scope, publishedOperations }: PublishedTables): readonly TableRegistration[] =>
    registrationsOf(spec, { tables, scope, publishedOperations, otherTables: othersOf(on, tables) }, state.tables)
  const published = await publishTables(on.credentials, requestFor(on, tableNames), {
    approve: async (foreseen) => destination.check(state.key, registrations(foreseen), { startsAnew: false }),
    signal: context.signal,
  })
  // From here on it is brought to its end, whoever wants it to stop.
  const { state: present, fence } = await on.takeOver()
  const { identity } = present
  if (identity === null) throw new RangeError('a pipeline without a source')
  const live = present.tables.filter(({ state: tableState }) => tableState !== 'removed').map(({ oid }) => oid)
  const there = new Set((await look(live)).tables.map(({ oid }) => oid))
  await destination.register(fence, {
    identity,
    publicationName: spec.publicationName,
    appliedLsn: present.appliedLsn ?? ZERO_LSN,
    replacesPosition: false,
    tables: registrations(published),
    gone: new Set(live.filter((oid) => !there.has(oid))),
    amendment: withAdded(amendmentOf(spec, present), published.tables),
  })
  return { warnings: published.warnings, about: published.tables.map(tableKey) }
}

async function removeTables({ tableNames, dropDestination }: Extract<TablesOrder, { tag: 'remove' }>, on: TableOrderContext): Promise<OrderOutcome> {
  const { spec, destination, state } = on
  const amendment = amendmentOf(spec, state)
  const tables = resolveKnown(tableNames, on, { field: 'tableNames', gone: amendment.removed })
  const others = new Set(state.tables.filter((record) => record.state !== 'removed' && !tables.includes(record)).map(({ source }) => tableKey(source)))
  const removed = tables.flatMap(namesOf).filter((name) => !others.has(tableKey(name)))
  const withdrawn = withRemoved(amendment, removed)
  const warnings = await unpublishTables(on.credentials, { ...on.request, removedTables: withdrawn.removed }, async () => {
    const { state: present, fence } = await on.takeOver()
    const oids = new Set(tables.map(({ oid }) => oid))
    await destination.removeTables(fence, present.tables.filter(({ oid }) => oids.has(oid)), { dropsRows: dropDestination, amendment: withdrawn })
  })
  return { warnings, about: removed.map(tableKey) }
}

async function resyncTables({ tableNames, shapes = {} }: Extract<TablesOrder, { tag: 'resync' }>, on: TableOrderContext): Promise<OrderOutcome> {
  const { spec, destination, context } = on
  const tables = resolveKnown(tableNames, on, { field: 'tableNames', gone: [] })
  for (const { state, source } of tables) {
    if (state !== 'removed') continue
    throw new DomainError({ kind: 'InvalidInput', message: `table ${tableKey(source)} is not replicated: its state is removed`, remedy: 'the update addTables (cli add) copies it anew' })
  }
  const asIs = (record: TableRecord, present: PublishedTables['tables']): TableRecord => {
    const schema = spec.schemaChanges === 'ask' ? present.find(({ oid }) => oid === record.oid) : undefined
    return schema === undefined ? record : approvedAsIs(record, replicatedShape(record, schema))
  }
  const reshapings = (found: PublishedTables, records: readonly TableRecord[]): readonly Reshaping[] => {
    const registered = registrationsOf(spec, { ...found, otherTables: othersOf(on, found.tables) }, records)
    return reshapingsOf(spec, shapes, { ...found, registered, records: records.map((record) => withoutPending(asIs(record, found.tables))) })
  }
  const published = await publishTables(on.credentials, requestFor(on, tables.map(({ source }) => quoted(source))), {
    approve: async (foreseen) => destination.checkShapes(on.state.key, reshapings(foreseen, tables)),
    signal: context.signal,
  })
  const { warnings, tables: present } = published
  const { state: taken, fence } = await on.takeOver()
  const reshaped = await destination.reshapeTables(fence, reshapings(published, taken.tables.filter(({ state }) => state !== 'removed')))
  const state = { ...taken, tables: taken.tables.map((record) => reshaped.find(({ oid }) => oid === record.oid) ?? record) }
  const oids = new Set(tables.map(({ oid }) => oid))
  // One that waits for its copy, or is being copied, will see what is there by then.
  const isCopying = (record: TableRecord): boolean => (record.state === 'pending' || record.state === 'snapshotting') && record.quarantine === null
  const meant = state.tables.filter((record) => oids.has(record.oid) && record.state !== 'removed' && !isCopying(record))
  await destination.saveTables(fence, meant.map((record) => copiedAnew(asIs(record, present))))
  return { warnings, about: present.map(tableKey) }
}

async function approveChange(tableName: string, on: TableOrderContext): Promise<OrderOutcome> {
  const [table] = resolveKnown([tableName], on, { field: 'table', gone: [] })
  // An attempt whose answer was lost has approved it.
  const isApproved = table?.state !== 'failed' && (table?.approval?.approved.length ?? 0) > 0
  if (table === undefined || isApproved) return NOTHING_SAID
  if (!isPending(table)) {
    const waiting = on.state.tables.filter(isPending).map(({ source }) => tableKey(source))
    throw new DomainError({
      kind: 'InvalidInput',
      message: `table ${tableKey(table.source)} has no schema change that waits for approval: its state is ${table.state}`,
      remedy: waiting.length === 0 ? 'no table waits for approval; a table that has failed otherwise goes on by the update retryFailed' : `these wait: ${waiting.join(', ')}`,
    })
  }
  const { state, fence } = await on.takeOver()
  await on.destination.saveTables(fence, state.tables.filter((record) => record.oid === table.oid && isPending(record)).map((record) => toGoOn(withApproval(record))))
  return NOTHING_SAID
}

/** The checks of init for these tables alone: what is wrong with others is no reason to refuse an order. */
function requestFor(on: TableOrderContext, tableNames: readonly string[]): SourceRequest {
  return { ...on.request, tableNames, addedTables: [], removedTables: [], otherTables: othersOf(on, []), isSlotOurs: true, reset: false }
}

/** Tables beside those at hand that the input's maps may name. */
function othersOf({ spec, state }: TableOrderContext, tables: readonly KnownTable[]): readonly KnownTable[] {
  const amendment = amendmentOf(spec, state)
  const known = [...state.tables.flatMap(namesOf), ...amendment.added, ...amendment.removed]
  return known.filter((other) => !tables.some((table) => table.oid === other.oid || tableKey(table) === tableKey(other)))
}

/** The records that are meant, by names that stand in `field`. A name of `gone` means nothing any more: an attempt whose answer was lost has dropped it. Throws `InvalidInput`. */
function resolveKnown(
  tableNames: readonly string[],
  { spec, state }: TableOrderContext,
  { field, gone }: { readonly field: 'tableNames' | 'table'; readonly gone: readonly KnownTable[] },
): readonly TableRecord[] {
  const scope = { schemaName: spec.schemaName, schemas: new Set([...state.tables.map(({ source }) => source.schema), ...gone.map(({ schema }) => schema)]) }
  const live = state.tables.filter((record) => record.state !== 'removed')
  const byName = (key: string): TableRecord | undefined =>
    [...live, ...state.tables].find(({ source }) => tableKey(source) === key) ?? live.find((record) => namesOf(record).some((name) => tableKey(name) === key))
  const found = new Map<number, TableRecord>()
  for (const spelling of tableNames) {
    const key = tableKey(parseTableName(spelling, scope))
    const record = byName(key)
    if (record !== undefined) found.set(record.oid, record)
    else if (!gone.some((table) => tableKey(table) === key)) {
      throw new DomainError({
        kind: 'InvalidInput',
        message: `${field} names ${JSON.stringify(spelling)}, which is not one of the replicated tables`,
        remedy: nearMissRemedy(key, live.map(({ source }) => tableKey(source))),
      })
    }
  }
  return [...found.values()]
}

function quoted({ schema, name }: TableRecord['source']): string {
  return [schema, name].map((part) => `"${part.replaceAll('"', '""')}"`).join('.')
}
