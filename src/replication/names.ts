import type { Batch } from '../model/destination.ts'
import { DomainError } from '../model/errors.ts'
import type { CatalogLook } from '../model/source.ts'
import type { ReplicationSpec } from '../model/spec.ts'
import { tableKey, type TableName } from '../model/table-schema.ts'
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
}

/** Follows a table to its new name in the batch that is being filled; where schema changes are refused the table stops. */
export function stageRename(batch: Batch, table: TableRuntime, { spec, name, warn }: NameChange): void {
  const before = tableKey(table.name)
  const now = tableKey(name)
  if (spec.schemaChanges === 'refuse') {
    const error = new DomainError({
      kind: 'SchemaChangeRefused',
      message: `${before} is named ${now} at the source now, and schemaChanges is "refuse"`,
      remedy: 'Let schemaChanges be "apply": by the update setOptions, or by a stop and a start. The table is followed to its new name.',
    })
    batch.fail(table.batchTable, error)
    return
  }
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
  change: NameChange & { readonly table: TableRuntime; readonly tables: ReadonlyMap<number, TableRuntime>; readonly look: (oids: readonly number[]) => Promise<CatalogLook> },
  batchOf: () => Batch,
): Promise<void> {
  const { table, tables, spec, look } = change
  const target = targetNameOf(spec, change.name)
  const others = [...tables.values()].filter((other) => other !== table && other.record.state !== 'removed')
  const isTaken = others.some(({ record }) => tableKey(record.target).toLowerCase() === tableKey(target).toLowerCase())
  const seen = isTaken ? new Map((await look(others.map(({ record }) => record.oid))).tables.map((other) => [other.oid, other])) : null
  const batch = batchOf()
  stageRename(batch, table, change)
  if (seen === null) return
  for (const other of others) {
    const now = seen.get(other.record.oid)
    // Whatever it wrote before it was dropped stands before this place.
    if (now === undefined && sameTable(other.name, change.name)) {
      batch.remove(other.batchTable, 'dropped')
      other.leave()
      change.warn(`${tableKey(change.name)} was dropped at the source and another table has its name: that one's rows replace its`)
    } else if (now !== undefined && other.record.state !== 'failed' && !sameTable(other.name, now)) stageRename(batch, other, { ...change, name: now })
  }
}
