import { setTimeout as sleep } from 'node:timers/promises'
import type { Destination, Fence, QuarantineRecord, RowLookup, TableRecord } from '../model/destination.ts'
import type { DomainError } from '../model/errors.ts'
import type { Lsn } from '../model/lsn.ts'
import type { Source } from '../model/source.ts'
import { keepsPast } from '../model/shapes.ts'
import type { ReplicationSpec } from '../model/spec.ts'
import { beginCommit, type EndCommit } from './commit-measure.ts'
import { isWorthKeeping, stopped } from './retry.ts'
import type { SchemaWatcher } from './schema-watcher.ts'
import { SpoolPass } from './spool-pass.ts'
import type { Spools } from './spools.ts'
import { BATCH_BYTES, BATCH_ROWS, type StreamFlow } from './stream-flow.ts'
import { TableRuntime } from './table-runtime.ts'

/** With so little left, the stream waits while it is applied, and the table joins. */
const JOIN_BYTES = 8 << 20
const ASK_POSITION_MS = 250

export interface ReplayOptions {
  readonly spec: ReplicationSpec
  readonly source: Source
  readonly destination: Destination
  readonly fence: Fence
  readonly lookup: RowLookup
  readonly flow: StreamFlow
  readonly tables: ReadonlyMap<number, TableRuntime>
  readonly spools: Spools
  /** One for each reading. */
  readonly newWatcher: () => SchemaWatcher
  /** Serialises everything that changes records. */
  readonly exclusive: <T>(work: () => Promise<T>) => Promise<T>
  /** A batch is in force: the record as it is (and, in `tables`, as it was). */
  readonly onApplied: (record: TableRecord, endCommit: EndCommit) => void
}

/**
 * Applies the changes that were kept while a table had stopped, and lets it join the stream. Its place in the spool is committed with
 * the rows, so that it may be thrown away at any instant.
 *
 * States: reading (batch by batch, the stream goes on adding to the spool's end) → joining (little is left; the stream waits between two
 * transactions) → over. A value that does not fit: reading → reading as a whole (a later change may replace that value: everything up to
 * what had committed at the source when this began is one batch) → over, the table failed again.
 */
export class Replay {
  readonly #oid: number
  readonly #options: ReplayOptions
  #pass: SpoolPass | null = null
  #isWhole = false
  #isOver = false
  /** Whoever mends a value at the source does so before telling the table to go on. */
  #mendedLsn: Lsn | null = null

  constructor(oid: number, options: ReplayOptions) {
    this.#oid = oid
    this.#options = options
  }

  /** Nothing more to do: the table has joined, waits for a copy, or has failed again. */
  get isOver(): boolean {
    return this.#isOver
  }

  /** Goes on until it is over or told to rest. */
  async run(signal: AbortSignal): Promise<void> {
    const { source, spec } = this.#options
    this.#mendedLsn ??= (await source.health(spec.slotName)).committedLsn
    while (!signal.aborted && !this.#isOver) {
      if (this.#isWhole && !(await this.#hasStreamReached(this.#mendedLsn, signal))) return
      const failure = (await this.#read(signal)) ?? (await this.#tryToJoin(signal))
      if (failure !== null) await this.#onFailure(failure)
    }
  }

  /** Forgets what was read and not applied. */
  async close(): Promise<void> {
    const pass = this.#pass
    this.#pass = null
    await pass?.close()
  }

  /** The table as the stream sees it: its record is the one that counts. */
  get #table(): TableRuntime {
    const table = this.#options.tables.get(this.#oid)
    if (table === undefined) throw new RangeError('a table that is not replicated')
    return table
  }

  get #quarantine(): QuarantineRecord {
    const { quarantine } = this.#table.record
    if (quarantine === null) throw new RangeError('a table without kept changes')
    return quarantine
  }

