import { type ChunkStage, type Destination, type Fence, nextGeneration, replacingOf, type RowLookup, type TableRecord, type XminProgress } from '../model/destination.ts'
import { DomainError, isTableFault, reportOf, type ErrorReport } from '../model/errors.ts'
import { ZERO_LSN } from '../model/lsn.ts'
import type { OperationContext, XminResult } from '../model/replication.ts'
import { parseSnapshot } from '../model/snapshot.ts'
import type { ChunkCopy, Source } from '../model/source.ts'
import type { XminSpec } from '../model/spec.ts'
import { tableKey, type TableSchema } from '../model/table-schema.ts'
import { changeTo, hasShape, replicatedShape } from '../pipeline/schema-diff.ts'
import { isRewritten } from '../pipeline/storage-diff.ts'
import { beginCommit, gainOfRows } from './commit-measure.ts'
import { schemaOf } from './copier.ts'
import { toGoOn } from './retry.ts'
import { schemaChangeRefused } from './schema-approval.ts'
import { stageCopy } from './stage-copy.ts'

export interface XminSyncOptions {
  readonly source: Source
  readonly destination: Destination
  readonly fence: Fence
  readonly spec: XminSpec
  readonly runId: string
  readonly context: OperationContext
  readonly endsAtMs: number
  /** The source that is read. */
  readonly identity: XminProgress['identity']
}

/** A pass over a table whose rows are loaded reads few of each range. */
const PASS_RANGE_FACTOR = 8

/** Rows that were read hold every value, and no change of them is judged. */
const NO_LOOKUP: RowLookup = {
  readRows: async () => Promise.resolve({ rows: [], lsn: ZERO_LSN }),
  locateKeys: async (_, keys) => Promise.resolve(keys.map(() => 0)),
  judge: () => 'apply',
}

/**
 * Reads tables by `xmin`, one after the other, each by key ranges that are committed with their snapshot, so that a kill repeats at most one.
 *
 * A table is *pending* (nothing of it is here, or it is to be copied anew) → *snapshotting* (all rows are being read into a table of its own) →
 * *streaming*; from then on each run makes one pass that reads the rows written since the watermark. A pass is over when every range has been
 * read and, with `deletes: "compare"`, all keys have been compared; then the watermark becomes the least `pg_snapshot_xmin` of its
 * snapshots. Whatever a snapshot did not see has a greater id (see `postgres/xmin-filter.ts`), so the next pass reads it; what is read twice
 * changes nothing.
 */
export class XminSync {
  readonly #options: XminSyncOptions
  readonly #warnings: string[] = []

  constructor(options: XminSyncOptions) {
    this.#options = options
  }

  async run(tables: readonly TableRecord[]): Promise<XminResult> {
    const done: TableRecord[] = []
    for (const table of tables) {
      const record = await this.#syncTable(table)
      done.push(record)
      if (record.state !== 'failed' && record.state !== 'removed' && !this.#isOver(record)) {
        return this.#result([...done, ...tables.slice(done.length)], this.#options.context.signal.aborted ? 'aborted' : 'time')
      }
    }
    return this.#result(done, 'done')
  }

