import type { Difference, Judgement, RangeComparison, Repair, Suspect, TableChanged, TableComparison } from '../../model/comparison.ts'
import type { ChunkStage, PipelineKey, TableRecord } from '../../model/destination.ts'
import { parseLsn, ZERO_LSN, type Lsn } from '../../model/lsn.ts'
import { kindsOf, type Shape, shapesOf } from '../../model/shapes.ts'
import type { KeyRange } from '../../model/source.ts'
import { tableKey } from '../../model/table-schema.ts'
import { columnsOf } from './added-columns.ts'
import { readPipeline } from './checkpoint.ts'
import { DuckDbChunk } from './chunk-stage.ts'
import { comparedValue } from './compared-values.ts'
import { liveNames, selectCurrent } from './current-rows.ts'
import { type Database, type DatabaseSession, destinationError } from './database.ts'
import { keyRangeCondition, sharesOrder } from './key-order.ts'
import { mendRows } from './mend-rows.ts'
import { quoteName } from './sql.ts'
import { readStaged, stagedValue } from './staged-rows.ts'
import { type RowsStep, stagingColumns } from './steps.ts'
import { toPostgresText } from './type-mapping.ts'
import { contentOf, contentOfCompared, createSuspects, keyColumns, type Watch } from './watched-rows.ts'

const SHAPE_CHANGED: TableChanged = { tag: 'changed', reason: 'shape' }
const VALUE_MISFIT: TableChanged = { tag: 'changed', reason: 'value' }

/** Contents are counted in parts of so many bytes, as the rows came: in binary form, or as text, of which DuckDB held about five times as much in memory at once. */
const PART_BYTES = 80 * 2 ** 20
/** Each part reads the rows of both sides anew, so that more would take longer than what they spare is worth: larger ones are put on disk by DuckDB, beyond its memory limit. */
const MAX_PARTS = 8

/** Of temporary tables, and of staging files. */
let comparisons = 0

/** See the contract in model/comparison.ts. Everything is compared on the reading connection; only watch and repair are on the writer's. */
export class DuckDbComparison implements TableComparison {
  readonly table: TableRecord
  readonly isRanged: boolean
  readonly #database: Database
  readonly #pipeline: PipelineKey
  readonly #name = `compared_${String(comparisons++)}`
  readonly #shapes: readonly Shape[]
  #files = 0
  #watch: Watch | null = null

  constructor(database: Database, pipeline: PipelineKey, table: TableRecord) {
    this.table = table
    this.#database = database
    this.#pipeline = pipeline
    this.#shapes = shapesOf(table, table.target)
    this.isRanged = table.key.length > 0 && keyColumns(table).every(sharesOrder)
  }

  newRows(): ChunkStage {
    const position = { index: 0, snapshot: '', lsn: ZERO_LSN, rowLsn: ZERO_LSN, timeMicros: 0n }
    const name = `${this.#name}-${String(this.#files++)}`
    const { stagingDirectory: directory, withoutBinary } = this.#database
    return new DuckDbChunk({ directory, name, withoutBinary }, this.table, position)
  }

  async compare(rows: readonly ChunkStage[], range: KeyRange, reachedLsn: Lsn): Promise<RangeComparison | TableChanged> {
    const steps = stepsOf(rows)
    if (steps === null) return VALUE_MISFIT
    return this.#read(reachedLsn, async (session) => {
      const where = keyRangeCondition(keyColumns(this.table), range)
      const rowCount = steps.reduce((sum, step) => sum + step.rowCount, 0)
      await session.run(`CREATE OR REPLACE TEMP TABLE ${this.#name}_suspects (${this.#suspectColumns().join(', ')})`)
      for (const shape of this.#shapes) {
        if (this.table.key.length > 0 && (await this.#suspectByKey(session, { steps, rowCount, current: selectCurrent(shape, this.table, where) }))) continue
        await this.#suspectByContent(session, { steps, shape, where })
      }
      const [counted] = await session.rows(`SELECT count(*)::VARCHAR FROM temp.${this.#name}_suspects`)
      return { tag: 'compared', rowCount, suspectCount: Number(counted?.[0]) }
    })
  }

