import fc from 'fast-check'
import { afterAll, beforeAll, expect, inject, it } from 'vitest'
import { NO_DIFFERENCES, differences } from '../../support/comparison.ts'
import { burst, type ChangeTally, RANDOM_TABLES, runBurst } from '../../support/random-operations.ts'
import { createDatabase, type TestDatabase } from '../../support/servers.ts'
import { XminPipeline } from '../../support/xmin.ts'

/** As of `random.test.ts`. */
const SECONDS = Number(process.env['RANDOM_SECONDS'] ?? '20')
const SEED = Number(process.env['RANDOM_SEED'] ?? '40')

/** Tables with a key. */
const TABLES = RANDOM_TABLES.map((table, index) => ({ index, hasDefaults: true, name: table.name, key: table.key })).filter(({ key }) => key.length > 0)

let database: TestDatabase

beforeAll(async () => {
  database = await createDatabase(inject('postgresUrl'))
})

afterAll(async () => {
  await database.drop()
})

const rounds = fc.array(
  fc.record({
    writers: burst(TABLES, { writers: 3, transactions: 4 }),
    isBeside: fc.boolean(),
    killedAt: fc.oneof({ arbitrary: fc.constant(null), weight: 2 }, { arbitrary: fc.nat(6), weight: 1 }),
  }),
  { minLength: 1, maxLength: 4 },
)

it('what xmin has read is what a slot has brought, after random operations, open transactions and kills', { timeout: (SECONDS + 120) * 1_000 }, async () => {
  const endMs = Date.now() + SECONDS * 1_000
  let played = 0
  await fc.assert(
    fc.asyncProperty(rounds, async (scenario) => {
      if (Date.now() > endMs) return
      played += 1
      await play(scenario, `xmin_random_${String(played)}`)
    }),
    { seed: SEED, numRuns: SECONDS * 20 },
  )
  expect(played).toBeGreaterThan(0)
})

type Rounds = typeof rounds extends fc.Arbitrary<infer T> ? T : never

async function play(scenario: Rounds, name: string): Promise<void> {
  let killAt = -1
  const tally: ChangeTally = new Map()
  const tableNames = TABLES.map((table) => table.name)
  await using pipeline = new XminPipeline(database.url, { tableNames, datasetName: 'by_xmin', deletes: 'compare', targetBatchSize: 5 }, {
    around: (destination) =>
      new Proxy(destination, {
        get(_, property) {
          const value: unknown = Reflect.get(destination, property)
          if (typeof value !== 'function') return value
          const call = value.bind(destination) as (...given: unknown[]) => unknown
          if (!['applyChunks', 'saveTables', 'applyKeys', 'prepareCopies'].includes(String(property))) return call
          return async (...given: unknown[]) => {
            const isKilled = killAt-- === 0
            const result = await (call(...given) as Promise<unknown>)
            if (isKilled) throw new Error('killed')
            return result
          }
        },
      }),
  })
  pipeline.spec = { ...pipeline.spec, slotName: name, publicationName: name, datasetName: 'by_slot' }
  for (const table of TABLES) await pipeline.sql(`DROP TABLE IF EXISTS ${table.name}; ${RANDOM_TABLES[table.index]?.ddl ?? ''}`)
  await pipeline.initialize()
  for (const { writers, isBeside, killedAt } of scenario) {
    const writing = runBurst(pipeline.source, writers, tally)
    if (!isBeside) await writing
    killAt = killedAt ?? -1
    await pipeline.sync().catch((error: unknown) => {
      if (!(error instanceof Error) || error.message !== 'killed') throw error
    })
    await writing
  }
  killAt = -1
  await pipeline.sync()
  await pipeline.catchUp()
  for (const table of TABLES) {
    const bySlot = await pipeline.destinationRows(table.name, 'by_slot')
    expect(differences(await pipeline.destinationRows(table.name, 'by_xmin'), bySlot), `${table.name} of a copy through a slot`).toEqual(NO_DIFFERENCES)
  }
  await pipeline.engine.drop({ source: 'shop', destination: 'warehouse', slotName: name, publicationName: name, dropDestination: true }, pipeline.context())
}
