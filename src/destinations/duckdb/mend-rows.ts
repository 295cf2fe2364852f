import type { Difference } from '../../model/comparison.ts'
import type { TableRecord } from '../../model/destination.ts'
import type { Lsn } from '../../model/lsn.ts'
import { type Shape, shapesOf } from '../../model/shapes.ts'
import { addedNames } from './added-columns.ts'
import { copiedLsn } from './chunk-stage.ts'
import { liveNames } from './current-rows.ts'
import type { DatabaseSession } from './database.ts'
import { quoteName, quoteTable } from './sql.ts'
import { microsText } from './table-writer.ts'
import { contentOf, keyColumns } from './watched-rows.ts'

export interface Mending {
  readonly differences: readonly Difference[]
  /** The table of watched places with their keys or contents. */
  readonly watched: string
  /** `SELECT` of all rows that the source has of them, under the names that they have here. */
  readonly select: string
  /** Everything that committed before it has been applied, and nothing else. */
  readonly appliedLsn: Lsn
  /** When the source's rows were read. */
  readonly timeMicros: bigint
}

/** What the statements for one shape have at hand. */
interface Place {
  readonly session: DatabaseSession
  readonly record: TableRecord
  readonly table: string
  /** Columns of the source, quoted. */
  readonly names: readonly string[]
  /** `_lsn` and time of what is written. */
  readonly lsn: string
  readonly time: string
  /** Does row `t` belong to what is mended (`m`)? */
  readonly isOf: string
}

/**
 * Puts the source's rows in the place of those that differ, in the shapes in which they do, as a copy would: current rows are replaced; what holds the past gets
 * the change behind everything that has been applied. For a running transaction in which none of these rows has been touched since the source's were read.
 */
export async function mendRows(session: DatabaseSession, record: TableRecord, mending: Mending): Promise<void> {
  const { differences, watched, select, appliedLsn, timeMicros } = mending
  const key = keyColumns(record)
  const names = liveNames(record)
  const place = {
    session,
    record,
    names,
    lsn: `${String(copiedLsn(record, { ...NO_POSITION, rowLsn: appliedLsn, timeMicros }))}::UBIGINT`,
    time: `'${microsText(timeMicros)}'::TIMESTAMPTZ`,
  }
  const isOf = (alias: string): string =>
    key.length === 0
      ? `m.k0 = ${contentOf(record, names.map((name) => `${alias}.${name}`))}`
      : key.map(({ name }, index) => `m.k${String(index)} IS NOT DISTINCT FROM ${alias}.${quoteName(name)}`).join(' AND ')
  for (const [index, shape] of shapesOf(record, record.target).entries()) {
    const own = differences.flatMap(({ place: n, sourceRows, shapes }) => shapes.filter((differing) => differing.index === index).map(({ rows }) => `(${String(n)}, ${String(sourceRows - rows)})`))
    if (own.length === 0) continue
    await session.run(
      `CREATE OR REPLACE TEMP TABLE mended AS SELECT w.*, d.more FROM ${watched} w JOIN (VALUES ${own.join(', ')}) d(n, more) ON d.n = w.n;
       CREATE OR REPLACE TEMP TABLE fresh AS SELECT r.*, m.n AS __n, m.more AS __more, row_number() OVER (PARTITION BY m.n) AS __nth FROM (${select}) r JOIN temp.mended m ON ${isOf('r')}`,
    )
    await mendShape(shape, { ...place, table: quoteTable(shape.table), isOf: isOf('t') })
    await session.run('DROP TABLE temp.fresh; DROP TABLE temp.mended')
  }
}

const NO_POSITION = { index: 0, snapshot: '', lsn: 0n as Lsn }

async function mendShape({ kind }: Shape, { session, record, table, names, lsn, time, isOf }: Place): Promise<void> {
  const all = [...names, ...addedNames(kind)].join(', ')
  const fresh = names.map((name) => `f.${name}`)
  switch (kind) {
    case 'merge':
      await session.run(`DELETE FROM ${table} t USING temp.mended m WHERE ${isOf}; INSERT INTO ${table} (${all}) SELECT ${[...fresh, lsn].join(', ')} FROM temp.fresh f`)
      return
    case 'soft':
      // A row that the source does not have stays, marked; one that it has takes the place of a marked one, too.
      await session.run(
        `DELETE FROM ${table} t USING temp.mended m WHERE ${isOf} AND m.n IN (SELECT __n FROM temp.fresh);
         UPDATE ${table} t SET _deleted_at = ${time}, _lsn = ${lsn} FROM temp.mended m WHERE ${isOf} AND t._deleted_at IS NULL;
         INSERT INTO ${table} (${all}) SELECT ${[...fresh, lsn, 'NULL'].join(', ')} FROM temp.fresh f`,
      )
      return
    case 'scd2':
      await session.run(
        `UPDATE ${table} t SET _valid_to = ${time}, _closed_lsn = ${lsn}, _is_current = false FROM temp.mended m WHERE t._is_current AND ${isOf};
         INSERT INTO ${table} (${all}) SELECT ${[...fresh, time, 'NULL', 'true', lsn, 'NULL'].join(', ')} FROM temp.fresh f`,
      )
      return
    case 'append': {
      const meta = (op: string): readonly string[] => [op, lsn, '0', time]
      const isWhole = record.key.length === 0
      const gone = isWhole ? names : keyColumns(record).map(({ name }) => quoteName(name))
      const lost = isWhole
        // Of equal rows as many deletes as there are too many.
        ? `SELECT ${gone.map((name) => `any_value(t.${name}) AS ${name}`).join(', ')}, unnest(range(-any_value(m.more))) FROM ${table} t JOIN temp.mended m ON ${isOf} WHERE m.more < 0 GROUP BY m.n, m.more`
        : `SELECT ${gone.map((name, index) => `m.k${String(index)} AS ${name}`).join(', ')} FROM temp.mended m WHERE m.n NOT IN (SELECT __n FROM temp.fresh)`
      await session.run(
        `INSERT INTO ${table} (${[...gone, ...addedNames(kind)].join(', ')}) SELECT ${[...gone.map((name) => `t.${name}`), ...meta("'delete'")].join(', ')} FROM (${lost}) t;
         INSERT INTO ${table} (${all}) SELECT ${[...fresh, ...meta("'snapshot'")].join(', ')} FROM temp.fresh f${isWhole ? ' WHERE f.__nth <= f.__more' : ''}`,
      )
      return
    }
    default:
      kind satisfies never
  }
}

