import type { RowLookup, TableRecord, TransactionContext } from '../../model/destination.ts'
import { DomainError } from '../../model/errors.ts'
import { ZERO_LSN, type Lsn } from '../../model/lsn.ts'
import { isAppendOnly, kindsOf, type Shape, type ShapeKind, shapesOf } from '../../model/shapes.ts'
import { tableKey, type TableName } from '../../model/table-schema.ts'
import { addedNames, hasDropped } from './added-columns.ts'
import type { DatabaseSession } from './database.ts'
import { judgeStaged, type DeferredRows } from './judged-rows.ts'
import { hasMarkedRow, mergeMarked } from './soft-delete.ts'
import { type Misfits, TableRefused } from './misfits.ts'
import { identityOf } from './row-identity.ts'
import { quoteTable } from './sql.ts'
import { keyNames, keysMatch, selectStaged, STAGED, stagedValue, readStaged, targetNames, targetTypes, valueNames } from './staged-rows.ts'
import { stagingColumns, type RowsStep } from './steps.ts'
import { microsText } from './table-writer.ts'
import { toPostgresText } from './type-mapping.ts'
import { fillMoves, fillUnchanged } from './unchanged.ts'
import { addVersions, addWholeVersions } from './versions.ts'
import { noteTouched } from './watched-rows.ts'

/** The words of `_op` for the letters of a staged row. */
const OP_WORD = "CASE op WHEN 'U' THEN 'update' WHEN 'D' THEN 'delete' WHEN 'X' THEN 'delete' WHEN 'S' THEN 'snapshot' ELSE 'insert' END"

/** What there is to add to a row. */
interface Meta {
  readonly op: string
  readonly lsn: string
  readonly sequence: string
  readonly committedAt: string
}

const STAGED_META: Meta = { op: OP_WORD, lsn: 'lsn', sequence: 'seq', committedAt: 'committed_at' }

function copiedMeta({ commitLsn, commitTimeMicros }: TransactionContext): Meta {
  return { op: "'snapshot'", lsn: `${String(commitLsn)}::UBIGINT`, sequence: '0', committedAt: `'${microsText(commitTimeMicros)}'::TIMESTAMPTZ` }
}

/** What a new row has in the columns of ours, in their order. */
function addedValues(kind: ShapeKind, { op, lsn, sequence, committedAt }: Meta): readonly string[] {
  switch (kind) {
    case 'merge':
      return [lsn]
    case 'soft':
      return [lsn, 'NULL']
    case 'append':
      return [op, lsn, sequence, committedAt]
    case 'scd2':
      return [committedAt, 'NULL', 'true', lsn, 'NULL']
    default:
      return kind satisfies never
  }
}

/** Source changes that count. */
export interface RowCounts {
  readonly inserts: number
  readonly updates: number
  readonly deletes: number
}

export interface AppliedRows {
  readonly counts: RowCounts
  /** As {@link fillUnchanged} returns it. */
  readonly seenLsn: Lsn
  /** Changes that were kept with NULL for a value that the stream left out and nobody has any more. */
  readonly unknownChanges: number
}

type StagedOutcome = Omit<AppliedRows, 'counts'>

/** Applies one rows step to every shape of the table; `into` is the first one's name. Tells what counted, and what was set aside for a running copy. */
export async function applyRows(
  session: DatabaseSession,
  step: RowsStep,
  record: TableRecord,
  into: TableName,
  lookup: RowLookup,
  misfits: Misfits | null = null,
): Promise<AppliedRows & { readonly deferred: readonly DeferredRows[] }> {
  const shapes = shapesOf(record, into)
  const isWatched = session.watches.of(into) !== null
  // Rows that the source wrote are a copy's, which nobody can watch.
  if ((!isWatched || step.common !== null) && canGoStraight(step, record) && !(await mayClearMarks(session, step, shapes))) {
    session.watches.void(into)
    await insertStraight(session, step, record, shapes)
    return { counts: step, seenLsn: ZERO_LSN, unknownChanges: 0, deferred: [] }
  }
  await session.run(`CREATE OR REPLACE TEMP TABLE staged_rows AS ${selectStaged(step, record)}`)
  await fillMoves(session, step, record, into)
  await misfits?.note(step, record)
  const deferred = step.isFiltered ? await judgeStaged(session, step, record, lookup) : []
  const counts = step.isFiltered ? await countStaged(session) : step
  return { counts, ...(await applyStaged(session, step, record, into, lookup)), deferred }
}

