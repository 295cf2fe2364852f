import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { ErrorReport } from '../../../src/model/errors.ts'
import type { SliceResult } from '../../../src/model/replication.ts'
import type { ReplicationProgress, TableState } from '../../../src/model/status.ts'
import {
  begin,
  canRecover,
  carriedState,
  end,
  hasSomethingToRetry,
  initialState,
  nextStep,
  onBackOffOver,
  onFault,
  onHomeLost,
  onInitialized,
  onOptions,
  onOrder,
  onOrderDone,
  onOrderEnded,
  onPause,
  onRecover,
  onResolved,
  onResume,
  onRetry,
  onRetryRefused,
  onSlice,
  onStopped,
  onStopRequested,
  onTablesRetried,
  onWatched,
  onWatchFault,
  phaseOf,
  type ReplicateState,
  statusOf,
  watchMs,
} from '../../../src/workflows/replicate-state.ts'

const QUEUE = 'shop queue'
const start = initialState({ slotName: 's', publicationName: 'p', startedAt: '2026-01-01T00:00:00.000Z' })
const down: ErrorReport = { type: 'SourceUnavailable', message: 'down', remedy: 'start it' }
const lost: ErrorReport = { type: 'SlotLost', message: 'lost', remedy: 'recover' }

function progress(states: Record<string, TableState>, appliedLsn = '0/10'): ReplicationProgress {
  const counts = { snapshotRows: 0, inserts: 0, updates: 0, deletes: 0, truncates: 0, lastCommitLsn: null }
  return {
    ...{ asOf: '2026-01-01T00:00:01.000Z', appliedLsn, confirmedFlushLsn: null, sourceLsn: null, lagBytes: 0, lagMs: 0, retainedWalBytes: null },
    tables: Object.fromEntries(Object.entries(states).map(([name, state]) => [name, { state, ...counts }])),
    warnings: ['of the stream', 'of both'],
  }
}

function slice(states: Record<string, TableState>, given: Partial<SliceResult> = {}): SliceResult {
  return {
    ...{ progress: progress(states), ended: 'time', hasTablesToCopy: false, transactions: 0, changes: {}, copied: {}, fromLsn: '0/0', toLsn: '0/10', untilLsn: null },
    ...given,
  }
}

it('is at home where the last slice ran, through pauses, until that worker is lost or says that it ends', () => {
  const at = (home?: string): ReplicateState => onSlice(initialized(), { ...slice({}), ...(home === undefined ? {} : { home }) })
  const there = at('own queue')
  expect(there.home).toBe('own queue')
  expect(onResume(onPause(there)).home).toBe('own queue')
  expect(carriedState(there).home).toBe('own queue')
  expect(onSlice(there, slice({})).home).toBeUndefined()
  expect('home' in onHomeLost(there)).toBe(false)
  // As of versions that knew of none: what they have written is not written otherwise.
  expect('home' in at()).toBe(false)
})

// Cause: a fault of one worker alone (an old password, a full disk) came back for ever: each retry went to that worker again.
it('is at home nowhere once anything has failed, it was initialized anew, or its destination has another task queue', () => {
  const there = onSlice(initialized(), { ...slice({}), home: 'own queue' })
  expect('home' in onFault(there, { report: down, isRetryable: true })).toBe(false)
  expect('home' in onFault(there, { report: lost, isRetryable: false })).toBe(false)
  expect('home' in onWatchFault(there, { report: down, isRetryable: true })).toBe(false)
  expect('home' in onInitialized(there, { progress: progress({}), warnings: [] })).toBe(false)
  expect(onResolved(carriedState(there), QUEUE).home).toBe('own queue')
  expect('home' in onResolved(carriedState(there), 'another queue')).toBe(false)
  // A run that an earlier version has carried on does not know its queue.
  const { taskQueue: _, ...carried } = carriedState(there)
  expect(onResolved(carried, 'another queue').home).toBe('own queue')
})

const initialized = (states: Record<string, TableState> = { a: 'streaming' }): ReplicateState =>
  onInitialized(onResolved(start, QUEUE), { progress: progress(states), warnings: ['of init', 'of both'] })

