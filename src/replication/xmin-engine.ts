import { XMIN_PIPELINE, type Destination, type Fence, type PipelineKey, type PipelineState, type TableRecord, type XminProgress } from '../model/destination.ts'
import { DomainError } from '../model/errors.ts'
import { ZERO_LSN } from '../model/lsn.ts'
import type { OperationContext, XminRequest, XminResult } from '../model/replication.ts'
import type { SourceIdentity } from '../model/source.ts'
import { OPERATIONS, type XminSpec } from '../model/spec.ts'
import { tableKey } from '../model/table-schema.ts'
import { differentSource } from '../postgres/check-identity.ts'
import type { SourceCredentials } from '../postgres/credentials.ts'
import { createSource } from '../postgres/source.ts'
import { inspectForXmin, type XminInspection } from '../postgres/xmin-inspection.ts'
import { sameTable, targetNameOf } from './names.ts'
import { fenceOf, requireOwner } from './owner.ts'
import { knownNames } from './named-tables.ts'
import { registrationsOf } from './registration.ts'
import type { Destinations } from './served-elsewhere.ts'
import { XminSync } from './xmin-sync.ts'

/** What `syncByXmin` needs of the composition. */
export interface XminDependencies extends Destinations {
  readonly credentialsOf: (sourceName: string) => SourceCredentials
}

/**
 * One call of a run of `syncByXmin`: checks (nothing changed) → claim → tables as they are named and meant now → {@link XminSync}. The tables of one
 * source in one destination are one pipeline, whichever of them a run names: two runs at once are refused.
 */
export async function syncByXmin(dependencies: XminDependencies, { spec, runId, maxMs }: XminRequest, context: OperationContext): Promise<XminResult> {
  const key = { source: spec.source, slotName: XMIN_PIPELINE }
  const credentials = dependencies.credentialsOf(spec.source)
  // A first look with nothing created at all.
  if (!dependencies.hasDestination(spec.destination)) await inspectForXmin(credentials, spec)
  const destination = await dependencies.openDestination(spec.destination)
  const source = createSource(credentials, null)
  try {
    const before = await destination.loadPipeline(key)
    await requireOwner(before, context)
    const found = await inspectForXmin(credentials, { ...spec, knownTables: knownNames(before?.tables ?? []) })
    const run: Run = { destination, spec, runId, found }
    await check(run, key, before)
    const state = await destination.claim(key, context.owner, before?.owner ?? null)
    const fence = fenceOf(key, state)
    const { records, warnings } = await register(run, fence, state)
    const sync = new XminSync({ source, destination, fence, spec, runId, context, endsAtMs: performance.now() + maxMs, identity: identityOf(found.identity) })
    const result = await sync.run(records)
    if (result.ended === 'done') await destination.release(key, context.owner)
    return { ...result, warnings: [...deleteWarnings(spec), ...found.warnings, ...warnings, ...result.warnings] }
  } finally {
    await source.close()
    await destination.close()
  }
}

interface Run {
  readonly destination: Destination
  readonly spec: XminSpec
  readonly runId: string
  readonly found: XminInspection
}

/** Names of source and destination need not be resolved. */
interface Reading {
  readonly spec: Omit<XminSpec, 'source' | 'destination'>
  readonly found: XminInspection
}

function deleteWarnings({ deletes }: XminSpec): readonly string[] {
  if (deletes === 'compare') return []
  return ['deletes are not seen, nor the old keys of rows whose key has changed: their rows stay in the destination; "deletes": "compare" finds them by comparing all keys']
}

/** What the destination or the watermarks would refuse is refused before anything is changed. */
async function check({ destination, spec, runId, found }: Run, key: PipelineKey, before: PipelineState | null): Promise<void> {
  const known = before?.tables ?? []
  const error = otherSource({ spec, runId, found }, known)
  if (error !== null) throw error
  await destination.check(key, xminRegistrations({ spec, found }, known), { startsAnew: spec.reset })
}