  async suspects(from: number, count: number): Promise<readonly Suspect[]> {
    return this.#database.reading(async (session) => {
      const width = this.#suspectColumns().length
      const names = Array.from({ length: width }, (_, index) => `t${String(index)}`)
      return (await session.rows(`SELECT ${names.join(', ')} FROM temp.${this.#name}_suspects ORDER BY rowid LIMIT ${String(count)} OFFSET ${String(from)}`)) as readonly Suspect[]
    })
  }

  async watch(suspects: readonly Suspect[]): Promise<void> {
    this.#watch = await this.#database.exclusive(async (session) => session.watches.begin(session, this.table, suspects))
    await this.#database.reading(async (session) => createSuspects(session, `temp.${this.#name}_watched`, this.table, suspects))
  }

  async compareWatched(rows: ChunkStage, reachedLsn: Lsn): Promise<readonly Difference[] | TableChanged> {
    const steps = stepsOf([rows])
    if (steps === null) return VALUE_MISFIT
    return this.#read(reachedLsn, async (session) => {
      const found = new Map<number, { sourceRows: number; shapes: { index: number; rows: number }[] }>()
      for (const [index, shape] of this.#shapes.entries()) {
        for (const [place, sourceRows, ownRows] of await this.#differing(session, shape, steps)) {
          const difference = found.get(place) ?? { sourceRows, shapes: [] }
          difference.shapes.push({ index, rows: ownRows })
          found.set(place, difference)
        }
      }
      return [...found].map(([place, difference]) => ({ place, ...difference })).sort((a, b) => a.place - b.place)
    })
  }

  async judge(differences: readonly Difference[], repair: Repair | null): Promise<Judgement | TableChanged> {
    const watch = this.#watch
    if (watch === null) throw new RangeError('nothing is watched')
    return this.#database.transaction(async (session) => {
      const appliedLsn = await this.#comparable(session, null)
      if (appliedLsn === null) return SHAPE_CHANGED
      if (watch.isVoid) return { tag: 'judged', touched: new Set(differences.map(({ place }) => place)), overwritten: new Set() }
      const rows = (await session.rows(`SELECT n::INTEGER, bool_or(is_whole) FROM ${watch.touched} GROUP BY n`)) as readonly (readonly [number, boolean])[]
      const touched = new Set(rows.map(([place]) => place))
      const overwritten = new Set(rows.filter(([, isWhole]) => isWhole).map(([place]) => place))
      const untouched = differences.filter(({ place }) => !touched.has(place))
      if (repair !== null && untouched.length > 0) {
        const steps = stepsOf([repair.rows])
        if (steps === null) return VALUE_MISFIT
        await mendRows(session, this.table, { differences: untouched, watched: watch.watched, select: this.#selectStaged(steps), appliedLsn, timeMicros: repair.timeMicros })
      }
      return { tag: 'judged', touched, overwritten }
    })
  }

  async unwatch(): Promise<void> {
    const watch = this.#watch
    if (watch === null) return
    this.#watch = null
    await this.#database.exclusive(async (session) => session.watches.end(session, this.table, watch))
  }

  async close(): Promise<void> {
    await this.unwatch()
    await this.#database.reading(async (session) => {
      await session.run(['suspects', 'watched', 'found'].map((name) => `DROP TABLE IF EXISTS temp.${this.#name}_${name}`).join('; '))
    })
  }

  /** Reads in one transaction in which the table is as it is compared; a value that does not fit its column ends it. */
  async #read<T>(reachedLsn: Lsn, work: (session: DatabaseSession) => Promise<T>): Promise<T | TableChanged> {
    return this.#database.reading(async (session) => {
      await session.run('BEGIN TRANSACTION')
      try {
        const result = (await this.#comparable(session, reachedLsn)) === null ? SHAPE_CHANGED : await work(session)
        // Of temporary tables alone.
        await session.run('COMMIT')
        return result
      } catch (error) {
        await session.run('ROLLBACK').catch(() => undefined)
        if (error instanceof Error && /^(Conversion|Invalid Input|Out of Range) Error/.test(error.message)) return VALUE_MISFIT
        throw destinationError(error, `cannot compare ${tableKey(this.table.source)}`)
      }
    })
  }

  /** The applied position, where the table is what it was when the comparison began, and its rows stand where the stream is; else null. */
  async #comparable(session: DatabaseSession, reachedLsn: Lsn | null): Promise<Lsn | null> {
    const state = await readPipeline(session, this.#pipeline)
    const now = state?.tables.find(({ oid, state: tableState }) => oid === this.table.oid && tableState !== 'removed')
    if (state?.appliedLsn == null || now === undefined || !isComparable(now, reachedLsn)) return null
    return shapeOf(now) === shapeOf(this.table) ? state.appliedLsn : null
  }

  /** The source's rows under the names that they have here. */
  #selectStaged(steps: readonly RowsStep[]): string {
    const names = liveNames(this.table)
    if (steps.length === 0) return `SELECT ${this.#live.map(({ type }, index) => `NULL::${type} AS ${names[index] ?? ''}`).join(', ')} WHERE false`
    return steps
      .map((step) => {
        const values = step.columns.flatMap(({ name, isDropped }, index) => (isDropped ? [] : [`${stagedValue(step, index, this.table)} AS ${quoteName(name)}`]))
        return `SELECT ${values.join(', ')} FROM ${readStaged(step, stagingColumns(step))}`
      })
      .join(' UNION ALL ')
  }

  get #live(): TableRecord['columns'] {
    return columnsOf('merge', this.table.columns)
  }

  #suspectColumns(): readonly string[] {
    const width = Math.max(1, this.table.key.length)
    return Array.from({ length: width }, (_, index) => `t${String(index)} VARCHAR`)
  }

  /**
   * Adds those keys to the suspects whose rows are not the same on both sides, by one pass over each: the source's rows are read as they lie in their files. False
   * where some key has several rows on one side: then the rows have to be counted by their content.
   */
  async #suspectByKey(session: DatabaseSession, { steps, rowCount, current }: { readonly steps: readonly RowsStep[]; readonly rowCount: number; readonly current: string }): Promise<boolean> {
    const live = this.#live
    const key = keyColumns(this.table).map((column) => live.indexOf(column))
    const compared = (side: 's' | 'd', index: number): string => {
      const column = live[index]
      return column === undefined ? 'NULL' : comparedValue(column, `${side}.v${String(index)}`)
    }
    const sameKey = key.map((index) => `${compared('s', index)} = ${compared('d', index)}`)
    const sameValues = live.flatMap((_, index) => (key.includes(index) ? [] : [`${compared('s', index)} IS NOT DISTINCT FROM ${compared('d', index)}`]))
    const texts = key.map((index, place) => `${toPostgresText(live[index]?.type ?? '', `CASE WHEN s.there THEN s.v${String(index)} ELSE d.v${String(index)} END`)} AS t${String(place)}`)
    const names = [...live.map((_, index) => `v${String(index)}`), 'there'].join(', ')
    const found = `temp.${this.#name}_found`
    await session.run(
      `CREATE OR REPLACE TEMP TABLE ${this.#name}_found AS SELECT ${texts.join(', ')}, s.there AS of_source, d.there AS own
       FROM (SELECT *, true FROM (${this.#selectStaged(steps)})) s(${names}) FULL JOIN (SELECT *, true FROM (${current})) d(${names}) ON ${sameKey.join(' AND ')}
       WHERE s.there IS NULL OR d.there IS NULL OR NOT (${['true', ...sameValues].join(' AND ')})`,
    )
    const [counted] = await session.rows(`SELECT (SELECT count(*) FROM (${current}))::VARCHAR, count(*) FILTER (own IS NULL)::VARCHAR, count(*) FILTER (of_source IS NULL)::VARCHAR FROM ${found}`)
    const [ownRows, missing, extra] = [Number(counted?.[0]), Number(counted?.[1]), Number(counted?.[2])]
    if (ownRows !== rowCount - missing + extra) return false
    await session.run(`INSERT INTO temp.${this.#name}_suspects SELECT DISTINCT ${texts.map((_, index) => `t${String(index)}`).join(', ')} FROM ${found} EXCEPT SELECT * FROM temp.${this.#name}_suspects`)
    return true
  }

  /** Adds those keys or contents to the suspects of which there are not as many rows of each content on both sides. Rows are counted part by part; all of one key, or content, are in one. */
  async #suspectByContent(session: DatabaseSession, { steps, shape, where }: { readonly steps: readonly RowsStep[]; readonly shape: Shape; readonly where: string | null }): Promise<void> {
    const names = this.#live.map(({ name }) => quoteName(name))
    const compared = this.#live.map((column, index) => comparedValue(column, names[index] ?? ''))
    const values = compared.map((_, index) => `v${String(index)}`)
    const key = keyColumns(this.table)
    const keys = key.map((_, index) => `k${String(index)}`)
    const texts = key.length === 0 ? [contentOfCompared(this.table, values)] : key.map(({ type }, index) => toPostgresText(type, keys[index] ?? ''))
    const grouped = [...keys, ...values].join(', ')
    const selected = [...key.map(({ name }, index) => `${quoteName(name)} AS ${keys[index] ?? ''}`), ...compared.map((value, index) => `${value} AS ${values[index] ?? ''}`)]
    const side = (from: string, sign: string): string => `SELECT ${[...selected, `${sign} AS side`].join(', ')} FROM (${from})`
    const suspects = `temp.${this.#name}_suspects`
    const parts = Math.min(MAX_PARTS, Math.max(1, Math.ceil(steps.reduce((sum, { byteCount }) => sum + byteCount, 0) / PART_BYTES)))
    const told = key.length === 0 ? compared : key.map((column) => comparedValue(column, quoteName(column.name)))
    for (let part = 0; part < parts; part++) {
      const isOfPart = parts === 1 ? 'true' : `hash(${told.join(', ')}) % ${String(parts)} = ${String(part)}`
      const ofSource = `SELECT * FROM (${this.#selectStaged(steps)}) WHERE ${isOfPart}`
      const own = selectCurrent(shape, this.table, where === null ? isOfPart : `(${where}) AND ${isOfPart}`)
      await session.run(
        `INSERT INTO ${suspects} SELECT DISTINCT ${texts.join(', ')} FROM (SELECT ${grouped} FROM (${side(ofSource, '1')} UNION ALL ${side(own, '-1')}) GROUP BY ${grouped} HAVING sum(side) <> 0)
         EXCEPT SELECT * FROM ${suspects}`,
      )
    }
  }

  /** Watched places that differ in a shape, with the rows that the source has and those that are here. */
  async #differing(session: DatabaseSession, shape: Shape, steps: readonly RowsStep[]): Promise<readonly (readonly [place: number, sourceRows: number, ownRows: number])[]> {
    const names = liveNames(this.table)
    const key = keyColumns(this.table)
    const watched = `temp.${this.#name}_watched`
    const values = this.#live.map((column, index) => `${comparedValue(column, `r.${names[index] ?? ''}`)} AS v${String(index)}`)
    const matches = key.length === 0
      ? `w.k0 = ${contentOf(this.table, names.map((name) => `r.${name}`))}`
      : key.map(({ name }, index) => `r.${quoteName(name)} IS NOT DISTINCT FROM w.k${String(index)}`).join(' AND ')
    // A history need not be folded whole.
    const isIn = key.length === 0 || shape.kind !== 'append' ? null : `(${key.map(({ name }) => quoteName(name)).join(', ')}) IN (SELECT (${key.map((_, index) => `k${String(index)}`).join(', ')}) FROM ${watched})`
    const side = (from: string, sign: string): string => `SELECT ${['w.n', ...values, `${sign} AS side`].join(', ')} FROM ${from} r JOIN ${watched} w ON ${matches}`
    const grouped = ['n', ...this.#live.map((_, index) => `v${String(index)}`)].join(', ')
    const rows = await session.rows(
      `SELECT n::INTEGER, sum(s)::INTEGER, sum(d)::INTEGER FROM (
         SELECT ${grouped}, count(*) FILTER (side = 1) AS s, count(*) FILTER (side = -1) AS d
         FROM (${side(`(${this.#selectStaged(steps)})`, '1')} UNION ALL ${side(`(${selectCurrent(shape, this.table, isIn)})`, '-1')}) GROUP BY ${grouped})
       GROUP BY n HAVING bool_or(s <> d)`,
    )
    return (rows as readonly (readonly [number, unknown, unknown])[]).map(([place, sourceRows, ownRows]) => [place, Number(sourceRows), Number(ownRows)])
  }
}

/** The rows that are staged; null where a value does not fit the columns that the table has here. */
function stepsOf(stages: readonly ChunkStage[]): readonly RowsStep[] | null {
  const steps: RowsStep[] = []
  for (const stage of stages) {
    if (!(stage instanceof DuckDbChunk)) throw new RangeError('rows of another destination')
    for (const step of stage.toTableStage().steps) {
      if (step.tag !== 'rows') return null
      steps.push(step)
    }
  }
  return steps
}

/** Does the table stand where the stream is? What was copied counts once the stream has passed its snapshots. */
function isComparable({ state, quarantine, copy, target }: TableRecord, reachedLsn: Lsn | null): boolean {
  if (state !== 'streaming' || quarantine !== null) return false
  if (copy === null) return true
  return tableKey(copy.into) === tableKey(target) && copy.chunks.every(({ done }) => done !== null && (reachedLsn === null || parseLsn(done.lsn) <= reachedLsn))
}

/** What must stay as it is while a table is compared. */
function shapeOf({ target, columns, key, ...record }: TableRecord): string {
  return JSON.stringify([target, kindsOf(record), columns.map(({ name, type, isDropped }) => [name, type, isDropped]), key])
}
