import type { TableRecord } from '../../model/destination.ts'
import type { Suspect } from '../../model/comparison.ts'
import { tableKey, type TableName } from '../../model/table-schema.ts'
import { columnsOf } from './added-columns.ts'
import { comparedText, comparedValue } from './compared-values.ts'
import type { DatabaseSession } from './database.ts'
import { literalOf } from './literals.ts'
import { quoteText } from './sql.ts'
import { STAGED, valueNames } from './staged-rows.ts'
import type { RowsStep } from './steps.ts'

/** Values of one statement. */
const VALUES_PER_STATEMENT = 2_000

/**
 * Rows of one table of which it is noted whether an apply touches them, for as long as somebody compares them with the source. Temporary tables of the writing
 * connection hold them, so that a note goes with its transaction.
 */
export interface Watch {
  /** Their places: `w.n`, and their keys `w.k0`, … or what tells their content, `w.k0`. */
  readonly watched: string
  /** Places that have been touched: `n`; `is_whole` where a change gave the whole row, so that it is what it is whatever stood there before. */
  readonly touched: string
  /** Something happened that concerns all rows of the table. */
  isVoid: boolean
}

/** What is watched in one file, by destination table. */
export class Watches {
  readonly #watches = new Map<string, Watch>()
  #names = 0

  of(table: TableName): Watch | null {
    return this.#watches.get(tableKey(table)) ?? null
  }

  /** All rows of the table are of another kind, or gone, or new. Idempotent; also for a transaction that is rolled back. */
  void(table: TableName): void {
    const watch = this.of(table)
    if (watch !== null) watch.isVoid = true
  }

  async begin(session: DatabaseSession, record: TableRecord, suspects: readonly Suspect[]): Promise<Watch> {
    const name = tableKey(record.target)
    // Whoever watched before sees all rows as touched, and watches again.
    this.void(record.target)
    const place = String(this.#names++)
    const watch: Watch = { watched: `temp.watched_${place}`, touched: `temp.touched_${place}`, isVoid: false }
    await createSuspects(session, watch.watched, record, suspects)
    await session.run(`CREATE TEMP TABLE touched_${place} (n BIGINT, is_whole BOOLEAN)`)
    this.#watches.set(name, watch)
    return watch
  }

  async end(session: DatabaseSession, record: TableRecord, watch: Watch): Promise<void> {
    if (this.of(record.target) === watch) this.#watches.delete(tableKey(record.target))
    await session.run(`DROP TABLE IF EXISTS ${watch.watched}; DROP TABLE IF EXISTS ${watch.touched}`)
  }
}

/** Makes the temporary table of suspects: `n` is the place, `k0`, … the key; or `k0` what tells a row's content. */
export async function createSuspects(session: DatabaseSession, name: string, record: TableRecord, suspects: readonly Suspect[]): Promise<void> {
  const key = keyColumns(record)
  const types = key.length === 0 ? ['VARCHAR'] : key.map(({ type }) => type)
  await session.run(`CREATE OR REPLACE TEMP TABLE ${name.replace('temp.', '')} (n BIGINT, ${types.map((type, index) => `k${String(index)} ${type}`).join(', ')})`)
  for (let from = 0; from < suspects.length; from += VALUES_PER_STATEMENT) {
    const rows = suspects.slice(from, from + VALUES_PER_STATEMENT).map((suspect, index) => {
      const values = key.length === 0 ? [quoteText(suspect[0] ?? '')] : key.map((column, place) => literalOf(column, suspect[place] ?? null) ?? 'NULL')
      return `(${[String(from + index), ...values].join(', ')})`
    })
    await session.run(`INSERT INTO ${name} VALUES ${rows.join(', ')}`)
  }
}

/** Notes which watched rows the staged ones are of. To be called when these are whole, and before they are applied. */
export async function noteTouched(session: DatabaseSession, watch: Watch, step: RowsStep, record: TableRecord): Promise<void> {
  const key = keyColumns(record)
  const values = key.length === 0 ? [contentOf(record, valueNames(step, 'merge').map((name) => `s.${name}`))] : step.keyIndexes.map((index) => `s.c${String(index)}`)
  const matches = values.map((value, index) => `w.k${String(index)} IS NOT DISTINCT FROM ${value}`).join(' AND ')
  // A value that was left out comes from the row that was here.
  const isWhole = key.length > 0 && step.unchanged.size === 0 && step.misfits.size === 0
  await session.run(`INSERT INTO ${watch.touched} SELECT DISTINCT w.n, ${String(isWhole)} FROM ${watch.watched} w JOIN ${STAGED} s ON ${matches}`)
}

/** The columns of the key; none where whole rows are told apart. */
export function keyColumns({ key, columns }: TableRecord): TableRecord['columns'] {
  return key.flatMap((name) => columns.filter((column) => column.name === name && !column.isDropped))
}

/** What tells the content of a row from others; `values` are those of the columns that are there now, in their order. */
export function contentOf(record: TableRecord, values: readonly string[]): string {
  return contentOfCompared(record, columnsOf('merge', record.columns).map((column, index) => comparedValue(column, values[index] ?? 'NULL')))
}

/** The same, of values that `comparedValue` has made. */
export function contentOfCompared(record: TableRecord, compared: readonly string[]): string {
  const texts = columnsOf('merge', record.columns).map((column, index) => comparedText(column, compared[index] ?? 'NULL'))
  return `md5(to_json([${texts.join(', ')}])::VARCHAR)`
}
