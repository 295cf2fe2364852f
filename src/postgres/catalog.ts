import { z } from 'zod'
import type { ReplicaIdentity, SourceColumn, TableSchema } from '../model/table-schema.ts'
import { readStorage } from './catalog-look.ts'
import { REPLICA_IDENTITIES } from './relations.ts'
import { queryRows, type SqlClient } from './sql.ts'
import { readTypes, shapeOf } from './type-shapes.ts'

/** A table as the catalog has it, before any publication or option limits its columns. */
export interface CatalogTable extends TableSchema {
  /** True where the stream can tell a row that an UPDATE or DELETE is about; PostgreSQL refuses both on a published table without. */
  readonly hasIdentity: boolean
  /** Columns that the replica identity consists of, all for FULL; a publication's column list must have them for UPDATE and DELETE. */
  readonly identityColumns: readonly string[]
  /** Columns that our role may not read. */
  readonly unreadableColumns: readonly string[]
  /** Generated columns that are computed when read (PostgreSQL 18): no publication carries them. */
  readonly virtualColumns: readonly string[]
}

const TABLE_ROW = z.object({
  oid: z.number(),
  schema: z.string(),
  name: z.string(),
  replicaIdentity: z.enum(['d', 'n', 'f', 'i']).transform((identity) => REPLICA_IDENTITIES[identity]),
  isPartitioned: z.boolean(),
})

const COLUMN_ROW = z.object({
  tableOid: z.number(),
  name: z.string(),
  attributeNumber: z.number(),
  typeOid: z.number(),
  typeModifier: z.number(),
  typeName: z.string(),
  isNotNull: z.boolean(),
  generated: z.string(),
  hasDefault: z.boolean(),
  valueOfOlderRows: z.string().nullable(),
  isReadable: z.boolean(),
})

const INDEX_ROW = z.object({
  tableOid: z.number(),
  isPrimary: z.boolean(),
  isReplicaIdentity: z.boolean(),
  columns: z.array(z.string()),
})
type IndexRow = z.infer<typeof INDEX_ROW>

const SUBJECT = 'catalog of the source'

/**
 * What rows have in the column of the pg_attribute row `a` that were there before it came: a default that is no expression of each row is kept beside
 * them, until the table is rewritten. Neither DROP DEFAULT nor SET DEFAULT changes it, and the number of a column is never another's. Of a partitioned
 * table, what every partition has to say alike. The value is an array's only element; where such an array's text is not that of a text array, it is
 * not told.
 *
 * Source: https://www.postgresql.org/docs/current/catalog-pg-attribute.html (atthasmissing, attmissingval)
 */
const VALUE_OF_OLDER_ROWS = `CASE WHEN t.typdelim <> ',' THEN NULL
  WHEN c.relkind = 'p' THEN (
    SELECT CASE WHEN bool_and(m.atthasmissing) AND count(DISTINCT m.attmissingval::text) = 1 THEN (min(m.attmissingval::text)::text[])[1] END
    FROM pg_partition_tree(c.oid) p JOIN pg_attribute m ON m.attrelid = p.relid AND m.attname = a.attname AND NOT m.attisdropped WHERE p.isleaf)
  WHEN a.atthasmissing THEN (a.attmissingval::text::text[])[1] END`

/**
 * Reads tables by oid, in the order of `oids`; those that are gone are left out. Columns stand in attribute order, dropped ones are
 * left out. `publicationName` (null = none) is the publication whose word on them is wanted.
 *
 * Source: https://www.postgresql.org/docs/current/catalog-pg-attribute.html
 */
