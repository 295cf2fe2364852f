import { afterAll, beforeAll, expect, inject, it } from 'vitest'
import type { TablesOrder } from '../../../src/model/replication.ts'
import { COMMITS, CommitKiller, survive } from '../../support/commit-killer.ts'
import { differences, specOf, TestPipeline } from '../../support/pipeline.ts'
import { createDatabase } from '../../support/servers.ts'

let database: Awaited<ReturnType<typeof createDatabase>>

beforeAll(async () => {
  database = await createDatabase(inject('postgresUrl'))
})

afterAll(async () => {
  await database.drop()
})

it('adds, copies anew and removes tables as if nobody had been killed, wherever somebody was; nothing is left over', { timeout: 600_000 }, async () => {
  const killer = new CommitKiller()
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