/** Applies rows that were set aside, now that their chunk is there. */
export async function applyDeferred(session: DatabaseSession, deferred: DeferredRows, record: TableRecord, into: TableName, lookup: RowLookup): Promise<AppliedRows> {
  const texts = await widenedSince(session, deferred, record)
  await session.run(`CREATE OR REPLACE TEMP TABLE staged_rows AS SELECT *${texts.length === 0 ? '' : ` REPLACE (${texts.join(', ')})`} FROM ${deferred.table} ORDER BY rowid`)
  const counts = await countStaged(session)
  return { counts, ...(await applyStaged(session, deferred.step, record, into, lookup)) }
}

/** Columns that have become text since the rows were set aside: what their values are then (see `widenColumn`). */
async function widenedSince(session: DatabaseSession, { table, step }: DeferredRows, record: TableRecord): Promise<readonly string[]> {
  const types = new Map((await session.rows(`SELECT column_name, column_type FROM (DESCRIBE ${table})`)).map(([name, type]) => [String(name), shortType(String(type))]))
  return step.columns.flatMap(({ name }, index) => {
    const cell = `c${String(index)}`
    const type = types.get(cell) ?? 'VARCHAR'
    const isWidened = type !== 'VARCHAR' && record.columns.some((column) => column.name === name && column.type === 'VARCHAR')
    return isWidened ? [`${toPostgresText(type, cell)} AS ${cell}`] : []
  })
}

/** DuckDB describes two types by more words than it is told them by. */
function shortType(type: string): string {
  return type.replace('TIMESTAMP WITH TIME ZONE', 'TIMESTAMPTZ').replace('TIME WITH TIME ZONE', 'TIMETZ')
}

async function countStaged(session: DatabaseSession): Promise<RowCounts> {
  const [row] = await session.rows(`SELECT count(*) FILTER (op = 'I')::INTEGER, count(*) FILTER (op IN ('U', 'N', 'M'))::INTEGER, count(*) FILTER (op = 'D')::INTEGER FROM ${STAGED}`)
  return { inserts: Number(row?.[0] ?? 0), updates: Number(row?.[1] ?? 0), deletes: Number(row?.[2] ?? 0) }
}

async function applyStaged(session: DatabaseSession, step: RowsStep, record: TableRecord, into: TableName, lookup: RowLookup): Promise<StagedOutcome> {
  const seenLsn = await fillUnchanged(session, step, record, into, lookup)
  const unknownChanges = await countUnknown(session, step, record)
  const watch = session.watches.of(into)
  if (watch !== null) await noteTouched(session, watch, step, record)
  for (const shape of shapesOf(record, into)) await applyToShape(session, step, record, shape)
  await session.run('DROP TABLE temp.staged_rows')
  return { seenLsn, unknownChanges }
}

/** `merge` leaves such rows out until a later change tells them. */
async function countUnknown(session: DatabaseSession, { unchanged }: RowsStep, record: TableRecord): Promise<number> {
  if (unchanged.size === 0 || kindsOf(record).every((kind) => kind === 'merge')) return 0
  const [row] = await session.rows(`SELECT count(*)::INTEGER FROM ${STAGED} WHERE u IS NOT NULL AND op NOT IN ('D', 'X')`)
  return Number(row?.[0] ?? 0)
}

