import { afterAll, beforeAll, expect, inject, it } from 'vitest'
import { differences, specOf, TestPipeline } from '../../support/pipeline.ts'
import { createDatabase, type TestDatabase } from '../../support/servers.ts'

let database: TestDatabase

beforeAll(async () => {
  database = await createDatabase(inject('postgres15Url') ?? inject('postgresUrl'))
})

afterAll(async () => {
  await database.drop()
})

// Cause: decoding looks the publication up as it was at each change. Before 18 it fails where there was none, from 18 on it leaves the change out.
it('a publication that was dropped and made again while changes waited is a lost slot, or its tables are copied again: nothing is missing', async () => {
  const slotName = `anew_${database.name}`
  await using pipeline = new TestPipeline(database.url, specOf({ slotName, publicationName: 'anew_pub', tableNames: ['anew'] }))
  await pipeline.sql('CREATE TABLE anew (id int PRIMARY KEY); INSERT INTO anew VALUES (1)')
  await pipeline.initialize()
  await pipeline.catchUp()
  await pipeline.release()
  await pipeline.sql('INSERT INTO anew VALUES (2)')
  await pipeline.sql('DROP PUBLICATION anew_pub')
  await pipeline.sql('INSERT INTO anew VALUES (3)')
  await pipeline.sql('CREATE PUBLICATION anew_pub FOR TABLE anew')
  await pipeline.sql('INSERT INTO anew VALUES (4)')
  const { rows } = await pipeline.sql("SELECT current_setting('server_version_num')::int >= 180000 AS skips")
  if ((rows[0] as { skips: boolean }).skips) {
    const { copied } = await pipeline.catchUp()
    expect(copied).toEqual({ 'public.anew': { rows: 4 } })
  } else {
    await expect(pipeline.catchUp()).rejects.toMatchObject({ kind: 'SlotLost', message: expect.stringContaining('publication "anew_pub" does not exist') as string, remedy: expect.stringContaining('recover') as string })
    await pipeline.engine.recover({ spec: pipeline.spec }, pipeline.context())
    await pipeline.catchUp()
  }
  expect(differences(await pipeline.destinationRows('anew'), await pipeline.sourceRows('anew'))).toEqual({ missing: [], extra: [] })
  await pipeline.engine.drop({ source: 'shop', destination: 'warehouse', slotName, publicationName: 'anew_pub', dropDestination: true }, pipeline.context())
})
