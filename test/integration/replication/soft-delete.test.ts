import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest'
import { openDuckDbDestination } from '../../../src/destinations/duckdb/destination.ts'
import { copiedAnew } from '../../../src/replication/retry.ts'
import { differences, specOf, TestPipeline } from '../../support/pipeline.ts'
import { createDatabase, type TestDatabase } from '../../support/servers.ts'

let database: TestDatabase

beforeAll(async () => {
  database = await createDatabase(inject('postgresUrl'))
})

afterAll(async () => {
  await database.drop()
})

/** A pipeline over a fresh table, initialized and copied. */
async function copied(name: string, ddl: string, given: Partial<Parameters<typeof specOf>[0]> = {}): Promise<TestPipeline> {
  const pipeline = new TestPipeline(database.url, specOf({ slotName: name, tableNames: [name], deleteMode: 'soft', ...given }))
  await pipeline.sql(ddl)
  await pipeline.initialize()
  await pipeline.copy()
  return pipeline
}

async function dispose(pipeline: TestPipeline): Promise<void> {
  const { slotName, publicationName } = pipeline.spec
  await pipeline.engine.drop({ source: 'shop', destination: 'warehouse', slotName, publicationName, dropDestination: true }, pipeline.context())
  await pipeline[Symbol.asyncDispose]()
}

/** What an order to copy the tables anew does. */
async function copyAgain(pipeline: TestPipeline): Promise<void> {
  await pipeline.release()
  const destination = await openDuckDbDestination({ path: pipeline.file })
  try {
    const key = { source: 'shop', slotName: pipeline.spec.slotName }
    const { owner, tables } = (await destination.loadPipeline(key)) ?? { owner: null, tables: [] }
    const { epoch } = await destination.claim(key, 'test', owner)
    await destination.saveTables({ ...key, owner: 'test', epoch }, tables.map(copiedAnew))
    await destination.release(key, 'test')
  } finally {
    await destination.close()
  }
}

/** The commit time of each transaction since, as the source notes it, is between these two. */
async function between(pipeline: TestPipeline, work: () => Promise<unknown>): Promise<readonly [string, string]> {
  const now = async (): Promise<string> => {
    const { rows } = await pipeline.sql("SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') AS t")
    return (rows as readonly { readonly t: string }[])[0]?.t ?? ''
  }
  const before = await now()
  await work()
  return [before, await now()]
}

