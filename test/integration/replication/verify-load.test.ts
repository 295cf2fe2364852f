import { setTimeout as sleep } from 'node:timers/promises'
import fc from 'fast-check'
import { afterAll, beforeAll, expect, inject, it } from 'vitest'
import { closeIdleDatabases } from '../../../src/destinations/duckdb/database.ts'
import type { VerifiedTable, VerifyProgress } from '../../../src/model/verification.ts'
import { EngineProcess, STREAMER } from '../../support/engine-process.ts'
import { differences, specOf, TestPipeline } from '../../support/pipeline.ts'
import { type Burst, burst, RANDOM_TABLES, runBurst } from '../../support/random-operations.ts'
import { createDatabase, type TestDatabase } from '../../support/servers.ts'
import { randomNumbers } from '../../support/worker-harness.ts'

/** Verifications under write load, every second one with a kill (long mode: 200); `VERIFY_SEED` chooses the writers' work. */
const ROUNDS = Number(process.env['VERIFY_ROUNDS'] ?? '1')
const SEED = Number(process.env['VERIFY_SEED'] ?? '7')
/** Between two bursts of the writers: the machine has two cores, and what is looked at shall have one. */
const WRITER_PAUSE_MS = 300
/** The random tables have few rows, which are all written in each burst. */
const BURST_PAUSE_MS = 1_000
/** So long a verification takes, with a process that has just begun: it is killed anywhere in it, or before it has begun. */
const KILL_WITHIN_MS = 4_000
/** What comes before the last end of one is not repeated after a kill. */
const VERIFY_SLICE_MS = 100
const CALM_ROWS = 3_000
/** Rows below are left alone by the writers. */
const CALM_FROM = 1_500

let database: TestDatabase

beforeAll(async () => {
  database = await createDatabase(inject('postgresUrl'))
})

afterAll(async () => {
  await database.drop()
})

/** A pipeline that streams in a process of its own, as a running `replicate` does, with writers at work. */
class LoadedPipeline {
  readonly pipeline: TestPipeline
  readonly #engine: EngineProcess
  readonly #random = randomNumbers(SEED)
  #isOver = false
  #work: Promise<unknown> = Promise.resolve()
  kills = 0

  constructor() {
    this.pipeline = new TestPipeline(
      database.url,
      specOf({ slotName: 'v_load', tableNames: [...RANDOM_TABLES.map(({ name }) => name), 'calm'], writeMode: { numbers: ['merge', 'scd2'], coded: ['append'] } }),
    )
    this.#engine = new EngineProcess({ url: database.url, file: this.pipeline.file, spec: this.pipeline.spec })
  }

  async begin(): Promise<void> {
    const { pipeline } = this
    pipeline.owner = STREAMER
    for (const { ddl } of RANDOM_TABLES) await pipeline.sql(ddl)
    await pipeline.sql(`CREATE TABLE calm (id int PRIMARY KEY, v text); INSERT INTO calm SELECT g, 'v' || g FROM generate_series(1, ${String(CALM_ROWS)}) g`)
    await pipeline.initialize()
    await pipeline.copy()
    // The claim stays: who verifies beside it must not take it.
    await pipeline.engine.release({ spec: pipeline.spec, owner: pipeline.owner, keepClaim: true })
    await closeIdleDatabases()
    this.#engine.start()
    const bursts = fc.sample(burst(RANDOM_TABLES.map((_, index) => ({ index, hasDefaults: false })), { writers: 3, transactions: 5 }), { seed: SEED, numRuns: 300 })
    this.#work = Promise.all([this.#write(bursts), this.#count()])
    this.#work.catch(() => undefined)
  }

  async end(): Promise<void> {
    this.#isOver = true
    await this.#work
    await this.#engine.stop()
  }