async function applyToShape(session: DatabaseSession, step: RowsStep, record: TableRecord, { kind, table }: Shape): Promise<void> {
  const hasKey = step.keyIndexes.length > 0
  switch (kind) {
    case 'merge':
      if (hasKey) await mergeByKey(session, step, record, table)
      else await mergeWholeRows(session, step, record, table)
      return
    case 'soft':
      await mergeMarked(session, step, table, { targets: targetNames(step, kind), values: valueNames(step, kind) })
      return
    case 'append':
      await appendStaged(session, step, table)
      return
    case 'scd2':
      if (hasKey) await addVersions(session, step, table)
      else if ((await addWholeVersions(session, step, record, table)) > 0 && !record.isPartial) throw new TableRefused(record.oid, rowsMissing(record))
      return
    default:
      kind satisfies never
  }
}

/** Only copied rows or inserts of new ones, whose keys no shape can have; or nothing but a history to which everything is added. */
export function canGoStraight(step: RowsStep, record: TableRecord): boolean {
  if (step.isFiltered || step.unchanged.size > 0 || step.misfits.size > 0) return false
  if (isAppendOnly(record)) return true
  const mayRepeat = record.mayRepeat === true && step.keyIndexes.length > 0 && step.inserts > 0
  return !step.hasChanges && !mayRepeat
}

/** May an inserted row have the key of a marked one? Not a copied one: the copy comes before every change. */
async function mayClearMarks(session: DatabaseSession, step: RowsStep, shapes: readonly Shape[]): Promise<boolean> {
  const soft = shapes.find(({ kind }) => kind === 'soft')
  return soft !== undefined && step.inserts > 0 && (await hasMarkedRow(session, soft.table))
}

async function insertStraight(session: DatabaseSession, step: RowsStep, record: TableRecord, shapes: readonly Shape[]): Promise<void> {
  const meta = step.common === null ? STAGED_META : copiedMeta(step.common)
  for (const { kind, table } of shapes) {
    const values = step.columns.flatMap(({ isDropped }, index) => (isDropped && !hasDropped(kind) ? [] : [stagedValue(step, index, record)]))
    const inserted = await session.run(
      `INSERT INTO ${targetList(step, kind, table)} SELECT ${[...values, ...addedValues(kind, meta)].join(', ')} FROM ${readStaged(step, stagingColumns(step))}`,
    )
    if (inserted !== step.rowCount) throw new RangeError(`${String(step.rowCount)} staged rows were read as ${String(inserted)}`)
  }
}

/** A shape with the names of the columns that a row of `valueNames` and what the shape adds go to. */
export function targetList(step: RowsStep, kind: ShapeKind, into: TableName): string {
  return `${quoteTable(into)} (${[...targetNames(step, kind), ...addedNames(kind)].join(', ')})`
}

async function appendStaged(session: DatabaseSession, step: RowsStep, into: TableName): Promise<void> {
  await session.run(
    `INSERT INTO ${targetList(step, 'append', into)} SELECT ${[...valueNames(step, 'append'), ...addedValues('append', STAGED_META)].join(', ')} FROM ${STAGED} ORDER BY rowid`,
  )
}

/** Facts 15: delete the keys that changed, insert the last row of each key. */
async function mergeByKey(session: DatabaseSession, step: RowsStep, { mayRepeat }: TableRecord, into: TableName): Promise<void> {
  const keys = keyNames(step)
  await session.run(
    `DELETE FROM ${quoteTable(into)} AS t USING (SELECT DISTINCT ${keys} FROM ${STAGED}${mayRepeat === true ? '' : " WHERE op <> 'I'"}) AS s WHERE ${keysMatch(step, 's', 't')};
     INSERT INTO ${targetList(step, 'merge', into)} SELECT ${[...valueNames(step, 'merge'), 'lsn'].join(', ')} FROM ${STAGED} s
     WHERE s.op NOT IN ('D', 'X') AND s.u IS NULL AND s.rowid IN (SELECT max(rowid) FROM ${STAGED} GROUP BY ${keys})`,
  )
}

