import { afterAll, beforeAll, expect, inject, it } from 'vitest'
import { specOf, TestPipeline } from '../../support/pipeline.ts'
import { createDatabase } from '../../support/servers.ts'

// A privilege that is taken away from one table is that table's matter alone, wherever its rows are read: in its copy, and for what the stream leaves out.

let database: Awaited<ReturnType<typeof createDatabase>>
let role: string
let admin: TestPipeline

beforeAll(async () => {
  database = await createDatabase(inject('postgresUrl'))
  role = `reader_${database.name}`
  admin = new TestPipeline(database.url, specOf({ slotName: 'p_admin', tableNames: [] }))
  await admin.sql(`CREATE ROLE ${role} LOGIN REPLICATION PASSWORD 'secret'`)
})

afterAll(async () => {
  await admin.sql(`DROP OWNED BY ${role}; DROP ROLE ${role}`)
  await admin[Symbol.asyncDispose]()
  await database.drop()
})

/** Tables `name`, with a large value, and `name_other`, in a publication that is there; read by a role that owns nothing. */
async function readBy(name: string, given: Partial<Parameters<typeof specOf>[0]> = {}): Promise<TestPipeline> {
  await admin.sql(`CREATE TABLE ${name} (id int PRIMARY KEY, n int, big text); ALTER TABLE ${name} ALTER big SET STORAGE EXTERNAL; INSERT INTO ${name} SELECT g, 0, repeat(md5(g::text), 300) FROM generate_series(1, 5) g`)
  await admin.sql(`CREATE TABLE ${name}_other (id int PRIMARY KEY, n int, big text); GRANT SELECT ON ${name}, ${name}_other TO ${role}; CREATE PUBLICATION ${name}_pub FOR TABLE ${name}, ${name}_other`)
  const url = new URL(database.url)
  url.username = role
  url.password = 'secret'
  return new TestPipeline(url.href, specOf({ slotName: name, publicationName: `${name}_pub`, tableNames: [name, `${name}_other`], ...given }))
}

async function end(pipeline: TestPipeline): Promise<void> {
  await pipeline[Symbol.asyncDispose]()
  await admin.sql('SELECT pg_drop_replication_slot($1) FROM pg_replication_slots WHERE slot_name = $1', [pipeline.spec.slotName])
}

async function retry(pipeline: TestPipeline): Promise<void> {
  await pipeline.engine.retryTables({ spec: pipeline.spec, owner: pipeline.owner, tableNames: null })
}

it.each([
  ['merge', 'true'],
  ['append', "_op = 'update' AND n = 3"],
] as const)('stops a table whose left-out value may not be read any more, alone; it goes on exactly there (%s)', async (writeMode, isLast) => {
  const name = `p_${writeMode}`
  const pipeline = await readBy(name, { snapshotMode: 'never', writeMode })
  try {
    await pipeline.initialize()
    await pipeline.catchUp()
    await admin.sql(`REVOKE SELECT ON ${name} FROM ${role}; UPDATE ${name} SET n = 1; INSERT INTO ${name}_other VALUES (1, 1, 'with it')`)
    const { progress } = await pipeline.catchUp()
    expect(progress.tables[`public.${name}`]).toMatchObject({ state: 'failed', error: { type: 'PrivilegeMissing', remedy: expect.stringContaining('goes on exactly where the table stopped') as string } })
    expect(progress.tables[`public.${name}_other`]).toMatchObject({ state: 'streaming', inserts: 1 })
    await admin.sql(`UPDATE ${name} SET n = 2; INSERT INTO ${name}_other VALUES (2, 2, 'after it')`)
    // Not granted yet: it stops once more, where it stood.
    await retry(pipeline)
    expect((await pipeline.catchUp()).progress.tables[`public.${name}`]).toMatchObject({ state: 'failed', error: { remedy: expect.stringContaining('goes on exactly') as string } })
    await admin.sql(`GRANT SELECT ON ${name} TO ${role}; UPDATE ${name} SET n = 3`)
    await retry(pipeline)
    const { progress: after, copied } = await pipeline.catchUp()
    expect(after.tables[`public.${name}`]).toMatchObject({ state: 'streaming', snapshotRows: 0, updates: 15 })
    expect(Object.values(copied).map(({ rows }) => rows)).not.toContain(5)
    expect(await pipeline.destinationRows(name, 'public', isLast)).toEqual(await admin.sourceRows(name))
    expect(await pipeline.destinationRows(`${name}_other`)).toEqual(await admin.sourceRows(`${name}_other`))
  } finally {
    await end(pipeline)
  }
})

it('stops a table that may not be copied any more, alone; it is copied once it may', async () => {
  const pipeline = await readBy('p_copy')
  try {
    await pipeline.initialize()
    await admin.sql(`REVOKE SELECT ON p_copy FROM ${role}; INSERT INTO p_copy_other VALUES (1, 1, 'copied')`)
    const { progress } = await pipeline.catchUp()
    expect(progress.tables['public.p_copy']).toMatchObject({ state: 'failed', error: { type: 'PrivilegeMissing', remedy: expect.stringContaining('copies the table anew') as string } })
    expect(progress.tables['public.p_copy_other']).toMatchObject({ state: 'streaming', snapshotRows: 1 })
    await admin.sql(`UPDATE p_copy SET n = 1; INSERT INTO p_copy_other VALUES (2, 2, 'streamed'); GRANT SELECT ON p_copy TO ${role}`)
    await retry(pipeline)
    expect((await pipeline.catchUp()).progress.tables['public.p_copy']).toMatchObject({ state: 'streaming', snapshotRows: 5 })
    for (const table of ['p_copy', 'p_copy_other']) expect(await pipeline.destinationRows(table)).toEqual(await admin.sourceRows(table))
  } finally {
    await end(pipeline)
  }
})
