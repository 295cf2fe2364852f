import { afterAll, beforeAll, expect, inject, it } from 'vitest'
import type { Destination } from '../../../src/model/destination.ts'
import type { TablesOrder } from '../../../src/model/replication.ts'
import { differences, specOf, TestPipeline } from '../../support/pipeline.ts'
import { createDatabase } from '../../support/servers.ts'

let database: Awaited<ReturnType<typeof createDatabase>>

beforeAll(async () => {
  database = await createDatabase(inject('postgresUrl'))
})

afterAll(async () => {
  await database.drop()
})

/** Everything that an order, or the copy after it, commits. Before a claim the publication has been changed already. */
const COMMITS: readonly (keyof Destination)[] = [
  ...(['claim', 'register', 'removeTables', 'saveTables', 'prepareCopy'] as const),
  ...(['applyChunk', 'swapCopy', 'applyBatch', 'saveCheckpoint'] as const),
]

class Killed extends Error {}

/** Lets the process die at one commit: before it, or after it and before anybody knows. */
class Killer {
  #left = -1
  #isAfter = false
  #isDone = true
  /** What it died at. */
  readonly victims: string[] = []

  /** The commit with this number from now on is the last one. */
  arm(index: number, isAfter: boolean): void {
    this.#left = index
    this.#isAfter = isAfter
    this.#isDone = false
  }

  /** True where it has not died: there are no more commits than that. */
  disarm(): boolean {
    const wasLeft = !this.#isDone
    this.#isDone = true
    return wasLeft
  }

  around(destination: Destination): Destination {
    return new Proxy(destination, {
      get: (target, name: keyof Destination) => {
        const member: unknown = Reflect.get(target, name, target)
        if (typeof member !== 'function') return member
        const call = async (...given: unknown[]): Promise<unknown> => {
          const isLast = !this.#isDone && this.#left-- === 0
          if (isLast && !this.#isAfter) this.#die(name)
          const result: unknown = await Reflect.apply(member, target, given)
          if (isLast) this.#die(name)
          return result
        }
        return COMMITS.includes(name) ? call : (...given: unknown[]): unknown => Reflect.apply(member, target, given)
      },
    })
  }

  #die(name: string): never {
    this.#isDone = true
    this.victims.push(`${this.#isAfter ? 'after' : 'before'} ${name}`)
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

it('adds, copies anew and removes tables as if nobody had been killed, wherever somebody was; nothing is left over', { timeout: 600_000 }, async () => {
  const killer = new Killer()
  await using pipeline = new TestPipeline(database.url, specOf({ slotName: 'order_kill', schemaName: 'order_kill', tableNames: ['a'] }), { around: (destination) => killer.around(destination) })
  await pipeline.sql('CREATE SCHEMA order_kill; CREATE TABLE order_kill.a (id serial PRIMARY KEY, v int); CREATE TABLE order_kill.b (id serial PRIMARY KEY, v int)')
  await pipeline.sql('INSERT INTO order_kill.a (v) SELECT generate_series(1, 20); INSERT INTO order_kill.b (v) SELECT generate_series(1, 20)')
  await pipeline.initialize()
  await pipeline.catchUp()
  let round = 0
  const write = async (): Promise<void> => {
    round++
    const change = (table: string): string =>
      `INSERT INTO order_kill.${table} (v) VALUES (${String(round)}); UPDATE order_kill.${table} SET v = v + 1 WHERE id % 7 = ${String(round % 7)}; DELETE FROM order_kill.${table} WHERE id = ${String(round)}`
    await pipeline.sql(`BEGIN; ${change('a')}; ${change('b')}; COMMIT`)
  }
  /** Changes before, between and after; then the tables are as at the source. */
  const play = async (order: TablesOrder, tables: readonly string[]): Promise<void> => {
    await write()
    await survive(async () => pipeline.order(order))
    await write()
    await survive(async () => pipeline.catchUp())
    const { rows } = await pipeline.sql("SELECT tablename FROM pg_publication_tables WHERE pubname = 'order_kill_pub' ORDER BY 1")
    expect((rows as { tablename: string }[]).map(({ tablename }) => tablename)).toEqual(tables)
  }
  for (const isAfter of [false, true]) {
    for (let index = 0, isOver = false; !isOver; index++) {
      const ends: boolean[] = []
      const killed = async (order: TablesOrder, tables: readonly string[]): Promise<void> => {
        killer.arm(index, isAfter)
        await play(order, tables)
        ends.push(killer.disarm())
      }
      await killed({ tag: 'add', tableNames: ['b'] }, ['a', 'b'])
      await killed({ tag: 'resync', tableNames: ['a', 'b'] }, ['a', 'b'])
      for (const table of ['a', 'b']) {
        const difference = differences(await pipeline.destinationRows(table, 'order_kill'), await pipeline.sourceRows(table, 'order_kill'))
        expect(difference, `${table}, ${String(killer.victims.slice(-2))}`).toEqual({ missing: [], extra: [] })
      }
      await killed({ tag: 'remove', tableNames: ['b'], dropDestination: index % 2 === 0 }, ['a'])
      const tables = await pipeline.query("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'order_kill' ORDER BY 1")
      expect(tables, String(killer.victims.at(-1))).toEqual(index % 2 === 0 ? [['a']] : [['a'], ['b']])
      isOver = ends.every(Boolean)
    }
  }
  expect([...new Set(killer.victims)]).toEqual(expect.arrayContaining(COMMITS.filter((name) => name !== 'saveCheckpoint').flatMap((name) => [`before ${name}`, `after ${name}`])))
  await pipeline.engine.drop({ source: 'shop', destination: 'warehouse', slotName: 'order_kill', publicationName: 'order_kill_pub', dropDestination: true }, pipeline.context())
})
