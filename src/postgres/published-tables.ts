/**
 * The tables that a publication sends, by their oids, from the catalogs alone: `pg_get_publication_tables`, which says the same, opens each table (PostgreSQL 16 and later), and so waits for
 * whoever rewrites any of them.
 *
 * Common table expressions for `WITH RECURSIVE`, the last one `published(oid)`; `schema_members` (entries that hold a schema: oid, publication, namespace) stands before them.
 * `publicationName` is a parameter.
 *
 * Source: https://www.postgresql.org/docs/current/catalog-pg-publication.html and pg_get_publication_tables in PostgreSQL's src/backend/catalog/pg_publication.c
 */
export const publishedOver = (publicationName: string): string => `named AS MATERIALIZED (
  SELECT c.oid, c.relkind, c.relispartition, p.pubviaroot FROM pg_publication p CROSS JOIN pg_class c
  WHERE p.pubname = ${publicationName} AND c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND c.oid >= ${String(FIRST_NORMAL_OID)} AND NOT (p.puballtables AND p.pubviaroot AND c.relispartition)
    AND (p.puballtables OR EXISTS (SELECT FROM pg_publication_rel r WHERE r.prpubid = p.oid AND r.prrelid = c.oid)
      OR EXISTS (SELECT FROM schema_members s WHERE s.publication = p.oid AND s.namespace = c.relnamespace))),
below(oid) AS (
  SELECT n.oid FROM named n WHERE n.relkind = 'p' AND NOT n.pubviaroot
  UNION
  SELECT i.inhrelid FROM below b JOIN pg_inherits i ON i.inhparent = b.oid AND NOT i.inhdetachpending),
published(oid) AS MATERIALIZED (
  SELECT n.oid FROM named n WHERE n.pubviaroot
    AND NOT (n.relispartition AND EXISTS (SELECT FROM pg_partition_ancestors(n.oid) a JOIN named above ON above.oid = a.relid WHERE a.relid <> n.oid))
  UNION ALL SELECT n.oid FROM named n WHERE n.relkind = 'r' AND NOT n.pubviaroot
  UNION SELECT c.oid FROM below b JOIN pg_class c ON c.oid = b.oid AND c.relkind = 'r')`

/** Below it are the system's own: FirstNormalObjectId. */
const FIRST_NORMAL_OID = 16_384
