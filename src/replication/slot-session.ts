import type { Destination, Fence, PipelineState, RowLookup, TableFailure, TableRecord } from '../model/destination.ts'
import { formatLsn, parseLsn, ZERO_LSN, type Lsn } from '../model/lsn.ts'
import type { OperationContext, SliceRequest, SliceResult } from '../model/replication.ts'
import type { Source } from '../model/source.ts'
import type { ReplicationSpec } from '../model/spec.ts'
import type { ReplicationProgress } from '../model/status.ts'
import { tableKey, type TableSchema } from '../model/table-schema.ts'
import { answerWithin } from '../postgres/ends-within.ts'
import { Bell } from './bell.ts'
import { CatalogWatch, WRONG_ROWS } from './catalog-watch.ts'
import { ChangeTally } from './change-tally.ts'
import type { EndCommit } from './commit-measure.ts'
import { Copier } from './copier.ts'
import { swapFinishedCopies } from './finished-copies.ts'
import { GapRepair } from './gap-repair.ts'
import { namedTables } from './named-tables.ts'
import { progressOf, transactionHolders } from './progress.ts'
import { Quiet } from './quiet.ts'
import { RecordQueue } from './record-queue.ts'
import { type Adopted, noteAdoption } from './registration.ts'
import { Replays } from './replays.ts'
import { copiedAnew, missesUnsentRows, stoppedInStream } from './retry.ts'
import { type CopyTime, keepCopying, LOOK_MS, RunningChunks } from './running-chunks.ts'
import { SchemaWatcher } from './schema-watcher.ts'
import { createLookup } from './source-lookup.ts'
import { SlotHealth } from './slot-health.ts'
import { dropUnloaded, SnapshotLoader } from './snapshot-loader.ts'
import type { Spools } from './spools.ts'
import { StreamFlow } from './stream-flow.ts'
import { TableRuntime } from './table-runtime.ts'

/** How often the server is asked for its position, the slot's and its catalog; while it is quiet five times less often. */
const LOOKS = { intervalMs: 2_000, quietTicks: 5 }
/** How often live figures are told; while it is quiet four times less often. */
const REPORTS = { intervalMs: 500, quietTicks: 4 }
/** While an LSN is waited for, the server is asked this often how far it has come. */
const ASK_POSITION_MS = 250
/** A slice that was idle ends this long after changes began, so that the workflow's state is never old. */
const END_AFTER_CHANGES_MS = 1_000

export interface SlotSessionOptions {
  readonly spec: ReplicationSpec
  readonly source: Source
  readonly destination: Destination
  readonly fence: Fence
  readonly state: PipelineState
  /** Open, one for each table with kept changes. */
  readonly spools: Spools
  /** Registers tables of the publication that appear in the stream (whole schema); the rest stays out. */
  readonly adoptTable: (schema: TableSchema, tables: readonly TableRecord[]) => Promise<Adopted>
  readonly warnings: readonly string[]
}

interface SliceOutcome {
  readonly ended: SliceResult['ended']
  readonly copied: Record<string, { rows: number }>
  readonly untilLsn: string | null
}

/**
 * One slot's data plane in this process: the stream, and copies beside it. Lives over many slices; everything that matters is in
 * the destination, so it may be thrown away at any instant.
 *
 * States: idle (no slice runs: nothing is read or applied) ⇄ running (one slice) → closed. Any error closes it.
 */
export class SlotSession {
  readonly #options: SlotSessionOptions
  readonly #tables = new Map<number, TableRuntime>()
  readonly #lookup: RowLookup
  readonly #watcher: SchemaWatcher
  readonly #catalog: CatalogWatch
  readonly #warned = new Set<string>()
  readonly #flow: StreamFlow
  readonly #replays: Replays
  readonly #gaps: GapRepair
  /** A table has stopped: the stream must be read again from what is applied, that table's changes into its spool. */
  #mustRestart = false
  #replaying: Promise<void> = Promise.resolve()
  #isRunning = false
  #closing: Promise<void> | null = null
  readonly #health: SlotHealth
  readonly #quiet = new Quiet()
  /** Rings when something happened that may end the slice, or give its loops something to do. */
  readonly #bell = new Bell()
  #activity = ''
  #hasLoadedSnapshots = false
  readonly #records = new RecordQueue()
  #transactions = 0
  #tally = new ChangeTally()
  #observe: OperationContext['observe'] = () => undefined
  /** Ends the running slice with an error. */
  #fail: (error: unknown) => void = () => void this.close()
  /** Ends the running slice early. */
  #endSlice: () => void = () => undefined

