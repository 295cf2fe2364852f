import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest'
import { specOf } from '../../support/pipeline.ts'
import { ChangingPipeline } from '../../support/schema-changes.ts'
import { createDatabase, type TestDatabase } from '../../support/servers.ts'

describe('tables that are rewritten without their rows being sent', () => {
  const serverUrl = inject('postgresUrl')
  let database: TestDatabase

  beforeAll(async () => {
    database = await createDatabase(serverUrl)
  })

  afterAll(async () => {
    await database.drop()
  })

  it('copies a table again whose values were rewritten with the same type, live, with writers going on', async () => {
    await using pipeline = await ChangingPipeline.over(database.url, 'x_live', "CREATE TABLE x_live (id int PRIMARY KEY, v text, n int DEFAULT 0); INSERT INTO x_live SELECT g, 'v' || g FROM generate_series(1, 5000) g")
    await pipeline.whileStreaming(async (until) => {
      const write = async (seed: number): Promise<void> => {
        for (let round = 0; round < 60; round++) {
          const id = 1 + ((seed * 7919 + round * 104729) % 5000)
          await pipeline.sql(`UPDATE x_live SET n = n + 1 WHERE id = ${String(id)}; DELETE FROM x_live WHERE id = ${String(1 + (id % 5000))}; INSERT INTO x_live VALUES (${String(10_000 * seed + round)}, 'new') ON CONFLICT DO NOTHING`)
          if (round === 20 && seed === 1) await pipeline.sql('ALTER TABLE x_live ALTER v TYPE text USING upper(v)')
        }
      }
      await Promise.all([write(1), write(2)])
      await until(({ warnings, tables }) => warnings.some((warning) => warning.startsWith('public.x_live was rewritten')) && tables['public.x_live']?.state === 'streaming')
    })
    await pipeline.catchUp()
    await pipeline.expectEqual('x_live')
    expect(await pipeline.targets()).toEqual(['public.x_live'])
  })

  it('copies a table again that was rewritten while nobody streamed, at the next slice', async () => {
    await using pipeline = await ChangingPipeline.over(database.url, 'x_down', "CREATE TABLE x_down (id int PRIMARY KEY, v text); INSERT INTO x_down SELECT g, 'v' FROM generate_series(1, 50) g")
    await pipeline.release()
    await pipeline.sql("UPDATE x_down SET v = 'w' WHERE id = 1; ALTER TABLE x_down ALTER v TYPE text USING upper(v)")
    const { copied } = await pipeline.catchUp()
    expect(copied).toEqual({ 'public.x_down': { rows: 50 } })
    await pipeline.expectEqual('x_down')
    expect((await pipeline.catchUp()).copied).toEqual({})
  })

  it('copies a table once that gets another type, live or while nobody streamed, changed afterwards or not', async () => {
    await using pipeline = await ChangingPipeline.over(database.url, 'x_type', "CREATE TABLE x_type (id int PRIMARY KEY, a int, b int); INSERT INTO x_type SELECT g, g, g FROM generate_series(1, 20) g")
    await pipeline.sql("ALTER TABLE x_type ALTER a TYPE text USING 'a' || a")
    expect((await pipeline.catchUp()).copied).toEqual({ 'public.x_type': { rows: 20 } })
    await pipeline.expectEqual('x_type')
    await pipeline.sql("BEGIN; UPDATE x_type SET b = 0 WHERE id = 1; ALTER TABLE x_type ALTER b TYPE numeric USING b / 2.0; INSERT INTO x_type VALUES (100, 'x', 0.25); COMMIT")
    expect((await pipeline.catchUp()).copied).toEqual({ 'public.x_type': { rows: 21 } })
    await pipeline.expectEqual('x_type')
    expect((await pipeline.catchUp()).copied).toEqual({})
  })

  // Cause: any other type modifier was taken for other values.
  it('does not copy a table again whose column only allows more, and does where its values were written anew', async () => {
    await using pipeline = await ChangingPipeline.over(
      database.url,
      'x_wider',
      "CREATE TABLE x_wider (id varchar(5) PRIMARY KEY, v varchar(8), w varchar(8), t timestamp(0), n int); INSERT INTO x_wider SELECT g, 'v' || g, 'w' || g, '2024-01-01', g FROM generate_series(1, 20) g",
    )
    await pipeline.sql("BEGIN; INSERT INTO x_wider VALUES ('100', 'before', 'w', 'now', 1); ALTER TABLE x_wider ALTER v TYPE varchar(20), ALTER w TYPE text, ALTER t TYPE timestamp, ALTER id TYPE varchar(12); INSERT INTO x_wider VALUES ('a longer key', 'a longer value', 'a longer value', '2024-01-01 01:02:03.123456', 2); COMMIT")
    await pipeline.sql("UPDATE x_wider SET n = 0, v = 'twenty characters ..' WHERE id IN ('100', '7'); DELETE FROM x_wider WHERE id = '8'")
    const { copied, progress } = await pipeline.catchUp()
    expect([copied, progress.warnings]).toEqual([{}, []])
    await pipeline.expectEqual('x_wider')
    await pipeline.sql("ALTER TABLE x_wider ALTER v TYPE varchar(30) USING upper(v); UPDATE x_wider SET n = 1 WHERE id = '1'")
    expect(Object.keys((await pipeline.catchUp()).copied)).toEqual(['public.x_wider'])
    await pipeline.expectEqual('x_wider')
    await pipeline.sql("UPDATE x_wider SET t = date_trunc('second', t); ALTER TABLE x_wider ALTER v TYPE varchar(25), ALTER t TYPE timestamp(0); UPDATE x_wider SET n = 2 WHERE id = '1'")
    await pipeline.catchUp()
    await pipeline.expectEqual('x_wider')
  })

  it('copies a table again that got a column with a volatile default, also where the default is gone when somebody looks', async () => {
    await using pipeline = await ChangingPipeline.over(database.url, 'x_volatile', 'CREATE TABLE x_volatile (id int PRIMARY KEY); INSERT INTO x_volatile SELECT generate_series(1, 20)')
    await pipeline.sql('ALTER TABLE x_volatile ADD COLUMN r uuid DEFAULT gen_random_uuid()')
    await pipeline.catchUp()
    await pipeline.expectEqual('x_volatile')
    await pipeline.sql('BEGIN; ALTER TABLE x_volatile ADD COLUMN s float DEFAULT random(); ALTER TABLE x_volatile ALTER s DROP DEFAULT; INSERT INTO x_volatile (id, s) VALUES (100, 1.5); COMMIT')
    await pipeline.catchUp()
    await pipeline.expectEqual('x_volatile')
  })

  it('copies a table again whose enumeration got another label', async () => {
    await using pipeline = await ChangingPipeline.over(database.url, 'x_enum', "CREATE TYPE mood AS ENUM ('sad', 'glad'); CREATE TABLE x_enum (id int PRIMARY KEY, m mood, ms mood[]); INSERT INTO x_enum VALUES (1, 'sad', '{sad,glad}'), (2, 'glad', NULL)")
    await pipeline.sql("ALTER TYPE mood ADD VALUE 'so so' BEFORE 'glad'")
    await pipeline.sql("INSERT INTO x_enum VALUES (3, 'so so', '{}')")
    expect((await pipeline.catchUp()).copied).toEqual({})
    await pipeline.sql("ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'; UPDATE x_enum SET m = 'blue' WHERE id = 2")
    expect((await pipeline.catchUp()).copied).toEqual({ 'public.x_enum': { rows: 3 } })
    await pipeline.expectEqual('x_enum')
  })

  // Cause: labels and attributes of a type that the table did not have before were compared with nothing, and the rows kept what had been sent.
  it.each([
    ['a label that was renamed', 'mood', "'sad'", ["ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'"], true],
    ['labels that were exchanged', 'mood[]', "'{sad,glad}'", ["ALTER TYPE mood RENAME VALUE 'sad' TO 'none'", "ALTER TYPE mood RENAME VALUE 'glad' TO 'sad'", "ALTER TYPE mood RENAME VALUE 'none' TO 'glad'"], true],
    ['an attribute that was added', 'pair', "'(1,a)'", ['ALTER TYPE pair ADD ATTRIBUTE more int'], true],
    ['an attribute that was dropped', 'pair', "'(1,a)'", ['ALTER TYPE pair DROP ATTRIBUTE v'], true],
    ['nothing else', 'mood', "'glad'", [], false],
  ] as const)('looks at a type that is new to a table, with %s after rows had come', async (_case, type, value, changes, isCopied) => {
    const own = await createDatabase(serverUrl)
    try {
      await using pipeline = await ChangingPipeline.over(
        own.url,
        'x_new',
        "CREATE TYPE mood AS ENUM ('sad', 'glad'); CREATE TYPE pair AS (n int, v text); CREATE TABLE x_new (id int PRIMARY KEY); INSERT INTO x_new VALUES (1), (2)",
      )
      for (const statement of [`ALTER TABLE x_new ADD COLUMN m ${type}`, `UPDATE x_new SET m = ${value}`, ...changes]) await pipeline.sql(statement)
      expect((await pipeline.catchUp()).copied).toEqual(isCopied ? { 'public.x_new': { rows: 2 } } : {})
      await pipeline.expectEqual('x_new')
      expect((await pipeline.catchUp()).copied).toEqual({})
    } finally {
      await own.drop()
    }
  })

  // Cause: only a column's own type, its elements' and what its domain is over were looked at.
  it('copies a table again whose values are shown otherwise, however deep in them that is', async () => {
    await using pipeline = await ChangingPipeline.over(
      database.url,
      'x_deep',
      `CREATE TYPE size AS ENUM ('s', 'l'); CREATE DOMAIN sized AS size; CREATE DOMAIN sizes AS sized[]; CREATE TYPE box_of AS (size sizes, n int); CREATE TYPE span AS RANGE (subtype = size);
       CREATE DOMAIN resized AS sized; CREATE TABLE x_deep (id int PRIMARY KEY, a sizes, b box_of, c span, d resized, e box_of[]); INSERT INTO x_deep VALUES (1, '{s}', '({s},1)', '[s,l]', 's', NULL), (2, NULL, NULL, 'empty', 'l', '{}')`,
    )
    for (const [drop, statement] of [
      ['a', "ALTER TYPE size RENAME VALUE 's' TO 'm'"], ['b', "ALTER TYPE size RENAME VALUE 'm' TO 'n'"], ['c', "ALTER TYPE size RENAME VALUE 'n' TO 'o'"], ['d', 'ALTER TYPE box_of ADD ATTRIBUTE more text'],
      ['id2', 'ALTER TYPE box_of DROP ATTRIBUTE n; ALTER TYPE box_of ADD ATTRIBUTE n text'],
    ] as const) {
      await pipeline.sql(statement)
      expect([statement, (await pipeline.catchUp()).copied]).toEqual([statement, { 'public.x_deep': { rows: 2 } }])
      await pipeline.expectEqual('x_deep')
      await pipeline.sql(`ALTER TABLE x_deep DROP COLUMN IF EXISTS ${drop}; UPDATE x_deep SET id = id`)
      expect((await pipeline.catchUp()).copied).toEqual({})
    }
  })

  // Cause: such a column looks like a new one that has no value in older rows.
  it.each(['at once', 'looked at before'])('copies a table again whose generated column was not published, once it is a plain one (%s)', async (when) => {
    const name = when === 'at once' ? 'x_plain' : 'x_plain_seen'
    await using pipeline = new ChangingPipeline(database.url, specOf({ slotName: name, tableNames: [name] }))
    // Where generated columns can be published, one has to ask for it.
    await pipeline.sql(`CREATE TABLE ${name} (id int PRIMARY KEY, g int GENERATED ALWAYS AS (id * 2) STORED, v text); INSERT INTO ${name} (id) VALUES (1), (2); CREATE PUBLICATION ${name}_pub FOR TABLE ${name}`)
    await pipeline.initialize()
    await pipeline.copy()
    await pipeline.sql(`ALTER TABLE ${name} ADD COLUMN h int GENERATED ALWAYS AS (id * 3) STORED`)
    expect((await pipeline.catchUp()).copied).toEqual({ [`public.${name}`]: { rows: 2 } })
    await pipeline.sql(`ALTER TABLE ${name} ALTER g DROP EXPRESSION, ALTER h DROP EXPRESSION`)
    if (when === 'looked at before') expect((await pipeline.catchUp()).copied).toEqual({ [`public.${name}`]: { rows: 2 } })
    await pipeline.sql(`UPDATE ${name} SET h = 7 WHERE id = 1; INSERT INTO ${name} VALUES (3, 4, 'v', 5)`)
    await pipeline.catchUp()
    await pipeline.expectEqual(name)
    expect((await pipeline.catchUp()).copied).toEqual({})
  })

  it('does not copy again what VACUUM FULL, CLUSTER, TRUNCATE or another definition of a column leaves as it was', async () => {
    await using pipeline = await ChangingPipeline.over(database.url, 'x_vacuum', "CREATE TABLE x_vacuum (id int PRIMARY KEY, v text); INSERT INTO x_vacuum SELECT g, 'v' FROM generate_series(1, 50) g")
    for (const statement of [
      'VACUUM FULL x_vacuum',
      'CLUSTER x_vacuum USING x_vacuum_pkey',
      'ALTER TABLE x_vacuum ALTER v SET STATISTICS 50',
      'ALTER TABLE x_vacuum ALTER v SET NOT NULL',
      'VACUUM FULL x_vacuum',
      "TRUNCATE x_vacuum; INSERT INTO x_vacuum VALUES (7, 'after')",
      'ANALYZE x_vacuum',
      'VACUUM FREEZE x_vacuum',
      'ALTER TABLE x_vacuum ADD COLUMN w int',
      'CREATE INDEX ON x_vacuum (v)',
      'VACUUM FULL x_vacuum',
    ]) {
      await pipeline.sql(statement)
      const { copied } = await pipeline.catchUp()
      expect([statement, copied]).toEqual([statement, {}])
    }
    await pipeline.sql("INSERT INTO x_vacuum VALUES (8, 'more', 1)")
    await pipeline.catchUp()
    await pipeline.expectEqual('x_vacuum')
  })

  it('does not copy a listed table again that went to another tablespace or access method', async () => {
    const tablespace = `x_space_${database.name}`
    await using pipeline = await ChangingPipeline.over(database.url, 'x_moved', "CREATE TABLE x_moved (id int PRIMARY KEY, v text); INSERT INTO x_moved SELECT g, 'v' FROM generate_series(1, 50) g")
    const client = await pipeline.source.connect()
    await client.query('SET allow_in_place_tablespaces = on')
    await client.query(`CREATE TABLESPACE ${tablespace} LOCATION ''`)
    client.release()
    try {
      for (const statement of [
        `ALTER TABLE x_moved SET TABLESPACE ${tablespace}; INSERT INTO x_moved VALUES (100, 'after')`,
        `ALTER INDEX x_moved_pkey SET TABLESPACE ${tablespace}`,
        // Before 15 a table keeps its access method.
        ...(inject('postgresMajor') < 15 ? [] : ["CREATE ACCESS METHOD heaped TYPE TABLE HANDLER heap_tableam_handler; ALTER TABLE x_moved SET ACCESS METHOD heaped; UPDATE x_moved SET v = 'heaped' WHERE id = 7"]),
        'ALTER TABLE x_moved SET TABLESPACE pg_default; ALTER INDEX x_moved_pkey SET TABLESPACE pg_default; DELETE FROM x_moved WHERE id = 8',
      ]) {
        await pipeline.sql(statement)
        expect([statement, (await pipeline.catchUp()).copied]).toEqual([statement, {}])
        await pipeline.expectEqual('x_moved')
      }
    } finally {
      await pipeline.sql(`DROP TABLESPACE ${tablespace}`)
    }
  })

  // From 18 on such a column is published.
  it.runIf(inject('postgresMajor') >= 18)('copies a table again whose generated column got another expression, and keeps an append history with a warning', async () => {
    const ddl = (name: string): string => `CREATE TABLE ${name} (id int PRIMARY KEY, a int, g int GENERATED ALWAYS AS (a * 2) STORED); INSERT INTO ${name} SELECT i, i FROM generate_series(1, 20) i`
    await using pipeline = await ChangingPipeline.over(database.url, 'x_expression', ddl('x_expression'))
    await pipeline.sql('BEGIN; UPDATE x_expression SET a = 100 WHERE id = 1; ALTER TABLE x_expression ALTER g SET EXPRESSION AS (a * 3); UPDATE x_expression SET a = 200 WHERE id = 2; COMMIT')
    expect((await pipeline.catchUp()).copied).toEqual({ 'public.x_expression': { rows: 20 } })
    expect((await pipeline.expectEqual('x_expression')).includes('200 | 600 | 2')).toBe(true)
    await using history = await ChangingPipeline.over(database.url, 'x_history', ddl('x_history'), { writeMode: 'append' })
    await history.sql('ALTER TABLE x_history ALTER g SET EXPRESSION AS (a * 3); UPDATE x_history SET a = 200 WHERE id = 2')
    const { copied, progress } = await history.catchUp()
    expect([copied, progress.warnings]).toEqual([{}, [expect.stringMatching(/^public\.x_history was rewritten at the source without its rows being sent/)]])
    expect(await history.query("SELECT id, g, _op FROM public.x_history WHERE id IN (1, 2) ORDER BY _lsn, id")).toEqual([[1, 2, 'snapshot'], [2, 4, 'snapshot'], [2, 600, 'update']])
  })

  it('copies a partitioned table again whose rows came or went with a partition, and not for a new partition', async () => {
    await using pipeline = await ChangingPipeline.over(
      database.url,
      'x_parts',
      'CREATE TABLE x_parts (id int PRIMARY KEY, v text) PARTITION BY RANGE (id); CREATE TABLE x_parts_0 PARTITION OF x_parts FOR VALUES FROM (0) TO (10); CREATE TABLE x_parts_1 PARTITION OF x_parts FOR VALUES FROM (10) TO (20); INSERT INTO x_parts SELECT g, g::text FROM generate_series(0, 19) g',
    )
    const rounds: readonly (readonly [string, boolean])[] = [
      ['CREATE TABLE x_parts_2 PARTITION OF x_parts FOR VALUES FROM (20) TO (30); INSERT INTO x_parts VALUES (21, 21)', false],
      ["CREATE TABLE x_parts_3 (LIKE x_parts INCLUDING ALL); INSERT INTO x_parts_3 VALUES (31, 'came'); ALTER TABLE x_parts ATTACH PARTITION x_parts_3 FOR VALUES FROM (30) TO (40)", true],
      ['DROP TABLE x_parts_0', true],
      ['ALTER TABLE x_parts DETACH PARTITION x_parts_1; UPDATE x_parts SET v = 0 WHERE id = 21', true],
      ['TRUNCATE x_parts_2', true],
      // Cause: at either look it was a member of the tree.
      ["BEGIN; ALTER TABLE x_parts DETACH PARTITION x_parts_3; UPDATE x_parts_3 SET v = 'away'; INSERT INTO x_parts_3 VALUES (32, 'away'); ALTER TABLE x_parts ATTACH PARTITION x_parts_3 FOR VALUES FROM (30) TO (40); COMMIT", true],
      ['ALTER TABLE x_parts ALTER v TYPE text USING upper(v)', true],
    ]
    for (const [statement, isCopied] of rounds) {
      await pipeline.sql(statement)
      const { copied } = await pipeline.catchUp()
      expect([statement, copied['public.x_parts'] !== undefined]).toEqual([statement, isCopied])
      await pipeline.expectEqual('x_parts')
    }
  })

  it('keeps an append history as it was sent, with a warning', async () => {
    await using pipeline = await ChangingPipeline.over(database.url, 'x_append', "CREATE TABLE x_append (id int PRIMARY KEY, v text); INSERT INTO x_append VALUES (1, 'sent')", { writeMode: 'append' })
    await pipeline.sql('ALTER TABLE x_append ALTER v TYPE text USING upper(v)')
    const { progress } = await pipeline.catchUp()
    expect(progress.warnings).toContainEqual(expect.stringMatching(/^public\.x_append was rewritten at the source without its rows being sent: what its history holds/))
    expect(await pipeline.query('SELECT id, v, _op FROM public.x_append')).toEqual([[1, 'sent', 'snapshot']])
    expect((await pipeline.catchUp()).progress.tables['public.x_append']?.state).toBe('streaming')
  })
})