describe('deleteMode soft', () => {
  it('marks deleted rows with the commit time, and takes the mark away when the key is inserted again', async () => {
    const pipeline = await copied('soft_basic', "CREATE TABLE soft_basic (id int PRIMARY KEY, v text); INSERT INTO soft_basic VALUES (1, 'a'), (2, 'b'), (3, 'c'), (4, 'd')")
    try {
      const [from, to] = await between(pipeline, async () => pipeline.sql('DELETE FROM soft_basic WHERE id = 1'))
      await pipeline.catchUp()
      expect(await pipeline.query(`SELECT id, v FROM public.soft_basic WHERE _deleted_at BETWEEN '${from}+00' AND '${to}+00'`)).toEqual([[1, 'a']])
      expect(await pipeline.query('SELECT count(*)::INTEGER FROM public.soft_basic WHERE _deleted_at IS NULL')).toEqual([[3]])
      // Of one batch: the row has the values that it had last, whoever wrote them.
      await pipeline.sql("UPDATE soft_basic SET v = 'bb' WHERE id = 2; DELETE FROM soft_basic WHERE id = 2")
      await pipeline.sql("UPDATE soft_basic SET id = 30 WHERE id = 3")
      await pipeline.sql("INSERT INTO soft_basic VALUES (5, 'short')")
      await pipeline.sql('DELETE FROM soft_basic WHERE id = 5')
      await pipeline.catchUp()
      const held = 'SELECT id, v, _deleted_at IS NOT NULL FROM public.soft_basic ORDER BY id'
      expect(await pipeline.query(held)).toEqual([[1, 'a', true], [2, 'bb', true], [3, 'c', true], [4, 'd', false], [5, 'short', true], [30, 'c', false]])
      // Nothing but inserts: the way that needs no look at the keys is not taken.
      await pipeline.sql("INSERT INTO soft_basic VALUES (1, 'again'), (6, 'new')")
      await pipeline.catchUp()
      expect(await pipeline.query(`${held} LIMIT 1`)).toEqual([[1, 'again', false]])
      expect(differences(await unmarked(pipeline, 'soft_basic'), await pipeline.sourceRows('soft_basic'))).toEqual({ missing: [], extra: [] })
    } finally {
      await dispose(pipeline)
    }
  })

  it('marks every row upon TRUNCATE, with what comes after it in the same transaction unmarked', async () => {
    const pipeline = await copied('soft_truncate', "CREATE TABLE soft_truncate (id int PRIMARY KEY, v text); INSERT INTO soft_truncate SELECT g, 'v' || g FROM generate_series(1, 5) g")
    try {
      await pipeline.sql('DELETE FROM soft_truncate WHERE id = 5')
      await pipeline.catchUp()
      const [[first]] = (await pipeline.query('SELECT _deleted_at::VARCHAR FROM public.soft_truncate WHERE id = 5')) as [[string]]
      await pipeline.sql("BEGIN; INSERT INTO soft_truncate VALUES (6, 'six'); TRUNCATE soft_truncate; INSERT INTO soft_truncate VALUES (1, 'one'), (7, 'seven'); COMMIT")
      await pipeline.catchUp()
      expect(await pipeline.query('SELECT id, v FROM public.soft_truncate WHERE _deleted_at IS NULL ORDER BY id')).toEqual([[1, 'one'], [7, 'seven']])
      expect(await pipeline.query('SELECT id FROM public.soft_truncate WHERE _deleted_at IS NOT NULL ORDER BY id')).toEqual([[2], [3], [4], [5], [6]])
      // A row keeps the time of its own delete.
      expect(await pipeline.query('SELECT _deleted_at::VARCHAR FROM public.soft_truncate WHERE id = 5')).toEqual([[first]])
    } finally {
      await dispose(pipeline)
    }
  })

  it('keeps unchanged TOAST values of rows that are deleted later, and through key changes', async () => {
    const pipeline = await copied('soft_toast', 'CREATE TABLE soft_toast (id int PRIMARY KEY, n int, big text); ALTER TABLE soft_toast ALTER big SET STORAGE EXTERNAL')
    try {
      await pipeline.sql("INSERT INTO soft_toast SELECT g, 0, repeat(md5(g::text), 400) FROM generate_series(1, 4) g")
      await pipeline.sql('UPDATE soft_toast SET n = 1 WHERE id = 1; DELETE FROM soft_toast WHERE id = 1; UPDATE soft_toast SET id = 20 WHERE id = 2')
      await pipeline.catchUp()
      await pipeline.sql('UPDATE soft_toast SET n = 3 WHERE id = 3; UPDATE soft_toast SET id = 30 WHERE id = 3; DELETE FROM soft_toast WHERE id = 30')
      await pipeline.catchUp()
      const rows = await pipeline.query('SELECT id, n, big = repeat(md5((CASE WHEN id >= 20 THEN id // 10 ELSE id END)::VARCHAR), 400), _deleted_at IS NOT NULL FROM public.soft_toast ORDER BY id')
      expect(rows).toEqual([[1, 1, true, true], [2, 0, true, true], [3, 3, true, true], [4, 0, true, false], [20, 0, true, false], [30, 3, true, true]])
    } finally {
      await dispose(pipeline)
    }
  })

  it('takes no unchanged value from a marked row: the key may be that of another row by now', async () => {
    const pipeline = await copied('soft_other', "CREATE TABLE soft_other (id int PRIMARY KEY, n int, big text); ALTER TABLE soft_other ALTER big SET STORAGE EXTERNAL; INSERT INTO soft_other VALUES (1, 0, repeat('a', 9000))", { publish: ['update', 'delete'] })
    try {
      await pipeline.sql('DELETE FROM soft_other')
      await pipeline.catchUp()
      await pipeline.sql("INSERT INTO soft_other VALUES (1, 0, repeat('b', 9000)); UPDATE soft_other SET n = 1")
      await pipeline.catchUp()
      expect(differences(await unmarked(pipeline, 'soft_other'), await pipeline.sourceRows('soft_other'))).toEqual({ missing: [], extra: [] })
    } finally {
      await dispose(pipeline)
    }
  })

  it('keeps marked rows through schema changes, in place and by a fresh copy, and marks what went unseen', async () => {
    const pipeline = await copied('soft_ddl', "CREATE TABLE soft_ddl (id int PRIMARY KEY, a text, n int); INSERT INTO soft_ddl SELECT g, 'a' || g, g FROM generate_series(1, 5) g")
    try {
      await pipeline.sql("BEGIN; DELETE FROM soft_ddl WHERE id = 1; ALTER TABLE soft_ddl ADD COLUMN b int; ALTER TABLE soft_ddl RENAME COLUMN a TO aa; UPDATE soft_ddl SET b = 2 WHERE id = 2; COMMIT")
      await pipeline.catchUp()
      // Old rows get a value, and a type changes: what the stream cannot tell.
      await pipeline.sql("DELETE FROM soft_ddl WHERE id = 2; ALTER TABLE soft_ddl ADD COLUMN c int DEFAULT 9; ALTER TABLE soft_ddl ALTER n TYPE text USING 'n' || n; INSERT INTO soft_ddl VALUES (6, 'a6', 'six', 6, 6); DELETE FROM soft_ddl WHERE id = 3")
      const { copied: again } = await pipeline.catchUp()
      expect(Object.keys(again)).toEqual(['public.soft_ddl'])
      expect(differences(await unmarked(pipeline, 'soft_ddl'), await pipeline.sourceRows('soft_ddl'))).toEqual({ missing: [], extra: [] })
      expect(await pipeline.query('SELECT id, aa, n, b, c FROM public.soft_ddl WHERE _deleted_at IS NOT NULL ORDER BY id')).toEqual([
        [1, 'a1', '1', null, null],
        [2, 'a2', '2', 2, null],
        [3, 'a3', '3', null, null],
      ])
      await pipeline.sql("INSERT INTO soft_ddl VALUES (1, 'back', 'again', 1, 1); DELETE FROM soft_ddl WHERE id = 6")
      await pipeline.catchUp()
      expect(await pipeline.query('SELECT id FROM public.soft_ddl WHERE _deleted_at IS NOT NULL ORDER BY id')).toEqual([[2], [3], [6]])
      expect(differences(await unmarked(pipeline, 'soft_ddl'), await pipeline.sourceRows('soft_ddl'))).toEqual({ missing: [], extra: [] })
    } finally {
      await dispose(pipeline)
    }
  })

  // Cause: rows were joined in a table of a name that another table may have; that error of one table ended every session.
  it('is copied anew beside tables of similar names; what cannot be swapped in stops that table alone', async () => {
    const pipeline = await copied('soft_swap', "CREATE TABLE soft_swap__joined (id int PRIMARY KEY); CREATE TABLE soft_swap (id int PRIMARY KEY, v text); INSERT INTO soft_swap VALUES (1, 'a'), (2, 'b')", { tableNames: ['soft_swap', 'soft_swap__joined'] })
    try {
      await pipeline.sql('DELETE FROM soft_swap WHERE id = 1')
      await pipeline.catchUp()
      await copyAgain(pipeline)
      expect((await pipeline.catchUp()).progress.tables['public.soft_swap']?.state).toBe('streaming')
      expect(await pipeline.query('SELECT id, v, _deleted_at IS NULL FROM public.soft_swap ORDER BY id')).toEqual([[1, 'a', false], [2, 'b', true]])
      await pipeline.write('ALTER TABLE public.soft_swap DROP COLUMN v')
      await copyAgain(pipeline)
      await pipeline.sql('INSERT INTO soft_swap__joined VALUES (7)')
      const { progress } = await pipeline.catchUp()
      expect(progress.tables['public.soft_swap']).toMatchObject({ state: 'failed', error: { type: 'DestinationFailed' } })
      expect(await pipeline.query('SELECT id FROM public.soft_swap__joined')).toEqual([[7]])
    } finally {
      await dispose(pipeline)
    }
  })

  it('marks what it is told of with snapshotMode never, and nothing that it never had', async () => {
    const pipeline = new TestPipeline(database.url, specOf({ slotName: 'soft_never', tableNames: ['soft_never'], deleteMode: 'soft', snapshotMode: 'never' }))
    try {
      await pipeline.sql("CREATE TABLE soft_never (id int PRIMARY KEY, v text); INSERT INTO soft_never VALUES (1, 'a'), (2, 'b')")
      await pipeline.initialize()
      await pipeline.sql("DELETE FROM soft_never WHERE id = 1; UPDATE soft_never SET v = 'bb' WHERE id = 2; INSERT INTO soft_never VALUES (3, 'c')")
      await pipeline.catchUp()
      await pipeline.sql('DELETE FROM soft_never')
      await pipeline.catchUp()
      expect(await pipeline.query('SELECT id, v, _deleted_at IS NOT NULL FROM public.soft_never ORDER BY id')).toEqual([[2, 'bb', true], [3, 'c', true]])
    } finally {
      await dispose(pipeline)
    }
  })

  it('takes REPLICA IDENTITY FULL beside a key, and refuses a table that has none', async () => {
    const pipeline = await copied('soft_full', "CREATE TABLE soft_full (id int PRIMARY KEY, v text); ALTER TABLE soft_full REPLICA IDENTITY FULL; INSERT INTO soft_full VALUES (1, 'a'), (2, 'b')")
    try {
      await pipeline.sql("UPDATE soft_full SET v = 'aa' WHERE id = 1; DELETE FROM soft_full WHERE id = 2")
      await pipeline.catchUp()
      expect(await pipeline.query('SELECT id, v, _deleted_at IS NOT NULL FROM public.soft_full ORDER BY id')).toEqual([[1, 'aa', false], [2, 'b', true]])
      await pipeline.sql('CREATE TABLE soft_keyless (a int); ALTER TABLE soft_keyless REPLICA IDENTITY FULL')
      const refused = new TestPipeline(database.url, specOf({ slotName: 'soft_keyless', tableNames: ['soft_keyless'], deleteMode: 'soft' }))
      await expect(refused.initialize()).rejects.toMatchObject({ kind: 'InvalidInput', message: expect.stringContaining('has no key') as string, remedy: expect.stringContaining('"scd2"') as string })
      await refused[Symbol.asyncDispose]()
      // A key that goes later stops the table.
      await pipeline.sql('ALTER TABLE soft_full DROP CONSTRAINT soft_full_pkey; ALTER TABLE soft_full ADD COLUMN w int; INSERT INTO soft_full VALUES (3, \'c\', 3)')
      expect((await pipeline.catchUp()).progress.tables['public.soft_full']).toMatchObject({ state: 'failed', error: { type: 'InvalidInput' } })
    } finally {
      await dispose(pipeline)
    }
  })
})

/** The rows that the source has, by what the destination says. */
async function unmarked(pipeline: TestPipeline, table: string): Promise<string[]> {
  return pipeline.destinationRows(table, 'public', '_deleted_at IS NULL')
}