  constructor(options: SlotSessionOptions) {
    this.#options = options
    const { spec, source, destination, fence, state, spools } = options
    for (const record of state.tables) {
      const table = new TableRuntime(record)
      table.spool = spools.of(record.oid)
      this.#tables.set(record.oid, table)
    }
    this.#health = new SlotHealth({ source, spec, spools })
    this.#lookup = createLookup(source, this.#tables)
    const tables = this.#tables
    const exclusive = async <T>(work: () => Promise<T>): Promise<T> => this.#records.run(work)
    const common = { spec, source, destination, fence, tables, exclusive }
    const warn = (warning: string): void => void this.#warned.add(warning)
    this.#watcher = new SchemaWatcher({ spec, source, destination, tables, adoptTable: async (schema) => this.#adopt(schema), warn, onRename: () => { this.#catalog.oweLook() } })
    this.#flow = new StreamFlow({
      ...common,
      lookup: this.#lookup,
      watcher: this.#watcher,
      spools,
      appliedLsn: state.appliedLsn ?? ZERO_LSN,
      onApplied: (records, { transactions, endCommit }) => {
        this.#transactions += transactions
        this.#count(records, endCommit)
      },
      onTableFailures: async (failures) => this.#stopTables(failures),
      onMove: () => { this.#catalog.pollIfDue(); this.#bell.ring() },
      onFailure: (error) => { this.#fail(error) },
    })
    this.#replays = new Replays({
      ...common,
      lookup: this.#lookup,
      flow: this.#flow,
      spools,
      // Names that the table had meanwhile may be others' by now: it is followed to its present one when it has joined.
      newWatcher: () => new SchemaWatcher({ spec, source, destination, tables: null, adoptTable: async () => Promise.resolve(null), warn, onRename: () => undefined }),
      onApplied: (record, endCommit) => { this.#count([record], endCommit) },
      onActivity: (text) => { this.#beAt(text) },
      rest: async () => this.#bell.wait(LOOK_MS),
    })
    this.#gaps = new GapRepair({
      ...common,
      flow: this.#flow,
      onActivity: (text) => { this.#beAt(text) },
      warn,
      onDone: () => { this.#bell.ring() },
      onFailure: (error) => { this.#fail(error) },
      onTableFailures: async (failures) => this.#stopTables(failures),
    })
    this.#catalog = new CatalogWatch({
      ...common,
      appliedLsn: () => this.#flow.appliedLsn,
      amend: (work, onApplied) => this.#flow.amend(work, onApplied),
      adopt: async (oids) => {
        for (const joined of await this.#watcher.adopt(oids)) this.#flow.replaceTable(joined)
      },
      warn,
      onDone: () => { this.#bell.ring() },
      onFailure: (error) => { this.#fail(error) },
    })
  }

  get isClosed(): boolean {
    return this.#closing !== null
  }

  get fence(): Fence {
    return this.#options.fence
  }

  /** Has everything been applied that committed before `lsn`? Where not, the server is asked how far it has come. */
  hasApplied(lsn: Lsn): boolean {
    if (this.#flow.appliedLsn >= lsn) return true
    this.#flow.requestKeepalive()
    return false
  }

  /** Does it run with these options? */
  hasOptionsOf(given: ReplicationSpec): boolean {
    const { spec } = this.#options
    return (['targetBatchSize', 'flushSlot', 'schemaChanges', 'walBudgetBytes'] as const).every((option) => spec[option] === given[option])
  }

  /** The data plane's part of the status, from what is known now. */
  #progress(slotWarnings: readonly string[]): ReplicationProgress {
    const { appliedLsn, lastCommitTimeMicros } = this.#flow
    return progressOf([...this.#tables.values()].map(({ record }) => record), {
      appliedLsn,
      health: this.#health.newest,
      lagMs: this.#health.lagMs({ appliedLsn, lastCommitTimeMicros, nowMs: Date.now() }),
      warnings: [...this.#options.warnings, ...this.#warned, ...slotWarnings],
    })
  }

  /** Runs one slice. Throws what no part of it could mend; the session is closed then. */
  async run(request: SliceRequest, context: OperationContext): Promise<SliceResult> {
    if (this.#isRunning || this.isClosed) throw new RangeError('a session runs one slice at a time')
    this.#isRunning = true
    const ended = new AbortController()
    this.#endSlice = () => { ended.abort() }
    ended.signal.addEventListener('abort', () => { this.#bell.ring() }, { once: true })
    context.signal.addEventListener('abort', this.#endSlice, { once: true })
    if (context.signal.aborted) ended.abort()
    const failed = new Promise<never>((_, reject) => {
      this.#fail = (error) => { reject(error instanceof Error ? error : new Error('unknown failure')) }
    })
    failed.catch(() => undefined)
    const timers = [this.#quiet.every(REPORTS, () => { this.#report(context) }), this.#quiet.every(LOOKS, () => { this.#refresh() })]
    this.#quiet.stir()
    const fromLsn = this.#flow.appliedLsn
    this.#transactions = 0
    this.#tally = new ChangeTally()
    this.#observe = (measure) => { context.observe(measure) }
    try {
      await this.#records.run(async () => swapFinishedCopies(this.#tables.values(), this.#options))
      const work = request.mode === 'copy' ? this.#copySlice(request, context, ended.signal) : this.#streamSlice(request, context, ended)
      const outcome = await Promise.race([work, failed])
      await this.#health.look()
      if (!this.#mustRestart) return this.#resultOf(outcome, fromLsn)
      await this.close()
      return this.#resultOf(context.signal.aborted ? outcome : { ...outcome, ended: 'time' }, fromLsn)
    } catch (error) {
      ended.abort()
      await this.close()
      throw error
    } finally {
      ended.abort()
      for (const timer of timers) clearInterval(timer)
      context.signal.removeEventListener('abort', this.#endSlice)
      this.#isRunning = false
      this.#fail = () => void this.close()
    }
  }

  #resultOf(outcome: SliceOutcome, fromLsn: Lsn): SliceResult {
    return {
      progress: this.#progress([]),
      ended: outcome.ended,
      hasTablesToCopy: this.#tablesToCopy(null).length > 0 || !this.#gaps.isSettled,
      transactions: this.#transactions,
      changes: this.#tally.byTable(),
      copied: outcome.copied,
      fromLsn: formatLsn(fromLsn),
      toLsn: formatLsn(this.#flow.appliedLsn),
      untilLsn: outcome.untilLsn,
      ...this.#health.tell(),
    }
  }

  async #copySlice(request: SliceRequest, context: OperationContext, signal: AbortSignal): Promise<SliceOutcome> {
    const wanted = this.#wantedTables(request.tableNames)
    const { loaded: kept } = await this.#loadSnapshots(wanted, { signal, endsAtMs: Infinity })
    const chunks = new RunningChunks(() => undefined)
    const copied = { ...kept, ...(signal.aborted ? {} : await this.#copyTables(this.#tablesToCopy(wanted), context, { signal, chunks })) }
    for (const table of this.#tables.values()) {
      const name = tableKey(table.record.source)
      if (table.record.state === 'streaming' && wanted?.has(table.record.oid) !== false) copied[name] ??= { rows: 0 }
    }
    const isDone = this.#tablesToCopy(wanted).length === 0
    return { ended: isDone ? 'done' : signal.aborted ? 'aborted' : 'time', copied, untilLsn: request.untilLsn }
  }

  async #streamSlice(request: SliceRequest, context: OperationContext, ended: AbortController): Promise<SliceOutcome> {
    const startMs = performance.now()
    const untilLsn = await this.#resolveUntil(request.untilLsn)
    // Changes go on top of the slot's own snapshot: it comes first.
    const { loaded: kept, isDone } = await this.#loadSnapshots(null, { signal: ended.signal, endsAtMs: startMs + request.maxBusyMs })
    if (ended.signal.aborted || !isDone) return { ended: ended.signal.aborted ? 'aborted' : 'time', copied: kept, untilLsn: untilLsn === null ? null : formatLsn(untilLsn) }
    await this.#flow.flow(context.signal)
    // What was done at the source while nobody looked belongs to what this slice has to reach.
    this.#catalog.oweLook()
    this.#catalog.pollIfDue()
    const chunks = new RunningChunks(() => { this.#bell.ring() })
    const time = { signal: ended.signal, chunks }
    const copying = keepCopying(time, {
      copy: async () => (this.#tablesToCopy(null).length === 0 ? null : this.#copyTables(this.#tablesToCopy(null), context, time)),
      bell: this.#bell,
    })
    copying.done.catch((error: unknown) => { this.#fail(error) })
    const replaying = this.#replays.run(ended.signal)
    this.#replaying = replaying.catch((error: unknown) => { this.#fail(error) })
    this.#gaps.run()
    let outcome: SliceResult['ended']
    try {
      outcome = await this.#untilEnd({ request, startMs, untilLsn, signal: ended.signal, chunks })
    } finally {
      ended.abort()
      await this.#gaps.rest()
      await this.#flow.hold()
      await copying.done.catch(() => undefined)
      await this.#replaying
    }
    // Only now: a copy whose last chunk ended the wait is counted when it returns.
    return { ended: outcome, copied: { ...kept, ...copying.copied }, untilLsn: untilLsn === null ? null : formatLsn(untilLsn) }
  }

  async #resolveUntil(untilLsn: string | null): Promise<Lsn | null> {
    if (untilLsn !== 'now') return untilLsn === null ? null : parseLsn(untilLsn)
    return (await this.#options.source.health(this.#options.spec.slotName)).committedLsn
  }

  /** Waits until the slice is over: its time, and the chunks that are being copied then; its LSN, or an abort. */
  async #untilEnd(slice: { request: SliceRequest; startMs: number; untilLsn: Lsn | null; signal: AbortSignal; chunks: RunningChunks }): Promise<SliceResult['ended']> {
    const { request, startMs, untilLsn, signal, chunks } = slice
    for (;;) {
      if (signal.aborted) return 'aborted'
      if (untilLsn !== null && this.#hasReached(untilLsn)) return 'done'
      const idleEndMs = startMs + (this.#health.isTold ? request.maxIdleMs : Math.min(request.maxIdleMs, END_AFTER_CHANGES_MS))
      const { firstChangeMs } = this.#flow
      const busyEndMs = firstChangeMs === null ? idleEndMs : Math.max(startMs + request.maxBusyMs, firstChangeMs + END_AFTER_CHANGES_MS)
      const remainingMs = Math.min(idleEndMs, busyEndMs) - performance.now()
      // A warning that has come and gone makes no time anew: nothing would be copied in it.
      const isOver = remainingMs <= 0 || !chunks.mayBegin
      if (isOver) chunks.endWithThese()
      if (isOver && chunks.isSettled) return 'time'
      await this.#bell.wait(untilLsn !== null ? ASK_POSITION_MS : remainingMs > 0 ? Math.min(remainingMs, LOOK_MS) : LOOK_MS)
      if (untilLsn !== null) this.#flow.requestKeepalive()
      this.#catalog.pollIfDue()
    }
  }

  /** Everything before `untilLsn` is applied, nothing waits for a copy, and copied rows are consistent with the stream. */
  #hasReached(untilLsn: Lsn): boolean {
    const { appliedLsn } = this.#flow
    if (appliedLsn < untilLsn || !this.#catalog.isSettled || !this.#gaps.isSettled || this.#tablesToCopy(null).length > 0) return false
    return [...this.#tables.values()].every((table) => table.record.state === 'failed' || (!table.needsReplay && (table.catchUpLsn === null || table.catchUpLsn <= appliedLsn)))
  }

  /** Oids of the tables that are named; null = all. Throws `InvalidInput` for one that is not replicated. */
  #wantedTables(tableNames: readonly string[] | null): ReadonlySet<number> | null {
    if (tableNames === null) return null
    return new Set(namedTables([...this.#tables.values()].map(({ record }) => record).filter(({ state }) => state !== 'removed'), tableNames, this.#options.spec.schemaName).map(({ oid }) => oid))
  }

  #count(records: readonly TableRecord[], endCommit: EndCommit): void {
    this.#quiet.stir()
    const gains = records.map((record) => [tableKey(record.source), this.#tally.add(record, this.#tables.get(record.oid)?.record ?? null)] as const)
    this.#observe(endCommit(Object.fromEntries(gains)))
  }

  #tablesToCopy(wanted: ReadonlySet<number> | null): readonly TableRuntime[] {
    return [...this.#tables.values()].filter((table) => table.needsCopy && wanted?.has(table.record.oid) !== false)
  }

  /**
   * Notes where tables have stopped: at what is applied. Nothing of the batch is in force, and the slot sends it again, now with these
   * tables' changes for their spools. A table that is being copied has no place to go on from but its copy's beginning.
   */
  async #stopTables(failures: readonly TableFailure[]): Promise<void> {
    this.#mustRestart = true
    const { source, destination, fence } = this.#options
    // Where the source does not answer (nothing else is written meanwhile) the table stops: retryFailed copies it.
    const looked = await answerWithin(source.look(failures.map(({ oid }) => oid), null), 3_000)
    const records = failures.flatMap(({ oid, error }) => {
      const record = this.#tables.get(oid)?.record
      if (record === undefined) return []
      if (!missesUnsentRows(record, error, looked?.tables.find((table) => table.oid === oid)?.storage)) return [stoppedInStream(record, error)]
      this.#warned.add(`${tableKey(record.source)} ${WRONG_ROWS.rewritten}: it is copied again`)
      return [copiedAnew(record)]
    })
    await destination.saveTables(fence, records)
    for (const record of records) this.#tables.get(record.oid)?.update(record)
    this.#endSlice()
  }

  /** What is left of snapshots that were kept with the slot: see {@link SnapshotLoader}. */
  async #loadSnapshots(wanted: ReadonlySet<number> | null, time: { readonly signal: AbortSignal; readonly endsAtMs: number }): Promise<{ readonly loaded: Record<string, { rows: number }>; readonly isDone: boolean }> {
    const { spec, source, destination, fence } = this.#options
    const tables = [...this.#tables.values()]
    const isOtherMode = spec.snapshotMode !== 'persisted' && !tables.some(({ record }) => record.copy?.isKept === true && record.state === 'snapshotting')
    if (isOtherMode && !this.#hasLoadedSnapshots) this.#hasLoadedSnapshots = await dropUnloaded(source, spec.slotName, this.#warned)
    if (isOtherMode || this.#hasLoadedSnapshots) return { loaded: {}, isDone: true }
    const isOther = ({ record }: TableRuntime): boolean => wanted?.has(record.oid) === false
    const loader = new SnapshotLoader({
      source,
      destination,
      fence,
      slotName: spec.slotName,
      lookup: this.#lookup,
      appliedLsn: this.#flow.appliedLsn,
      exclusive: async (work) => this.#records.run(work),
      onActivity: (text) => { this.#beAt(text) },
      onCommitted: this.#observe,
      warn: (warning) => void this.#warned.add(warning),
    })
    try {
      const isDone = await loader.run(tables.filter((table) => !isOther(table)), tables.filter(isOther), time)
      this.#hasLoadedSnapshots = wanted === null && isDone
      return { loaded: loader.copied, isDone }
    } finally {
      this.#beAt('')
    }
  }

  async #copyTables(tables: readonly TableRuntime[], context: OperationContext, { signal, chunks }: CopyTime): Promise<Record<string, { rows: number }>> {
    const { source, destination, fence } = this.#options
    const copier = new Copier({
      source,
      destination,
      fence,
      lookup: this.#lookup,
      signal,
      chunks,
      exclusive: async (work) => this.#records.run(work),
      onActivity: (text) => { this.#beAt(text) },
      onCommitted: this.#observe,
      spec: this.#options.spec,
      appliedLsn: () => this.#flow.appliedLsn,
      onWaiting: (pids, prepared) => {
        this.#beAt(`the copy waits for transactions that were running to end: ${transactionHolders(pids, prepared)}`)
        this.#report(context)
      },
    })
    try {
      await copier.run(tables)
    } catch (error) {
      // What was being copied when the slice ended is copied again; what failed at the destination is not known to have failed.
      if (!signal.aborted || this.#records.isBroken) throw error
    } finally {
      this.#beAt('')
    }
    return Object.fromEntries([...copier.copied].map(([name, rows]) => [name, { rows }]))
  }

  /** What is being done now, for people; empty = nothing but the stream. */
  #beAt(activity: string): void {
    this.#activity = activity
    this.#quiet.stir()
  }

  #refresh(): void {
    void this.#health.look()
    if (this.#flow.isFlowing) this.#catalog.pollRegularly()
  }

  /** A table joins; others may have given way to it. */
  async #adopt(schema: TableSchema): Promise<TableRecord | null> {
    return this.#records.run(async () => {
      if (this.isClosed) return null
      const { record, others, warning } = await this.#options.adoptTable(schema, [...this.#tables.values()].map((table) => table.record))
      for (const other of others) this.#tables.get(other.oid)?.follow(other)
      noteAdoption(this.#warned, schema, warning)
      return record
    })
  }

  #report(context: OperationContext): void {
    const activity = this.#activity === '' ? `streaming, applied to ${formatLsn(this.#flow.appliedLsn)}` : this.#activity
    context.report({ activity, progress: this.#progress(this.#health.warnings), ...(this.#health.figures === null ? {} : { slot: this.#health.figures }) })
  }

  /** Lets go of slot and files. What was committed stays; what was staged is read again from the slot. Idempotent. */
  async close(): Promise<void> {
    this.#closing ??= this.#close()
    await this.#closing
  }

  async #close(): Promise<void> {
    this.#endSlice()
    this.#catalog.close()
    const repaired = this.#gaps.close()
    await this.#flow.close()
    await repaired
    await this.#replaying
    await this.#records.settled()
    this.#flow.discard()
    await this.#replays.close()
    this.#options.spools.close()
    await this.#options.source.close().catch(() => undefined)
    await this.#options.destination.close()
  }
}
