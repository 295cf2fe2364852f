import { DuckDBInstance } from '@duckdb/node-api'
import type pg from 'pg'
import { TABLE } from './workloads.ts'

/** What a table's rows come to, whatever their order. */
export interface Fingerprint {
  readonly rowCount: string
  /** Sums over all rows of two 60-bit parts of the MD5 of the row's canonical text. */
  readonly sums: readonly [string, string]
}

/** Whether both sides hold the same rows. */
export function areEqual(left: Fingerprint, right: Fingerprint): boolean {
  return left.rowCount === right.rowCount && left.sums[0] === right.sums[0] && left.sums[1] === right.sums[1]
}

/** Each column's canonical text, as SQL of PostgreSQL and of DuckDB. */
const CANONICAL: readonly (readonly [postgres: string, duckdb: string])[] = [
  ['id::text', 'id::VARCHAR'],
  ['quantity::text', 'quantity::VARCHAR'],
  ['account::text', 'account::VARCHAR'],
  ['price::text', 'price::VARCHAR'],
  ['name', 'name'],
  ["coalesce(note, '∅')", "coalesce(note, '∅')"],
  ['(extract(epoch FROM created_at) * 1000000)::bigint::text', 'epoch_us(created_at)::VARCHAR'],
  ['is_active::integer::text', 'is_active::INTEGER::VARCHAR'],
  ['score::text', "regexp_replace(score::VARCHAR, '\\.0$', '')"],
  ['attributes::text', 'attributes::VARCHAR'],
]

/** The query on the source. */
export const POSTGRES_FINGERPRINT_SQL = `
  SELECT count(*)::text AS row_count,
         coalesce(sum(('x' || substr(digest, 1, 15))::bit(60)::bigint), 0)::text AS low,
         coalesce(sum(('x' || substr(digest, 16, 15))::bit(60)::bigint), 0)::text AS high
    FROM (SELECT md5(${CANONICAL.map(([text]) => text).join(" || '|' || ")}) AS digest FROM ${TABLE}) AS digests`

/** The same of the destination's table. */
export const DUCKDB_FINGERPRINT_SQL = `
  SELECT count(*)::VARCHAR,
         coalesce(sum(('0x' || substr(digest, 1, 15))::BIGINT::HUGEINT), 0)::VARCHAR,
         coalesce(sum(('0x' || substr(digest, 16, 15))::BIGINT::HUGEINT), 0)::VARCHAR
    FROM (SELECT md5(${CANONICAL.map(([, text]) => text).join(" || '|' || ")}) AS digest FROM public.${TABLE})`

/** Reads the source's rows. */
export async function fingerprintSource(client: pg.Client): Promise<Fingerprint> {
  const { rows } = await client.query<{ row_count: string; low: string; high: string }>(POSTGRES_FINGERPRINT_SQL)
  const [row] = rows
  if (row === undefined) throw new Error('the source gave no fingerprint')
  return { rowCount: row.row_count, sums: [row.low, row.high] }
}

/** Reads the destination's rows. Nobody may have the file open. */
export async function fingerprintDestination(path: string): Promise<Fingerprint> {
  const instance = await DuckDBInstance.create(path, { access_mode: 'READ_ONLY' })
  try {
    const connection = await instance.connect()
    const reader = await connection.runAndReadAll(DUCKDB_FINGERPRINT_SQL)
    connection.closeSync()
    const [row = []] = reader.getRowsJson()
    const [rowCount = '', low = '', high = ''] = row.map((value) => (typeof value === 'string' ? value : ''))
    return { rowCount, sums: [low, high] }
  } finally {
    instance.closeSync()
  }
}

/** Opens and closes the file once nobody else has it open; throws when that takes too long. Returns how long it took. */
export async function waitUntilClosed(path: string, timeoutMs: number): Promise<number> {
  const startMs = performance.now()
  for (;;) {
    try {
      const instance = await DuckDBInstance.create(path, { access_mode: 'READ_ONLY' })
      instance.closeSync()
      return performance.now() - startMs
    } catch (error) {
      if (performance.now() - startMs > timeoutMs) throw new Error('the destination file was not closed after the run', { cause: error })
    }
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
}
