import { expect, it } from 'vitest'
import { toLsn } from '../../../src/model/lsn.ts'
import type { SlotState, SourceHealth } from '../../../src/model/source.ts'
import { kindsOf, walWarnings } from '../../../src/replication/spool-slice.ts'

const MB = 2 ** 20
const SLOT: SlotState = {
  ...{ confirmedFlushLsn: toLsn(16n), restartLsn: toLsn(16n), isActive: true, activePid: 1, plugin: 'pgoutput', database: 'shop' },
  ...{ walStatus: 'reserved', retainedWalBytes: 10 * MB, safeWalBytes: 90 * MB, idleSeconds: null },
}
const HEALTH: SourceHealth = { currentLsn: toLsn(32n), committedLsn: toLsn(32n), maxSlotWalKeepBytes: 100 * MB, idleSlotTimeoutSeconds: null, slot: SLOT }

function warnings(slot: Partial<SlotState>, health: Partial<SourceHealth> = {}, flushSlot = true): readonly string[] {
  return walWarnings({ walBudgetBytes: null, flushSlot }, { ...HEALTH, slot: { ...SLOT, ...slot }, ...health })
}

it('says nothing of a slot that is well, or gone', () => {
  expect(warnings({})).toEqual([])
  expect(warnings({}, { slot: null })).toEqual([])
  expect(warnings({ walStatus: 'lost', safeWalBytes: null })).toEqual([])
})

it('says that the server is about to give the slot up, also where nothing is confirmed and so there is no budget', () => {
  const near = { retainedWalBytes: 80 * MB, safeWalBytes: 20 * MB }
  expect(warnings(near, {}, false)).toEqual([`the server gives the slot up after ${String(20 * MB)} bytes more of WAL (max_slot_wal_keep_size): raise it, or let the replication catch up`])
  expect(warnings(near)[0]).toContain('of the 83886080 that it may')
  expect(warnings({ walStatus: 'unreserved', safeWalBytes: -5 }, {}, false)[0]).toContain('after 0 bytes more')
})

it('says that an unused slot is about to time out', () => {
  expect(warnings({ idleSeconds: 100 }, { idleSlotTimeoutSeconds: 180 })).toEqual(['the server gives the slot up in 80 s if nobody uses it (idle_replication_slot_timeout): resume'])
  expect(warnings({ idleSeconds: 80 }, { idleSlotTimeoutSeconds: 180 })).toEqual([])
})

// Cause: as many as before were taken for the same ones, so that the status kept what was over.
it('tells warnings apart by what they warn of, not by their figures or number', () => {
  const near = { retainedWalBytes: 80 * MB }
  const idle = warnings({ idleSeconds: 100 }, { idleSlotTimeoutSeconds: 180 })
  expect(kindsOf(warnings({ ...near, safeWalBytes: 20 * MB }))).toBe(kindsOf(warnings({ retainedWalBytes: 81 * MB, safeWalBytes: 19 * MB })))
  const bound = warnings({ ...near, safeWalBytes: 20 * MB }, {}, false)
  expect([idle.length, bound.length]).toEqual([1, 1])
  expect(kindsOf(idle)).not.toBe(kindsOf(bound))
})
