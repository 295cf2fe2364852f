import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest'
import { differences } from '../../support/pipeline.ts'
import { ChangingPipeline } from '../../support/schema-changes.ts'
import { createDatabase, type TestDatabase } from '../../support/servers.ts'

/** By column, its type and default: what the catalog keeps for older rows. */
const KEPT: Readonly<Record<string, string>> = {
  n: 'int NOT NULL DEFAULT 42',
  t: "text DEFAULT 'it''s ∅ \\ \"q\"'",
  e: "text DEFAULT ''",
  p: "char(5) DEFAULT 'ab'",
  m: 'numeric(12,2) DEFAULT 1.50',
  f: 'numeric DEFAULT 0.1',
  b: 'boolean DEFAULT true',
  at: 'timestamptz DEFAULT now()',
  d: "date DEFAULT 'infinity'",
  x: "bytea DEFAULT '\\x00ff'",
  l: `text[] DEFAULT '{a,NULL,"b c","q\\"q",""}'`,
  i: "int[] DEFAULT '{1,2}'",
  j: `jsonb DEFAULT '{"a": [1, 2.50]}'`,
  s: "interval DEFAULT '1 mon -2 days 00:00:03'",
  u: "uuid DEFAULT 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",
  w: "double precision DEFAULT 'NaN'",
  // What the destination's type cannot hold makes the column text.
  wide: 'numeric DEFAULT 12345678901234567890123456789012.123456789012',
  odd: "numeric(8,2) DEFAULT 'NaN'",
  old: "timestamptz DEFAULT '294276-12-31 23:59:59+00'",
  lists: "int[] DEFAULT '{{1,2},{3,4}}'",
  mood: "mood DEFAULT 'so so'",
}