  #result(tables: readonly TableRecord[], ended: XminResult['ended']): XminResult {
    const failed = Object.fromEntries(tables.flatMap(({ source, state, error }): [string, ErrorReport][] => (state === 'failed' && error !== null ? [[tableKey(source), error]] : [])))
    const read = tables.filter(({ state }) => state !== 'removed')
    return {
      ended,
      tables: Object.fromEntries(read.map((record) => [tableKey(record.source), { rows: progressOf(record).run.rows, watermark: progressOf(record).watermark }])),
      failed,
      warnings: this.#warnings,
    }
  }

  #isOver(record: TableRecord): boolean {
    return record.state === 'streaming' && record.copy === null && progressOf(record).plannedBy === this.#options.runId
  }

  /** Works on a table until this run is done with it, or its time is over. */
  async #syncTable(before: TableRecord): Promise<TableRecord> {
    const { destination, fence, context, endsAtMs } = this.#options
    let record = before.state === 'failed' ? goingOn(before) : before
    try {
      while (record.state !== 'removed' && record.state !== 'failed' && !this.#isOver(record)) {
        if (context.signal.aborted || performance.now() >= endsAtMs) return record
        record = await this.#step(record)
      }
      return record
    } catch (error) {
      if (context.signal.aborted) return record
      if (!isTableFault(error)) throw error
      record = { ...record, state: 'failed', error: reportOf(error) }
      await destination.saveTables(fence, [record])
      return record
    }
  }

  async #step(record: TableRecord): Promise<TableRecord> {
    if (record.state === 'pending' || record.copy === null) return this.#plan(record)
    const index = record.copy.chunks.findIndex(({ done }) => done === null)
    if (index < 0) return this.#finish(record)
    // Half of another run's pass is of no use to this one: it would have to read the other half, and then everything again.
    const isOurs = record.state === 'snapshotting' || progressOf(record).plannedBy === this.#options.runId
    return isOurs ? this.#readRange(record, index) : this.#plan(record)
  }

  /** Looks at the table as it is now, and plans the ranges of a load or of a pass. */
  async #plan(record: TableRecord): Promise<TableRecord> {
    const { source, destination, fence, spec, runId } = this.#options
    const name = tableKey(record.source)
    const [described] = await source.describeTables([record.oid])
    if (described === undefined) return this.#leave(record)
    if (spec.schemaChanges === 'refuse' && tableKey(described) !== name) throw schemaChangeRefused(name)
    const isChanged = !hasShape(replicatedShape(record, described), schemaOf(record), record.hasColumnList)
    const storage = described.storage ?? null
    const isOther = isChanged || (record.storage !== null && storage !== null && isRewritten(record.storage, storage))
    if (isOther && record.state === 'streaming') return this.#follow(record, described)
    if (isChanged) return this.#follow(record, described)
    const isLoad = record.state === 'pending'
    const targetRows = spec.targetBatchSize ?? destination.chunkRows * (isLoad ? 1 : PASS_RANGE_FACTOR)
    const plan = await source.planChunks(schemaOf(record), { targetRows, hasColumnList: record.hasColumnList })
    if (plan.tag === 'changed') return plan.table === null ? this.#leave(record) : this.#follow(record, plan.table)
    const planned: TableRecord = {
      ...record,
      state: isLoad ? 'snapshotting' : 'streaming',
      error: null,
      storage,
      copy: {
        generation: nextGeneration(record),
        into: isLoad ? (record.copy?.into ?? record.target) : record.target,
        estimatedRows: plan.estimatedRows,
        chunks: plan.ranges.map(({ lower, upper }) => ({ lower, upper, done: null })),
        ...(isLoad ? replacingOf(record) : {}),
      },
      counts: isLoad ? { ...record.counts, snapshotRows: 0 } : record.counts,
      xmin: { ...progressOf(record), plannedBy: runId },
    }
    if (isLoad) await destination.prepareCopies(fence, [planned])
    else await destination.saveTables(fence, [planned])
    return planned
  }

  async #readRange(record: TableRecord, index: number): Promise<TableRecord> {
    const { source, destination, fence, context } = this.#options
    const { copy } = record
    const chunk = copy?.chunks[index]
    if (copy === null || chunk === undefined) throw new RangeError('no such range')
    const isLoad = record.state === 'snapshotting'
    const { watermark } = progressOf(record)
    const begun = await source.beginCopy(
      schemaOf(record),
      {
        range: { lower: chunk.lower, upper: chunk.upper },
        hasColumnList: record.hasColumnList,
        ...(isLoad || watermark === null ? {} : { sinceXid: BigInt(watermark) }),
      },
      context.signal,
    )
    if (begun.tag === 'changed') return begun.table === null ? this.#leave(record) : this.#follow(record, begun.table)
    context.report({ activity: `reading ${tableKey(record.source)}: range ${String(index + 1)} of ${String(copy.chunks.length)}` })
    const stage = await this.#stage(record, begun, { index, replaces: !isLoad })
    try {
      const { run } = progressOf(record)
      stage.withRecord({ ...record, xmin: { ...progressOf(record), run: { ...run, rows: run.rows + stage.rowCount } } })
      const endCommit = beginCommit('copy', stage)
      const [applied] = await destination.applyChunks(fence, [stage], NO_LOOKUP)
      if (applied === undefined) throw new RangeError('a range without its table')
      if (applied.state !== 'failed') context.observe(endCommit({ [tableKey(record.source)]: gainOfRows(stage.rowCount) }))
      const isWhole = applied.copy?.chunks.every(({ done }) => done !== null) === true
      return isLoad && isWhole && applied.state !== 'failed' ? await destination.swapCopy(fence, applied) : applied
    } finally {
      stage.discard()
    }
  }

  /** Every range has been read: compares the keys, if that is asked for, and moves the watermark. */
  async #finish(record: TableRecord): Promise<TableRecord> {
    const { destination, fence, spec } = this.#options
    // A kill may have come between the last range and the swap.
    let whole = await destination.swapCopy(fence, record)
    if (whole.state === 'failed') return whole
    if (spec.deletes === 'compare') {
      const compared = await this.#compareKeys(whole)
      if (compared.state !== 'streaming' || compared.copy === null) return compared
      whole = compared
    }
    const snapshots = whole.copy?.chunks.flatMap(({ done }) => (done === null ? [] : [parseSnapshot(done.snapshot).xmin])) ?? []
    const watermark = snapshots.reduce<bigint | null>((least, xmin) => (least === null || xmin < least ? xmin : least), null)
    const finished: TableRecord = {
      ...whole,
      state: 'streaming',
      copy: null,
      xmin: { ...progressOf(whole), identity: this.#options.identity, watermark: watermark === null ? null : String(watermark) },
    }
    await destination.saveTables(fence, [finished])
    return finished
  }

  /**
   * Rows whose keys are not at the source any more go. The keys are read after all rows, in one snapshot: what is here and not among them has been
   * deleted; what came since is not here yet, and is read by the next pass.
   */
  async #compareKeys(record: TableRecord): Promise<TableRecord> {
    const { source, destination, fence, context } = this.#options
    context.report({ activity: `comparing the keys of ${tableKey(record.source)}` })
    const limited = { ...record, columns: record.columns.filter(({ name, isDropped }) => !isDropped && record.key.includes(name)) }
    const begun = await source.beginCopy(schemaOf(limited), { range: { lower: null, upper: null }, hasColumnList: true }, context.signal)
    if (begun.tag === 'changed') return begun.table === null ? this.#leave(record) : this.#follow(record, begun.table)
    const stage = await this.#stage(limited, begun, { index: 0, replaces: true })
    try {
      const compared = await destination.applyKeys(fence, record, stage)
      return compared ?? { ...record, copy: null, xmin: { ...progressOf(record), plannedBy: null } }
    } finally {
      stage.discard()
    }
  }

  async #stage(record: TableRecord, copy: ChunkCopy, place: { readonly index: number; readonly replaces: boolean }): Promise<ChunkStage> {
    try {
      requireNotBehind(copy, record)
      const stage = this.#options.destination.newChunk(record, {
        ...place,
        snapshot: copy.snapshotText,
        lsn: copy.snapshotLsn,
        rowLsn: copy.snapshotLsn,
        timeMicros: copy.snapshotTimeMicros,
      })
      try {
        await stageCopy(copy, stage)
        return stage
      } catch (error) {
        stage.discard()
        throw error
      }
    } finally {
      await copy.close()
    }
  }

  /**
   * The table has another shape, or rows that `xmin` does not tell: it is copied anew beside the rows that readers see. A history cannot be: it gets the
   * columns, and every row is read again; those that differ from their newest version are added.
   */
  async #follow(record: TableRecord, described: TableSchema): Promise<TableRecord> {
    const { destination, fence, spec } = this.#options
    const name = tableKey(record.source)
    if (spec.schemaChanges === 'refuse') throw schemaChangeRefused(name)
    const shape = replicatedShape(record, described)
    if (shape.key.length === 0) {
      throw new DomainError({
        kind: 'TableNotReplicable',
        message: `${name} has no key any more, which tells which rows are new versions of which`,
        remedy: 'give the table a primary key; or leave it out of tableNames',
      })
    }
    this.#warnings.push(`${name} has changed its columns, or has rows that xmin does not tell: all its rows are read again`)
    if (record.writeMode !== 'append' || record.state !== 'streaming') {
      return destination.restartCopy(fence, { ...record, xmin: { ...progressOf(record), plannedBy: null } }, shape)
    }
    const anew: TableRecord = { ...record, copy: null, storage: shape.storage ?? null, xmin: { ...progressOf(record), watermark: null, plannedBy: null } }
    // Rows come in the shape that the catalog has: a name cannot be taken for another column's, as it can in a stream.
    const change = changeTo(shape.columns, record, shape)
    const batch = destination.newBatch()
    try {
      const table = { record: anew, columns: anew.columns, key: anew.key, tupleIndexes: Int32Array.of(), isFiltered: false }
      // What older versions had in a new column is nothing; what the rows have now comes as a version.
      batch.alterColumns(table, { ...change, added: change.added.map((column) => ({ ...column, valueOfOlderRows: null })) })
      const { tables, failures } = await destination.applyBatch(fence, batch, { appliedLsn: null, lookup: NO_LOOKUP, records: [anew] })
      const [failure] = failures
      if (failure !== undefined) throw failure.error
      return tables[0] ?? anew
    } finally {
      batch.discard()
    }
  }

  async #leave(record: TableRecord): Promise<TableRecord> {
    const { destination, fence } = this.#options
    this.#warnings.push(`${tableKey(record.source)} was dropped at the source: its rows stay here`)
    return destination.removeTable(fence, record, 'dropped')
  }
}

