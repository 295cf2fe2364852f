import { nextGeneration, replacingOf, type ChunkStage, type Destination, type Fence, type RowLookup, type TableRecord, unplannedCopy } from '../model/destination.ts'
import { DomainError, isTableFault } from '../model/errors.ts'
import type { Lsn } from '../model/lsn.ts'
import type { CommitMeasure } from '../model/replication.ts'
import type { KeptSnapshot, Source } from '../model/source.ts'
import { tableKey } from '../model/table-schema.ts'
import { beginCommit, gainOf } from './commit-measure.ts'
import { schemaOf } from './copier.ts'
import { stopped } from './retry.ts'
import { stageCopy } from './stage-copy.ts'
import type { TableRuntime } from './table-runtime.ts'

export interface SnapshotLoaderOptions {
  readonly source: Source
  readonly destination: Destination
  readonly fence: Fence
  readonly slotName: string
  readonly lookup: RowLookup
  /** The position that is applied at the destination. */
  readonly appliedLsn: Lsn
  readonly exclusive: <T>(work: () => Promise<T>) => Promise<T>
  readonly onActivity: (text: string) => void
  readonly onCommitted: (commit: CommitMeasure) => void
  readonly warn: (warning: string) => void
}

interface LoadTime {
  readonly signal: AbortSignal
  readonly endsAtMs: number
}

/** Of another mode, before a change of it: nobody will load them. Tells whether they are gone; where not, a warning says so. */
export async function dropUnloaded(source: Source, slotName: string, warnings: Set<string>): Promise<boolean> {
  try {
    const snapshots = await source.listSnapshots(slotName)
    if (snapshots.length > 0) await source.dropSnapshots(snapshots)
    return true
  } catch (error) {
    if (!(error instanceof DomainError)) throw error
    warnings.add(`the snapshot tables of slot ${slotName} stay at the source: ${error.message}`)
    return false
  }
}

/**
 * Loads tables from the snapshots that were kept with their slot (`snapshotMode: "persisted"`), each in ranges of blocks that are committed with their state,
 * and drops a snapshot once its table is loaded.
 *
 * They are rows of the slot's consistent point, so they count only while nothing of the stream has been applied: then every change that is still to come goes on
 * top of them. Whatever cannot be loaded in that way (the table was altered since, or the server has crashed and emptied its snapshot) is left to the
 * {@link Copier}, which copies what the table holds then, exactly too.
 */
export class SnapshotLoader {
  readonly #options: SnapshotLoaderOptions
  /** Rows by `schema.table`. */
  readonly copied: Record<string, { rows: number }> = {}
  #isOver = false

  constructor(options: SnapshotLoaderOptions) {
    this.#options = options
  }

