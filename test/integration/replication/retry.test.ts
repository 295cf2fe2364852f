import { afterAll, beforeAll, expect, inject, it } from 'vitest'
import { TestPipeline, specOf } from '../../support/pipeline.ts'
import { createDatabase } from '../../support/servers.ts'

let database: Awaited<ReturnType<typeof createDatabase>>

beforeAll(async () => {
  database = await createDatabase(inject('postgresUrl'))
})

afterAll(async () => {
  await database.drop()
})

it('refuses to retry what is not replicated, naming what was meant, and what has not failed; nothing is changed', async () => {
  await using pipeline = new TestPipeline(database.url, specOf({ slotName: 'retry_names', tableNames: ['orders', 'Order Items'] }))
  await pipeline.sql('CREATE TABLE orders (id int PRIMARY KEY); CREATE TABLE "Order Items" (id int PRIMARY KEY)')
  await pipeline.initialize()
  await pipeline.catchUp()
  const retry = async (...tableNames: string[]): Promise<void> => pipeline.engine.retryTables({ spec: pipeline.spec, owner: pipeline.owner, tableNames })
  await expect(retry('ordres')).rejects.toMatchObject({ kind: 'InvalidInput', message: expect.stringContaining('"ordres"') as string, remedy: 'Did you mean "public.orders"?' })
  await expect(retry('"public"."Order Itms"')).rejects.toMatchObject({ kind: 'InvalidInput', remedy: 'Did you mean "public.Order Items"?' })
  await expect(retry('orders')).rejects.toMatchObject({ kind: 'InvalidInput', message: 'table public.orders has not failed: its state is streaming' })
  await pipeline.engine.retryTables({ spec: pipeline.spec, owner: pipeline.owner, tableNames: null })
  const { progress } = await pipeline.catchUp()
  expect(Object.values(progress.tables).map(({ state }) => state)).toEqual(['streaming', 'streaming'])
  await pipeline.engine.drop(
    { source: 'shop', destination: 'warehouse', slotName: 'retry_names', publicationName: 'retry_names_pub', dropDestination: true },
    pipeline.context(),
  )
})
