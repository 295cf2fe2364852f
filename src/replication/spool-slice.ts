import { setTimeout as sleep } from 'node:timers/promises'
import type { ChangeHandler } from '../model/change.ts'
import { DomainError } from '../model/errors.ts'
import { formatLsn, ZERO_LSN, type Lsn } from '../model/lsn.ts'
import type { SlotFigures, SpoolRequest, SpoolResult } from '../model/replication.ts'
import type { ReplicationStream, Source, SourceHealth } from '../model/source.ts'
import { isNearIdleTimeout, isNearWalBound } from '../model/slot-end.ts'
import type { ReplicationSpec } from '../model/spec.ts'
import { slotLost } from './refusals.ts'
import type { SegmentWriter, StreamSpool } from './stream-spool.ts'

/** How often the slot is looked at. */
const LOOK_MS = 2_000
/** What has been read is made durable, and confirmed, this often. */
const SAVE_MS = 500
const MAX_BACK_OFF_MS = 30_000
/** Once something has been read, or a warning has come or gone, the slice ends so soon, so that `status` shows it. */
const SHOWN_MS = 15_000
/** A fault shows so soon, and what is shown beside it is no older. */
const FAULT_SHOWN_MS = 28_000
/** Of `max_slot_wal_keep_size`, where the input names no budget. */
const DEFAULT_SHARE = 0.8
/** Of the budget: from there on the status warns. */
const WARN_SHARE = 0.75

export interface SpoolSliceOptions {
  readonly source: Source
  readonly spool: StreamSpool
  /** For large transactions that come while they are in progress. */
  readonly stagingFolder: string
  readonly signal: AbortSignal
  readonly onActivity: (text: string) => void
  /** What the slot was seen to be like. */
  readonly onLook: (health: SourceHealth) => void
}

/** The most WAL that the slot shall hold back; null = there is no bound. */
export function walBudgetOf({ walBudgetBytes, flushSlot }: Pick<ReplicationSpec, 'walBudgetBytes' | 'flushSlot'>, { maxSlotWalKeepBytes }: Pick<SourceHealth, 'maxSlotWalKeepBytes'>): number | null {
  // Nothing is confirmed to the slot then, so that it would hold all WAL nevertheless.
  if (!flushSlot) return null
  if (walBudgetBytes !== null) return walBudgetBytes
  return maxSlotWalKeepBytes === null ? null : Math.floor(maxSlotWalKeepBytes * DEFAULT_SHARE)
}

/** What is measured of a slot. */
export function slotFiguresOf({ slot, maxSlotWalKeepBytes }: SourceHealth, spoolBytes: number): SlotFigures {
  return { retainedWalBytes: slot?.retainedWalBytes ?? null, maxSlotWalKeepBytes, spoolBytes }
}

/** Tells where the slot holds back about as much WAL as it shall, and where the server is about to give it up. */
export function walWarnings(spec: Pick<ReplicationSpec, 'walBudgetBytes' | 'flushSlot'>, health: SourceHealth): readonly string[] {
  const budgetBytes = walBudgetOf(spec, health)
  const retainedBytes = health.slot?.retainedWalBytes ?? 0
  const isOverBudget = budgetBytes !== null && retainedBytes > budgetBytes * WARN_SHARE
  return [
    ...(isOverBudget ? [`the slot holds back ${String(retainedBytes)} bytes of WAL at the source, of the ${String(budgetBytes)} that it may (walBudgetBytes)`] : []),
    ...endWarnings(health),
  ]
}

/** What is warned of, whatever the figures: these change with each look. */
export function kindsOf(warnings: readonly string[]): string {
  return warnings.map((warning) => warning.replaceAll(/\d+/g, '#')).join('\n')
}

function endWarnings({ slot, maxSlotWalKeepBytes, idleSlotTimeoutSeconds }: SourceHealth): readonly string[] {
  if (slot === null || slot.walStatus === 'lost') return []
  const { safeWalBytes, idleSeconds } = slot
  const isNearBound = safeWalBytes !== null && maxSlotWalKeepBytes !== null && isNearWalBound(slot, maxSlotWalKeepBytes)
  const isNearTimeout = idleSlotTimeoutSeconds !== null && idleSeconds !== null && isNearIdleTimeout(idleSeconds, idleSlotTimeoutSeconds)
  return [
    ...(isNearBound ? [`the server gives the slot up after ${String(Math.max(0, safeWalBytes))} bytes more of WAL (max_slot_wal_keep_size): raise it, or let the replication catch up`] : []),
    ...(isNearTimeout ? [`the server gives the slot up in ${String(Math.max(0, Math.floor(idleSlotTimeoutSeconds - idleSeconds)))} s if nobody uses it (idle_replication_slot_timeout): resume`] : []),
  ]
}

