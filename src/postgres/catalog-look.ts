import { z } from 'zod'
import { asRecordEnd, parseLsn } from '../model/lsn.ts'
import type { CatalogLook } from '../model/source.ts'
import { OPERATIONS } from '../model/spec.ts'
import type { TableStorage } from '../model/table-schema.ts'
import { publishedOver } from './published-tables.ts'
import { queryRow, queryRows, type SqlClient } from './sql.ts'

/**
 * A partition that is made as one joins its tree in the command that makes it. One that is attached had a life before: it joined in
 * another transaction, or at least several commands later.
 */
const COMMANDS_OF_CREATE_PARTITION = 3

/** Every table has this system column, and nothing ever changes its definition: when it was written, the table was made (tableoid). */
const BIRTH_ATTRIBUTE = -6

/** The publication's entries that hold the schema of the pg_class row `c`. */
const SCHEMA_MEMBERSHIPS = 'SELECT s.oid FROM schema_members s WHERE s.publication = p.oid AND s.namespace = c.relnamespace'

/** What last put the pg_class row `c` into its schema: nothing but SET SCHEMA writes that dependency anew, even where the table comes back to the schema that it had. */
const SCHEMA_ENTRY = `(SELECT d.xmin::text FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.objsubid = 0 AND d.refclassid = 'pg_namespace'::regclass)`

/** {@link PublishedAs} of the pg_class row `c` by the publication whose name is `publicationName`, as JSON. A row filter is of no account where all tables, or the schema's, are published. */
function publishedAs(publicationName: string): string {
  return `(
    SELECT jsonb_build_object('publication', p.oid::int8, 'version', p.xmin::text, 'operations', array_remove(ARRAY[
        CASE WHEN p.pubinsert THEN 'insert' END, CASE WHEN p.pubupdate THEN 'update' END, CASE WHEN p.pubdelete THEN 'delete' END, CASE WHEN p.pubtruncate THEN 'truncate' END], NULL),
      'isListed', EXISTS (SELECT FROM pg_publication_rel r WHERE r.prpubid = p.oid AND r.prrelid = c.oid),
      'hasRowFilter', NOT p.puballtables AND NOT EXISTS (${SCHEMA_MEMBERSHIPS})
        AND EXISTS (SELECT FROM pg_publication_rel r WHERE r.prpubid = p.oid AND r.prrelid = c.oid AND to_jsonb(r)->>'prqual' IS NOT NULL),
      'memberships', m.oids, 'schemaEntry', CASE WHEN NOT p.puballtables AND EXISTS (${SCHEMA_MEMBERSHIPS}) THEN ${SCHEMA_ENTRY} END)
    FROM pg_publication p CROSS JOIN LATERAL (SELECT coalesce(jsonb_agg(e.oid::int8 ORDER BY e.oid), '[]') AS oids FROM (
      SELECT r.oid FROM pg_publication_rel r WHERE r.prpubid = p.oid AND r.prrelid = c.oid UNION ALL ${SCHEMA_MEMBERSHIPS}) e(oid)) m
    WHERE p.pubname = ${publicationName} AND (p.puballtables OR m.oids <> '[]'))`
}

/**
 * What {@link storageOf} asks for more than once, for `WITH RECURSIVE`; `oids` is the parameter with the tables. `tree`: the members of partition trees, each below its `root`
 * (`pg_partition_tree` would wait for whoever rewrites one of them). `parts`: the types `oid` that values of a column's type `whole` are
 * made of, itself among them (what a domain is over, elements, attributes, bounds). `shown`: what these are shown as, and which transactions but the type's own last wrote it. `schema_members`: a publication's entries
 * that hold a schema, told by their dependencies, as before PostgreSQL 15 there is no such catalog.
 */