/** `DifferentSource` where watermarks of the tables that this run reads count in another source; null where they do not. */
export function otherSource({ spec, runId, found }: Reading & Pick<Run, 'runId'>, known: readonly TableRecord[]): DomainError | null {
  for (const { oid, state, xmin } of known) {
    if (state === 'removed' || xmin === undefined || !found.tables.some((table) => table.oid === oid) || isToReset(spec, runId, xmin)) continue
    const error = differentSource({ ...xmin.identity, serverVersion: 0 }, found.identity)
    if (error === null) continue
    const remedy = 'Connect to the former source. Or, where this one has taken its place (restored, promoted, upgraded), run it with "reset": true to copy everything from this one: its transaction ids say nothing of those before.'
    return new DomainError({ kind: error.kind, message: error.message, remedy })
  }
  return null
}

function isToReset({ reset }: Pick<XminSpec, 'reset'>, runId: string, xmin: XminProgress | undefined): boolean {
  return reset && xmin?.run.id !== runId
}

/** The tables as they would be registered. Throws `InvalidInput` for names and hints that mean nothing. */
export function xminRegistrations({ spec, found }: Reading, known: readonly TableRecord[]): ReturnType<typeof registrationsOf> {
  return registrationsOf({ ...spec, publish: OPERATIONS, deleteMode: 'hard', snapshotMode: 'initial' }, { tables: found.tables, scope: found.scope, publishedOperations: OPERATIONS }, known)
}

/**
 * Brings the destination's records to what the source has: tables to be reset go, renamed ones are followed, dropped ones are let go of. Tables that
 * this run does not name stay as they are.
 */
async function register(run: Run, fence: Fence, state: PipelineState): Promise<{ readonly records: readonly TableRecord[]; readonly warnings: readonly string[] }> {
  const { destination, spec, runId, found } = run
  const now = new Map(found.tables.map((table) => [table.oid, table]))
  const live = state.tables.filter((table) => table.state !== 'removed')
  const isMeant = ({ oid, source }: TableRecord): boolean => now.has(oid) || (spec.tableNames === null && source.schema === spec.schemaName)
  const reset = live.filter((table) => isMeant(table) && isToReset(spec, runId, table.xmin))
  if (reset.length > 0) await destination.dropTables(fence, reset)
  const kept = live.filter((table) => !reset.includes(table))

  const warnings: string[] = []
  for (const table of kept.filter((record) => isMeant(record) && !found.relations.has(record.oid))) {
    await destination.removeTable(fence, table, 'dropped')
    warnings.push(`${tableKey(table.source)} was dropped at the source: its rows stay here`)
  }
  const renamings = kept.flatMap((record) => {
    const name = now.get(record.oid)
    // Where changes are refused the table stops.
    if (name === undefined || sameTable(record.source, name) || spec.schemaChanges === 'refuse') return []
    const source = { schema: name.schema, name: name.name }
    return [{ record, names: { source, target: targetNameOf(spec, source) } }]
  })
  if (renamings.length > 0) await destination.renameTables(fence, renamings)
  for (const { record, names } of renamings) warnings.push(`${tableKey(record.source)} is named ${tableKey(names.source)} at the source now; it is followed`)

  const registered = await destination.register(fence, {
    identity: found.identity,
    publicationName: '',
    appliedLsn: ZERO_LSN,
    replacesPosition: false,
    tables: xminRegistrations(run, state.tables),
    gone: new Set(kept.filter(({ oid }) => !found.relations.has(oid)).map(({ oid }) => oid)),
  })
  const records = registered.filter(({ oid }) => now.has(oid)).map((record) => begun(record, run))
  await destination.saveTables(fence, records)
  return { records, warnings }
}

/** The table as this run takes it up. */
function begun(record: TableRecord, { runId, found }: Run): TableRecord {
  const { xmin } = record
  if (xmin === undefined) return { ...record, xmin: { watermark: null, identity: identityOf(found.identity), run: { id: runId, rows: 0 }, plannedBy: null } }
  return { ...record, xmin: { ...xmin, run: xmin.run.id === runId ? xmin.run : { id: runId, rows: 0 } } }
}

function identityOf({ systemIdentifier, timeline, databaseName }: SourceIdentity): XminProgress['identity'] {
  return { systemIdentifier, timeline, databaseName }
}
