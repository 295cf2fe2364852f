import pg from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { specOf, TestPipeline } from '../../support/pipeline.ts'
import { createDatabase, type TestDatabase } from '../../support/servers.ts'
import { testServers } from '../../support/test-servers.ts'

// What the user finds made already, or asks to be made otherwise than by default: publications, slots, operations, columns.
describe.each(testServers())('on $name', ({ url }) => {
  let database: TestDatabase
  /** Row filters and column lists came with PostgreSQL 15. */
  let hasLists: boolean
  const pipelines: TestPipeline[] = []

  beforeAll(async () => {
    database = await createDatabase(url)
    const client = new pg.Client({ connectionString: database.url })
    await client.connect()
    const { rows } = await client.query<{ version: number }>("SELECT current_setting('server_version_num')::int AS version")
    await client.end()
    hasLists = (rows[0]?.version ?? 0) >= 150_000
  })

  afterAll(async () => {
    for (const pipeline of pipelines) await pipeline[Symbol.asyncDispose]()
    await database.drop()
  })

  async function pipelineOf(name: string, ddl: string, given: Partial<Parameters<typeof specOf>[0]> = {}): Promise<TestPipeline> {
    const pipeline = new TestPipeline(database.url, specOf({ slotName: `${name}_given`, publicationName: `${name}_pub`, tableNames: [name], ...given }))
    pipelines.push(pipeline)
    await pipeline.sql(ddl)
    return pipeline
  }

  /** What both sides hold, by one query that both understand. */
  async function expectSame(pipeline: TestPipeline, source: string, destination = source): Promise<unknown[][]> {
    const { rows } = await pipeline.source.query<unknown[]>({ text: source, rowMode: 'array' })
    expect(await pipeline.query(destination.replaceAll('FROM g_', 'FROM public.g_'))).toEqual(rows)
    return rows
  }

  async function newSlot(pipeline: TestPipeline): Promise<string> {
    const { rows } = await pipeline.sql("SELECT lsn::text AS lsn FROM pg_create_logical_replication_slot($1, 'pgoutput')", [pipeline.spec.slotName])
    return (rows as { lsn: string }[])[0]?.lsn ?? ''
  }

  it("copies and streams what somebody's publication filters: rows, columns and operations", async () => {
    if (!hasLists) return
    const pipeline = await pipelineOf(
      'g_filtered',
      `CREATE TABLE g_filtered (id int, region text, kept text, hidden text, PRIMARY KEY (id, region));
       INSERT INTO g_filtered SELECT g, CASE WHEN g % 2 = 0 THEN 'eu' ELSE 'us' END, 'k' || g, 'secret' || g FROM generate_series(1, 20) g;
       CREATE PUBLICATION g_filtered_pub FOR TABLE g_filtered (id, region, kept) WHERE (region = 'eu') WITH (publish = 'insert, update, delete')`,
    )
    const { warnings } = await pipeline.initialize()
    expect(warnings.join('\n')).toMatch(/match its filter; the copy takes the same/)
    expect(warnings.join('\n')).toMatch(/left out: hidden/)
    expect(warnings.join('\n')).toMatch(/publishes insert, update, delete, not/)
    expect((await pipeline.copy()).copied).toEqual({ 'public.g_filtered': { rows: 10 } })
    const wanted = "SELECT id, region, kept FROM g_filtered WHERE region = 'eu' ORDER BY id"
    const all = wanted.replace("WHERE region = 'eu' ", '')
    await expectSame(pipeline, wanted, all)
    expect(await pipeline.query("SELECT column_name FROM information_schema.columns WHERE table_name = 'g_filtered' AND column_name = 'hidden'")).toEqual([])

    await pipeline.sql("INSERT INTO g_filtered VALUES (100, 'eu', 'in', 'x'), (101, 'us', 'out', 'x'); DELETE FROM g_filtered WHERE id IN (2, 3)")
    // Over the filter's border in both directions, and inside it.
    await pipeline.sql("UPDATE g_filtered SET region = 'eu' WHERE id = 5; UPDATE g_filtered SET region = 'us' WHERE id = 6; UPDATE g_filtered SET kept = 'changed', hidden = 'too' WHERE id IN (7, 8)")
    await pipeline.catchUp()
    const rows = await expectSame(pipeline, wanted, all)
    expect(rows).toHaveLength(10)
    expect(rows).toContainEqual([5, 'eu', 'k5'])

    // Not published, so it has not happened here.
    await pipeline.sql('TRUNCATE g_filtered')
    await pipeline.catchUp()
    expect(await pipeline.query('SELECT count(*) FROM public.g_filtered')).toEqual([['10']])
  })

  it("adopts somebody's slot: initial copies anew and takes nothing twice", async () => {
    const pipeline = await pipelineOf('g_adopted', 'CREATE TABLE g_adopted (id int PRIMARY KEY, v text); INSERT INTO g_adopted VALUES (1, NULL); CREATE PUBLICATION g_adopted_pub FOR TABLE g_adopted')
    await newSlot(pipeline)
    await pipeline.sql("INSERT INTO g_adopted VALUES (2, 'behind the slot'); UPDATE g_adopted SET v = 'changed' WHERE id = 1")
    const init = await pipeline.initialize()
    expect(init.created).toEqual({ slot: false, publication: false })
    expect(init.warnings).toContainEqual(expect.stringMatching(/made by somebody else and is adopted: all tables are copied anew/))
    expect((await pipeline.copy()).copied).toEqual({ 'public.g_adopted': { rows: 2 } })
    await pipeline.sql("INSERT INTO g_adopted VALUES (3, 'after')")
    expect((await pipeline.catchUp()).changes['public.g_adopted']).toMatchObject({ inserts: 1, updates: 0 })
    await expectSame(pipeline, 'SELECT id, v FROM g_adopted ORDER BY id')
    // Its note makes it ours: a second init adopts nothing.
    expect((await pipeline.initialize()).warnings).toEqual([])
  })

  it("adopts somebody's slot: never goes on at its position", async () => {
    const pipeline = await pipelineOf('g_onward', "CREATE TABLE g_onward (id int PRIMARY KEY, v text); INSERT INTO g_onward VALUES (1, 'not copied'); CREATE PUBLICATION g_onward_pub FOR TABLE g_onward", { snapshotMode: 'never' })
    const position = await newSlot(pipeline)
    await pipeline.sql("INSERT INTO g_onward VALUES (2, 'behind the slot')")
    const init = await pipeline.initialize()
    expect(init.warnings).toContainEqual(expect.stringMatching(/made by somebody else and is adopted: goes on at its position/))
    expect(init.consistentPoint).toBe(position)
    const result = await pipeline.catchUp()
    expect(result.fromLsn).toBe(position)
    expect(result.changes['public.g_onward']).toMatchObject({ inserts: 1 })
    await expectSame(pipeline, 'SELECT id, v FROM g_onward WHERE id > 1 ORDER BY id', 'SELECT id, v FROM g_onward ORDER BY id')
  })

  it('never copies: an update of a row that is not there inserts it, with what the stream leaves out read from the source', async () => {
    const pipeline = await pipelineOf(
      'g_never',
      `CREATE TABLE g_never (id int, at numeric, n int, big text, PRIMARY KEY (id, at)); ALTER TABLE g_never ALTER big SET STORAGE EXTERNAL;
       INSERT INTO g_never SELECT g, g + 0.5, 0, repeat(md5(g::text), 300) FROM generate_series(1, 6) g`,
      { snapshotMode: 'never' },
    )
    const { progress } = await pipeline.initialize()
    expect(progress.tables['public.g_never']).toMatchObject({ state: 'streaming', snapshotRows: 0 })
    await pipeline.sql('UPDATE g_never SET n = 1 WHERE id <= 3; UPDATE g_never SET id = 40, n = 4 WHERE id = 4; DELETE FROM g_never WHERE id IN (3, 6)')
    await pipeline.sql("INSERT INTO g_never VALUES (7, 7.25, 7, 'new'); UPDATE g_never SET n = 70 WHERE id = 7")
    await pipeline.catchUp()
    const rows = await expectSame(pipeline, 'SELECT id, n, md5(big) FROM g_never WHERE n > 0 ORDER BY id', 'SELECT id, n, md5(big) FROM g_never ORDER BY id')
    expect(rows.map(([id]) => id)).toEqual([1, 2, 7, 40])
    // Cause: the source was asked for the names that columns had at that place of the stream; it could never get past it.
    await pipeline.sql('UPDATE g_never SET n = 8 WHERE id = 5; ALTER TABLE g_never RENAME big TO large; ALTER TABLE g_never RENAME id TO number; ALTER TABLE g_never ADD big text; UPDATE g_never SET n = n + 1')
    await pipeline.catchUp()
    await expectSame(pipeline, 'SELECT number, n, md5(large), big FROM g_never ORDER BY number')
    await pipeline.sql("INSERT INTO g_never VALUES (8, 8, 8, repeat('x', 9000)); UPDATE g_never SET n = 9 WHERE number = 8; ALTER TABLE g_never DROP COLUMN large; UPDATE g_never SET n = 10 WHERE number = 8")
    await pipeline.catchUp()
    await expectSame(pipeline, 'SELECT number, n, big FROM g_never ORDER BY number')
  })

  it('never goes on with the rows that are there, and holds a key once that comes again', async () => {
    const pipeline = await pipelineOf('g_there', "CREATE TABLE g_there (id int PRIMARY KEY, v text); INSERT INTO g_there VALUES (1, 'a')", { snapshotMode: 'never' })
    await pipeline.write("CREATE SCHEMA public; CREATE TABLE public.g_there (id INTEGER, v VARCHAR, _lsn UBIGINT); INSERT INTO public.g_there VALUES (1, 'kept', 0), (2, 'from before', 0)")
    await pipeline.initialize()
    await pipeline.sql("INSERT INTO g_there VALUES (2, 'new')")
    await pipeline.catchUp()
    expect(await pipeline.query('SELECT id, v FROM public.g_there ORDER BY id')).toEqual([[1, 'kept'], [2, 'new']])
  })

  it('never stops a table rather than hold NULL for a value of the source that does not fit', async () => {
    const pipeline = await pipelineOf(
      'g_wide',
      `CREATE TABLE g_wide (id int PRIMARY KEY, n int, wide numeric); ALTER TABLE g_wide ALTER wide SET STORAGE EXTERNAL; INSERT INTO g_wide VALUES (1, 0, repeat('7', 9000)::numeric)`,
      { snapshotMode: 'never' },
    )
    await pipeline.initialize()
    await pipeline.sql('UPDATE g_wide SET n = 1')
    const { tables } = (await pipeline.catchUp()).progress
    expect(tables['public.g_wide']).toMatchObject({ state: 'failed', error: { type: 'UnrepresentableValue', message: expect.stringContaining('"wide"') as string } })
    expect(JSON.stringify(tables)).not.toContain('7777')
  })

  it('never stops a table, and no other, rather than try for ever to make a value of the source into what DuckDB refuses', async () => {
    const pipeline = await pipelineOf(
      'g_json',
      `CREATE TABLE g_json (id int PRIMARY KEY, n int, big json); ALTER TABLE g_json ALTER big SET STORAGE EXTERNAL;
       INSERT INTO g_json VALUES (1, 0, ('{"a": "\\ud800", "b": "' || repeat('x', 9000) || '"}')::json)`,
      { snapshotMode: 'never' },
    )
    await pipeline.initialize()
    await pipeline.sql('UPDATE g_json SET n = 1')
    const { tables } = (await pipeline.catchUp()).progress
    expect(tables['public.g_json']).toMatchObject({ state: 'failed', error: { type: 'UnrepresentableValue', message: expect.stringContaining('"big"') as string } })
  })

  it.each([
    ['merge', {}, 'true'],
    ['soft', { deleteMode: 'soft' }, '_deleted_at IS NULL'],
    ['scd2', { writeMode: 'scd2' }, '_is_current'],
    ['append', { writeMode: 'append' }, "_op = 'insert'"],
  ] as const)('never: takes no value that nobody knew for NULL when the row moves on (%s)', async (name, given, isCurrent) => {
    const table = `g_moved_${name}`
    const pipeline = await pipelineOf(
      table,
      `CREATE TABLE ${table} (id int PRIMARY KEY, n int, big text); ALTER TABLE ${table} ALTER big SET STORAGE EXTERNAL; INSERT INTO ${table} VALUES (1, 0, repeat('a', 9000))`,
      { snapshotMode: 'never', ...given },
    )
    await pipeline.initialize()
    await pipeline.sql(`UPDATE ${table} SET n = 1`)
    await pipeline.sql(`UPDATE ${table} SET id = 2`)
    await pipeline.catchUp()
    expect(await expectSame(pipeline, `SELECT id, n, md5(big) FROM ${table}`, `SELECT id, n, md5(big) FROM ${table} WHERE ${isCurrent}`)).toHaveLength(1)
  })

  it('never reads what the stream leaves out from the source for thousands of rows, arrays and what is NULL by now too', async () => {
    const pipeline = await pipelineOf(
      'g_many',
      `CREATE TABLE g_many (id numeric PRIMARY KEY, n int, big text, items int[]); ALTER TABLE g_many ALTER big SET STORAGE EXTERNAL, ALTER items SET STORAGE EXTERNAL;
       INSERT INTO g_many SELECT g + 0.5, 0, repeat(md5(g::text), 70), CASE WHEN g % 500 = 0 THEN (SELECT array_agg(i * g) FROM generate_series(1, 600) i) END FROM generate_series(1, 2500) g`,
      { snapshotMode: 'never' },
    )
    await pipeline.initialize()
    await pipeline.sql('UPDATE g_many SET n = 1')
    await pipeline.sql('UPDATE g_many SET big = NULL, n = 2 WHERE id < 10; DELETE FROM g_many WHERE id > 2400')
    await pipeline.catchUp()
    const rows = await expectSame(
      pipeline,
      "SELECT n, count(*)::text, count(big)::text, count(DISTINCT big)::text, sum(array_length(items, 1))::text, md5(string_agg(big, '' ORDER BY id)) FROM g_many GROUP BY n ORDER BY n",
      "SELECT n, count(*)::text, count(big)::text, count(DISTINCT big)::text, sum(len(items))::text, md5(string_agg(big, '' ORDER BY id)) FROM g_many GROUP BY n ORDER BY n",
    )
    expect(rows.map(([n, count]) => [n, count])).toEqual([[1, '2390'], [2, '9']])
  })

  it('takes no value from the row that was deleted before another came to its key unpublished', async () => {
    const pipeline = await pipelineOf('g_unseen', "CREATE TABLE g_unseen (id int PRIMARY KEY, n int, big text); ALTER TABLE g_unseen ALTER big SET STORAGE EXTERNAL; INSERT INTO g_unseen VALUES (1, 0, repeat('a', 9000))", { publish: ['update', 'delete'] })
    await pipeline.initialize()
    await pipeline.copy()
    await pipeline.sql('DELETE FROM g_unseen')
    await pipeline.sql("INSERT INTO g_unseen VALUES (1, 0, repeat('b', 9000))")
    await pipeline.sql('UPDATE g_unseen SET n = 5')
    await pipeline.catchUp()
    expect(await expectSame(pipeline, 'SELECT id, n, md5(big) FROM g_unseen')).toHaveLength(1)
  })

  it('keeps what was deleted where deletes are not published', async () => {
    const pipeline = await pipelineOf('g_kept', "CREATE TABLE g_kept (id int PRIMARY KEY, v text); INSERT INTO g_kept VALUES (1, 'a'), (2, 'b')", { publish: ['insert', 'update'] })
    await pipeline.initialize()
    await pipeline.copy()
    await pipeline.sql("DELETE FROM g_kept WHERE id = 1; UPDATE g_kept SET v = 'bb' WHERE id = 2; INSERT INTO g_kept VALUES (3, 'c')")
    expect((await pipeline.catchUp()).changes['public.g_kept']).toEqual({ inserts: 1, updates: 1, deletes: 0, truncates: 0 })
    expect(await pipeline.query('SELECT id, v FROM public.g_kept ORDER BY id')).toEqual([[1, 'a'], [2, 'bb'], [3, 'c']])
  })

  // Cause: an insert was taken for a row that cannot be here, which it can where what took its key away at the source was not published.
  it.each([
    [['insert', 'update', 'truncate'], "DELETE FROM g_again; INSERT INTO g_again VALUES (1, 'again')"],
    [['insert', 'update', 'delete'], "TRUNCATE g_again; INSERT INTO g_again VALUES (1, 'again'), (3, 'c')"],
    [['insert', 'delete', 'truncate'], "UPDATE g_again SET id = 10 WHERE id = 1; INSERT INTO g_again VALUES (1, 'again')"],
    [['insert'], "DELETE FROM g_again; INSERT INTO g_again VALUES (1, 'again'), (3, 'c')"],
  ] as const)('holds a key once that comes again, where the publication sends %s', async (publish, change) => {
    const name = `g_again_${publish.map((operation) => operation.charAt(0)).join('')}`
    const named = (sql: string): string => sql.replaceAll('g_again', name)
    const pipeline = await pipelineOf(name, named("CREATE TABLE g_again (id int PRIMARY KEY, v text); INSERT INTO g_again VALUES (1, 'a'), (2, 'b')"), { publish, writeMode: 'merge' })
    await pipeline.initialize()
    await pipeline.copy()
    await pipeline.sql(named(change))
    await pipeline.catchUp()
    const rows = await pipeline.query(`SELECT id, v FROM public.${name} WHERE id < 10 ORDER BY id`)
    expect(rows).toEqual(change.includes("'c'") ? [[1, 'again'], [2, 'b'], [3, 'c']] : [[1, 'again'], [2, 'b']])
  })

  it('appends by default where only inserts are published, also for a table without any identity', async () => {
    const pipeline = await pipelineOf('g_log', "CREATE TABLE g_log (day int, line text); INSERT INTO g_log VALUES (1, 'copied')", { publish: ['insert'], writeMode: {} })
    await pipeline.initialize()
    await pipeline.copy()
    // PostgreSQL lets its owner change it: that is not published.
    await pipeline.sql("INSERT INTO g_log VALUES (2, 'x'), (2, 'x'); UPDATE g_log SET line = 'y' WHERE day = 2; DELETE FROM g_log WHERE day = 1")
    await pipeline.catchUp()
    expect(await pipeline.query('SELECT day, line, _op FROM public.g_log ORDER BY _lsn, _seq')).toEqual([[1, 'copied', 'snapshot'], [2, 'x', 'insert'], [2, 'x', 'insert']])
  })

  it('replicates the included columns and the key, by a column list where the server has them', async () => {
    const pipeline = await pipelineOf(
      'g_columns',
      `CREATE TABLE g_columns (id int PRIMARY KEY, "Kept Too" text, wide text, hidden text); ALTER TABLE g_columns ALTER wide SET STORAGE EXTERNAL;
       INSERT INTO g_columns SELECT g, 'k' || g, repeat('w', 5000), 'secret' FROM generate_series(1, 3) g`,
      { includeColumns: { g_columns: ['Kept Too', 'wide'] } },
    )
    await pipeline.initialize()
    await pipeline.copy()
    await pipeline.sql(`UPDATE g_columns SET hidden = 'other' WHERE id = 1; UPDATE g_columns SET "Kept Too" = 'changed' WHERE id = 2; INSERT INTO g_columns VALUES (4, 'new', 'w', 'secret')`)
    await pipeline.catchUp()
    const columns = 'SELECT id, "Kept Too", length(wide) FROM g_columns ORDER BY id'
    await expectSame(pipeline, columns.replace('length(wide)', 'length(wide)::text'), columns)
    expect(await pipeline.query("SELECT column_name FROM information_schema.columns WHERE table_name = 'g_columns' ORDER BY ordinal_position")).toEqual([['id'], ['Kept Too'], ['wide'], ['_lsn']])
    if (!hasLists) return
    const { rows } = await pipeline.sql("SELECT attnames::text AS sent FROM pg_publication_tables WHERE pubname = 'g_columns_pub'")
    expect(rows).toEqual([{ sent: '{id,"Kept Too",wide}' }])
  })
})
