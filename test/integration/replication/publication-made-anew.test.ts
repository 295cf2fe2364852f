import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { differences, specOf, TestPipeline } from '../../support/pipeline.ts'
import { createDatabase, type TestDatabase } from '../../support/servers.ts'
import { testServers } from '../../support/test-servers.ts'

// Cause: decoding looks the publication up as it was at each change. Before 18 it fails where there was none, from 18 on it says so and leaves the change out: that was SourceNotReady, for ever.
describe.each(testServers())('a publication that was dropped and made again while changes waited, at $name', ({ url }) => {
  let database: TestDatabase

  beforeAll(async () => {
    database = await createDatabase(url)
  })

  afterAll(async () => {
    await database.drop()
  })

  const lost = (publication: string): object => ({
    kind: 'SlotLost',
    message: expect.stringMatching(`publication "${publication}" (does|did) not exist`) as string,
    remedy: expect.stringContaining('recover') as string,
  })

  async function expectEqual(pipeline: TestPipeline, table: string): Promise<void> {
    expect(differences(await pipeline.destinationRows(table), await pipeline.sourceRows(table))).toEqual({ missing: [], extra: [] })
    const { slotName, publicationName } = pipeline.spec
    await pipeline.engine.drop({ source: 'shop', destination: 'warehouse', slotName, publicationName, dropDestination: true }, pipeline.context())
  }

  it('is a lost slot, which recover mends: nothing is missing', async () => {
    await using pipeline = new TestPipeline(database.url, specOf({ slotName: `anew_${database.name}`, publicationName: 'anew_pub', tableNames: ['anew'] }))
    await pipeline.sql('CREATE TABLE anew (id int PRIMARY KEY); INSERT INTO anew VALUES (1)')
    await pipeline.initialize()
    await pipeline.catchUp()
    await pipeline.release()
    await pipeline.sql('INSERT INTO anew VALUES (2)')
    await pipeline.sql('DROP PUBLICATION anew_pub')
    await pipeline.sql('INSERT INTO anew VALUES (3)')
    await pipeline.sql('CREATE PUBLICATION anew_pub FOR TABLE anew')
    await pipeline.sql('INSERT INTO anew VALUES (4)')
    await expect(pipeline.catchUp()).rejects.toMatchObject(lost('anew_pub'))
    await pipeline.engine.recover({ spec: pipeline.spec }, pipeline.context())
    await pipeline.catchUp()
    await expectEqual(pipeline, 'anew')
  })

  // Cause: only a record that still knew the former publication told of it. Where all tables are copied again they know the new one, and recover took the slot for whole, again and again.
  it('is that, too, where all tables have been copied again since', async () => {
    await using pipeline = new TestPipeline(database.url, specOf({ slotName: `copied_${database.name}`, publicationName: 'copied_pub', tableNames: ['copied'] }))
    await pipeline.sql('CREATE TABLE copied (id int PRIMARY KEY); INSERT INTO copied VALUES (1)')
    await pipeline.initialize()
    await pipeline.catchUp()
    await pipeline.release()
    await pipeline.sql('INSERT INTO copied VALUES (2)')
    await pipeline.sql('DROP PUBLICATION copied_pub')
    await pipeline.sql('INSERT INTO copied VALUES (3)')
    await pipeline.sql('CREATE PUBLICATION copied_pub')
    expect((await pipeline.initialize()).progress.tables['public.copied']?.state).toBe('pending')
    await pipeline.copy()
    await pipeline.sql('INSERT INTO copied VALUES (4)')
    await expect(pipeline.catchUp()).rejects.toMatchObject(lost('copied_pub'))
    expect((await pipeline.engine.recover({ spec: pipeline.spec }, pipeline.context())).created.slot).toBe(true)
    await pipeline.catchUp()
    await expectEqual(pipeline, 'copied')
  })
})