const storageOver = (oids: string): string => `tree(root, oid) AS (
  SELECT i.inhparent, i.inhrelid FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhparent AND c.relkind = 'p' WHERE c.oid = ANY (${oids}::oid[]) AND NOT i.inhdetachpending
  UNION ALL
  SELECT t.root, i.inhrelid FROM tree t JOIN pg_inherits i ON i.inhparent = t.oid AND NOT i.inhdetachpending),
parts(whole, oid) AS (
  SELECT a.atttypid, a.atttypid FROM pg_attribute a WHERE a.attrelid = ANY (${oids}::oid[]) AND a.attnum > 0 AND NOT a.attisdropped
  UNION
  SELECT p.whole, part.oid FROM parts p JOIN pg_type t ON t.oid = p.oid CROSS JOIN LATERAL (
    VALUES (t.typbasetype), (t.typelem)
    UNION ALL SELECT f.atttypid FROM pg_attribute f WHERE f.attrelid = t.typrelid AND f.attnum > 0 AND NOT f.attisdropped
    UNION ALL SELECT r.rngsubtype FROM pg_range r WHERE t.typtype IN ('r', 'm') AND t.oid IN (r.rngtypid, r.rngmultitypid)) part(oid)
  WHERE part.oid <> 0),
shown AS MATERIALIZED (
  SELECT p.whole, p.oid AS type, e.oid, e.enumlabel::text AS text, CASE WHEN e.xmin::text <> t.xmin::text THEN e.xmin::text END AS writers
    FROM parts p JOIN pg_type t ON t.oid = p.oid JOIN pg_enum e ON e.enumtypid = t.oid
  UNION ALL
  SELECT p.whole, p.oid, p.oid, f.text, f.writers FROM parts p JOIN pg_type t ON t.oid = p.oid AND t.typrelid <> 0 CROSS JOIN LATERAL (
    SELECT string_agg(f.attnum::text, ',' ORDER BY f.attnum) FILTER (WHERE NOT f.attisdropped) AS text, string_agg(DISTINCT f.xmin::text, ',') FILTER (WHERE f.xmin::text <> t.xmin::text) AS writers
    FROM pg_attribute f WHERE f.attrelid = t.typrelid AND f.attnum > 0) f WHERE f.text IS NOT NULL),
schema_members AS MATERIALIZED (
  SELECT d.objid AS oid, d.refobjid AS publication, s.refobjid AS namespace
  FROM pg_depend d JOIN pg_depend s ON s.classid = d.classid AND s.objid = d.objid AND s.refclassid = 'pg_namespace'::regclass
  WHERE d.classid = to_regclass('pg_catalog.pg_publication_namespace') AND d.refclassid = 'pg_publication'::regclass)`

/**
 * {@link TableStorage} of the pg_class row `c`, as JSON; {@link storageOver} stands before it; `publicationName` is a parameter. VACUUM FULL, CLUSTER, TRUNCATE and a new tablespace change the file alone; what
 * rewrites values rewrites the definition of their column too, be its type the same. Raw xmin outlives freezing.
 *
 * Source: https://www.postgresql.org/docs/current/storage-file-layout.html and https://www.postgresql.org/docs/current/catalog-pg-attribute.html
 */
const storageOf = (publicationName: string): string => `jsonb_build_object(
  'isPartitioned', c.relkind = 'p',
  'files', CASE c.relkind WHEN 'p' THEN coalesce((
      SELECT jsonb_object_agg(m.oid, m.relfilenode::int8) FROM tree t JOIN pg_class m ON m.oid = t.oid WHERE t.root = c.oid), '{}')
    ELSE jsonb_build_object(c.oid, c.relfilenode::int8) END,
  'attached', CASE c.relkind WHEN 'p' THEN coalesce((
      SELECT jsonb_agg(i.inhrelid::int8) FROM tree t JOIN pg_inherits i ON i.inhrelid = t.oid
      JOIN pg_attribute b ON b.attrelid = t.oid AND b.attnum = ${String(BIRTH_ATTRIBUTE)}
      WHERE t.root = c.oid AND (i.xmin <> b.xmin OR i.cmin::text::int8 - b.cmin::text::int8 > ${String(COMMANDS_OF_CREATE_PARTITION)})), '[]')
    ELSE '[]' END,
  'joined', CASE c.relkind WHEN 'p' THEN coalesce((
      SELECT jsonb_object_agg(i.inhrelid, i.xmin::text) FROM tree t JOIN pg_inherits i ON i.inhrelid = t.oid WHERE t.root = c.oid), '{}')
    ELSE '{}' END,
  'columns', coalesce((
      SELECT jsonb_object_agg(a.attnum, a.xmin::text) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), '{}'),
  'gone', coalesce((
      SELECT jsonb_agg(a.attnum ORDER BY a.attnum) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND a.attisdropped), '[]'),
  'generated', coalesce((
      SELECT jsonb_agg(a.attnum) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND a.attgenerated <> '' AND NOT a.attisdropped), '[]'),
  'labels', coalesce((
      SELECT jsonb_object_agg(s.oid, s.text) FROM pg_attribute a JOIN shown s ON s.whole = a.atttypid WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), '{}'),
  'shown', coalesce((
      SELECT jsonb_object_agg(t.type, t.writers) FROM (
        SELECT s.type, coalesce(string_agg(DISTINCT s.writers, ','), '') AS writers FROM pg_attribute a JOIN shown s ON s.whole = a.atttypid
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped GROUP BY s.type) t), '{}'),
  'primaryKey', (SELECT k.oid::int8 FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'p'),
  'hasFullIdentity', c.relreplident = 'f',
  'toast', c.reltoastrelid::int8,
  'horizon', pg_snapshot_xmin(pg_current_snapshot())::text,
  'published', ${publishedAs(publicationName)})`

/** The columns of the pg_class row `c`, as JSON. */
const COLUMNS = `coalesce((
  SELECT jsonb_agg(jsonb_build_object('attributeNumber', a.attnum, 'name', a.attname, 'typeOid', a.atttypid::int8, 'typeModifier', a.atttypmod))
  FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), '[]')`

