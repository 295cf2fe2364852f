import type { Destination, Fence, KnownTable, PipelineState, Registration, Reshaping, TableRecord, TableRegistration } from '../model/destination.ts'
import { reportText } from '../model/error-report.ts'
import { DomainError } from '../model/errors.ts'
import { parseLsn, ZERO_LSN } from '../model/lsn.ts'
import type { OrderedShapes } from '../model/replication.ts'
import type { CatalogLook, Source, SourceIdentity } from '../model/source.ts'
import { isShapedAs, modesOf, shapesOf, shapingIn, type Shaping } from '../model/shapes.ts'
import { defaultWriteMode, type PublishedOperation, type ReplicationSpec, type WriteMode } from '../model/spec.ts'
import { tableKey, type TableName, type TableSchema } from '../model/table-schema.ts'
import { hasIdentity } from '../postgres/catalog.ts'
import { identityFailure, publishesOldRows } from '../postgres/check-tables.ts'
import type { SourceInit } from '../postgres/initialize.ts'
import { stayingOut } from '../postgres/newcomers.ts'
import type { SourceInspection } from '../postgres/preflight.ts'
import { isRemoved } from '../postgres/requested-tables.ts'
import { formerNamesOf, resolveTableMap } from '../postgres/table-names.ts'
import { amendmentOf } from './amendment.ts'
import { rowsCopiedUnder, type CopiedRows } from './copied-rows.ts'
import { sameTable, targetNameOf } from './names.ts'
import { knownNames } from './named-tables.ts'
import { copiedAnew } from './retry.ts'

export interface InitRegistration {
  readonly destination: Destination
  readonly fence: Fence
  readonly spec: ReplicationSpec
  readonly init: SourceInit
  readonly state: PipelineState
  /** The position is the slot's, be it a new one or not. */
  readonly isRecovery: boolean
  readonly look: (oids: readonly number[]) => Promise<CatalogLook>
}

/** Brings the destination's records to what init found: tables that were renamed meanwhile are followed, those that are not meant any more stay out. */
export async function registerTables(registration: InitRegistration): Promise<{ readonly records: readonly TableRecord[]; readonly warnings: readonly string[] }> {
  const { destination, fence, spec, init, state, isRecovery, look } = registration
  const amendment = amendmentOf(spec, state)
  const live = state.tables.filter((table) => table.state !== 'removed')
  const now = new Map(init.tables.map((table) => [table.oid, table]))
  // Tables that the input does not name any more, or that are dropped, stay out; named again they are copied anew.
  const left = live.filter(({ oid }) => !now.has(oid))
  const there = new Set(left.length === 0 ? [] : (await look(left.map(({ oid }) => oid))).tables.map(({ oid }) => oid))
  const removed: TableRecord[] = []
  for (const record of left) {
    const departure = there.has(record.oid) ? (spec.tableNames === null ? 'unpublished' : null) : 'dropped'
    removed.push(await destination.removeTable(fence, record, departure))
  }
  const followed = await followNames(destination, fence, { spec, records: live.filter(({ oid }) => now.has(oid)), names: now })
  const isAdopted = init.slotAdopted && state.appliedLsn === null
  const records = await destination.register(fence, {
    identity: init.identity,
    publicationName: spec.publicationName,
    appliedLsn: parseLsn(init.consistentPoint),
    replacesPosition: isAdopted || isRecovery || init.created.slot,
    tables: registrationsOf(spec, { ...init, otherTables: amendment.removed }, state.tables),
    gone: new Set(),
    amendment: amendment.added.length + amendment.removed.length === 0 ? null : amendment,
  })
  const said = new Set(records.map(({ oid }) => oid))
  const outvoted = removed.filter(({ oid }) => (state.amendment?.added ?? []).some((added) => added.oid === oid) && !amendment.added.some((added) => added.oid === oid))
  return {
    records: [...removed.filter(({ oid }) => !said.has(oid)), ...records],
    warnings: [...followed.warnings, ...outvoted.map(({ source }) => `${tableKey(source)}, which an update added, is removed: tableNames is another than it was then, and does not name it`)],
  }
}

/**
 * Tables that are replicated and that the publication does not send any more: what was written since is not in the stream, so they are copied
 * anew once they are published again. Written before that: a start that is killed in between must not take them for whole.
 */
export async function closeGaps(
  gaps: Pick<InitRegistration, 'destination' | 'fence' | 'spec'> & { readonly tables: readonly TableRecord[]; readonly inspection: Pick<SourceInspection, 'publication' | 'tables'> },
): Promise<readonly TableRecord[]> {
  const { destination, fence, spec, tables, inspection } = gaps
  const { publication } = inspection
  if (publication === null || spec.snapshotMode === 'never') return []
  const isUnpublished = ({ oid, state }: TableRecord): boolean =>
    state !== 'removed' && inspection.tables.some((table) => table.oid === oid) && !publication.tables.some((member) => member.oid === oid)
  const records = tables.filter(isUnpublished).map(copiedAnew)
  if (records.length > 0) await destination.saveTables(fence, records)
  return records
}

