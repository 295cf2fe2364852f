import { setTimeout as sleep } from 'node:timers/promises'
import { type ChunkStage, type Destination, type Fence, nextGeneration, replacingOf, type RowLookup, type TableRecord } from '../model/destination.ts'
import { DomainError, type ErrorKind } from '../model/errors.ts'
import type { Lsn } from '../model/lsn.ts'
import type { CommitMeasure } from '../model/replication.ts'
import type { ChangedTable, ChunkCopy, Source } from '../model/source.ts'
import type { ReplicationSpec } from '../model/spec.ts'
import { tableKey, type TableSchema } from '../model/table-schema.ts'
import { replicatedShape } from '../pipeline/schema-diff.ts'
import { beginCommit, gainOf } from './commit-measure.ts'
import { rowsCopiedUnder } from './copied-rows.ts'
import { withoutGap } from './recover.ts'
import { stopped } from './retry.ts'
import { isAllowed, refusalOf, type SourceChange } from './schema-approval.ts'
import { stageCopy } from './stage-copy.ts'
import type { TableRuntime } from './table-runtime.ts'

/** Connections that copy at once. */
const READERS = 2
/** A snapshot that does not see every skipped change yet is taken again after this. */
const SNAPSHOT_RETRY_MS = 25

/** Faults of one table; all others end the slice and are retried. */
const TABLE_FAULTS: ReadonlySet<ErrorKind> = new Set(['PrivilegeMissing', 'TableNotReplicable', 'UnrepresentableValue', 'SchemaChangeRefused'])

/** Does it stop one table alone? */
export function isTableFault(error: unknown): error is DomainError {
  return error instanceof DomainError && TABLE_FAULTS.has(error.kind)
}

export interface CopierOptions {
  readonly source: Source
  readonly destination: Destination
  readonly fence: Fence
  readonly lookup: RowLookup
  readonly signal: AbortSignal
  /** Serialises everything that changes records. */
  readonly exclusive: <T>(work: () => Promise<T>) => Promise<T>
  readonly onActivity: (text: string) => void
  readonly onCommitted: (commit: CommitMeasure) => void
  readonly spec: Pick<ReplicationSpec, 'schemaChanges'>
  /** The position that is applied at the destination. */
  readonly appliedLsn: () => Lsn
  /** Whom the copy waits for: pids, and names of prepared transactions. */
  readonly onWaiting: (pids: readonly number[], preparedTransactions: readonly string[]) => void
}

/** A chunk's copy with its snapshot, and the `_lsn` of its rows. */
interface BegunCopy {
  readonly copy: ChunkCopy
  readonly rowLsn: Lsn
}

/**
 * Copies tables chunk by chunk with two readers. Each chunk has a snapshot of its own and is committed with its state, so that a crash
 * repeats at most the chunks that were running. May run beside the stream of all tables (see {@link TableRuntime}).
 */
export class Copier {
  readonly #options: CopierOptions
  /** Snapshots of one table begin one at a time: each must see what was skipped before it. */
  #snapshotTail: Promise<unknown> = Promise.resolve()
  readonly #busy = new Set<string>()
  /** By table. */
  readonly #planning = new Map<number, Promise<void>>()
  /** Rows copied by this copier, by `schema.table`. */
  readonly copied = new Map<string, number>()

  constructor(options: CopierOptions) {
    this.#options = options
  }

