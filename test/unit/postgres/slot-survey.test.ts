import { describe, expect, it } from 'vitest'
import { slotFindings, type SlotSurvey, type SurveyedSlot } from '../../../src/postgres/slot-survey.ts'

const GB = 2 ** 30
const GOOD: SurveyedSlot = { name: 'shop', database: 'shop', isActive: true, retainedBytes: 5 * 2 ** 20, safeWalBytes: 50 * GB, walStatus: 'reserved', invalidationReason: null, idleSeconds: null, isSynced: false }
const BOUND: Omit<SlotSurvey, 'slots'> = { serverVersion: 180_004, maxSlotWalKeepBytes: 50 * GB, idleTimeoutSeconds: null, walBytesPerSecond: 2 ** 20 }

function told(slot: Partial<SurveyedSlot>, survey: Partial<SlotSurvey> = {}): readonly string[] {
  return slotFindings({ ...BOUND, slots: [{ ...GOOD, ...slot }], ...survey })
    .filter(({ state }) => state === 'warning')
    .map(({ name, message, remedy }) => `${name}: ${message} | ${(remedy ?? '').split('\n').at(-1) ?? ''}`)
}

describe('the survey of slots', () => {
  it('finds nothing to see to in slots that are read, unused ones that hold little, and a standby’s copies', () => {
    expect(told({})).toEqual([])
    expect(told({ isActive: false, idleSeconds: 86_400 })).toEqual([])
    expect(told({ isActive: false, isSynced: true, retainedBytes: 3 * GB, idleSeconds: 86_400 }, { idleTimeoutSeconds: 90_000 })).toEqual([])
  })

  it('tells how long it takes until a slot is given up, at the rate at which WAL is written', () => {
    expect(told({ retainedBytes: 45 * GB, safeWalBytes: 5 * GB })).toEqual([
      "slot health: slot \"shop\" holds back 45.0 GiB of WAL: 5.0 GiB more and the server gives it up, in about 85 min at 1.0 MiB of WAL a second | SELECT pg_drop_replication_slot('shop');",
    ])
    // Past the bound it lives until the next checkpoint.
    expect(told({ isActive: false, idleSeconds: 7_300, retainedBytes: 51 * GB, safeWalBytes: -GB, walStatus: 'unreserved' })[0]).toContain('and nobody reads it, since 2.0 h: 0 B more and the server gives it up, in about 0 ms')
    expect(told({ retainedBytes: 45 * GB, safeWalBytes: 5 * GB }, { walBytesPerSecond: 0 })[0]).not.toContain('in about')
  })

  it('tells of unused slots that hold back much, and what they grow by where nothing bounds them', () => {
    expect(told({ isActive: false, retainedBytes: 2 * GB, idleSeconds: 200_000 })[0]).toContain('slot "shop" holds back 2.0 GiB of WAL, and nobody reads it, since 2.3 days: 50.0 GiB more and the server gives it up, in about 14.2 h at 1.0 MiB')
    const [bound, slot] = told({ isActive: false, retainedBytes: 2 * GB, safeWalBytes: null }, { maxSlotWalKeepBytes: null })
    expect(bound).toContain('WAL bound: nothing bounds the WAL that a slot holds back (max_slot_wal_keep_size is -1)')
    expect(slot).toContain('and nobody reads it: 84.4 GiB more each day')
  })

  it('tells of slots that were given up, and of those that are about to be as nobody uses them', () => {
    expect(told({ isActive: false, invalidationReason: 'idle_timeout' })[0]).toContain('slot "shop" was given up by the server (idle_timeout)')
    expect(told({ isActive: false, idleSeconds: 2_000 }, { idleTimeoutSeconds: 3_600 })[0]).toContain('is given up in 27 min unless somebody uses it (idle_replication_slot_timeout)')
    expect(told({ isActive: false, idleSeconds: 1_000 }, { idleTimeoutSeconds: 3_600 })).toEqual([])
  })

  it('names unused slots, the one that holds back most, and what the version lacks', () => {
    const slots = [GOOD, { ...GOOD, name: 'old', isActive: false, idleSeconds: 500, retainedBytes: 2 ** 29 }]
    const findings = slotFindings({ ...BOUND, serverVersion: 160_002, slots })
    expect(findings.map(({ name, state, message }) => `${name}: ${state}: ${message}`)).toEqual([
      'WAL bound: ok: a slot may hold back 50.0 GiB of WAL (max_slot_wal_keep_size)',
      'slots: ok: 2 on this server, unused: "old" (512.0 MiB, since 8 min); most WAL is held back by "old": 512.0 MiB, room for 50.0 GiB more, in about 14.2 h at 1.0 MiB of WAL a second',
      'version features: ok: not in this version: failover slots, slots kept by pg_upgrade (17); generated columns in publications, idle_replication_slot_timeout (18)',
    ])
  })
})
