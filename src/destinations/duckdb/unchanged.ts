import type { RowLookup, TableRecord, TargetColumn } from '../../model/destination.ts'
import { DomainError } from '../../model/errors.ts'
import { formatLsn, maxLsn, parseLsn, ZERO_LSN, type Lsn } from '../../model/lsn.ts'
import { shapesOf } from '../../model/shapes.ts'
import { tableKey, type TableName } from '../../model/table-schema.ts'
import type { DatabaseSession } from './database.ts'
import { toPostgresText } from './type-mapping.ts'
import { literalOf } from './literals.ts'
import { TableRefused } from './misfits.ts'
import { quoteName, quoteTable } from './sql.ts'
import { keyNames, keysMatch, STAGED } from './staged-rows.ts'
import type { RowsStep } from './steps.ts'

const NO_LSN = formatLsn(ZERO_LSN)

/** Keys asked of the source at once. */
const LOOKUP_ROWS = 1_000

/** A statement that notes answers ends after this many characters: values may be large. */
const STATEMENT_LENGTH = 1_000_000

/**
 * Fills in unchanged TOAST values (facts 6) of the staged rows: from an earlier change of the same key in this step, else from the
 * destination's row as it is before the step, else from the source by key.
 *
 * NULL is no unchanged value: TOAST holds none. What the source has under that key no more stays listed in `u`: the row has moved on or is gone, which
 * comes later in the stream. In `merge` it is not put here, so that nobody takes it for whole. Returns the position that the source's answers are of
 * (see `TableRecord.aheadUntilLsn`); 0 where it was not asked.
 */
export async function fillUnchanged(session: DatabaseSession, step: RowsStep, record: TableRecord, into: TableName, lookup: RowLookup): Promise<Lsn> {
  if (step.unchanged.size === 0) return ZERO_LSN
  const indexes = [...step.unchanged].sort((a, b) => a - b)
  await session.run(`CREATE OR REPLACE TEMP TABLE needed AS SELECT DISTINCT ${keyNames(step)} FROM ${STAGED} WHERE u IS NOT NULL`)
  await fillFromEarlier(session, step, record, indexes, currentRows(step, record, into))
  return fillFromSource(session, step, record, indexes, lookup)
}

const isUnchanged = (alias: string, index: number): string => `contains(${alias}.u, ',${String(index)},')`

/** The rows that stand for the present, in the shape where they are found at the least cost; in an `append` table the latest change of each key that is needed. */
function currentRows(step: RowsStep, record: TableRecord, into: TableName): string {
  const shapes = shapesOf(record, into)
  const present = shapes.find(({ kind }) => kind === 'merge' || kind === 'soft')
  if (present?.kind === 'merge') return quoteTable(present.table)
  if (present !== undefined) return `(SELECT * FROM ${quoteTable(present.table)} WHERE _deleted_at IS NULL)`
  const versions = shapes.find(({ kind }) => kind === 'scd2')
  if (versions !== undefined) return `(SELECT * FROM ${quoteTable(versions.table)} WHERE _is_current)`
  const keys = step.keyIndexes.map((index) => `t.${quoteName(step.columns[index]?.name ?? '')}`).join(', ')
  return `(SELECT * FROM (SELECT t.* FROM ${quoteTable(into)} t SEMI JOIN ${STAGED} s ON ${keysMatch(step, 's', 't')}
    QUALIFY row_number() OVER (PARTITION BY ${keys} ORDER BY t._lsn DESC, t._seq DESC) = 1) WHERE _op <> 'delete')`
}

/**
 * Fills in the unchanged values of moved rows (a key change) from the row of the old key. A moved row stands right behind the delete of
 * its old key, so this comes before any row is taken out of `staged_rows`. What the destination does not have stays listed in `u`.
 * Beside a copy all do: under the old key there may be another row by now, which the copy has seen and the moved one's chunk has not. So do those before the
 * position that the source was last asked at: what it said of the old key may be of a row that has come there since, and would be taken along.
 */
