import { afterAll, beforeAll, expect, inject, it } from 'vitest'
import { openDuckDbDestination } from '../../../src/destinations/duckdb/destination.ts'
import { spoolFolderOf } from '../../../src/destinations/duckdb/spool-folder.ts'
import { startPostgres, type PostgresServer } from '../../../src/embedded/postgres-server.ts'
import { parseCredentials } from '../../../src/postgres/credentials.ts'
import { createEngine } from '../../../src/replication/engine.ts'
import { specOf, TestPipeline } from '../../support/pipeline.ts'
import { createDatabase, type TestDatabase } from '../../support/servers.ts'

let former: TestDatabase
let other: TestDatabase
/** Where the run has no second server. */
let server: PostgresServer | null = null

beforeAll(async () => {
  const fifteen = inject('postgres15Url')
  if (fifteen === null) server = await startPostgres()
  ;[former, other] = await Promise.all([createDatabase(inject('postgresUrl')), createDatabase(fifteen ?? server?.url ?? '')])
})

afterAll(async () => {
  await Promise.all([former.drop(), other.drop()])
  await server?.stop()
})

it('refuses a source that the destination was not filled from, before its tables and slots are looked at; reset takes it', async () => {
  const slotName = `different_${former.name}`
  await using pipeline = new TestPipeline(former.url, specOf({ slotName, tableNames: ['d'] }))
  await pipeline.sql('CREATE TABLE d (id int PRIMARY KEY); INSERT INTO d VALUES (1)')
  await pipeline.initialize()
  await pipeline.copy()
  await pipeline.release()

  // The configuration names another server now, as after a restore elsewhere: it knows neither table nor slot yet.
  const credentials = parseCredentials(other.url)
  const moved = createEngine({
    credentialsOf: () => credentials,
    destinationNames: () => ['warehouse'],
    hasDestination: () => true,
    spoolFolder: (_, key) => spoolFolderOf(pipeline.file, key),
    openDestination: async () => openDuckDbDestination({ path: pipeline.file }),
  })
  const { spec } = pipeline
  await expect(moved.initialize({ spec }, pipeline.context())).rejects.toMatchObject({ kind: 'DifferentSource', remedy: expect.stringContaining('"reset": true') as string })
  const slice = { spec, mode: 'stream', tableNames: null, untilLsn: 'now', maxBusyMs: 10_000, maxIdleMs: 10_000 } as const
  await expect(moved.runSlice(slice, pipeline.context())).rejects.toMatchObject({ kind: 'DifferentSource' })
  expect(await pipeline.query('SELECT * FROM public.d')).toEqual([[1, expect.anything()]])
  await pipeline.initialize()

  await using there = new TestPipeline(other.url, spec)
  await there.sql('CREATE TABLE d (id int PRIMARY KEY); INSERT INTO d VALUES (7)')
  await pipeline.release()
  const anew = { ...spec, reset: true }
  await moved.initialize({ spec: anew }, pipeline.context())
  await moved.runSlice({ ...slice, mode: 'copy' }, pipeline.context())
  await moved.release({ spec, owner: pipeline.owner })
  expect(await pipeline.query('SELECT id FROM public.d')).toEqual([[7]])
})
