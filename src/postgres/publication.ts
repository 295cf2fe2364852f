import { z } from 'zod'
import type { PublishedOperation } from '../model/spec.ts'
import type { TableName, TableSchema } from '../model/table-schema.ts'
import { limitColumns, readTables, type CatalogTable } from './catalog.ts'
import { parseNotes, type DestinationNotes } from './destination-note.ts'
import { readIdentity } from './server.ts'
import { quoteIdentifier, quoteLiteral, queryRows, type SqlClient } from './sql.ts'

/** A table as a publication publishes it. */
export interface PublishedTable extends TableName {
  readonly oid: number
  /** The columns it sends; null where the server does not say (before 15: all). */
  readonly columns: readonly string[] | null
  /** True where the publication lists columns for it. */
  readonly hasColumnList: boolean
  /** SQL of the row filter; null where all rows are sent. */
  readonly rowFilter: string | null
  /** Columns that the row filter looks at. */
  readonly filterColumns: readonly string[]
  /** True where the publication lists the table itself, and not its schema or everything. */
  readonly isListed: boolean
}

/** A publication as the catalog has it. */
export interface PublicationState {
  readonly name: string
  /** The transaction (32 bits) that made it, or altered it last. */
  readonly xmin: number
  readonly owner: string
  /** True where our role may alter it. */
  readonly isOwned: boolean
  readonly isForAllTables: boolean
  /** Schemas published whole. */
  readonly schemas: readonly string[]
  readonly operations: readonly PublishedOperation[]
  readonly isViaPartitionRoot: boolean
  /** True where stored generated columns are sent (PostgreSQL 18's `publish_generated_columns`). */
  readonly hasGeneratedColumns: boolean
  readonly tables: readonly PublishedTable[]
  readonly comment: string | null
  readonly notes: DestinationNotes
}

// Columns differ between versions (pubgencols 18): the row is read as JSON.
const PUBLICATION_ROW = z.object({
  publication: z.object({
    pubname: z.string(),
    puballtables: z.boolean(),
    pubinsert: z.boolean(),
    pubupdate: z.boolean(),
    pubdelete: z.boolean(),
    pubtruncate: z.boolean(),
    pubviaroot: z.boolean(),
    pubgencols: z.string().nullish(),
  }),
  owner: z.string(),
  xmin: z.string(),
  isOwned: z.boolean(),
  comment: z.string().nullable(),
})

const MEMBER_ROW = z.object({
  oid: z.number(),
  schema: z.string(),
  name: z.string(),
  columns: z.array(z.string()).nullable(),
  hasColumnList: z.boolean(),
  rowFilter: z.string().nullable(),
  filterColumns: z.array(z.string()),
  isListed: z.boolean(),
})

/**
 * Names of the columns that the row filter of table `c` looks at, by its dependencies. A column list has one for each of its columns, too: what the filter looks at besides
 * then has two.
 */
const FILTER_COLUMNS = `ARRAY(
  SELECT a.attname::text FROM pg_publication p JOIN pg_publication_rel pr ON pr.prpubid = p.oid
    JOIN pg_depend d ON d.classid = 'pg_publication_rel'::regclass AND d.objid = pr.oid AND d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = d.refobjsubid
  WHERE p.pubname = $1 AND pr.prrelid = c.oid AND d.refobjsubid > 0 AND t.entry->>'rowfilter' IS NOT NULL
  GROUP BY a.attname, a.attnum, to_jsonb(pr)->'prattrs'
  HAVING count(*) > CASE WHEN to_jsonb(pr)->'prattrs' @> to_jsonb(a.attnum::int4) THEN 1 ELSE 0 END
  ORDER BY a.attnum)`

/**
 * Reads a publication with the tables that it publishes now; null where there is none. With `oids`, `tables` has those of them alone that it
 * publishes: to read a thousand takes the server 20 ms.
 *
 * Source: https://www.postgresql.org/docs/current/view-pg-publication-tables.html
 */
