import type { Relation } from '../model/change.ts'
import { isBeside, withoutCopy, type Batch, type Destination, type Fence, type RowLookup, type TableFailure, type TableRecord } from '../model/destination.ts'
import { maxLsn, ZERO_LSN, type Lsn } from '../model/lsn.ts'
import type { ReplicationStream, Source } from '../model/source.ts'
import type { ReplicationSpec } from '../model/spec.ts'
import { beginCommit, type EndCommit } from './commit-measure.ts'
import { CommitRhythm } from './commit-rhythm.ts'
import type { SchemaWatcher } from './schema-watcher.ts'
import { openSpooledStream } from './spooled-stream.ts'
import type { Spools } from './spools.ts'
import { StreamConsumer, type SealedBatch } from './stream-consumer.ts'
import type { TableRuntime } from './table-runtime.ts'

/** Rows and bytes of one destination commit, unless `targetBatchSize` says otherwise. */
export const BATCH_ROWS = 200_000
export const BATCH_BYTES = 64 << 20
/** While idle, the position is stored and confirmed at most so often (the slot moves on within 10 s). */
const IDLE_CHECKPOINT_MS = 4_000

export interface StreamFlowOptions {
  readonly spec: ReplicationSpec
  readonly source: Source
  readonly destination: Destination
  readonly fence: Fence
  readonly lookup: RowLookup
  readonly watcher: SchemaWatcher
  readonly tables: Map<number, TableRuntime>
  readonly spools: Spools
  readonly appliedLsn: Lsn
  /** Serialises everything that changes records. */
  readonly exclusive: <T>(work: () => Promise<T>) => Promise<T>
  /** A batch is in force: the records as they are (and, in `tables`, as they were). */
  readonly onApplied: (records: readonly TableRecord[], applied: { readonly transactions: number; readonly endCommit: EndCommit }) => void
  /** Tables cannot take their changes. Nothing of the batch is in force; called while records may be changed, after it nothing more is applied. */
  readonly onTableFailures: (failures: readonly TableFailure[]) => Promise<void>
  /** The position moved, or a table joined. */
  readonly onMove: () => void
  readonly onFailure: (error: unknown) => void
}

/** Work that waits for a moment between two transactions. */
interface Interlude {
  readonly work: () => Promise<void>
  readonly onEnd: (wasDone: boolean) => void
}

/**
 * The way of the bytes: stream → batches → destination → confirmation. One batch is applied while the next one is read.
 *
 * States: closed → (open) → held (nothing is read, no batch begins) ⇄ flowing → closed.
 */
export class StreamFlow {
  readonly #options: StreamFlowOptions
  #stream: ReplicationStream | null = null
  #consumer: StreamConsumer | null = null
  readonly #queue: SealedBatch[] = []
  #isFlowing = false
  #isApplying = false
  #isBroken = false
  #appliedLsn: Lsn
  #savedLsn: Lsn
  #keepaliveLsn: Lsn = ZERO_LSN
  #lastSaveMs = 0
  readonly #rhythm = new CommitRhythm()
  #lastCommitTimeMicros = 0n
  #firstChangeMs: number | null = null
  #sealTimer: { readonly timer: NodeJS.Timeout; readonly dueMs: number } | null = null
  #idleTimer: NodeJS.Timeout | null = null
  #interlude: Interlude | null = null

  constructor(options: StreamFlowOptions) {
    this.#options = options
    this.#appliedLsn = options.appliedLsn
    this.#savedLsn = options.appliedLsn
  }

  get isFlowing(): boolean {
    return this.#isFlowing
  }

  /** Everything that committed before it is at the destination. */
  get appliedLsn(): Lsn {
    return this.#appliedLsn
  }

  /** Source time of the last commit that was applied; 0 before the first. */
  get lastCommitTimeMicros(): bigint {
    return this.#lastCommitTimeMicros
  }

  /** `performance.now()` of the first change since `flow()`; null while idle. */
  get firstChangeMs(): number | null {
    return this.#firstChangeMs
  }

  /** Opens the stream, if it is not yet, and lets it flow. Throws what opening throws. */
  async flow(signal: AbortSignal): Promise<void> {
    await this.#open(signal)
    this.#isFlowing = true
    this.#firstChangeMs = null
    this.#idleTimer = setInterval(() => void this.#saveIdlePosition(), IDLE_CHECKPOINT_MS)
    this.#steer()
    this.#sealWhenDue()
  }

