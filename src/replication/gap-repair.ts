import { setTimeout as sleep } from 'node:timers/promises'
import { type Destination, type Fence, isBeside, type TableFailure, type TableRecord } from '../model/destination.ts'
import { type DomainError, isTableFault } from '../model/errors.ts'
import type { Lsn } from '../model/lsn.ts'
import type { Source } from '../model/source.ts'
import { tableKey } from '../model/table-schema.ts'
import { NOTHING_VERIFIED, type VerifiedTable } from '../model/verification.ts'
import { endsWithin } from '../postgres/ends-within.ts'
import { rowsCopiedUnder } from './copied-rows.ts'
import { transactionHolders } from './progress.ts'
import { withoutGap } from './recover.ts'
import { copiedAnew } from './retry.ts'
import type { StreamFlow } from './stream-flow.ts'
import type { TableRuntime } from './table-runtime.ts'
import { Verification } from './verification.ts'

/** A table some of whose rows are written each time while they are looked at is compared so often; then it is copied anew. */
const MAX_PASSES = 3
/** How often tables are looked for that have come so far that they can be compared. */
const LOOK_MS = 250
/** While a position is waited for, the server is asked this often how far it has come; how far the stream has come is looked at more often. */
const ASK_POSITION_MS = 250
const LOOK_AT_STREAM_MS = 20
/** What is being compared may take so long to end by itself. */
const CLOSE_MS = 1_000

export interface GapRepairOptions {
  readonly source: Source
  readonly destination: Destination
  readonly fence: Fence
  readonly tables: ReadonlyMap<number, TableRuntime>
  readonly flow: StreamFlow
  /** Serialises everything that changes records. */
  readonly exclusive: <T>(work: () => Promise<T>) => Promise<T>
  /** For people; empty = nothing is done. */
  readonly onActivity: (text: string) => void
  readonly warn: (warning: string) => void
  /** A table is whole. */
  readonly onDone: () => void
  readonly onFailure: (error: unknown) => void
  /** Notes that tables have stopped; called when nothing is applied any more. */
  readonly onTableFailures: (failures: readonly TableFailure[]) => Promise<void>
}

/**
 * Compares the tables that are behind a gap ({@link TableRecord.gap}) with their source and copies what differs, beside the stream, for as long as there are any. What
 * is done of a table is known to this process alone: another begins that table from its first row.
 *
 * States: resting (nothing is written) ⇄ running → closed. A comparison lives on while it rests, and waits before it writes.
 */
export class GapRepair {
  readonly #options: GapRepairOptions
  readonly #ended = new AbortController()
  #work: Promise<void> | null = null
  #isRunning = false
  #writing: Promise<unknown> = Promise.resolve()
  #onResume: () => void = () => undefined
  /** What committed before the slot was made, and was not visible yet, is. */
  #hasWaited = false

  constructor(options: GapRepairOptions) {
    this.#options = options
  }

