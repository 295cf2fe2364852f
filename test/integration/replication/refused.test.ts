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

it('throws nothing away and makes nothing where the destination refuses the input', async () => {
  await using pipeline = new TestPipeline(database.url, specOf({ slotName: 'kept', tableNames: ['kept'] }))
  await pipeline.sql('CREATE TABLE kept (id int PRIMARY KEY, v text); INSERT INTO kept VALUES (1, NULL)')
  await pipeline.initialize()
  await pipeline.copy()
  const { spec, engine } = pipeline
  const state = async () => [
    await pipeline.sql('SELECT slot_name, confirmed_flush_lsn FROM pg_replication_slots WHERE database = current_database() ORDER BY 1'),
    await pipeline.sql('SELECT oid, pubname FROM pg_publication ORDER BY 1'),
  ]
  const before = await state()

  const wrong = [
    specOf({ ...spec, reset: true, columns: { elsewhere: { v: { dataType: 'text' } } } }),
    specOf({ ...spec, reset: true, columns: { kept: { absent: { dataType: 'text' } } } }),
    specOf({ ...spec, reset: true, columns: { kept: { v: { dataType: 'no_such_type' } } } }),
    // The same destination table through another slot.
    specOf({ ...spec, slotName: 'second', publicationName: 'second_pub' }),
  ]
  for (const given of wrong) {
    await expect(engine.initialize({ spec: given }, pipeline.context())).rejects.toMatchObject({ kind: 'InvalidInput' })
  }

  expect(await state()).toEqual(before)
  const { progress } = await engine.initialize({ spec }, pipeline.context())
  expect(progress.tables['public.kept']).toMatchObject({ state: 'streaming', snapshotRows: 1 })
  await engine.drop({ source: 'shop', destination: 'warehouse', slotName: spec.slotName, publicationName: spec.publicationName, dropDestination: true }, pipeline.context())
})
