import { afterAll, beforeAll, expect, inject, it } from 'vitest'
import { TestPipeline, specOf } from '../../support/pipeline.ts'
import { createDatabase, type TestDatabase } from '../../support/servers.ts'

let database: TestDatabase

beforeAll(async () => {
  database = await createDatabase(inject('postgresUrl'))
})

afterAll(async () => {
  await database.drop()
})

it('copies the tables that are named, however they are spelled, and refuses a name that is none', async () => {
  await using pipeline = new TestPipeline(database.url, specOf({ slotName: 'named', tableNames: ['"has.dot"."a.b"', 'orders', 'sales.orders', 'Order Items'] }))
  await pipeline.sql(`
    CREATE SCHEMA "has.dot"; CREATE SCHEMA sales; CREATE TABLE "has.dot"."a.b" (id int PRIMARY KEY); CREATE TABLE orders (id int PRIMARY KEY);
    CREATE TABLE sales.orders (id int PRIMARY KEY); CREATE TABLE "Order Items" (id int PRIMARY KEY); INSERT INTO "has.dot"."a.b" VALUES (1); INSERT INTO orders VALUES (1), (2)`)
  await pipeline.initialize()
  const copy = async (...tableNames: string[]) => pipeline.engine.runSlice({ spec: pipeline.spec, mode: 'copy', tableNames, untilLsn: null, maxBusyMs: 60_000, maxIdleMs: 60_000 }, pipeline.context())
  // Cause: names were compared as they are spelled, so that a quoted one copied nothing and a bare one copied its namesakes too; both were told as done.
  await expect(copy('ordres')).rejects.toMatchObject({ kind: 'InvalidInput', remedy: 'Did you mean "public.orders"?' })
  expect((await copy('"has.dot"."a.b"', 'orders')).copied).toEqual({ 'has.dot.a.b': { rows: 1 }, 'public.orders': { rows: 2 } })
  const { progress } = await copy('"Order Items"')
  expect(Object.entries(progress.tables).map(([name, { state }]) => [name, state]).sort()).toEqual([
    ['has.dot.a.b', 'streaming'], ['public.Order Items', 'streaming'], ['public.orders', 'streaming'], ['sales.orders', 'pending'],
  ]) // prettier-ignore
})

it('says how a table is written whose shown name was given, and never offers a sequence', async () => {
  await using pipeline = new TestPipeline(database.url, specOf({ slotName: 'offered', tableNames: ['dotted.schema.t'] }))
  await pipeline.sql('CREATE SCHEMA "dotted.schema"; CREATE TABLE "dotted.schema".t (id serial PRIMARY KEY)')
  await expect(pipeline.initialize()).rejects.toMatchObject({ kind: 'InvalidInput', remedy: 'Write it SQL-quoted: "dotted.schema"."t"' })
  pipeline.spec = specOf({ slotName: 'offered', tableNames: ['t_id_se'] })
  await expect(pipeline.initialize()).rejects.toMatchObject({ kind: 'InvalidInput', remedy: expect.not.stringContaining('t_id_seq') as string })
})

it('drops nothing where the publication is not the one that the slot is served through', async () => {
  await using pipeline = new TestPipeline(database.url, specOf({ slotName: 'half_dropped', tableNames: ['half_dropped'] }))
  await pipeline.sql('CREATE TABLE half_dropped (id int PRIMARY KEY)')
  await pipeline.initialize()
  const drop = async (publicationName: string) => pipeline.engine.drop({ source: 'shop', destination: 'warehouse', slotName: 'half_dropped', publicationName, dropDestination: false }, pipeline.context())
  // Cause: the slot went and the publication stayed, with a note of a slot that is no more.
  await expect(drop('half_droped_pub')).rejects.toMatchObject({ kind: 'InvalidInput', remedy: 'set publicationName to "half_dropped_pub"' })
  await pipeline.catchUp()
  await pipeline.release()
  expect(await drop('half_dropped_pub')).toEqual({ dropped: ['slot half_dropped', 'publication half_dropped_pub'] })
})

it('names the owner of a slot so that what it says can be pasted, whatever kind of workflow that is', async () => {
  await using pipeline = new TestPipeline(database.url, specOf({ slotName: 'owner_named', tableNames: ['owner_named'] }))
  await pipeline.sql('CREATE TABLE owner_named (id int PRIMARY KEY)')
  pipeline.owner = "sync of Ann's shop"
  await pipeline.initialize()
  const other = { ...pipeline.context(), owner: 'another', isWorkflowOpen: async () => Promise.resolve(true) }
  // Cause: the remedy was an update that only `replicate` has, with the id bare.
  await expect(pipeline.engine.initialize({ spec: pipeline.spec }, other)).rejects.toMatchObject({
    ...{ kind: 'AlreadyReplicating', remedy: expect.stringContaining(`temporal workflow cancel --workflow-id 'sync of Ann'\\''s shop'`) as string },
  })
})
