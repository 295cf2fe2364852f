import { setTimeout as sleep } from 'node:timers/promises'
import { type ChunkStage, type Destination, type Fence, nextGeneration, replacingOf, type RowLookup, type TableRecord } from '../model/destination.ts'
import { DomainError, isTableFault } from '../model/errors.ts'
import type { Lsn } from '../model/lsn.ts'
import type { CommitMeasure } from '../model/replication.ts'
import type { ChangedTable, ChunkCopy, KeyRange, OnWaiting, Source } from '../model/source.ts'
import type { ReplicationSpec } from '../model/spec.ts'
import { tableKey, type TableSchema } from '../model/table-schema.ts'
import { replicatedShape } from '../pipeline/schema-diff.ts'
import { endsWithin } from '../postgres/ends-within.ts'
import { byAge, remember, untilEnded } from './awaited.ts'
import { beginCommit, gainOf } from './commit-measure.ts'
import { rowsCopiedUnder } from './copied-rows.ts'
import { withoutGap } from './recover.ts'
import { stopped } from './retry.ts'
import type { RunningChunks } from './running-chunks.ts'
import { isAllowed, refusalOf, type SourceChange } from './schema-approval.ts'
import { stageCopy } from './stage-copy.ts'
import type { TableRuntime } from './table-runtime.ts'

/** Connections that copy at once. */
const READERS = 2
/**
 * So many small tables are copied with one commit at the destination, or as many as have so many bytes at the source: a commit, and the plan before it, cost as
 * much as 10,000 rows.
 */
const TABLES_TOGETHER = 32
const BYTES_TOGETHER = 8 << 20
/** What has been read of such tables waits for the next one's snapshot, which somebody's lock may hold up. */
const WAIT_FOR_NEXT_MS = 1_000
/** A snapshot that does not see every skipped change yet is taken again after this. */
const SNAPSHOT_RETRY_MS = 25

export interface CopierOptions {
  readonly source: Source
  readonly destination: Destination
  readonly fence: Fence
  readonly lookup: RowLookup
  readonly signal: AbortSignal
  readonly chunks: RunningChunks
  /** Serialises everything that changes records. */
  readonly exclusive: <T>(work: () => Promise<T>) => Promise<T>
  readonly onActivity: (text: string) => void
  readonly onCommitted: (commit: CommitMeasure) => void
  readonly spec: Pick<ReplicationSpec, 'schemaChanges'>
  /** The position that is applied at the destination. */
  readonly appliedLsn: () => Lsn
  /** Whom the copy waits for: pids, and names of prepared transactions. */
  readonly onWaiting: OnWaiting
}

/** A chunk's copy with its snapshot, and the `_lsn` of its rows. */
interface BegunCopy {
  readonly copy: ChunkCopy
  readonly rowLsn: Lsn
}

/** A chunk that a reader copies. */
interface Turn {
  readonly table: TableRuntime
  readonly index: number
  readonly generation: number
  readonly key: string
}

interface ReadTurn extends Turn {
  readonly stage: ChunkStage
}

interface Plan {
  readonly table: TableRuntime
  readonly ranges: readonly KeyRange[]
  readonly estimatedRows: number
}

const EVERYTHING: KeyRange = { lower: null, upper: null }

/**
 * Copies tables chunk by chunk with two readers. Each chunk has a snapshot of its own and is committed with its state, small tables many at
 * once, so that a crash repeats at most the chunks that were running. May run beside the stream of all tables (see {@link TableRuntime}).
 */
export class Copier {
  readonly #options: CopierOptions
  /** By table: its snapshots begin one at a time, as each must see what was skipped before it. */
  readonly #snapshotTails = new Map<number, Promise<unknown>>()
  readonly #busy = new Set<string>()
  /** By table. */
  readonly #planning = new Map<number, Promise<void>>()
  /** Bytes at the source of tables that are copied together with others, by table and generation of the copy. */
  readonly #small = new Map<string, number>()
  /** Rows copied by this copier, by `schema.table`. */
  readonly copied = new Map<string, number>()

