import { afterAll, beforeAll, expect, inject, it } from 'vitest'
import type { Destination } from '../../../src/model/destination.ts'
import { DomainError } from '../../../src/model/errors.ts'
import type { ReplicationSpec } from '../../../src/model/spec.ts'
import type { TableState } from '../../../src/model/status.ts'
import { differences, specOf, TestPipeline, type TestPipelineOptions } from '../../support/pipeline.ts'
import { createDatabase } from '../../support/servers.ts'

let database: Awaited<ReturnType<typeof createDatabase>>

beforeAll(async () => {
  database = await createDatabase(inject('postgresUrl'))
})

afterAll(async () => {
  await database.drop()
})

type Given = Partial<ReplicationSpec> & { readonly tableNames: readonly string[] | null }

/** A pipeline with a schema of its own, called like its slot, in which `tables` stand: `name: definition`. */
async function pipelineOf(slotName: string, tables: Readonly<Record<string, string>>, given: Given, options: TestPipelineOptions = {}): Promise<TestPipeline> {
  const pipeline = new TestPipeline(database.url, specOf({ slotName, schemaName: slotName, ...given }), options)
  await pipeline.sql(`CREATE SCHEMA ${slotName}; ${Object.entries(tables).map(([name, columns]) => `CREATE TABLE ${slotName}.${name} (${columns})`).join('; ')}`)
  return pipeline
}

async function dropped(pipeline: TestPipeline): Promise<void> {
  const { slotName, publicationName } = pipeline.spec
  await pipeline.engine.drop({ source: 'shop', destination: 'warehouse', slotName, publicationName, dropDestination: true }, pipeline.context())
}

async function members(pipeline: TestPipeline): Promise<readonly string[]> {
  const { rows } = await pipeline.sql('SELECT tablename FROM pg_publication_tables WHERE pubname = $1 ORDER BY 1', [pipeline.spec.publicationName])
  return (rows as { tablename: string }[]).map(({ tablename }) => tablename)
}

async function requireEqual(pipeline: TestPipeline, ...tables: readonly string[]): Promise<void> {
  const { schemaName } = pipeline.spec
  for (const table of tables) {
    expect(differences(await pipeline.destinationRows(table, schemaName), await pipeline.sourceRows(table, schemaName)), table).toEqual({ missing: [], extra: [] })
  }
}

function statesOf(result: { readonly tables: Readonly<Record<string, { readonly state: TableState }>> }): Record<string, TableState> {
  return Object.fromEntries(Object.entries(result.tables).map(([name, { state }]) => [name.slice(name.indexOf('.') + 1), state]))
}

it('adds a table beside the one that goes on, with what an open transaction wrote before it was published', { timeout: 120_000 }, async () => {
  await using pipeline = await pipelineOf('order_add', { a: 'id int PRIMARY KEY', b: 'id int PRIMARY KEY, secret text, note text' }, { tableNames: ['a'] })
  await pipeline.sql(`INSERT INTO order_add.a SELECT generate_series(1, 10); INSERT INTO order_add.b SELECT g, 's', 'n' FROM generate_series(1, 10) g`)
  await pipeline.initialize()
  await pipeline.catchUp()
  const writer = await pipeline.source.connect()
  await writer.query(`BEGIN; INSERT INTO order_add.b VALUES (11, 's', 'before it was published'); INSERT INTO order_add.a VALUES (11)`)
  const result = await pipeline.order({ tag: 'add', tableNames: ['b'] })
  expect(statesOf(result)).toEqual({ a: 'streaming', b: 'pending' })
  expect(await members(pipeline)).toEqual(['a', 'b'])
  await writer.query(`INSERT INTO order_add.b VALUES (12, 's', 'after it')`)
  // Commits while the copy waits for it.
  const caughtUp = pipeline.catchUp()
  await writer.query('COMMIT')
  writer.release()
  await caughtUp
  await pipeline.sql('UPDATE order_add.b SET note = note || id; DELETE FROM order_add.b WHERE id = 3; DELETE FROM order_add.a WHERE id = 3')
  await pipeline.catchUp()
  await requireEqual(pipeline, 'a', 'b')
  // The input that it was started with keeps it.
  const { progress } = await pipeline.initialize()
  expect(statesOf(progress)).toEqual({ a: 'streaming', b: 'streaming' })
  await dropped(pipeline)
})

