import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import pg from 'pg'
import { from as copyFrom } from 'pg-copy-streams'
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest'
import { appendRows, differences, doubledChanges, foldAppendRows, NO_DIFFERENCES, readFile } from '../../support/comparison.ts'
import { specOf, TestPipeline } from '../../support/pipeline.ts'
import { createDatabase, type TestDatabase } from '../../support/servers.ts'

/** The same tables replicated as rows and as history. */
class Both implements AsyncDisposable {
  readonly merge: TestPipeline
  readonly append: TestPipeline
  readonly #tables: readonly string[]

  private constructor(url: string, slotName: string, tables: readonly string[]) {
    this.#tables = tables
    this.merge = new TestPipeline(url, specOf({ slotName, tableNames: tables }))
    this.append = new TestPipeline(url, specOf({ slotName: `${slotName}_history`, tableNames: tables, writeMode: 'append' }))
  }

  /** Every table's key is `id`. */
  static async over(url: string, slotName: string, tables: readonly string[], ddl: string): Promise<Both> {
    const both = new Both(url, slotName, tables)
    await both.sql(ddl)
    for (const pipeline of [both.merge, both.append]) {
      await pipeline.initialize()
      await pipeline.copy()
    }
    return both
  }

  async sql(text: string): Promise<pg.QueryResult> {
    return this.merge.sql(text)
  }

  async release(): Promise<void> {
    await this.merge.release()
    await this.append.release()
  }

  /** The rows are the source's; the history folded by key is, too, and no change is in it twice. `changes` is how many it must hold by now. */
  async expectEqual(changes?: Readonly<Record<string, number>>): Promise<void> {
    await this.merge.catchUp()
    await this.append.catchUp()
    for (const table of this.#tables) {
      const source = await this.merge.sourceRows(table)
      expect(differences(await this.merge.destinationRows(table), source), table).toEqual(NO_DIFFERENCES)
      await this.append.release()
      const rows = await readFile(this.append.file, async (query) => appendRows(query, table))
      expect(differences(foldAppendRows(rows, ['id']), source), `history of ${table}`).toEqual(NO_DIFFERENCES)
      expect(doubledChanges(rows, ['id']), table).toEqual([])
      if (changes?.[table] !== undefined) expect(rows.filter(({ op }) => op !== 'snapshot').length, `changes of ${table}`).toBe(changes[table])
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const pipeline of [this.merge, this.append]) {
      const { slotName, publicationName } = pipeline.spec
      await pipeline.engine.drop({ source: 'shop', destination: 'warehouse', slotName, publicationName, dropDestination: true }, pipeline.context())
      await pipeline[Symbol.asyncDispose]()
    }
  }
}

