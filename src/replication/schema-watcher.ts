import type { Relation } from '../model/change.ts'
import type { ColumnsChange, Destination, TableRecord } from '../model/destination.ts'
import type { Source } from '../model/source.ts'
import { isAppendOnly, keepsPast } from '../model/shapes.ts'
import type { ReplicationSpec } from '../model/spec.ts'
import { tableKey, type TableSchema } from '../model/table-schema.ts'
import { diffByName, diffColumns, hasShape, isInPlace, isNoChange, replicatedShape } from '../pipeline/schema-diff.ts'
import { hasUnsentValues, isRewritten } from '../pipeline/storage-diff.ts'
import { followName } from './names.ts'
import { isAllowed, refusalOf, type SourceChange } from './schema-approval.ts'
import type { StreamConsumer } from './stream-consumer.ts'
import { TableRuntime } from './table-runtime.ts'

export interface SchemaWatcherOptions {
  readonly spec: ReplicationSpec
  readonly source: Source
  readonly destination: Destination
  /** All tables, where names are followed; null = they are not. */
  readonly tables: ReadonlyMap<number, TableRuntime> | null
  readonly adoptTable: (schema: TableSchema) => Promise<TableRecord | null>
  readonly warn: (warning: string) => void
  /** A table was followed to a name of the stream, which may be behind the catalog. */
  readonly onRename: () => void
}

/** A Relation message that is not as known, the table that it is of (undefined = a new one), and where its changes are staged. */
export interface RelationChange {
  readonly relation: Relation
  readonly table: TableRuntime | undefined
  readonly consumer: StreamConsumer
}

/**
 * Answers to Relation messages that are not as known. Columns that were added (without a value for old rows, or with one that the catalog keeps),
 * renamed or dropped are followed at their place in the stream, told by the catalog's attribute numbers. What neither tells (a default
 * that was computed for each row, another type, another key, two changes at once) is made right by copying the table anew in its new shape, swapped in
 * at once; an `append` table keeps its history and goes on in place. Where changes are refused, or wait for approval, the table stops instead.
 */
export class SchemaWatcher {
  readonly #options: SchemaWatcherOptions
  /** By table that is none of ours, or could not join: what was last sent of its shape. PostgreSQL does not say it again when the table joins. */
  readonly #ignored = new Map<number, Relation>()
  #pending = 0

  constructor(options: SchemaWatcherOptions) {
    this.#options = options
  }

  /** True while the catalog is asked. */
  get isBusy(): boolean {
    return this.#pending > 0
  }

  /** Is there anything to find out about this message? */
  concerns(relation: Relation, table: TableRuntime | undefined): boolean {
    if (table !== undefined && table.record.state !== 'removed') return table.record.state !== 'failed'
    // A table that left the whole schema may have come back.
    if (this.#ignored.has(relation.oid)) this.#ignored.set(relation.oid, relation)
    return this.#options.spec.tableNames === null && !this.#ignored.has(relation.oid)
  }

  /** Asks the catalog and stages the change. Returns a table that joins the replication, or null. */
  async resolve({ relation, table, consumer }: RelationChange): Promise<TableRuntime | null> {
    this.#pending++
    try {
      const { source, destination, spec, tables, warn } = this.#options
      if (table !== undefined && table.record.state !== 'removed') {
        if (tables !== null && !table.isNamed(relation)) {
          this.#options.onRename()
          await followName({ spec, destination, tables, warn, name: relation, table, look: async (oids) => source.look(oids, null) }, () => consumer.batch)
        }
        if (table.takeRelation(relation)) return null
      }
      const [schema] = await source.describeTables([relation.oid])
      if (table === undefined || table.record.state === 'removed') return await this.#adopt(relation, schema)
      // Gone from the catalog or the publication since: what comes of it until then still fits the old shape or is of no account.
      if (schema === undefined) {
        warn(`${tableKey(table.name)} is not in the publication any more, or was dropped`)
        return null
      }
      await this.#change(table, schema, { relation, consumer })
      return null
    } finally {
      this.#pending--
    }
  }

  async #adopt(relation: Relation, schema: TableSchema | undefined): Promise<TableRuntime | null> {
    const record = schema === undefined ? null : await this.#options.adoptTable(schema)
    if (record === null) {
      this.#ignored.set(relation.oid, relation)
      return null
    }
    return joinedBy(record, relation)
  }

