import { afterAll, beforeAll, expect, inject, it } from 'vitest'
import { specOf, TestPipeline } from '../../support/pipeline.ts'
import { createDatabase } from '../../support/servers.ts'

let database: Awaited<ReturnType<typeof createDatabase>>

beforeAll(async () => {
  database = await createDatabase(inject('postgresUrl'))
})

afterAll(async () => {
  await database.drop()
})

// Cause: a narrower list was said nothing of, and the warning of a wider one named no remedy and outlived it.
it.runIf(inject('postgresMajor') >= 15)('says where the publication sends other columns than includeColumns names, with what brings them, until that is done', async () => {
  await using pipeline = new TestPipeline(database.url, specOf({ slotName: 'inc', schemaName: 'inc', tableNames: ['a', 'b'], includeColumns: { a: ['v'] } }))
  await pipeline.sql('CREATE SCHEMA inc; CREATE TABLE inc.a (id int PRIMARY KEY, v int, n int); CREATE TABLE inc.b (id int PRIMARY KEY, v int, n int); INSERT INTO inc.a VALUES (1, 2, 3); INSERT INTO inc.b VALUES (1, 2, 3)')
  const first = await pipeline.initialize()
  expect(first.warnings.filter((warning) => warning.includes('columns of'))).toEqual([])
  await pipeline.catchUp()
  await pipeline.release()
  pipeline.spec = { ...pipeline.spec, includeColumns: { b: ['v'] } }
  const again = await pipeline.initialize()
  const wider = again.warnings.filter((warning) => warning.includes('lists columns of "inc.a"; left out: n. To have what includeColumns says: the updates removeTables, then addTables, of inc.a'))
  const narrower = again.warnings.filter((warning) => warning.includes('sends columns of "inc.b" that includeColumns does not name: they leave the server, and are dropped here: n. To have'))
  expect([wider.length, narrower.length]).toEqual([1, 1])
  await pipeline.catchUp()
  for (const name of ['a', 'b']) {
    await pipeline.order({ tag: 'remove', tableNames: [name], dropDestination: false })
    expect((await pipeline.order({ tag: 'add', tableNames: [name] })).about).toEqual([`inc.${name}`])
  }
  await pipeline.sql('INSERT INTO inc.a VALUES (4, 5, 6); INSERT INTO inc.b VALUES (4, 5, 6)')
  const { progress } = await pipeline.catchUp()
  expect(progress.warnings.filter((warning) => warning.includes('columns of'))).toEqual([])
  expect(await pipeline.query('SELECT id, v, n FROM inc.a ORDER BY id')).toEqual([[1, 2, 3], [4, 5, 6]])
  const { rows } = await pipeline.sql("SELECT tablename, attnames::text[] AS columns FROM pg_publication_tables WHERE pubname = 'inc_pub' ORDER BY 1")
  expect(rows).toEqual([{ tablename: 'a', columns: ['id', 'v', 'n'] }, { tablename: 'b', columns: ['id', 'v'] }])
  await pipeline.engine.drop({ source: 'shop', destination: 'warehouse', slotName: 'inc', publicationName: 'inc_pub', dropDestination: true }, pipeline.context())
})