it('refuses what init would refuse, and changes nothing', { timeout: 120_000 }, async () => {
  await using pipeline = await pipelineOf('order_refuse', { a: 'id int PRIMARY KEY', orders: 'id int PRIMARY KEY', nokey: 'id int' }, { tableNames: ['a'] })
  await pipeline.sql('CREATE VIEW order_refuse.v AS SELECT 1')
  await pipeline.initialize()
  await pipeline.catchUp()
  const add = async (...tableNames: string[]) => pipeline.order({ tag: 'add', tableNames })
  await expect(add('ordres')).rejects.toMatchObject({ kind: 'InvalidInput', remedy: 'Did you mean "order_refuse.orders"?' })
  await expect(add('orders', 'nokey')).rejects.toMatchObject({ kind: 'TableNotReplicable' })
  await expect(add('orders', 'v')).rejects.toMatchObject({ kind: 'TableNotReplicable' })
  await expect(pipeline.order({ tag: 'remove', tableNames: ['b'], dropDestination: false })).rejects.toMatchObject({ kind: 'InvalidInput', remedy: 'Did you mean "order_refuse.a"?' })
  await expect(pipeline.order({ tag: 'resync', tableNames: ['orders'] })).rejects.toMatchObject({ kind: 'InvalidInput' })
  expect(await members(pipeline)).toEqual(['a'])
  const before = await pipeline.query('SELECT epoch FROM _replication.checkpoints')
  await pipeline.write('CREATE SCHEMA IF NOT EXISTS order_refuse; CREATE TABLE order_refuse.orders (mine int)')
  await expect(add('orders')).rejects.toMatchObject({ kind: 'InvalidInput', message: expect.stringContaining('that no replication has filled') as string })
  expect(await members(pipeline)).toEqual(['a'])
  expect(await pipeline.query('SELECT epoch FROM _replication.checkpoints')).toEqual(before)
  // One that is replicated already is no mistake.
  expect(statesOf(await add('a'))).toEqual({ a: 'streaming' })
  await dropped(pipeline)
})

it('removes a table: its rows stay, with dropDestination they go; added again it is copied anew; a start with the same input keeps both', { timeout: 120_000 }, async () => {
  await using pipeline = await pipelineOf('order_remove', { a: 'id int PRIMARY KEY', b: 'id int PRIMARY KEY' }, { tableNames: ['a', 'b'], columns: { b: { id: { dataType: 'BIGINT' } } } })
  await pipeline.sql('INSERT INTO order_remove.a VALUES (1); INSERT INTO order_remove.b VALUES (1)')
  await pipeline.initialize()
  await pipeline.catchUp()
  const remove = async (dropDestination: boolean) => pipeline.order({ tag: 'remove', tableNames: ['b'], dropDestination })
  expect(statesOf(await remove(false))).toEqual({ a: 'streaming', b: 'removed' })
  expect(await members(pipeline)).toEqual(['a'])
  await pipeline.sql('INSERT INTO order_remove.a VALUES (2); INSERT INTO order_remove.b VALUES (2)')
  await pipeline.catchUp()
  expect(await pipeline.destinationRows('b', 'order_remove')).toEqual(['1'])
  // The same input, which names it in two places.
  expect(statesOf((await pipeline.initialize()).progress)).toEqual({ a: 'streaming' })
  expect(await members(pipeline)).toEqual(['a'])
  expect(statesOf((await pipeline.catchUp()).progress)).toEqual({ a: 'streaming', b: 'removed' })
  // Repeated after a crash.
  expect(statesOf(await remove(true))).toEqual({ a: 'streaming' })
  expect(statesOf(await remove(true))).toEqual({ a: 'streaming' })
  expect(await pipeline.query("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'order_remove' ORDER BY 1")).toEqual([['a']])
  expect(statesOf(await pipeline.order({ tag: 'add', tableNames: ['order_remove.b'] }))).toEqual({ a: 'streaming', b: 'pending' })
  await pipeline.sql('DELETE FROM order_remove.b WHERE id = 1')
  await pipeline.catchUp()
  await requireEqual(pipeline, 'a', 'b')
  expect(await pipeline.query("SELECT data_type FROM duckdb_columns() WHERE schema_name = 'order_remove' AND table_name = 'b' AND column_name = 'id'")).toEqual([['BIGINT']])
  // An input that means other tables is the newer word.
  await remove(false)
  pipeline.spec = { ...pipeline.spec, tableNames: ['b', 'a', 'b2'] }
  await pipeline.sql('CREATE TABLE order_remove.b2 (id int PRIMARY KEY)')
  expect(statesOf((await pipeline.initialize()).progress)).toEqual({ a: 'streaming', b: 'pending', b2: 'pending' })
  await pipeline.catchUp()
  await requireEqual(pipeline, 'a', 'b', 'b2')
  await dropped(pipeline)
})

