import { describe, expect, inject, it } from 'vitest'
import { specOf, TestPipeline } from '../../support/pipeline.ts'
import { createDatabase } from '../../support/servers.ts'

const quote = (name: string): string => `"${name.replaceAll('"', '""')}"`

/** Names that need care, of schemas, tables and columns alike. */
const NAMES = ['Mixed Case.dot', 'select', 'quo"te apo\'s', '😀 ünïcödé', 'ü'.repeat(31), 'tab\tnew\ncr\r', 'back\\slash %s $1', ' spaces ', '1st; -- comment', '{"json": [0]}', 'staged_rows', 'rowid', 'main', '∅']

interface Refusal {
  readonly title: string
  readonly ddl: string
  readonly given: Partial<Parameters<typeof specOf>[0]>
  readonly message: RegExp
  /** At the destination, before. */
  readonly there?: string
}

const REFUSED: readonly Refusal[] = [
  { title: 'a table of yours at the destination whose name differs in case alone', ddl: 'CREATE TABLE orders (id int PRIMARY KEY)', given: { tableNames: ['orders'] }, there: 'CREATE SCHEMA "PUBLIC"; CREATE TABLE "PUBLIC"."ORDERS" (x INTEGER)', message: /has a table public\.orders that no replication has filled/ },
  { title: 'a schema with the name of the DuckDB database', ddl: 'CREATE SCHEMA "Warehouse"; CREATE TABLE "Warehouse".t (id int PRIMARY KEY)', given: { schemaName: 'Warehouse', tableNames: ['t'] }, message: /the DuckDB database itself has that name/ },
  { title: "a schema with one of DuckDB's names", ddl: 'CREATE SCHEMA temp; CREATE TABLE temp.t (id int PRIMARY KEY)', given: { schemaName: 'temp', tableNames: ['t'] }, message: /own has that name/ },
  { title: 'a schema with the name of our own', ddl: 'CREATE SCHEMA _replication; CREATE TABLE _replication.tables (id int PRIMARY KEY)', given: { schemaName: '_replication', tableNames: ['tables'] }, message: /own has that name/ },
  { title: 'a datasetName that is our own', ddl: 'CREATE TABLE t (id int PRIMARY KEY)', given: { tableNames: ['t'], datasetName: '_Replication' }, message: /own has that name/ },
  { title: 'a table with the name of a copy of another', ddl: 'CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE "t__Replication_copy" (id int PRIMARY KEY)', given: { tableNames: null }, message: /has the name of a table that is being copied/ },
  { title: 'two tables whose names read the same', ddl: 'CREATE SCHEMA "a.b"; CREATE TABLE "a.b".c (id int PRIMARY KEY); CREATE SCHEMA a; CREATE TABLE a."b.c" (id int PRIMARY KEY)', given: { tableNames: ['"a.b"."c"', '"a"."b.c"'] }, message: /two tables are called "a\.b\.c"/ },
  { title: 'tables whose names differ in case alone, beyond ASCII too', ddl: 'CREATE TABLE "ä" (id int PRIMARY KEY); CREATE TABLE "Ä" (id int PRIMARY KEY)', given: { tableNames: null }, message: /differ only in case/ },
  { title: 'tables of schemas that differ in case alone', ddl: 'CREATE SCHEMA "S"; CREATE SCHEMA s; CREATE TABLE "S".t (id int PRIMARY KEY); CREATE TABLE s."T" (id int PRIMARY KEY)', given: { tableNames: ['S.t', 's.T'] }, message: /differ only in case/ },
  { title: 'columns whose names differ in case alone, beyond ASCII too', ddl: 'CREATE TABLE t (id int PRIMARY KEY, "é" int, "É" int)', given: { tableNames: ['t'] }, message: /differ only in case/ },
  { title: 'tables of one name in one dataset', ddl: 'CREATE SCHEMA a; CREATE SCHEMA b; CREATE TABLE a.t (id int PRIMARY KEY); CREATE TABLE b."T" (id int PRIMARY KEY)', given: { tableNames: ['a.t', 'b.T'], datasetName: 'all' }, message: /would both land in all/ },
]

describe('names', { timeout: 600_000 }, () => {
  // Causes: a stranger's table was written into, a copy replaced another source table's rows, one table was taken for another, or DuckDB's own message was for nobody.
  it('that a destination cannot hold are refused at init, with nothing made', async () => {
    for (const { title, ddl, given, message, there } of REFUSED) {
      const database = await createDatabase(inject('postgresUrl'))
      try {
        await using pipeline = new TestPipeline(database.url, specOf({ slotName: 'refused_names', tableNames: null, ...given }))
        await pipeline.sql(ddl)
        if (there !== undefined) await pipeline.write(there)
        const error: unknown = await pipeline.initialize().then(() => null, (reason: unknown) => reason)
        expect(error, title).toMatchObject({ kind: 'InvalidInput', message: expect.stringMatching(message) as string, remedy: expect.stringMatching(/\S/) as string })
        expect((await pipeline.sql('SELECT FROM pg_publication')).rowCount, title).toBe(0)
      } finally {
        await database.drop()
      }
    }
  })

  it('of schemas, tables and columns that need quotes are kept as they are, through copy, stream and schema changes', async () => {
    const database = await createDatabase(inject('postgresUrl'))
    try {
      const tableOf = (name: string): string => `${quote(name)}.${quote(name)}`
      await using pipeline = new TestPipeline(database.url, specOf({ slotName: `${'z'.repeat(60)}_09`, publicationName: 'Names “that” need quotes', tableNames: NAMES.map(tableOf) }))
      for (const name of NAMES) {
        const key = quote(`key ${name}`.slice(0, 20))
        await pipeline.sql(`CREATE SCHEMA IF NOT EXISTS ${quote(name)}; CREATE TABLE ${tableOf(name)} (${key} int PRIMARY KEY, ${quote(name)} text, n numeric); ALTER TABLE ${tableOf(name)} ALTER ${quote(name)} SET STORAGE EXTERNAL; INSERT INTO ${tableOf(name)} VALUES (1, repeat('long', 1000), 1.5)`)
      }
      await pipeline.initialize()
      await pipeline.copy()
      for (const name of NAMES) {
        const key = quote(`key ${name}`.slice(0, 20))
        await pipeline.sql(`INSERT INTO ${tableOf(name)} VALUES (2, 'streamed', 'NaN'); UPDATE ${tableOf(name)} SET n = 2; UPDATE ${tableOf(name)} SET ${key} = 10 WHERE ${key} = 1; ALTER TABLE ${tableOf(name)} ADD COLUMN ${quote(`too ${name}`.slice(0, 20))} int; DELETE FROM ${tableOf(name)} WHERE ${key} = 2; INSERT INTO ${tableOf(name)} VALUES (3, 'last', 3, 4)`)
      }
      const { progress } = await pipeline.catchUp()
      expect(Object.entries(progress.tables).filter(([, { state }]) => state !== 'streaming')).toEqual([])
      for (const name of NAMES) {
        const columns = [`key ${name}`.slice(0, 20), name, `too ${name}`.slice(0, 20)].map(quote).join(', ')
        const { rows } = await pipeline.source.query<unknown[]>({ text: `SELECT ${columns} FROM ${tableOf(name)} ORDER BY 1`, rowMode: 'array' })
        expect(await pipeline.query(`SELECT ${columns} FROM warehouse.${tableOf(name)} ORDER BY 1`), name).toEqual(rows)
        expect(rows).toHaveLength(2)
      }
    } finally {
      await database.drop()
    }
  })
})