export async function readTables(client: SqlClient, oids: readonly number[], publicationName: string | null): Promise<readonly CatalogTable[]> {
  if (oids.length === 0) return []
  const values = [[...oids]]
  const tables = await queryRows(client, TABLE_ROW, {
    subject: SUBJECT,
    values,
    text: `
      SELECT c.oid, n.nspname::text AS schema, c.relname::text AS name, c.relreplident::text AS "replicaIdentity", c.relkind = 'p' AS "isPartitioned"
      FROM unnest($1::oid[]) WITH ORDINALITY wanted(oid, ordinal)
      JOIN pg_class c ON c.oid = wanted.oid JOIN pg_namespace n ON n.oid = c.relnamespace
      ORDER BY wanted.ordinal`,
  })
  const columns = await queryRows(client, COLUMN_ROW, {
    subject: SUBJECT,
    values,
    text: `
      SELECT a.attrelid AS "tableOid", a.attname::text AS name, a.attnum AS "attributeNumber", a.atttypid AS "typeOid", a.atttypmod AS "typeModifier",
        format_type(a.atttypid, a.atttypmod) AS "typeName", a.attnotnull AS "isNotNull", a.attgenerated::text AS generated,
        a.atthasdef OR a.atthasmissing OR a.attidentity <> '' AS "hasDefault", ${VALUE_OF_OLDER_ROWS} AS "valueOfOlderRows",
        has_column_privilege(a.attrelid, a.attnum, 'SELECT') AS "isReadable"
      FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_type t ON t.oid = a.atttypid WHERE a.attrelid = ANY ($1::oid[]) AND a.attnum > 0 AND NOT a.attisdropped
      ORDER BY a.attrelid, a.attnum`,
  })
  const indexes = await queryRows(client, INDEX_ROW, {
    subject: SUBJECT,
    values,
    // A deferrable primary key (not immediate) is no replica identity: rows with the same key may stand beside each other for a while.
    text: `
      SELECT i.indrelid AS "tableOid", i.indisprimary AND i.indimmediate AS "isPrimary", i.indisreplident AS "isReplicaIdentity",
        ARRAY(
          SELECT a.attname::text FROM unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, ordinal)
          JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
          WHERE k.ordinal <= i.indnkeyatts ORDER BY k.ordinal
        ) AS columns
      FROM pg_index i
      WHERE i.indrelid = ANY ($1::oid[]) AND (i.indisprimary AND i.indimmediate OR i.indisreplident) AND i.indisvalid`,
  })
  const storage = await readStorage(client, oids, publicationName)
  const types = await readTypes(client, columns.map((column) => column.typeOid))
  const columnsOf = groupByTable(columns)
  const indexesOf = groupByTable(indexes)
  return tables.map((table) => {
    const ownColumns = columnsOf.get(table.oid) ?? []
    const sourceColumns: SourceColumn[] = ownColumns.map((column) => ({
      name: column.name,
      attributeNumber: column.attributeNumber,
      typeOid: column.typeOid,
      typeModifier: column.typeModifier,
      typeName: column.typeName,
      shape: shapeOf(types, column.typeOid, column.typeModifier),
      isNotNull: column.isNotNull,
      isGenerated: column.generated !== '',
      hasDefault: column.hasDefault,
    }))
    const ownStorage = storage.get(table.oid)
    const identity = identityOf(table.replicaIdentity, sourceColumns, indexesOf.get(table.oid) ?? [])
    const values = ownColumns.flatMap(({ attributeNumber, valueOfOlderRows }) => (valueOfOlderRows === null ? [] : [[String(attributeNumber), valueOfOlderRows] as const]))
    return {
      ...table,
      ...(values.length === 0 ? {} : { valuesOfOlderRows: Object.fromEntries(values) }),
      ...(ownStorage === undefined ? {} : { storage: ownStorage }),
      columns: sourceColumns,
      ...identity,
      hasIdentity: hasIdentity({ ...table, ...identity }),
      unreadableColumns: ownColumns.filter((column) => !column.isReadable).map((column) => column.name),
      virtualColumns: ownColumns.filter((column) => column.generated === 'v').map((column) => column.name),
    }
  })
}

/**
 * What identifies a row, by the table's replica identity:
 *
 * | identity | key | UPDATE and DELETE can be published |
 * | --- | --- | --- |
 * | DEFAULT | the immediate primary key | where there is one |
 * | USING INDEX | the index's columns: the stream carries only those | yes; no, once the index is dropped |
 * | FULL | the immediate primary key, else none (the whole old row) | yes |
 * | NOTHING | the immediate primary key (inserts only), else none | no |
 *
 * Source: https://www.postgresql.org/docs/current/sql-altertable.html#SQL-ALTERTABLE-REPLICA-IDENTITY
 */
function identityOf(
  replicaIdentity: ReplicaIdentity,
  columns: readonly SourceColumn[],
  indexes: readonly IndexRow[],
): Pick<CatalogTable, 'key' | 'identityColumns'> {
  const primaryKey = indexes.find((index) => index.isPrimary)?.columns ?? []
  switch (replicaIdentity) {
    case 'default':
      return { key: primaryKey, identityColumns: primaryKey }
    case 'index': {
      const key = indexes.find((index) => index.isReplicaIdentity)?.columns ?? []
      return { key, identityColumns: key }
    }
    case 'full':
      return { key: primaryKey, identityColumns: columns.map((column) => column.name) }
    case 'nothing':
      return { key: primaryKey, identityColumns: [] }
    default:
      return replicaIdentity satisfies never
  }
}

/** Is there something that tells a table's rows in updates and deletes? Else PostgreSQL refuses them to whoever writes there. */
export function hasIdentity({ replicaIdentity, key }: Pick<TableSchema, 'replicaIdentity' | 'key'>): boolean {
  return replicaIdentity === 'full' || (replicaIdentity !== 'nothing' && key.length > 0)
}

/** The same table with only these columns; a key that is no longer whole is none. */
export function limitColumns<T extends TableSchema>(table: T, names: ReadonlySet<string>): T {
  const columns = table.columns.filter((column) => names.has(column.name))
  return { ...table, columns, key: table.key.every((name) => names.has(name)) ? table.key : [] }
}

function groupByTable<T extends { readonly tableOid: number }>(rows: readonly T[]): Map<number, T[]> {
  const groups = new Map<number, T[]>()
  for (const row of rows) {
    const group = groups.get(row.tableOid)
    if (group === undefined) groups.set(row.tableOid, [row])
    else group.push(row)
  }
  return groups
}
