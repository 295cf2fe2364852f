import { createHash } from 'node:crypto'
import type { Relation } from '../model/change.ts'
import type { ColumnsChange, Destination, ForeseenChange, SchemaApproval, TableNames, TableRecord } from '../model/destination.ts'
import { DomainError } from '../model/errors.ts'
import type { ReplicationSpec } from '../model/spec.ts'
import { type ReplicaIdentity, type SourceColumn, tableKey, type TableName, type TableSchema } from '../model/table-schema.ts'
import { diffColumns, hasShape } from '../pipeline/schema-diff.ts'

/** More would be no easier to judge. */
const MAX_STATEMENTS = 20

/** Who judges changes. */
export interface ApprovalOptions {
  readonly spec: Pick<ReplicationSpec, 'schemaChanges'>
  readonly destination: Pick<Destination, 'foresee'>
}

/** A change of a table at the source that is to be made at the destination. */
export type SourceChange =
  | { readonly tag: 'alter'; readonly relation: Relation; readonly change: ColumnsChange }
  | { readonly tag: 'copy'; readonly schema: TableSchema }
  | { readonly tag: 'rename'; readonly names: TableNames }

/** A change that waits for an operator's word (`schemaChanges: "ask"`). */
export class PendingSchemaChange extends DomainError {
  readonly fingerprint: string

  constructor(name: string, fingerprint: string, shown: string) {
    super({
      kind: 'SchemaChangeRefused',
      message: `${name} has changed at the source and waits for approval (schemaChanges is "ask"): ${shown}`,
      remedy:
        `Approve it by the update approveSchemaChange {"table": ${JSON.stringify(name)}} of replicate (cli approve --table). ` +
        'Else leave the table as it is, take it out (removeTables), or change it back at the source and let it go on (retryFailed).',
    })
    this.fingerprint = fingerprint
  }
}

export function schemaChangeRefused(name: string): DomainError {
  return new DomainError({
    kind: 'SchemaChangeRefused',
    message: `the columns of ${name} have changed at the source, and schemaChanges is "refuse"`,
    remedy: 'Let schemaChanges be "apply": by the update setOptions, or by a stop and a start.',
  })
}

function nameChangeRefused(before: string, now: string): DomainError {
  return new DomainError({
    kind: 'SchemaChangeRefused',
    message: `${before} is named ${now} at the source now, and schemaChanges is "refuse"`,
    remedy: 'Let schemaChanges be "apply": by the update setOptions, or by a stop and a start. The table is followed to its new name.',
  })
}

/** May a change be made: may all, or has this one been approved? `take` uses the approval of a fingerprint up, where there is one. */
export function isAllowed({ schemaChanges }: Pick<ReplicationSpec, 'schemaChanges'>, change: SourceChange, take: (fingerprint: string) => boolean): boolean {
  return schemaChanges === 'apply' || (schemaChanges === 'ask' && take(fingerprintOf(change)))
}

/** Why a change that is not allowed is not made. `record` has the columns that are known at the place of the change. */
export async function refusalOf({ spec, destination }: ApprovalOptions, record: TableRecord, change: SourceChange): Promise<DomainError> {
  const name = tableKey(record.source)
  if (spec.schemaChanges !== 'ask') return change.tag === 'rename' ? nameChangeRefused(name, tableKey(change.names.source)) : schemaChangeRefused(name)
  const { statements, rowCount } = await destination.foresee(record, foreseen(change))
  const shown = statements.slice(0, MAX_STATEMENTS).map((statement) => `${statement};`)
  const more = statements.length - shown.length
  const work = [
    ...(change.tag === 'copy' ? [`The table is copied anew beside the rows that are there and swapped in at once: about ${String(rowCount)} rows.`] : shown),
    ...(more > 0 ? [`and ${String(more)} more statements`] : []),
    ...(change.tag === 'copy' ? [] : [shown.length === 0 ? 'Nothing is run at the destination.' : `Rows touched: ${String(rowCount)}.`]),
  ]
  return new PendingSchemaChange(name, fingerprintOf(change), [`${describe(record, change)}.`, ...work].join('\n'))
}

function foreseen(change: SourceChange): ForeseenChange {
  switch (change.tag) {
    case 'alter':
      return { tag: 'alter', change: change.change }
    case 'rename':
      return { tag: 'rename', names: change.names }
    case 'copy':
      return { tag: 'copy' }
    default:
      return change satisfies never
  }
}

/** What tells one change from another: the same whether a message of the stream or the catalog tells of it. */
export function fingerprintOf(change: SourceChange): string {
  switch (change.tag) {
    case 'alter':
      return shapeFingerprint({
        columns: change.relation.columns,
        identity: change.relation.replicaIdentity,
        key: change.relation.columns.filter(({ isKey }) => isKey).map(({ name }) => name),
      })
    case 'copy':
      return shapeFingerprint({ ...change.schema, identity: IDENTITY[change.schema.replicaIdentity] })
    case 'rename':
      return digest(['name', change.names.source.schema, change.names.source.name])
    default:
      return change satisfies never
  }
}