  /** Copies everything that `tables` still need. Resolves when nothing is left to begin, or after an abort. */
  async run(tables: readonly TableRuntime[]): Promise<void> {
    const waiting = tables.filter((table) => table.needsCopy)
    if (waiting.length === 0) return
    for (const table of waiting) table.isRemembering = true
    await this.#options.source.waitForRunningTransactions(this.#options.onWaiting, this.#options.signal)
    await Promise.all(Array.from({ length: READERS }, async () => this.#reader(waiting)))
    // The copies count from their snapshots' positions on, which the stream has to pass.
    if (!this.#options.signal.aborted) await this.#options.source.flushWal()
    for (const table of waiting) if (!table.needsCopy) table.isRemembering = false
  }

  async #reader(tables: readonly TableRuntime[]): Promise<void> {
    while (!this.#options.signal.aborted) {
      const next = await this.#next(tables)
      if (next === null) return
      await this.#copyChunk(next.table, next.index, next.key)
    }
  }

  /** The next chunk that nobody copies. Plans a table's copy when its turn comes. */
  async #next(tables: readonly TableRuntime[]): Promise<{ table: TableRuntime; index: number; key: string } | null> {
    for (const table of tables) {
      if (!table.needsCopy) continue
      await this.#planned(table)
      for (const index of table.pendingChunks) {
        const key = `${String(table.record.oid)} ${String(table.generation)} ${String(index)}`
        if (this.#busy.has(key) || isUnplanned(table.record)) continue
        this.#busy.add(key)
        return { table, index, key }
      }
    }
    return null
  }

  /** One reader plans, the other waits for the plan. */
  async #planned(table: TableRuntime): Promise<void> {
    const { oid } = table.record
    const plan = async (): Promise<void> => {
      while (isUnplanned(table.record) && !this.#options.signal.aborted) await this.#plan(table)
    }
    const planning = this.#planning.get(oid) ?? this.#onTable(table, plan).finally(() => this.#planning.delete(oid))
    this.#planning.set(oid, planning)
    await planning
  }

  async #plan(table: TableRuntime): Promise<void> {
    const { source, destination, fence, exclusive } = this.#options
    // It began anew while others were being copied: what ran by then is not in the snapshots that are to come.
    if (!table.isRemembering) {
      table.isRemembering = true
      await source.waitForRunningTransactions(this.#options.onWaiting, this.#options.signal)
    }
    this.#options.onActivity(`planning the copy of ${tableKey(table.record.source)}`)
    const { generation } = table
    const plan = await source.planChunks(schemaOf(table.record), { targetRows: destination.chunkRows, hasColumnList: table.record.hasColumnList })
    if (plan.tag === 'changed') {
      await this.#follow(table, plan, generation)
      return
    }
    // Not later than the first chunk's snapshot: what is rewritten from now on shows by it.
    const look = await source.look([table.record.oid], null)
    const seen = look.tables[0]
    await exclusive(async () => {
      const { record } = table
      const chunks = plan.ranges.map(({ lower, upper }) => ({ lower, upper, done: null }))
      const planned: TableRecord = {
        // What did not come is in what is read from now on.
        ...withoutGap(record, look.lsn),
        state: 'snapshotting',
        copy: { generation: nextGeneration(record), into: record.copy?.into ?? record.target, estimatedRows: plan.estimatedRows, chunks, ...replacingOf(record) },
        storage: seen?.storage ?? record.storage,
        ...rowsCopiedUnder(look.operations),
        counts: { ...record.counts, snapshotRows: 0 },
      }
      await destination.dropDeferred(record.oid, null)
      await destination.prepareCopy(fence, planned)
      table.update(planned)
    })
  }

  async #copyChunk(table: TableRuntime, index: number, key: string): Promise<void> {
    const { generation } = table
    const held: { copy: BegunCopy | null; stage: ChunkStage | null } = { copy: null, stage: null }
    const outcome = { isApplied: false }
    try {
      await this.#onTable(table, async () => {
        held.copy = await this.#beginSnapshot(table, index, generation)
        if (held.copy === null) return
        held.stage = await this.#stageRows(table, index, held.copy)
        outcome.isApplied = await this.#applyChunk(table, held.stage, { index, generation })
      })
    } finally {
      await held.copy?.copy.close()
      held.stage?.discard()
      if (!outcome.isApplied && table.generation === generation) {
        await this.#abandon(table, index, generation)
      }
      this.#busy.delete(key)
    }
  }

  /**
   * The next snapshot of this chunk sees what was set aside for it. Not beside an apply: rows that it is about to set aside would stay, and
   * be applied once more upon the next copy. Where nothing may be written any more the session ends, and they go with it.
   */
  async #abandon(table: TableRuntime, index: number, generation: number): Promise<void> {
    const { destination, exclusive } = this.#options
    const abandon = async (): Promise<void> => {
      table.abandonChunk(index, generation)
      await destination.dropDeferred(table.record.oid, index)
    }
    await exclusive(abandon).catch(() => undefined)
  }

  /** Takes a snapshot that sees every change skipped so far. Null where the copy began anew meanwhile, or after an abort. */
  async #beginSnapshot(table: TableRuntime, index: number, generation: number): Promise<BegunCopy | null> {
    const { source, signal } = this.#options
    const begin = async (): Promise<BegunCopy | null> => {
      for (;;) {
        const chunk = table.record.copy?.chunks[index]
        if (signal.aborted || table.generation !== generation || chunk === undefined) return null
        // What the snapshot does not see comes in the stream later than this: what came before it was skipped for this chunk, so must be visible.
        const rowLsn = this.#options.appliedLsn()
        const range = { lower: chunk.lower, upper: chunk.upper }
        const copy = await source.beginCopy(schemaOf(table.record), { range, hasColumnList: table.record.hasColumnList }, signal)
        if (copy.tag === 'changed') {
          await this.#follow(table, copy, generation)
          return null
        }
        if (table.generation === generation && table.beginChunk(index, copy.snapshot)) return { copy, rowLsn }
        await copy.close()
        await sleep(SNAPSHOT_RETRY_MS)
      }
    }
    const turn = this.#snapshotTail.then(begin)
    this.#snapshotTail = turn.catch(() => undefined)
    return turn
  }

  /** The table has changed its shape since it was described: its copy begins anew in the shape that it has. */
  async #follow(table: TableRuntime, { table: schema }: ChangedTable, generation: number): Promise<void> {
    const { spec, source, destination, fence, exclusive } = this.#options
    const change: SourceChange | null = schema === null ? null : { tag: 'copy', schema: replicatedShape(table.record, schema) }
    if (change !== null && !isAllowed(spec, change, (fingerprint) => table.takeApproval(fingerprint))) throw await refusalOf(this.#options, table.record, change)
    const isThere = schema !== null || (await source.look([table.record.oid], null)).tables.length > 0
    await exclusive(async () => {
      // A copy that has begun anew meanwhile looks for itself.
      if (table.generation !== generation) return
      if (schema === null) {
        table.update(await destination.removeTable(fence, table.record, isThere ? 'unpublished' : 'dropped'))
        return
      }
      await destination.dropDeferred(table.record.oid, null)
      table.reshape(await destination.restartCopy(fence, table.withUsedApprovals(table.record), replicatedShape(table.record, schema)))
    })
  }

  async #stageRows(table: TableRuntime, index: number, { copy, rowLsn }: BegunCopy): Promise<ChunkStage> {
    const { record } = table
    const total = record.copy?.chunks.length ?? 1
    const name = tableKey(record.source)
    const stage = this.#options.destination.newChunk(record, {
      index,
      snapshot: copy.snapshotText,
      lsn: copy.snapshotLsn,
      rowLsn,
      timeMicros: copy.snapshotTimeMicros,
    })
    try {
      this.#options.onActivity(`copying ${name}: chunk ${String(index + 1)} of ${String(total)}`)
      await stageCopy(copy, stage)
      return stage
    } catch (error) {
      stage.discard()
      throw error
    }
  }

  async #applyChunk(table: TableRuntime, stage: ChunkStage, { index, generation }: { index: number; generation: number }): Promise<boolean> {
    const { destination, fence, lookup, exclusive, signal, onCommitted } = this.#options
    return exclusive(async () => {
      if (table.generation !== generation || table.record.state === 'failed' || signal.aborted) return false
      stage.withRecord(table.record)
      const rowCount = stage.rowCount
      const endCommit = beginCommit('copy', stage)
      const result = await destination.applyChunk(fence, stage, lookup)
      const [record] = result.tables
      if (record === undefined) return false
      const name = tableKey(record.source)
      if (record.state !== 'failed') onCommitted(endCommit({ [name]: gainOf(record, table.record) }))
      table.update(record)
      this.copied.set(name, (this.copied.get(name) ?? 0) + rowCount)
      const isWhole = record.copy?.chunks.every(({ done }) => done !== null) === true
      if (isWhole) {
        table.update(await destination.swapCopy(fence, record))
        table.isRemembering = false
      }
      this.#options.onActivity(`copied ${name}: chunk ${String(index + 1)} of ${String(record.copy?.chunks.length ?? 1)}`)
      return true
    })
  }

  /** A fault of one table stops that table alone. */
  async #onTable(table: TableRuntime, work: () => Promise<void>): Promise<void> {
    try {
      await work()
    } catch (error) {
      if (this.#options.signal.aborted && !(error instanceof DomainError)) return
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

/** A copy that is not planned yet, or began anew: one range over everything. */
function isUnplanned(record: TableRecord): boolean {
  return record.state === 'pending'
}

/** The table as the source must be asked for it: what the record holds, without columns that the source dropped. */
export function schemaOf(record: TableRecord): TableSchema {
  return {
    schema: record.source.schema,
    name: record.source.name,
    oid: record.oid,
    columns: record.columns.filter(({ isDropped }) => !isDropped),
    key: record.key,
    replicaIdentity: record.replicaIdentity,
  }
}