  constructor(options: CopierOptions) {
    this.#options = options
  }

  /** Copies everything that `tables` still need. Resolves when nothing is left to begin, or after an abort. */
  async run(tables: readonly TableRuntime[]): Promise<void> {
    const { source, onWaiting, signal } = this.#options
    const all = tables.filter((table) => table.needsCopy)
    const known = new Set(all.map(({ awaited }) => awaited))
    let waiting = all
    while (waiting.length > 0 && this.#mayBegin) {
      await remember(source, waiting, all)
      for (const group of byAge(waiting)) {
        await untilEnded(source, group, { onWaiting, signal, all, known })
        await Promise.all(Array.from({ length: READERS }, async () => this.#reader(group)))
        // The copies count from their snapshots' positions on, which the stream has to pass.
        if (!signal.aborted) await source.flushWal()
        for (const table of group) if (!table.needsCopy) table.endCopy()
      }
      // Those that began anew meanwhile.
      waiting = waiting.filter((table) => table.needsCopy && table.awaited === null)
    }
  }

  get #mayBegin(): boolean {
    return !this.#options.signal.aborted && this.#options.chunks.mayBegin
  }

  async #reader(tables: readonly TableRuntime[]): Promise<void> {
    const { chunks } = this.#options
    while (this.#mayBegin) {
      const turns = await this.#next(tables)
      if (turns.length === 0) return
      await chunks.run(async () => this.#copyChunks(turns))
    }
  }

  /** The next chunk that nobody copies, with those of other tables that are copied together with it. Plans a table's copy when its turn comes. */
  async #next(tables: readonly TableRuntime[]): Promise<readonly Turn[]> {
    const turns: Turn[] = []
    let byteCount = 0
    for (const table of tables) {
      // One that began anew waits for others.
      if (!table.needsCopy || table.awaited === null) continue
      // What is planned now may be copied together with what is held.
      if (turns.length === 0) await this.#planned(table, tables)
      const { generation } = table
      const small = this.#small.get(nameOf(table))
      if (turns.length > 0 && (small === undefined || byteCount + small > BYTES_TOGETHER)) continue
      for (const index of table.pendingChunks) {
        const key = `${nameOf(table)} ${String(index)}`
        if (this.#busy.has(key) || isUnplanned(table.record)) continue
        this.#busy.add(key)
        turns.push({ table, index, generation, key })
        byteCount += small ?? 0
        break
      }
      if (turns.length > 0 && (small === undefined || turns.length === TABLES_TOGETHER)) break
    }
    return turns
  }

  /** One reader plans, the other waits for the plan. */
  async #planned(table: TableRuntime, tables: readonly TableRuntime[]): Promise<void> {
    const waiting = this.#planning.get(table.record.oid)
    if (waiting !== undefined) await waiting
    else if (isUnplanned(table.record)) await this.#beginPlanning(table, tables)
  }

