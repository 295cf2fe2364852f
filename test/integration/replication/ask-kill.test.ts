import { afterAll, beforeAll, expect, inject, it } from 'vitest'
import { CommitKiller, survive } from '../../support/commit-killer.ts'
import { differences, specOf, TestPipeline } from '../../support/pipeline.ts'
import { createDatabase } from '../../support/servers.ts'

/** `KILLS=all` (long mode): before and after each of the commits; else before or after. */
const HAS_ALL = process.env['KILLS'] === 'all'
const COMMITS = ['claim', 'saveTables', 'applyBatch', 'prepareCopies', 'applyChunks', 'swapCopy']
const WANTED = HAS_ALL ? COMMITS.flatMap((name) => [`before ${name}`, `after ${name}`]) : COMMITS
const MAX_ROUNDS = 80

let database: Awaited<ReturnType<typeof createDatabase>>

beforeAll(async () => {
  database = await createDatabase(inject('postgresUrl'))
})

afterAll(async () => {
  await database.drop()
})

it('stops tables at their changes and makes what is approved exactly once, whichever commit was the last before a kill', { timeout: HAS_ALL ? 3_600_000 : 600_000 }, async () => {
  const killer = new CommitKiller()
  await using pipeline = new TestPipeline(
    database.url,
    specOf({ slotName: 'ask_kill', schemaName: 'ask_kill', tableNames: ['altered', 'copied'], schemaChanges: 'ask' }),
    { around: (destination) => killer.around(destination) },
  )
  await pipeline.sql('CREATE SCHEMA ask_kill; CREATE TABLE ask_kill.altered (id serial PRIMARY KEY, v int); CREATE TABLE ask_kill.copied (id serial PRIMARY KEY, v int)')
  await pipeline.sql('INSERT INTO ask_kill.altered (v) SELECT generate_series(1, 20); INSERT INTO ask_kill.copied (v) SELECT generate_series(1, 20)')
  await pipeline.initialize()
  await pipeline.catchUp()
  let round = 0
  const write = async (): Promise<void> => {
    const change = (table: string): string => `INSERT INTO ask_kill.${table} (v) VALUES (${String(round)}); UPDATE ask_kill.${table} SET v = 7 WHERE id % 5 = ${String(round % 5)}`
    await pipeline.sql(`BEGIN; ${change('altered')}; ${change('copied')}; COMMIT`)
  }
  const seen = (): ReadonlySet<string> => new Set(killer.victims.map((victim) => (HAS_ALL ? victim : (victim.split(' ')[1] ?? ''))))
  const missing = (): readonly string[] => WANTED.filter((victim) => !seen().has(victim))
  // How many commits there are, and in which order they come, is the machine's choice.
  let last: number | null = null
  for (let index = 0, pass = 0; missing().length > 0 && round < MAX_ROUNDS; index++) {
    if (last !== null && index > last) {
      index = 0
      pass++
    }
    round++
    const ends: boolean[] = []
    const killed = async (work: () => Promise<unknown>): Promise<void> => {
      killer.arm(index, (index + ends.length + pass) % 2 === 1)
      await survive(work)
      ends.push(killer.disarm())
    }
    await write()
    await pipeline.sql(`ALTER TABLE ask_kill.altered ADD COLUMN c${String(round)} int DEFAULT ${String(round)}; ALTER TABLE ask_kill.copied ALTER v TYPE ${round % 2 === 0 ? 'int' : 'bigint'}`)
    await write()
    const states = async (): Promise<readonly string[]> => Object.values((await pipeline.catchUp()).progress.tables).map(({ state }) => state)
    await killed(states)
    expect(await states(), String(killer.victims.at(-1))).toEqual(['failed', 'failed'])
    await write()
    await killed(async () => {
      for (const table of ['altered', 'copied']) await pipeline.order({ tag: 'approve', tableNames: [table] })
    })
    await killed(states)
    expect(await states(), String(killer.victims.slice(-2))).toEqual(['streaming', 'streaming'])
    for (const table of ['altered', 'copied']) {
      const difference = differences(await pipeline.destinationRows(table, 'ask_kill'), await pipeline.sourceRows(table, 'ask_kill'))
      expect(difference, `${table}, ${String(killer.victims.slice(-3))}`).toEqual({ missing: [], extra: [] })
    }
    if (ends.every(Boolean)) last = index
  }
  expect(missing()).toEqual([])
  await pipeline.engine.drop({ source: 'shop', destination: 'warehouse', slotName: 'ask_kill', publicationName: 'ask_kill_pub', dropDestination: true }, pipeline.context())
})
