import fc from 'fast-check'
import { expect, inject, it } from 'vitest'
import { playSchemaScenario, type SchemaFigures, schemaRounds } from '../../support/schema-scenario.ts'
import { createDatabase } from '../../support/servers.ts'

/** `SCHEMA_SECONDS` is how long it tries (long mode: 1800), `SCHEMA_SEED` where it begins. */
const SECONDS = Number(process.env['SCHEMA_SECONDS'] ?? '20')
const SEED = Number(process.env['SCHEMA_SEED'] ?? (process.env['SCHEMA_SECONDS'] === undefined ? '4' : String(Date.now() % 2 ** 31)))
/** How long a failing scenario is made smaller. */
const SHRINK_SECONDS = 60

it('is what a fresh copy would be, after random DDL among random DML, restarts among them', { timeout: (SECONDS + SHRINK_SECONDS + 90) * 1_000 }, async () => {
  const figures: SchemaFigures = { scenarios: 0, rounds: 0, statements: 0, changes: 0, kills: 0, prefixes: 0 }
  let endMs = Date.now() + SECONDS * 1_000
  let hasFailed = false
  await fc.assert(
    fc.asyncProperty(schemaRounds, async (rounds) => {
      if (Date.now() > endMs) return
      const database = await createDatabase(inject('postgresUrl'))
      try {
        await playSchemaScenario(database.url, rounds, figures)
      } catch (error) {
        if (!hasFailed) endMs = Date.now() + SHRINK_SECONDS * 1_000
        hasFailed = true
        throw error
      } finally {
        await database.drop()
      }
    }),
    { seed: SEED, numRuns: SECONDS * 20 },
  )
  process.stderr.write(`schema changes, seed ${String(SEED)}: ${JSON.stringify(figures)}\n`)
  expect(figures.scenarios).toBeGreaterThan(0)
})
