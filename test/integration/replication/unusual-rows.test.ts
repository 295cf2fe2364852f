import { describe, expect, inject, it } from 'vitest'
import { createDatabase } from '../../support/servers.ts'
import { AS_AT_SOURCE, runTableCases, type TableCase } from '../../support/table-cases.ts'

/** Deletes one of the rows that match. */
const deleteOne = (condition: string): string => `DELETE FROM $t WHERE ctid = (SELECT min(ctid) FROM $t WHERE ${condition})`
const updateOne = (set: string, condition: string): string => `UPDATE $t SET ${set} WHERE ctid = (SELECT min(ctid) FROM $t WHERE ${condition})`
const FULL = 'ALTER TABLE $t REPLICA IDENTITY FULL'
const big = (seed: string): string => `repeat(md5(${seed}), 200)`

const CASES: readonly TableCase[] = [
  {
    // Cause: PostgreSQL's and DuckDB's '1 mon' = '30 days', so a delete of the one could take the other.
    title: 'whole rows that are equal but not the same',
    ddl: `CREATE TABLE $t (i interval, n int); ${FULL}; INSERT INTO $t VALUES ('1 mon', 1), ('30 days', 1), ('720:00', 1), ('30 days', 1), ('1 mon', 1), (NULL, 1), (NULL, 1)`,
    rounds: [[deleteOne("i::text = '30 days'")], [updateOne('n = 2', "i::text = '720:00:00'"), deleteOne("i::text = '1 mon'")], [updateOne("i = '1 mon'", "i::text = '30 days'"), deleteOne('i IS NULL')], [updateOne("i = '30 days'", "i::text = '1 mon'")]],
  },
  {
    title: 'duplicates of whole rows of many types, with NULLs',
    ddl: `CREATE TABLE $t (f float8, r real, n numeric, j json, b jsonb, c char(3), x text, a numeric[], t timestamptz); ${FULL};
      INSERT INTO $t SELECT 'NaN', 0.1, 1.50, '{"a": 1, "a":2}', '1.0', 'a', '', '{1.0,NULL}', '0044-03-15 BC' FROM generate_series(1, 3); INSERT INTO $t SELECT FROM generate_series(1, 3);
      INSERT INTO $t SELECT 'Infinity', -0.0, 100, '{"a":1,"a":2}', '1.00', 'a b', NULL, '{}', 'infinity' FROM generate_series(1, 3)`,
    rounds: [
      [deleteOne("f = 'NaN'"), deleteOne('f IS NULL'), deleteOne("f = 'Infinity'"), updateOne("n = 'NaN'", "f = 'Infinity'")],
      ["INSERT INTO $t SELECT 'NaN', 0.1, 1.5, '{\"a\": 1, \"a\":2}', '1.0', 'a', '', '{1,NULL}', '0044-03-15 BC' FROM generate_series(1, 2)", deleteOne("f = 'NaN'"), deleteOne("n = 'NaN'"), updateOne("a = '{{1.50}}'", 'f IS NULL')],
      [deleteOne("f = 'NaN'"), deleteOne("f = 'NaN'"), deleteOne("a = '{{1.50}}'"), updateOne("t = '294276-12-31 23:59:59+00'", "f = 'Infinity'"), deleteOne('f IS NULL')],
      [deleteOne("f = 'NaN'"), deleteOne("f = 'Infinity'")],
    ],
  },
  {
    // Cause: a column of this name hides DuckDB's own, by which rows were taken out.
    title: 'whole rows with a column "rowid"',
    ddl: `CREATE TABLE $t ("RowId" int, r text, u text, op text, lsn text, c0 text, g int, n int); ${FULL}; INSERT INTO $t SELECT 1, 'r' || i / 2, 'u', 'op', 'lsn', 'c0', 1, 2 FROM generate_series(0, 7) i`,
    rounds: [[deleteOne("r = 'r0'"), deleteOne("r = 'r1'"), updateOne("r = 'r2'", "r = 'r3'")], [deleteOne("r = 'r2'"), deleteOne("r = 'r2'")]],
  },
  {
    title: 'columns named like those that changes are staged with',
    ddl: `CREATE TABLE $t (rowid int PRIMARY KEY, r int, u text, op text, lsn text, c0 text, bad text, k int, t1 text, e1 text, xid int, seq int, has_row text, chunk int); ALTER TABLE $t ALTER u SET STORAGE EXTERNAL, ALTER c0 SET STORAGE EXTERNAL;
      INSERT INTO $t SELECT i, 100 - i, ${big('i::text')}, 'op', 'lsn', ${big("'c' || i")}, 'bad', i, 't1', 'e1', 5, 6, 'x', 7 FROM generate_series(1, 12) i`,
    rounds: [
      ['UPDATE $t SET r = r + 1 WHERE rowid < 4', 'UPDATE $t SET rowid = rowid + 100 WHERE rowid IN (2, 5)', `UPDATE $t SET u = ${big("'new'")} WHERE rowid = 3`, 'UPDATE $t SET k = 9 WHERE rowid = 3', 'DELETE FROM $t WHERE rowid = 7', 'BEGIN; UPDATE $t SET rowid = -1 WHERE rowid = 1; UPDATE $t SET rowid = 1 WHERE rowid = 9; UPDATE $t SET rowid = 9 WHERE rowid = -1; COMMIT'],
      ['UPDATE $t SET rowid = rowid + 1000 WHERE rowid > 8', 'UPDATE $t SET rowid = rowid - 1000, c0 = NULL WHERE rowid > 1100', 'UPDATE $t SET op = NULL'],
    ],
  },
  {
    // Cause: the key of a row whose new tuple leaves it out was noted as empty, so a later move took a value from before its last change.
    title: 'keys stored out of line',
    ddl: `CREATE TABLE $t (k text, n int, w text, PRIMARY KEY (k, n)); ALTER TABLE $t ALTER k SET STORAGE EXTERNAL, ALTER w SET STORAGE EXTERNAL; INSERT INTO $t SELECT repeat(md5(i::text), 80), i, ${big('i::text')} FROM generate_series(1, 9) i`,
    rounds: [
      ['UPDATE $t SET n = 100 WHERE n = 9', `UPDATE $t SET w = ${big("'later'")} WHERE n = 1`, 'UPDATE $t SET n = 50 WHERE n = 1', 'UPDATE $t SET n = 51 WHERE n = 50', `UPDATE $t SET w = ${big("'last'")} WHERE n = 51`, 'UPDATE $t SET n = 52 WHERE n = 51'],
      ["UPDATE $t SET w = 'short' WHERE n = 2", 'DELETE FROM $t WHERE n IN (3, 52)', 'UPDATE $t SET n = n + 1000', 'UPDATE $t SET k = upper(k) WHERE n = 1004'],
    ],
  },
  {
    title: 'unchanged TOAST values of whole rows',
    ddl: `CREATE TABLE $t (n int, v text, w text); ALTER TABLE $t ALTER v SET STORAGE EXTERNAL, ALTER w SET STORAGE EXTERNAL; ${FULL}; INSERT INTO $t SELECT i / 2, ${big('(i / 2)::text')}, NULL FROM generate_series(1, 9) i`,
    rounds: [['UPDATE $t SET n = n + 10 WHERE n < 2', updateOne('w = v', 'n = 2'), updateOne('n = 3', 'n = 2')], [deleteOne('n = 3'), 'UPDATE $t SET n = 0', `UPDATE $t SET v = ${big("'x'")} WHERE w IS NOT NULL`, 'UPDATE $t SET n = 1']],
  },
  {
    title: 'unchanged TOAST values through chains of moves, keys freed and taken again in one transaction',
    ddl: `CREATE TABLE $t (id int PRIMARY KEY, n int, v text); ALTER TABLE $t ALTER v SET STORAGE EXTERNAL; INSERT INTO $t SELECT i, 0, ${big('i::text')} FROM generate_series(1, 9) i`,
    rounds: [
      ['BEGIN; UPDATE $t SET id = 11 WHERE id = 1; UPDATE $t SET id = 12, n = 1 WHERE id = 11; UPDATE $t SET id = 1 WHERE id = 12; DELETE FROM $t WHERE id = 1; INSERT INTO $t VALUES (1, 5, NULL); UPDATE $t SET id = 13 WHERE id = 2; UPDATE $t SET id = 2 WHERE id = 1; UPDATE $t SET id = 1 WHERE id = 13; COMMIT'],
      [`BEGIN; DELETE FROM $t WHERE id = 3; INSERT INTO $t VALUES (3, 1, ${big("'three'")}); UPDATE $t SET n = 2 WHERE id = 3; UPDATE $t SET id = 33 WHERE id = 3; INSERT INTO $t VALUES (3, 3, ${big("'again'")}); UPDATE $t SET n = 4 WHERE id IN (3, 33); COMMIT`, 'UPDATE $t SET n = 7', 'UPDATE $t SET id = -id', 'UPDATE $t SET n = 8'],
    ],
  },
  { title: 'no columns at all', ddl: `CREATE TABLE $t (); ${FULL}; INSERT INTO $t DEFAULT VALUES; INSERT INTO $t DEFAULT VALUES; INSERT INTO $t DEFAULT VALUES`, rounds: [[deleteOne('true'), 'INSERT INTO $t DEFAULT VALUES'], [deleteOne('true')]] },
  { title: 'an empty table', ddl: 'CREATE TABLE $t (id int PRIMARY KEY, v text)', rounds: [["INSERT INTO $t VALUES (1, 'a')"], ['DELETE FROM $t']] },
  { title: '1,600 columns', ddl: `DO $do$ BEGIN EXECUTE 'CREATE TABLE $t (id int PRIMARY KEY, ' || (SELECT string_agg('c' || g || ' int', ', ') FROM generate_series(1, 1599) g) || ')'; END $do$; INSERT INTO $t (id, c1, c1599) VALUES (1, 1, 1599)`, rounds: [['INSERT INTO $t (id, c700) VALUES (2, 700)', 'UPDATE $t SET c1599 = 5 WHERE id = 1'], ['UPDATE $t SET id = 3 WHERE id = 1']] },
  {
    title: 'an inherited table, its parent listed too',
    ddl: `CREATE TABLE $t_parent (id int PRIMARY KEY, v text); CREATE TABLE $t (more int, PRIMARY KEY (id)) INHERITS ($t_parent); INSERT INTO $t_parent VALUES (1, 'parent'); INSERT INTO $t VALUES (2, 'child', 1)`,
    rounds: [["UPDATE $t_parent SET v = 'changed'", "INSERT INTO $t VALUES (3, 'child', 2)"], ['DELETE FROM $t_parent WHERE id = 2', 'ALTER TABLE $t NO INHERIT $t_parent', "INSERT INTO $t VALUES (2, 'own', 1)"]],
  },
  {
    title: 'a partitioned table whose partitions have other columns in another order, with long values that move',
    ddl: `CREATE TABLE $t (id int, part int, v text, PRIMARY KEY (id, part)) PARTITION BY LIST (part); CREATE TABLE $t_1 PARTITION OF $t FOR VALUES IN (1);
      CREATE TABLE $t_2 (gone int, v text, part int NOT NULL, id int NOT NULL); ALTER TABLE $t_2 DROP COLUMN gone; ALTER TABLE $t ATTACH PARTITION $t_2 FOR VALUES IN (2);
      ALTER TABLE $t_1 ALTER v SET STORAGE EXTERNAL; ALTER TABLE $t_2 ALTER v SET STORAGE EXTERNAL; INSERT INTO $t SELECT i, 1 + i % 2, ${big('i::text')} FROM generate_series(1, 12) i`,
    rounds: [['UPDATE $t SET part = 3 - part WHERE id < 5', 'UPDATE $t SET id = id + 100 WHERE id > 8', 'DELETE FROM $t WHERE id = 6'], ['UPDATE $t SET part = 3 - part, id = -id', 'BEGIN; UPDATE $t_2 SET id = id * 10; DELETE FROM $t_1 WHERE id > -4; COMMIT']],
  },
  {
    title: 'generated and identity columns',
    ddl: 'CREATE TABLE $t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a int, s serial, twice int GENERATED ALWAYS AS (a * 2) STORED, t text GENERATED ALWAYS AS (a::text) STORED); INSERT INTO $t (a) VALUES (1), (2)',
    rounds: [['INSERT INTO $t (a) VALUES (3)', 'UPDATE $t SET a = a + 10'], ['UPDATE $t SET id = DEFAULT WHERE id = 1', 'DELETE FROM $t WHERE id = 2']],
  },
  // Before 18 all generated columns are stored.
  ...(inject('postgresMajor') < 18 ? [] : [
    {
      title: 'stored and virtual generated columns, the key among them',
      ddl: "CREATE TABLE $t (a int NOT NULL, v text GENERATED ALWAYS AS ('v' || a::text), id int GENERATED ALWAYS AS (a * 2) STORED PRIMARY KEY, n numeric GENERATED ALWAYS AS (a / 8.0) STORED, t text, w int GENERATED ALWAYS AS (a + 1) VIRTUAL, u text GENERATED ALWAYS AS (upper(t)) STORED); INSERT INTO $t (a, t) SELECT i, 't' || i FROM generate_series(1, 9) i",
      rounds: [["INSERT INTO $t (a, t) VALUES (10, repeat('ab', 5000))", 'UPDATE $t SET a = 20 WHERE a = 1', 'DELETE FROM $t WHERE a = 2'], ["UPDATE $t SET t = t || 'x'", 'UPDATE $t SET a = a + 100']],
    },
  ]),
  // It joins with its schema, which has a publication of its own from 15 on.
  ...(inject('postgresMajor') < 15 ? [] : [
    { title: 'an unlogged table that becomes a logged one', ddl: "CREATE UNLOGGED TABLE $t (id int PRIMARY KEY, v text); INSERT INTO $t VALUES (1, 'unlogged')", rounds: [[], ["INSERT INTO $t VALUES (2, 'unlogged')", 'ALTER TABLE $t SET LOGGED', "INSERT INTO $t VALUES (3, 'logged')"], ["UPDATE $t SET v = 'x' WHERE id < 3"]] },
  ]),
]

describe('unusual tables and rows', { timeout: 600_000 }, () => {
  it.each(['at once', 'round by round', 'while it is copied'] as const)('are as at the source, with changes %s', async (pace) => {
    const database = await createDatabase(inject('postgresUrl'))
    try {
      const outcomes = await runTableCases(database.url, CASES, { slotName: `rows_${pace.replaceAll(' ', '_')}`, pace })
      expect(Object.fromEntries(CASES.map(({ title }, index) => [title, outcomes[index]]))).toEqual(Object.fromEntries(CASES.map(({ title }) => [title, AS_AT_SOURCE])))
    } finally {
      await database.drop()
    }
  })
})
