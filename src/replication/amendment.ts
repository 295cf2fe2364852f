import type { KnownTable, PipelineState, TableAmendment, TableRecord } from '../model/destination.ts'
import type { ReplicationSpec } from '../model/spec.ts'
import { tableKey } from '../model/table-schema.ts'

type InputTables = Pick<ReplicationSpec, 'schemaName' | 'tableNames'>

/**
 * What updates have changed of the tables that the input means; nothing where the input means others than the one that they were sent to.
 * So a start with the same input keeps what they did, and one with other `tableNames` is the newer word.
 */
export function amendmentOf(spec: InputTables, state: Pick<PipelineState, 'amendment'> | null): TableAmendment {
  const { schemaName, tableNames } = spec
  const { amendment } = state ?? { amendment: null }
  return amendment !== null && wordOf(amendment) === wordOf(spec) ? amendment : { schemaName, tableNames, added: [], removed: [] }
}

function wordOf({ schemaName, tableNames }: InputTables): string {
  return JSON.stringify([schemaName, tableNames?.toSorted() ?? null])
}

/** The tables are replicated from now on. */
export function withAdded(amendment: TableAmendment, tables: readonly KnownTable[]): TableAmendment {
  return {
    ...amendment,
    added: [...without(amendment.added, tables), ...tables.map(namesOnly)],
    removed: without(amendment.removed, tables),
  }
}

/** The tables are not replicated any more. */
export function withRemoved(amendment: TableAmendment, tables: readonly KnownTable[]): TableAmendment {
  return {
    ...amendment,
    added: without(amendment.added, tables),
    removed: [...without(amendment.removed, tables), ...tables.map(namesOnly)],
  }
}

/** A removed table's record, under all its names: the input may have a former one. */
export function namesOf({ oid, source, formerNames }: TableRecord): readonly KnownTable[] {
  return [source, ...(formerNames ?? [])].map((name) => ({ ...name, oid }))
}

function without(tables: readonly KnownTable[], taken: readonly KnownTable[]): readonly KnownTable[] {
  return tables.filter((table) => !taken.some((other) => other.oid === table.oid || tableKey(other) === tableKey(table)))
}

function namesOnly({ schema, name, oid }: KnownTable): KnownTable {
  return { schema, name, oid }
}
