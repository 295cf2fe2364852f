import { setTimeout as sleep } from 'node:timers/promises'
import { type Difference, type Judgement, kindOf, type Suspect, type TableChanged, type TableComparison } from '../model/comparison.ts'
import { type ChunkStage, type Destination, isBeside, type PipelineKey, type TableRecord } from '../model/destination.ts'
import { formatLsn, maxLsn, parseLsn, ZERO_LSN, type Lsn } from '../model/lsn.ts'
import type { KeyRange, Source } from '../model/source.ts'
import type { PublishedOperation } from '../model/spec.ts'
import { tableKey } from '../model/table-schema.ts'
import { NAMED_DIFFERENCES, type NamedDifference, type VerifiedTable, type VerifyProgress } from '../model/verification.ts'
import { schemaOf } from './copier.ts'
import { Pace } from './pace.ts'
import { ReadsAhead, type StagedRead } from './reads-ahead.ts'
import { transactionHolders } from './progress.ts'

/** Suspects that are decided at once: what is read again at the source by one statement, and looked for in each batch of the stream. */
const SUSPECTS_AT_ONCE = 4_000
/** Without a key all rows are read for each go: as many as memory easily holds. */
const CONTENTS_AT_ONCE = 500_000
/** A row that is written each time while it is looked at is given up after so many goes. */
const MAX_ROUNDS = 8
/** A table that changes its shape, or whose columns have not been widened yet, is waited for so often. */
const MAX_CHANGES = 20
/** Of a table that is behind a gap: it is copied anew then. */
const MAX_CHANGES_IN_RECOVERY = 4
const CHANGE_RETRY_MS = 250
/** With a limit on rows, a range is read in about this time. */
const RANGE_SECONDS = 5
const MINIMUM_RANGE_ROWS = 500

const EVERYTHING: KeyRange = { lower: null, upper: null }

export interface VerificationOptions {
  readonly source: Source
  readonly destination: Destination
  readonly pipeline: PipelineKey
  readonly repair: boolean
  readonly maxRowsPerSecond: number | null
  readonly signal: AbortSignal
  /** When no further range is begun (`performance.now()`). */
  readonly endsAtMs: number
  /** Resolves when everything that committed before `lsn` is at the destination. Throws the signal's reason. */
  readonly reach: (lsn: Lsn) => Promise<void>
  /** What the publication sends. */
  readonly operations: readonly PublishedOperation[]
  /** Past every commit that anybody has been told of. */
  readonly committedLsn: () => Promise<Lsn>
  readonly onActivity: (text: string) => void
  /** Of a table that is behind a gap in its stream ({@link TableRecord.gap}): its repair, by whoever streams. Absent: such a table is not compared. */
  readonly recovery?: RecoveryOptions
}

export interface RecoveryOptions {
  /** Runs what writes, when nobody minds. */
  readonly write: <T>(work: () => Promise<T>) => Promise<T>
}

/** Why a table cannot be compared. */
class NotComparable extends Error {}

/** It has another shape by now: it is looked at again. */
class Changed extends Error {
  readonly reason: TableChanged['reason']

  constructor({ reason }: TableChanged) {
    super(`the table has changed: ${reason}`)
    this.reason = reason
  }
}

/**
 * Compares tables with their source, range by range, beside the stream that goes on; what differs is decided row by row (see model/comparison.ts) and, where it
 * is asked for, put right in the same moment. May be ended between two ranges and goes on from its {@link VerifyProgress}.
 */
export class Verification {
  readonly #options: VerificationOptions
  readonly #pace: Pace
  #progress: VerifyProgress
  #undecidedRows = 0

  constructor(options: VerificationOptions, progress: VerifyProgress) {
    this.#options = options
    this.#progress = progress
    this.#pace = new Pace(options.maxRowsPerSecond, options.signal)
  }

  get progress(): VerifyProgress {
    return this.#progress
  }

  /** Rows that were written each time while they were looked at, so that nobody knows whether they differ. */
  get undecidedRows(): number {
    return this.#undecidedRows
  }

