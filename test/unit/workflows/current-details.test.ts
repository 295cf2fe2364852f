import { expect, it } from 'vitest'
import type { ReplicationStatus, TableStatus } from '../../../src/model/status.ts'
import { currentDetailsOf } from '../../../src/workflows/current-details.ts'

const table: TableStatus = { state: 'streaming', snapshotRows: 3, inserts: 4, updates: 5, deletes: 6, truncates: 0, lastCommitLsn: '0/20' }
const status: ReplicationStatus = {
  ...{ asOf: '2026-01-01T00:00:00.000Z', phase: 'streaming', slotName: 's', publicationName: 'p', appliedLsn: '0/20', confirmedFlushLsn: '0/20' },
  ...{ sourceLsn: '0/30', lagBytes: 16, lagMs: 5, retainedWalBytes: 16, tables: { 'public.orders': table }, warnings: [] },
}

it('shows phase, position, lag and every table', () => {
  expect(currentDetailsOf(status)).toBe(
    [
      '**streaming** · slot `s` · publication `p`',
      '',
      '| applied LSN | source LSN | lag | as of |',
      '| --- | --- | --- | --- |',
      '| `0/20` | `0/30` | 16 bytes, 5 ms | `2026-01-01T00:00:00.000Z` |',
      '',
      '| table | state | copied rows | inserts | updates | deletes | last commit |',
      '| --- | --- | ---: | ---: | ---: | ---: | --- |',
      '| `public.orders` | streaming | 3 | 4 | 5 | 6 | `0/20` |',
    ].join('\n'),
  )
})

it('shows the error and its remedy, and failed tables first', () => {
  const details = currentDetailsOf({
    ...status,
    lastError: { type: 'SlotLost', message: 'slot is <gone>', remedy: 'run | this' },
    tables: { a: table, b: { ...table, state: 'failed', error: { type: 'UnrepresentableValue', message: 'does not fit', remedy: 'widen' } } },
  })
  expect(details).toContain(String.raw`**SlotLost**: slot is \<gone\>`)
  expect(details).toContain(String.raw`Remedy: run \| this`)
  expect(details.indexOf('| `b` | failed')).toBeLessThan(details.indexOf('| `a` | streaming'))
  expect(details).toContain('`b`: **UnrepresentableValue** does not fit')
})

it('shows statements as they are to be pasted', () => {
  const remedy = 'As the owner:\nGRANT "a_b" TO "c";\nGRANT "d" TO "c";\nOr as a superuser:\nALTER ROLE "c" BYPASSRLS;'
  const details = currentDetailsOf({ ...status, lastError: { type: 'PrivilegeMissing', message: 'no', remedy } })
  const expected = ['Remedy: As the owner:', '```', 'GRANT "a_b" TO "c";', 'GRANT "d" TO "c";', '```', 'Or as a superuser:', '```', 'ALTER ROLE "c" BYPASSRLS;', '```']
  expect(details).toContain(expected.join('\n'))
})

it('shows a change that waits for approval with the statements that it would run', () => {
  const message = 'public.a waits: columns: added "b_c" text.\nALTER TABLE "public"."a" ADD COLUMN "b_c" VARCHAR;\nRows touched: 0.'
  const details = currentDetailsOf({ ...status, tables: { 'public.a': { ...table, state: 'failed', error: { type: 'SchemaChangeRefused', message, remedy: 'DROP x;' } } } })
  const expected = ['`public.a`: **SchemaChangeRefused** public.a waits: columns: added "b\\_c" text.', '```', 'ALTER TABLE "public"."a" ADD COLUMN "b_c" VARCHAR;', '```', 'Rows touched: 0.']
  expect(details).toContain([...expected, '', 'Remedy:', '```', 'DROP x;', '```'].join('\n'))
})

it('is not broken by names, and not long with many tables', () => {
  const tables = Object.fromEntries(Array.from({ length: 500 }, (_, index) => [`public.t|\`${index}\n`, table]))
  const details = currentDetailsOf({ ...status, tables })
  expect(details).toContain("| `public.t¦'0 ` | streaming |")
  expect(details).toContain('and 460 more tables')
  expect(details.length).toBeLessThan(5_000)
})
