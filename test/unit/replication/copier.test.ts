import { expect, it } from 'vitest'
import type { ChunkStage, Destination, RowLookup, TableRecord } from '../../../src/model/destination.ts'
import { asRecordEnd, ZERO_LSN } from '../../../src/model/lsn.ts'
import { parseSnapshot, type Snapshot } from '../../../src/model/snapshot.ts'
import type { ChunkCopy, ChangedTable, KeyRange, Source, TransactionsWait } from '../../../src/model/source.ts'
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
    readSnapshot: async () => parseSnapshot('1:1:'),
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
function copierOf(source: Source, destination: Destination, chunks: RunningChunks, signal = new AbortController().signal): Copier {
  let tail: Promise<unknown> = Promise.resolve()
  return new Copier({
    source,
    destination,
    fence: { source: 's', slotName: 'slot', owner: 'o', epoch: 1 },
    lookup: {} as RowLookup,
    signal,
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

/** Transactions of a source: what runs is in `running`. */
class Transactions {
  readonly running = new Set<bigint>()
  readonly awaited: (readonly bigint[])[] = []
  #next = 10n
  #onEnd: () => void = () => undefined

  begin(): bigint {
    const xid = this.#next++
    this.running.add(xid)
    return xid
  }

  end(xid: bigint): void {
    this.running.delete(xid)
    this.#onEnd()
  }

  snapshot(): Snapshot {
    return { xmin: 10n, xmax: this.#next, running: new Set(this.running) }
  }

  async wait(ids: ReadonlySet<bigint>, { onSnapshot, signal }: TransactionsWait): Promise<void> {
    this.awaited.push([...ids])
    signal.addEventListener('abort', () => { this.#onEnd() })
    while ([...ids].some((id) => this.running.has(id))) {
      signal.throwIfAborted()
      await new Promise<void>((resolve) => { this.#onEnd = resolve })
    }
    onSnapshot(this.snapshot())
  }
}

/** As {@link fakes}, of a source on which transactions run. */
function withTransactions(transactions: Transactions, onCopy: (upper: string) => Promise<void> = async () => Promise.resolve()): ReturnType<typeof fakes> {
  const { source, destination } = fakes(onCopy)
  const own: Partial<Source> = { readSnapshot: async () => Promise.resolve(transactions.snapshot()), waitForTransactions: async (ids, wait) => transactions.wait(ids, wait) }
  return { source: { ...source, ...own }, destination }
}

function pendingTable(oid: number): TableRuntime {
  return new TableRuntime({ ...PENDING, oid, source: { schema: 'public', name: `t${String(oid)}` }, target: { schema: 'public', name: `t${String(oid)}` } })
}

/** A slice that is over before anything could be copied. */
async function waitInVain({ source, destination }: ReturnType<typeof fakes>, tables: readonly TableRuntime[]): Promise<void> {
  const ended = new AbortController()
  const waiting = copierOf(source, destination, new RunningChunks(() => undefined), ended.signal).run(tables)
  const rejected = expect(waiting).rejects.toThrow()
  await new Promise((resolve) => setImmediate(resolve))
  ended.abort()
  await rejected
}

// Cause: each slice took anew what was to be waited for: where transactions overlap longer than a slice lasts, the copy never began.
it('waits in the next slice for what is left of what it waited for, not for what has begun since', async () => {
  const transactions = new Transactions()
  const parts = withTransactions(transactions)
  const [first, second] = [transactions.begin(), transactions.begin()]
  const table = pendingTable(1)
  await waitInVain(parts, [table])
  transactions.begin()
  transactions.end(first)
  await waitInVain(parts, [table])
  transactions.begin()
  transactions.end(second)
  await copierOf(parts.source, parts.destination, new RunningChunks(() => undefined)).run([table])
  expect(table.record.state).toBe('streaming')
  expect(transactions.awaited).toEqual([[first, second], [first, second], [first, second]])
})

it('waits once for a copy that takes many slices', async () => {
  const transactions = new Transactions()
  const table = pendingTable(1)
  let slices = 0
  for (; table.record.state !== 'streaming' && slices < 10; slices++) {
    const chunks = new RunningChunks(() => undefined)
    const { source, destination } = withTransactions(transactions, async () => {
      chunks.endWithThese()
      return Promise.resolve()
    })
    await copierOf(source, destination, chunks).run([table])
    // Open until the test is over.
    transactions.begin()
  }
  expect(table.record.state).toBe('streaming')
  expect(slices).toBeGreaterThan(1)
  expect(transactions.awaited).toEqual([])
})

it('copies a table whose transactions have ended while one that joined later waits for its own', async () => {
  const transactions = new Transactions()
  const parts = withTransactions(transactions)
  const before = transactions.begin()
  const [first, later] = [pendingTable(1), pendingTable(2)]
  await waitInVain(parts, [first])
  const wroteToLater = transactions.begin()
  const copying = copierOf(parts.source, parts.destination, new RunningChunks(() => undefined)).run([later, first])
  await new Promise((resolve) => setImmediate(resolve))
  transactions.end(before)
  while (first.record.state !== 'streaming') await new Promise((resolve) => setImmediate(resolve))
  expect(later.record.state).toBe('pending')
  transactions.end(wroteToLater)
  await copying
  expect(later.record.state).toBe('streaming')
  expect(transactions.awaited).toEqual([[before], [before], [before, wroteToLater]])
})

it('takes anew what a copy waits for that begins anew', async () => {
  const transactions = new Transactions()
  const parts = withTransactions(transactions)
  const table = pendingTable(1)
  // Of the first copy nothing is waited for; then somebody writes what the stream applies to it, and changes the table.
  const writers: bigint[] = []
  const planChunks: Source['planChunks'] = async (schema, request) => {
    if (writers.length > 0) return parts.source.planChunks(schema, request)
    writers.push(transactions.begin())
    const changed: ChangedTable = { tag: 'changed', table: { ...schema, columns: [] } }
    return Promise.resolve(changed)
  }
  const restartCopy: Destination['restartCopy'] = async (_fence, record) => Promise.resolve({ ...record, state: 'pending', copy: { generation: 7, into: record.target, estimatedRows: 0, chunks: [{ lower: null, upper: null, done: null }] } })
  const copying = copierOf({ ...parts.source, planChunks }, { ...parts.destination, restartCopy }, new RunningChunks(() => undefined)).run([table])
  while (transactions.awaited.length === 0) await new Promise((resolve) => setImmediate(resolve))
  expect(table.record.state).toBe('pending')
  expect(transactions.awaited).toEqual([writers])
  for (const writer of writers) transactions.end(writer)
  await copying
  expect(table.record.state).toBe('streaming')
})
