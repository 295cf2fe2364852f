import { afterAll, beforeAll, expect, it } from 'vitest'
import { startPostgres, type PostgresServer } from '../../../src/embedded/postgres-server.ts'
import { appendRows, foldAppendRows } from '../../support/comparison.ts'
import { differences, specOf, TestPipeline } from '../../support/pipeline.ts'
import { XminPipeline } from '../../support/xmin.ts'
import { changeSystemIdentifier } from '../../support/system-identifier.ts'

let server: PostgresServer

beforeAll(async () => {
  server = await startPostgres()
})

afterAll(async () => {
  await server.stop()
})

/** A replication that has caught up and was stopped, with rows that differ where it is told. */
async function pipelineOf(name: string): Promise<TestPipeline> {
  const pipeline = new TestPipeline(server.url, specOf({ slotName: name, tableNames: [name, `${name}_changes`, `${name}_versions`], writeMode: { [`${name}_changes`]: ['append'], [`${name}_versions`]: ['scd2'] } }))
  for (const table of [name, `${name}_changes`, `${name}_versions`]) {
    await pipeline.sql(`CREATE TABLE ${table} (id int PRIMARY KEY, v int, big text); ALTER TABLE ${table} ALTER COLUMN big SET STORAGE EXTERNAL; INSERT INTO ${table} SELECT g, 1, CASE WHEN g < 9 THEN repeat('x', 9000) END FROM generate_series(1, 200) g`)
  }
  await pipeline.initialize()
  await pipeline.catchUp()
  await pipeline.release()
  return pipeline
}

/** The server ends and begins with another identifier. */
async function upgrade(): Promise<void> {
  await server.kill('SIGINT')
  await changeSystemIdentifier(server.dataDirectory ?? '')
  await server.restart()
}

async function expectEqual(pipeline: TestPipeline, name: string): Promise<void> {
  expect(differences(await pipeline.destinationRows(name), await pipeline.sourceRows(name))).toEqual({ missing: [], extra: [] })
  expect(differences(await pipeline.destinationRows(`${name}_versions`, 'public', '_is_current'), await pipeline.sourceRows(`${name}_versions`))).toEqual({ missing: [], extra: [] })
  expect(foldAppendRows(await appendRows(async (sql) => pipeline.query(sql), `${name}_changes`), ['id'])).toEqual(await pipeline.sourceRows(`${name}_changes`))
}

/** A slot holds back the catalog that those which are made after it begin with. */
async function drop(pipeline: TestPipeline): Promise<void> {
  const { slotName, publicationName } = pipeline.spec
  await pipeline.engine.drop({ source: 'shop', destination: 'warehouse', slotName, publicationName, dropDestination: true }, pipeline.context())
}

async function slotOf(pipeline: TestPipeline): Promise<unknown> {
  return (await pipeline.sql('SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = $1', [pipeline.spec.slotName])).rows
}

