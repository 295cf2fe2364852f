import pg from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { ChangeHandler } from '../../../src/model/change.ts'
import type { Snapshot } from '../../../src/model/snapshot.ts'
import type { KeyRange } from '../../../src/model/source.ts'
import { isVisible, widenXid } from '../../../src/pipeline/visibility.ts'
import { readTables } from '../../../src/postgres/catalog.ts'
import { planChunks } from '../../../src/postgres/chunk-plan.ts'
import { CopyConnections } from '../../../src/postgres/copy-connections.ts'
import { openReplicationStream } from '../../../src/postgres/replication-stream.ts'
import { connect } from '../../../src/postgres/session.ts'
import { beginCopy } from '../../../src/postgres/snapshot-copy.ts'
import { cellsOf, type Cell } from '../../unit/postgres/pgoutput/recording.ts'
import { SourceDatabase, waitFor } from './stream-harness.ts'
import { testServers } from '../../support/test-servers.ts'

const WRITERS = 3
const TRANSACTIONS = 150
const KEYS = 400

/** What one change does to the rows of its table: `before` is the key that goes, `after` the row that comes. */
interface Change {
  readonly xid: number
  readonly before: string | null
  readonly after: readonly Cell[] | null
}

interface Chunk {
  readonly range: KeyRange
  readonly snapshot: Snapshot
  readonly rows: readonly (readonly Cell[])[]
}

/** Repeatable random numbers, so that a failure can be run again. */
function createRandom(seed: number): (bound: number) => number {
  let state = seed
  return (bound) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor((state / 2 ** 32) * bound)
  }
}

/** Random transactions: inserts, updates, key moves, deletes; savepoints rolled back; some rolled back whole. Conflicts end one early. */
async function write(url: string, seed: number): Promise<void> {
  const random = createRandom(seed)
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    for (let count = 0; count < TRANSACTIONS; count++) {
      await client.query('BEGIN')
      try {
        for (let statement = random(4); statement >= 0; statement--) {
          const [key, other] = [random(KEYS), random(KEYS)]
          const isTentative = random(4) === 0
          if (isTentative) await client.query('SAVEPOINT s')
          switch (random(4)) {
            case 0:
              await client.query('DELETE FROM t WHERE id = $1', [key])
              break
            case 1:
              await client.query('UPDATE t SET id = $2 WHERE id = $1 AND NOT EXISTS (SELECT 1 FROM t WHERE id = $2)', [key, other])
              break
            default:
              await client.query('INSERT INTO t VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET v = excluded.v', [key, `${seed}/${count}/${statement}`])
          }
          if (isTentative && random(2) === 0) await client.query('ROLLBACK TO s')
        }
        await client.query(random(8) === 0 ? 'ROLLBACK' : 'COMMIT')
      } catch (error) {
        // Deadlocks and unique violations between the writers are part of the game.
        if (!(error instanceof pg.DatabaseError)) throw error
        await client.query('ROLLBACK')
      }
    }
  } finally {
    await client.end()
  }
}

/** Notes each change with the transaction that made it. */
function createChangeLog(): { readonly handler: ChangeHandler; readonly changes: Change[]; committedCount: () => number } {
  const changes: Change[] = []
  let xid = 0
  let commits = 0
  const handler: ChangeHandler = {
    begin: (_commitLsn, _time, id) => { xid = id },
    commit: () => { commits++ },
    relation: () => undefined,
    insert: (_oid, tuple) => { changes.push({ xid, before: null, after: cellsOf(tuple) }) },
    update: (_oid, oldKind, oldTuple, newTuple) => {
      const after = cellsOf(newTuple)
      changes.push({ xid, before: keyOf(oldKind === 'none' ? after : cellsOf(oldTuple)), after })
    },
    delete: (_oid, _oldKind, oldTuple) => { changes.push({ xid, before: keyOf(cellsOf(oldTuple)), after: null }) },
    truncate: () => undefined,
    type: () => undefined,
    origin: () => undefined,
    message: () => undefined,
  }
  return { handler, changes, committedCount: () => commits }
}

function keyOf(cells: readonly Cell[]): string {
  const [key] = cells
  if (typeof key !== 'string') throw new Error('a row without a key')
  return key
}