export async function fillMoves(session: DatabaseSession, step: RowsStep, record: TableRecord, into: TableName): Promise<void> {
  if (!step.hasMoves || step.isFiltered) return
  const indexes = [...step.unchanged]
  const values = indexes.map((index) => `t.${quoteName(step.columns[index]?.name ?? '')} AS t${String(index)}`)
  await fillFrom(session, step, record, {
    values: new Map(indexes.map((index) => [index, `f.t${String(index)}`])),
    from: `SELECT ${['n.rowid AS r', ...values].join(', ')} FROM ${STAGED} n JOIN ${STAGED} d ON d.rowid = n.rowid - 1 JOIN ${currentRows(step, record, into)} t ON ${keysMatch(step, 'd', 't')}
           WHERE n.op = 'M' AND n.u IS NOT NULL AND n.lsn >= ${String(parseLsn(record.aheadUntilLsn ?? NO_LSN))}`,
    on: 'm.rowid = f.r',
  })
}

async function fillFromEarlier(session: DatabaseSession, step: RowsStep, record: TableRecord, indexes: readonly number[], current: string): Promise<void> {
  // A one-element list tells a value of an earlier row from no earlier row. An empty one: the row of before has left the key, or one has come to it whose
  // value is not known here; neither what stood under the key before nor the destination's row is the one that is looked for.
  const earlier = indexes.map((index) => {
    const value = `[s.c${String(index)}]`
    return `last_value(CASE WHEN s.op IN ('D', 'X') THEN ${value}[2:] WHEN s.u IS NULL OR NOT ${isUnchanged('s', index)} THEN ${value} WHEN s.op = 'M' THEN ${value}[2:] END IGNORE NULLS)
       OVER (PARTITION BY ${keyNames(step)} ORDER BY s.rowid ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS e${String(index)}`
  })
  const columns = indexes.map((index) => `t.${quoteName(step.columns[index]?.name ?? '')} AS t${String(index)}`)
  const valueOf = (i: string): string => `CASE WHEN f.op = 'M' THEN NULL WHEN f.e${i} IS NOT NULL THEN f.e${i}[1] ELSE f.t${i} END`
  await session.run(
    `CREATE OR REPLACE TEMP TABLE filled AS SELECT w.*, ${columns.join(', ')}
     FROM (SELECT s.rowid AS r, s.op, s.u, ${step.keyIndexes.map((index) => `s.c${String(index)}`).join(', ')}, ${earlier.join(', ')}
           FROM ${STAGED} s SEMI JOIN needed n ON ${step.keyIndexes.map((index) => `s.c${String(index)} = n.c${String(index)}`).join(' AND ')}) w
     LEFT JOIN ${current} t ON ${keysMatch(step, 'w', 't')}
     WHERE w.u IS NOT NULL`,
  )
  await fillFrom(session, step, record, { values: new Map(indexes.map((index) => [index, valueOf(String(index))])), from: 'FROM temp.filled', on: 'm.rowid = f.r' })
}

/** Rows whose value nobody has: read from the source as they are now; what changed since comes later in the stream. */
async function fillFromSource(session: DatabaseSession, step: RowsStep, record: TableRecord, indexes: readonly number[], lookup: RowLookup): Promise<Lsn> {
  const keyTexts = step.keyIndexes.map((index) => toPostgresText(columnNow(step, record, index).type, `c${String(index)}`))
  // What the source answers tells the row only where the key is asked for, too.
  const asked = [...step.keyIndexes, ...indexes]
  const rows = await session.rows(`SELECT DISTINCT ${keyTexts.join(', ')} FROM ${STAGED} WHERE u IS NOT NULL AND op NOT IN ('D', 'X')`)
  if (rows.length === 0) return ZERO_LSN
  let seenLsn = ZERO_LSN
  const columns = asked.map((index) => columnNow(step, record, index))
  // As values: a DECIMAL's text has more digits than the numeric's.
  await session.run(`CREATE OR REPLACE TEMP TABLE answers AS SELECT ${asked.map((index, place) => `c${String(index)} AS a${String(place)}`).join(', ')} FROM ${STAGED} LIMIT 0`)
  const given = columns.map(() => 0)
  for (let from = 0; from < rows.length; from += LOOKUP_ROWS) {
    const keys = rows.slice(from, from + LOOKUP_ROWS) as readonly (readonly string[])[]
    const { rows: found, lsn } = await lookup.readRows(record, keys, columns.map(({ name }) => name))
    seenLsn = maxLsn(seenLsn, lsn)
    let values: string[] = []
    let length = 0
    for (const [place, row] of found.entries()) {
      const value = `(${columns.map((column, at) => literalOf(column, row[at] ?? null, 'TRY_CAST') ?? refuse(record, column)).join(', ')})`
      for (const at of columns.keys()) if ((row[at] ?? null) !== null) given[at] = (given[at] ?? 0) + 1
      values.push(value)
      length += value.length
      if (length < STATEMENT_LENGTH && place < found.length - 1) continue
      await session.run(`INSERT INTO temp.answers VALUES ${values.join(', ')}`)
      values = []
      length = 0
    }
  }
  const [held] = await session.rows(`SELECT ${columns.map((_, at) => `count(a${String(at)})::INTEGER`).join(', ')} FROM temp.answers`)
  for (const [at, column] of columns.entries()) if (held?.[at] !== given[at]) refuse(record, column)
  await fillFrom(session, step, record, {
    values: new Map(indexes.map((index, place) => [index, `f.a${String(step.keyIndexes.length + place)}`])),
    from: 'FROM temp.answers',
    on: `m.u IS NOT NULL AND ${step.keyIndexes.map((index, place) => `m.c${String(index)} = f.a${String(place)}`).join(' AND ')}`,
    isFinal: true,
  })
  await session.run('DROP TABLE temp.answers')
  return seenLsn
}

