import fc from 'fast-check'
import { afterAll, beforeAll, expect, inject, it } from 'vitest'
import { playScenario, scenario, type ScenarioFigures } from '../../support/random-scenario.ts'
import { createDatabase, type TestDatabase } from '../../support/servers.ts'

/**
 * `RANDOM_SECONDS` is how long it tries (long mode: 1800), `RANDOM_SEED` where it begins. A failure prints seed and path; concurrent writers
 * meet differently each time, so a failing scenario may need several runs.
 */
const SECONDS = Number(process.env['RANDOM_SECONDS'] ?? '25')
const SEED = Number(process.env['RANDOM_SEED'] ?? (process.env['RANDOM_SECONDS'] === undefined ? '20' : String(Date.now() % 2 ** 31)))
/** Where a failure was, as it printed it: that scenario alone is played. */
const PATH = process.env['RANDOM_PATH']
/** How long a failing scenario is made smaller. */
const SHRINK_SECONDS = 60

let database: TestDatabase

beforeAll(async () => {
  database = await createDatabase(inject('postgresUrl'))
})

afterAll(async () => {
  await database.drop()
})

it('is equal to the source, with no version or change that nobody made, after random operations, writers, restarts, disconnections, copies anew and kills', { timeout: (SECONDS + SHRINK_SECONDS + 600) * 1_000 }, async () => {
  const figures: ScenarioFigures = { scenarios: 0, rounds: 0, comparisons: 0, changes: 0, interruptions: 0, kills: 0, copies: 0, streamed: 0 }
  let endMs = Date.now() + SECONDS * 1_000
  let hasFailed = false
  await fc.assert(
    fc.asyncProperty(scenario, async (played) => {
      if (Date.now() > endMs) return
      try {
        await playScenario(database.url, played, figures)
      } catch (error) {
        if (!hasFailed) endMs = Date.now() + SHRINK_SECONDS * 1_000
        hasFailed = true
        throw error
      }
    }),
    { seed: SEED, numRuns: SECONDS * 20, ...(PATH === undefined ? {} : { path: PATH, endOnFailure: true }) },
  )
  process.stderr.write(`random operations, seed ${String(SEED)}: ${JSON.stringify(figures)}\n`)
  expect(figures.scenarios).toBeGreaterThan(0)
  expect(figures.streamed).toBeGreaterThan(0)
  expect(figures.kills).toBeGreaterThan(0)
  expect(figures.copies).toBeGreaterThan(0)
})
