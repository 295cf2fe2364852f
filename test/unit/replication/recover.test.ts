import { expect, it } from 'vitest'
import type { PipelineState } from '../../../src/model/destination.ts'
import { parseLsn } from '../../../src/model/lsn.ts'
import type { SourceInspection } from '../../../src/postgres/preflight.ts'
import { canBeDecoded } from '../../../src/replication/recover.ts'

const APPLIED_LSN = parseLsn('0/10')

function state(publication: number | null, given: object = {}): PipelineState {
  const storage = publication === null ? null : { published: { publication } }
  return { appliedLsn: APPLIED_LSN, tables: [{ oid: 1, storage, copy: {}, ...given }] } as unknown as PipelineState
}

/** Of publication 7, made by transaction 100. */
function inspection(catalogXmin: number): SourceInspection {
  const slot = { catalogXmin, invalidationReason: null, confirmedFlushLsn: APPLIED_LSN }
  return { slot, publication: { xmin: 100 }, tables: [{ oid: 1, storage: { published: { publication: 7 } } }] } as unknown as SourceInspection
}

// Cause: only a record that still knew the former publication told of one made anew: where all tables had been planned since, recover took the slot for whole, for ever.
it.each([
  ['a record knows another publication', state(6), 101, false],
  ['all records know the present one, which is younger than the slot', state(7), 100, false],
  ['all records know the present one, which is older than the slot', state(7), 101, true],
  ['no record knows any, and it is younger than the slot', state(null), 100, false],
  ['an attempt whose answer was lost has made the slot', state(7, { gap: { fromLsn: '0/1' }, copy: null }), 100, true],
])('where %s', (_, known, catalogXmin, isDecodable) => {
  expect(canBeDecoded(inspection(catalogXmin), known, false)).toBe(isDecodable)
})