/** Tables whose names at the source are others by now get them at the destination, all in one transaction. */
async function followNames(
  destination: Destination,
  fence: Fence,
  tables: { readonly spec: ReplicationSpec; readonly records: readonly TableRecord[]; readonly names: ReadonlyMap<number, TableName> },
): Promise<{ readonly records: readonly TableRecord[]; readonly warnings: readonly string[] }> {
  const { spec, records, names } = tables
  // Where changes are refused, or have to be approved, the stream stops such a table.
  if (spec.schemaChanges !== 'apply') return { records: [], warnings: [] }
  const renamings = records.flatMap((record) => {
    const name = names.get(record.oid)
    if (name === undefined || sameTable(record.source, name)) return []
    const source = { schema: name.schema, name: name.name }
    return [{ record, names: { source, target: targetNameOf(spec, source) } }]
  })
  if (renamings.length === 0) return { records: [], warnings: [] }
  return {
    records: await destination.renameTables(fence, renamings),
    warnings: renamings.map(({ record, names: { source } }) => `${tableKey(record.source)} is named ${tableKey(source)} at the source now; it is followed`),
  }
}

/** What of a spec tells how tables are registered. */
export type RegisteredSpec = Pick<ReplicationSpec, 'columns' | 'includeColumns' | 'publish' | 'writeMode' | 'deleteMode' | 'datasetName' | 'snapshotMode'>

/** What the input wants of each table. Throws `InvalidInput` where its maps name others, or two tables would land in one. */
export function registrationsOf(
  spec: RegisteredSpec,
  init: Pick<SourceInit, 'tables' | 'scope' | 'publishedOperations'> & { readonly otherTables?: readonly KnownTable[] },
  known: readonly TableRecord[],
): readonly TableRegistration[] {
  // Maps may name tables that stay out for now.
  const tables = [...init.tables, ...(init.otherTables ?? [])]
  const formerNames = formerNamesOf(tables, knownNames(known))
  const names = { scope: init.scope, tables, formerNames }
  const hints = resolveTableMap(spec.columns, 'columns', names)
  const lists = resolveTableMap(spec.includeColumns, 'includeColumns', names)
  const modes = typeof spec.writeMode === 'string' ? null : resolveTableMap(spec.writeMode, 'writeMode', names)
  const registrations = init.tables.map((source): TableRegistration => {
    const key = tableKey(source)
    return {
      source,
      target: targetNameOf(spec, source),
      ...shapingOf(spec, typeof spec.writeMode === 'string' ? [spec.writeMode] : (modes?.get(key) ?? [defaultWriteMode(spec.publish)])),
      hints: hints.get(key) ?? {},
      hasColumnList: lists.has(key),
      ...rowsOf(spec, init.publishedOperations),
      initialState: spec.snapshotMode === 'never' ? 'streaming' : 'pending',
    }
  })
  refuseSameTargets(registrations)
  return registrations
}

/** A found table's names and what is known of it, for {@link reshapingsOf}. */
type FoundTables = Pick<SourceInit, 'tables' | 'scope'> & { readonly registered: readonly TableRegistration[]; readonly records: readonly TableRecord[] }

/** The tables that an order wants in other shapes than they have. What it leaves out stays; throws `InvalidInput` where it names shapes for other tables. */
export function reshapingsOf(spec: Pick<ReplicationSpec, 'deleteMode'>, { writeMode, deleteMode }: OrderedShapes, { tables, scope, registered, records }: FoundTables): readonly Reshaping[] {
  if (writeMode === undefined && deleteMode === undefined) return []
  const names = { scope, tables, formerNames: formerNamesOf(tables, knownNames(records)), isOfOrder: true }
  const modes = writeMode === undefined || typeof writeMode === 'string' ? null : resolveTableMap(writeMode, 'writeMode', names)
  return registered.flatMap((registration): Reshaping[] => {
    const record = records.find(({ oid }) => oid === registration.source.oid)
    if (record === undefined) return []
    const present = modesOf(record)
    const wanted = typeof writeMode === 'string' ? [writeMode] : (modes?.get(tableKey(registration.source)) ?? present)
    if (deleteMode === 'soft' && !wanted.includes('merge')) {
      throw new DomainError({
        kind: 'InvalidInput',
        message: `${tableKey(registration.source)}: deleteMode soft marks the rows of merge tables, and it is held as ${wanted.join(' and ')}`,
        remedy: 'leave deleteMode out (what is deleted is kept there anyway), or name merge among its modes in writeMode',
      })
    }
    // Of a table that has no current rows so far the input tells how deletes shall be.
    const kept = present.includes('merge') ? (record.isSoft === true ? 'soft' : 'hard') : spec.deleteMode
    const shaping = shapingOf({ deleteMode: deleteMode ?? kept }, wanted)
    return isShapedAs(shaping, record) ? [] : [{ record, shaping, inputShaping: shapingIn(registration) }]
  })
}

