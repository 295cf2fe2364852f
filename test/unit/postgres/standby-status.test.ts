import { describe, expect, it } from 'vitest'
import { parseLsn } from '../../../src/model/lsn.ts'
import { encodeStandbyStatus, statusIntervalMs } from '../../../src/postgres/standby-status.ts'

describe('encodeStandbyStatus', () => {
  it('confirms exactly the given position as written, flushed and applied', () => {
    const message = encodeStandbyStatus(parseLsn('16/B374D848'), Date.UTC(2000, 0, 1, 0, 0, 1), false)
    const lsn = '00000016b374d848'
    expect(message.toString('hex')).toBe(`72${lsn}${lsn}${lsn}00000000000f424000`)
  })

  it('confirms nothing by 0/0, and can ask for an answer', () => {
    const message = encodeStandbyStatus(null, Date.UTC(2000, 0, 1), true)
    expect(message.toString('hex')).toBe(`72${'00'.repeat(32)}01`)
  })
})

describe('statusIntervalMs', () => {
  it.each([[60_000, 5_000], [0, 5_000], [3_000, 1_000], [1, 1]])('for a wal_sender_timeout of %i ms is %i ms', (timeoutMs, intervalMs) => {
    expect(statusIntervalMs(timeoutMs)).toBe(intervalMs)
  })
})
