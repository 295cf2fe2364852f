import pg from 'pg'
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest'
import { ChangingPipeline } from '../../support/schema-changes.ts'
import { createDatabase, type TestDatabase } from '../../support/servers.ts'

const OTHERWISE = 'is published otherwise than before'
const MISSING = 'what was not sent is missing'

describe('tables whose publication sends otherwise than before', () => {
  let database: TestDatabase
  /** Row filters and schemas came with PostgreSQL 15. */
  let hasFilters: boolean

  beforeAll(async () => {
    database = await createDatabase(inject('postgresUrl'))
    const client = new pg.Client({ connectionString: database.url })
    await client.connect()
    const { rows } = await client.query<{ version: number }>("SELECT current_setting('server_version_num')::int AS version")
    await client.end()
    hasFilters = (rows[0]?.version ?? 0) >= 150_000
  })

  afterAll(async () => {
    await database.drop()
  })

  const rows = "INSERT INTO {} SELECT g, 'v' || g FROM generate_series(1, 20) g"

  /** A table `name (id, v)` of twenty rows. */
  async function over(name: string, given: Parameters<typeof ChangingPipeline.over>[3] = {}): Promise<ChangingPipeline> {
    return ChangingPipeline.over(database.url, name, `CREATE TABLE ${name} (id int PRIMARY KEY, v text); ${rows.replace('{}', name)}`, given)
  }

  // Cause: what the publication sends was read at the start and never again.
  it.each([
    ['an operation more', 'p_more', { publish: ['insert'] as const, writeMode: 'merge' as const }, 'insert, update, delete, truncate'],
    ['an operation fewer, and a key that comes again', 'p_fewer', {}, 'insert, update'],
  ])('copies a table again where it sends %s, changed while nothing ran', async (_name, table, given, publish) => {
    await using pipeline = await over(table, given)
    await pipeline.release()
    await pipeline.sql(`UPDATE ${table} SET v = 'unsent or not' WHERE id <= 3`)
    await pipeline.sql(`ALTER PUBLICATION ${table}_pub SET (publish = '${publish}')`)
    await pipeline.sql(`DELETE FROM ${table} WHERE id IN (5, 6)`)
    await pipeline.sql(`INSERT INTO ${table} VALUES (5, 'again'), (30, 'new'); UPDATE ${table} SET v = 'later' WHERE id = 7`)
    await pipeline.initialize()
    const { copied, progress } = await pipeline.catchUp()
    expect(copied).toEqual({ [`public.${table}`]: { rows: 20 } })
    expect(progress.warnings).toContainEqual(expect.stringContaining(OTHERWISE))
    await pipeline.expectEqual(table)
    // A key once only, whatever is not sent from now on.
    await pipeline.sql(`DELETE FROM ${table} WHERE id = 1`)
    await pipeline.sql(`INSERT INTO ${table} VALUES (1, 'once')`)
    expect((await pipeline.catchUp()).copied).toEqual({})
    await pipeline.expectEqual(table)
  })

  it('copies a table again, live, with writers going on', async () => {
    await using pipeline = await over('p_live')
    await pipeline.whileStreaming(async (until) => {
      for (const publish of ['insert', 'insert, update, delete, truncate']) {
        await pipeline.sql(`ALTER PUBLICATION p_live_pub SET (publish = '${publish}')`)
        await pipeline.sql("DELETE FROM p_live WHERE id <= 10; INSERT INTO p_live SELECT g, 'again' FROM generate_series(1, 10) g; UPDATE p_live SET v = v || '.' WHERE id > 10")
        await until(({ warnings }) => warnings.some((warning) => warning.includes(OTHERWISE)))
      }
    })
    await pipeline.catchUp()
    await pipeline.expectEqual('p_live')
  })

  it.each([
    ['soft', { deleteMode: 'soft' as const }, '_deleted_at IS NULL'],
    ['scd2', { writeMode: 'scd2' as const }, '_is_current'],
  ])('keeps one present row of a key that came again, its delete unsent, before anybody knew (%s)', async (mode, given, isCurrent) => {
    const table = `p_${mode}`
    await using pipeline = await over(table, given)
    await pipeline.sql(`ALTER PUBLICATION ${table}_pub SET (publish = 'insert, update')`)
    await pipeline.sql(`DELETE FROM ${table} WHERE id IN (1, 2, 3)`)
    await pipeline.sql(`INSERT INTO ${table} VALUES (1, 'v1'), (2, 'other')`)
    expect((await pipeline.catchUp()).copied).toEqual({ [`public.${table}`]: { rows: 19 } })
    expect(await pipeline.destinationRows(table, 'public', isCurrent)).toEqual(await pipeline.sourceRows(table))
    expect(await pipeline.query(`SELECT count(*) FROM public.${table} WHERE id = 3 AND NOT (${isCurrent})`)).toEqual([['1']])
  })

  it('copies a table without a key again, and takes no row for missing that was not sent', async () => {
    await using pipeline = await ChangingPipeline.over(database.url, 'p_full', 'CREATE TABLE p_full (a int, b text); ALTER TABLE p_full REPLICA IDENTITY FULL; INSERT INTO p_full SELECT g % 5, NULL FROM generate_series(1, 20) g', { publish: ['insert', 'delete'] })
    await pipeline.release()
    await pipeline.sql("UPDATE p_full SET b = 'unsent' WHERE a = 1")
    await pipeline.sql("ALTER PUBLICATION p_full_pub SET (publish = 'insert, update, delete')")
    await pipeline.sql("UPDATE p_full SET b = 'sent' WHERE a IN (1, 2); DELETE FROM p_full WHERE a = 1")
    await pipeline.initialize()
    expect((await pipeline.catchUp()).progress.tables['public.p_full']).toMatchObject({ state: 'streaming' })
    await pipeline.expectEqual('p_full')
  })

  it.each([['its table', 'p_back', 'TABLE ONLY p_back'], ['its whole schema', 'p_whole', 'TABLES IN SCHEMA public']])('copies a table again of a publication that %s left and came back to while nothing ran', async (_name, table, member) => {
    if (!hasFilters && member !== 'TABLE ONLY p_back') return
    await using pipeline = await ChangingPipeline.over(database.url, table, `CREATE TABLE ${table} (id int PRIMARY KEY, v text); ${rows.replace('{}', table)}; CREATE PUBLICATION ${table}_pub FOR ${member}`)
    await pipeline.release()
    await pipeline.sql(`ALTER PUBLICATION ${table}_pub DROP ${member}`)
    await pipeline.sql(`UPDATE ${table} SET v = 'unsent' WHERE id <= 3; DELETE FROM ${table} WHERE id = 4`)
    await pipeline.sql(`ALTER PUBLICATION ${table}_pub ADD ${member}`)
    await pipeline.initialize()
    expect((await pipeline.catchUp()).copied).toEqual({ [`public.${table}`]: { rows: 19 } })
    await pipeline.expectEqual(table)
  })

  it('warns where an append history, or a table that is never copied, misses what was not sent', async () => {
    await using history = await over('p_history', { writeMode: 'append' })
    await using never = await over('p_never', { snapshotMode: 'never' })
    for (const pipeline of [history, never]) {
      await pipeline.sql(`ALTER PUBLICATION ${pipeline.spec.publicationName} SET (publish = 'insert')`)
      await pipeline.sql(`INSERT INTO ${pipeline.spec.slotName} VALUES (30, 'new')`)
      const { copied, progress } = await pipeline.catchUp()
      expect(copied).toEqual({})
      expect(progress.warnings).toContainEqual(expect.stringContaining(OTHERWISE))
    }
    expect((await never.catchUp()).progress.warnings).toContainEqual(expect.stringContaining(MISSING))
  })

  it('copies nothing again for other tables that join or leave, and warns where it cannot be told whether operations were others for a while', async () => {
    await using pipeline = await over('p_calm')
    await pipeline.sql('CREATE TABLE p_other (id int PRIMARY KEY); ALTER PUBLICATION p_calm_pub ADD TABLE p_other')
    expect((await pipeline.catchUp()).copied).toEqual({})
    await pipeline.sql("ALTER PUBLICATION p_calm_pub DROP TABLE p_other; COMMENT ON PUBLICATION p_calm_pub IS 'ours'")
    const calm = await pipeline.catchUp()
    expect([calm.copied, calm.progress.warnings]).toEqual([{}, []])
    await pipeline.sql("ALTER PUBLICATION p_calm_pub SET (publish = 'insert')")
    await pipeline.sql("UPDATE p_calm SET v = 'unsent' WHERE id = 1")
    await pipeline.sql("ALTER PUBLICATION p_calm_pub SET (publish = 'insert, update, delete, truncate')")
    const { copied, progress } = await pipeline.catchUp()
    expect(copied).toEqual({})
    expect(progress.warnings).toEqual([expect.stringMatching(/"p_calm_pub" was altered and sends the same operations as before/)])
  })

  it('follows another row filter', async () => {
    if (!hasFilters) return
    await using pipeline = await ChangingPipeline.over(database.url, 'p_filter', `CREATE TABLE p_filter (id int PRIMARY KEY, v text); ${rows.replace('{}', 'p_filter')}; CREATE PUBLICATION p_filter_pub FOR TABLE p_filter WHERE (id > 5)`)
    const expectRows = async (where: string): Promise<void> => {
      const { rows: wanted } = await pipeline.source.query<unknown[]>({ text: `SELECT id, v FROM p_filter WHERE ${where} ORDER BY id`, rowMode: 'array' })
      expect(await pipeline.query('SELECT id, v FROM public.p_filter ORDER BY id')).toEqual(wanted)
    }
    await expectRows('id > 5')
    await pipeline.sql('ALTER PUBLICATION p_filter_pub SET TABLE p_filter WHERE (id > 2)')
    await pipeline.sql("UPDATE p_filter SET v = 'sent' WHERE id IN (1, 4, 9)")
    expect((await pipeline.catchUp()).copied).toEqual({ 'public.p_filter': { rows: 18 } })
    await expectRows('id > 2')
    await pipeline.release()
    await pipeline.sql('ALTER PUBLICATION p_filter_pub SET TABLE p_filter')
    await pipeline.sql("UPDATE p_filter SET v = 'all' WHERE id IN (1, 4, 9); ALTER TABLE p_filter RENAME COLUMN v TO w; ALTER TABLE p_filter RENAME COLUMN w TO v")
    await pipeline.initialize()
    await pipeline.catchUp()
    await expectRows('true')
  })
})