/**
 * REPLICA IDENTITY FULL without a key: rows are told apart by their whole content, exact duplicates are counted. Each delete takes
 * one equal row that was there before, and when there is none left, the first equal row inserted in this step. A row that is nowhere
 * would stay for ever in the spelling that it has here: that is an error of the table, except where it was never loaded whole.
 *
 * Equal rows are taken out together, and those too many come back: a source's column may be named as DuckDB's rowid, and hide it.
 */
async function mergeWholeRows(session: DatabaseSession, step: RowsStep, record: TableRecord, into: TableName): Promise<void> {
  const names = valueNames(step, 'merge')
  const columns = targetNames(step, 'merge')
  const types = targetTypes(columns, record)
  const same = (place: number, value: string): string => identityOf(types[place] ?? '', value)
  const matches = (alias: string, valueOf: (place: number) => string): string =>
    ['true', ...names.map((name, place) => `${same(place, valueOf(place))} IS NOT DISTINCT FROM ${alias}.${name}`)].join(' AND ')
  const ofTable = (place: number): string => `t.${columns[place] ?? ''}`
  const ofStaged = (place: number): string => `s.${names[place] ?? ''}`
  const identity = names.map((name, place) => `${same(place, name)} AS ${name}`)
  const equals = names.map((name, place) => same(place, name))
  await session.run(
    `CREATE OR REPLACE TEMP TABLE gone AS SELECT ${[...names, 'count(*) AS n'].join(', ')}
       FROM (SELECT ${[...identity, 'op'].join(', ')} FROM ${STAGED} WHERE op IN ('D', 'X')) ${names.length === 0 ? '' : `GROUP BY ${names.join(', ')}`} HAVING count(*) > 0;
     CREATE OR REPLACE TEMP TABLE equal_rows AS
       SELECT ${[...columns.map((column, place) => `t.${column} AS ${names[place] ?? ''}`), 't._lsn AS lsn'].join(', ')}, g.rowid AS g, g.n AS n, row_number() OVER (PARTITION BY g.rowid ORDER BY t._lsn) AS place
       FROM ${quoteTable(into)} t JOIN gone g ON ${matches('g', ofTable)};
     DELETE FROM ${quoteTable(into)} AS t USING gone g WHERE ${matches('g', ofTable)};
     INSERT INTO ${targetList(step, 'merge', into)} SELECT ${[...names, 'lsn'].join(', ')} FROM equal_rows WHERE place > n;
     CREATE OR REPLACE TEMP TABLE excess AS SELECT ${[...names, 'greatest(0, n - (SELECT count(*) FROM equal_rows v WHERE v.g = gone.rowid)) AS n'].join(', ')} FROM gone;
     INSERT INTO ${targetList(step, 'merge', into)} SELECT ${[...names.map((name) => `s.${name}`), 's.lsn'].join(', ')}
       FROM (SELECT *, rowid AS r, row_number() OVER (${names.length === 0 ? '' : `PARTITION BY ${equals.join(', ')} `}ORDER BY rowid) AS place FROM ${STAGED} WHERE op NOT IN ('D', 'X')) s
       LEFT JOIN excess e ON ${matches('e', ofStaged)}
       WHERE s.place > coalesce(e.n, 0) ORDER BY s.r`,
  )
  if (record.isPartial) return
  const [missing] = await session.rows(
    `SELECT count(*)::INTEGER FROM excess e WHERE e.n > (SELECT count(*) FROM ${STAGED} s WHERE s.op NOT IN ('D', 'X') AND ${matches('e', ofStaged)})`,
  )
  if (missing?.[0] !== 0) throw new TableRefused(record.oid, rowsMissing(record))
}

function rowsMissing(record: TableRecord): DomainError {
  return new DomainError({
    kind: 'DestinationFailed',
    message: `${tableKey(record.source)} has no key, and a row that the source has changed or deleted is not in the destination as the source had it`,
    remedy: 'let the table be copied anew: start with "reset": true; a key or a replica identity index at the source keeps it from happening',
    permanent: true,
  })
}
