import { expect, it } from 'vitest'
import type { CopyRecord, TableRecord } from '../../../src/model/destination.ts'
import { ZERO_LSN } from '../../../src/model/lsn.ts'
import { progressOf } from '../../../src/replication/progress.ts'

const NAME = { schema: 'public', name: 't' }
const RECORD: TableRecord = {
  oid: 1, source: NAME, target: NAME, writeMode: 'merge', state: 'snapshotting', columns: [], key: ['id'],
  replicaIdentity: 'default', hints: {}, hasColumnList: false, storage: null, copy: null, error: null, quarantine: null, isPartial: false,
  counts: { snapshotRows: 5, inserts: 0, updates: 0, deletes: 0, truncates: 0, lastCommitLsn: null },
} // prettier-ignore
const DONE = { snapshot: '1:1:', lsn: '0/10' }
const COPY: CopyRecord = { generation: 1, into: NAME, estimatedRows: 12, chunks: [{ lower: null, upper: ['1'], done: DONE }, { lower: ['1'], upper: null, done: null }] }

function copyingOf(record: Partial<TableRecord>): unknown {
  return progressOf([{ ...RECORD, ...record }], { appliedLsn: ZERO_LSN, health: null, lagMs: null, warnings: [] }).tables['public.t']?.copying
}

it('tells how far a copy is by its plan, and nothing where there is no plan or no copy', () => {
  expect(copyingOf({ copy: COPY })).toEqual({ estimatedRows: 12, ranges: 2, rangesDone: 1 })
  expect(copyingOf({ copy: { ...COPY, estimatedRows: 0 } })).toBeUndefined()
  expect(copyingOf({ copy: COPY, state: 'pending' })).toBeUndefined()
  expect(copyingOf({ copy: COPY, state: 'streaming' })).toBeUndefined()
  expect(copyingOf({})).toBeUndefined()
})

it('says no more why a table stayed out once it has joined, and still of another and of one that has left', () => {
  const stays = '"public.t" stays out until this is mended: no key'
  const other = '"public.t2" stays out until this is mended: no key'
  const of = (state: TableRecord['state']): readonly string[] => progressOf([{ ...RECORD, state }], { appliedLsn: ZERO_LSN, health: null, lagMs: null, warnings: [stays, other] }).warnings
  expect(of('streaming')).toEqual([other])
  expect(of('removed')).toEqual([stays, other])
})
