import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest'
import { destinationRows, differences, readFile } from '../../support/comparison.ts'
import { specOf, TestPipeline } from '../../support/pipeline.ts'
import { heldColumns, otherNames, publishedColumns } from '../../support/table-cases.ts'
import { withoutScale } from '../../support/type-arbitraries.ts'
import { createDatabase, type TestDatabase } from '../../support/servers.ts'

/** A table of an unusual kind: made and filled, copied, and changed, each statement a transaction. `$t` stands for its name. */
interface TableCase {
  readonly title: string
  readonly ddl: string
  readonly changes: readonly string[]
  /** The rows that are the table's own, as FROM names them. */
  readonly own?: string
}

const KEYS: readonly (readonly [type: string, keys: readonly string[], extra?: string])[] = [
  ['text COLLATE "en-x-icu"', ["'a'", "'B'", "'ä'", "''", "E'x\\n\\x1e'"]],
  ['char(4)', ["'a'", "'a b'", "''"]],
  ['numeric', ['1.0', '2.500', "'NaN'", '1e-30', '123456789012345678901234567890.5']],
  ['numeric(8,3)', ['1.0', '2', '-0.5']],
  ['float8', ['0.1', "'NaN'", "'-Infinity'", '1e300']],
  ['real', ['0.1', '16777216', '1e-45']],
  ['timestamptz', ["'2024-01-01'", "'infinity'", "'0044-03-15 BC'", "'294276-12-31 23:59:59.999999+00'"]],
  ['date', ["'2024-01-01'", "'-infinity'", "'0001-01-01 BC'"]],
  ['time', ["'24:00:00'", "'00:00'"]],
  ['timetz', ["'12:00+02'", "'10:00+00'", "'12:00+00'"]],
  ['interval', ["'1 mon'", "'29 days'", "'1 day 01:00'"]],
  ['bytea', ["''", "'\\x00'", "'\\x5c'"]],
  ['uuid', ["'00000000-0000-0000-0000-000000000000'", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'"]],
  ['boolean', ['true', 'false']],
  ['mood', ["'ok'", "'has space'"]],
  ['positive', ['1', '2']],
  ['oid', ['1', '4294967295']],
  ['inet', ["'10.0.0.1'", "'10.0.0.0/8'", "'::1'"]],
  ['int[]', ["'{1,2}'", "'{}'", "'{NULL}'"]],
  ['text[]', ["'{a,\"b c\"}'", "'{\"\"}'"]],
  ['jsonb', ["'{}'", "'\"x\"'", "'1.50'"]],
  ['int4range', ["'[1,5)'", "'empty'"]],
  ['bit varying', ["B'101'", "B''"]],
  ['"char"', ["'x'", "''"]],
]

/** One key of each type: written, changed, moved away, deleted and used again. */
const KEY_CASES = KEYS.map(([type, keys]): TableCase => {
  const [first = '', second = ''] = keys
  return {
    title: `key of type ${type}`,
    ddl: `CREATE TABLE $t (k ${type}, n int, v text, PRIMARY KEY (k, n)); INSERT INTO $t ${keys.map((key) => `SELECT ${key}::${type.replace(/ COLLATE.*/, '')}, 1, 'copied'`).join(' UNION ALL ')}`,
    changes: [
      ...keys.map((key) => `UPDATE $t SET v = 'changed' WHERE k = ${key}`),
      ...keys.map((key) => `INSERT INTO $t VALUES (${key}, 2, 'streamed')`),
      `UPDATE $t SET k = ${second}, n = 3 WHERE k = ${first} AND n = 1`,
      `BEGIN; DELETE FROM $t WHERE k = ${second} AND n = 2; INSERT INTO $t VALUES (${second}, 2, 'again'); COMMIT`,
      ...keys.slice(2).map((key) => `DELETE FROM $t WHERE k = ${key} AND n = 1`),
    ],
  }
})

const CASES: readonly TableCase[] = [
  ...KEY_CASES,
  {
    title: 'keys swapped in one statement, deferrably, and in one transaction',
    ddl: `CREATE TABLE $t (id int NOT NULL, v text, big text); CREATE UNIQUE INDEX "$t_i" ON $t (id); ALTER TABLE $t ALTER big SET STORAGE EXTERNAL; ALTER TABLE $t REPLICA IDENTITY USING INDEX "$t_i"; INSERT INTO $t SELECT g, 'v' || g, repeat(md5(g::text), 100) FROM generate_series(1, 10) g`,
    changes: ['BEGIN; UPDATE $t SET id = -1 WHERE id = 1; UPDATE $t SET id = 1 WHERE id = 2; UPDATE $t SET id = 2 WHERE id = -1; COMMIT', 'UPDATE $t SET id = id + 100', 'BEGIN; UPDATE $t SET id = id + 1000; UPDATE $t SET id = id - 1000; COMMIT'],
  },
  {
    title: 'a deferrable primary key under FULL, keys swapped in one statement',
    ddl: `CREATE TABLE $t (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, v text); ALTER TABLE $t REPLICA IDENTITY FULL; INSERT INTO $t SELECT g, 'v' || g FROM generate_series(1, 10) g`,
    changes: ['UPDATE $t SET id = 11 - id', "BEGIN; UPDATE $t SET id = CASE id WHEN 1 THEN 2 WHEN 2 THEN 1 ELSE id END; INSERT INTO $t VALUES (3, 'twice'); DELETE FROM $t WHERE v = 'twice'; COMMIT"],
  },
  {
    title: 'a partitioned table: rows moved between partitions, of which one has its columns in another order, and one is made while it streams',
    ddl: `CREATE TABLE $t (id int, part int, v text, PRIMARY KEY (id, part)) PARTITION BY LIST (part); CREATE TABLE "$t_1" PARTITION OF $t FOR VALUES IN (1); CREATE TABLE "$t_2" (v text, part int NOT NULL, id int NOT NULL); ALTER TABLE $t ATTACH PARTITION "$t_2" FOR VALUES IN (2); INSERT INTO $t SELECT g, 1 + g % 2, 'v' FROM generate_series(1, 20) g`,
    changes: ['UPDATE $t SET part = 3 - part WHERE id < 5', 'DELETE FROM $t WHERE id = 6', "CREATE TABLE \"$t_3\" PARTITION OF $t FOR VALUES IN (3); INSERT INTO $t VALUES (100, 3, 'new partition')"],
  },
  {
    title: 'an inherited table beside its parent',
    ddl: `CREATE TABLE $t (id int PRIMARY KEY, v text); CREATE TABLE "$t_child" (PRIMARY KEY (id)) INHERITS ($t); INSERT INTO $t VALUES (1, 'parent'); INSERT INTO "$t_child" VALUES (2, 'child')`,
    changes: ["UPDATE $t SET v = 'changed'", "INSERT INTO $t VALUES (3, 'parent')"],
    own: 'ONLY $t',
  },
  {
    title: 'stored generated and identity columns',
    ddl: `CREATE TABLE $t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a int, s serial, twice int GENERATED ALWAYS AS (a * 2) STORED); INSERT INTO $t (a) VALUES (1), (2)`,
    changes: ['INSERT INTO $t (a) VALUES (3)', 'UPDATE $t SET a = a + 10'],
  },
  {
    title: 'many columns',
    ddl: `DO $do$ BEGIN EXECUTE 'CREATE TABLE $t (id int PRIMARY KEY, ' || (SELECT string_agg('c' || g || ' int', ', ') FROM generate_series(1, 1500) g) || ')'; END $do$; INSERT INTO $t (id, c1, c1500) VALUES (1, 1, 1500)`,
    changes: ['INSERT INTO $t (id, c700) VALUES (2, 700)', 'UPDATE $t SET c1499 = 5 WHERE id = 1'],
  },
  { title: 'a key alone', ddl: 'CREATE TABLE $t (id int PRIMARY KEY); INSERT INTO $t VALUES (1), (2)', changes: ['INSERT INTO $t VALUES (3)', 'UPDATE $t SET id = 20 WHERE id = 2', 'DELETE FROM $t WHERE id = 1'] },
  { title: 'exact duplicates under FULL', ddl: `CREATE TABLE $t (a int, b text); ALTER TABLE $t REPLICA IDENTITY FULL; INSERT INTO $t VALUES (1, 'x'), (1, 'x'), (NULL, NULL), (NULL, NULL), (1, 'y')`, changes: ["DELETE FROM $t WHERE ctid = (SELECT min(ctid) FROM $t WHERE b = 'x')", 'UPDATE $t SET a = 5 WHERE ctid = (SELECT min(ctid) FROM $t WHERE a IS NULL)', "INSERT INTO $t VALUES (1, 'y'), (5, NULL)", 'DELETE FROM $t WHERE a = 5'] },
  { title: 'wide values', ddl: `CREATE TABLE $t (id int PRIMARY KEY, v text, w bytea); INSERT INTO $t SELECT g, repeat(md5(g::text), 100000), decode(repeat('00ff', 500000), 'hex') FROM generate_series(1, 3) g`, changes: ["INSERT INTO $t VALUES (4, repeat(E'q\\x1e\\n', 1000000), NULL)", 'UPDATE $t SET id = id + 10'] },
  {
    title: 'subtransactions, savepoints rolled back, and an empty transaction',
    ddl: 'CREATE TABLE $t (id int PRIMARY KEY, v int)',
    changes: [
      'BEGIN; INSERT INTO $t VALUES (1, 1); SAVEPOINT a; INSERT INTO $t VALUES (2, 2); ROLLBACK TO a; INSERT INTO $t VALUES (2, 22); RELEASE a; COMMIT',
      `DO $do$ BEGIN FOR i IN 10..1500 LOOP BEGIN INSERT INTO $t VALUES (i, i); IF i % 3 = 0 THEN RAISE 'undone'; END IF; EXCEPTION WHEN raise_exception THEN NULL; END; END LOOP; END $do$`,
      'BEGIN; SELECT pg_current_xact_id(); COMMIT',
      "SELECT pg_logical_emit_message(true, 'prefix', 'content')",
      'BEGIN; TRUNCATE $t RESTART IDENTITY; INSERT INTO $t VALUES (1, 100); COMMIT',
    ],
  },
]

/** Names that need care: as SQL, with the name that they stand for. */
const NAMES = ['Mixed Case', 'select', 'has.dot', 'quo"te', "apo'strophe", 'ünïcödé', '😀 emoji', 'a'.repeat(63), 'tab\there', 'percent%s', 'back\\slash', '_leading', '1st', '$dollar', 'semi;colon'] as const

const quote = (name: string): string => `"${name.replaceAll('"', '""')}"`

describe('unusual tables', () => {
  const url = inject('postgresUrl')
  let database: TestDatabase
  let pipeline: TestPipeline
  const held = new Map<string, { readonly columns: readonly string[]; readonly rows: readonly string[] }>()
  const tables = CASES.map((given, index) => ({ ...given, table: `table_${String(index)}`, own: given.own?.replace('$t', `table_${String(index)}`) }))

  beforeAll(async () => {
    database = await createDatabase(url)
    pipeline = new TestPipeline(database.url, specOf({ slotName: 'unusual', tableNames: null }))
    await pipeline.sql("CREATE TYPE mood AS ENUM ('ok', 'has space'); CREATE DOMAIN positive AS int CHECK (value > 0)")
    for (const { table, ddl } of tables) await pipeline.sql(ddl.replaceAll('"$t', `"${table}`).replaceAll('$t', table))
    for (const name of NAMES) await pipeline.sql(`CREATE TABLE ${quote(name)} (${quote(`key of ${name}`.slice(0, 63))} int PRIMARY KEY, ${quote(name)} text); INSERT INTO ${quote(name)} VALUES (1, 'copied')`)
    await pipeline.initialize()
    await pipeline.copy()
    for (const { table, changes } of tables) for (const change of changes) await pipeline.sql(change.replaceAll('"$t', `"${table}`).replaceAll('$t', table))
    for (const name of NAMES) await pipeline.sql(`INSERT INTO ${quote(name)} VALUES (2, 'streamed'); UPDATE ${quote(name)} SET ${quote(name)} = 'changed' WHERE ${quote(`key of ${name}`.slice(0, 63))} = 1`)
    await pipeline.catchUp()
    await pipeline.release()
    await readFile(pipeline.file, async (query) => {
      for (const { table } of tables) {
        held.set(table, { columns: await heldColumns(query, table), rows: await destinationRows(query, table) })
      }
    })
  })

  afterAll(async () => {
    await pipeline[Symbol.asyncDispose]()
    await database.drop()
  })

  it.each(tables)('$title', async ({ table, own }) => {
    const columns = [...(held.get(table)?.columns ?? [])].sort()
    expect(otherNames(held.get(table)?.columns ?? [], await publishedColumns(pipeline.source, table))).toEqual([])
    // By the types' output functions: some casts to text say it otherwise.
    const cells = columns.map((name) => `CASE WHEN "${name}" IS NULL THEN '∅' ELSE pg_catalog.format('%s', "${name}") END`)
    const { rows } = await pipeline.source.query<{ text: string }>(`SELECT ${cells.join(" || ' | ' || ")} AS text FROM ${own ?? table}`)
    expect(rows.length).toBeGreaterThan(0)
    const source = rows.map(({ text }) => text.split(' | ').map(withoutScale).join(' | '))
    expect(differences(held.get(table)?.rows ?? [], source)).toEqual({ missing: [], extra: [] })
  })

  it('names that need quotes', async () => {
    for (const name of NAMES) {
      const [keyColumn, column] = [`key of ${name}`.slice(0, 63), name]
      const { rows } = await pipeline.source.query<{ k: number; v: string }>(`SELECT ${quote(keyColumn)} AS k, ${quote(column)} AS v FROM ${quote(name)} ORDER BY 1`)
      expect(await pipeline.query(`SELECT ${quote(keyColumn)}, ${quote(column)} FROM public.${quote(name)} ORDER BY 1`), name).toEqual(rows.map(({ k, v }) => [k, v]))
    }
  })
})