  /** Lets tables join that have not changed yet, or could not when they did. */
  async adopt(oids: readonly number[]): Promise<readonly TableRuntime[]> {
    const schemas = await this.#options.source.describeTables(oids)
    const joined: TableRuntime[] = []
    for (const schema of schemas) {
      const record = await this.#options.adoptTable(schema)
      if (record === null) continue
      joined.push(joinedBy(record, this.#ignored.get(schema.oid)))
      this.#ignored.delete(schema.oid)
    }
    return joined
  }

  /** The table stops at this place: the change is refused, or waits for approval. */
  async #stop({ batchTable }: TableRuntime, consumer: StreamConsumer, change: SourceChange): Promise<void> {
    const { record, columns, key } = batchTable
    const refusal = await refusalOf(this.#options, { ...record, columns, key }, change)
    consumer.batch.fail(batchTable, refusal)
  }

  async #change(table: TableRuntime, schema: TableSchema, at: Pick<RelationChange, 'relation' | 'consumer'>): Promise<void> {
    const { spec } = this.#options
    const { relation, consumer } = at
    const { batchTable, record } = table
    const take = (fingerprint: string): boolean => table.takeApproval(fingerprint)
    const isAppend = isAppendOnly(record)
    const isPastCopy = table.isPastCopy(consumer.transaction)
    const shape = replicatedShape(record, schema)
    const hasKnownShape = (): boolean => hasShape(shape, { columns: batchTable.columns.filter(({ isDropped }) => !isDropped), key: batchTable.key }, record.hasColumnList)
    // The copy sees the catalog's shape, and with it everything that comes in an earlier one.
    if (!isPastCopy && hasKnownShape()) {
      table.takeRelationByName(relation)
      return
    }
    const known = { columns: batchTable.columns, key: batchTable.key, gone: table.goneColumns }
    const resolved = diffColumns(known, relation.columns, schema)
    const change = isAppend ? (resolved ?? diffByName(known, relation.columns, schema)) : resolved
    if (change !== null && isPastCopy && (isAppend || (isInPlace(change, known, keepsPast(record)) && !isMoreThanSaid(change, record, schema)))) {
      if (!isNoChange(change, known)) {
        const step: SourceChange = { tag: 'alter', relation, change }
        if (!isAllowed(spec, step, take)) return this.#stop(table, consumer, step)
        consumer.batch.alterColumns(batchTable, change)
      }
      const isTaken = table.takeRelation(relation, true)
      if (isAppend && !isTaken) table.takeRelationByName(relation)
      if (isAppend || isTaken) return
    }
    const step: SourceChange = { tag: 'copy', schema: shape }
    // Rows that were written anew under the same columns are no change of the schema.
    if (!hasKnownShape() && !isAllowed(spec, step, take)) return this.#stop(table, consumer, step)
    if (consumer.transaction !== null) table.mustSee(consumer.transaction.xid)
    table.takeRelationByName(relation)
    table.replaceSchema(consumer.batch, schema)
    this.#options.warn(`the columns of ${tableKey(table.name)} have changed: it is copied again in its new shape`)
  }
}

/** A table that joins; its copy sees what came in another shape than the present one. */
function joinedBy(record: TableRecord, relation: Relation | undefined): TableRuntime {
  const table = new TableRuntime(record)
  if (relation !== undefined && !table.takeRelation(relation)) table.takeRelationByName(relation)
  return table
}

/** Has a change of a type written the rows anew, or have they values in a new column that were not sent? Not known is taken for it. */
function isMoreThanSaid({ retyped, added }: ColumnsChange, record: TableRecord, { storage: now }: TableSchema): boolean {
  if (retyped.length === 0 && added.length === 0) return false
  if (record.storage === null || now === undefined) return retyped.length > 0
  return (retyped.length > 0 && isRewritten(record.storage, now)) || hasUnsentValues(record, now)
}