/** How a table lands: `modes` is not empty. */
function shapingOf({ deleteMode }: Pick<RegisteredSpec, 'deleteMode'>, [writeMode = 'merge', ...otherModes]: readonly WriteMode[]): Shaping {
  const isSoft = deleteMode === 'soft' && [writeMode, ...otherModes].includes('merge')
  return { writeMode, ...(otherModes.length === 0 ? {} : { otherModes }), ...(isSoft ? { isSoft } : {}) }
}

function refuseSameTargets(registrations: readonly TableRegistration[]): void {
  const seen = new Map<string, TableName>()
  for (const registration of registrations) {
    const { source } = registration
    for (const { table } of shapesOf(registration, registration.target)) {
      const name = tableKey(table).toLowerCase()
      const other = seen.get(name)
      if (other !== undefined) {
        const isOfShapes = tableKey(table) !== tableKey(registration.target) || other.name !== table.name
        throw new DomainError({
          kind: 'InvalidInput',
          message: `${tableKey(other)} and ${tableKey(source)} would both land in ${tableKey(table)}`,
          remedy: isOfShapes
            ? 'give the table with several write modes a single one, or replicate one of them with another datasetName and slot'
            : 'leave datasetName out (each table then lands in its own schema), or replicate one of them with another datasetName',
        })
      }
      seen.set(name, source)
    }
  }
}

export interface Adoption {
  readonly destination: Destination
  readonly source: Source
  readonly fence: Fence
  readonly spec: ReplicationSpec
  readonly identity: SourceIdentity | null
  readonly schema: TableSchema
  /** Records of the session's tables. */
  readonly tables: readonly TableRecord[]
  /** Tables that updates have taken out. */
  readonly removedTables: readonly KnownTable[]
}

/** The table's record (null where it is none of ours, or the destination refuses it), and records of tables that had to give way to it. */
export interface Adopted {
  readonly record: TableRecord | null
  readonly others: readonly TableRecord[]
  readonly warning: string | null
}

/**
 * A table of a whole-schema replication that came later. A table that has its name at the destination was renamed or dropped at the source:
 * the catalog knows which.
 */
export async function adoptTable({ destination, source, fence, spec, identity, schema, tables, removedTables }: Adoption): Promise<Adopted> {
  if (schema.schema !== spec.schemaName || identity === null || isRemoved({ removedTables }, schema)) return { record: null, others: [], warning: null }
  const target = targetNameOf(spec, schema)
  const live = tables.filter(({ oid, state }) => state !== 'removed' && oid !== schema.oid)
  const isTaken = live.some((other) => tableKey(other.target).toLowerCase() === tableKey(target).toLowerCase())
  const looked = await source.look(isTaken ? live.map(({ oid }) => oid) : [], null)
  // Somebody's publication need not send what the input asks for.
  const { operations } = looked
  if (publishesOldRows(operations) && !hasIdentity(schema)) {
    const { message, remedy } = identityFailure([schema], { name: spec.publicationName })
    return { record: null, others: [], warning: `${stayingOut(schema)}${reportText({ message, remedy: remedy ?? '' })}` }
  }
  const seen = isTaken ? looked : null
  const names = new Map((seen?.tables ?? []).map((table) => [table.oid, table]))
  const followed = await followNames(destination, fence, { spec, records: live, names })
  const registration: Registration = {
    identity,
    publicationName: spec.publicationName,
    appliedLsn: ZERO_LSN,
    replacesPosition: false,
    gone: new Set(seen === null ? [] : live.filter(({ oid }) => !names.has(oid)).map(({ oid }) => oid)),
    tables: [
      {
        source: schema,
        target,
        ...shapingOf(spec, [typeof spec.writeMode === 'string' ? spec.writeMode : defaultWriteMode(spec.publish)]),
        hints: {},
        hasColumnList: false,
        ...rowsOf(spec, operations),
        initialState: spec.snapshotMode === 'never' ? 'streaming' : 'pending',
      },
    ],
  }
  try {
    const [record, ...displaced] = await destination.register(fence, registration)
    return { record: record ?? null, others: [...followed.records, ...displaced], warning: followed.warnings[0] ?? null }
  } catch (error) {
    // What the destination refuses concerns this table alone.
    if (!(error instanceof DomainError) || error.kind !== 'InvalidInput') throw error
    return { record: null, others: followed.records, warning: `${stayingOut(schema)}${reportText(error)}` }
  }
}

/** Adds a newcomer's warning to what is warned of, or takes out why it stayed out. */
export function noteAdoption(warned: Set<string>, table: TableName, warning: string | null): void {
  for (const text of warned) if (text.startsWith(stayingOut(table))) warned.delete(text)
  if (warning !== null) warned.add(warning)
}

/** What holds of a table's rows that are taken over as the input wants it. */
function rowsOf({ snapshotMode }: RegisteredSpec, published: readonly PublishedOperation[]): CopiedRows {
  return snapshotMode === 'never' ? { isPartial: true, mayRepeat: true } : rowsCopiedUnder(published)
}
