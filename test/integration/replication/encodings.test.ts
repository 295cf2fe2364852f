import { describe, expect, inject, it } from 'vitest'
import type { SliceResult } from '../../../src/model/replication.ts'
import type { TableStatus } from '../../../src/model/status.ts'
import type { ReplicationSpec } from '../../../src/model/spec.ts'
import { differences, specOf, TestPipeline } from '../../support/pipeline.ts'
import { createDatabase } from '../../support/servers.ts'

/** Bytes that are no UTF-8: 0xE9 is é in LATIN1. */
const NO_UTF8 = "E'caf\\xe9'"
const TABLES = `
  CREATE TABLE good (id int PRIMARY KEY, v text);
  CREATE TABLE bad (id int PRIMARY KEY, v text, n int, l text[], d json)`

async function withDatabase(url: string, encoding: string, given: Partial<ReplicationSpec>, work: (pipeline: TestPipeline) => Promise<void>): Promise<void> {
  const database = await createDatabase(url, encoding)
  try {
    await using pipeline = new TestPipeline(database.url, specOf({ slotName: database.name, tableNames: null, ...given }))
    await work(pipeline)
  } finally {
    await database.drop()
  }
}

const tableOf = ({ progress }: SliceResult, name: string): TableStatus | undefined => progress.tables[`public.${name}`]

const retry = async (pipeline: TestPipeline): Promise<void> => pipeline.engine.retryTables({ spec: pipeline.spec, owner: pipeline.owner, tableNames: null })

async function expectEqual(pipeline: TestPipeline, ...tables: string[]): Promise<void> {
  for (const table of tables) expect(differences(await pipeline.destinationRows(table), await pipeline.sourceRows(table)), table).toEqual({ missing: [], extra: [] })
}