const COLUMNS_SCHEMA = z.array(z.object({ attributeNumber: z.number(), name: z.string(), typeOid: z.number(), typeModifier: z.number() }))

const PUBLISHED_SCHEMA = z.object({
  publication: z.number(),
  version: z.string(),
  operations: z.array(z.enum(['insert', 'update', 'delete', 'truncate'])),
  hasRowFilter: z.boolean(),
  isListed: z.boolean(),
  memberships: z.array(z.number()),
  schemaEntry: z.string().nullable(),
})

const STORAGE_SCHEMA = z
  .object({
    isPartitioned: z.boolean(),
    files: z.record(z.string(), z.number()),
    attached: z.array(z.number()),
    joined: z.record(z.string(), z.string()),
    columns: z.record(z.string(), z.string()),
    gone: z.array(z.number()),
    generated: z.array(z.number()),
    labels: z.record(z.string(), z.string()),
    shown: z.record(z.string(), z.string()),
    primaryKey: z.number().nullable(),
    hasFullIdentity: z.boolean(),
    toast: z.number(),
    horizon: z.string(),
    published: PUBLISHED_SCHEMA.nullable(),
  })
  .transform(({ published, ...storage }): TableStorage => (published === null ? storage : { ...storage, published }))

// Made once: zod compiles a schema when it is used first.
const STORAGE_ROW = z.object({ oid: z.number(), storage: STORAGE_SCHEMA })
const TABLE_ROW = z.object({ oid: z.number(), schema: z.string(), name: z.string(), isPublished: z.boolean(), isKnown: z.boolean(), storage: STORAGE_SCHEMA.nullable(), columns: COLUMNS_SCHEMA.nullable() })
const POSITION_ROW = z.object({ lsn: z.string(), published: z.record(z.string(), z.boolean()).nullable() })

const SUBJECT = 'catalog of the source'

/** Storage by oid, as a publication (null = none) has the tables; those that are gone are left out. */
export async function readStorage(client: SqlClient, oids: readonly number[], publicationName: string | null): Promise<ReadonlyMap<number, TableStorage>> {
  const rows = await queryRows(client, STORAGE_ROW, {
    subject: SUBJECT,
    values: [[...oids], publicationName],
    text: `WITH RECURSIVE ${storageOver('$1')} SELECT c.oid, ${storageOf('$2::name')} AS storage FROM pg_class c WHERE c.oid = ANY ($1::oid[])`,
  })
  return new Map(rows.map(({ oid, storage }) => [oid, storage]))
}

/** See `Source.look`. A publication that is gone publishes nothing: the stream has its own word on that. */
export async function lookAtCatalog(
  client: SqlClient,
  publicationName: string,
  wanted: { readonly oids: readonly number[]; readonly wholeSchema: string | null },
): Promise<CatalogLook> {
  const rows = await queryRows(
    client,
    TABLE_ROW,
    {
      subject: SUBJECT,
      values: [publicationName, [...wanted.oids], wanted.wholeSchema],
      text: `
        WITH RECURSIVE ${storageOver('$2')}, ${publishedOver('$1')}
        SELECT c.oid, n.nspname::text AS schema, c.relname::text AS name, c.oid IN (SELECT oid FROM published) AS "isPublished",
          c.oid = ANY ($2::oid[]) AS "isKnown", CASE WHEN c.oid = ANY ($2::oid[]) THEN ${storageOf('$1::name')} END AS storage, CASE WHEN c.oid = ANY ($2::oid[]) THEN ${COLUMNS} END AS columns
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.oid = ANY ($2::oid[])
          OR n.nspname = $3 AND c.oid IN (SELECT oid FROM published) AND NOT c.relispartition
            AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')`,
    },
  )
  // After the look, so that it is past what the look sees; the insert position, as a commit may be visible before it is written.
  const { lsn, published } = await queryRow(client, POSITION_ROW, {
    subject: 'position of the source',
    values: [publicationName],
    text: `SELECT (CASE WHEN pg_is_in_recovery() THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) ELSE pg_current_wal_insert_lsn() END)::text AS lsn,
      (SELECT jsonb_build_object('insert', pubinsert, 'update', pubupdate, 'delete', pubdelete, 'truncate', pubtruncate) FROM pg_publication WHERE pubname = $1) AS published`,
  })
  return {
    lsn: asRecordEnd(parseLsn(lsn)),
    tables: rows.flatMap(({ oid, schema, name, isPublished, storage, columns }) => (storage === null || columns === null ? [] : [{ oid, schema, name, isPublished, storage, columns }])),
    newcomers: rows.filter(({ isKnown }) => !isKnown).map(({ oid }) => oid),
    operations: OPERATIONS.filter((operation) => published?.[operation] === true),
  }
}