  get #missingBytes(): number {
    return this.#quarantine.endOffset - (this.#pass?.offset ?? 0)
  }

  async #hasStreamReached(lsn: Lsn, signal: AbortSignal): Promise<boolean> {
    const { flow } = this.#options
    while (flow.appliedLsn < lsn && !signal.aborted) {
      flow.requestKeepalive()
      await sleep(ASK_POSITION_MS, undefined, { signal }).catch(() => undefined)
    }
    return !signal.aborted
  }

  /** Reads and applies what has been committed to the spool. Returns why the table cannot take it. */
  async #read(signal: AbortSignal): Promise<DomainError | null> {
    const pass = (this.#pass ??= await this.#beginPass())
    while (!signal.aborted && pass.offset < this.#quarantine.endOffset) {
      await pass.readTransaction(this.#quarantine.endOffset)
      const isBig = pass.rowCount >= (this.#options.spec.targetBatchSize ?? BATCH_ROWS) || pass.byteCount >= BATCH_BYTES
      const failure = isBig && !this.#isWhole ? await this.#apply(pass) : null
      if (failure !== null || this.#isOver) return failure
    }
    return signal.aborted || this.#isWhole ? null : this.#apply(pass)
  }

  async #beginPass(): Promise<SpoolPass> {
    const { destination, spools, newWatcher } = this.#options
    const { spool, startOffset } = this.#quarantine
    return SpoolPass.begin({
      path: spools.pathOf(spool),
      startOffset,
      table: new TableRuntime(this.#table.record),
      watcher: newWatcher(),
      newBatch: () => destination.newBatch(),
    })
  }

  async #apply(pass: SpoolPass): Promise<DomainError | null> {
    const { destination, fence, lookup, exclusive, onApplied, flow } = this.#options
    const sealed = pass.seal()
    if (sealed === null) return null
    try {
      return await exclusive(async () => {
        const record = pass.table.withUsedApprovals({ ...this.#table.record, quarantine: { ...this.#quarantine, startOffset: pass.offset } })
        const endCommit = beginCommit('replay', sealed.batch)
        const { tables, failures } = await destination.applyBatch(fence, sealed.batch, { appliedLsn: null, lookup, records: [record] })
        const failure = failures.find(({ oid }) => oid === this.#oid)
        if (failure !== undefined) return failure.error
        const applied = tables.find(({ oid }) => oid === this.#oid) ?? record
        onApplied(applied, endCommit)
        pass.table.update(applied)
        if (applied.quarantine === null) this.#leave(pass.table)
        else this.#table.update(applied)
        flow.noteChange()
        return null
      })
    } finally {
      sealed.batch.discard()
    }
  }

  /** Between two transactions of the stream, with everything read: the table is where the stream is. */
  async #tryToJoin(signal: AbortSignal): Promise<DomainError | null> {
    if (this.#isOver || signal.aborted || this.#missingBytes > JOIN_BYTES) return null
    const outcome: { failure: DomainError | null } = { failure: null }
    const wasDone = await this.#options.flow.between(async () => {
      outcome.failure = await this.#read(signal)
      if (outcome.failure === null && !this.#isOver && !signal.aborted) outcome.failure = await this.#join()
    })
    // The stream has ended or rests: the slice ends soon.
    if (!wasDone) await sleep(ASK_POSITION_MS, undefined, { signal }).catch(() => undefined)
    return outcome.failure
  }

  async #join(): Promise<DomainError | null> {
    const { destination, fence, exclusive, flow } = this.#options
    const pass = (this.#pass ??= await this.#beginPass())
    const failure = await this.#apply(pass)
    if (failure !== null || this.#isOver) return failure
    await exclusive(async () => {
      const joined: TableRecord = { ...this.#table.record, state: 'streaming', error: null, quarantine: null }
      await destination.saveTables(fence, [joined])
      pass.table.update(joined)
      this.#leave(pass.table)
    })
    flow.noteChange()
    return null
  }

  /** The table has no kept changes any more: it has taken them, or its copy begins anew and will see them. */
  #leave(table: TableRuntime): void {
    const { spool } = this.#quarantine
    this.#options.flow.replaceTable(table)
    this.#options.spools.remove(this.#oid, spool)
    this.#isOver = true
  }

  async #onFailure(error: DomainError): Promise<void> {
    await this.close()
    if (error.kind === 'UnrepresentableValue' && !this.#isWhole && !keepsPast(this.#table.record)) {
      this.#isWhole = true
      return
    }
    const { destination, fence, exclusive, spools, flow } = this.#options
    await exclusive(async () => {
      const { record } = this.#table
      const isKept = isWorthKeeping(record, error)
      const failed: TableRecord = { ...stopped(record, error), quarantine: isKept ? record.quarantine : null }
      await destination.saveTables(fence, [failed])
      if (!isKept) {
        this.#leave(new TableRuntime(failed))
        return
      }
      this.#table.update(failed)
      spools.bound(this.#oid, this.#quarantine.startOffset)
    })
    this.#isOver = true
    flow.noteChange()
  }
}
