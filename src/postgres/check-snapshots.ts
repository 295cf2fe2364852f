import { z } from 'zod'
import { tableKey } from '../model/table-schema.ts'
import type { CatalogTable } from './catalog.ts'
import { failureFinding, listNames, okFinding, type PreflightFinding } from './findings.ts'
import { snapshotTableName } from './kept-snapshots.ts'
import { SNAPSHOT_MARK } from './snapshot-mark.ts'
import type { ServerFacts } from './server.ts'
import { queryRow, queryRows, quoteIdentifier, quoteTable, type SqlClient } from './sql.ts'

/**
 * What `snapshotMode: "persisted"` needs beside a slot: CREATE in the tables' schemas, names that are free, a second slot for a moment. Tells how much of the
 * source's disk it takes until the tables are loaded: as much as the tables do, with their TOAST, without their indexes.
 */
export async function checkSnapshots(client: SqlClient, input: { readonly server: ServerFacts; readonly slotName: string; readonly tables: readonly CatalogTable[] }): Promise<readonly PreflightFinding[]> {
  const { server, slotName, tables } = input
  if (tables.length === 0) return []
  const findings = [...(await checkCreate(client, server, tables)), ...(await checkNames(client, slotName, tables)), ...checkSecondSlot(server)]
  return findings.length > 0 ? findings : [await sizeFinding(client, tables)]
}

async function checkCreate(client: SqlClient, server: ServerFacts, tables: readonly CatalogTable[]): Promise<readonly PreflightFinding[]> {
  const schemas = [...new Set(tables.map(({ schema }) => schema))]
  const rows = await queryRows(client, z.object({ schema: z.string() }), {
    subject: 'schemas of the source',
    values: [schemas],
    text: `SELECT s.schema FROM unnest($1::text[]) s(schema) WHERE NOT has_schema_privilege(s.schema, 'CREATE')`,
  })
  if (rows.length === 0) return []
  const role = server.role.name
  return [
    failureFinding({
      name: 'snapshot tables',
      kind: 'PrivilegeMissing',
      message: `role ${JSON.stringify(role)} may not create snapshot tables: it lacks CREATE on schema ${listNames(rows.map(({ schema }) => schema))}`,
      advice: 'Use snapshotMode "initial", which needs none. Or as the schema\'s owner:',
      sql: rows.map(({ schema }) => `GRANT CREATE ON SCHEMA ${quoteIdentifier(schema)} TO ${quoteIdentifier(role)}`),
    }),
  ]
}

async function checkNames(client: SqlClient, slotName: string, tables: readonly CatalogTable[]): Promise<readonly PreflightFinding[]> {
  const wanted = tables.map(({ schema, name }) => ({ schema, name: snapshotTableName(slotName, name) }))
  const rows = await queryRows(client, z.object({ schema: z.string(), name: z.string() }), {
    subject: 'snapshot tables of the source',
    values: [wanted.map(({ schema }) => schema), wanted.map(({ name }) => name), SNAPSHOT_MARK],
    text: `
      SELECT w.schema, w.name FROM unnest($1::text[], $2::text[]) w(schema, name)
      JOIN pg_namespace n ON n.nspname = w.schema JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name
      WHERE NOT starts_with(coalesce(obj_description(c.oid, 'pg_class'), ''), $3)`,
  })
  if (rows.length === 0) return []
  return [
    failureFinding({
      name: 'snapshot tables',
      kind: 'InvalidInput',
      message: `the source has tables of the names that snapshots would get, and they are not ours: ${listNames(rows.map(tableKey))}`,
      advice: 'Give another slotName; or, where dlt has left them and nobody needs them:',
      sql: rows.map((row) => `DROP TABLE ${quoteTable(row)}`),
    }),
  ]
}

function checkSecondSlot({ usedReplicationSlots: used, maxReplicationSlots: maximum }: ServerFacts): readonly PreflightFinding[] {
  if (used + 2 <= maximum) return []
  return [
    failureFinding({
      name: 'snapshot tables',
      kind: 'SourceNotReady',
      message: `${String(used)} of ${String(maximum)} replication slots are in use, and a snapshot needs two for a moment (max_replication_slots)`,
      advice: 'Drop a slot that nobody needs, use snapshotMode "initial", or as a superuser run what follows, then restart the server:',
      sql: [`ALTER SYSTEM SET max_replication_slots = '${String(maximum + 4)}'`],
    }),
  ]
}

async function sizeFinding(client: SqlClient, tables: readonly CatalogTable[]): Promise<PreflightFinding> {
  const { size } = await queryRow(client, z.object({ size: z.string() }), {
    subject: 'size of the tables',
    values: [tables.map(({ oid }) => oid)],
    text: `SELECT pg_size_pretty(coalesce(sum(pg_table_size(part.relid)), 0)) AS size FROM unnest($1::oid[]) t(oid) CROSS JOIN LATERAL (
        SELECT t.oid AS relid UNION SELECT relid FROM pg_partition_tree(t.oid) WHERE isleaf) part`,
  })
  return okFinding('snapshot tables', `they take about ${size} of the source's disk until they are loaded`)
}
