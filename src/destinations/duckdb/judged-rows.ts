import type { RowLookup, TableRecord } from '../../model/destination.ts'
import type { DatabaseSession } from './database.ts'
import { STAGED } from './staged-rows.ts'
import type { RowsStep } from './steps.ts'
import { toPostgresText } from './type-mapping.ts'

// A rowid is no ordinal here: rows of the running transaction are numbered from a high base.

/** Keys located at once. */
const LOCATE_KEYS = 20_000

/** Changes that wait for the chunk that is being copied, as a temporary table of staged rows. */
export interface DeferredRows {
  readonly oid: number
  readonly chunk: number
  readonly table: string
  readonly step: RowsStep
}

let deferredTables = 0

/**
 * Judges each staged row of a table that is being copied by its key's chunk and its transaction: rows that the copy holds (or will
 * hold) are taken out, rows that wait for a running copy are set aside, the rest stays in `staged_rows` (facts 10).
 */
export async function judgeStaged(session: DatabaseSession, step: RowsStep, record: TableRecord, lookup: RowLookup): Promise<readonly DeferredRows[]> {
  await session.run(`CREATE OR REPLACE TEMP TABLE judged AS ${await chunkOfEachRow(session, step, record, lookup)}`)
  const [counted] = await session.rows(`SELECT (SELECT count(*) FROM judged) = (SELECT count(*) FROM ${STAGED})`)
  if (counted?.[0] !== true) throw new RangeError('not every staged row has found its chunk')
  const pairs = await session.rows('SELECT DISTINCT chunk, xid FROM judged')
  const kept: string[] = []
  const deferred = new Map<number, number[]>()
  for (const [chunk, xid] of pairs as readonly (readonly [number, number])[]) {
    const verdict = lookup.judge(record, chunk, xid)
    if (verdict === 'apply') kept.push(`(${String(chunk)}, ${String(xid)})`)
    if (verdict === 'defer') deferred.set(chunk, [...(deferred.get(chunk) ?? []), xid])
  }
  const aside: DeferredRows[] = []
  for (const [chunk, xids] of deferred) {
    const table = `temp.deferred_${String(deferredTables++)}`
    await session.run(
      `CREATE TEMP TABLE ${table} AS SELECT s.* FROM ${STAGED} s JOIN judged j ON j.r = s.rowid WHERE j.chunk = ${String(chunk)} AND j.xid IN (${xids.join(', ')}) ORDER BY s.rowid`,
    )
    aside.push({ oid: record.oid, chunk, table, step })
  }
  const stays = kept.length === 0 ? 'false' : `(j.chunk, j.xid) IN (${kept.join(', ')})`
  await session.run(`CREATE OR REPLACE TEMP TABLE kept AS SELECT s.* FROM ${STAGED} s JOIN judged j ON j.r = s.rowid WHERE ${stays} ORDER BY s.rowid;
    CREATE OR REPLACE TEMP TABLE staged_rows AS SELECT * FROM kept ORDER BY rowid; DROP TABLE temp.kept`)
  return aside
}

async function chunkOfEachRow(session: DatabaseSession, step: RowsStep, record: TableRecord, lookup: RowLookup): Promise<string> {
  if ((record.copy?.chunks.length ?? 0) <= 1 || step.keyIndexes.length === 0) return `SELECT rowid AS r, 0 AS chunk, xid FROM ${STAGED}`
  const names = step.keyIndexes.map((index) => `c${String(index)}`)
  await session.run(`CREATE OR REPLACE TEMP TABLE keys AS SELECT *, row_number() OVER () - 1 AS k FROM (SELECT DISTINCT ${names.join(', ')} FROM ${STAGED}); CREATE OR REPLACE TEMP TABLE located (k BIGINT, chunk INTEGER)`)
  const texts = step.keyIndexes.map((index) => toPostgresText(step.columns[index]?.type ?? 'VARCHAR', `c${String(index)}`))
  const keys = (await session.rows(`SELECT ${texts.join(', ')} FROM temp.keys ORDER BY k`)) as readonly (readonly string[])[]
  for (let from = 0; from < keys.length; from += LOCATE_KEYS) {
    const chunks = await lookup.locateKeys(record, keys.slice(from, from + LOCATE_KEYS))
    await session.run(`INSERT INTO temp.located SELECT ${String(from)} + i - 1, l[i] FROM (SELECT [${chunks.join(',')}] AS l), generate_series(1, ${String(chunks.length)}) g(i)`)
  }
  const match = names.map((name) => `s.${name} = k.${name}`).join(' AND ')
  return `SELECT s.rowid AS r, l.chunk, s.xid FROM ${STAGED} s JOIN temp.keys k ON ${match} JOIN temp.located l ON l.k = k.k`
}
