import type { PublishedOperation } from './spec.ts'

/** The name of a source table: exact text, not SQL-quoted. */
export interface TableName {
  readonly schema: string
  readonly name: string
}

/** The key under which results and `status` show a table: `schema.table`. */
export function tableKey(table: TableName): string {
  return `${table.schema}.${table.name}`
}

/** The destination table that a reload fills, beside the one that it will replace. */
export function reloadName(target: TableName): TableName {
  return { schema: target.schema, name: `${target.name}__replication_copy` }
}

/** How a table's rows are identified in the stream; pg_class.relreplident. */
export type ReplicaIdentity = 'default' | 'nothing' | 'full' | 'index'

/** A column as the source's catalog gives it, in attribute order. Dropped columns are left out. */
export interface SourceColumn {
  readonly name: string
  /** pg_attribute.attnum: what stays when a column is renamed. */
  readonly attributeNumber: number
  readonly typeOid: number
  /** pg_attribute.atttypmod; −1 = none. */
  readonly typeModifier: number
  /** `format_type(oid, typmod)`: for people. */
  readonly typeName: string
  /** What the type mapping looks at: domains are followed to their base type, arrays carry their element. */
  readonly shape: TypeShape
  readonly isNotNull: boolean
  readonly isGenerated: boolean
  /** True where rows that were there before the column may have a value in it: a default, an identity, a generation expression. */
  readonly hasDefault: boolean
}

/** A type with domains resolved. `name` is pg_type.typname in pg_catalog, or null for a type of another schema. */
export type TypeShape =
  | { readonly tag: 'base'; readonly oid: number; readonly name: string | null; readonly typeModifier: number }
  | { readonly tag: 'enum'; readonly oid: number }
  | { readonly tag: 'array'; readonly oid: number; readonly element: TypeShape; readonly delimiter: string }
  | { readonly tag: 'other'; readonly oid: number }

/** A replicated table's shape, as init found it. JSON-safe. */
export interface TableSchema {
  readonly schema: string
  readonly name: string
  /** pg_class.oid: the relation id of pgoutput messages. */
  readonly oid: number
  /** The columns that are replicated (publication column list and `includeColumns` applied). */
  readonly columns: readonly SourceColumn[]
  /** Names of the columns that identify a row in the stream; empty = the whole old row (FULL) or none at all. */
  readonly key: readonly string[]
  readonly replicaIdentity: ReplicaIdentity
  /** True for the root of a partition tree; absent = false. Only there does `FROM ONLY` leave rows out; elsewhere it keeps inheriting tables out. */
  readonly isPartitioned?: boolean
  /** As the catalog had it when the shape was read; absent = not asked for. */
  readonly storage?: TableStorage
  /**
   * By attribute number, the text of the value that every row has which is older than that column, where the catalog tells it: pg_attribute.attmissingval.
   * Absent = none.
   */
  readonly valuesOfOlderRows?: Readonly<Record<string, string>>
}

/** Facts of the catalog that tell that a table's rows were rewritten although the stream says nothing (pipeline/storage-diff.ts). JSON-safe. */
export interface TableStorage {
  readonly isPartitioned: boolean
  /** pg_class.relfilenode by oid: of the table, or of every member of a partition tree but its root. */
  readonly files: Readonly<Record<string, number>>
  /** Members of the tree that may have brought rows of their own: they were attached, not made as partitions. */
  readonly attached: readonly number[]
  /** By oid of a member of a partition tree, the transaction that made it one: xmin of pg_inherits. Absent = not known. */
  readonly joined?: Readonly<Record<string, string>>
  /** By attribute number, the transaction that last wrote the column's definition: xmin of pg_attribute. */
  readonly columns: Readonly<Record<string, string>>
  /** Numbers of columns that were dropped: none of them comes again. Absent = not known. */
  readonly gone?: readonly number[]
  /** Numbers of the generated columns, whether they are published or not. Absent = not known. */
  readonly generated?: readonly number[]
  /** What values of its columns are shown as, however deep in them: by pg_enum.oid the label, by pg_type.oid of a composite type the numbers of its attributes. */
  readonly labels: Readonly<Record<string, string>>
  /**
   * By pg_type.oid of each enumeration and composite type in its columns, the transactions (xmin, with commas) but the type's own that last wrote its labels or attributes. Absent =
   * not known.
   */
  readonly shown?: Readonly<Record<string, string>>
  /** pg_constraint.oid of the primary key, null where there is none: what REINDEX leaves as it is. Absent = not known. */
  readonly primaryKey?: number | null
  /** REPLICA IDENTITY FULL: then no Relation message tells of another key. Absent = not known. */
  readonly hasFullIdentity?: boolean
  /** pg_class.reltoastrelid, 0 = none: ALTER TABLE makes it anew with the rows; VACUUM FULL, CLUSTER and TRUNCATE do not. Absent = not known. */
  readonly toast?: number
  /**
   * Of all transactions that ran when this was read, the oldest (64 bits, decimal text): whoever changes the storage afterwards writes rows that are not older. Nothing is told by a
   * change of it. Absent = not known.
   */
  readonly horizon?: string
  /** Absent = not published, or not known. */
  readonly published?: PublishedAs
}

/** What the publication sends of a table, and whether that was so without a break. JSON-safe. */
export interface PublishedAs {
  /** pg_publication.oid. */
  readonly publication: number
  /** xmin of its row: another one after every ALTER PUBLICATION of its options or owner. */
  readonly version: string
  readonly operations: readonly PublishedOperation[]
  readonly hasRowFilter: boolean
  /** True where the publication lists the table itself, and not its schema or everything: such a table PostgreSQL does not let become UNLOGGED. Absent = not known. */
  readonly isListed?: boolean
  /**
   * Oids of what makes the table a member (pg_publication_rel, pg_publication_namespace), in order; none where all tables are published. They are made
   * anew where a table or schema leaves and comes back, and for another row filter or column list.
   */
  readonly memberships: readonly number[]
  /** Where it is a member by its schema, the transaction that last put it there: a table may have been in another one for a while. Absent = not known. */
  readonly schemaEntry?: string | null
}