export async function readPublication(client: SqlClient, publicationName: string, oids: readonly number[] | null = null): Promise<PublicationState | null> {
  const subject = `publication ${JSON.stringify(publicationName)}`
  const values = [publicationName]
  const [row] = await queryRows(client, PUBLICATION_ROW, {
    subject,
    values,
    text: `
      SELECT to_jsonb(p) AS publication, p.xmin::text AS xmin, pg_get_userbyid(p.pubowner)::text AS owner, pg_has_role(p.pubowner, 'USAGE') AS "isOwned",
        obj_description(p.oid, 'pg_publication') AS comment
      FROM pg_publication p WHERE p.pubname = $1`,
  })
  if (row === undefined) return null
  const [{ hasSchemas } = { hasSchemas: false }] = await queryRows(client, z.object({ hasSchemas: z.boolean() }), {
    subject,
    text: `SELECT to_regclass('pg_catalog.pg_publication_namespace') IS NOT NULL AS "hasSchemas"`,
  })
  const schemas = hasSchemas
    ? await queryRows(client, z.object({ name: z.string() }), {
        subject,
        values,
        text: `
          SELECT n.nspname::text AS name FROM pg_publication_namespace pn JOIN pg_publication p ON p.oid = pn.pnpubid
          JOIN pg_namespace n ON n.oid = pn.pnnspid WHERE p.pubname = $1 ORDER BY 1`,
      })
    : []
  const tables = await queryRows(client, MEMBER_ROW, {
    subject,
    values: oids === null ? values : [publicationName, [...oids]],
    text: `
      SELECT c.oid, n.nspname::text AS schema, c.relname::text AS name, t.entry->'attnames' AS columns, t.entry->>'rowfilter' AS "rowFilter",
        ${FILTER_COLUMNS} AS "filterColumns",
        EXISTS (
          SELECT FROM pg_publication_rel pr JOIN pg_publication p ON p.oid = pr.prpubid
          WHERE p.pubname = $1 AND pr.prrelid = c.oid AND to_jsonb(pr)->>'prattrs' IS NOT NULL
        ) AS "hasColumnList",
        EXISTS (SELECT FROM pg_publication_rel pr JOIN pg_publication p ON p.oid = pr.prpubid WHERE p.pubname = $1 AND pr.prrelid = c.oid) AS "isListed"
      FROM (SELECT pt.schemaname, pt.tablename, to_jsonb(pt) AS entry FROM pg_publication_tables pt WHERE pt.pubname = $1) t
      JOIN pg_namespace n ON n.nspname = t.schemaname JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename
      ${oids === null ? '' : 'WHERE c.oid = ANY ($2::oid[])'}
      ORDER BY n.nspname, c.relname`,
  })
  const { publication } = row
  const operations = (['insert', 'update', 'delete', 'truncate'] as const).filter((operation) => publication[`pub${operation}`])
  return {
    name: publication.pubname,
    xmin: Number(row.xmin),
    owner: row.owner,
    isOwned: row.isOwned,
    isForAllTables: publication.puballtables,
    schemas: schemas.map((schema) => schema.name),
    operations,
    isViaPartitionRoot: publication.pubviaroot,
    hasGeneratedColumns: publication.pubgencols === 's',
    tables,
    comment: row.comment,
    notes: parseNotes(row.comment),
  }
}

/**
 * A table with the columns that the publication sends of it. Generated columns are sent by PostgreSQL 18 where the publication asks
 * for them (or its column list names them), else never; virtual ones never.
 */
export function asPublished(table: CatalogTable, publication: PublicationState, serverVersion: number): CatalogTable {
  const listed = publication.tables.find((member) => member.oid === table.oid)?.columns ?? null
  const canSendGenerated = serverVersion >= 180_000
  const virtual = new Set(table.virtualColumns)
  const names = table.columns.filter((column) => {
    if (column.isGenerated && (!canSendGenerated || virtual.has(column.name))) return false
    if (listed !== null) return listed.includes(column.name)
    return !column.isGenerated || publication.hasGeneratedColumns
  })
  return limitColumns(table, new Set(names.map((column) => column.name)))
}

/** What the model keeps of a table. */
export function toTableSchema(table: CatalogTable): TableSchema {
  const { schema, name, oid, columns, key, replicaIdentity, isPartitioned, storage, valuesOfOlderRows } = table
  return {
    schema,
    name,
    oid,
    columns,
    key,
    replicaIdentity,
    ...(isPartitioned === true ? { isPartitioned } : {}),
    ...(storage === undefined ? {} : { storage }),
    ...(valuesOfOlderRows === undefined ? {} : { valuesOfOlderRows }),
  }
}

/**
 * The publication's tables among `oids` as the catalog has them now, columns limited to the publication's lists.
 * A table that the publication does not have (any more) is left out; so is everything where there is no such publication.
 */
export async function describePublishedTables(
  client: SqlClient,
  publicationName: string,
  request: { readonly oids: readonly number[]; readonly serverVersion: number },
): Promise<readonly TableSchema[]> {
  const publication = await readPublication(client, publicationName, request.oids)
  if (publication === null) return []
  const published = new Set(publication.tables.map((table) => table.oid))
  const tables = await readTables(client, request.oids.filter((oid) => published.has(oid)), publicationName)
  return tables.map((table) => toTableSchema(asPublished(table, publication, request.serverVersion)))
}

/** One table of a publication as the catalog has it now, with its row filter; null where it is not published (any more). */
export async function describePublishedTable(client: SqlClient, publicationName: string, oid: number): Promise<{ readonly table: TableSchema; readonly rowFilter: string | null } | null> {
  const publication = await readPublication(client, publicationName, [oid])
  const [member] = publication?.tables ?? []
  if (publication === null || member === undefined) return null
  const [table] = await readTables(client, [oid], publicationName)
  const { serverVersion } = await readIdentity(client)
  return table === undefined ? null : { table: toTableSchema(asPublished(table, publication, serverVersion)), rowFilter: member.rowFilter }
}

/** One table with every column that can be read for changes, without a publication; null where it is not there. */
export async function describeReadableTable(client: SqlClient, oid: number): Promise<{ readonly table: TableSchema; readonly rowFilter: null } | null> {
  const [table] = await readTables(client, [oid], null)
  return table === undefined ? null : { table: toTableSchema(asReadable(table)), rowFilter: null }
}

/** Without columns that are computed when they are read: no row version tells when such a value became another. */
export function asReadable(table: CatalogTable): CatalogTable {
  return limitColumns(table, new Set(table.columns.map(({ name }) => name).filter((name) => !table.virtualColumns.includes(name))))
}

/** SQL that sets a publication's comment; needs ownership. */
export function commentSql(publicationName: string, comment: string | null): string {
  return `COMMENT ON PUBLICATION ${quoteIdentifier(publicationName)} IS ${comment === null ? 'NULL' : quoteLiteral(comment)}`
}
