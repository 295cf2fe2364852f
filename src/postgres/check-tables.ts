import { remedyText } from '../model/remedy.ts'
import type { PublishedOperation } from '../model/spec.ts'
import { tableKey, type TableName } from '../model/table-schema.ts'
import type { CatalogTable } from './catalog.ts'
import { failureFinding, listNames, okFinding, warningFinding, type PreflightFinding } from './findings.ts'
import type { PublicationState } from './publication.ts'
import { quoteIdentifier, quoteTable } from './sql.ts'
import { findCaseConflicts, nearMissRemedy } from './table-names.ts'

export interface TableCheckInput {
  /** Requested tables, with all their columns. */
  readonly tables: readonly CatalogTable[]
  /** Leaf partitions by the oid of a requested root. */
  readonly leaves: ReadonlyMap<number, readonly CatalogTable[]>
  /** By `schema.table`. */
  readonly includeColumns: ReadonlyMap<string, readonly string[]>
  /** What the publication publishes, or will. */
  readonly operations: readonly PublishedOperation[]
  /** As it is; null where it has to be made. */
  readonly publication: PublicationState | null
}

/** What a table must be like: identity, partitions, names of its columns. */
export function checkTables(input: TableCheckInput): PreflightFinding[] {
  return [checkIdentity(input), ...checkLeaves(input), ...checkPartitionRoots(input), ...checkColumnNames(input)]
}

/** Are operations published that name rows as they were? */
export function publishesOldRows(operations: readonly PublishedOperation[]): boolean {
  return operations.includes('update') || operations.includes('delete')
}

/**
 * PostgreSQL refuses the owner's UPDATE and DELETE on a table without replica identity as soon as it is published with those.
 *
 * Source: https://www.postgresql.org/docs/current/logical-replication-publication.html#LOGICAL-REPLICATION-PUBLICATION-REPLICA-IDENTITY
 */
function checkIdentity(input: TableCheckInput): PreflightFinding {
  const name = 'replica identity'
  if (!publishesOldRows(input.operations)) return okFinding(name, 'not needed: neither updates nor deletes are published')
  const without = input.tables.filter((table) => !table.hasIdentity)
  if (without.length === 0) return okFinding(name, 'every table has one')
  return identityFailure(without, input.publication)
}

/** What is wrong with tables whose updates and deletes are published, and which have nothing that tells their rows. */
export function identityFailure(tables: readonly TableName[], publication: Pick<PublicationState, 'name'> | null): PreflightFinding {
  const insertOnly =
    publication === null
      ? 'Or publish inserts only ("publish": "insert").'
      : remedyText('Or, if nobody wants updates and deletes of any of its tables, let the publication publish inserts only:', [`ALTER PUBLICATION ${quoteIdentifier(publication.name)} SET (publish = 'insert')`])
  return failureFinding({
    name: 'replica identity',
    kind: 'TableNotReplicable',
    message: `updates and deletes are published, and no primary key or replica identity tells their rows: ${listNames(tables.map(tableKey))}`,
    advice: `Give an identity, best a primary key, else the whole old row (below).\n${insertOnly}\nThe whole old row:`,
    sql: tables.map((table) => `ALTER TABLE ${quoteTable(table)} REPLICA IDENTITY FULL`),
  })
}

/**
 * Changes of a partition come as the root's, with the old columns that the partition's own identity wrote: each must write at least what
 * the root's identity promises, or keys would come as NULL.
 */
function checkLeaves(input: TableCheckInput): PreflightFinding[] {
  if (!publishesOldRows(input.operations)) return []
  const findings: PreflightFinding[] = []
  for (const root of input.tables) {
    const leaves = input.leaves.get(root.oid) ?? []
    const poor = leaves.filter((leaf) => {
      if (!leaf.hasIdentity) return true
      if (leaf.replicaIdentity === 'full') return false
      return root.replicaIdentity === 'full' || !root.key.every((column) => leaf.identityColumns.includes(column))
    })
    if (!root.hasIdentity || poor.length === 0) continue
    findings.push(
      failureFinding({
        name: 'replica identity',
        kind: 'TableNotReplicable',
        message: `partitions of ${JSON.stringify(tableKey(root))} have a lesser replica identity than it: ${listNames(poor.map(tableKey))}`,
        advice: 'Give each the identity of the root, or the whole old row:',
        sql: poor.map((leaf) => `ALTER TABLE ${quoteTable(leaf)} REPLICA IDENTITY FULL`),
      }),
    )
  }
  return findings
}

/** A publication of somebody's that sends partitions as themselves would send nothing under the root's name. */
function checkPartitionRoots(input: TableCheckInput): PreflightFinding[] {
  const { publication } = input
  const roots = input.tables.filter((table) => table.isPartitioned === true)
  if (publication === null || publication.isViaPartitionRoot || roots.length === 0) return []
  return [
    failureFinding({
      name: 'publication',
      kind: 'TableNotReplicable',
      message: `publication ${JSON.stringify(publication.name)} sends partitions as themselves, not as ${listNames(roots.map(tableKey))}`,
      advice: 'As its owner:',
      sql: [`ALTER PUBLICATION ${quoteIdentifier(publication.name)} SET (publish_via_partition_root = true)`],
    }),
  ]
}

/** Are the columns that `includeColumns` names there, and do no two differ only in case? */
export function checkColumnNames(input: Pick<TableCheckInput, 'tables' | 'includeColumns'>): PreflightFinding[] {
  const name = 'columns'
  const findings: PreflightFinding[] = []
  for (const table of input.tables) {
    const key = tableKey(table)
    const names = table.columns.map((column) => column.name)
    const include = input.includeColumns.get(key)
    for (const column of include ?? []) {
      if (names.includes(column)) continue
      findings.push(
        failureFinding({
          name,
          kind: 'InvalidInput',
          message: `includeColumns names ${JSON.stringify(column)}, which table ${JSON.stringify(key)} does not have`,
          advice: nearMissRemedy(column, names),
        }),
      )
    }
    const kept = include === undefined ? names : names.filter((column) => include.includes(column) || table.key.includes(column))
    for (const group of findCaseConflicts(kept)) {
      findings.push(
        failureFinding({
          name,
          kind: 'InvalidInput',
          message: `columns of table ${JSON.stringify(key)} differ only in case: ${group.map((column) => JSON.stringify(column)).join(', ')}`,
          advice: 'A destination cannot hold both: rename one at the source, or leave one out with includeColumns.',
        }),
      )
    }
    if (kept.length === 0) findings.push(warningFinding(name, `table ${JSON.stringify(key)} has no columns`))
  }
  return findings.length === 0 ? [okFinding(name, 'their names are usable')] : findings
}