  async #write(bursts: readonly Burst[]): Promise<void> {
    for (let place = 0; !this.#isOver; place++) {
      const writers = (bursts[place % bursts.length] ?? []).map((transactions) =>
        transactions.map((transaction) => ({ ...transaction, statements: transaction.statements.filter(({ kind }) => kind !== 'addColumn' && kind !== 'useColumn') })),
      )
      await runBurst(this.pipeline.source, writers, new Map())
      await sleep(BURST_PAUSE_MS)
    }
  }

  async #count(): Promise<void> {
    for (let value = 0; !this.#isOver; value++) {
      await this.pipeline.sql(`UPDATE calm SET v = 'w' || ${String(value)} WHERE id > ${String(CALM_FROM)} AND id % 50 = ${String(value % 50)}`)
      // One that is deleted and comes again as it was, and one that is never still.
      await this.pipeline.sql(`DELETE FROM calm WHERE id = ${String(CALM_ROWS)}`)
      await this.pipeline.sql(`INSERT INTO calm VALUES (${String(CALM_ROWS)}, 'again'); UPDATE calm SET v = 'x' || v WHERE id = ${String(CALM_ROWS - 1)} AND length(v) < 100`)
      await sleep(WRITER_PAUSE_MS)
    }
  }

  /** In short slices, as the workflow does with long ones; with `killWithinMs` the process is killed on the way, and the next one goes on where the last slice had ended. */
  async verify(repair: boolean, killWithinMs: number | null = null): Promise<VerifyProgress> {
    const killing = killWithinMs === null ? Promise.resolve() : this.#killIn(this.#random() * killWithinMs)
    const { progress } = await this.#engine.verifyToEnd({ repair, maxMs: VERIFY_SLICE_MS, killing })
    return progress
  }

  async #killIn(afterMs: number): Promise<void> {
    await this.#engine.killAfter(afterMs)
    this.kills += 1
  }

  /** Changes the destination while it is written. */
  async plant(sql: string): Promise<void> {
    await this.#engine.plant(sql)
  }
}

it('raises no false alarm beside a stream under write load, whose process is killed on the way, finds what is planted there, and repairs it exactly', { timeout: 600_000 + ROUNDS * 120_000 }, async () => {
  const loaded = new LoadedPipeline()
  const { pipeline } = loaded
  await loaded.begin()
  const startMs = performance.now()
  let compared = 0
  let undecided = 0
  try {
    for (let round = 0; round < ROUNDS; round++) {
      const progress = await loaded.verify(round % 2 === 1, round % 2 === 0 ? KILL_WITHIN_MS : null)
      const tables: readonly VerifiedTable[] = Object.values(progress.tables)
      expect(tables.map(({ different }) => different), JSON.stringify(progress)).toEqual([0, 0, 0, 0, 0])
      expect(progress.notCompared).toEqual({})
      compared += tables.reduce((sum, table) => sum + table.compared, 0)
      undecided += progress.warnings.length
    }
    await loaded.plant(`UPDATE public.calm SET v = 'wrong' WHERE id = 11; DELETE FROM public.calm WHERE id IN (12, 13); INSERT INTO public.calm VALUES (-1, 'extra', 0); INSERT INTO public.calm SELECT * FROM public.calm WHERE id = 14`)
    const found = await loaded.verify(false)
    expect(found.tables['public.calm']).toMatchObject({ different: 5, repaired: 0 })
    expect(found.differences['public.calm']?.map(({ kind, key }) => `${kind} ${String(key?.[0])}`).sort()).toEqual(['changed 11', 'duplicated 14', 'extra -1', 'missing 12', 'missing 13'])
    expect((await loaded.verify(true)).tables['public.calm']).toMatchObject({ different: 5, repaired: 5 })
    expect((await loaded.verify(false)).tables['public.calm']).toMatchObject({ different: 0 })
    process.stderr.write(`verified ${String(ROUNDS)} times under load: ${String(compared)} rows, ${String(undecided)} warnings, ${String(loaded.kills)} kills, ${String(Math.round(performance.now() - startMs))} ms\n`)
  } finally {
    await loaded.end()
  }
  await pipeline.catchUp()
  for (const { name } of RANDOM_TABLES.filter(({ name: table }) => table !== 'coded')) expect(differences(await pipeline.destinationRows(name), await pipeline.sourceRows(name)), name).toEqual({ missing: [], extra: [] })
  expect(differences(await pipeline.destinationRows('calm'), await pipeline.sourceRows('calm'))).toEqual({ missing: [], extra: [] })
  await pipeline.engine.drop({ source: 'shop', destination: 'warehouse', slotName: 'v_load', publicationName: pipeline.spec.publicationName, dropDestination: true }, pipeline.context())
  await pipeline[Symbol.asyncDispose]()
})

