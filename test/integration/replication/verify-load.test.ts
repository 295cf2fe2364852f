import { setTimeout as sleep } from 'node:timers/promises'
import fc from 'fast-check'
import { afterAll, beforeAll, expect, inject, it } from 'vitest'
import { acquireDatabase } from '../../../src/destinations/duckdb/database.ts'
import type { VerifiedTable, VerifyResult } from '../../../src/model/verification.ts'
import { differences, specOf, TestPipeline } from '../../support/pipeline.ts'
import { type Burst, burst, RANDOM_TABLES, runBurst } from '../../support/random-operations.ts'
import { createDatabase, type TestDatabase } from '../../support/servers.ts'

/** Verifications under write load (long mode: 200); `VERIFY_SEED` chooses the writers' work. */
const ROUNDS = Number(process.env['VERIFY_ROUNDS'] ?? '1')
const SEED = Number(process.env['VERIFY_SEED'] ?? '7')
/** Between two bursts of the writers: the machine has two cores, and what is looked at shall have one. */
const WRITER_PAUSE_MS = 300
/** The random tables have few rows, which are all written in each burst. */
const BURST_PAUSE_MS = 1_000
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

/** A pipeline that streams, as a running `replicate` does, with writers at work. */
class LoadedPipeline {
  readonly pipeline: TestPipeline
  #isOver = false
  #stream = new AbortController()
  #work: Promise<unknown> = Promise.resolve()
  interruptions = 0

  constructor() {
    this.pipeline = new TestPipeline(
      database.url,
      specOf({ slotName: 'v_load', tableNames: [...RANDOM_TABLES.map(({ name }) => name), 'calm'], writeMode: { numbers: ['merge', 'scd2'], coded: ['append'] } }),
    )
  }

  async begin(): Promise<void> {
    const { pipeline } = this
    for (const { ddl } of RANDOM_TABLES) await pipeline.sql(ddl)
    await pipeline.sql(`CREATE TABLE calm (id int PRIMARY KEY, v text); INSERT INTO calm SELECT g, 'v' || g FROM generate_series(1, ${String(CALM_ROWS)}) g`)
    await pipeline.initialize()
    await pipeline.copy()
    const bursts = fc.sample(burst(RANDOM_TABLES.map((_, index) => ({ index, hasDefaults: false })), { writers: 3, transactions: 5 }), { seed: SEED, numRuns: 300 })
    this.#work = Promise.all([this.#write(bursts), this.#count(), this.#streamOn()])
    this.#work.catch(() => undefined)
  }

  async end(): Promise<void> {
    this.#isOver = true
    this.#stream.abort()
    await this.#work
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

  /** Slices one after the other; now and then the session is gone, as with a worker that is killed. */
  async #streamOn(): Promise<void> {
    const { pipeline } = this
    while (!this.#isOver) {
      this.#stream = new AbortController()
      const timer = setTimeout(() => { this.#stream.abort() }, 3_000)
      await pipeline.engine.runSlice(
        { spec: pipeline.spec, mode: 'stream', tableNames: null, untilLsn: null, maxBusyMs: 60_000, maxIdleMs: 60_000 },
        { ...pipeline.context(), signal: this.#stream.signal },
      )
      clearTimeout(timer)
      if (this.interruptions++ % 2 === 0) await pipeline.engine.release({ spec: pipeline.spec, owner: pipeline.owner, keepClaim: true })
    }
  }

  async verify(repair: boolean): Promise<VerifyResult> {
    const { pipeline } = this
    return pipeline.engine.verify({ spec: pipeline.spec, repair, maxRowsPerSecond: null, progress: null, maxMs: 240_000 }, { ...pipeline.context(), owner: 'verifier', isWorkflowOpen: async () => Promise.resolve(true) })
  }

  /** Changes the destination while it is written. */
  async plant(sql: string): Promise<void> {
    const handle = await acquireDatabase({ path: this.pipeline.file })
    try {
      await handle.database.transaction(async (session) => session.run(sql))
    } finally {
      handle.release()
    }
  }
}

it('raises no false alarm beside a stream under write load, finds what is planted there, and repairs it exactly', { timeout: 600_000 + ROUNDS * 120_000 }, async () => {
  const loaded = new LoadedPipeline()
  const { pipeline } = loaded
  await loaded.begin()
  const startMs = performance.now()
  let compared = 0
  let undecided = 0
  try {
    for (let round = 0; round < ROUNDS; round++) {
      const { ended, progress } = await loaded.verify(round % 2 === 1)
      expect(ended).toBe('done')
      const tables: readonly VerifiedTable[] = Object.values(progress.tables)
      expect(tables.map(({ different }) => different), JSON.stringify(progress)).toEqual([0, 0, 0, 0, 0])
      expect(progress.notCompared).toEqual({})
      compared += tables.reduce((sum, table) => sum + table.compared, 0)
      undecided += progress.warnings.length
    }
    await loaded.plant(`UPDATE public.calm SET v = 'wrong' WHERE id = 11; DELETE FROM public.calm WHERE id IN (12, 13); INSERT INTO public.calm VALUES (-1, 'extra', 0); INSERT INTO public.calm SELECT * FROM public.calm WHERE id = 14`)
    const found = await loaded.verify(false)
    expect(found.progress.tables['public.calm']).toMatchObject({ different: 5, repaired: 0 })
    expect(found.progress.differences['public.calm']?.map(({ kind, key }) => `${kind} ${String(key?.[0])}`).sort()).toEqual(['changed 11', 'duplicated 14', 'extra -1', 'missing 12', 'missing 13'])
    expect((await loaded.verify(true)).progress.tables['public.calm']).toMatchObject({ different: 5, repaired: 5 })
    expect((await loaded.verify(false)).progress.tables['public.calm']).toMatchObject({ different: 0 })
    process.stderr.write(`verified ${String(ROUNDS)} times under load: ${String(compared)} rows, ${String(undecided)} warnings, ${String(loaded.interruptions)} interruptions, ${String(Math.round(performance.now() - startMs))} ms\n`)
  } finally {
    await loaded.end()
  }
  await pipeline.catchUp()
  for (const { name } of RANDOM_TABLES.filter(({ name: table }) => table !== 'coded')) expect(differences(await pipeline.destinationRows(name), await pipeline.sourceRows(name)), name).toEqual({ missing: [], extra: [] })
  expect(differences(await pipeline.destinationRows('calm'), await pipeline.sourceRows('calm'))).toEqual({ missing: [], extra: [] })
  await pipeline.engine.drop({ source: 'shop', destination: 'warehouse', slotName: 'v_load', publicationName: pipeline.spec.publicationName, dropDestination: true }, pipeline.context())
  await pipeline[Symbol.asyncDispose]()
})