  /** Goes on with these tables, in their order. False = its time was over before their end. Throws the signal's reason. */
  async run(tables: readonly TableRecord[]): Promise<boolean> {
    for (const { oid, source } of tables) {
      if (this.#progress.done.includes(oid)) continue
      try {
        if (!(await this.#verifyTable(oid))) return false
      } catch (error) {
        if (!(error instanceof NotComparable)) throw error
        this.#forget(tableKey(source))
        this.#progress = { ...this.#progress, notCompared: { ...this.#progress.notCompared, [tableKey(source)]: error.message } }
      }
      this.#progress = { ...this.#progress, done: [...this.#progress.done, oid], current: null }
    }
    return true
  }

  #sends(...operations: readonly PublishedOperation[]): boolean {
    return operations.every((operation) => this.#options.operations.includes(operation))
  }

  #warn(warning: string): void {
    if (!this.#progress.warnings.includes(warning)) this.#progress = { ...this.#progress, warnings: [...this.#progress.warnings, warning] }
  }

  /** Half a table compared says nothing of it. */
  #forget(name: string): void {
    const { [name]: _counts, ...tables } = this.#progress.tables
    const { [name]: _named, ...differences } = this.#progress.differences
    this.#progress = { ...this.#progress, tables, differences }
  }

  async #verifyTable(oid: number): Promise<boolean> {
    let changes = 0
    if (this.#progress.current?.oid !== oid) this.#begin(await this.#load(oid))
    for (;;) {
      const record = await this.#load(oid)
      const comparison = await this.#options.destination.beginComparison(this.#options.pipeline, record)
      try {
        return await this.#compareTable(comparison)
      } catch (error) {
        if (!(error instanceof Changed)) throw error
        if (++changes === (this.#options.recovery === undefined ? MAX_CHANGES : MAX_CHANGES_IN_RECOVERY)) throw new NotComparable(reasonOf(error.reason))
      } finally {
        await comparison.close()
      }
      // Whatever has changed it is in the stream by then, or nowhere.
      await this.#options.reach(await this.#options.committedLsn())
      await sleep(CHANGE_RETRY_MS, undefined, { signal: this.#options.signal })
    }
  }

  /** The table as it is now. Throws {@link NotComparable} where its rows do not stand where the stream is, or are not meant to be the source's. */
  async #load(oid: number): Promise<TableRecord> {
    const state = await this.#options.destination.loadPipeline(this.#options.pipeline)
    const record = state?.tables.find((table) => table.oid === oid && table.state !== 'removed')
    if (record === undefined) throw new NotComparable('it is not replicated any more')
    const { state: tableState, quarantine, columns, source, gap } = record
    if (tableState === 'failed' || quarantine !== null) throw new NotComparable('it has stopped (status tells why)')
    // Between the copy's last chunk and its swap, the rows that readers see, and their shapes, are still the former ones.
    if (tableState !== 'streaming' || isBeside(record)) throw new NotComparable('its copy is not finished')
    if (gap !== undefined && this.#options.recovery === undefined) throw new NotComparable('it is being compared already, in a recovery (status tells when that is done)')
    if (!this.#sends('insert', 'update')) throw new NotComparable('its publication does not send all inserts and updates')
    if (columns.every(({ isDropped }) => isDropped)) throw new NotComparable('it has no columns')
    if (!this.#sends('delete', 'truncate')) this.#warn(`${tableKey(source)}: deletes or TRUNCATE are not published, so rows that are only at the destination were not counted`)
    return record
  }

  async #compareTable(comparison: TableComparison): Promise<boolean> {
    const { table } = comparison
    const afterKey = this.#progress.current?.afterKey ?? null
    const plan = await this.#plan(comparison)
    const { estimatedRows } = plan
    // A column of the key has become text since.
    if (!comparison.isRanged && afterKey !== null) this.#begin(table)
    const ranges = afterKey === null || !comparison.isRanged ? plan.ranges : await this.#after(table, plan.ranges, afterKey)
    const reads = new ReadsAhead(ranges, async (range, ending) => this.#read(comparison, { range, signal: AbortSignal.any([this.#options.signal, ending]) }), this.#options.maxRowsPerSecond === null)
    try {
      if (!comparison.isRanged) {
        await this.#compareRanges(comparison, reads, { count: ranges.length, range: EVERYTHING, estimatedRows })
        return true
      }
      for (const range of ranges) {
        this.#options.signal.throwIfAborted()
        if (performance.now() >= this.#options.endsAtMs) return false
        await this.#compareRanges(comparison, reads, { count: 1, range, estimatedRows })
        if (range.upper !== null) this.#progress = { ...this.#progress, current: { oid: table.oid, afterKey: range.upper } }
        await this.#pace.rest()
      }
      return true
    } finally {
      await reads.discard()
    }
  }

  #begin(table: TableRecord): void {
    const name = tableKey(table.source)
    this.#forget(name)
    this.#progress = { ...this.#progress, tables: { ...this.#progress.tables, [name]: { compared: 0, different: 0, repaired: 0 } }, current: { oid: table.oid, afterKey: null } }
  }

  async #plan({ table }: TableComparison): Promise<{ readonly ranges: readonly KeyRange[]; readonly estimatedRows: number }> {
    const { source, destination, maxRowsPerSecond } = this.#options
    const targetRows = maxRowsPerSecond === null ? destination.chunkRows : Math.max(MINIMUM_RANGE_ROWS, Math.min(destination.chunkRows, maxRowsPerSecond * RANGE_SECONDS))
    const plan = await source.planChunks(schemaOf(table), { targetRows, hasColumnList: true })
    if (plan.tag === 'changed') throw new Changed({ tag: 'changed', reason: 'shape' })
    return plan
  }

  /** What of the ranges lies behind a key. */
  async #after(table: TableRecord, ranges: readonly KeyRange[], key: readonly string[]): Promise<readonly KeyRange[]> {
    const [index = 0] = await this.#options.source.locateKeys(schemaOf(table), ranges, [key])
    return ranges.slice(index).map((range, place) => (place === 0 ? { lower: key, upper: range.upper } : range))
  }

  /** Takes the next `count` reads of a table, each of a snapshot of its own, and compares them with what the destination has of `range`. */
  async #compareRanges(
    comparison: TableComparison,
    reads: ReadsAhead,
    { count, range, estimatedRows }: { readonly count: number; readonly range: KeyRange; readonly estimatedRows: number },
  ): Promise<void> {
    const { table } = comparison
    const name = tableKey(table.source)
    const stages: ChunkStage[] = []
    let lsn = ZERO_LSN
    let found: VerifiedTable = { compared: 0, different: 0, repaired: 0 }
    const named: NamedDifference[] = []
    let isDecided = false
    try {
      while (stages.length < count) {
        this.#say(name, estimatedRows)
        const read = await reads.next()
        stages.push(read.stage)
        lsn = maxLsn(lsn, read.copy.snapshotLsn)
        if (count > 1) await this.#pace.rest()
      }
      await this.#options.reach(lsn)
      const compared = await comparison.compare(stages, range, lsn)
      if (compared.tag === 'changed') throw new Changed(compared)
      const atOnce = table.key.length === 0 ? CONTENTS_AT_ONCE : SUSPECTS_AT_ONCE
      let changing = 0
      for (let from = 0; from < compared.suspectCount; from += atOnce) {
        const suspects = await comparison.suspects(from, atOnce)
        const decided = await this.#decide(comparison, suspects)
        const rows = decided.different.reduce((sum, difference) => sum + rowsOf(table, difference), 0)
        found = { ...found, different: found.different + rows, repaired: found.repaired + (this.#options.repair ? rows : 0) }
        for (const difference of decided.different.slice(0, NAMED_DIFFERENCES - named.length)) {
          named.push({ kind: kindOf(difference), key: table.key.length === 0 ? null : (suspects[difference.suspect] ?? null) })
        }
        changing += decided.changing
        this.#undecidedRows += decided.changing
      }
      found = { ...found, compared: compared.rowCount, undecided: changing }
      this.#note(lsn)
      // Of a range in which the source has no row, too.
      isDecided = true
      if (changing > 0) this.#warn(`${name}: some rows were changed each time while they were looked at: what they are was not decided; the next verification looks again`)
    } finally {
      for (const stage of stages) stage.discard()
      // In a range that is begun again what differs is found again, but not what has been put right.
      if (isDecided || this.#options.repair) this.#count(name, found, named)
    }
  }

  /** Decides about suspects. What the stream touches in one go is looked at again in the next. */
  async #decide(comparison: TableComparison, suspects: readonly Suspect[]): Promise<{ readonly different: readonly (Difference & { readonly suspect: number })[]; readonly changing: number }> {
    const different: (Difference & { suspect: number })[] = []
    let open = suspects.map((_, suspect) => suspect)
    let isSettling = false
    for (let round = 0; round < MAX_ROUNDS && open.length > 0; round++) {
      this.#options.signal.throwIfAborted()
      const asked = open
      const go = await this.#look(comparison, asked.map((suspect) => suspects[suspect] ?? []), isSettling)
      const untouched = go.differences.filter(({ place }) => !go.touched.has(place))
      const suspectAt = (place: number): number => asked[place] ?? -1
      if (isSettling) different.push(...untouched.map((difference) => ({ ...difference, suspect: suspectAt(difference.place) })))
      // What the stream has overwritten since is right, whatever stood there: it need not be looked at again where only that counts.
      const rest = this.#options.recovery === undefined ? go.differences : go.differences.filter(({ place }) => !go.overwritten.has(place))
      open = rest.filter(({ place }) => !isSettling || go.touched.has(place)).map(({ place }) => suspectAt(place))
      // Only what seems to differ for good is worth waiting for writers: nearly all suspects are changes that were under way.
      isSettling = !isSettling && untouched.length > 0
    }
    return { different, changing: open.length }
  }

  /** One go: watch, wait for writers where it is to count, read, reach, compare; and mend. */
  async #look(comparison: TableComparison, suspects: readonly Suspect[], isSettling: boolean): Promise<Omit<Judgement, 'tag'> & { readonly differences: readonly Difference[] }> {
    const { source, signal, repair, reach, onActivity } = this.#options
    const { table } = comparison
    await comparison.watch(suspects)
    try {
      if (isSettling) {
        await source.waitForWriters(
          schemaOf(table),
          (pids, prepared) => { onActivity(`rows of ${tableKey(table.source)} seem to differ: waiting for transactions that have written to it: ${transactionHolders(pids, prepared)}`) },
          signal,
        )
      }
      const read = await this.#read(comparison, { range: EVERYTHING, ...(table.key.length === 0 ? {} : { keys: suspects.filter(isWhole) }) })
      try {
        await reach(read.copy.snapshotLsn)
        this.#note(read.copy.snapshotLsn)
        const found = await comparison.compareWatched(read.stage, read.copy.snapshotLsn)
        if ('tag' in found) throw new Changed(found)
        // Rows whose delete was not sent are not meant to go.
        const differences = this.#sends('delete', 'truncate') ? found : found.filter(({ sourceRows }) => sourceRows > 0)
        if (differences.length === 0) return { differences, touched: new Set(), overwritten: new Set() }
        const judge = async (): Promise<Judgement | TableChanged> =>
          comparison.judge(differences, repair && isSettling ? { rows: read.stage, timeMicros: read.copy.snapshotTimeMicros } : null)
        const judged = await (this.#options.recovery?.write(judge) ?? judge())
        if (judged.tag === 'changed') throw new Changed(judged)
        return { ...judged, differences }
      } finally {
        read.stage.discard()
      }
    } finally {
      await comparison.unwatch()
    }
  }

  async #read(comparison: TableComparison, { signal = this.#options.signal, ...request }: { readonly range: KeyRange; readonly keys?: readonly (readonly string[])[]; readonly signal?: AbortSignal }): Promise<StagedRead> {
    const copy = await this.#options.source.beginCopy(schemaOf(comparison.table), { ...request, hasColumnList: true }, signal)
    if (copy.tag === 'changed') throw new Changed({ tag: 'changed', reason: 'shape' })
    const stage = comparison.newRows()
    try {
      await this.#pace.stage(copy, stage)
      return { copy, stage }
    } catch (error) {
      stage.discard()
      throw error
    } finally {
      await copy.close()
    }
  }

  #count(name: string, found: VerifiedTable, named: readonly NamedDifference[]): void {
    const { tables, differences } = this.#progress
    const before: VerifiedTable = tables[name] ?? { compared: 0, different: 0, repaired: 0 }
    const undecided = (before.undecided ?? 0) + (found.undecided ?? 0)
    const after = { compared: before.compared + found.compared, different: before.different + found.different, repaired: before.repaired + found.repaired, ...(undecided === 0 ? {} : { undecided }) }
    const listed = [...(differences[name] ?? []), ...named].slice(0, NAMED_DIFFERENCES)
    this.#progress = { ...this.#progress, tables: { ...tables, [name]: after }, ...(listed.length === 0 ? {} : { differences: { ...differences, [name]: listed } }) }
  }

  #note(lsn: Lsn): void {
    const { lsn: before } = this.#progress
    this.#progress = { ...this.#progress, lsn: formatLsn(before === null ? lsn : maxLsn(parseLsn(before), lsn)) }
  }

  #say(name: string, estimatedRows: number): void {
    const { compared = 0, different = 0 } = this.#progress.tables[name] ?? {}
    const total = Math.max(estimatedRows, compared)
    const left = this.#pace.secondsFor(total - compared)
    const figures = [`${compared.toLocaleString('en')} of about ${Math.round(total).toLocaleString('en')} rows`, `${different.toLocaleString('en')} differ`, ...(left === null ? [] : [`about ${String(Math.ceil(left))} s left`])]
    this.#options.onActivity(`comparing ${name}: ${figures.join(', ')}`)
  }
}

/** The source has no row with such a key. */
function isWhole(suspect: Suspect): suspect is readonly string[] {
  return suspect.every((value) => value !== null)
}

/** Rows that stand for one suspect: of a key one, of a content as many as there are too many or too few. */
function rowsOf({ key }: TableRecord, { sourceRows, shapes }: Difference): number {
  return key.length > 0 ? 1 : Math.max(...shapes.map(({ rows }) => Math.abs(rows - sourceRows)))
}

function reasonOf(reason: TableChanged['reason']): string {
  return reason === 'shape'
    ? 'its columns or its key at the source are not those that it has here, and nothing in the stream has told of it yet (the next change of a row does)'
    : 'the source has a value that does not fit the column that it has here: resyncTables copies the table anew'
}