describe('recover', () => {
  it('makes the slot while it is paused, once for each order, and leaves it paused', () => {
    const asked = onRecover(onFault(end(onPause(initialized())), { report: lost, isRetryable: false }))
    expect([nextStep(asked).tag, nextStep(onResolved(asked, QUEUE)).tag]).toEqual(['resolve', 'recover'])
    const made = onInitialized(onResolved(asked, QUEUE), { progress: progress({}), warnings: [] })
    expect([phaseOf(made), statusOf(made).lastError, nextStep(made).tag]).toEqual(['paused', undefined, 'wait'])
    for (const held of [onFault(onResolved(asked, QUEUE), { report: down, isRetryable: true }), onPause(asked)]) {
      expect([nextStep(held).tag, canRecover(held), nextStep(onResolved(onRecover(held), QUEUE)).tag]).toEqual(['wait', true, 'recover'])
      expect(nextStep(onResolved(onResume(held), QUEUE)).tag).toBe('recover')
    }
  })

  const other: ErrorReport = { type: 'DifferentSource', message: 'other', remedy: 'connect' }
  const failed = (state: ReplicateState, report: ErrorReport): ReplicateState => onFault(state, { report, isRetryable: false })

  it('may take a slot up again that was never seen to be lost, whatever is tried meanwhile; one that was seen so, not', () => {
    const refused = failed(onRecover(failed(initialized(), other)), other)
    expect(onRetry(refused, null)).toMatchObject({ isRecovering: true, onlySourceDiffered: true })
    expect(onRecover(refused).onlySourceDiffered).toBe(true)
    const gone = failed(onRecover(failed(initialized(), lost)), other)
    expect(onRecover(gone)).toMatchObject({ isRecovering: true, onlySourceDiffered: false })
    expect(onRecover(failed(refused, lost)).onlySourceDiffered).toBe(false)
    expect(onRecover(failed(onInitialized(onResolved(onRecover(gone), QUEUE), { progress: progress({}), warnings: [] }), other)).onlySourceDiffered).toBe(true)
  })
})

it('keeps a warning of init that a table stays out until the table has joined', () => {
  const stays = '"a" stays out until this is mended: no key'
  const told = onInitialized(onResolved(start, QUEUE), { progress: progress({ b: 'streaming' }), warnings: [stays, 'of init'] })
  expect(onSlice(told, slice({ b: 'streaming' })).warnings).toEqual([stays, 'of init'])
  expect(onSlice(told, slice({ a: 'pending', b: 'streaming' })).warnings).toEqual(['of init'])
})

describe('phases', () => {
  it('goes initializing, snapshotting, streaming, stopped', () => {
    expect(phaseOf(start)).toBe('initializing')
    expect(nextStep(start).tag).toBe('resolve')
    expect(nextStep(onResolved(start, QUEUE)).tag).toBe('initialize')
    const copying = initialized({ a: 'pending', b: 'streaming' })
    expect(phaseOf(copying)).toBe('snapshotting')
    expect(phaseOf(onSlice(copying, slice({}, { hasTablesToCopy: true })))).toBe('snapshotting')
    const streaming = onSlice(copying, slice({ a: 'streaming' }))
    expect(phaseOf(streaming)).toBe('streaming')
    expect(phaseOf(onStopped(streaming))).toBe('stopped')
  })

  it('is paused only when nothing runs any more', () => {
    const running = begin(initialized())
    expect(phaseOf(onPause(running))).toBe('streaming')
    expect(phaseOf(end(onPause(running)))).toBe('paused')
    expect(nextStep(end(onPause(running))).tag).toBe('wait')
    expect(phaseOf(onResume(end(onPause(running))))).toBe('streaming')
  })

  it('stays failed while paused, and is paused after retryFailed', () => {
    const failed = onPause(onFault(initialized(), { report: lost, isRetryable: false }))
    expect(phaseOf(failed)).toBe('failed')
    expect(phaseOf(onRetry(failed, null))).toBe('paused')
  })

  it('takes figures and warnings of init and stream together, each once', () => {
    expect(statusOf(initialized())).toMatchObject({ asOf: '2026-01-01T00:00:01.000Z', appliedLsn: '0/10', warnings: ['of init', 'of both', 'of the stream'] })
    expect(statusOf(start)).toMatchObject({ asOf: start.startedAt, appliedLsn: null, tables: {} })
  })
})

