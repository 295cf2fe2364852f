import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest'
import { specOf } from '../../support/pipeline.ts'
import { ChangingPipeline } from '../../support/schema-changes.ts'
import { createDatabase, type TestDatabase } from '../../support/servers.ts'

describe('tables that leave and come', () => {
  const serverUrl = inject('postgresUrl')
  let database: TestDatabase

  beforeAll(async () => {
    database = await createDatabase(serverUrl)
  })

  afterAll(async () => {
    await database.drop()
  })

  it('keeps the rows of a dropped table, with every change that committed before', async () => {
    await using pipeline = await ChangingPipeline.over(database.url, 'd_drop', 'CREATE TABLE d_drop (id int PRIMARY KEY); CREATE TABLE d_stay (id int PRIMARY KEY); INSERT INTO d_drop SELECT generate_series(1, 10)', { tableNames: ['d_drop', 'd_stay'] })
    await pipeline.whileStreaming(async (until) => {
      for (let id = 100; id < 300; id++) await pipeline.sql(`INSERT INTO d_drop VALUES (${String(id)}); INSERT INTO d_stay VALUES (${String(id)})`)
      await pipeline.sql('BEGIN; DELETE FROM d_drop WHERE id = 1; DROP TABLE d_drop; INSERT INTO d_stay VALUES (1); COMMIT')
      const { tables, warnings } = await until((progress) => progress.tables['public.d_drop']?.state === 'removed')
      expect(tables['public.d_drop']).toMatchObject({ inserts: 200, deletes: 1 })
      expect(warnings).toContainEqual(expect.stringMatching(/^public\.d_drop was dropped at the source: its rows stay here/))
    })
    await pipeline.catchUp()
    expect(await pipeline.query('SELECT count(*)::INTEGER, min(id) FROM public.d_drop')).toEqual([[209, 2]])
    await pipeline.expectEqual('d_stay')
    await expect(pipeline.initialize()).rejects.toMatchObject({ kind: 'InvalidInput', message: 'table "public.d_drop" was dropped at the source' })
  })

  it('takes a table that was dropped while nobody streamed for removed at the next slice', async () => {
    await using pipeline = await ChangingPipeline.over(database.url, 'd_down', 'CREATE TABLE d_down (id int PRIMARY KEY); INSERT INTO d_down VALUES (1)')
    await pipeline.release()
    await pipeline.sql('INSERT INTO d_down VALUES (2); ALTER TABLE d_down ADD COLUMN v text; INSERT INTO d_down VALUES (3); DROP TABLE d_down')
    const { progress } = await pipeline.catchUp()
    expect(progress.tables['public.d_down']?.state).toBe('removed')
    expect(await pipeline.query('SELECT id FROM public.d_down ORDER BY id')).toEqual([[1], [2], [3]])
  })

  it('goes on with the others where a table is dropped before it was copied', async () => {
    await using pipeline = await ChangingPipeline.over(database.url, 'd_copy', 'CREATE TABLE d_copy (id int PRIMARY KEY); CREATE TABLE d_copied (id int PRIMARY KEY)', { tableNames: ['d_copy', 'd_copied'] })
    await pipeline.sql('ALTER TABLE d_copy ADD COLUMN v int DEFAULT 1; INSERT INTO d_copy VALUES (1); INSERT INTO d_copied VALUES (1); DROP TABLE d_copy')
    const { progress } = await pipeline.catchUp()
    expect(progress.tables['public.d_copy']?.state).toBe('removed')
    expect(progress.tables['public.d_copied']).toMatchObject({ state: 'streaming', inserts: 1 })
  })

  it('copies a listed table that was made again under its name at the next start, swapped in at once', async () => {
    await using pipeline = await ChangingPipeline.over(database.url, 'd_again', 'CREATE TABLE d_again (id int PRIMARY KEY, old text); INSERT INTO d_again VALUES (1)')
    await pipeline.sql('DROP TABLE d_again; CREATE TABLE d_again (id int PRIMARY KEY, new int); INSERT INTO d_again SELECT g, g FROM generate_series(1, 5) g')
    const { progress } = await pipeline.catchUp()
    expect(progress.tables['public.d_again']?.state).toBe('removed')
    expect(progress.warnings).toContainEqual(expect.stringContaining('a new table of that name joins when'))
    expect(await pipeline.query('SELECT id, old FROM public.d_again')).toEqual([[1, null]])
    await pipeline.initialize()
    expect(await pipeline.query('SELECT id, old FROM public.d_again')).toEqual([[1, null]])
    await pipeline.copy()
    await pipeline.sql('INSERT INTO d_again VALUES (6, 6)')
    const { progress: after } = await pipeline.catchUp()
    expect(after.tables).toEqual({ 'public.d_again': expect.objectContaining({ state: 'streaming', snapshotRows: 5, inserts: 1 }) as unknown })
    await pipeline.expectEqual('d_again')
    expect(await pipeline.targets()).toEqual(['public.d_again'])
  })

  it('takes a table out that somebody takes out of the publication, and copies it anew when a start names it', async () => {
    await using pipeline = await ChangingPipeline.over(database.url, 'd_pub', 'CREATE TABLE d_pub (id int PRIMARY KEY); CREATE TABLE d_pub_2 (id int PRIMARY KEY); INSERT INTO d_pub VALUES (1)', { tableNames: ['d_pub', 'd_pub_2'] })
    await pipeline.sql('INSERT INTO d_pub VALUES (2)')
    await pipeline.sql(`ALTER PUBLICATION ${pipeline.spec.publicationName} DROP TABLE d_pub`)
    await pipeline.sql('INSERT INTO d_pub VALUES (3)')
    const { progress } = await pipeline.catchUp()
    expect(progress.tables['public.d_pub']).toMatchObject({ state: 'removed' })
    expect(progress.warnings).toContainEqual(expect.stringMatching(/^public\.d_pub is not in the publication any more/))
    expect(await pipeline.query('SELECT id FROM public.d_pub ORDER BY id')).toEqual([[1], [2]])
    await pipeline.initialize()
    await pipeline.sql('INSERT INTO d_pub VALUES (4)')
    await pipeline.catchUp()
    await pipeline.expectEqual('d_pub')
    expect(await pipeline.targets()).toEqual(['public.d_pub', 'public.d_pub_2'])
  })

  // Its record was written over, and nobody knew of the half-filled table any more.
  it('leaves nothing of a copy behind that was running when a start does not name its table any more', async () => {
    let kills = false
    const spec = specOf({ slotName: 'd_copying', tableNames: ['d_copying', 'd_beside'] })
    await using pipeline = new ChangingPipeline(database.url, spec, {
      around: (destination) =>
        new Proxy(destination, {
          get(_, property) {
            const value: unknown = Reflect.get(destination, property)
            if (kills && property === 'swapCopy') return async () => Promise.reject(new Error('killed'))
            return typeof value === 'function' ? (value.bind(destination) as unknown) : value
          },
        }),
    })
    await pipeline.sql('CREATE TABLE d_copying (id int PRIMARY KEY); CREATE TABLE d_beside (id int PRIMARY KEY); INSERT INTO d_copying VALUES (1)')
    await pipeline.initialize()
    await pipeline.copy()
    await pipeline.order({ tag: 'resync', tableNames: ['d_copying'] })
    kills = true
    await expect(pipeline.copy()).rejects.toThrow('killed')
    kills = false
    expect(await pipeline.targets()).toContain('public.d_copying__replication_copy')
    pipeline.spec = { ...pipeline.spec, tableNames: ['d_beside'] }
    await pipeline.initialize()
    expect(await pipeline.targets()).toEqual(['public.d_beside', 'public.d_copying'])
    expect(await pipeline.query('SELECT id FROM public.d_copying')).toEqual([[1]])
  })

  // Published so since PostgreSQL 15.
  describe.runIf(inject('postgresMajor') >= 15)('a whole schema', () => {
    it('lets the newest table of a name have it: dropped and made again, renamed and made again, swapped for a rebuilt one', async () => {
      await using pipeline = await ChangingPipeline.over(
        database.url,
        'w_names',
        "CREATE SCHEMA w_names; CREATE TABLE w_names.a (id int PRIMARY KEY); CREATE TABLE w_names.b (id int PRIMARY KEY, v text); CREATE TABLE w_names.c (id int PRIMARY KEY); INSERT INTO w_names.a VALUES (1); INSERT INTO w_names.b VALUES (1, 'old'); INSERT INTO w_names.c SELECT generate_series(1, 9)",
        { schemaName: 'w_names', tableNames: null },
      )
      await pipeline.sql('DELETE FROM w_names.a; DROP TABLE w_names.a; CREATE TABLE w_names.a (id int PRIMARY KEY, more text)')
      await pipeline.sql("INSERT INTO w_names.a VALUES (5, 'new')")
      await pipeline.sql("UPDATE w_names.b SET v = 'older'; ALTER TABLE w_names.b RENAME TO b_old; CREATE TABLE w_names.b (id int PRIMARY KEY); INSERT INTO w_names.b VALUES (7)")
      await pipeline.sql('BEGIN; CREATE TABLE w_names.c_new (id int PRIMARY KEY, w int); INSERT INTO w_names.c_new SELECT id + 10, 1 FROM w_names.c; DELETE FROM w_names.c WHERE id = 3; DROP TABLE w_names.c; ALTER TABLE w_names.c_new RENAME TO c; INSERT INTO w_names.c VALUES (1, 1); COMMIT')
      const { progress } = await pipeline.catchUp()
      expect(Object.entries(progress.tables).map(([name, { state }]) => `${name} ${state}`).sort()).toEqual(['w_names.a streaming', 'w_names.b streaming', 'w_names.b_old streaming', 'w_names.c streaming'])
      for (const table of ['a', 'b', 'b_old', 'c']) await pipeline.expectEqual(table, 'w_names')
      expect(await pipeline.targets()).toEqual(['w_names.a', 'w_names.b', 'w_names.b_old', 'w_names.c'])
      await pipeline.sql("INSERT INTO w_names.a VALUES (6, 'six'); UPDATE w_names.b_old SET v = 'oldest'; DELETE FROM w_names.b; INSERT INTO w_names.c VALUES (2, 2)")
      await pipeline.catchUp()
      for (const table of ['a', 'b', 'b_old', 'c']) await pipeline.expectEqual(table, 'w_names')
    })

    it('takes a table that moves out for removed, and copies it again when it comes back, without a change', async () => {
      await using pipeline = await ChangingPipeline.over(database.url, 'w_move', 'CREATE SCHEMA w_move; CREATE SCHEMA w_away; CREATE TABLE w_move.t (id int PRIMARY KEY); CREATE TABLE w_move.u (id int PRIMARY KEY); INSERT INTO w_move.t VALUES (1)', { schemaName: 'w_move', tableNames: null })
      await pipeline.sql('INSERT INTO w_move.t VALUES (2); ALTER TABLE w_move.t SET SCHEMA w_away; INSERT INTO w_away.t VALUES (3)')
      const { progress } = await pipeline.catchUp()
      expect(progress.tables['w_move.t']?.state).toBe('removed')
      expect(progress.warnings).toContainEqual(expect.stringMatching(/^w_move\.t is not in the publication any more/))
      expect(await pipeline.query('SELECT id FROM w_move.t ORDER BY id')).toEqual([[1], [2]])
      await pipeline.sql('ALTER TABLE w_away.t SET SCHEMA w_move; CREATE TABLE w_away.v AS SELECT 1 AS id; ALTER TABLE w_away.v ADD PRIMARY KEY (id); ALTER TABLE w_away.v SET SCHEMA w_move')
      await pipeline.whileStreaming(async (until) => {
        await until(({ tables }) => tables['w_move.t']?.state === 'streaming' && tables['w_move.v']?.state === 'streaming')
      })
      await pipeline.expectEqual('t', 'w_move')
      await pipeline.expectEqual('v', 'w_move')
      expect(await pipeline.targets()).toEqual(['w_move.t', 'w_move.u', 'w_move.v'])
    })

    // Cause: at either look it was where it should be.
    it('copies a table again that was in another schema for a while, between two looks', async () => {
      await using pipeline = await ChangingPipeline.over(database.url, 'w_while', "CREATE SCHEMA w_while; CREATE SCHEMA w_where; CREATE TABLE w_while.t (id int PRIMARY KEY, v text); INSERT INTO w_while.t VALUES (1, 'a'), (2, 'b')", { schemaName: 'w_while', tableNames: null })
      await pipeline.sql("BEGIN; ALTER TABLE w_while.t SET SCHEMA w_where; UPDATE w_where.t SET v = 'away' WHERE id = 1; DELETE FROM w_where.t WHERE id = 2; ALTER TABLE w_where.t SET SCHEMA w_while; COMMIT")
      expect((await pipeline.catchUp()).copied).toEqual({ 'w_while.t': { rows: 1 } })
      await pipeline.expectEqual('t', 'w_while')
      await pipeline.sql('ALTER TABLE w_while.t RENAME TO u; ALTER TABLE w_while.u RENAME TO t')
      expect((await pipeline.catchUp()).copied).toEqual({})
    })

    // It was registered by what the input asks for, so that a key which came again, its delete not published, stood twice.
    it("takes a table that joins by what somebody's publication sends", async () => {
      await using setUp = new ChangingPipeline(database.url, specOf({ slotName: 'w_sent', tableNames: null }))
      await setUp.sql("CREATE SCHEMA w_sent; CREATE TABLE w_sent.first (id int PRIMARY KEY); CREATE PUBLICATION w_sent_pub FOR TABLES IN SCHEMA w_sent WITH (publish = 'insert, update')")
      await using pipeline = await ChangingPipeline.over(database.url, 'w_sent', 'SELECT 1', { schemaName: 'w_sent', tableNames: null })
      await pipeline.sql('CREATE TABLE w_sent.later (id int PRIMARY KEY, v text)')
      await pipeline.whileStreaming(async (until) => {
        await until(({ tables }) => tables['w_sent.later']?.state === 'streaming')
      })
      await pipeline.sql("INSERT INTO w_sent.later VALUES (1, 'a'); DELETE FROM w_sent.later; INSERT INTO w_sent.later VALUES (1, 'b')")
      await pipeline.catchUp()
      expect(await pipeline.query('SELECT id, v FROM w_sent.later')).toEqual([[1, 'b']])
    })

    it('keeps an append history aside when another table takes its name', async () => {
      await using pipeline = await ChangingPipeline.over(database.url, 'w_append', 'CREATE SCHEMA w_append; CREATE TABLE w_append.t (id int PRIMARY KEY); INSERT INTO w_append.t VALUES (1)', { schemaName: 'w_append', tableNames: null, writeMode: 'append' })
      await pipeline.sql('INSERT INTO w_append.t VALUES (2); DROP TABLE w_append.t; CREATE TABLE w_append.t (id int PRIMARY KEY); INSERT INTO w_append.t VALUES (3)')
      await pipeline.catchUp()
      const targets = await pipeline.targets()
      expect(targets).toEqual(['w_append.t', expect.stringMatching(/^w_append\.t__removed_\d+$/)])
      expect(await pipeline.query('SELECT id FROM w_append.t')).toEqual([[3]])
      expect(await pipeline.query(`SELECT id FROM ${targets[1] ?? ''} ORDER BY id`)).toEqual([[1], [2]])
    })
  })
})
