import type { Client } from '@temporalio/client'
import { defaultPayloadConverter } from '@temporalio/common'
import { describe, expect, it } from 'vitest'

import { onlyOpenReplication } from '../../../src/cli/control.ts'
import { newestHeartbeat, withLiveFigures } from '../../../src/cli/replication-status.ts'
import { parseDuration } from '../../../src/cli/schedule.ts'
import { parseTableList } from '../../../src/cli/spec-options.ts'
import { progressBar, Readings, remainingMs, rowsPerSecond, sparkline, tableRates } from '../../../src/cli/readings.ts'
import { overviewText, statusText } from '../../../src/cli/status-text.ts'
import type { ReplicationProgress, ReplicationStatus, TableStatus } from '../../../src/model/status.ts'

const TABLE: TableStatus = { state: 'streaming', snapshotRows: 10, inserts: 5, updates: 3, deletes: 2, truncates: 0, lastCommitLsn: '0/10' }
const PROGRESS: ReplicationProgress = {
  asOf: '2024-01-01T00:00:00.000Z',
  appliedLsn: '0/10',
  confirmedFlushLsn: '0/8',
  sourceLsn: '0/20',
  lagBytes: 16,
  lagMs: 1_500,
  retainedWalBytes: 2_048,
  tables: { 'public.a': TABLE },
  warnings: ['from the workflow'],
}
const STATUS: ReplicationStatus = { ...PROGRESS, phase: 'streaming', slotName: 's', publicationName: 'p' }

describe('the status of one that was stopped', () => {
  it('tells what it had failed with as of the past, without what to do', () => {
    const lastError = { type: 'SourceUnavailable', message: 'the server is down', remedy: 'start it' } as const
    const text = statusText({ workflowId: 'id', runId: '', activity: null, status: { ...STATUS, phase: 'stopped', lastError } })
    expect(text).toContain('before it was stopped: SourceUnavailable: the server is down')
    expect(text).not.toContain('start it')
    expect(statusText({ workflowId: 'id', runId: '', activity: null, status: { ...STATUS, phase: 'failed', lastError } })).toContain('start it')
  })
})

describe('live figures', () => {
  const later: ReplicationProgress = { ...PROGRESS, asOf: '2024-01-01T00:00:10.000Z', appliedLsn: '0/18', warnings: ['from the activity'] }

  it('win over the workflow\'s where they are newer, warnings too, and keep its phase', () => {
    expect(withLiveFigures(STATUS, later)).toMatchObject({
      phase: 'streaming',
      slotName: 's',
      appliedLsn: '0/18',
      asOf: later.asOf,
      warnings: ['from the activity'],
    })
  })

  it('lose against newer ones of the workflow', () => {
    expect(withLiveFigures({ ...STATUS, asOf: '2024-01-02T00:00:00.000Z' }, later).appliedLsn).toBe('0/10')
    expect(withLiveFigures(STATUS, null)).toBe(STATUS)
  })

  it('are read from a heartbeat of any shape', () => {
    const heartbeat = (details: unknown): Parameters<typeof newestHeartbeat>[0] => [
      { heartbeatDetails: { payloads: [defaultPayloadConverter.toPayload(details)] } },
    ]
    expect(newestHeartbeat(heartbeat({ activity: 'copying', progress: later }))).toEqual({ activity: 'copying', progress: later })
    expect(newestHeartbeat(heartbeat({ activity: '' }))).toEqual({ activity: null, progress: null })
    expect(newestHeartbeat(heartbeat({ activity: 'starting' }))).toEqual({ activity: 'starting', progress: null })
    expect(newestHeartbeat(heartbeat({ activity: 'x', progress: { tables: 1 } }))).toEqual({ activity: 'x', progress: null })
    for (const nothing of [[], [{}], heartbeat('text'), heartbeat(null), [{ heartbeatDetails: { payloads: [{ data: new Uint8Array([1]) }] } }]]) {
      expect(newestHeartbeat(nothing)).toEqual({ activity: null, progress: null })
    }
  })

  it('give a rate between two readings', () => {
    const more: ReplicationStatus = { ...STATUS, asOf: later.asOf, tables: { 'public.a': { ...TABLE, inserts: 1_005 } } }
    expect(rowsPerSecond(STATUS, more)).toBe(100)
    expect(rowsPerSecond(STATUS, STATUS)).toBeNull()
    expect(rowsPerSecond(more, { ...STATUS, asOf: '2024-01-01T01:00:00.000Z' })).toBeNull()
  })
})

describe('the copy of a table', () => {
  const at = (second: number, rangesDone: number, ranges = 10): ReplicationStatus => ({
    ...{ ...STATUS, asOf: new Date(second * 1_000).toISOString() },
    tables: { 'public.a': TABLE, 'public.b': { ...TABLE, state: 'snapshotting', snapshotRows: rangesDone * 100, copying: { estimatedRows: 1_000, ranges, rangesDone } } },
  })

  it('shows how far it is, and how long the rest takes, once a range has come meanwhile', () => {
    expect(remainingMs([at(0, 2)])).toEqual({})
    expect(remainingMs([at(0, 2), at(10, 2)])).toEqual({})
    expect(remainingMs([at(0, 2), at(10, 3), at(20, 4)])).toEqual({ 'public.b': 60_000 })
    // It has begun anew, by another plan or by the same.
    expect(remainingMs([at(0, 2, 20), at(10, 3), at(20, 4)])).toEqual({ 'public.b': 60_000 })
    expect(remainingMs([at(0, 9), at(10, 3), at(20, 4)])).toEqual({ 'public.b': 60_000 })
    expect(remainingMs([at(0, 2), at(10, 10)])).toEqual({ 'public.b': 0 })
    expect(progressBar(0.45)).toBe('█████████░░░░░░░░░░░')
    const trend = { rowsPerSecond: null, tableRates: {}, remainingMs: { 'public.b': 60_000 }, lagBytes: [] }
    expect(statusText({ workflowId: 'w', runId: 'r', status: at(20, 4), activity: null }, trend)).toContain('public.b ████████░░░░░░░░░░░░ 40 % of about 1,000 rows, 60.0 s left')
    expect(statusText({ workflowId: 'w', runId: 'r', status: STATUS, activity: null })).not.toContain('░')
  })
})