  /** Stops reading and lets the running apply end; what is staged waits for the next `flow()`. */
  async hold(): Promise<void> {
    this.#isFlowing = false
    this.#clearTimers()
    this.#steer()
    while (this.#isApplying && !this.#isBroken) await new Promise((resolve) => setTimeout(resolve, 5))
    this.#endInterlude(false)
    if (!this.#isBroken) await this.#saveIdlePosition()
  }

  requestKeepalive(): void {
    this.#stream?.requestKeepalive()
  }

  /** See {@link StreamConsumer.amend}. False while no stream is open. */
  amend(work: (batch: Batch) => void, onApplied: () => void): boolean {
    const consumer = this.#consumer
    if (consumer === null || this.#isBroken) return false
    consumer.amend(work, onApplied)
    this.#sealWhenDue()
    return true
  }

  /** Something was applied beside the stream. */
  noteChange(): void {
    this.#firstChangeMs ??= performance.now()
    this.#options.onMove()
  }

  /**
   * Does `work` between two transactions, when everything received before is applied; nothing is read meanwhile. False where it was
   * not done because the stream does not flow, or was held before its moment came. One at a time.
   */
  async between(work: () => Promise<void>): Promise<boolean> {
    if (!this.#isFlowing || this.#isBroken || this.#interlude !== null) return false
    const isDone = new Promise<boolean>((resolve) => {
      this.#interlude = { work, onEnd: resolve }
    })
    this.#sealWhenDue()
    return isDone
  }

  /** Another object stands for the table from now on (or a table joins); what the stream last said of its shape is said again. */
  replaceTable(table: TableRuntime): void {
    const { tables } = this.#options
    const owed = tables.get(table.record.oid)?.spool?.owedRelation ?? null
    tables.set(table.record.oid, table)
    this.#consumer?.forgetTable()
    if (owed !== null) this.#consumer?.relation(owed)
  }

  /** Nothing more is applied: it is to be read again, by another session. Call it when nothing is being applied. */
  breakOff(): void {
    this.#isBroken = true
  }

  /** Lets go of the slot. What was staged is read again from it. Idempotent. */
  async close(): Promise<void> {
    this.#isFlowing = false
    this.#isBroken = true
    this.#clearTimers()
    this.#endInterlude(false)
    await this.#stream?.close().catch(() => undefined)
  }

  /** Frees the staging of what was not applied, when nothing is being applied any more. */
  discard(): void {
    for (const { batch } of this.#queue.splice(0)) batch.discard()
    this.#consumer?.discard()
  }

  async #open(signal: AbortSignal): Promise<void> {
    if (this.#stream !== null) return
    const { source, spec, destination, tables, spools } = this.#options
    this.#consumer = new StreamConsumer({
      newBatch: () => destination.newBatch(),
      tableOf: (oid) => tables.get(oid),
      onRelation: (relation, table) => { this.#resolveRelation(relation, table) },
      onBoundary: () => { this.#sealWhenDue() },
      appliedLsn: this.#appliedLsn,
    })
    const stream = await openSpooledStream(source, spools.stream, {
      slotName: spec.slotName,
      publicationName: spec.publicationName,
      startLsn: this.#appliedLsn,
      handler: this.#consumer,
      stagingFolder: spools.folder,
      onKeepalive: (walEnd) => {
        this.#keepaliveLsn = walEnd
        this.#advanceIdle()
      },
      signal,
    })
    this.#stream = stream
    stream.ended.catch((error: unknown) => { this.#options.onFailure(error) })
  }

  /** The catalog is asked while the stream waits; what it says is put in its place among the changes. */
  #resolveRelation(relation: Relation, table: TableRuntime | undefined): void {
    const { watcher, tables, onMove, onFailure } = this.#options
    const consumer = this.#consumer
    if (consumer === null || !watcher.concerns(relation, table)) return
    this.#stream?.pause()
    const resolve = async (): Promise<void> => {
      const joined = await watcher.resolve({ relation, table, consumer })
      if (joined !== null) tables.set(relation.oid, joined)
      this.#steer()
      onMove()
    }
    resolve().catch(onFailure)
  }

  /** Nothing is read while it is held, while the catalog is asked, and while more than one batch waits. */
  #steer(): void {
    const mustRest = this.#interlude !== null && this.#consumer?.isInTransaction !== true
    if (this.#isFlowing && !mustRest && !this.#options.watcher.isBusy && this.#queue.length <= 1) this.#stream?.resume()
    else this.#stream?.pause()
  }

  /** Between transactions: seals the batch when it is big enough, or when nothing is being applied and others had time to join. */
  #sealWhenDue(): void {
    const consumer = this.#consumer
    if (consumer === null || !this.#isFlowing || consumer.isInTransaction) return
    if (this.#interlude !== null) {
      this.#seal(consumer)
      void this.#playInterlude()
      return
    }
    if (!consumer.hasCommits) return
    const passedLsn = consumer.passEmpty()
    if (passedLsn !== null) {
      this.#keepaliveLsn = maxLsn(this.#keepaliveLsn, passedLsn)
      this.#advanceIdle()
      return
    }
    this.#firstChangeMs ??= performance.now()
    const { targetBatchSize } = this.#options.spec
    const isBig = consumer.rowCount >= (targetBatchSize ?? BATCH_ROWS) || consumer.byteCount >= BATCH_BYTES
    const isFree = !this.#isApplying && this.#queue.length === 0
    const dueMs = this.#rhythm.dueMs(consumer)
    if (isBig || (isFree && performance.now() >= dueMs)) this.#seal(consumer)
    else if (isFree) this.#sealAt(dueMs)
  }

  #sealAt(dueMs: number): void {
    if (this.#sealTimer !== null && this.#sealTimer.dueMs <= dueMs) return
    this.#clearSealTimer()
    const onDue = (): void => {
      this.#sealTimer = null
      this.#sealWhenDue()
    }
    this.#sealTimer = { timer: setTimeout(onDue, Math.max(1, dueMs - performance.now())), dueMs }
  }

  async #playInterlude(): Promise<void> {
    this.#steer()
    const interlude = this.#interlude
    if (interlude === null || this.#isApplying || this.#queue.length > 0) return
    this.#isApplying = true
    try {
      await interlude.work()
      this.#endInterlude(true)
    } catch (error) {
      this.#options.onFailure(error)
      this.#endInterlude(false)
      return
    } finally {
      this.#isApplying = false
    }
    this.#steer()
    this.#sealWhenDue()
    this.#advanceIdle()
  }

  #endInterlude(wasDone: boolean): void {
    const interlude = this.#interlude
    this.#interlude = null
    interlude?.onEnd(wasDone)
  }

  #seal(consumer: StreamConsumer): void {
    this.#clearSealTimer()
    const sealed = consumer.seal()
    if (sealed === null) return
    this.#queue.push(sealed)
    this.#steer()
    void this.#applyQueue()
  }

  async #applyQueue(): Promise<void> {
    if (this.#isApplying) return
    this.#isApplying = true
    try {
      for (let sealed = this.#queue.shift(); sealed !== undefined && !this.#isBroken; sealed = this.#queue.shift()) {
        const next = sealed
        this.#steer()
        await this.#options.exclusive(async () => this.#apply(next))
        this.#confirm()
        this.#options.onMove()
      }
    } catch (error) {
      this.#options.onFailure(error)
      return
    } finally {
      this.#isApplying = false
    }
    this.#sealWhenDue()
    this.#advanceIdle()
  }

  async #apply(sealed: SealedBatch): Promise<void> {
    const { destination, fence, lookup, tables, onApplied, onTableFailures } = this.#options
    try {
      if (this.#isBroken) return
      const records = [...(await this.#spooledRecords(sealed)), ...this.#usedApprovals()]
      // What was staged beside the stream may come after the server's own position was taken.
      const appliedLsn = maxLsn(this.#appliedLsn, sealed.endLsn)
      const endCommit = beginCommit('stream', sealed.batch)
      const startMs = performance.now()
      const result = await destination.applyBatch(fence, sealed.batch, { appliedLsn, lookup, records })
      if (result.failures.length > 0) {
        this.#isBroken = true
        await onTableFailures(result.failures)
        return
      }
      onApplied(result.tables, { transactions: sealed.transactions, endCommit })
      this.#dropFullSpools(records)
      for (const record of [...records, ...result.tables]) tables.get(record.oid)?.update(record)
      this.#lastCommitTimeMicros = sealed.lastCommitTimeMicros
      this.#appliedLsn = appliedLsn
      this.#savedLsn = appliedLsn
      this.#rhythm.onCommit({ startMs, endMs: performance.now() })
      for (const onApplied of sealed.onApplied) onApplied()
      await this.#forgetFinishedCopies()
    } finally {
      sealed.batch.discard()
    }
  }

  /** Makes the spooled changes of a batch durable; their tables' records as they are to be once the batch is in force. */
  async #spooledRecords({ spooled }: SealedBatch): Promise<readonly TableRecord[]> {
    const records: TableRecord[] = []
    for (const { spool, endOffset } of spooled) {
      const table = this.#options.tables.get(spool.oid)
      if (table?.spool !== spool || table.record.quarantine === null) continue
      await spool.sync()
      records.push({ ...table.record, quarantine: spool.isOver ? null : { ...table.record.quarantine, endOffset } })
    }
    return records
  }

  /** Records of tables that make changes which were approved. */
  #usedApprovals(): readonly TableRecord[] {
    return [...this.#options.tables.values()].filter((table) => table.hasTakenApprovals).map((table) => table.withUsedApprovals(table.record))
  }

  /** Their tables' changes are skipped from now on. */
  #dropFullSpools(records: readonly TableRecord[]): void {
    for (const { oid, quarantine } of records) {
      const table = this.#options.tables.get(oid)
      if (quarantine !== null || table?.record.quarantine == null) continue
      table.spool = null
      this.#options.spools.remove(oid, table.record.quarantine.spool)
    }
  }

  /**
   * Once the stream has passed every snapshot of a table's copy, the plan of that copy is of no use any more. What counts is the position that the destination has: from
   * there the stream is read again after a kill, and without the plan it would bring what the copy has seen.
   */
  async #forgetFinishedCopies(): Promise<void> {
    const { destination, fence, tables } = this.#options
    const finished = [...tables.values()].filter((table) => table.record.state === 'streaming' && !isBeside(table.record) && table.catchUpLsn !== null && table.catchUpLsn <= this.#savedLsn)
    if (finished.length === 0) return
    const records = finished.map((table) => withoutCopy(table.record))
    await destination.saveTables(fence, records)
    for (const record of records) tables.get(record.oid)?.update(record)
  }

  #confirm(): void {
    if (this.#options.spec.flushSlot) this.#stream?.confirm(this.#savedLsn)
  }

  /** Nothing received waits: the server's own position is ours too (facts 4). */
  #advanceIdle(): void {
    const consumer = this.#consumer
    if (consumer === null || this.#isBroken || this.#isApplying || this.#queue.length > 0 || consumer.hasCommits || consumer.isInTransaction) return
    if (this.#keepaliveLsn <= this.#appliedLsn) return
    this.#appliedLsn = this.#keepaliveLsn
    this.#options.onMove()
    if (performance.now() - this.#lastSaveMs >= IDLE_CHECKPOINT_MS) void this.#saveIdlePosition()
  }

  async #saveIdlePosition(): Promise<void> {
    const { destination, fence, exclusive, onFailure } = this.#options
    const lsn = this.#appliedLsn
    if (lsn <= this.#savedLsn || this.#isApplying || this.#isBroken) return
    this.#lastSaveMs = performance.now()
    try {
      await exclusive(async () => {
        await destination.saveCheckpoint(fence, lsn)
        this.#savedLsn = maxLsn(this.#savedLsn, lsn)
        await this.#forgetFinishedCopies()
      })
      this.#confirm()
    } catch (error) {
      onFailure(error)
    }
  }

  #clearTimers(): void {
    this.#clearSealTimer()
    if (this.#idleTimer !== null) clearInterval(this.#idleTimer)
    this.#idleTimer = null
  }

  #clearSealTimer(): void {
    if (this.#sealTimer !== null) clearTimeout(this.#sealTimer.timer)
    this.#sealTimer = null
  }
}
