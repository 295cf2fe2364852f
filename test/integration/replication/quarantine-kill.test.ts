import { afterAll, beforeAll, expect, inject, it } from 'vitest'
import type { Destination } from '../../../src/model/destination.ts'
import type { WriteMode } from '../../../src/model/spec.ts'
import { differences, specOf, TestPipeline } from '../../support/pipeline.ts'
import { createDatabase } from '../../support/servers.ts'
import { randomNumbers } from '../../support/worker-harness.ts'

/** `QUARANTINE_SEED` chooses operations and the moments of the kills. */
const SEED = Number(process.env['QUARANTINE_SEED'] ?? '1')
const ROUNDS = 18

let database: Awaited<ReturnType<typeof createDatabase>>

beforeAll(async () => {
  database = await createDatabase(inject('postgresUrl'))
})

afterAll(async () => {
  await database.drop()
})

/** Where a process may be killed: before a commit at the destination, or after it and before anybody knows. */
const COMMITS: readonly (keyof Destination)[] = ['applyBatch', 'saveTables', 'saveCheckpoint']

class Killed extends Error {}

/** Lets one in so many commits be the last thing that the process does. */
class Killer {
  isArmed = false
  kills = 0
  readonly #random: () => number

  constructor(random: () => number) {
    this.#random = random
  }

  around(destination: Destination): Destination {
    return new Proxy(destination, {
      get: (target, name: keyof Destination) => {
        const member: unknown = Reflect.get(target, name, target)
        if (typeof member !== 'function') return member
        const call = async (...given: unknown[]): Promise<unknown> => {
          const moment = this.isArmed ? this.#random() : 1
          if (moment < 0.12) this.#kill()
          const result: unknown = await Reflect.apply(member, target, given)
          if (moment < 0.24) this.#kill()
          return result
        }
        return COMMITS.includes(name) ? call : (...given: unknown[]): unknown => Reflect.apply(member, target, given)
      },
    })
  }

  #kill(): never {
    this.kills++
    throw new Killed()
  }
}

/** Runs it until it is not killed. */
async function survive<T>(work: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await work()
    } catch (error) {
      if (!(error instanceof Killed)) throw error
    }
  }
}

async function change(pipeline: TestPipeline, random: () => number): Promise<void> {
  const id = 1 + Math.floor(random() * 40)
  const pick = Math.floor(random() * 12)
  const statements: Record<number, string> = {
    0: `INSERT INTO @t VALUES (${String(id)}, 98765.4321, 'bad') ON CONFLICT DO NOTHING`,
    1: `UPDATE @t SET v = 55555.5 WHERE id = ${String(id)}`,
    2: `DELETE FROM @t WHERE id = ${String(id)}`,
    3: `UPDATE @t SET id = id + 100 WHERE id = ${String(id)} AND NOT EXISTS (SELECT FROM @t WHERE id = ${String(id + 100)})`,
    4: `UPDATE @t SET big = repeat('y${String(id)}', 2000) WHERE id = ${String(id)}`,
    5: `BEGIN; INSERT INTO @o VALUES (DEFAULT); UPDATE @t SET v = 2 WHERE id = ${String(id)}; INSERT INTO @o VALUES (DEFAULT); COMMIT`,
    6: pick === 6 && random() < 0.2 ? 'TRUNCATE @t' : 'INSERT INTO @o VALUES (DEFAULT)',
  }
  const statement = statements[pick] ?? `INSERT INTO @t VALUES (${String(id)}, ${String(id)}.25, repeat('x${String(id)}', 2000)) ON CONFLICT (id) DO UPDATE SET v = 3`
  await pipeline.sql(inSchema(pipeline, statement))
}

/** `@t` and `@o` are the replication's own tables. */
function inSchema(pipeline: TestPipeline, statement: string): string {
  return statement.replaceAll('@', `${pipeline.spec.schemaName}.`)
}