describe('encodings of the source', () => {
  const url = inject('postgresUrl')
  it('converts each character of a LATIN1 database to UTF-8, by copy and by stream', async () => {
    await withDatabase(url, 'LATIN1', {}, async (pipeline) => {
      const everyCharacter = "SELECT string_agg(chr(i), '' ORDER BY i) FROM generate_series(1, 255) i"
      await pipeline.sql(`CREATE TABLE t (id int PRIMARY KEY, v text, kept interval); CREATE TABLE lines (id int PRIMARY KEY, v text);
        INSERT INTO t SELECT 1, (${everyCharacter}); INSERT INTO lines SELECT 1, (${everyCharacter})`)
      await pipeline.initialize()
      await pipeline.copy()
      await pipeline.sql(`INSERT INTO t SELECT 2, (${everyCharacter}); INSERT INTO lines SELECT 2, (${everyCharacter})`)
      await pipeline.catchUp()
      const all = Buffer.from(Array.from({ length: 255 }, (__, index) => index + 1)).toString('latin1')
      expect(await pipeline.query('SELECT v FROM public.t ORDER BY id')).toEqual([[all], [all]])
      expect(await pipeline.query('SELECT v FROM public.lines ORDER BY id')).toEqual([[all], [all]])
    })
  })

  it('holds UTF-8 of a SQL_ASCII database; text of another encoding stops its table in the stream, which goes on once it is mended', async () => {
    await withDatabase(url, 'SQL_ASCII', {}, async (pipeline) => {
      await pipeline.sql(`${TABLES}; INSERT INTO good VALUES (1, 'é漢🐘'); INSERT INTO bad VALUES (1, 'ü', 1), (2, 'two', 2)`)
      await pipeline.initialize()
      await pipeline.copy()
      await pipeline.sql(`INSERT INTO good VALUES (2, 'ü'); INSERT INTO bad VALUES (3, 'é', 3); INSERT INTO bad VALUES (4, ${NO_UTF8}, 4, ARRAY['ok'])`)
      await pipeline.sql(`UPDATE bad SET l = ARRAY['a', ${NO_UTF8}], d = ('"' || ${NO_UTF8} || '"')::json WHERE id = 1; INSERT INTO good VALUES (3, 'later')`)
      const stopped = await pipeline.catchUp()
      expect(tableOf(stopped, 'good')).toMatchObject({ state: 'streaming', inserts: 2 })
      expect(tableOf(stopped, 'bad')).toMatchObject({ state: 'failed', error: { type: 'UnrepresentableValue' } })
      const { error } = tableOf(stopped, 'bad') ?? {}
      expect(error?.message).toMatch(/^public\.bad \(key "id"\): a value of column "v" in the transaction committed at [0-9A-F]+\/[0-9A-F]+ is not UTF-8/)
      expect(JSON.stringify(error)).not.toContain('caf')
      await expectEqual(pipeline, 'good')
      await pipeline.sql("UPDATE bad SET v = 'café' WHERE id = 4; DELETE FROM bad WHERE id = 1")
      await retry(pipeline)
      const mended = await pipeline.catchUp()
      expect(tableOf(mended, 'bad')).toMatchObject({ state: 'streaming', inserts: 2, updates: 2, deletes: 1 })
      expect(mended.copied).toEqual({})
      await expectEqual(pipeline, 'good', 'bad')
    })
  })

  it.each([
    ['by lines', ''],
    ['by cells', ', kept interval'],
  ])('stops a table alone whose copy (%s) finds bytes of another encoding, and copies it once they are mended', async (__, more) => {
    await withDatabase(url, 'SQL_ASCII', { writeMode: 'append' }, async (pipeline) => {
      await pipeline.sql(`CREATE TABLE good (id int PRIMARY KEY, v text${more}); CREATE TABLE bad (id int PRIMARY KEY, v text${more});
        INSERT INTO good VALUES (1, 'é'); INSERT INTO bad VALUES (1, E'\\x1e\\x1f\\n'), (2, ${NO_UTF8})`)
      await pipeline.initialize()
      const copied = await pipeline.copy()
      expect(tableOf(copied, 'good')).toMatchObject({ state: 'streaming', snapshotRows: 1 })
      expect(tableOf(copied, 'bad')).toMatchObject({ state: 'failed', error: { type: 'UnrepresentableValue', message: expect.stringContaining('column "v"') as string } })
      await pipeline.sql("UPDATE bad SET v = 'mended' WHERE id = 2; INSERT INTO good VALUES (2, 'ü')")
      await retry(pipeline)
      await pipeline.copy()
      expect(tableOf(await pipeline.catchUp(), 'bad')).toMatchObject({ state: 'streaming', snapshotRows: 2 })
      expect(await pipeline.query('SELECT v FROM public.good ORDER BY id')).toEqual([['é'], ['ü']])
      expect(await pipeline.query('SELECT v FROM public.bad ORDER BY id')).toEqual([['\x1e\x1f\n'], ['mended']])
    })
  })

  // Cause: the server's own conversion ended the whole stream, and for ever: what is in the WAL cannot be mended.
  it('stops a table alone that is sent a byte that its encoding has no character for, and goes on once it is mended', async () => {
    await withDatabase(url, 'WIN1252', {}, async (pipeline) => {
      await pipeline.sql('CREATE TABLE "prix_€" (id int PRIMARY KEY, "été" text); CREATE TABLE bad (id int PRIMARY KEY, v text, w text)')
      await pipeline.initialize()
      await pipeline.copy()
      await pipeline.sql(`INSERT INTO "prix_€" VALUES (1, 'œuf à 2 €'); INSERT INTO bad VALUES (1, 'à', 'é'), (2, '€' || chr(129) || '€', 'x')`)
      await pipeline.sql(`INSERT INTO "prix_€" SELECT 2, string_agg(chr(i), '' ORDER BY i) FROM generate_series(1, 255) i WHERE i NOT IN (129, 141, 143, 144, 157); UPDATE "prix_€" SET id = 3 WHERE id = 1; INSERT INTO bad VALUES (3, 'ü', 'ü')`)
      const stopped = await pipeline.catchUp()
      expect(tableOf(stopped, 'prix_€')).toMatchObject({ state: 'streaming', inserts: 2, updates: 1 })
      expect(tableOf(stopped, 'bad')).toMatchObject({ state: 'failed', error: { type: 'UnrepresentableValue', message: expect.stringContaining('a value of column "v"') as string } })
      const { rows } = await pipeline.source.query<unknown[]>({ text: 'SELECT id, "été" FROM "prix_€" ORDER BY id', rowMode: 'array' })
      expect(await pipeline.query('SELECT id, "été" FROM public."prix_€" ORDER BY id')).toEqual(rows)
      await pipeline.sql("UPDATE bad SET v = 'mended' WHERE id = 2")
      await retry(pipeline)
      const mended = await pipeline.catchUp()
      expect([tableOf(mended, 'bad')?.state, mended.copied]).toEqual(['streaming', {}])
      expect(await pipeline.query('SELECT id, v, w FROM public.bad ORDER BY id')).toEqual([[1, 'à', 'é'], [2, 'mended', 'x'], [3, 'ü', 'ü']])
    })
  })

  it('stops a table alone whose copy finds a byte that its encoding has no character for', async () => {
    await withDatabase(url, 'WIN1252', {}, async (pipeline) => {
      await pipeline.sql("CREATE TABLE good (id int PRIMARY KEY, v text); CREATE TABLE bad (id int PRIMARY KEY, v text); INSERT INTO good VALUES (1, '€'); INSERT INTO bad VALUES (1, chr(129))")
      await pipeline.initialize()
      const copied = await pipeline.copy()
      expect(tableOf(copied, 'good')).toMatchObject({ state: 'streaming' })
      expect(tableOf(copied, 'bad')).toMatchObject({ state: 'failed', error: { type: 'UnrepresentableValue', message: expect.stringContaining('public.bad') as string } })
      expect(await pipeline.query('SELECT v FROM public.good')).toEqual([['€']])
    })
  })
})
