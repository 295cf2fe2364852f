import { z } from 'zod'
import { DomainError } from '../model/errors.ts'
import type { KeyRange } from '../model/source.ts'
import { tableKey, type TableSchema, type TypeShape } from '../model/table-schema.ts'
import { queryRows, quoteIdentifier, quoteLiteral, type SqlClient } from './sql.ts'

/** A key column, where its type's b-tree operators live, and how a boundary is written so that it compares with the column. */
export interface KeyColumn {
  readonly name: string
  /** `pg_catalog`, or the schema of an extension such as citext. */
  readonly operatorSchema: string
  readonly boundary: (text: string) => string
}

const GREATER = 5
const BTREE = 403

/**
 * The table's key columns with the operators by which their default b-tree order compares. `ORDER BY` finds that order through the type, but `>` is
 * looked up by name: with the search path pinned to `pg_catalog`, a citext would compare as text, in another order than the
 * boundaries were sorted in, and ranges would overlap.
 *
 * Source: https://www.postgresql.org/docs/current/catalog-pg-amop.html
 */
export async function readKeyColumns(client: SqlClient, table: TableSchema): Promise<readonly KeyColumn[]> {
  const columns = table.key.map((name) => {
    const column = table.columns.find((candidate) => candidate.name === name)
    if (column === undefined) {
      throw new DomainError({ kind: 'ProtocolViolation', message: `table ${tableKey(table)}: key column ${JSON.stringify(name)} is not among its columns`, remedy: 'Report this: the catalog changed while it was read.' })
    }
    return column
  })
  const foreignOids = columns.flatMap(({ shape }) => (isForeign(shape) ? [shape.oid] : []))
  if (foreignOids.length === 0) return columns.map(({ name, shape }) => ({ name, operatorSchema: 'pg_catalog', boundary: boundaryOf(shape, null) }))
  const rows = await queryRows(client, z.object({ oid: z.number(), type: z.string(), schema: z.string().nullable() }), {
    subject: `key of table ${tableKey(table)}`,
    values: [foreignOids, BTREE, GREATER],
    text: `
      SELECT t.oid, format_type(t.oid, NULL) AS type, (
          SELECT n.nspname::text FROM pg_opclass c
            JOIN pg_amop a ON a.amopfamily = c.opcfamily AND a.amoplefttype = c.opcintype AND a.amoprighttype = c.opcintype AND a.amopstrategy = $3
            JOIN pg_operator o ON o.oid = a.amopopr
            JOIN pg_namespace n ON n.oid = o.oprnamespace
           WHERE c.opcdefault AND c.opcmethod = $2 AND c.opcintype = t.oid) AS schema
        FROM unnest($1::oid[]) t(oid)`,
  })
  const found = new Map(rows.map((row) => [row.oid, row]))
  return columns.map(({ name, shape }) => {
    const foreign = found.get(shape.oid)
    return { name, operatorSchema: foreign?.schema ?? 'pg_catalog', boundary: boundaryOf(shape, foreign?.type ?? null) }
  })
}

function isForeign(shape: TypeShape): boolean {
  return shape.tag === 'other' || (shape.tag === 'base' && shape.name === null)
}

/**
 * A constant of unknown type is read as the column's own, but of a composite it would be an anonymous one, which has no input. A `"char"`
 * must not be a constant: PostgreSQL 18 cannot plan its comparison with one once the table was analyzed ("cache lookup failed for collation 0").
 */
function boundaryOf(shape: TypeShape, foreignType: string | null): KeyColumn['boundary'] {
  if (foreignType !== null) return (text) => `${quoteLiteral(text)}::${foreignType}`
  return shape.tag === 'base' && shape.name === 'char' ? (text) => `(SELECT ${quoteLiteral(text)}::"char")` : quoteLiteral
}

/**
 * The condition `lower < key ≤ upper` as SQL, in the key's own b-tree order; null where the range is open at both ends.
 *
 * Source: https://www.postgresql.org/docs/current/functions-comparisons.html#ROW-WISE-COMPARISON
 */
export function keyRangePredicate(key: readonly KeyColumn[], range: KeyRange): string | null {
  const conditions = [
    ...(range.lower === null ? [] : [compare(key, '>', range.lower)]),
    ...(range.upper === null ? [] : [compare(key, '<=', range.upper)]),
  ]
  return conditions.length === 0 ? null : conditions.join(' AND ')
}

function compare(key: readonly KeyColumn[], operator: '>' | '<=', boundary: readonly string[]): string {
  const [first] = key
  if (first === undefined || boundary.length !== key.length) {
    throw new DomainError({ kind: 'ProtocolViolation', message: `a key range of ${boundary.length} values for a key of ${key.length} columns`, remedy: 'Start again with "reset": true: the key changed while the table was copied.' })
  }
  const columns = key.map((column) => quoteIdentifier(column.name))
  const values = key.map((column, index) => column.boundary(boundary[index] ?? ''))
  if (key.every((column) => column.operatorSchema === first.operatorSchema)) {
    const left = columns.length === 1 ? columns[0] : `(${columns.join(', ')})`
    const right = values.length === 1 ? values[0] : `(${values.join(', ')})`
    return `${left ?? ''} OPERATOR(${quoteIdentifier(first.operatorSchema)}.${operator}) ${right ?? ''}`
  }
  // One qualified operator cannot serve types of several schemas: the row comparison is written out, from its last column.
  return key.reduceRight((rest, column, index) => {
    const is = (name: string): string => `${columns[index] ?? ''} OPERATOR(${quoteIdentifier(column.operatorSchema)}.${name}) ${values[index] ?? ''}`
    const strict = operator === '>' ? '>' : '<'
    return rest === '' ? is(operator) : `(${is(strict)} OR (${is('=')} AND ${rest}))`
  }, '')
}