describe('operations', { timeout: 600_000 }, () => {
  let database: TestDatabase

  beforeAll(async () => {
    database = await createDatabase(inject('postgresUrl'))
  })

  afterAll(async () => {
    await database.drop()
  })

  it('TRUNCATE of several tables, by CASCADE too, between inserts of one transaction', async () => {
    await using both = await Both.over(
      database.url,
      'op_truncate',
      ['op_parent', 'op_child', 'op_alone'],
      'CREATE TABLE op_parent (id serial PRIMARY KEY); CREATE TABLE op_child (id serial PRIMARY KEY, parent int REFERENCES op_parent); CREATE TABLE op_alone (id serial PRIMARY KEY, v text); INSERT INTO op_parent SELECT FROM generate_series(1, 5); INSERT INTO op_child (parent) SELECT g FROM generate_series(1, 5) g; INSERT INTO op_alone SELECT FROM generate_series(1, 5)',
    )
    await both.sql("BEGIN; INSERT INTO op_alone (v) VALUES ('before'); TRUNCATE op_parent, op_alone RESTART IDENTITY CASCADE; INSERT INTO op_parent DEFAULT VALUES; INSERT INTO op_child (parent) VALUES (1); INSERT INTO op_alone (v) VALUES ('after'); COMMIT")
    await both.expectEqual({ op_parent: 2, op_child: 2, op_alone: 3 })
    await both.sql("BEGIN; TRUNCATE op_alone; INSERT INTO op_alone (id) VALUES (1), (2); TRUNCATE op_alone; INSERT INTO op_alone (id, v) VALUES (1, 'last'); COMMIT")
    await both.sql('BEGIN; SAVEPOINT s; TRUNCATE op_parent CASCADE; INSERT INTO op_parent VALUES (77); ROLLBACK TO s; INSERT INTO op_parent VALUES (78); COMMIT')
    await both.expectEqual({ op_parent: 3, op_child: 2, op_alone: 8 })
  })

  it('subtransactions: what was rolled back is not there, of thousands of savepoints and of blocks with exceptions', async () => {
    await using both = await Both.over(database.url, 'op_sub', ['op_sub'], "CREATE TABLE op_sub (id int PRIMARY KEY, v text); INSERT INTO op_sub VALUES (0, 'there')")
    await both.sql(`BEGIN; INSERT INTO op_sub VALUES (1, 'a'); SAVEPOINT s1; INSERT INTO op_sub VALUES (2, 'b'); SAVEPOINT s2; DELETE FROM op_sub; ROLLBACK TO s2;
      UPDATE op_sub SET v = 'kept' WHERE id = 1; RELEASE s1; SAVEPOINT s3; UPDATE op_sub SET v = 'gone'; ROLLBACK TO s3; INSERT INTO op_sub VALUES (3, 'c'); COMMIT`)
    await both.sql(`DO $$ BEGIN FOR g IN 10..2009 LOOP
        BEGIN INSERT INTO op_sub VALUES (g, 'block'); IF g % 3 = 0 THEN PERFORM 1 / 0; END IF; EXCEPTION WHEN division_by_zero THEN INSERT INTO op_sub VALUES (-g, 'handled'); END;
      END LOOP; END $$`)
    const savepoints = Array.from({ length: 10_000 }, (_, index) => `SAVEPOINT p; INSERT INTO op_sub VALUES (${String(10_000 + index)}, 'p')${index % 10 === 9 ? '; ROLLBACK TO p' : ''}`)
    await both.sql(`BEGIN; ${savepoints.join('; ')}; COMMIT`)
    await both.sql("BEGIN; INSERT INTO op_sub VALUES (5, 'never'); ROLLBACK")
    await both.expectEqual({ op_sub: 4 + 2000 + 9000 })
  })

  it('prepared transactions: at COMMIT PREPARED and not before, across restarts; nothing of ROLLBACK PREPARED', async () => {
    await using both = await Both.over(database.url, 'op_2pc', ['op_2pc'], 'CREATE TABLE op_2pc (id int PRIMARY KEY); INSERT INTO op_2pc VALUES (1)')
    const prepare = async (name: string, statements: string): Promise<void> => {
      const client = new pg.Client({ connectionString: database.url })
      await client.connect()
      await client.query(`BEGIN; ${statements}; PREPARE TRANSACTION '${name}'`)
      await client.end()
    }
    await prepare('op kept', 'INSERT INTO op_2pc VALUES (2), (3); SAVEPOINT s; DELETE FROM op_2pc WHERE id = 3; ROLLBACK TO s')
    await prepare('op gone', 'INSERT INTO op_2pc VALUES (4); DELETE FROM op_2pc WHERE id = 1')
    await both.sql('INSERT INTO op_2pc VALUES (5)')
    await both.expectEqual({ op_2pc: 1 })
    await both.release()
    await both.sql("COMMIT PREPARED 'op kept'")
    await both.sql("ROLLBACK PREPARED 'op gone'")
    await both.expectEqual({ op_2pc: 3 })
    await both.sql('DELETE FROM op_2pc WHERE id = 2')
    await both.expectEqual({ op_2pc: 4 })
  })

  it('replication origins, logical messages and empty transactions: changes are replicated whoever made them, the rest is passed', async () => {
    await using both = await Both.over(database.url, 'op_origin', ['op_origin'], 'CREATE TABLE op_origin (id int PRIMARY KEY); CREATE TABLE op_other (id int PRIMARY KEY)')
    const client = new pg.Client({ connectionString: database.url })
    await client.connect()
    try {
      const origin = `elsewhere_${String(process.pid)}`
      await client.query(`SELECT pg_replication_origin_create('${origin}')`)
      await client.query(`SELECT pg_replication_origin_session_setup('${origin}')`)
      await client.query("BEGIN; SELECT pg_replication_origin_xact_setup('0/ABCDEF', '2024-01-01 00:00:00+00'); INSERT INTO op_origin VALUES (1); SELECT pg_logical_emit_message(true, 'ours', 'in between'); INSERT INTO op_origin VALUES (2); COMMIT")
      await client.query("SELECT pg_logical_emit_message(false, 'ours', repeat('x', 100000))")
      await client.query("SELECT pg_logical_emit_message(true, 'ours', 'alone')")
      await client.query('SELECT pg_replication_origin_session_reset()')
      await client.query(`SELECT pg_replication_origin_drop('${origin}')`)
    } finally {
      await client.end()
    }
    await both.sql('BEGIN; SELECT pg_current_xact_id(); COMMIT')
    await both.sql('INSERT INTO op_other VALUES (1)')
    await both.sql('INSERT INTO op_origin VALUES (3)')
    await both.sql('BEGIN; INSERT INTO op_other VALUES (2); CREATE TABLE op_made (id int); COMMIT')
    await both.expectEqual({ op_origin: 3 })
  })

  it('INSERT … ON CONFLICT by writers at once, MERGE, COPY FROM, writing CTEs', async () => {
    await using both = await Both.over(database.url, 'op_upsert', ['op_upsert'], "CREATE TABLE op_upsert (id int PRIMARY KEY, v int, note text); INSERT INTO op_upsert SELECT g, 0, 'first' FROM generate_series(1, 20) g")
    // Two that insert one key at the same moment: one of the two takes its speculative row back.
    const upsert = async (): Promise<void> => {
      for (let round = 0; round < 100; round++) await both.sql(`INSERT INTO op_upsert VALUES (${String(100 + (round % 25))}, 1, 'new') ON CONFLICT (id) DO UPDATE SET v = op_upsert.v + 1`)
    }
    await Promise.all([upsert(), upsert(), upsert(), upsert()])
    await both.sql("INSERT INTO op_upsert VALUES (1, 9, 'taken'), (200, 9, 'free') ON CONFLICT DO NOTHING")
    const { rows } = await both.sql("SELECT current_setting('server_version_num')::int AS version")
    if ((rows as { version: number }[]).every(({ version }) => version >= 150_000)) {
      await both.sql(`MERGE INTO op_upsert t USING (VALUES (1, 10), (2, -1), (300, 3)) s (id, v) ON t.id = s.id
        WHEN MATCHED AND s.v < 0 THEN DELETE WHEN MATCHED THEN UPDATE SET v = s.v, id = t.id + 1000 WHEN NOT MATCHED THEN INSERT VALUES (s.id, s.v, 'merged')`)
    }
    await both.sql(`WITH gone AS (DELETE FROM op_upsert WHERE id BETWEEN 5 AND 8 RETURNING *), changed AS (UPDATE op_upsert SET note = 'cte' WHERE id = 9 RETURNING id)
      INSERT INTO op_upsert SELECT id + 500, v, 'moved' FROM gone UNION ALL SELECT id + 500, 0, 'copied' FROM changed`)
    const client = await both.merge.source.connect()
    await pipeline(Readable.from(['400\t1\tcopied\n401\t\\N\t\n402\t2\ttab\\tnew\\nline\n']), client.query(copyFrom('COPY op_upsert FROM STDIN')))
    client.release()
    await both.expectEqual()
  })

  it('what triggers and foreign keys write: cascades of every kind, deferred ones too', async () => {
    await using both = await Both.over(
      database.url,
      'op_cascade',
      ['op_owner', 'op_owned', 'op_log'],
      `CREATE TABLE op_owner (id int PRIMARY KEY, v int); CREATE TABLE op_log (id serial PRIMARY KEY, what text);
       CREATE TABLE op_owned (id int PRIMARY KEY, del int REFERENCES op_owner ON DELETE CASCADE ON UPDATE CASCADE, nul int REFERENCES op_owner ON DELETE SET NULL ON UPDATE SET NULL,
         def int DEFAULT 1 REFERENCES op_owner ON DELETE SET DEFAULT ON UPDATE CASCADE DEFERRABLE INITIALLY DEFERRED);
       CREATE FUNCTION op_note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
         IF TG_OP = 'UPDATE' AND NEW.v = 666 THEN RETURN NULL; END IF;
         INSERT INTO op_log (what) VALUES (TG_OP || ' ' || coalesce(NEW.id, OLD.id)); RETURN coalesce(NEW, OLD); END $$;
       CREATE FUNCTION op_count() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO op_log (what) SELECT 'statement ' || count(*) FROM fresh; RETURN NULL; END $$;
       CREATE TRIGGER op_before BEFORE INSERT OR UPDATE OR DELETE ON op_owner FOR EACH ROW EXECUTE FUNCTION op_note();
       CREATE TRIGGER op_after AFTER INSERT ON op_owner REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION op_count();
       INSERT INTO op_owner SELECT g, g FROM generate_series(1, 9) g; INSERT INTO op_owned SELECT g, g, g, g FROM generate_series(1, 9) g`,
    )
    await both.sql('DELETE FROM op_owner WHERE id IN (2, 3)')
    await both.sql('UPDATE op_owner SET id = 40 WHERE id = 4; UPDATE op_owner SET v = 666 WHERE id = 5; UPDATE op_owner SET v = 7 WHERE id = 6')
    await both.sql('BEGIN; INSERT INTO op_owned VALUES (50, NULL, NULL, 51); INSERT INTO op_owner VALUES (51, 1), (52, 1); SET CONSTRAINTS ALL IMMEDIATE; DELETE FROM op_owner WHERE id = 52; COMMIT')
    await both.expectEqual()
  })

  it('TRUNCATE between inserts, of a table that is being copied', async () => {
    await using copying = new TestPipeline(database.url, specOf({ slotName: 'op_copied', tableNames: ['op_copied'] }))
    await copying.sql("CREATE TABLE op_copied (id int PRIMARY KEY, v text); INSERT INTO op_copied SELECT g, 'old' FROM generate_series(1, 500000) g")
    await copying.initialize()
    const ended = new AbortController()
    let onSeen = (): void => undefined
    const seen = new Promise<void>((resolve) => { onSeen = resolve })
    const slice = copying.engine.runSlice(
      { spec: copying.spec, mode: 'stream', tableNames: null, untilLsn: null, maxBusyMs: 200_000, maxIdleMs: 200_000 },
      { ...copying.context(), signal: ended.signal, report: ({ progress }) => { if ((progress?.tables['public.op_copied']?.snapshotRows ?? 0) > 0) onSeen() } },
    )
    await Promise.race([seen, slice])
    await copying.sql("BEGIN; INSERT INTO op_copied VALUES (-1, 'before'); TRUNCATE op_copied; INSERT INTO op_copied VALUES (7, 'after'), (600000, 'after'); COMMIT")
    await copying.sql("INSERT INTO op_copied VALUES (8, 'later'); UPDATE op_copied SET v = 'changed' WHERE id = 7")
    ended.abort()
    await slice
    await copying.catchUp()
    expect(differences(await copying.destinationRows('op_copied'), await copying.sourceRows('op_copied'))).toEqual(NO_DIFFERENCES)
    expect(await copying.query('SELECT count(*)::INTEGER FROM public.op_copied')).toEqual([[3]])
  })
})
