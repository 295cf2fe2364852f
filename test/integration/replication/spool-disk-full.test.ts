import type * as fileSystem from 'node:fs'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeEach, expect, it, vi } from 'vitest'
import { toLsn } from '../../../src/model/lsn.ts'
import { SpoolFile } from '../../../src/postgres/spool-file.ts'
import { StreamSpool } from '../../../src/replication/stream-spool.ts'

// A disk that is full for an hour is tried hundreds of times: what each attempt leaves behind adds up.

type Call = 'writeSync' | 'fdatasyncSync' | 'ftruncateSync' | 'fsyncSync'

const disk = vi.hoisted(() => ({ full: null as Call | null, open: new Set<number>() }))

vi.mock('node:fs', async (original) => {
  const real = await original<typeof fileSystem>()
  const failing = <T extends unknown[], R>(name: Call, work: (...given: T) => R) => (...given: T): R => {
    if (disk.full === name) throw Object.assign(new Error('no space left on device'), { code: 'ENOSPC' })
    return work(...given)
  }
  return {
    ...real,
    openSync: (...given: Parameters<typeof real.openSync>) => {
      const descriptor = real.openSync(...given)
      disk.open.add(descriptor)
      return descriptor
    },
    closeSync: (descriptor: number) => {
      real.closeSync(descriptor)
      disk.open.delete(descriptor)
    },
    writeSync: failing('writeSync', real.writeSync),
    fdatasyncSync: failing('fdatasyncSync', real.fdatasyncSync),
    ftruncateSync: failing('ftruncateSync', real.ftruncateSync),
    fsyncSync: failing('fsyncSync', real.fsyncSync),
  }
})

const directory = mkdtempSync(join(tmpdir(), 'spool-'))

beforeEach(() => {
  disk.full = null
  disk.open.clear()
})

afterAll(() => {
  rmSync(directory, { recursive: true })
})

const FULL = { kind: 'DestinationFailed', message: expect.stringContaining('ENOSPC') as string }

it.each(['writeSync', 'fdatasyncSync', 'fsyncSync', 'ftruncateSync'] as const)('a segment that cannot be begun leaves no descriptor and no file behind (%s)', (call) => {
  const folder = join(directory, call)
  const spool = new StreamSpool(folder, { systemIdentifier: '1', timeline: 1 })
  disk.full = call
  expect(() => spool.create(toLsn(1n), 1_000)).toThrow(expect.objectContaining(FULL))
  expect([...disk.open]).toEqual([])
  expect(readdirSync(join(folder, 'stream'))).toEqual([])
  disk.full = null
  spool.create(toLsn(1n), 1_000).close()
  expect([...disk.open]).toEqual([])
})

it('a segment that cannot be cut to what was saved is let go of all the same', async () => {
  const spool = new StreamSpool(join(directory, 'cut'), { systemIdentifier: '1', timeline: 1 })
  const writer = spool.create(toLsn(1n), 1_000)
  writer.reach(toLsn(2n))
  await writer.save()
  disk.full = 'ftruncateSync'
  writer.close()
  expect([...disk.open]).toEqual([])
  expect(spool.segments()).toMatchObject([{ startLsn: 1n, endLsn: 2n }])
})

it.each(['ftruncateSync', 'fsyncSync'] as const)('a spool that cannot be opened leaves no descriptor behind (%s)', (call) => {
  disk.full = call
  expect(() => SpoolFile.open(join(directory, `${call}.spool`), 0)).toThrow(expect.objectContaining(FULL))
  expect([...disk.open]).toEqual([])
})