it('copies a table anew beside the rows that readers see; a history gets no false change by it', { timeout: 120_000 }, async () => {
  await using pipeline = await pipelineOf('order_resync', { a: 'id int PRIMARY KEY, v int', h: 'id int PRIMARY KEY, v int' }, { tableNames: ['a', 'h'], writeMode: { h: ['append'] } })
  await pipeline.sql('INSERT INTO order_resync.a VALUES (1, 1), (2, 2); INSERT INTO order_resync.h VALUES (1, 1)')
  await pipeline.initialize()
  await pipeline.catchUp()
  await pipeline.sql('UPDATE order_resync.h SET v = 2')
  await pipeline.catchUp()
  // What nobody but a fresh copy mends.
  await pipeline.write('UPDATE order_resync.a SET v = 77')
  expect(statesOf(await pipeline.order({ tag: 'resync', tableNames: ['a', 'h'] }))).toEqual({ a: 'pending', h: 'pending' })
  expect(await pipeline.destinationRows('a', 'order_resync')).toEqual(['1 | 77', '2 | 77'])
  await pipeline.catchUp()
  await pipeline.sql('UPDATE order_resync.h SET v = 3')
  await pipeline.catchUp()
  await requireEqual(pipeline, 'a')
  // What the copy says again is no news.
  expect(await pipeline.query('SELECT _op, v FROM order_resync.h ORDER BY _lsn')).toEqual([['snapshot', 1], ['update', 2], ['update', 3]])
  await dropped(pipeline)
  expect(await pipeline.query("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'order_resync'")).toEqual([])
})

// Published as a whole since PostgreSQL 15.
it.runIf(inject('postgresMajor') >= 15)('lets a removed table of a whole schema stay out, through changes and starts, until it is added again', { timeout: 120_000 }, async () => {
  await using pipeline = await pipelineOf('order_schema', { a: 'id int PRIMARY KEY', b: 'id int PRIMARY KEY' }, { tableNames: null })
  await pipeline.sql('CREATE SCHEMA order_else; CREATE TABLE order_else.x (id int PRIMARY KEY)')
  await pipeline.initialize()
  await pipeline.catchUp()
  const removed = await pipeline.order({ tag: 'remove', tableNames: ['b'], dropDestination: true })
  expect(removed.warnings.join()).toContain('publishes their whole schema')
  await pipeline.sql('INSERT INTO order_schema.b VALUES (1); INSERT INTO order_schema.a VALUES (1); CREATE TABLE order_schema.c (id int PRIMARY KEY); INSERT INTO order_schema.c VALUES (1)')
  expect(statesOf((await pipeline.catchUp()).progress)).toEqual({ a: 'streaming', c: 'streaming' })
  await pipeline.release()
  expect(statesOf((await pipeline.initialize()).progress)).toEqual({ a: 'streaming', c: 'streaming' })
  await pipeline.order({ tag: 'add', tableNames: ['b', 'order_else.x'] })
  await pipeline.sql('INSERT INTO order_schema.b VALUES (2); INSERT INTO order_else.x VALUES (1)')
  await pipeline.catchUp()
  await requireEqual(pipeline, 'a', 'b', 'c')
  expect(await pipeline.destinationRows('x', 'order_else')).toEqual(['1'])
  await dropped(pipeline)
})