describe('faults', () => {
  it('backs off 1, 2, 4 … 60 seconds while time may mend it, and starts over after a success', () => {
    let state = initialized()
    const delays: number[] = []
    for (let count = 0; count < 8; count++) {
      state = onFault(state, { report: down, isRetryable: true })
      const step = nextStep(state)
      delays.push(step.tag === 'backOff' ? step.delayMs : -1)
      state = onBackOffOver(state)
      expect(nextStep(state).tag).toBe('slice')
    }
    expect(delays).toEqual([1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000])
    expect(statusOf(state).lastError).toEqual(down)
    state = onSlice(state, slice({}))
    expect(statusOf(state).lastError).toBeUndefined()
    expect(nextStep(onFault(state, { report: down, isRetryable: true }))).toEqual({ tag: 'backOff', delayMs: 1_000 })
  })

  it('keeps showing a fault that the slice itself still retries', () => {
    expect(statusOf(onSlice(initialized(), slice({}, { lastError: down }))).lastError).toEqual(down)
  })

  it('looks soon whether a fault is over', () => {
    const step = nextStep(onBackOffOver(onFault(initialized(), { report: down, isRetryable: true })))
    expect(step.tag === 'slice' && step.maxIdleMs).toBe(1_000)
  })

  it('waits in failed for an operator, then begins with configuration and checks', () => {
    const failed = onFault(initialized(), { report: lost, isRetryable: false })
    expect(nextStep(failed).tag).toBe('wait')
    const again = onRetry(failed, null)
    expect(phaseOf(again)).toBe('initializing')
    expect(nextStep(again).tag).toBe('resolve')
    expect(statusOf(again).lastError).toEqual(lost)
    const mended = onInitialized(onResolved(again, QUEUE), { progress: progress({}), warnings: [] })
    expect(statusOf(mended).lastError).toBeUndefined()
    expect(nextStep(mended)).toEqual({ tag: 'retryTables', tableNames: null })
  })

  it('tries at once when an operator says so', () => {
    const waiting = onFault(initialized(), { report: down, isRetryable: true })
    expect(nextStep(onResume(waiting)).tag).toBe('slice')
    expect(nextStep(onRetry(waiting, null)).tag).toBe('retryTables')
  })
})

describe('tables', () => {
  it('merges orders to retry; all wins over some', () => {
    const some = onRetry(onRetry(initialized(), ['a', 'b']), ['b', 'c'])
    expect(nextStep(some)).toEqual({ tag: 'retryTables', tableNames: ['a', 'b', 'c'] })
    expect(nextStep(onRetry(some, null))).toEqual({ tag: 'retryTables', tableNames: null })
    expect(nextStep(onTablesRetried(some)).tag).toBe('slice')
    expect(nextStep(onRetryRefused(some)).tag).toBe('slice')
  })

  it('retries what an earlier workflow left failed, once', () => {
    const first = initialized({ a: 'failed' })
    expect(nextStep(first)).toEqual({ tag: 'retryTables', tableNames: null })
    const later = onTablesRetried(first)
    expect(nextStep(onInitialized(later, { progress: progress({ a: 'failed' }), warnings: [] })).tag).toBe('slice')
  })

  it('knows whether there is anything to retry', () => {
    expect(hasSomethingToRetry(initialized())).toBe(false)
    expect(hasSomethingToRetry(onSlice(initialized(), slice({ a: 'failed' })))).toBe(true)
    expect(hasSomethingToRetry(onFault(initialized(), { report: down, isRetryable: true }))).toBe(true)
  })
})

describe('slices', () => {
  it('are short at first and after a resume, then 28 s busy and 120 s idle', () => {
    let state = initialized()
    const limits = []
    for (let count = 0; count < 8; count++) {
      const step = nextStep(state)
      limits.push(step.tag === 'slice' ? [step.maxBusyMs, step.maxIdleMs] : [])
      state = onSlice(state, slice({}))
    }
    expect(limits).toEqual([
      ...[[2_000, 2_000], [4_000, 4_000], [8_000, 8_000], [16_000, 16_000]],
      ...[[28_000, 32_000], [28_000, 64_000], [28_000, 120_000], [28_000, 120_000]],
    ])
    expect(nextStep(onResume(onPause(state)))).toMatchObject({ maxBusyMs: 2_000 })
  })

  it('show soon that the copies are done', () => {
    let state = initialized({ a: 'pending' })
    for (let count = 0; count < 8; count++) state = onSlice(state, slice({}, { hasTablesToCopy: true }))
    expect(nextStep(state)).toMatchObject({ maxBusyMs: 28_000, maxIdleMs: 5_000 })
  })
})

describe('continue-as-new', () => {
  it('carries pause, position and orders as JSON, and looks the configuration up again', () => {
    const state = onRetry(onPause(onSlice(initialized(), slice({}))), ['a'])
    const carried = JSON.parse(JSON.stringify(carriedState(begin(state)))) as ReplicateState
    expect(carried).toEqual({ ...state, isResolved: false, isBusy: false })
    expect(statusOf(carried)).toEqual(statusOf(state))
    expect(nextStep(onResume(carried)).tag).toBe('resolve')
  })
})

