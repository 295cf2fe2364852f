import { z } from 'zod'
import type { TypeShape } from '../model/table-schema.ts'
import { queryRows, type SqlClient } from './sql.ts'

const TYPE_ROW = z.object({
  oid: z.number(),
  name: z.string(),
  kind: z.string(),
  isBuiltIn: z.boolean(),
  baseOid: z.number(),
  baseTypeModifier: z.number(),
  elementOid: z.number(),
  isArray: z.boolean(),
  delimiter: z.string(),
})
export type TypeRow = z.infer<typeof TYPE_ROW>

/**
 * Reads these types and all that they are built from (domains' bases, arrays' elements), by oid.
 *
 * Source: https://www.postgresql.org/docs/current/catalog-pg-type.html
 */
export async function readTypes(client: SqlClient, oids: readonly number[]): Promise<ReadonlyMap<number, TypeRow>> {
  const rows = await queryRows(client, TYPE_ROW, {
    subject: 'types of the source',
    values: [[...new Set(oids)]],
    // array_out is what makes an array: point and box have an element type too, int2vector and oidvector are written otherwise.
    text: `
      WITH RECURSIVE reachable(oid) AS (
        SELECT unnest($1::oid[])
        UNION
        SELECT part.oid FROM reachable r JOIN pg_type t ON t.oid = r.oid CROSS JOIN LATERAL (VALUES (t.typbasetype), (t.typelem)) part(oid)
        WHERE part.oid <> 0
      )
      SELECT t.oid, t.typname::text AS name, t.typtype::text AS kind, t.typnamespace = 'pg_catalog'::regnamespace AS "isBuiltIn",
        t.typbasetype AS "baseOid", t.typtypmod AS "baseTypeModifier", t.typelem AS "elementOid",
        t.typoutput = 'array_out'::regproc AS "isArray", t.typdelim::text AS delimiter
      FROM reachable JOIN pg_type t ON t.oid = reachable.oid`,
  })
  return new Map(rows.map((row) => [row.oid, row]))
}

/** A column's type as the type mapping looks at it: domains followed, arrays with their element. An unknown oid is `other`. */
export function shapeOf(types: ReadonlyMap<number, TypeRow>, oid: number, typeModifier: number): TypeShape {
  const type = types.get(oid)
  if (type === undefined) return { tag: 'other', oid }
  // A domain's modifier is the base type's; a column of a domain has none of its own.
  if (type.kind === 'd') return shapeOf(types, type.baseOid, type.baseTypeModifier)
  if (type.isArray) {
    const element = shapeOf(types, type.elementOid, typeModifier)
    return { tag: 'array', oid, element, delimiter: types.get(type.elementOid)?.delimiter ?? type.delimiter }
  }
  if (type.kind === 'e') return { tag: 'enum', oid }
  if (type.kind === 'b') return { tag: 'base', oid, name: type.isBuiltIn ? type.name : null, typeModifier }
  return { tag: 'other', oid }
}