function progressOf({ source, xmin }: TableRecord): XminProgress {
  if (xmin === undefined) throw new RangeError(`${tableKey(source)} is not read by xmin`)
  return xmin
}

/** A table that has stopped goes on where it was; one whose rows were not all there is copied anew. */
function goingOn(record: TableRecord): TableRecord {
  const isLoaded = progressOf(record).watermark !== null && (record.copy === null || tableKey(record.copy.into) === tableKey(record.target))
  if (!isLoaded) return { ...toGoOn({ ...record, quarantine: null }), xmin: { ...progressOf(record), plannedBy: null } }
  return { ...record, state: 'streaming', error: null, copy: null, xmin: { ...progressOf(record), plannedBy: null } }
}

/**
 * A standby that lags behind what has been read shows rows as they were, and none of those that came since: keys that are missing there are no
 * deletes. Snapshots of one server never go back.
 */
function requireNotBehind({ snapshot }: ChunkCopy, record: TableRecord): void {
  const { watermark } = progressOf(record)
  const seen = record.copy?.chunks.flatMap(({ done }) => (done === null ? [] : [parseSnapshot(done.snapshot)])) ?? []
  const isBehind = (watermark !== null && snapshot.xmin < BigInt(watermark)) || seen.some(({ xmin, xmax }) => snapshot.xmin < xmin || snapshot.xmax < xmax)
  if (!isBehind) return
  throw new DomainError({
    kind: 'SourceUnavailable',
    message: `the server shows ${tableKey(record.source)} as it was before what has been read already`,
    remedy: 'a standby that lags behind catches up, and it is tried again; a source that was restored from an older backup is another one: start with "reset": true',
  })
}