/** Everything that can happen, in any order. */
const EVENTS: Record<string, (state: ReplicateState) => ReplicateState> = {
  begin,
  end,
  resolved: (state) => onResolved(state, QUEUE),
  initialized: (state) => onInitialized(state, { progress: progress({ a: 'pending' }), warnings: [] }),
  slice: (state) => onSlice(state, slice({ a: 'streaming' })),
  fault: (state) => onFault(state, { report: down, isRetryable: true }),
  failure: (state) => onFault(state, { report: lost, isRetryable: false }),
  backOffOver: onBackOffOver,
  pause: onPause,
  resume: onResume,
  retry: (state) => onRetry(state, null),
  tablesRetried: onTablesRetried,
  carried: carriedState,
}

describe('whatever happens', () => {
  const histories = fc.array(fc.constantFrom(...Object.keys(EVENTS)), { maxLength: 30 })
  const after = (events: readonly string[]): ReplicateState => events.reduce((state, event) => EVENTS[event]?.(state) ?? state, start)

  it('stop ends it from any state', () => {
    fc.assert(
      fc.property(histories, (events) => {
        const stopped = onStopRequested(after(events))
        expect(nextStep(stopped).tag).toBe('end')
        expect(phaseOf(onStopped(stopped))).toBe('stopped')
      }),
    )
  })

  it('an operator gets it going from any state', () => {
    fc.assert(
      fc.property(histories, (events) => {
        const going = nextStep(onRetry(onResume(after(events)), null))
        expect(['resolve', 'initialize', 'retryTables', 'slice']).toContain(going.tag)
      }),
    )
  })

  it('nothing runs before it is resolved and initialized, nor while it is paused or failed', () => {
    fc.assert(
      fc.property(histories, (events) => {
        const state = after(events)
        const step = nextStep(state)
        if (step.tag === 'slice' || step.tag === 'retryTables') expect(state.isResolved && state.isInitialized).toBe(true)
        if (state.failure !== null || state.isPauseRequested) expect(step.tag).toBe('wait')
        expect(JSON.parse(JSON.stringify(state))).toEqual(state)
      }),
    )
  })
})

describe('orders for tables', () => {
  const add = { tag: 'add', tableNames: ['orders'] } as const
  const resolved = onResolved(start, QUEUE)
  const streaming = onInitialized(resolved, { progress: progress({ 'public.items': 'streaming' }), warnings: ['of init'] })

  it('come one after the other, before the next slice', () => {
    const state = onOrder(onOrder(streaming, add), { ...add, tag: 'resync' })
    expect(nextStep(state)).toEqual({ tag: 'changeTables', id: 1, order: add })
    const done = onOrderDone(state, 1, { tables: progress({ 'public.items': 'streaming', 'public.orders': 'pending' }).tables, warnings: ['of the order'] })
    expect(nextStep(done)).toMatchObject({ tag: 'changeTables', id: 2 })
    expect(phaseOf(done)).toBe('snapshotting')
    expect(statusOf(done).warnings).toEqual(['of init', 'of the order', 'of the stream', 'of both'])
    expect(nextStep(onOrderEnded(done, 2)).tag).toBe('slice')
  })

  it('take out what was warned of their tables before', () => {
    const warned = onInitialized(resolved, { progress: progress({ 'public.items': 'streaming' }), warnings: ['columns of "public.items" are missing', 'of "public.items too"'] })
    const done = onOrderDone(onOrder(warned, add), 1, { tables: {}, warnings: ['now'], about: ['public.items'] })
    expect(done.warnings).toEqual(['of "public.items too"', 'now'])
  })

  it('wait for initialization, but not for an operator, nor for a fault', () => {
    expect(nextStep(onOrder(start, add)).tag).toBe('resolve')
    expect(nextStep(onOrder(resolved, add)).tag).toBe('initialize')
    expect(nextStep(onOrder(onFault(resolved, { report: down, isRetryable: true }), add)).tag).toBe('initialize')
    expect(nextStep(onOrder(onFault(resolved, { report: lost, isRetryable: false }), add)).tag).toBe('changeTables')
    expect(nextStep(onOrder(onPause(streaming), add)).tag).toBe('changeTables')
    expect(nextStep(onOrder(onFault(streaming, { report: down, isRetryable: true }), add)).tag).toBe('changeTables')
    expect(nextStep(onOrder(onStopRequested(streaming), add)).tag).toBe('end')
  })

  it('leave a pause and a failure as they are', () => {
    const failed = onFault(streaming, { report: lost, isRetryable: false })
    expect(phaseOf(onOrderEnded(onOrder(failed, add), 1))).toBe('failed')
    expect(nextStep(onOrderEnded(onOrder(failed, add), 1)).tag).toBe('wait')
  })
})