it('copies a table anew that was taken out of the publication while nothing ran, and is published again by a start', { timeout: 120_000 }, async () => {
  // It went on as if nothing had happened: what was written in between was in neither stream nor copy.
  await using pipeline = await pipelineOf('order_gap', { a: 'id int PRIMARY KEY' }, { tableNames: ['a'] })
  await pipeline.initialize()
  await pipeline.catchUp()
  await pipeline.release()
  await pipeline.sql('ALTER PUBLICATION order_gap_pub DROP TABLE order_gap.a')
  await pipeline.sql('INSERT INTO order_gap.a VALUES (1)')
  const { progress, warnings } = await pipeline.initialize()
  expect(statesOf(progress)).toEqual({ a: 'pending' })
  expect(warnings.join()).toContain('published again')
  await pipeline.catchUp()
  await requireEqual(pipeline, 'a')
  await dropped(pipeline)
})

it('takes other options with the next slice: a table that refused a schema change goes on with it', { timeout: 120_000 }, async () => {
  await using pipeline = await pipelineOf('order_options', { a: 'id int PRIMARY KEY' }, { tableNames: ['a'], schemaChanges: 'refuse' })
  await pipeline.initialize()
  await pipeline.catchUp()
  await pipeline.sql('ALTER TABLE order_options.a ADD v int; INSERT INTO order_options.a VALUES (1, 1)')
  expect((await pipeline.catchUp()).progress.tables['order_options.a']?.error?.type).toBe('SchemaChangeRefused')
  pipeline.spec = { ...pipeline.spec, schemaChanges: 'apply', flushSlot: false }
  await pipeline.engine.retryTables({ spec: pipeline.spec, owner: pipeline.owner, tableNames: null })
  expect(statesOf((await pipeline.catchUp()).progress)).toEqual({ a: 'streaming' })
  const position = async () => (await pipeline.sql("SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = 'order_options'")).rows as readonly unknown[]
  const held = await position()
  await pipeline.sql('INSERT INTO order_options.a VALUES (2, 2)')
  await pipeline.catchUp()
  expect(await position()).toEqual(held)
  // The session that runs with the former options is not gone on with.
  pipeline.spec = { ...pipeline.spec, flushSlot: true }
  await pipeline.sql('INSERT INTO order_options.a VALUES (3, 3)')
  await pipeline.catchUp()
  expect(await position()).not.toEqual(held)
  await requireEqual(pipeline, 'a')
  await dropped(pipeline)
})

/** Its first swap takes longer than it takes a slice to see that all is copied, and fails. */
/** `beside` runs while the swap is on its way to fail. */
function failingSwap(destination: Destination, state: { hasFailed: boolean; beside: () => Promise<unknown> }): Destination {
  return new Proxy(destination, {
    get: (target, name: keyof Destination) => {
      const member: unknown = Reflect.get(target, name, target)
      if (typeof member !== 'function') return member
      if (name !== 'swapCopy' || state.hasFailed) return (...given: unknown[]): unknown => Reflect.apply(member, target, given)
      return async () => {
        state.hasFailed = true
        await state.beside()
        await new Promise((resolve) => setTimeout(resolve, 1_500))
        throw new DomainError({ kind: 'DestinationFailed', message: 'the swap has failed', remedy: 'none: a test' })
      }
    },
  })
}

it('does not say that it is done where the swap of a copy fails at the very end', { timeout: 120_000 }, async () => {
  const state = { hasFailed: true, beside: async (): Promise<unknown> => Promise.resolve() }
  await using pipeline = await pipelineOf('order_swap', { a: 'id int PRIMARY KEY' }, { tableNames: ['a'] }, { around: (destination) => failingSwap(destination, state) })
  // The stream passes the copy's snapshot, so that the slice has nothing to wait for but the swap.
  state.beside = async () => pipeline.sql('CREATE TABLE order_swap.beside (id int)')
  await pipeline.sql('INSERT INTO order_swap.a SELECT generate_series(1, 5)')
  await pipeline.initialize()
  await pipeline.catchUp()
  await pipeline.order({ tag: 'resync', tableNames: ['a'] })
  state.hasFailed = false
  await expect(pipeline.catchUp()).rejects.toThrow('the swap has failed')
  await pipeline.catchUp()
  await requireEqual(pipeline, 'a')
  await dropped(pipeline)
})
