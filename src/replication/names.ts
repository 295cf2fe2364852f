import type { Batch } from '../model/destination.ts'
import type { DomainError } from '../model/errors.ts'
import type { CatalogLook } from '../model/source.ts'
import type { ReplicationSpec } from '../model/spec.ts'
import { tableKey, type TableName } from '../model/table-schema.ts'
import { type ApprovalOptions, isAllowed, refusalOf, type SourceChange } from './schema-approval.ts'
import type { TableRuntime } from './table-runtime.ts'

export function sameTable(a: TableName, b: TableName): boolean {
  return a.schema === b.schema && a.name === b.name
}

/** Where a source table lands. */
export function targetNameOf(spec: Pick<ReplicationSpec, 'datasetName'>, source: TableName): TableName {
  return { schema: spec.datasetName ?? source.schema, name: source.name }
}

/** How a table is called now, and who is told of it. */
export interface NameChange {
  readonly spec: ReplicationSpec
  readonly name: TableName
  readonly warn: (warning: string) => void
  /** See {@link judgeRename}. */
  readonly refusal: DomainError | null
}

/** Why a table must not be followed to its new name; null = it may be. */
export async function judgeRename(approval: ApprovalOptions & { readonly spec: ReplicationSpec }, table: TableRuntime, name: TableName): Promise<DomainError | null> {
  const source = { schema: name.schema, name: name.name }
  const change: SourceChange = { tag: 'rename', names: { source, target: targetNameOf(approval.spec, source) } }
  return isAllowed(approval.spec, change, (fingerprint) => table.takeApproval(fingerprint)) ? null : refusalOf(approval, table.record, change)
}

/** Follows a table to its new name in the batch that is being filled; where it must not be followed, the table stops. */
export function stageRename(batch: Batch, table: TableRuntime, { spec, name, warn, refusal }: NameChange): void {
  if (refusal !== null) {
    batch.fail(table.batchTable, refusal)
    return
  }
  const before = tableKey(table.name)
  const now = tableKey(name)
  const source = { schema: name.schema, name: name.name }
  batch.rename(table.batchTable, { source, target: targetNameOf(spec, source) })
  table.name = source
  if (before !== now) warn(`${before} is named ${now} at the source now; it is followed`)
}

/**
 * Follows a table of the stream to its new name. Another table of ours may have that name still: the catalog knows what became of it, and it
 * is followed in the same transaction, so that two tables may change names.
 */
export async function followName(
  change: Omit<NameChange, 'refusal'> & {
    readonly table: TableRuntime
    readonly tables: ReadonlyMap<number, TableRuntime>
    readonly destination: ApprovalOptions['destination']
    readonly look: (oids: readonly number[]) => Promise<CatalogLook>
  },
  batchOf: () => Batch,
): Promise<void> {
  const { table, tables, spec, look } = change
  const target = targetNameOf(spec, change.name)
  const others = [...tables.values()].filter((other) => other !== table && other.record.state !== 'removed')
  const isTaken = others.some(({ record }) => tableKey(record.target).toLowerCase() === tableKey(target).toLowerCase())
  const seen = isTaken ? new Map((await look(others.map(({ record }) => record.oid))).tables.map((other) => [other.oid, other])) : null
  const refusal = await judgeRename(change, table, change.name)
  const renamed = others.flatMap((other) => {
    const now = seen?.get(other.record.oid)
    return now === undefined || other.record.state === 'failed' || sameTable(other.name, now) ? [] : [{ other, now }]
  })
  const judged = await Promise.all(renamed.map(async ({ other, now }) => ({ other, name: now, refusal: await judgeRename(change, other, now) })))
  const batch = batchOf()
  stageRename(batch, table, { ...change, refusal })
  if (seen === null) return
  for (const other of others) {
    // Whatever it wrote before it was dropped stands before this place.
    if (seen.has(other.record.oid) || !sameTable(other.name, change.name)) continue
    batch.remove(other.batchTable, 'dropped')
    other.leave()
    change.warn(`${tableKey(change.name)} was dropped at the source and another table has its name: that one's rows replace its`)
  }
  for (const { other, ...present } of judged) stageRename(batch, other, { ...change, ...present })
}