describe('readings one after the other', () => {
  const at = (second: number, inserts: number, lagBytes: number | null = 0): ReplicationStatus => ({ ...STATUS, lagBytes, asOf: new Date(second * 1_000).toISOString(), tables: { 'public.a': { ...TABLE, inserts }, 'public.b': TABLE } })

  it('give a rate for each table that both have, and none where a copy began anew', () => {
    expect(tableRates(at(0, 100), at(4, 300))).toEqual({ 'public.a': 50, 'public.b': 0 })
    expect(tableRates({ ...at(0, 100), tables: {} }, at(4, 300))).toEqual({})
    expect(tableRates(at(0, 300), at(4, 100))).toEqual({ 'public.b': 0 })
    expect(tableRates(at(0, 100), at(0, 300))).toEqual({})
  })

  it('are the newest 40, and a moment counts once', () => {
    const readings = new Readings()
    expect(readings.trend).toBeNull()
    readings.add(at(0, 0, 7))
    readings.add(at(0, 0, 7))
    expect(readings.trend).toEqual({ rowsPerSecond: null, tableRates: {}, remainingMs: {}, lagBytes: [7] })
    for (let second = 1; second <= 50; second++) readings.add(at(second, second * 10, second))
    expect(readings.trend).toEqual({ rowsPerSecond: 10, tableRates: { 'public.a': 10, 'public.b': 0 }, remainingMs: {}, lagBytes: Array.from({ length: 40 }, (_, index) => index + 11) })
  })

  it.each([
    [[], ''],
    [[0, 0], '▁▁'],
    [[0, 1, 700, null, 1_400], '▁▂▅ █'],
  ])('%j as a line', (values, line) => {
    expect(sparkline(values)).toBe(line)
  })
})

describe('status for people', () => {
  it('shows phase, positions, tables, errors with their remedy, and warnings', () => {
    const error = { type: 'UnrepresentableValue', message: 'too wide', remedy: 'widen it' } as const
    const text = statusText(
      {
        workflowId: 'w',
        runId: 'r',
        activity: 'copying public.a 40 %',
        status: { ...STATUS, tables: { 'public.a': { ...TABLE, state: 'failed', error } }, lastError: { ...error, type: 'SourceUnavailable' } },
      },
      { rowsPerSecond: 123.4, tableRates: { 'public.a': 77 }, remainingMs: {}, lagBytes: [0, null, 4_096] },
    )
    for (const part of ['w: streaming', '40 %', '0/10', '16 B, 1.5 s', '2.0 KiB', '123', 'lag ▁ █ at most 4.0 KiB', 'rows/s', '77', 'public.a: UnrepresentableValue', 'widen it', 'warning', 'SourceUnavailable']) {
      expect(text).toContain(part)
    }
  })

  it('shows open replications as lines, also those that do not answer', () => {
    const text = overviewText([
      { workflowId: 'w', runId: 'r', status: STATUS, activity: null },
      { workflowId: 'v', error: 'no worker' },
    ])
    expect(text).toMatch(/│ w +│ streaming/)
    expect(text).toMatch(/│ v +│ no worker/)
    expect(overviewText([])).toContain('no replication is open')
  })
})

describe('a verb without a workflow id', () => {
  const among = (...workflowIds: string[]): Client => {
    const list = workflowIds.map((workflowId, index) => ({ workflowId, startTime: new Date(index) }))
    // What it asks for is all that it gets: a real server has other tests' replications.
    return { workflow: { list: () => list } } as unknown as Client
  }

  it('means the only open replication, and names them where there are several', async () => {
    expect(await onlyOpenReplication(among('shop'))).toBe('shop')
    await expect(onlyOpenReplication(among())).rejects.toMatchObject({ exitCode: 2, shown: { message: 'no replication is open' } })
    await expect(onlyOpenReplication(among('shop', 'other'))).rejects.toMatchObject({ exitCode: 2, shown: { message: 'there are several open replications: shop, other' } })
  })
})

describe('options', () => {
  it.each([
    ['a,b', ['a', 'b']],
    [' a , sales.Order Items ', ['a', 'sales.Order Items']],
    ['"a,b"."c""d",e', ['"a,b"."c""d"', 'e']],
  ])('splits the tables %j', (text, tables) => {
    expect(parseTableList(text, undefined)).toEqual(tables)
  })

  it('adds the tables of a repeated option', () => {
    expect(parseTableList('b', ['a'])).toEqual(['a', 'b'])
  })

  it('reads durations', () => {
    expect(['90s', '5m', '1h', '2 d'].map(parseDuration)).toEqual([90_000, 300_000, 3_600_000, 172_800_000])
    for (const text of ['', '0s', '5', '-5m', '1.5h']) expect(() => parseDuration(text)).toThrow('write it like')
  })
})