describe('columns with a default', { timeout: 600_000 }, () => {
  const serverUrl = inject('postgresUrl')
  let database: TestDatabase

  beforeAll(async () => {
    database = await createDatabase(serverUrl)
  })

  afterAll(async () => {
    await database.drop()
  })

  // Cause: until the catalog was asked for the value of older rows, each of these copied the whole table again.
  it('come in their place with the value that older rows have, without copying the table again', async () => {
    await using pipeline = await ChangingPipeline.over(database.url, 'kept', "CREATE TYPE mood AS ENUM ('sad', 'so so'); CREATE TABLE kept (id int PRIMARY KEY); INSERT INTO kept SELECT generate_series(1, 50)")
    const columns = Object.entries(KEPT)
    for (const [index, [name, definition]] of columns.entries()) {
      // Half of them behind a delete of the same transaction, which DuckDB does not let an ALTER TABLE follow.
      const before = index % 2 === 0 ? `DELETE FROM kept WHERE id = ${String(index + 1)}` : `INSERT INTO kept (id) VALUES (${String(100 + index)})`
      await pipeline.sql(`BEGIN; ${before}; ALTER TABLE kept ADD COLUMN ${name} ${definition}; INSERT INTO kept (id, ${name}) VALUES (${String(200 + index)}, DEFAULT); UPDATE kept SET id = id + 1000 WHERE id = ${String(index + 20)}; COMMIT`)
      if (index % 7 === 6) expect((await pipeline.catchUp()).copied).toEqual({})
    }
    await pipeline.sql('UPDATE kept SET id = id + 10000 WHERE id < 50')
    expect((await pipeline.catchUp()).copied).toEqual({})
    await using fresh = await ChangingPipeline.over(database.url, 'kept_fresh', 'SELECT', { tableNames: ['kept'] })
    const types = "SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = 'kept' ORDER BY column_name"
    expect(await pipeline.query(types)).toEqual(await fresh.query(types))
    expect(differences(await pipeline.destinationRows('kept'), await fresh.destinationRows('kept'))).toEqual({ missing: [], extra: [] })
  })

  it('come so when the default is another or gone by the time that somebody looks, two at once, with a renamed and a dropped one', async () => {
    await using pipeline = await ChangingPipeline.over(database.url, 'gone', "CREATE TABLE gone (id int PRIMARY KEY, a text, z int); INSERT INTO gone SELECT g, 'a', g FROM generate_series(1, 20) g")
    await pipeline.release()
    await pipeline.sql("ALTER TABLE gone ADD COLUMN b int DEFAULT 1, ADD COLUMN c text DEFAULT 'c'")
    await pipeline.sql('ALTER TABLE gone RENAME a TO aa; ALTER TABLE gone DROP COLUMN z')
    await pipeline.sql("ALTER TABLE gone ALTER b SET DEFAULT 2; ALTER TABLE gone ALTER c DROP DEFAULT; INSERT INTO gone (id) VALUES (100); UPDATE gone SET b = 3 WHERE id = 5; UPDATE gone SET aa = 'x' WHERE id = 6; DELETE FROM gone WHERE id = 7")
    expect((await pipeline.catchUp()).copied).toEqual({})
    await pipeline.expectEqual('gone')
    // A value that never was a default of older rows: SET DEFAULT concerns new ones alone.
    await pipeline.sql("ALTER TABLE gone ADD COLUMN late int; ALTER TABLE gone ALTER late SET DEFAULT 9; INSERT INTO gone (id) VALUES (101)")
    await pipeline.catchUp()
    await pipeline.expectEqual('gone')
  })

  it('are copied where nothing tells the value any more: the table was written anew since, or each row has its own', async () => {
    await using pipeline = await ChangingPipeline.over(database.url, 'lost', 'CREATE TABLE lost (id int PRIMARY KEY); INSERT INTO lost SELECT generate_series(1, 20)')
    for (const [name, statement] of [
      ['a', 'ALTER TABLE lost ADD COLUMN a int DEFAULT 1; VACUUM FULL lost'],
      ['b', 'ALTER TABLE lost ADD COLUMN b int DEFAULT 1; ALTER TABLE lost ALTER b TYPE bigint USING b + id; ALTER TABLE lost ALTER b TYPE int'],
      ['c', "ALTER TABLE lost ADD COLUMN c box DEFAULT '(1,1),(0,0)'"],
      ['d', 'ALTER TABLE lost ADD COLUMN d int DEFAULT 1; ALTER TABLE lost ALTER d DROP DEFAULT; VACUUM FULL lost'],
      ['e', 'ALTER TABLE lost ADD COLUMN e int GENERATED BY DEFAULT AS IDENTITY'],
      // The default is the type's: the column has none.
      ['g', 'CREATE DOMAIN filled AS int DEFAULT 7 CHECK (value > 0); ALTER TABLE lost ADD COLUMN g filled'],
      ['h', 'CREATE DOMAIN drawn AS float8 DEFAULT random(); ALTER TABLE lost ADD COLUMN h drawn'],
    ] as const) {
      for (const part of statement.split('; ')) await pipeline.sql(part)
      await pipeline.sql(`INSERT INTO lost (id, ${name}) VALUES (${String(100 + name.charCodeAt(0))}, DEFAULT)`)
      expect([name, Object.keys((await pipeline.catchUp()).copied)]).toEqual([name, ['public.lost']])
      await pipeline.expectEqual('lost')
    }
  })

  it.each(['no change behind it', 'a change behind it', 'soft deletes', 'a history'])('of a domain are copied, or warned of in a history, with %s', async (kind) => {
    const name = `domain_${String(kind.length)}`
    await using pipeline = await ChangingPipeline.over(database.url, name, `CREATE DOMAIN ${name}_type AS numeric(6,2) DEFAULT 1.50 CHECK (value > 0); CREATE TABLE ${name} (id int PRIMARY KEY); INSERT INTO ${name} SELECT generate_series(1, 20)`, kind === 'soft deletes' ? { deleteMode: 'soft' } : kind === 'a history' ? { writeMode: 'append' } : {})
    await pipeline.sql(`BEGIN; ALTER TABLE ${name} ADD COLUMN v ${name}_type; ${kind === 'no change behind it' ? '' : `INSERT INTO ${name} VALUES (100); INSERT INTO ${name} VALUES (101, 3); UPDATE ${name} SET v = 2 WHERE id = 5;`} COMMIT`)
    const { copied, progress } = await pipeline.catchUp()
    if (kind === 'a history') {
      expect([copied, progress.warnings]).toEqual([{}, [expect.stringContaining(`public.${name}`)]])
      expect(await pipeline.query(`SELECT id, v::VARCHAR, _op FROM public.${name} WHERE id IN (4, 5, 100) ORDER BY _lsn, _seq, id`)).toEqual([[4, null, 'snapshot'], [5, null, 'snapshot'], [100, '1.50', 'insert'], [5, '2.00', 'update']])
      return
    }
    expect(Object.keys(copied)).toEqual([`public.${name}`])
    await pipeline.expectEqual(name)
    // Without a constraint PostgreSQL 18 keeps the value beside the rows; before, it writes them anew.
    await pipeline.sql(`CREATE DOMAIN ${name}_free AS text DEFAULT 'of the type'; ALTER TABLE ${name} ADD COLUMN w ${name}_free; UPDATE ${name} SET w = 'own' WHERE id = 6`)
    await pipeline.catchUp()
    await pipeline.expectEqual(name)
  })

  it('come so in a partitioned table, in one without a key, and in changes that were kept for a table that had stopped', async () => {
    await using parts = await ChangingPipeline.over(
      database.url,
      'parts',
      'CREATE TABLE parts (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE parts_0 PARTITION OF parts FOR VALUES FROM (0) TO (10); CREATE TABLE parts_1 (x int, id int NOT NULL); ALTER TABLE parts_1 DROP COLUMN x; ALTER TABLE parts ATTACH PARTITION parts_1 FOR VALUES FROM (10) TO (20); INSERT INTO parts SELECT generate_series(0, 19)',
    )
    await parts.sql("ALTER TABLE parts ADD COLUMN v text DEFAULT 'new'; DELETE FROM parts WHERE id = 3; UPDATE parts SET v = 'changed' WHERE id = 12")
    expect((await parts.catchUp()).copied).toEqual({})
    await parts.expectEqual('parts')
    await using heap = await ChangingPipeline.over(database.url, 'heap', 'CREATE TABLE heap (a int); ALTER TABLE heap REPLICA IDENTITY FULL; INSERT INTO heap SELECT g % 3 FROM generate_series(1, 20) g')
    await heap.sql("ALTER TABLE heap ADD COLUMN v numeric DEFAULT 1.10; DELETE FROM heap WHERE ctid IN (SELECT ctid FROM heap WHERE a = 1 LIMIT 2); UPDATE heap SET a = 7 WHERE ctid IN (SELECT ctid FROM heap WHERE a = 2 LIMIT 1); INSERT INTO heap (a) VALUES (8)")
    expect((await heap.catchUp()).copied).toEqual({})
    await heap.expectEqual('heap')
    await using stopped = await ChangingPipeline.over(database.url, 'stopped', 'CREATE TABLE stopped (id int PRIMARY KEY, v numeric); INSERT INTO stopped SELECT g, g FROM generate_series(1, 20) g', { columns: { stopped: { v: { dataType: 'decimal', precision: 5, scale: 2 } } } })
    await stopped.sql('INSERT INTO stopped VALUES (30, 99999)')
    await stopped.sql("ALTER TABLE stopped ADD COLUMN w text DEFAULT 'w'; DELETE FROM stopped WHERE id = 1; INSERT INTO stopped VALUES (31, 1, 'own')")
    expect((await stopped.catchUp()).progress.tables['public.stopped']?.state).toBe('failed')
    await stopped.sql('UPDATE stopped SET v = 3 WHERE id = 30')
    await stopped.engine.retryTables({ spec: stopped.spec, owner: stopped.owner, tableNames: null })
    expect((await stopped.catchUp()).copied).toEqual({})
    await stopped.expectEqual('stopped')
  })
})