  async #beginPlanning(table: TableRuntime, tables: readonly TableRuntime[]): Promise<void> {
    const others = tables.filter((other) => other !== table && other.needsCopy && other.awaited !== null && isUnplanned(other.record) && !this.#planning.has(other.record.oid))
    const together = [table, ...others].slice(0, TABLES_TOGETHER)
    const oids = together.map(({ record }) => record.oid)
    const planning = this.#planTogether(together).finally(() => {
      for (const oid of oids) this.#planning.delete(oid)
    })
    for (const oid of oids) this.#planning.set(oid, planning)
    await planning
  }

  /** Plans the first table, and with it the small ones among the others. */
  async #planTogether(tables: readonly TableRuntime[]): Promise<void> {
    const [first, ...others] = tables
    if (first === undefined) return
    const { source, destination, signal } = this.#options
    const sizes = await source.findSmallTables(tables.map(({ record }) => record.oid), destination.chunkRows)
    if (!sizes.has(first.record.oid)) {
      await this.#onTable(first, async () => {
        if (isUnplanned(first.record)) await this.#planRanges(first)
      })
      return
    }
    const plans: Plan[] = []
    for (const table of [first, ...others]) {
      const size = sizes.get(table.record.oid)
      if (size !== undefined) plans.push({ table, ranges: [EVERYTHING], estimatedRows: size.estimatedRows })
    }
    if (!signal.aborted) await this.#write(plans)
    for (const { table } of plans) this.#small.set(nameOf(table), sizes.get(table.record.oid)?.byteCount ?? 0)
  }

  async #planRanges(table: TableRuntime): Promise<void> {
    const { source, destination } = this.#options
    this.#options.onActivity(`planning the copy of ${tableKey(table.record.source)}`)
    const { generation } = table
    const plan = await source.planChunks(schemaOf(table.record), { targetRows: destination.chunkRows, hasColumnList: table.record.hasColumnList })
    if (plan.tag === 'changed') await this.#follow(table, plan, generation)
    else await this.#write([{ table, ranges: plan.ranges, estimatedRows: plan.estimatedRows }])
  }

  async #write(plans: readonly Plan[]): Promise<void> {
    const { source, destination, fence, exclusive } = this.#options
    // Not later than the first chunk's snapshot: what is rewritten from now on shows by it.
    const look = await source.look(plans.map(({ table }) => table.record.oid), null)
    const seen = new Map(look.tables.map((table) => [table.oid, table]))
    await exclusive(async () => {
      const planned = plans.flatMap(({ table, ranges, estimatedRows }) => {
        const { record } = table
        if (!isUnplanned(record) || table.awaited === null) return []
        const chunks = ranges.map(({ lower, upper }) => ({ lower, upper, done: null }))
        const next: TableRecord = {
          // What did not come is in what is read from now on.
          ...withoutGap(record, look.lsn),
          state: 'snapshotting',
          copy: { generation: nextGeneration(record), into: record.copy?.into ?? record.target, estimatedRows, chunks, ...replacingOf(record) },
          storage: seen.get(record.oid)?.storage ?? record.storage,
          ...rowsCopiedUnder(look.operations),
          counts: { ...record.counts, snapshotRows: 0 },
        }
        return [{ table, next }]
      })
      for (const { next } of planned) await destination.dropDeferred(next.oid, null)
      await destination.prepareCopies(fence, planned.map(({ next }) => next))
      for (const { table, next } of planned) table.update(next)
    })
  }

  async #copyChunks(turns: readonly Turn[]): Promise<void> {
    const read: ReadTurn[] = []
    /** By their keys. */
    const applied = new Set<string>()
    const applyRead = async (): Promise<void> => {
      const ready = read.splice(0)
      try {
        for (const { key } of await this.#apply(ready)) applied.add(key)
      } finally {
        for (const { stage } of ready) stage.discard()
      }
    }
    try {
      for (const turn of turns) {
        const reading = this.#onTable(turn.table, async () => {
          const stage = await this.#readChunk(turn)
          if (stage !== null) read.push({ ...turn, stage })
        })
        try {
          // However it ends.
          if (read.length > 0 && !(await endsWithin(reading.catch(() => undefined), WAIT_FOR_NEXT_MS))) await applyRead()
        } finally {
          await reading
        }
      }
      await applyRead()
    } finally {
      for (const { stage } of read) stage.discard()
      for (const { table, index, generation, key } of turns) {
        if (!applied.has(key) && table.generation === generation) await this.#abandon(table, index, generation)
        this.#busy.delete(key)
      }
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
        if (!this.#mayBegin || table.generation !== generation || chunk === undefined) return null
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
    const { oid } = table.record
    const turn = (this.#snapshotTails.get(oid) ?? Promise.resolve()).then(begin)
    this.#snapshotTails.set(oid, turn.catch(() => undefined))
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
      try {
        table.reshape(await destination.restartCopy(fence, table.withUsedApprovals(table.record), replicatedShape(table.record, schema)))
      } catch (error) {
        if (!(error instanceof DomainError && error.kind === 'InvalidInput')) throw error
        await this.#stop(table, error)
      }
    })
  }

  /** Reads a chunk from a snapshot of its own, which ends with it. Null where the copy began anew meanwhile, or after an abort. */
  async #readChunk({ table, index, generation }: Turn): Promise<ChunkStage | null> {
    const begun = await this.#beginSnapshot(table, index, generation)
    if (begun === null) return null
    try {
      return await this.#stageRows(table, index, begun)
    } finally {
      await begun.copy.close()
    }
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

  /** Applies what has been read, in one commit. Tells which chunks are in force. */
  async #apply(read: readonly ReadTurn[]): Promise<readonly Turn[]> {
    const [first, ...others] = read
    if (first === undefined) return []
    try {
      if (others.length > 0) return await this.#applyChunks(read)
    } catch (error) {
      if (!isTableFault(error)) throw error
      // Whose it is shows when each is applied by itself.
    }
    const applied: Turn[] = []
    for (const turn of read) await this.#onTable(turn.table, async () => void applied.push(...(await this.#applyChunks([turn]))))
    return applied
  }

  async #applyChunks(read: readonly ReadTurn[]): Promise<readonly Turn[]> {
    const { destination, fence, lookup, exclusive, signal, onCommitted, onActivity } = this.#options
    return exclusive(async () => {
      const turns = read.filter(({ table, generation }) => table.generation === generation && table.record.state !== 'failed')
      if (turns.length === 0 || signal.aborted) return []
      for (const { table, stage } of turns) stage.withRecord(table.record)
      const stages = turns.map(({ stage }) => stage)
      const endCommit = beginCommit('copy', { rowCount: sumOf(stages.map(({ rowCount }) => rowCount)), byteCount: sumOf(stages.map(({ byteCount }) => byteCount)) })
      const records = await destination.applyChunks(fence, stages, lookup)
      const copied = turns.flatMap((turn, place) => {
        const record = records[place]
        return record === undefined ? [] : [{ ...turn, record, name: tableKey(record.source) }]
      })
      onCommitted(endCommit(Object.fromEntries(copied.flatMap(({ table, record, name }) => (record.state === 'failed' ? [] : [[name, gainOf(record, table.record)] as const])))))
      for (const { table, stage, index, record, name } of copied) {
        table.update(record)
        this.copied.set(name, (this.copied.get(name) ?? 0) + stage.rowCount)
        onActivity(`copied ${name}: chunk ${String(index + 1)} of ${String(record.copy?.chunks.length ?? 1)}`)
      }
      for (const { table, record } of copied) if (record.copy?.chunks.every(({ done }) => done !== null) === true) await this.#swap(table, record)
      return turns
    })
  }

  async #swap(table: TableRuntime, record: TableRecord): Promise<void> {
    const { destination, fence } = this.#options
    try {
      table.update(await destination.swapCopy(fence, record))
    } catch (error) {
      if (!isTableFault(error)) throw error
      await this.#stop(table, error)
    }
    table.endCopy()
  }

  async #stop(table: TableRuntime, error: DomainError): Promise<void> {
    const { destination, fence } = this.#options
    const failed = stopped(table.record, error)
    await destination.saveTables(fence, [failed])
    table.update(failed)
  }

  /** A fault of one table stops that table alone. */
  async #onTable(table: TableRuntime, work: () => Promise<void>): Promise<void> {
    try {
      await work()
    } catch (error) {
      if (this.#options.signal.aborted && !(error instanceof DomainError)) return
      if (!isTableFault(error)) throw error
      await this.#options.exclusive(async () => this.#stop(table, error))
    }
  }
}

/** A table's copy, as long as it does not begin anew. */
function nameOf({ record, generation }: TableRuntime): string {
  return `${String(record.oid)} ${String(generation)}`
}

function sumOf(counts: readonly number[]): number {
  return counts.reduce((sum, count) => sum + count, 0)
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
