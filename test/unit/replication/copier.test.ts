import { expect, it } from 'vitest'
import type { ChunkStage, Destination, RowLookup, TableRecord } from '../../../src/model/destination.ts'
import { asRecordEnd, ZERO_LSN } from '../../../src/model/lsn.ts'
import { parseSnapshot } from '../../../src/model/snapshot.ts'
import type { ChunkCopy, KeyRange, Source } from '../../../src/model/source.ts'
import { Copier } from '../../../src/replication/copier.ts'
import { RunningChunks } from '../../../src/replication/running-chunks.ts'
import { TableRuntime } from '../../../src/replication/table-runtime.ts'

const PENDING: TableRecord = {
  oid: 1, source: { schema: 'public', name: 't' }, target: { schema: 'public', name: 't' }, writeMode: 'merge', state: 'pending', columns: [], key: ['id'],
  replicaIdentity: 'default', hints: {}, hasColumnList: false, storage: null, copy: null, error: null, quarantine: null, isPartial: false,
  counts: { snapshotRows: 0, inserts: 0, updates: 0, deletes: 0, truncates: 0, lastCommitLsn: null },
} // prettier-ignore

const RANGES: readonly KeyRange[] = [
  { lower: null, upper: ['1'] },
  { lower: ['1'], upper: ['2'] },
  { lower: ['2'], upper: ['3'] },
  { lower: ['3'], upper: null },
]

/** What the copier uses of each; anything else fails the test. */
function fakes(onCopy: (upper: string) => Promise<void>): { readonly source: Source; readonly destination: Destination } {
  const source: Partial<Source> = {
    waitForRunningTransactions: async () => undefined,
    flushWal: async () => undefined,
    look: async () => ({ lsn: ZERO_LSN, tables: [], newcomers: [], operations: [] }),
    // The other reader looks for work meanwhile.
    planChunks: async () => new Promise((resolve) => setImmediate(() => { resolve({ tag: 'plan', ranges: RANGES, estimatedRows: 4 }) })),
    findSmallTables: async () => new Map(),
    beginCopy: async (_table, { range }) => {
      const copy: Partial<ChunkCopy> = {
        tag: 'copy', snapshot: parseSnapshot('1:1:'), snapshotText: '1:1:', snapshotLsn: asRecordEnd(ZERO_LSN), snapshotTimeMicros: 0n,
        rows: async () => onCopy(range.upper?.[0] ?? 'end').then(() => 0),
        close: async () => undefined,
      } // prettier-ignore
      return copy as ChunkCopy
    },
  }
  const destination: Partial<Destination> = {
    chunkRows: 1,
    dropDeferred: async () => undefined,
    prepareCopies: async () => undefined,
    swapCopy: async (_fence, table) => table,
    newChunk: (table, { index }) => {
      const stage = { table, index, rowCount: 0, byteCount: 0, lineFormat: null, withRecord: (record: TableRecord) => { stage.table = record }, discard: () => undefined }
      return stage as unknown as ChunkStage
    },
    applyChunks: async (_fence, stages) => stages.map((stage) => {
      const { table } = stage
      const { index } = stage as ChunkStage & { readonly index: number }
      const chunks = table.copy?.chunks.map((chunk, at) => (at === index ? { ...chunk, done: { snapshot: '1:1:', lsn: '0/0' } } : chunk)) ?? []
      const state = chunks.every(({ done }) => done !== null) ? 'streaming' : 'snapshotting'
      return { ...table, state, copy: table.copy === null ? null : { ...table.copy, chunks } }
    }),
  }
  return { source: source as Source, destination: destination as Destination }
}

/** A copier of these, that may begin what `chunks` lets it. */
function copierOf(source: Source, destination: Destination, chunks: RunningChunks): Copier {
  let tail: Promise<unknown> = Promise.resolve()
  return new Copier({
    source,
    destination,
    fence: { source: 's', slotName: 'slot', owner: 'o', epoch: 1 },
    lookup: {} as RowLookup,
    signal: new AbortController().signal,
    chunks,
    exclusive: async (work) => {
      const turn = tail.then(work)
      tail = turn.catch(() => undefined)
      return turn
    },
    onActivity: () => undefined,
    spec: { schemaChanges: 'apply' },
    appliedLsn: () => ZERO_LSN,
    onCommitted: () => undefined, onWaiting: () => undefined,
  })
}

it('copies two chunks of one table at once: the reader that finds a plan being made waits for it', async () => {
  const copied: string[] = []
  let begun = 0
  let bothRead: () => void = () => undefined
  const both = new Promise<void>((resolve) => {
    bothRead = resolve
  })
  const { source, destination } = fakes(async (upper) => {
    copied.push(upper)
    begun++
    if (begun === 2) bothRead()
    // With one reader it never comes.
    await both
  })
  const table = new TableRuntime(PENDING)
  const copier = copierOf(source, destination, new RunningChunks(() => undefined))
  await copier.run([table])
  expect(copied.sort()).toEqual(['1', '2', '3', 'end'])
  expect(table.record.state).toBe('streaming')
})

// Cause: a slice that was over ended the chunks that were being copied, and the next one began them anew: a chunk that took longer than a slice was never done.
it('finishes the chunks that run, and begins no other, once a slice is over', async () => {
  const copied: string[] = []
  const ended: string[] = []
  const chunks = new RunningChunks(() => ended.push('a chunk'))
  const { source, destination } = fakes(async (upper) => {
    copied.push(upper)
    await Promise.resolve()
    chunks.endWithThese()
    expect(chunks.isSettled).toBe(false)
  })
  const table = new TableRuntime(PENDING)
  await copierOf(source, destination, chunks).run([table])
  expect(copied.length).toBeGreaterThan(0)
  expect(copied.length).toBeLessThanOrEqual(2)
  expect(ended).toHaveLength(copied.length)
  expect(chunks.isSettled).toBe(true)
  expect(table.record.copy?.chunks.filter(({ done }) => done !== null)).toHaveLength(copied.length)
})