function isInRange(range: KeyRange, key: string): boolean {
  return (range.lower === null || Number(key) > Number(range.lower[0])) && (range.upper === null || Number(key) <= Number(range.upper[0]))
}

/** Copy and stream put together by the visibility rule of facts 10, each key by the snapshot of its chunk. */
function combine(chunks: readonly Chunk[], changes: readonly Change[]): Map<string, Cell | undefined> {
  const rows = new Map(chunks.flatMap((chunk) => chunk.rows.map((row) => [keyOf(row), row[1]] as const)))
  const isInCopy = (xid: number, key: string): boolean => {
    const chunk = chunks.find((candidate) => isInRange(candidate.range, key))
    if (chunk === undefined) throw new Error('the ranges do not cover everything')
    return isVisible(chunk.snapshot, widenXid(xid, chunk.snapshot.xmax))
  }
  for (const { xid, before, after } of changes) {
    if (before !== null && !isInCopy(xid, before)) rows.delete(before)
    if (after !== null && !isInCopy(xid, keyOf(after))) rows.set(keyOf(after), after[1])
  }
  return rows
}

describe.each(testServers())('copy and stream of $name', ({ url: serverUrl }) => {
  let source: SourceDatabase
  beforeAll(async () => { source = await SourceDatabase.create(serverUrl) })
  afterAll(async () => { await source.drop() })

  it.each([1, 2, 3])('make the table exactly, while three writers change it (seed %i)', async (seed) => {
    const connections = new CopyConnections(source.credentials)
    const session = await connect(source.credentials)
    const log = createChangeLog()
    const slot = await source.createSlot()
    await source.client.query(`TRUNCATE t; INSERT INTO t SELECT n, 'first' FROM generate_series(1, ${KEYS}, 2) n`)
    const stream = await openReplicationStream(source.credentials, { ...slot, publicationName: 'p', handler: log.handler, stagingFolder: null, onKeepalive: () => undefined })
    const writing = Promise.all(Array.from({ length: WRITERS }, (_writer, index) => write(source.url, seed * 100 + index)))
    try {
      const { rows: oids } = await source.client.query<{ oid: number }>(`SELECT 't'::regclass::oid AS oid`)
      const [table] = await readTables(session, oids.map((row) => row.oid), null)
      if (table === undefined) throw new Error('no table')
      const known = { table, publicationName: 'p', hasColumnList: false }
      const plan = await planChunks(session, { ...known, targetRows: 20 })
      const ranges = plan.tag === 'plan' ? plan.ranges : []
      expect(ranges.length).toBeGreaterThan(3)
      const chunks: Chunk[] = []
      const half = Math.ceil(ranges.length / 2)
      await Promise.all([ranges.slice(0, half), ranges.slice(half)].map(async (mine) => {
        for (const range of mine) {
          const copy = await beginCopy(connections, { ...known, range, signal: new AbortController().signal })
          if (copy.tag === 'changed') throw new Error('the table has changed')
          const rows: Cell[][] = []
          // Writers go on between snapshot and COPY.
          await new Promise((resolve) => setTimeout(resolve, 15))
          await copy.rows((tuple) => { rows.push(cellsOf(tuple)); return undefined })
          await copy.close()
          chunks.push({ range, snapshot: copy.snapshot, rows })
        }
      }))
      await writing
      await source.client.query(`INSERT INTO t VALUES (${KEYS + 1}, 'last')`)
      await waitFor('the last change', () => log.changes.some((change) => change.after?.[1] === 'last'))
      const { rows: expected } = await source.client.query<{ id: string; v: string }>('SELECT id::text, v FROM t')
      const combined = combine(chunks, log.changes)
      expect([...combined].sort()).toEqual(expected.map((row) => [row.id, row.v]).sort())
      // The rule had something to decide.
      const snapshots = chunks.map((chunk) => chunk.snapshot)
      expect(log.changes.some(({ xid }) => snapshots.some((snapshot) => isVisible(snapshot, BigInt(xid))))).toBe(true)
      expect(log.changes.some(({ xid }) => snapshots.some((snapshot) => !isVisible(snapshot, BigInt(xid))))).toBe(true)
    } finally {
      await stream.close()
      await session.end()
      await connections.close()
    }
  })
})