  /** No table is behind a gap, but those that have stopped. */
  get isSettled(): boolean {
    return ![...this.#options.tables.values()].some(({ record }) => isBehind(record) && record.state !== 'failed')
  }

  /** Begins, or goes on. The stream flows. */
  run(): void {
    this.#isRunning = true
    this.#onResume()
    if (this.#work !== null || this.isSettled) return
    this.#work = this.#repairAll()
      .catch((error: unknown) => {
        if (!this.#ended.signal.aborted) this.#options.onFailure(error)
      })
      .finally(() => {
        this.#work = null
      })
  }

  /** When it resolves nothing is being written, and nothing will be until it is told to run. */
  async rest(): Promise<void> {
    this.#isRunning = false
    await this.#writing.catch(() => undefined)
  }

  /** When it resolves nothing is being written, and nothing will be. Where the source does not answer it is closed: its questions end with that. Idempotent. */
  async close(): Promise<void> {
    this.#ended.abort()
    this.#onResume()
    if (this.#work === null || (await endsWithin(this.#work, CLOSE_MS))) return
    await this.#options.source.close().catch(() => undefined)
    await this.rest()
  }

  async #repairAll(): Promise<void> {
    const { tables, onActivity } = this.#options
    while (!this.isSettled && !this.#ended.signal.aborted) {
      const table = [...tables.values()].find(({ record }) => isComparable(record))
      if (table === undefined) {
        await sleep(LOOK_MS, undefined, { signal: this.#ended.signal })
        continue
      }
      try {
        await this.#waitOnce()
        await this.#repair(table)
      } catch (error) {
        if (!isTableFault(error)) throw error
        await this.#stop(table, error)
      } finally {
        onActivity('')
      }
    }
  }

  /** A commit that waits for a synchronous standby stands before the slot's beginning and is seen by nobody: rows would be taken for equal that are not. */
  async #waitOnce(): Promise<void> {
    if (this.#hasWaited) return
    const { source, onActivity } = this.#options
    const { running } = await source.readSnapshot()
    await source.waitForTransactions(running, {
      onWaiting: (pids, prepared) => { onActivity(`the comparison waits for transactions that were running to end: ${transactionHolders(pids, prepared)}`) },
      onSnapshot: () => undefined,
      hasWaited: false,
      signal: this.#ended.signal,
    })
    this.#hasWaited = true
  }

  async #repair(table: TableRuntime): Promise<void> {
    const { source, destination, fence, warn, onActivity } = this.#options
    const { oid } = table.record
    const { operations } = await source.look([], null)
    let repaired = 0
    for (let pass = 1; ; pass++) {
      const verification = new Verification(
        {
          source,
          destination,
          pipeline: fence,
          operations,
          repair: true,
          maxRowsPerSecond: null,
          signal: this.#ended.signal,
          endsAtMs: Infinity,
          reach: async (lsn) => this.#reach(lsn),
          committedLsn: async () => (await source.health(fence.slotName)).committedLsn,
          onActivity,
          recovery: { write: async (work) => this.#write(work) },
        },
        NOTHING_VERIFIED,
      )
      await verification.run([table.record])
      // Another copy of it may have begun meanwhile, or it has stopped, or left.
      if (!isComparable(table.record)) return
      const [reason] = Object.values(verification.progress.notCompared)
      const found = Object.values(verification.progress.tables)[0] ?? NOTHING_FOUND
      repaired += found.repaired
      if (reason === undefined && verification.undecidedRows === 0) {
        // Read when nothing is applied: what waited before may have looked values up at the source.
        await this.#change(table, async (record) => ({ ...withoutGap(record, (await source.health(fence.slotName)).committedLsn), ...rowsCopiedUnder(operations) }))
        const name = tableKey(table.record.source)
        warn(`${name} was compared with the source in the recovery: ${found.compared.toLocaleString('en')} rows, of which ${repaired.toLocaleString('en')} were put right`)
        return
      }
      if (reason === undefined && pass < MAX_PASSES) continue
      warn(`${tableKey(table.record.source)} is copied anew in the recovery: ${reason ?? 'rows of it are written each time while they are looked at'}`)
      await this.#copyAnew(table, oid)
      return
    }
  }

  /** Between two transactions: what was staged for the rows that are there is applied to them, and what comes later is the copy's. */
  async #copyAnew(table: TableRuntime, oid: number): Promise<void> {
    const { flow, tables } = this.#options
    const work = async (): Promise<void> => {
      const now = tables.get(oid)
      // Not as what writes beside the stream: the stream rests meanwhile, and is not held before this has ended.
      if (now !== undefined && isComparable(now.record)) await this.#changeNow(now, copiedAnew)
    }
    while (isComparable(table.record) && !(await flow.between(work))) await sleep(LOOK_MS, undefined, { signal: this.#ended.signal })
  }

  /** As a change of the stream stops it: what comes from where the stream stands is kept, and read again for that. */
  async #stop(table: TableRuntime, error: DomainError): Promise<void> {
    const { exclusive, flow, onTableFailures } = this.#options
    await this.#write(async () =>
      exclusive(async () => {
        if (!isComparable(table.record) || this.#ended.signal.aborted) return
        flow.breakOff()
        await onTableFailures([{ oid: table.record.oid, error }])
      }),
    )
  }

  async #change(table: TableRuntime, change: (record: TableRecord) => Promise<TableRecord>): Promise<void> {
    await this.#write(async () => this.#changeNow(table, change))
  }

  async #changeNow(table: TableRuntime, change: (record: TableRecord) => TableRecord | Promise<TableRecord>): Promise<void> {
    const { destination, fence, exclusive, onDone } = this.#options
    await exclusive(async () => {
      if (!isBehind(table.record) || this.#ended.signal.aborted) return
      const record = await change(table.record)
      await destination.saveTables(fence, [record])
      table.update(record)
    })
    onDone()
  }

  async #reach(lsn: Lsn): Promise<void> {
    const { flow, source } = this.#options
    const { signal } = this.#ended
    if (flow.appliedLsn < lsn) await source.flushWal()
    let askedMs = -Infinity
    while (flow.appliedLsn < lsn) {
      if (performance.now() - askedMs >= ASK_POSITION_MS) {
        flow.requestKeepalive()
        askedMs = performance.now()
      }
      await sleep(LOOK_AT_STREAM_MS, undefined, { signal })
    }
    signal.throwIfAborted()
  }

  /** Runs `work` while it is meant to run. */
  async #write<T>(work: () => Promise<T>): Promise<T> {
    while (!this.#isRunning && !this.#ended.signal.aborted) await new Promise<void>((resolve) => { this.#onResume = resolve })
    this.#ended.signal.throwIfAborted()
    const writing = work()
    this.#writing = writing
    return writing
  }
}

const NOTHING_FOUND: VerifiedTable = { compared: 0, different: 0, repaired: 0 }

function isBehind({ state, gap }: TableRecord): boolean {
  return gap !== undefined && state !== 'removed'
}

/** One that is copied leaves its gap behind with the copy; one that goes on with what was kept while it had stopped comes when it is there. */
function isComparable(record: TableRecord): boolean {
  return isBehind(record) && record.state === 'streaming' && record.quarantine === null && !isBeside(record)
}
