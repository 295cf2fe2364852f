import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import type { ChunkCopy, KeyRange } from '../../../src/model/source.ts'
import type { ChunkStage } from '../../../src/model/destination.ts'
import { ReadsAhead, type ReadRange } from '../../../src/replication/reads-ahead.ts'

const RANGES: readonly KeyRange[] = [{ lower: null, upper: ['1'] }, { lower: ['1'], upper: ['2'] }, { lower: ['2'], upper: ['3'] }, { lower: ['3'], upper: null }]

/** Reads that tell what was begun and what was discarded, by the range's lower end. */
function reader(given: { readonly failsAt?: string; readonly waitsAt?: string } = {}) {
  const begun: string[] = []
  const discarded: string[] = []
  const read: ReadRange = async ({ lower }, ending) => {
    const name = lower?.[0] ?? 'first'
    begun.push(name)
    await turn()
    if (name === given.failsAt) throw new Error(`cannot read ${name}`)
    if (name === given.waitsAt) await sleep(60_000, undefined, { signal: ending })
    const stage = { discard: () => discarded.push(name) } as unknown as ChunkStage
    return { copy: { snapshotLsn: 0n } as ChunkCopy, stage }
  }
  return { begun, discarded, read }
}

describe('ReadsAhead', () => {
  it('begins two ranges at once, the next when one is taken, and no more than these', async () => {
    const { begun, read } = reader()
    const reads = new ReadsAhead(RANGES, read, true)
    const first = reads.next()
    expect(begun).toEqual(['first', '1'])
    expect((await first).copy.snapshotLsn).toBe(0n)
    expect(begun).toEqual(['first', '1', '2'])
    await turn()
    expect(begun).toEqual(['first', '1', '2'])
    for (const _range of ['1', '2', '3']) await reads.next()
    expect(begun).toEqual(['first', '1', '2', '3'])
    await expect(reads.next()).rejects.toThrow(RangeError)
  })

  it('begins none before it is asked for where it is told so', async () => {
    const { begun, read } = reader()
    const reads = new ReadsAhead(RANGES, read, false)
    await reads.next()
    await turn()
    expect(begun).toEqual(['first'])
  })

  it('fails at the turn of the range that cannot be read, and not before', async () => {
    const { read } = reader({ failsAt: '1' })
    const reads = new ReadsAhead(RANGES, read, true)
    await reads.next()
    await turn()
    await expect(reads.next()).rejects.toThrow('cannot read 1')
  })

  it('discards what nobody took, and ends what is still being read', async () => {
    const taken = reader()
    const reads = new ReadsAhead(RANGES, taken.read, true)
    await reads.next()
    await reads.discard()
    expect(taken.discarded).toEqual(['1', '2'])
    const waiting = reader({ waitsAt: '1' })
    const others = new ReadsAhead(RANGES, waiting.read, true)
    await others.next()
    await others.discard()
    expect(waiting.discarded).toEqual(['2'])
  })
})
