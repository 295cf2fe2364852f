import { z } from 'zod'
import type { ReplicaIdentity, TableName } from '../model/table-schema.ts'
import { SNAPSHOT_MARK } from './snapshot-mark.ts'
import { queryRows, type SqlClient } from './sql.ts'

/** pg_class.relkind of what a name can stand for. */
export type RelationKind = 'table' | 'partitioned table' | 'view' | 'materialized view' | 'foreign table' | 'sequence'

/** A relation of a user's schema, with what our role may do with it. */
export interface ListedRelation extends TableName {
  readonly oid: number
  readonly kind: RelationKind
  readonly persistence: 'permanent' | 'unlogged' | 'temporary'
  /** For a partition the root of its tree, as `schema.table`; else null. */
  readonly partitionRoot: string | null
  readonly replicaIdentity: ReplicaIdentity
  readonly owner: string
  /** True where our role has the owner's rights. */
  readonly isOwned: boolean
  readonly hasSchemaUsage: boolean
  /** True where a row-level security policy would hide rows from our role. */
  readonly isRowSecurityActive: boolean
  /** True for a table that belongs to an extension (PostGIS' spatial_ref_sys). */
  readonly isExtensionMember: boolean
}

/** Everything that a table name can be resolved to. */
export interface Listing {
  readonly schemas: ReadonlySet<string>
  readonly relations: readonly ListedRelation[]
}

const KINDS = { r: 'table', p: 'partitioned table', v: 'view', m: 'materialized view', f: 'foreign table', S: 'sequence' } as const
const PERSISTENCES = { p: 'permanent', u: 'unlogged', t: 'temporary' } as const
export const REPLICA_IDENTITIES = { d: 'default', n: 'nothing', f: 'full', i: 'index' } as const

const RELATION_ROW = z.object({
  oid: z.number(),
  schema: z.string(),
  name: z.string(),
  kind: z.enum(['r', 'p', 'v', 'm', 'f', 'S']).transform((kind) => KINDS[kind]),
  persistence: z.enum(['p', 'u', 't']).transform((persistence) => PERSISTENCES[persistence]),
  partitionRoot: z.string().nullable(),
  replicaIdentity: z.enum(['d', 'n', 'f', 'i']).transform((identity) => REPLICA_IDENTITIES[identity]),
  owner: z.string(),
  isOwned: z.boolean(),
  hasSchemaUsage: z.boolean(),
  isRowSecurityActive: z.boolean(),
  isExtensionMember: z.boolean(),
})

const LISTING_SUBJECT = 'tables of the source'
const USER_SCHEMA = `n.nspname <> 'information_schema' AND n.nspname !~ '^pg_(toast|catalog$)'`

/**
 * Lists schemas and relations of the database, system schemas and kept snapshots aside (temporary tables of other sessions are in, so that an error can say
 * what they are). Needs no privilege.
 *
 * Source: https://www.postgresql.org/docs/current/catalog-pg-class.html
 */
export async function listRelations(client: SqlClient): Promise<Listing> {
  const schemas = await queryRows(client, z.object({ name: z.string() }), {
    text: `SELECT n.nspname::text AS name FROM pg_namespace n WHERE ${USER_SCHEMA} AND n.nspname !~ '^pg_'`,
    subject: LISTING_SUBJECT,
  })
  const relations = await queryRows(client, RELATION_ROW, {
    subject: LISTING_SUBJECT,
    text: `
      SELECT c.oid, n.nspname::text AS schema, c.relname::text AS name, c.relkind::text AS kind, c.relpersistence::text AS persistence,
        CASE WHEN c.relispartition THEN (
          SELECT rn.nspname || '.' || r.relname FROM pg_class r JOIN pg_namespace rn ON rn.oid = r.relnamespace WHERE r.oid = pg_partition_root(c.oid)
        ) END AS "partitionRoot",
        c.relreplident::text AS "replicaIdentity",
        pg_get_userbyid(c.relowner)::text AS owner,
        pg_has_role(c.relowner, 'USAGE') AS "isOwned",
        has_schema_privilege(n.oid, 'USAGE') AS "hasSchemaUsage",
        c.relrowsecurity AND row_security_active(c.oid) AS "isRowSecurityActive",
        EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e') AS "isExtensionMember"
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND ${USER_SCHEMA}
        AND NOT starts_with(coalesce(obj_description(c.oid, 'pg_class'), ''), '${SNAPSHOT_MARK}')
      ORDER BY n.nspname, c.relname`,
  })
  return { schemas: new Set(schemas.map((row) => row.name)), relations }
}
