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

it('refuses a second owner while the first is open, and leaves the first one streaming', async () => {
  await using pipeline = new TestPipeline(database.url, specOf({ slotName: 'owned', tableNames: ['owned'] }))
  await pipeline.sql('CREATE TABLE owned (id int PRIMARY KEY)')
  await pipeline.initialize()
  await pipeline.copy()
  const { spec, engine } = pipeline
  const applied: string[] = []
  const stop = new AbortController()
  const context = {
    ...pipeline.context(),
    signal: stop.signal,
    report: ({ progress }: { progress?: { tables: Readonly<Record<string, { inserts: number }>> } }) => {
      applied.push(String(progress?.tables['public.owned']?.inserts))
      if (progress?.tables['public.owned']?.inserts === 2) stop.abort()
    },
  }
  const running = engine.runSlice({ spec, mode: 'stream', tableNames: null, untilLsn: null, maxBusyMs: 30_000, maxIdleMs: 30_000 }, context)
  await pipeline.sql('INSERT INTO owned VALUES (1)')
  await expect.poll(() => applied.at(-1), { timeout: 20_000 }).toBe('1')

  const other = { ...pipeline.context(), owner: 'another-workflow', isWorkflowOpen: async () => Promise.resolve(true) }
  await expect(engine.initialize({ spec }, other)).rejects.toMatchObject({ kind: 'AlreadyReplicating' })
  await expect(engine.drop({ source: 'shop', destination: 'warehouse', slotName: spec.slotName, publicationName: spec.publicationName, dropDestination: true }, other)).rejects.toMatchObject({ kind: 'AlreadyReplicating' })
  await engine.release({ spec, owner: 'another-workflow' })

  await pipeline.sql('INSERT INTO owned VALUES (2)')
  const result = await running
  expect(result.changes['public.owned']).toEqual({ inserts: 2, updates: 0, deletes: 0, truncates: 0 })
  await engine.drop({ source: 'shop', destination: 'warehouse', slotName: spec.slotName, publicationName: spec.publicationName, dropDestination: true }, pipeline.context())
})

it('refuses a start into another destination while the first is open, streaming or paused, and touches neither slot nor session', async () => {
  await using pipeline = new TestPipeline(database.url, specOf({ slotName: 'elsewhere', tableNames: ['elsewhere'] }))
  await pipeline.sql('CREATE TABLE elsewhere (id int PRIMARY KEY)')
  const { spec, engine } = pipeline
  const second = specOf({ ...spec, destination: 'second' })
  const other = { ...pipeline.context(), owner: 'another-workflow', isWorkflowOpen: async (workflowId: string) => Promise.resolve(workflowId === pipeline.owner) }
  const drop = { source: 'shop', slotName: spec.slotName, publicationName: spec.publicationName, dropDestination: false }
  const slots = async () => (await pipeline.sql('SELECT slot_name, confirmed_flush_lsn FROM pg_replication_slots WHERE database = current_database()')).rows as unknown
  // The second destination is there, and knows nothing of the slot.
  await pipeline.sql('CREATE TABLE unrelated (id int PRIMARY KEY)')
  const unrelated = specOf({ slotName: 'unrelated', tableNames: ['unrelated'], destination: 'second' })
  await engine.initialize({ spec: unrelated }, pipeline.context())
  await engine.release({ spec: unrelated, owner: pipeline.owner })

  await pipeline.initialize()
  await pipeline.copy()
  const refuseAll = async (): Promise<void> => {
    const before = await slots()
    for (const given of [second, specOf({ ...second, reset: true }), specOf({ ...second, publicationName: 'elsewhere_too' }), specOf({ ...second, destination: 'not made yet' })]) {
      await expect(engine.initialize({ spec: given }, other)).rejects.toMatchObject({ kind: 'AlreadyReplicating' })
    }
    await expect(engine.drop({ ...drop, destination: 'second' }, other)).rejects.toMatchObject({ kind: 'AlreadyReplicating' })
    expect(await slots()).toEqual(before)
  }
  await refuseAll()
  // A session that streams for its owner is not closed for somebody else.
  await expect(engine.runSlice({ spec: second, mode: 'copy', tableNames: null, untilLsn: null, maxBusyMs: 1_000, maxIdleMs: 1_000 }, other)).rejects.toMatchObject({ kind: 'AlreadyReplicating' })
  await pipeline.sql('INSERT INTO elsewhere VALUES (1)')
  expect((await pipeline.catchUp()).changes['public.elsewhere']).toMatchObject({ inserts: 1 })

  // Paused: claim and slot are kept, file and connection are not.
  await engine.release({ spec, owner: pipeline.owner, keepClaim: true })
  await refuseAll()

  // Its workflow is closed now: the slot is still another destination's, until it is made anew.
  const later = { ...other, isWorkflowOpen: async () => Promise.resolve(false) }
  await expect(engine.initialize({ spec: second }, later)).rejects.toMatchObject({ kind: 'DestinationLost' })
  const moved = await engine.initialize({ spec: specOf({ ...second, reset: true }) }, later)
  expect(moved.created).toEqual({ slot: true, publication: true })
  for (const names of [{ ...drop, destination: 'second' }, { ...drop, destination: 'second', slotName: 'unrelated', publicationName: 'unrelated_pub' }]) await engine.drop(names, later)
})
