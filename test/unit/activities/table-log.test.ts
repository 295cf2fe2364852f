import { pino } from 'pino'
import { expect, it } from 'vitest'
import { TableLog } from '../../../src/activities/table-log.ts'
import type { TableState, TableStatus } from '../../../src/model/status.ts'

function tablesOf(states: Readonly<Record<string, TableState>>): Readonly<Record<string, TableStatus>> {
  const error = { type: 'UnrepresentableValue', message: 'a value does not fit', remedy: 'mend it' } as const
  return Object.fromEntries(
    Object.entries(states).map(([table, state]) => [table, { state, snapshotRows: 0, inserts: 0, updates: 0, deletes: 0, truncates: 0, lastCommitLsn: null, ...(state === 'failed' ? { error } : {}) }]),
  )
}

function logged(): { readonly log: TableLog; readonly take: () => readonly Record<string, unknown>[] } {
  const lines: Record<string, unknown>[] = []
  const logger = pino({ base: null, timestamp: false }, { write: (line) => void lines.push(JSON.parse(line) as Record<string, unknown>) })
  return { log: new TableLog(logger), take: () => lines.splice(0) }
}

it('logs each change of a state once, with the pipeline', () => {
  const { log, take } = logged()
  const note = (state: TableState): void => { log.note('w', { workflowId: 'w', slotName: 's' }, tablesOf({ 'public.a': state, 'public.b': 'streaming' })) }
  note('pending')
  expect(take()).toEqual([])
  note('snapshotting')
  note('snapshotting')
  expect(take()).toEqual([{ level: 30, workflowId: 'w', slotName: 's', table: 'public.a', state: 'snapshotting', former: 'pending', msg: 'table public.a is snapshotting' }])
  note('failed')
  note('failed')
  expect(take()).toEqual([
    { level: 40, workflowId: 'w', slotName: 's', table: 'public.a', state: 'failed', former: 'snapshotting', error: { type: 'UnrepresentableValue', message: 'a value does not fit' }, msg: 'table public.a has stopped' },
  ])
})

it('logs at once what it finds stopped, and again once it was forgotten', () => {
  const { log, take } = logged()
  for (let round = 0; round < 2; round++) {
    log.note('w', {}, tablesOf({ 'public.a': 'failed', 'public.b': 'streaming' }))
    log.note('w', {}, tablesOf({ 'public.a': 'failed', 'public.b': 'streaming' }))
    expect(take()).toMatchObject([{ table: 'public.a', state: 'failed' }])
    log.forget('w')
  }
})