  /**
   * Loads the snapshots of these tables, and drops those that nobody waits for any more; `others` may come later. False = it ended before all were loaded: after an abort, or with the
   * first range that was done after `endsAtMs` (of `performance.now()`); it goes on where it was when it is called again.
   */
  async run(tables: readonly TableRuntime[], others: readonly TableRuntime[], { signal, endsAtMs }: LoadTime): Promise<boolean> {
    const { source, slotName, appliedLsn } = this.#options
    const snapshots = await source.listSnapshots(slotName)
    for (const table of tables) {
      if (signal.aborted || this.#isOver) return false
      if (!table.needsCopy) continue
      const snapshot = snapshots.find(({ tableOid, lsn }) => tableOid === table.record.oid && lsn === appliedLsn)
      if (snapshot !== undefined) await this.#onTable(table, async () => this.#load(table, snapshot, { signal, endsAtMs }))
      else if (table.record.copy?.isKept === true) await this.#giveUp(table)
    }
    if (signal.aborted || this.#isOver) return false
    // The rest is of tables that are loaded, have failed or were given up, or are not replicated any more.
    const waiting = new Set(others.filter(({ needsCopy }) => needsCopy).map(({ record }) => record.oid))
    await source.dropSnapshots(snapshots.filter(({ tableOid }) => !waiting.has(tableOid)))
    return true
  }

  async #load(table: TableRuntime, snapshot: KeptSnapshot, { signal, endsAtMs }: LoadTime): Promise<void> {
    if (table.record.copy?.isKept !== true) await this.#plan(table, snapshot)
    for (const [index, chunk] of (table.record.copy?.chunks ?? []).entries()) {
      if (chunk.done !== null) continue
      if (signal.aborted || this.#isOver) return
      const isRead = await this.#loadRange(table, snapshot, { index, lower: chunk.lower, upper: chunk.upper, signal })
      this.#isOver = performance.now() >= endsAtMs
      if (isRead) continue
      await this.#giveUp(table)
      return
    }
  }

  async #plan(table: TableRuntime, { rowCount, blockCount }: KeptSnapshot): Promise<void> {
    const { destination, fence, exclusive } = this.#options
    const blocks = Math.max(1, Math.floor((blockCount * destination.chunkRows) / Math.max(1, rowCount)))
    const bounds = Array.from({ length: Math.max(0, Math.ceil(blockCount / blocks) - 1) }, (_, index) => [String((index + 1) * blocks)])
    await exclusive(async () => {
      const { record } = table
      const planned: TableRecord = {
        ...record,
        state: 'snapshotting',
        copy: {
          generation: nextGeneration(record),
          into: record.copy?.into ?? record.target,
          estimatedRows: rowCount,
          chunks: [...bounds, null].map((upper, index) => ({ lower: bounds[index - 1] ?? null, upper, done: null })),
          isKept: true,
          ...replacingOf(record),
        },
        counts: { ...record.counts, snapshotRows: 0 },
      }
      await destination.prepareCopies(fence, [planned])
      table.update(planned)
    })
  }

  async #loadRange(
    table: TableRuntime,
    snapshot: KeptSnapshot,
    range: { readonly index: number; readonly lower: readonly string[] | null; readonly upper: readonly string[] | null; readonly signal: AbortSignal },
  ): Promise<boolean> {
    const { source, destination, fence, lookup, exclusive, onActivity, onCommitted } = this.#options
    const { record } = table
    const name = tableKey(record.source)
    const read = await source.beginSnapshotRead(snapshot, { table: schemaOf(record), range: { lower: range.lower, upper: range.upper }, signal: range.signal })
    if (read === null) return false
    onActivity(`loading the snapshot of ${name}: range ${String(range.index + 1)} of ${String(record.copy?.chunks.length ?? 1)}`)
    const stage: ChunkStage = destination.newChunk(record, { index: range.index, snapshot: snapshot.snapshotText, lsn: snapshot.lsn, rowLsn: snapshot.lsn, timeMicros: snapshot.timeMicros })
    try {
      await stageCopy(read, stage)
      await exclusive(async () => {
        stage.withRecord(table.record)
        const { rowCount } = stage
        const endCommit = beginCommit('copy', stage)
        const [applied] = await destination.applyChunks(fence, [stage], lookup)
        if (applied === undefined) return
        if (applied.state !== 'failed') onCommitted(endCommit({ [name]: gainOf(applied, table.record) }))
        const isWhole = applied.state === 'streaming'
        table.update(isWhole ? await destination.swapCopy(fence, applied) : applied)
        this.copied[name] = { rows: rowCount + (this.copied[name]?.rows ?? 0) }
      })
      return true
    } finally {
      stage.discard()
      await read.close()
    }
  }

  /** From now on the table is copied as any other. */
  async #giveUp(table: TableRuntime): Promise<void> {
    const { destination, fence, exclusive, warn } = this.#options
    warn(`the snapshot of ${tableKey(table.record.source)} that was kept at the source is not usable any more (the table was altered, or the server has crashed): the table is copied as it is now`)
    await exclusive(async () => {
      const { record } = table
      const copy = { ...unplannedCopy({ generation: nextGeneration(record), into: record.copy?.into ?? record.target }), ...replacingOf(record) }
      const given: TableRecord = { ...record, state: 'pending', copy }
      await destination.saveTables(fence, [given])
      table.update(given)
    })
  }

  /** A fault of one table stops that table alone. */
  async #onTable(table: TableRuntime, work: () => Promise<void>): Promise<void> {
    try {
      await work()
    } catch (error) {
      if (!isTableFault(error)) throw error
      const { destination, fence, exclusive } = this.#options
      await exclusive(async () => {
        const failed = stopped(table.record, error)
        await destination.saveTables(fence, [failed])
        table.update(failed)
      })
    }
  }
}