async function scenario(mode: WriteMode, rows: (pipeline: TestPipeline) => Promise<readonly unknown[]>): Promise<void> {
  const random = randomNumbers(SEED * 1000 + (mode === 'append' ? 1 : 2))
  // Of its own: how often it is asked is the machine's choice, the operations are not.
  const killer = new Killer(randomNumbers(SEED * 1000 + 3))
  const slotName = `qk_${mode}`
  const given = { slotName, tableNames: ['t', 'o'], schemaName: slotName, writeMode: mode, columns: { t: { v: { dataType: 'decimal', precision: 5, scale: 2 } } } }
  const { url } = database
  const pipeline = new TestPipeline(url, specOf(given), { around: (destination) => killer.around(destination) })
  const reference = new TestPipeline(url, specOf({ ...given, slotName: `${slotName}_ref`, columns: {} }))
  try {
    await pipeline.sql(inSchema(pipeline, `CREATE SCHEMA ${slotName}; CREATE TABLE @t (id int PRIMARY KEY, v numeric, big text); ALTER TABLE @t ALTER big SET STORAGE EXTERNAL; CREATE TABLE @o (id serial PRIMARY KEY)`))
    await pipeline.initialize()
    await pipeline.catchUp()
    await reference.initialize()
    await reference.catchUp()
    const states = new Set<string>()
    killer.isArmed = true
    for (let round = 0; round < ROUNDS; round++) {
      for (let count = 0; count < 8; count++) await change(pipeline, random)
      if (round % 3 === 2) {
        // Mended, as far as the mode lets it be; what stops the table has come before.
        await survive(async () => pipeline.catchUp())
        await pipeline.sql(inSchema(pipeline, 'UPDATE @t SET v = 1 WHERE v > 999'))
        await survive(async () => pipeline.engine.retryTables({ spec: pipeline.spec, owner: pipeline.owner, tableNames: null }))
      }
      const { progress } = await survive(async () => pipeline.catchUp())
      const state = progress.tables[`${slotName}.t`]?.state ?? 'none'
      states.add(state)
      if (mode === 'merge' && round % 3 === 2) expect(state, `round ${String(round)}`).toBe('streaming')
      if (mode === 'merge' && state === 'streaming') expect(differences(await pipeline.destinationRows('t', slotName), await pipeline.sourceRows('t', slotName))).toEqual({ missing: [], extra: [] })
    }
    expect([...states]).toContain('failed')
    expect(killer.kills).toBeGreaterThan(10)
    if (mode === 'append') {
      // Under no hint every version fits.
      await survive(async () => pipeline.release())
      pipeline.spec = { ...pipeline.spec, columns: {} }
      await survive(async () => pipeline.initialize())
    }
    await survive(async () => pipeline.engine.retryTables({ spec: pipeline.spec, owner: pipeline.owner, tableNames: null }))
    const { progress } = await survive(async () => pipeline.catchUp())
    killer.isArmed = false
    const own = progress.tables[`${slotName}.t`]
    expect(own?.state).toBe('streaming')
    const others = (await reference.catchUp()).progress.tables[`${slotName}.t`]
    expect(await rows(pipeline)).toEqual(await rows(reference))
    expect({ ...own, snapshotRows: 0 }).toEqual({ ...others, snapshotRows: 0 })
  } finally {
    killer.isArmed = false
    for (const one of [pipeline, reference]) {
      await one.engine.drop({ source: 'shop', destination: 'warehouse', slotName: one.spec.slotName, publicationName: one.spec.publicationName, dropDestination: true }, one.context())
      await one[Symbol.asyncDispose]()
    }
  }
}

it('holds each row once, after kills at any commit while changes are kept, applied and joined', async () => {
  await scenario('merge', async (pipeline) => pipeline.query('SELECT id, v::DOUBLE, md5(big), _lsn FROM qk_merge.t ORDER BY id'))
})

it('holds each change once and in its order, in a history that was stopped all the while', async () => {
  await scenario('append', async (pipeline) => pipeline.query('SELECT id, v::DOUBLE, md5(big), _op, _lsn, _seq FROM qk_append.t ORDER BY _lsn, _seq'))
})
