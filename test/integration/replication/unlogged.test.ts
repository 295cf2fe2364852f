import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest'
import { ChangingPipeline } from '../../support/schema-changes.ts'
import { createDatabase, type TestDatabase } from '../../support/servers.ts'
import { until } from '../../support/workflow-harness.ts'

/**
 * PostgreSQL refuses SET UNLOGGED only where a publication lists the table itself. `wide` has a TOAST table, `narrow` has none.
 *
 * Cause of all of these: after SET UNLOGGED and SET LOGGED the catalog looks as after VACUUM FULL, so rows that were written between the two were lost without a word.
 */
describe('tables of a whole schema that are UNLOGGED for a while', () => {
  const serverUrl = inject('postgresUrl')
  let database: TestDatabase

  beforeAll(async () => {
    database = await createDatabase(serverUrl)
  })

  afterAll(async () => {
    await database.drop()
  })

  const TABLES = (schema: string): string => `CREATE SCHEMA ${schema}; CREATE TABLE ${schema}.wide (id int PRIMARY KEY, v text); CREATE TABLE ${schema}.narrow (id int PRIMARY KEY, v int);
    INSERT INTO ${schema}.wide SELECT g, 'v' || g FROM generate_series(1, 5000) g; INSERT INTO ${schema}.narrow SELECT g, g FROM generate_series(1, 5000) g`
  const WRITTEN_UNLOGGED = (table: string): string => `BEGIN; ALTER TABLE ${table} SET UNLOGGED; UPDATE ${table} SET v = '7' WHERE id <= 10; DELETE FROM ${table} WHERE id = 20; ALTER TABLE ${table} SET LOGGED; COMMIT`
  // There a publication of ours lists the schema's tables.
  const BEFORE_15 = (statement: string): string => `DO $$ BEGIN IF current_setting('server_version_num')::int < 150000 THEN ${statement}; END IF; END $$`
  const over = async (schema: string, given: Parameters<typeof ChangingPipeline.over>[3] = {}): Promise<ChangingPipeline> =>
    ChangingPipeline.over(database.url, schema, `${TABLES(schema)}; ${BEFORE_15(`CREATE PUBLICATION ${schema}_pub FOR ALL TABLES`)}`, { tableNames: null, schemaName: schema, ...given })

  /** Waits for whoever runs on this server, other tests too: rows of a transaction that is not older than they tell nothing, and the table is copied to be sure. */
  const allHaveEnded = async ({ source }: ChangingPipeline): Promise<void> => {
    const { rows } = await source.query<{ xid: string }>('SELECT pg_current_xact_id()::text AS xid')
    const areOver = async (): Promise<boolean> => (await source.query('SELECT WHERE pg_snapshot_xmin(pg_current_snapshot()) > $1::xid8', [rows[0]?.xid])).rowCount === 1
    await until(areOver, (isSo) => isSo)
  }

  it.each(['wide', 'narrow'])('copies it again, whether it was so while somebody streamed or while nobody did (%s)', async (table) => {
    const schema = `u_${table}`
    await using pipeline = await over(schema)
    await pipeline.release()
    await pipeline.sql(WRITTEN_UNLOGGED(`${schema}.${table}`))
    expect((await pipeline.catchUp()).copied).toEqual({ [`${schema}.${table}`]: { rows: 4999 } })
    await pipeline.expectEqual(table, schema)
    await pipeline.whileStreaming(async (until) => {
      await pipeline.sql(`INSERT INTO ${schema}.${table} VALUES (6000, '1')`)
      await until(({ tables }) => tables[`${schema}.${table}`]?.inserts === 1)
      await pipeline.sql(`BEGIN; ALTER TABLE ${schema}.${table} SET UNLOGGED; DELETE FROM ${schema}.${table} WHERE id > 3000; ALTER TABLE ${schema}.${table} SET LOGGED; COMMIT`)
      await until(({ tables }) => tables[`${schema}.${table}`]?.snapshotRows === 2999)
    })
    const { progress, copied } = await pipeline.catchUp()
    expect(copied).toEqual({})
    expect(progress.warnings).toContainEqual(expect.stringContaining(`${schema}.${table} was rewritten at the source without its rows being sent: it is copied again`))
    await pipeline.expectEqual(table, schema)
  })

  it.each([
    ['one transaction', (table: string) => [`TRUNCATE ${table}; ALTER TABLE ${table} SET UNLOGGED; INSERT INTO ${table} VALUES (1, '1'); ALTER TABLE ${table} SET LOGGED; INSERT INTO ${table} VALUES (2, '2')`]],
    ['several', (table: string) => [`TRUNCATE ${table}; INSERT INTO ${table} VALUES (1, '1'), (20, '2')`, WRITTEN_UNLOGGED(table), `INSERT INTO ${table} VALUES (2, '2')`]],
  ])('copies it again where it was truncated before, and written to since, in %s', async (count, statementsOn) => {
    const schema = `u_${count.slice(0, 3)}`
    await using pipeline = await over(schema)
    for (const table of ['wide', 'narrow']) for (const statement of statementsOn(`${schema}.${table}`)) await pipeline.sql(statement)
    expect(Object.keys((await pipeline.catchUp()).copied).sort()).toEqual([`${schema}.narrow`, `${schema}.wide`])
    await pipeline.expectEqual('wide', schema)
    await pipeline.expectEqual('narrow', schema)
  })

  it('does not copy again what VACUUM FULL, CLUSTER, REINDEX and TRUNCATE leave as it was', async () => {
    await using pipeline = await over('u_same')
    for (const table of ['wide', 'narrow'].map((name) => `u_same.${name}`)) {
      for (const statements of [
        [`VACUUM FULL ${table}`],
        [`CLUSTER ${table} USING ${table.slice('u_same.'.length)}_pkey`],
        [`INSERT INTO ${table} SELECT g, g FROM generate_series(6000, 9000) g`, `VACUUM FREEZE ${table}`, `VACUUM FULL ${table}`],
        [`DELETE FROM ${table} WHERE id > 100`, `UPDATE ${table} SET v = '1' WHERE id < 50`, `VACUUM FULL ${table}`],
        [`TRUNCATE ${table}`, `INSERT INTO ${table} SELECT g, g FROM generate_series(1, 3000) g`],
        [`BEGIN; TRUNCATE ${table}; INSERT INTO ${table} SELECT g, g FROM generate_series(1, 3000) g; COMMIT`],
        [`VACUUM FULL ${table}`],
        [`REINDEX TABLE ${table}`],
      ]) {
        for (const statement of statements) await pipeline.sql(statement)
        await allHaveEnded(pipeline)
        expect([statements, (await pipeline.catchUp()).copied]).toEqual([statements, {}])
      }
    }
    await pipeline.expectEqual('wide', 'u_same')
    await pipeline.expectEqual('narrow', 'u_same')
  })

  it('copies it again where somebody looks meanwhile', async () => {
    await using pipeline = await over('u_seen')
    await pipeline.whileStreaming(async (until) => {
      await pipeline.sql('ALTER TABLE u_seen.narrow SET UNLOGGED; DELETE FROM u_seen.narrow WHERE id > 100')
      await until(({ tables }) => tables['u_seen.narrow']?.state === 'removed')
      await pipeline.sql('ALTER TABLE u_seen.narrow SET LOGGED')
      await until(({ tables }) => tables['u_seen.narrow']?.state === 'streaming')
    })
    await pipeline.catchUp()
    await pipeline.expectEqual('narrow', 'u_seen')
  })

  it('says of a history what it may lack', async () => {
    await using pipeline = await over('u_append', { writeMode: 'append' })
    await pipeline.sql(WRITTEN_UNLOGGED('u_append.narrow'))
    const { progress, copied } = await pipeline.catchUp()
    expect(copied).toEqual({})
    expect(progress.warnings).toContainEqual(expect.stringMatching(/^u_append\.narrow was rewritten at the source without its rows being sent: what its history holds/))
    expect((await pipeline.catchUp()).progress.tables['u_append.narrow']?.state).toBe('streaming')
  })

  it('leaves a listed table alone, which cannot become UNLOGGED', async () => {
    await using pipeline = await ChangingPipeline.over(database.url, 'u_listed', 'CREATE TABLE u_listed (id int PRIMARY KEY, v int); INSERT INTO u_listed VALUES (1, 1)')
    await expect(pipeline.sql('ALTER TABLE u_listed SET UNLOGGED')).rejects.toThrow('because it is part of a publication')
    for (const statement of ['UPDATE u_listed SET v = 2', 'VACUUM FULL u_listed']) await pipeline.sql(statement)
    expect((await pipeline.catchUp()).copied).toEqual({})
  })
})