it('goes on with the slot of a system that has taken the place of the former one, as after pg_upgrade: no history lacks a change, nothing is copied', { timeout: 240_000 }, async () => {
  await using pipeline = await pipelineOf('whole')
  // As pg_upgrade makes all entries of catalogs anew: without knowing that, the table would be taken for one that was not published for a while.
  await pipeline.sql('ALTER PUBLICATION whole_pub DROP TABLE whole; ALTER PUBLICATION whole_pub ADD TABLE whole')
  await upgrade()
  const write = async (v: number): Promise<void> => {
    for (const table of ['whole', 'whole_changes', 'whole_versions']) await pipeline.sql(`UPDATE ${table} SET v = ${String(v)} WHERE id <= 20; INSERT INTO ${table} VALUES (${String(1000 + v)}, 0, NULL); DELETE FROM ${table} WHERE id = ${String(100 + v)}`)
  }
  await write(2)
  await expect(pipeline.initialize()).rejects.toMatchObject({ kind: 'DifferentSource', remedy: expect.stringContaining('recover') as string })
  const before = await slotOf(pipeline)
  await write(3)
  const { created, warnings, progress } = await pipeline.engine.recover({ spec: pipeline.spec, onlySourceDiffered: true }, pipeline.context())
  expect(created).toEqual({ slot: false, publication: false })
  expect(await slotOf(pipeline)).toEqual(before)
  expect(warnings).toContainEqual(expect.stringMatching(/^the slot of the source that has taken the former one's place is gone on with from /))
  expect(Object.values(progress.tables).map(({ state }) => state)).toEqual(['snapshotting', 'snapshotting', 'snapshotting'])
  await write(4)
  const caughtUp = await pipeline.catchUp()
  expect(caughtUp.copied).toEqual({})
  expect(caughtUp.progress.warnings.filter((warning) => warning.endsWith(' of which 0 were put right'))).toHaveLength(3)
  await expectEqual(pipeline, 'whole')
  expect((await pipeline.query('SELECT v FROM public.whole_changes WHERE id = 1 ORDER BY _lsn, _seq')).flat()).toEqual([1, 2, 3, 4])
  expect((await pipeline.query('SELECT v FROM public.whole_versions WHERE id = 1 ORDER BY _lsn')).flat()).toEqual([1, 2, 3, 4])
  // By then it is the source like any other.
  await pipeline.initialize()
  await write(5)
  await pipeline.catchUp()
  await expectEqual(pipeline, 'whole')
  await drop(pipeline)
})

it('puts right what the slot of another system did not bring', { timeout: 240_000 }, async () => {
  await using pipeline = await pipelineOf('moved')
  // Somebody has read the slot: what he has got does not come again, and the former source cannot be asked where it stood.
  for (const table of ['moved', 'moved_changes', 'moved_versions']) await pipeline.sql(`UPDATE ${table} SET v = 2 WHERE id <= 20; UPDATE ${table} SET big = repeat('y', 9000) WHERE id = 1; DELETE FROM ${table} WHERE id = 100`)
  await pipeline.sql("SELECT pg_replication_slot_advance('moved', pg_current_wal_insert_lsn())")
  await upgrade()
  for (const table of ['moved', 'moved_changes', 'moved_versions']) await pipeline.sql(`UPDATE ${table} SET v = 3 WHERE id <= 10`)
  const { created, warnings } = await pipeline.engine.recover({ spec: pipeline.spec, onlySourceDiffered: true }, pipeline.context())
  expect(created.slot).toBe(false)
  expect(warnings).toContainEqual(expect.stringMatching(/moved_changes, public\.moved_versions: what is not at the destination by [\dA-F]+\/[\dA-F]+ is not in their history/))
  await pipeline.catchUp()
  await expectEqual(pipeline, 'moved')
  await drop(pipeline)
})

it('makes the slot anew where the one that is there cannot be decoded with its publication', { timeout: 240_000 }, async () => {
  await using pipeline = await pipelineOf('later')
  await pipeline.sql("SELECT pg_drop_replication_slot('later')")
  const { rows } = await pipeline.sql("SELECT obj_description(oid, 'pg_publication') AS note FROM pg_publication WHERE pubname = 'later_pub'")
  await pipeline.sql('DROP PUBLICATION later_pub')
  await pipeline.sql("SELECT pg_create_logical_replication_slot('later', 'pgoutput')")
  await pipeline.sql('UPDATE later SET v = 2 WHERE id = 1')
  await pipeline.sql(`CREATE PUBLICATION later_pub FOR TABLE later, later_changes, later_versions; COMMENT ON PUBLICATION later_pub IS '${(rows[0] as { note: string }).note}'`)
  await upgrade()
  const { created } = await pipeline.engine.recover({ spec: pipeline.spec, onlySourceDiffered: true }, pipeline.context())
  expect(created.slot).toBe(true)
  await pipeline.catchUp()
  await expectEqual(pipeline, 'later')
})

it('syncByXmin refuses another system, and reset takes it', { timeout: 240_000 }, async () => {
  await using pipeline = new XminPipeline(server.url, { tableNames: ['by_xmin'] })
  await pipeline.sql('CREATE TABLE by_xmin (id int PRIMARY KEY); INSERT INTO by_xmin VALUES (1)')
  await pipeline.sync()
  await upgrade()
  await pipeline.sql('INSERT INTO by_xmin VALUES (2); DELETE FROM by_xmin WHERE id = 1')
  await expect(pipeline.sync()).rejects.toMatchObject({ kind: 'DifferentSource', remedy: expect.stringMatching(/^(?!.*recover).*"reset": true/) as string })
  pipeline.xmin = { ...pipeline.xmin, reset: true }
  await pipeline.sync()
  expect(await pipeline.destinationRows('by_xmin')).toEqual(['2'])
})