const IDENTITY: Readonly<Record<ReplicaIdentity, Relation['replicaIdentity']>> = { default: 'd', nothing: 'n', full: 'f', index: 'i' }

/** Under FULL a message marks every column as part of the key, and the catalog none or the primary key's. */
function shapeFingerprint(shape: { readonly columns: readonly Pick<SourceColumn, 'name' | 'typeOid' | 'typeModifier'>[]; readonly identity: Relation['replicaIdentity']; readonly key: readonly string[] }): string {
  const { columns, identity, key } = shape
  const told = columns.map(({ name, typeOid, typeModifier }) => [name, typeOid, typeModifier] as const).sort(([a], [b]) => (a < b ? -1 : 1))
  return digest(['shape', identity, identity === 'd' || identity === 'i' ? [...key].sort() : [], told])
}

function digest(value: unknown): string {
  return createHash('sha256').update(JSON.stringify(value)).digest('hex')
}

function describe(record: TableRecord, change: SourceChange): string {
  switch (change.tag) {
    case 'alter':
      return describeColumns(change.change, record.key)
    case 'rename':
      return `it is named ${tableKey(change.names.source)} now`
    case 'copy': {
      const sent = change.schema.columns.map((column) => ({ ...column, isKey: false }))
      const columns = diffColumns({ ...record, gone: change.schema.storage?.gone ?? [] }, sent, change.schema)
      return columns === null ? 'other columns have the names of known ones' : describeColumns(columns, record.key)
    }
    default:
      return change satisfies never
  }
}

function describeColumns({ added, dropped, renamed, retyped, key }: ColumnsChange, keyBefore: readonly string[]): string {
  const quoted = (names: readonly string[]): string => names.map((name) => JSON.stringify(name)).join(', ')
  const keyNow = keyBefore.map((name) => renamed.find(({ from }) => from === name)?.to ?? name)
  const parts = [
    ...(added.length === 0 ? [] : [`added ${added.map(({ name, typeName }) => `${JSON.stringify(name)} ${typeName}`).join(', ')}`]),
    ...(dropped.length === 0 ? [] : [`dropped ${quoted(dropped)}`]),
    ...renamed.map(({ from, to }) => `renamed ${JSON.stringify(from)} to ${JSON.stringify(to)}`),
    ...retyped.map(({ name, typeName }) => `${JSON.stringify(name)} has type ${typeName}`),
    ...(quoted(key.toSorted()) === quoted(keyNow.toSorted()) ? [] : [key.length === 0 ? 'no key any more' : `the key is ${quoted(key)}`]),
  ]
  return parts.length === 0 ? 'rows are identified otherwise' : `columns: ${parts.join('; ')}`
}

/**
 * What is noted of the approvals of a table that stops with `error`. While its kept changes are being applied it may meet several changes, one after
 * the other, and those that were approved are met again; else what was approved earlier is of no account.
 */
export function approvalOfStop({ approval, quarantine }: TableRecord, error: DomainError): Pick<TableRecord, 'approval'> {
  if (!(error instanceof PendingSchemaChange)) return {}
  return { approval: { pending: error.fingerprint, approved: quarantine === null ? [] : (approval?.approved ?? []) } }
}

/** Does it stand still until a change is approved? */
export function isPending({ state, approval }: Pick<TableRecord, 'state' | 'approval'>): boolean {
  return state === 'failed' && approval !== undefined && approval.pending !== null
}

/** The record with the change that waits approved. */
export function withApproval(record: TableRecord): TableRecord {
  const { approval } = record
  if (approval?.pending == null) return record
  return { ...record, approval: approved([...approval.approved.filter((fingerprint) => fingerprint !== approval.pending), approval.pending]) }
}

/** Whoever orders a fresh copy means the table as it is, in shape and name. */
export function approvedAsIs(record: TableRecord, schema: TableSchema): TableRecord {
  const source: TableName = { schema: schema.schema, name: schema.name }
  const changes: readonly SourceChange[] = [
    ...(hasShape(schema, { columns: record.columns.filter(({ isDropped }) => !isDropped), key: record.key }, record.hasColumnList) ? [] : [{ tag: 'copy', schema } as const]),
    ...(tableKey(source) === tableKey(record.source) ? [] : [{ tag: 'rename', names: { source, target: record.target } } as const]),
  ]
  return { ...record, approval: approved(changes.map(fingerprintOf)) }
}

/** The record once changes that were approved are made. */
export function withoutUsed(record: TableRecord, used: ReadonlySet<string>): TableRecord {
  if (record.approval === undefined || used.size === 0) return record
  return { ...record, approval: { ...record.approval, approved: record.approval.approved.filter((fingerprint) => !used.has(fingerprint)) } }
}

/** Nothing waits any more; what was approved may still have to be met. */
export function withoutPending(record: TableRecord): TableRecord {
  return record.approval === undefined ? record : { ...record, approval: approved(record.approval.approved) }
}

function approved(fingerprints: readonly string[]): SchemaApproval {
  return { pending: null, approved: fingerprints }
}