/**
 * Watches a slot whose destination is not written to, and reads its stream into the spool while it holds back more WAL than the budget: until everything is
 * read that had committed when that began. Only what is durable in the spool is confirmed, so that this may be killed at any instant.
 *
 * States: watching ⇄ (above the budget) reading; watching → (the spool is full) waiting → watching. Faults that time mends are waited out.
 */
export class SpoolSlice {
  readonly #request: SpoolRequest
  readonly #options: SpoolSliceOptions
  #health: SourceHealth | null = null
  /** A fault that has not been followed by a success. */
  #fault: DomainError | null = null
  /** The next transaction had no room beside so much: to read it once more would be of no use. */
  #fullAtBytes = Infinity

  constructor(request: SpoolRequest, options: SpoolSliceOptions) {
    this.#request = request
    this.#options = options
  }

  /** Throws what no retry mends. */
  async run(): Promise<SpoolResult> {
    const { maxMs } = this.#request
    const { signal } = this.#options
    const startMs = performance.now()
    let endMs = startMs + maxMs
    const isAborted = (): boolean => signal.aborted
    let faults = 0
    let warnedOf: string | null = null
    while (!isAborted() && performance.now() < endMs) {
      try {
        if ((await this.#look()) === null) return this.#resultOf('noBudget')
        if (this.#isOver) {
          await this.#read(endMs)
          endMs = Math.min(endMs, startMs + SHOWN_MS)
        }
        const kinds = kindsOf(this.#warningsOfSlot())
        warnedOf ??= kinds
        if (kinds !== warnedOf) endMs = Math.min(endMs, startMs + SHOWN_MS)
        this.#fault = null
        faults = 0
      } catch (error) {
        if (isAborted()) break
        if (!(error instanceof DomainError) || !error.isRetryable) throw error
        this.#fault = error
        faults++
        endMs = Math.min(endMs, startMs + FAULT_SHOWN_MS)
      }
      const restMs = faults === 0 ? LOOK_MS : Math.min(MAX_BACK_OFF_MS, LOOK_MS * 2 ** faults)
      await sleep(Math.max(0, Math.min(restMs, endMs - performance.now())), undefined, { signal }).catch(() => undefined)
    }
    return this.#resultOf(isAborted() ? 'aborted' : 'time')
  }

  /** The budget, of what is known now. */
  async #look(): Promise<number | null> {
    const { spec } = this.#request
    this.#health = await this.#options.source.health(spec.slotName)
    this.#options.onLook(this.#health)
    const { slot } = this.#health
    if (slot === null || slot.walStatus === 'lost' || slot.confirmedFlushLsn === null) {
      throw slotLost(spec, slot === null ? 'does not exist any more' : 'was invalidated: the server removed WAL that it needs')
    }
    return walBudgetOf(spec, this.#health)
  }

  get #budgetBytes(): number | null {
    return this.#health === null ? null : walBudgetOf(this.#request.spec, this.#health)
  }

  /** Where the slot holds back more for another reason (a transaction that stays open), reading again and again would decode the same again and again. */
  get #isOver(): boolean {
    const { slot, currentLsn } = this.#health ?? { slot: null, currentLsn: ZERO_LSN }
    const budgetBytes = this.#budgetBytes ?? Infinity
    const unreadBytes = Number(currentLsn - (slot?.confirmedFlushLsn ?? currentLsn))
    return (slot?.retainedWalBytes ?? 0) > budgetBytes && unreadBytes > budgetBytes / 4 && !this.#isFull
  }

  get #isFull(): boolean {
    return this.#options.spool.byteCount >= Math.min(this.#fullAtBytes, this.#request.spec.spoolBudgetBytes)
  }

