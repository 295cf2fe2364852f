import { DuckDBInstance } from '@duckdb/node-api'
import type pg from 'pg'
import type { WriteMode } from '../src/model/spec.ts'
import { type BenchTable, canonicalOf } from './tables.ts'

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

/** What is wrong with the destination's rows, or with what its changes or versions come to; empty = nothing. Nobody may have the file open. */
export async function compareRows(client: pg.Client, file: string, tables: readonly BenchTable[], writeMode: WriteMode = 'merge'): Promise<readonly string[]> {
  const faults: string[] = []
  const instance = await DuckDBInstance.create(file, { access_mode: 'READ_ONLY' })
  try {
    const connection = await instance.connect()
    for (const table of tables) {
      const source = await fingerprintSource(client, table)
      const reader = await connection.runAndReadAll(duckdbFingerprintSql(table, writeMode))
      const destination = parseFingerprint(reader.getRowsJson()[0] ?? [])
      if (areEqual(source, destination)) continue
      faults.push(`${table.name}: the source has ${source.rowCount} rows, the destination ${destination.rowCount}, or their content differs`)
    }
    connection.closeSync()
  } finally {
    instance.closeSync()
  }
  return faults
}

async function fingerprintSource(client: pg.Client, table: BenchTable): Promise<Fingerprint> {
  const { rows: [row] } = await client.query<{ row_count: string; low: string; high: string }>(postgresFingerprintSql(table))
  return parseFingerprint([row?.row_count, row?.low, row?.high])
}

function parseFingerprint(row: readonly unknown[]): Fingerprint {
  const [rowCount = '', low = '', high = ''] = row.map((value) => (typeof value === 'string' ? value : ''))
  return { rowCount, sums: [low, high] }
}

function rowText({ columns }: BenchTable, side: 0 | 1): string {
  return columns.map(([name, kind]) => canonicalOf(name, kind)[side]).join(" || '|' || ")
}

function postgresFingerprintSql(table: BenchTable): string {
  return `
  SELECT count(*)::text AS row_count,
         coalesce(sum(('x' || substr(digest, 1, 15))::bit(60)::bigint), 0)::text AS low,
         coalesce(sum(('x' || substr(digest, 16, 15))::bit(60)::bigint), 0)::text AS high
    FROM (SELECT md5(${rowText(table, 0)}) AS digest FROM ${table.name}) AS digests`
}

/** The rows that stand for the source's present ones. */
function currentRows({ name }: BenchTable, writeMode: WriteMode): string {
  switch (writeMode) {
    case 'merge':
      return `public.${name}`
    case 'scd2':
      return `(FROM public.${name} WHERE _is_current)`
    case 'append':
      return `(FROM (FROM public.${name} QUALIFY row_number() OVER (PARTITION BY id ORDER BY _lsn DESC, _seq DESC) = 1) WHERE _op <> 'delete')`
    default:
      return writeMode satisfies never
  }
}

function duckdbFingerprintSql(table: BenchTable, writeMode: WriteMode): string {
  return `
  SELECT count(*)::VARCHAR,
         coalesce(sum(('0x' || substr(digest, 1, 15))::BIGINT::HUGEINT), 0)::VARCHAR,
         coalesce(sum(('0x' || substr(digest, 16, 15))::BIGINT::HUGEINT), 0)::VARCHAR
    FROM (SELECT md5(${rowText(table, 1)}) AS digest FROM ${currentRows(table, writeMode)}) AS digests`
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
