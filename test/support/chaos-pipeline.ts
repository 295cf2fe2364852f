import { setTimeout as sleep } from 'node:timers/promises'
import fc from 'fast-check'
import type pg from 'pg'
import { expect } from 'vitest'
import type { ReplicationInput } from '../../src/model/spec.ts'
import { appendRows, destinationRows, differences, doubledChanges, foldAppendRows, NO_DIFFERENCES, type Query, sourceRows } from './comparison.ts'
import { type Burst, burst, RANDOM_TABLES, runBurst } from './random-operations.ts'
import { sourcePool } from './source-pool.ts'
import { randomNumbers } from './worker-harness.ts'

/** Which of the random tables a chaos pipeline has: a key and out-of-line values; whole rows as identity. */
const TABLES = [0, 2] as const
/** Writers pause this long between two bursts: the machine has two cores, and the worker under test shall have one. */
const WRITER_PAUSE_MS = 100

/**
 * Tables of one replication, in a schema of their own, and writers that go on until they are told to stop.
 *
 * Table `counters` is only ever counted up, by one: in an append table each key must show every number from its first to its last, once.
 */
export class ChaosPipeline {
  readonly schema: string
  readonly mode: 'merge' | 'append'
  readonly #pool: pg.Pool
  readonly #counterRows: number
  #isWriting = false
  #writers: Promise<unknown> = Promise.resolve()
  /** Statements that committed. */
  writes = 0

  constructor(options: { readonly url: string; readonly schema: string; readonly mode: 'merge' | 'append'; readonly counterRows: number }) {
    this.schema = options.schema
    this.mode = options.mode
    this.#counterRows = options.counterRows
    this.#pool = sourcePool({ connectionString: options.url, max: 5, options: `-c search_path=${options.schema}` })
  }

  get slotName(): string {
    return `${this.schema}_slot`
  }

  get input(): ReplicationInput {
    return { slotName: this.slotName, publicationName: `${this.schema}_publication`, schemaName: this.schema, tableNames: this.#tableNames, writeMode: this.mode }
  }

  get #tableNames(): readonly string[] {
    return [...TABLES.flatMap((index) => RANDOM_TABLES[index]?.name ?? []), 'counters']
  }

  async create(): Promise<void> {
    await this.#pool.query(`CREATE SCHEMA ${this.schema}`)
    for (const index of TABLES) await this.#pool.query(RANDOM_TABLES[index]?.ddl ?? '')
    await this.#pool.query(`CREATE TABLE counters (id int PRIMARY KEY, v int NOT NULL, pad text NOT NULL);
      INSERT INTO counters SELECT g, 0, md5(g::text) FROM generate_series(1, ${String(this.#counterRows)}) g`)
  }

  startWriters(seed: number): void {
    this.#isWriting = true
    this.#writers = Promise.all([this.#writeRandomly(seed), this.#count(seed + 1), this.#count(seed + 2)])
  }

  async stopWriters(): Promise<void> {
    this.#isWriting = false
    await this.#writers
  }

  /** Ends what {@link startWriters} began, and the connections. Idempotent. */
  async close(): Promise<void> {
    await this.stopWriters()
    await this.#pool.end()
  }

  async #writeRandomly(seed: number): Promise<void> {
    // A table's shape stays: a reload that a new column brings about is another test's.
    const bursts: readonly Burst[] = fc.sample(burst(TABLES.map((index) => ({ index, hasDefaults: false })), { writers: 2, transactions: 4 }), { seed, numRuns: 200 })
    for (let place = 0; this.#isWriting; place++) {
      const writers = (bursts[place % bursts.length] ?? []).map((transactions) =>
        transactions.map((transaction) => ({ ...transaction, statements: transaction.statements.filter(({ kind }) => kind !== 'addColumn' && kind !== 'useColumn') })),
      )
      const tally = new Map<string, number>()
      await runBurst(this.#pool, writers, tally)
      for (const count of tally.values()) this.writes += count
      await sleep(WRITER_PAUSE_MS)
    }
  }

  async #count(seed: number): Promise<void> {
    const random = randomNumbers(seed)
    let next = this.#counterRows + seed * 1_000_000
    while (this.#isWriting) {
      const ids = Array.from({ length: 4 }, () => 1 + Math.floor(random() * this.#counterRows))
      const hot = 1 + Math.floor(random() * 20)
      // In one order, so that two of them never wait for each other.
      const { rowCount } = await this.#pool.query('UPDATE counters SET v = v + 1 WHERE id IN (SELECT id FROM counters WHERE id = ANY ($1) ORDER BY id FOR UPDATE)', [[hot, next - 1, ...ids]])
      await this.#pool.query("INSERT INTO counters VALUES ($1, 0, 'later')", [next++])
      this.writes += (rowCount ?? 0) + 1
      await sleep(WRITER_PAUSE_MS)
    }
  }

  /** Row-by-row equality; in append mode also each change exactly once. Nobody writes, and the file is nobody's. */
  async expectEqual(query: Query): Promise<void> {
    const client = await this.#pool.connect()
    try {
      for (const name of this.#tableNames) {
        const source = await sourceRows(client, name, this.schema)
        if (this.mode === 'merge') {
          expect(differences(await destinationRows(query, name, this.schema), source), `${this.schema}.${name}`).toEqual(NO_DIFFERENCES)
          continue
        }
        const rows = await appendRows(query, name, this.schema)
        const key = RANDOM_TABLES.find((table) => table.name === name)?.key ?? ['id']
        expect(doubledChanges(rows, key), `doubled changes of ${this.schema}.${name}`).toEqual([])
        expect(differences(name === 'counters' ? await lastCounts(query, this.schema) : foldAppendRows(rows, key), source), `${this.schema}.${name}, folded`).toEqual(NO_DIFFERENCES)
      }
      if (this.mode === 'append') expect(await brokenCounts(query, this.schema), `counts of ${this.schema}.counters`).toEqual([])
    } finally {
      client.release()
    }
  }
}

/** The newest row of each counter. */
async function lastCounts(query: Query, schema: string): Promise<string[]> {
  const rows = await query(`SELECT id || ' | ' || pad || ' | ' || v FROM ${schema}.counters QUALIFY row_number() OVER (PARTITION BY id ORDER BY _lsn DESC, _seq DESC) = 1`)
  return rows.map(([text]) => String(text)).sort()
}

/** Counters that leave a number out, or have one twice, or do not come in their order. */
async function brokenCounts(query: Query, schema: string): Promise<unknown[][]> {
  return query(`SELECT * FROM (SELECT id, v, _op, lag(v) OVER (PARTITION BY id ORDER BY _lsn, _seq) AS before FROM ${schema}.counters)
    WHERE (before IS NULL AND _op = 'update') OR (before IS NOT NULL AND v <> before + 1) LIMIT 5`)
}