  async #read(endMs: number): Promise<void> {
    const { source, spool, stagingFolder, signal, onActivity } = this.#options
    const { spec } = this.#request
    const { slotName, publicationName } = spec
    const target: { writer: SegmentWriter | null } = { writer: null }
    const writer = (): SegmentWriter => {
      if (target.writer === null) throw new RangeError('a change before the segment')
      return target.writer
    }
    const stream = await source.openStream({
      slotName,
      publicationName,
      startLsn: this.#health?.slot?.confirmedFlushLsn ?? ZERO_LSN,
      handler: forwarded(writer),
      stagingFolder,
      onKeepalive: (walEnd) => { writer().reach(walEnd) },
      signal,
    })
    stream.pause()
    try {
      // Nobody else moves it from here on.
      const health = await source.health(slotName)
      const startLsn = health.slot?.confirmedFlushLsn
      if (startLsn == null) return
      target.writer = spool.create(startLsn, spec.spoolBudgetBytes - spool.byteCount)
      onActivity(`the slot holds back more than walBudgetBytes: reading into the spool from ${formatLsn(startLsn)}`)
      stream.resume()
      await this.#pump(stream, target.writer, { untilLsn: health.committedLsn, endMs })
    } finally {
      await stream.close().catch(() => undefined)
      target.writer?.close()
    }
    if (target.writer.isFull) this.#fullAtBytes = spool.byteCount
    this.#health = await source.health(slotName)
    this.#options.onLook(this.#health)
  }

  /** Saves and confirms what comes, until everything up to `untilLsn` has come, or the spool is full, or the time is over. */
  async #pump(stream: ReplicationStream, writer: SegmentWriter, { untilLsn, endMs }: { readonly untilLsn: Lsn; readonly endMs: number }): Promise<void> {
    const { signal } = this.#options
    const failed = stream.ended.then(() => undefined)
    failed.catch(() => undefined)
    const isDone = (): boolean => signal.aborted || writer.isFull || writer.endLsn >= untilLsn || performance.now() >= endMs
    while (!isDone()) {
      stream.requestKeepalive()
      await Promise.race([failed, sleep(SAVE_MS, undefined, { signal }).catch(() => undefined)])
      stream.confirm(await writer.save())
    }
    stream.confirm(await writer.save())
  }

  #resultOf(ended: SpoolResult['ended']): SpoolResult {
    const health = this.#health
    const slot = health?.slot ?? null
    return {
      ended,
      asOf: new Date().toISOString(),
      confirmedFlushLsn: slot?.confirmedFlushLsn == null ? null : formatLsn(slot.confirmedFlushLsn),
      sourceLsn: health === null ? null : formatLsn(health.currentLsn),
      retainedWalBytes: slot?.retainedWalBytes ?? null,
      warnings: [...this.#warningsOfSlot(), ...(this.#fault === null ? [] : [warningOf(this.#fault)])],
    }
  }

  #warningsOfSlot(): readonly string[] {
    const { spool } = this.#options
    const { spec } = this.#request
    const { spoolBudgetBytes } = spec
    const spooledBytes = spool.byteCount
    const retained = this.#health?.slot?.retainedWalBytes ?? 0
    return [
      ...(this.#health === null ? [] : walWarnings(spec, this.#health)),
      ...(spooledBytes === 0 ? [] : [`${String(spooledBytes)} bytes of changes are in the spool beside the destination: they are applied once it is written to again`]),
      ...(this.#isFull ? [`the spool is full (spoolBudgetBytes ${String(spoolBudgetBytes)}): the slot holds WAL back at the source, ${String(retained)} bytes by now`] : []),
    ]
  }
}

/** Faults of the destination's are those of the files beside it; all others are the source's. */
function warningOf({ kind, message, remedy }: DomainError): string {
  return `the slot cannot be ${kind === 'DestinationFailed' ? 'spooled' : 'watched'}: ${message}; ${remedy}`
}

/** The segment's place is known only when the slot is held. */
function forwarded(target: () => SegmentWriter): ChangeHandler {
  return {
    begin: (...given) => { target().begin(...given) },
    commit: (...given) => { target().commit(...given) },
    relation: (relation) => { target().relation(relation) },
    insert: (...given) => { target().insert(...given) },
    update: (...given) => { target().update(...given) },
    delete: (...given) => { target().delete(...given) },
    truncate: (oids) => { target().truncate(oids) },
    type: () => undefined,
    origin: () => undefined,
    message: () => undefined,
  }
}
