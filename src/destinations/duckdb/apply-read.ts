import type { ChunkPosition, TableRecord } from '../../model/destination.ts'
import type { TableName } from '../../model/table-schema.ts'
import { targetList, type RowCounts } from './apply-rows.ts'
import type { DatabaseSession } from './database.ts'
import { quoteName, quoteTable } from './sql.ts'
import { keyNames, keysMatch, readStaged, stagedValue, valueNames } from './staged-rows.ts'
import { stagingColumns, type RowsStep } from './steps.ts'
import { microsText } from './table-writer.ts'

/** Rows that were read at the source and not streamed: for the time of a transaction. */
const READ = 'temp.read_rows'

type When = Pick<ChunkPosition, 'rowLsn' | 'timeMicros'>

/**
 * Puts rows that were read in the place of those with the same keys. An `append` history takes a row where it differs from the newest of its key:
 * what was read before may be read again, and a history in which nothing happened must not grow. Repeating it changes nothing.
 */
export async function applyReadRows(session: DatabaseSession, step: RowsStep, record: TableRecord, into: TableName, when: When): Promise<RowCounts> {
  await stageRead(session, [step], record)
  const counts = record.writeMode === 'append' ? await appendNewer(session, step, into, when) : await replaceRows(session, step, into, when)
  await session.run(`DROP TABLE ${READ}`)
  return counts
}

/** Rows whose keys are not among those of `steps` are gone: deleted, or noted as deleted. Returns how many. */
export async function applyReadKeys(session: DatabaseSession, steps: readonly RowsStep[], record: TableRecord, into: TableName, when: When): Promise<number> {
  const [step] = steps
  const key = record.key.map(quoteName)
  if (step !== undefined) await stageRead(session, steps, record)
  const isThere = step === undefined ? 'false' : `EXISTS (SELECT 1 FROM ${READ} s WHERE ${keysMatch(step, 's', 't')})`
  let count: number
  if (record.writeMode === 'append') {
    count = await session.run(
      `INSERT INTO ${quoteTable(into)} (${[...key, '_op', '_lsn', '_seq', '_committed_at'].join(', ')})
       SELECT ${[...key, "'delete'", lsnOf(when), '0', timeOf(when)].join(', ')} FROM (${newestOf(into, record.key, 'true')}) t WHERE t._op <> 'delete' AND NOT ${isThere}`,
    )
  } else count = await session.run(`DELETE FROM ${quoteTable(into)} AS t WHERE NOT ${isThere}`)
  if (step !== undefined) await session.run(`DROP TABLE ${READ}`)
  return count
}

async function stageRead(session: DatabaseSession, steps: readonly RowsStep[], record: TableRecord): Promise<void> {
  const selects = steps.map((step) => `SELECT ${step.encodings.map((_, index) => `${stagedValue(step, index, record)} AS c${String(index)}`).join(', ')} FROM ${readStaged(step, stagingColumns(step))}`)
  await session.run(`CREATE OR REPLACE TEMP TABLE read_rows AS ${selects.join(' UNION ALL ')}`)
}

async function replaceRows(session: DatabaseSession, step: RowsStep, into: TableName, when: When): Promise<RowCounts> {
  const updates = await session.run(`DELETE FROM ${quoteTable(into)} AS t USING ${READ} AS s WHERE ${keysMatch(step, 's', 't')}`)
  const rows = await session.run(`INSERT INTO ${targetList(step, 'merge', into)} SELECT ${[...valueNames(step, 'merge'), lsnOf(when)].join(', ')} FROM ${READ}`)
  return { inserts: Math.max(0, rows - updates), updates, deletes: 0 }
}

async function appendNewer(session: DatabaseSession, step: RowsStep, into: TableName, when: When): Promise<RowCounts> {
  const key = step.keyIndexes.map((index) => step.columns[index]?.name ?? '')
  const newest = newestOf(into, key, `(${key.map(quoteName).join(', ')}) IN (SELECT (${keyNames(step)}) FROM ${READ})`)
  const differs = step.columns.flatMap(({ name, type, isDropped }, index) =>
    isDropped ? [] : [`${comparable(`s.c${String(index)}`, type)} IS DISTINCT FROM ${comparable(`t.${quoteName(name)}`, type)}`],
  )
  await session.run(
    `CREATE OR REPLACE TEMP TABLE newer AS SELECT s.*, t._op IS NULL OR t._op = 'delete' AS is_new FROM ${READ} s LEFT JOIN (${newest}) t ON ${keysMatch(step, 's', 't')}
     WHERE t._op IS NULL OR t._op = 'delete' OR ${differs.join(' OR ')}`,
  )
  const meta = ["CASE WHEN is_new THEN 'insert' ELSE 'update' END", lsnOf(when), '0', timeOf(when)]
  await session.run(`INSERT INTO ${targetList(step, 'append', into)} SELECT ${[...valueNames(step, 'append'), ...meta].join(', ')} FROM temp.newer`)
  const [counted] = await session.rows('SELECT count(*) FILTER (is_new)::INTEGER, count(*) FILTER (NOT is_new)::INTEGER FROM temp.newer')
  await session.run('DROP TABLE temp.newer')
  return { inserts: Number(counted?.[0] ?? 0), updates: Number(counted?.[1] ?? 0), deletes: 0 }
}

/** The newest row of each key in a history. Of rows read at one position the later written is the newer: rowids grow, those of the running transaction most of all. */
function newestOf(table: TableName, key: readonly string[], condition: string): string {
  return `SELECT *, rowid AS r FROM ${quoteTable(table)} WHERE ${condition} QUALIFY row_number() OVER (PARTITION BY ${key.map(quoteName).join(', ')} ORDER BY _lsn DESC, r DESC) = 1`
}

/** DuckDB takes 0 and -0 for equal. */
function comparable(value: string, type: string): string {
  return /^(FLOAT|DOUBLE)/.test(type) ? `${value}::VARCHAR` : value
}

function lsnOf({ rowLsn }: When): string {
  return `${String(rowLsn)}::UBIGINT`
}

function timeOf({ timeMicros }: When): string {
  return `'${microsText(timeMicros)}'::TIMESTAMPTZ`
}