/** Values for the staged columns by index, as expressions over row `f` of `from` that goes with staged row `m`. */
interface Filling {
  readonly values: ReadonlyMap<number, string>
  readonly from: string
  readonly on: string
  /** NULL is the source's answer. Else a value that was left out is never NULL (facts 6), so that NULL is none: the place stays listed in `u`. */
  readonly isFinal?: boolean
}

async function fillFrom(session: DatabaseSession, step: RowsStep, record: TableRecord, { values, from, on, isFinal = false }: Filling): Promise<void> {
  const sets = new Map([...values].map(([index, value]) => [`c${String(index)}`, `CASE WHEN ${isUnchanged('m', index)} THEN ${value} ELSE m.c${String(index)} END`]))
  const missing = [...values].map(([index, value]) => `CASE WHEN ${isUnchanged('m', index)} AND (${value}) IS NULL THEN '${String(index)},' ELSE '' END`)
  sets.set('u', isFinal ? 'NULL' : `nullif(',' || ${missing.join(' || ')}, ',')`)
  if (![...values.keys()].some((index) => columnNow(step, record, index).type.endsWith('[]'))) {
    await session.run(`UPDATE ${STAGED} AS m SET ${[...sets].map(([name, value]) => `${name} = ${value}`).join(', ')} FROM (${from}) AS f WHERE ${on}`)
    return
  }
  // DuckDB (1.5.5) puts a row behind all others where a list in it is updated, and what came last counts: the rows are written anew, in their order.
  const replaced = [...sets].map(([name, value]) => `CASE WHEN f.is_there THEN ${value} ELSE m.${name} END AS ${name}`)
  await session.run(
    `CREATE OR REPLACE TEMP TABLE rewritten AS SELECT m.* REPLACE (${replaced.join(', ')}) FROM ${STAGED} m LEFT JOIN (SELECT *, true AS is_there FROM (${from})) AS f ON ${on} ORDER BY m.rowid;
     CREATE OR REPLACE TEMP TABLE staged_rows AS SELECT * FROM temp.rewritten ORDER BY rowid;
     DROP TABLE temp.rewritten`,
  )
}

/** A staged column, with the type that its values have in `staged_rows`: see `stagedValue`. */
function columnNow(step: RowsStep, record: TableRecord, index: number): TargetColumn {
  const staged = step.columns[index]
  if (staged === undefined) throw new RangeError('an unchanged value outside the columns')
  return record.columns.find(({ name }) => name === staged.name) ?? staged
}

/** It came by no staged row, so nothing widens the column for it: the table stops instead of holding NULL. */
function refuse(record: TableRecord, column: TargetColumn): never {
  const reason = new DomainError({
    kind: 'UnrepresentableValue',
    message: `${tableKey(record.source)}: a value of column ${quoteName(column.name)} that was read from the source, as the stream leaves it out, does not fit ${column.type}`,
    remedy: 'stop, and start with the hint "VARCHAR" for it in columns: the table is copied anew with it',
  })
  throw new TableRefused(record.oid, reason)
}