describe('watching the slot', () => {
  const sliceOf = (hasWalBudget: boolean): SliceResult => ({
    ...{ progress: progress({ a: 'streaming' }), ended: 'time', hasTablesToCopy: false, transactions: 0, changes: {}, copied: {} },
    ...{ fromLsn: '0/10', toLsn: '0/10', untilLsn: null, hasWalBudget },
  })
  const running = (hasWalBudget: boolean): ReplicateState => onSlice(onInitialized(onResolved(start, QUEUE), { progress: progress({ a: 'streaming' }), warnings: [] }), sliceOf(hasWalBudget))
  const seen = { asOf: '2026-01-01T00:01:00.000Z', confirmedFlushLsn: '0/30', sourceLsn: '0/50', retainedWalBytes: 9, warnings: ['w'] }
  const full: ErrorReport = { type: 'DestinationFailed', message: 'full', remedy: 'make room' }

  it('is done while paused, where there is a bound, and while a destination is down for long', () => {
    expect(watchMs(onPause(running(true)))).not.toBeNull()
    expect(watchMs(running(true))).toBeNull()
    expect(watchMs(onPause(running(false)))).toBeNull()
    expect(watchMs(onFault(onPause(running(true)), { report: lost, isRetryable: false }))).toBeNull()
    const faults = (report: ErrorReport, count: number): ReplicateState =>
      Array.from({ length: count }).reduce<ReplicateState>((state) => onFault(state, { report, isRetryable: true }), running(true))
    expect([1, 5, 6, 9].map((count) => watchMs(faults(full, count)))).toEqual([null, null, 32_000, 60_000])
    expect(watchMs(faults(down, 9))).toBeNull()
  })

  it('tells soon after a pause and after other options, then seldom', () => {
    const paused = onPause(running(true))
    expect(watchMs(paused)).toBe(2_000)
    const cancelled = onWatched(paused, { ...seen, ended: 'aborted' })
    expect(watchMs(cancelled)).toBe(2_000)
    const watched = onWatched(cancelled, { ...seen, ended: 'time' })
    expect(watchMs(watched)).toBe(120_000)
    expect(watchMs(onOptions(watched, { spoolBudgetBytes: 9 }))).toBe(2_000)
  })

  it('replaces what the last slice warned of the slot, as the next slice does', () => {
    const warned = onSlice(running(true), { ...sliceOf(true), slotWarnings: ['the slot holds back 5 bytes'] })
    expect(statusOf(warned).warnings).toEqual(['of the stream', 'of both', 'the slot holds back 5 bytes'])
    const watched = onWatched(onPause(warned), { ...seen, warnings: ['the slot holds back 9 bytes'], ended: 'time' })
    expect(statusOf(watched).warnings).toEqual(['of the stream', 'of both', 'the slot holds back 9 bytes'])
    expect(statusOf(onSlice(warned, sliceOf(true))).warnings).toEqual(['of the stream', 'of both'])
  })

  it('gives the status newer figures until the next slice, and ends where there is no bound any more', () => {
    const watched = onWatched(onPause(running(true)), { ...seen, ended: 'time' })
    expect(statusOf(watched)).toMatchObject({ phase: 'paused', appliedLsn: '0/10', lagBytes: 64, retainedWalBytes: 9, asOf: seen.asOf, warnings: ['of the stream', 'of both', 'w'] })
    expect(statusOf(onSlice(onResume(watched), sliceOf(true)))).toMatchObject({ retainedWalBytes: null, warnings: ['of the stream', 'of both'] })
    expect(watchMs(onWatched(watched, { ...seen, ended: 'noBudget' }))).toBeNull()
    const rested = onWatchFault(watched, { report: down, isRetryable: true })
    expect(statusOf(rested)).toMatchObject({ phase: 'paused', retainedWalBytes: 9, warnings: ['of the stream', 'of both', 'the slot cannot be watched: down'] })
    expect(phaseOf(onWatchFault(watched, { report: lost, isRetryable: false }))).toBe('failed')
  })
})
