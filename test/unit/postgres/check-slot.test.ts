import { describe, expect, it } from 'vitest'
import { parseLsn } from '../../../src/model/lsn.ts'
import { canKeepSlot, type SlotCheckInput } from '../../../src/postgres/check-slot.ts'
import type { PublicationState } from '../../../src/postgres/publication.ts'
import type { SlotDetails } from '../../../src/postgres/slot.ts'

const FROM_LSN = parseLsn('0/C000110')

function found({ slot = {}, publication = {} }: { readonly slot?: Partial<SlotDetails>; readonly publication?: Partial<PublicationState> }): Pick<SlotCheckInput, 'slot' | 'publication'> {
  return {
    slot: {
      name: 's', isLogical: true, isTemporary: false, confirmedFlushLsn: FROM_LSN, restartLsn: FROM_LSN, isActive: false, activePid: null, plugin: 'pgoutput', database: 'shop',
      walStatus: 'reserved', retainedWalBytes: 0, safeWalBytes: null, idleSeconds: 0, invalidationReason: null, isFailover: false, catalogXmin: 898, activeApplication: null, ...slot,
    },
    publication: {
      name: 'p', xmin: 897, owner: 'r', isOwned: true, isForAllTables: false, schemas: [], operations: ['insert'], isViaPartitionRoot: true, hasGeneratedColumns: false, tables: [], comment: null,
      notes: new Map(), ...publication,
    },
  } // prettier-ignore
}

describe('a slot of a source that has taken the place of the former one', () => {
  it.each([
    ['stands where the destination does', found({}), true],
    ['stands past it, as after pg_upgrade', found({ slot: { confirmedFlushLsn: parseLsn('1/0') } }), true],
    ['stands before it: histories would hold things twice', found({ slot: { confirmedFlushLsn: parseLsn('0/C00010F') } }), false],
    ['is older than its publication', found({ publication: { xmin: 898 } }), false],
    ['is younger than its publication, around the end of transaction ids', found({ slot: { catalogXmin: 5 }, publication: { xmin: 0xffff_fff0 } }), true],
    ['is older than its publication, around the end of transaction ids', found({ slot: { catalogXmin: 0xffff_fff0 }, publication: { xmin: 5 } }), false],
    ['was given up', found({ slot: { invalidationReason: 'wal_removed' } }), false],
    ['was never finished', found({ slot: { confirmedFlushLsn: null } }), false],
    ['is not there', { ...found({}), slot: null }, false],
    ['has no publication', { ...found({}), publication: null }, false],
  ])('that %s', (_, state, isKept) => {
    expect(canKeepSlot(state, FROM_LSN)).toBe(isKept)
  })
})
