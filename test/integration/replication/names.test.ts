import { copyFileSync } from 'node:fs'
import { join } from 'node:path'
import { DuckDBInstance } from '@duckdb/node-api'
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest'
import { ChangingPipeline } from '../../support/schema-changes.ts'
import { createDatabase, type TestDatabase } from '../../support/servers.ts'

describe('names of tables', () => {
  const serverUrl = inject('postgresUrl')
  let database: TestDatabase

  beforeAll(async () => {
    database = await createDatabase(serverUrl)
  })

  afterAll(async () => {
    await database.drop()
  })

  it('follows a table that is renamed between rows of one transaction', async () => {
    await using pipeline = await ChangingPipeline.over(database.url, 'n_one', "CREATE TABLE n_one (id int PRIMARY KEY, v text); INSERT INTO n_one SELECT g, 'v' || g FROM generate_series(1, 20) g")
    await pipeline.sql("BEGIN; DELETE FROM n_one WHERE id = 1; UPDATE n_one SET v = 'before' WHERE id = 2; ALTER TABLE n_one RENAME TO n_uno; INSERT INTO n_uno VALUES (100, 'after'); UPDATE n_uno SET v = 'after' WHERE id = 3; COMMIT")
    const { progress } = await pipeline.catchUp()
    expect(progress.tables).toEqual({ 'public.n_uno': expect.objectContaining({ state: 'streaming', snapshotRows: 20, inserts: 1, updates: 2, deletes: 1 }) as unknown })
    expect(progress.warnings).toContain('public.n_one is named public.n_uno at the source now; it is followed')
    await pipeline.expectEqual('n_uno')
    expect(await pipeline.targets()).toEqual(['public.n_uno'])
    await pipeline.sql("ALTER TABLE n_uno ADD COLUMN w int; ALTER TABLE n_uno RENAME TO \"N Uno\"; INSERT INTO \"N Uno\" VALUES (200, 'both', 1)")
    await pipeline.catchUp()
    await pipeline.expectEqual('N Uno')
  })

  // Cause: each took the other for a table that had another name by now, and the name went from one to the other with every look.
  it('keeps a table out whose name differs from another\'s only in case, and stops one that is renamed so', async () => {
    await using pipeline = await ChangingPipeline.over(database.url, 'n_case', 'CREATE SCHEMA n_case; CREATE TABLE n_case.t (id int PRIMARY KEY); CREATE TABLE n_case.u (id int PRIMARY KEY); INSERT INTO n_case.t VALUES (1)', { schemaName: 'n_case', tableNames: inject('postgresMajor') < 15 ? ['t', 'u'] : null })
    if (inject('postgresMajor') >= 15) {
      await pipeline.sql('CREATE TABLE n_case."T" (id int PRIMARY KEY); INSERT INTO n_case."T" VALUES (5); INSERT INTO n_case.t VALUES (2)')
      await pipeline.catchUp()
      const { progress } = await pipeline.catchUp()
      expect(progress.warnings).toContainEqual(expect.stringMatching(/^"n_case\.T" stays out until this is mended: n_case\.T and n_case\.t differ only in case/))
      await pipeline.expectEqual('t', 'n_case')
      await pipeline.sql('DROP TABLE n_case."T"')
    }
    await pipeline.sql('ALTER TABLE n_case.u RENAME TO "T"; INSERT INTO n_case."T" VALUES (6)')
    const { progress } = await pipeline.catchUp()
    expect(Object.values(progress.tables).map(({ error }) => error?.type)).toEqual([undefined, 'InvalidInput'])
    await pipeline.sql('ALTER TABLE n_case.t RENAME TO "V"; INSERT INTO n_case."V" VALUES (7); INSERT INTO n_case."T" VALUES (8)')
    await pipeline.catchUp()
    await pipeline.engine.retryTables({ spec: pipeline.spec, owner: pipeline.owner, tableNames: null })
    await pipeline.catchUp()
    for (const table of ['T', 'V']) await pipeline.expectEqual(table, 'n_case')
    expect(await pipeline.targets()).toEqual(['n_case.T', 'n_case.V'])
  })

  // Cause: it was tried once.
  it.runIf(inject('postgresMajor') >= 15)('lets a table of a whole schema join that stayed out, once its name is free or is another', async () => {
    await using pipeline = await ChangingPipeline.over(database.url, 'n_free', 'CREATE SCHEMA n_free; CREATE TABLE n_free.t (id int PRIMARY KEY); INSERT INTO n_free.t VALUES (1)', { schemaName: 'n_free', tableNames: null })
    await pipeline.whileStreaming(async (until) => {
      // Cause: what the first insert said of the shape was thrown away, and PostgreSQL does not say it again: the rows after the copy were NULL.
      for (const statement of ['CREATE TABLE n_free."T" (id int PRIMARY KEY)', 'INSERT INTO n_free."T" VALUES (5)', 'INSERT INTO n_free."T" VALUES (6)']) await pipeline.sql(statement)
      await until(({ warnings }) => warnings.some((warning) => warning.startsWith('"n_free.T" stays out until this is mended')))
      await pipeline.sql('ALTER TABLE n_free.t RENAME TO v')
      await until(({ tables }) => tables['n_free.T']?.state === 'streaming')
      await pipeline.sql('CREATE TABLE n_free."V" (id int PRIMARY KEY); INSERT INTO n_free."V" VALUES (5)')
      await until(({ warnings }) => warnings.some((warning) => warning.startsWith('"n_free.V" stays out until this is mended')))
      await pipeline.sql('ALTER TABLE n_free."V" RENAME TO w; INSERT INTO n_free.w VALUES (6); INSERT INTO n_free."T" VALUES (7)')
      await until(({ tables }) => tables['n_free.w']?.state === 'streaming')
    })
    const { progress } = await pipeline.catchUp()
    expect(progress.warnings.filter((warning) => warning.startsWith('"n_free.T" stays out'))).toEqual([])
    for (const table of ['T', 'v', 'w']) await pipeline.expectEqual(table, 'n_free')
    expect(await pipeline.targets()).toEqual(['n_free.T', 'n_free.v', 'n_free.w'])
  })

  it('leaves a file that opens after a kill, when rows were deleted before the name changed', async () => {
    await using pipeline = await ChangingPipeline.over(database.url, 'n_kill', 'CREATE TABLE n_kill (id int PRIMARY KEY); INSERT INTO n_kill SELECT generate_series(1, 20)')
    await pipeline.sql('DELETE FROM n_kill WHERE id = 1')
    await pipeline.sql('BEGIN; DELETE FROM n_kill WHERE id = 2; ALTER TABLE n_kill RENAME TO n_killed; DELETE FROM n_killed WHERE id = 3; COMMIT')
    await pipeline.catchUp()
    // What a kill at this instant leaves: file and WAL, neither checkpointed nor closed.
    const left = join(pipeline.directory, 'left.duckdb')
    copyFileSync(pipeline.file, left)
    copyFileSync(`${pipeline.file}.wal`, `${left}.wal`)
    const instance = await DuckDBInstance.create(left)
    const connection = await instance.connect()
    expect((await connection.runAndReadAll('SELECT count(*)::INTEGER FROM public.n_killed')).getRowsJson()).toEqual([[17]])
    connection.closeSync()
    instance.closeSync()
  })

  it('follows two tables that change names in one transaction, whichever of them changes afterwards', async () => {
    await using pipeline = await ChangingPipeline.over(
      database.url,
      'n_swap',
      "CREATE TABLE n_a (id int PRIMARY KEY, v text); CREATE TABLE n_b (id int PRIMARY KEY, w int); INSERT INTO n_a SELECT g, 'a' FROM generate_series(1, 10) g; INSERT INTO n_b SELECT g, 0 FROM generate_series(1, 30) g",
      { tableNames: ['n_a', 'n_b'] },
    )
    const swap = 'ALTER TABLE n_a RENAME TO n_c; ALTER TABLE n_b RENAME TO n_a; ALTER TABLE n_c RENAME TO n_b'
    await pipeline.sql(`BEGIN; DELETE FROM n_a WHERE id = 1; DELETE FROM n_b WHERE id = 1; ${swap}; INSERT INTO n_a VALUES (100, 1); INSERT INTO n_b VALUES (100, 'b'); DELETE FROM n_b WHERE id = 2; COMMIT`)
    await pipeline.catchUp()
    expect(await pipeline.expectEqual('n_a')).toHaveLength(30)
    expect(await pipeline.expectEqual('n_b')).toHaveLength(9)
    await pipeline.sql(`BEGIN; ${swap}; INSERT INTO n_a VALUES (101, 'one side'); COMMIT`)
    await pipeline.catchUp()
    await pipeline.expectEqual('n_a')
    await pipeline.expectEqual('n_b')
    await pipeline.sql(`BEGIN; ${swap}; COMMIT`)
    const { progress } = await pipeline.catchUp()
    await pipeline.expectEqual('n_a')
    await pipeline.expectEqual('n_b')
    expect(await pipeline.targets()).toEqual(['public.n_a', 'public.n_b'])
    expect(Object.keys(progress.tables).sort()).toEqual(['public.n_a', 'public.n_b'])
  })

  it('follows a table that is moved to another schema, with rows before and after', async () => {
    await using pipeline = await ChangingPipeline.over(database.url, 'n_move', "CREATE SCHEMA elsewhere; CREATE TABLE n_move (id int PRIMARY KEY, v text); INSERT INTO n_move SELECT g, 'v' FROM generate_series(1, 10) g")
    await pipeline.sql("BEGIN; DELETE FROM n_move WHERE id = 1; ALTER TABLE n_move SET SCHEMA elsewhere; INSERT INTO elsewhere.n_move VALUES (50, 'moved'); DELETE FROM elsewhere.n_move WHERE id = 2; COMMIT")
    const { progress } = await pipeline.catchUp()
    expect(Object.keys(progress.tables)).toEqual(['elsewhere.n_move'])
    await pipeline.expectEqual('n_move', 'elsewhere')
    expect(await pipeline.targets()).toEqual(['elsewhere.n_move'])
    // The former name goes on standing for it.
    const { warnings } = await pipeline.initialize()
    expect(warnings).toContain('table "n_move" is named "elsewhere.n_move" now; it is followed')
    await pipeline.sql("INSERT INTO elsewhere.n_move VALUES (51, 'again')")
    await pipeline.catchUp()
    await pipeline.expectEqual('n_move', 'elsewhere')
  })

  it('follows names that changed while nobody streamed, at the next start and at the next slice', async () => {
    await using pipeline = await ChangingPipeline.over(database.url, 'n_down', "CREATE TABLE n_down (id int PRIMARY KEY, v text); INSERT INTO n_down VALUES (1, 'one')", { columns: { n_down: { v: { dataType: 'VARCHAR' } } } })
    await pipeline.release()
    await pipeline.sql('ALTER TABLE n_down RENAME TO n_down_2')
    const { progress } = await pipeline.catchUp()
    expect(Object.keys(progress.tables)).toEqual(['public.n_down_2'])
    await pipeline.release()
    await pipeline.sql("UPDATE n_down_2 SET v = 'two'; ALTER TABLE n_down_2 RENAME TO n_down_3; INSERT INTO n_down_3 VALUES (3, 'three')")
    await pipeline.sql('ALTER TABLE n_down_3 RENAME TO n_down')
    await pipeline.initialize()
    await pipeline.catchUp()
    await pipeline.expectEqual('n_down')
    await pipeline.sql('ALTER TABLE n_down RENAME TO n_down_4')
    const started = await pipeline.initialize()
    expect(Object.keys(started.tables)).toEqual(['public.n_down_4'])
    await pipeline.sql("INSERT INTO n_down_4 VALUES (4, 'four')")
    await pipeline.catchUp()
    await pipeline.expectEqual('n_down_4')
    expect(await pipeline.targets()).toEqual(['public.n_down_4'])
  })

  it('shows a new name soon where no row changes, and follows a table whose rows are being copied beside', async () => {
    await using pipeline = await ChangingPipeline.over(database.url, 'n_live', "CREATE TABLE n_live (id int PRIMARY KEY, v text); INSERT INTO n_live SELECT g, 'v' || g FROM generate_series(1, 50000) g")
    await pipeline.whileStreaming(async (until) => {
      await pipeline.sql('ALTER TABLE n_live RENAME TO n_live_2')
      await until(({ tables }) => tables['public.n_live_2'] !== undefined)
      await pipeline.sql("ALTER TABLE n_live_2 ADD COLUMN w float DEFAULT random(); INSERT INTO n_live_2 VALUES (0, 'copied again', 1)")
      await pipeline.sql("ALTER TABLE n_live_2 RENAME TO n_live_3; INSERT INTO n_live_3 VALUES (-1, 'renamed', 2)")
      await until(({ tables }) => tables['public.n_live_3']?.state === 'streaming')
    })
    await pipeline.catchUp()
    await pipeline.expectEqual('n_live_3')
    expect(await pipeline.targets()).toEqual(['public.n_live_3'])
  })

  it('stops a table alone whose new name is that of a table which is not ours, until that one is gone', async () => {
    await using pipeline = await ChangingPipeline.over(database.url, 'n_taken', 'CREATE TABLE n_taken (id int PRIMARY KEY); CREATE TABLE n_other (id int PRIMARY KEY)', { tableNames: ['n_taken', 'n_other'] })
    await pipeline.write('CREATE TABLE public.n_stranger (x INTEGER); INSERT INTO public.n_stranger VALUES (1)')
    await pipeline.sql('ALTER TABLE n_taken RENAME TO n_stranger; INSERT INTO n_stranger VALUES (5); INSERT INTO n_other VALUES (6)')
    const { progress } = await pipeline.catchUp()
    expect(progress.tables['public.n_taken']).toMatchObject({ state: 'failed', error: { type: 'InvalidInput', remedy: expect.stringContaining('DROP TABLE') as string } })
    expect(progress.tables['public.n_other']).toMatchObject({ state: 'streaming', inserts: 1 })
    expect(await pipeline.query('SELECT x FROM public.n_stranger')).toEqual([[1]])
    await pipeline.write('DROP TABLE public.n_stranger')
    await pipeline.engine.retryTables({ spec: pipeline.spec, owner: pipeline.owner, tableNames: null })
    await pipeline.catchUp()
    await pipeline.expectEqual('n_stranger')
    expect(await pipeline.targets()).toEqual(['public.n_other', 'public.n_stranger'])
  })

  it('stops a renamed table where schema changes are refused', async () => {
    await using pipeline = await ChangingPipeline.over(database.url, 'n_refuse', 'CREATE TABLE n_refuse (id int PRIMARY KEY)', { schemaChanges: 'refuse' })
    await pipeline.sql('ALTER TABLE n_refuse RENAME TO n_refused; INSERT INTO n_refused VALUES (1)')
    const { progress } = await pipeline.catchUp()
    expect(Object.values(progress.tables)).toEqual([expect.objectContaining({ state: 'failed', error: expect.objectContaining({ type: 'SchemaChangeRefused' }) as unknown })])
    expect(await pipeline.targets()).toEqual(['public.n_refuse'])
  })

  it('streams tables of one name in two schemas side by side, each into its own', async () => {
    await using pipeline = await ChangingPipeline.over(
      database.url,
      'n_same',
      "CREATE SCHEMA n_a; CREATE SCHEMA n_b; CREATE TABLE n_a.t (id int PRIMARY KEY, v text); CREATE TABLE n_b.t (id int CONSTRAINT n_b_key PRIMARY KEY, w numeric(8,2), v int); INSERT INTO n_a.t SELECT g, 'a' || g FROM generate_series(1, 20) g; INSERT INTO n_b.t SELECT g, g / 4.0, g FROM generate_series(5, 30) g",
      { tableNames: ['n_a.t', 'n_b.t'] },
    )
    await pipeline.sql("BEGIN; UPDATE n_a.t SET v = 'both' WHERE id < 9; DELETE FROM n_b.t WHERE id < 9; INSERT INTO n_a.t VALUES (100, 'a'); INSERT INTO n_b.t VALUES (100, 0.25, 1); UPDATE n_b.t SET id = 3 WHERE id = 30; COMMIT")
    await pipeline.sql('TRUNCATE n_b.t; INSERT INTO n_b.t VALUES (1, 1.5, 7); ALTER TABLE n_a.t ADD COLUMN w int DEFAULT 5; UPDATE n_a.t SET w = 6 WHERE id = 1')
    const { progress } = await pipeline.catchUp()
    expect(progress.tables).toMatchObject({ 'n_a.t': { state: 'streaming', snapshotRows: 20, inserts: 1, updates: 9 }, 'n_b.t': { state: 'streaming', snapshotRows: 26, inserts: 2, updates: 1, deletes: 4, truncates: 1 } })
    for (const schema of ['n_a', 'n_b']) await pipeline.expectEqual('t', schema)
    expect(await pipeline.targets()).toEqual(['n_a.t', 'n_b.t'])
    // Each renamed to what the other was.
    await pipeline.sql("BEGIN; ALTER TABLE n_a.t RENAME TO u; ALTER TABLE n_a.u SET SCHEMA n_b; ALTER TABLE n_b.t SET SCHEMA n_a; INSERT INTO n_b.u VALUES (200, 'moved', 1); INSERT INTO n_a.t VALUES (200, 2, 2); COMMIT")
    await pipeline.catchUp()
    await pipeline.expectEqual('u', 'n_b')
    await pipeline.expectEqual('t', 'n_a')
    expect(await pipeline.targets()).toEqual(['n_a.t', 'n_b.u'])
  })

  it('moves nothing at the destination where datasetName has every schema, however a table moves at the source', async () => {
    await using pipeline = await ChangingPipeline.over(database.url, 'n_dataset', "CREATE SCHEMA n_from; CREATE SCHEMA n_to; CREATE TABLE n_from.t (id int PRIMARY KEY, v text); INSERT INTO n_from.t SELECT g, 'v' || g FROM generate_series(1, 20) g", { tableNames: ['n_from.t'], datasetName: 'n_copy' })
    await pipeline.sql("BEGIN; UPDATE n_from.t SET v = 'before' WHERE id = 1; ALTER TABLE n_from.t SET SCHEMA n_to; INSERT INTO n_to.t VALUES (50, 'moved'); DELETE FROM n_to.t WHERE id = 2; COMMIT")
    expect((await pipeline.catchUp()).copied).toEqual({})
    await pipeline.sql("UPDATE n_to.t SET v = 'later' WHERE id = 3")
    const { copied, progress } = await pipeline.catchUp()
    expect([copied, progress.tables]).toEqual([{}, { 'n_to.t': expect.objectContaining({ state: 'streaming' }) as unknown }])
    expect(await pipeline.targets()).toEqual(['n_copy.t'])
    expect(await pipeline.destinationRows('t', 'n_copy')).toEqual(await pipeline.sourceRows('t', 'n_to'))
  })
})
