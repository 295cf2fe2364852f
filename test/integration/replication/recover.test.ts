import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest'
import type { InitializeResult, SliceResult } from '../../../src/model/replication.ts'
import type { ReplicationSpec } from '../../../src/model/spec.ts'
import { CommitKiller, survive } from '../../support/commit-killer.ts'
import { appendRows, foldAppendRows } from '../../support/comparison.ts'
import { differences, specOf, TestPipeline, type TestPipelineOptions } from '../../support/pipeline.ts'
import { createDatabase, type TestDatabase } from '../../support/servers.ts'

const EQUAL = { missing: [], extra: [] }

let database: TestDatabase

beforeAll(async () => {
  database = await createDatabase(inject('postgresUrl'))
})

afterAll(async () => {
  await database.drop()
})

/** A replication that has caught up. */
async function pipelineOf(slotName: string, tables: string, spec: Partial<ReplicationSpec> = {}, options: TestPipelineOptions = {}): Promise<TestPipeline> {
  const pipeline = new TestPipeline(database.url, specOf({ slotName, tableNames: [slotName], ...spec }), options)
  await pipeline.sql(tables)
  await pipeline.initialize()
  await pipeline.catchUp()
  return pipeline
}

async function recover(pipeline: TestPipeline, order: { readonly onlySourceDiffered?: boolean } = {}): Promise<InitializeResult> {
  return pipeline.engine.recover({ spec: pipeline.spec, ...order }, pipeline.context())
}

/** What the slot held back is gone. */
async function loseSlot(pipeline: TestPipeline): Promise<void> {
  await pipeline.release()
  await pipeline.sql('SELECT pg_drop_replication_slot($1)', [pipeline.spec.slotName])
}

async function expectEqual(pipeline: TestPipeline, tables: readonly string[], where = 'true'): Promise<void> {
  for (const table of tables) expect(differences(await pipeline.destinationRows(table, 'public', where), await pipeline.sourceRows(table)), table).toEqual(EQUAL)
}

describe('recover', () => {
  it('copies only what differs after the slot was dropped: changed, deleted, inserted and moved rows, values stored out of line, TRUNCATE, beside writers', async () => {
    const big = (seed: string): string => `(SELECT string_agg(md5(${seed} || g), '') FROM generate_series(1, 200) g)`
    await using pipeline = await pipelineOf(
      'r_merge',
      `CREATE TABLE r_merge (id int PRIMARY KEY, v int, big text); ALTER TABLE r_merge ALTER COLUMN big SET STORAGE EXTERNAL;
       INSERT INTO r_merge SELECT g, g, CASE WHEN g <= 20 THEN ${big('g::text')} END FROM generate_series(1, 1000) g;
       CREATE TABLE r_emptied (id int PRIMARY KEY, v int); INSERT INTO r_emptied SELECT g, g FROM generate_series(1, 50) g;
       CREATE TABLE r_bag (v int, t text); ALTER TABLE r_bag REPLICA IDENTITY FULL; INSERT INTO r_bag SELECT g % 5, 'x' FROM generate_series(1, 40) g`,
      { tableNames: ['r_merge', 'r_emptied', 'r_bag'] },
    )
    await loseSlot(pipeline)
    await pipeline.sql(`UPDATE r_merge SET v = -v WHERE id BETWEEN 100 AND 109; UPDATE r_merge SET big = ${big("'late' || id::text")} WHERE id <= 6; DELETE FROM r_merge WHERE id BETWEEN 200 AND 204;
      INSERT INTO r_merge SELECT g, 0, NULL FROM generate_series(2001, 2005) g; DELETE FROM r_merge WHERE id = 300; TRUNCATE r_emptied; INSERT INTO r_emptied VALUES (7, 0);
      DELETE FROM r_bag WHERE v = 1; UPDATE r_bag SET t = 'y' WHERE v = 2; INSERT INTO r_bag VALUES (2, 'x'), (9, 'z')`)
    await expect(pipeline.initialize()).rejects.toMatchObject({ kind: 'SlotLost', remedy: expect.stringMatching(/recover.*"reset": true/) as string })
    const { warnings, progress, created } = await recover(pipeline)
    expect(created).toEqual({ slot: true, publication: false })
    expect(warnings.join('\n')).toMatch(/slot was lost and made anew.*\n.*public\.r_bag: without a key/)
    expect(progress.warnings).toContainEqual(expect.stringMatching(/public\.r_merge: changes behind [\dA-F]+\/[\dA-F]+ may be missing/))
    expect(Object.fromEntries(Object.entries(progress.tables).map(([name, { state }]) => [name, state]))).toEqual({ 'public.r_merge': 'snapshotting', 'public.r_emptied': 'snapshotting', 'public.r_bag': 'pending' })
    // Changes of rows that are not what the source changed: the stream comes before the comparison.
    await pipeline.sql(`UPDATE r_merge SET v = 1 WHERE id IN (1, 100); UPDATE r_merge SET id = id + 5000 WHERE id IN (2, 3, 101); UPDATE r_merge SET id = -4 WHERE id = 4; UPDATE r_merge SET id = 3 WHERE id = 5;
      INSERT INTO r_merge VALUES (200, 5, NULL), (300, 6, NULL); DELETE FROM r_merge WHERE id IN (2001, 102); UPDATE r_merge SET v = 9 WHERE id = 2002; DELETE FROM r_bag WHERE v IN (2, 9); INSERT INTO r_bag VALUES (9, 'z')`)
    const result = await pipeline.catchUp()
    expect(Object.values(result.progress.tables).map(({ state }) => state)).toEqual(['streaming', 'streaming', 'streaming'])
    expect(result.progress.warnings.filter((warning) => warning.includes('may be missing'))).toEqual([])
    const told = result.progress.warnings.find((warning) => warning.startsWith('public.r_merge was compared')) ?? ''
    // 21 rows differ at most, as the stream may put some of them right.
    expect(Number(/of which (\d+)/.exec(told)?.[1])).toBeLessThanOrEqual(30)
    expect(result.copied).toEqual({ 'public.r_bag': { rows: expect.any(Number) as number } })
    await expectEqual(pipeline, ['r_merge', 'r_emptied', 'r_bag'])
    await pipeline.sql("UPDATE r_merge SET v = v + 1; DELETE FROM r_emptied; UPDATE r_bag SET t = 'last'")
    await pipeline.catchUp()
    await expectEqual(pipeline, ['r_merge', 'r_emptied', 'r_bag'])
  })

  it('puts histories and marked rows right, and says what they cannot know', async () => {
    await using pipeline = await pipelineOf(
      'r_past',
      `CREATE TABLE r_past (id int PRIMARY KEY, v int); INSERT INTO r_past SELECT g, g FROM generate_series(1, 100) g; CREATE TABLE r_changes (LIKE r_past INCLUDING ALL); INSERT INTO r_changes SELECT * FROM r_past;
       CREATE TABLE r_soft (LIKE r_past INCLUDING ALL); INSERT INTO r_soft SELECT * FROM r_past; CREATE TABLE r_keyless (id int, v int); ALTER TABLE r_keyless REPLICA IDENTITY FULL; INSERT INTO r_keyless SELECT * FROM r_past`,
      { tableNames: ['r_past', 'r_changes', 'r_soft', 'r_keyless'], writeMode: { r_past: ['scd2'], r_changes: ['append'], r_keyless: ['append'] }, deleteMode: 'soft' },
    )
    await loseSlot(pipeline)
    for (const table of ['r_past', 'r_changes', 'r_soft', 'r_keyless']) await pipeline.sql(`UPDATE ${table} SET v = -v WHERE id <= 3; UPDATE ${table} SET v = 0 WHERE id = 1; DELETE FROM ${table} WHERE id = 50; INSERT INTO ${table} VALUES (101, 1)`)
    const { warnings } = await recover(pipeline)
    expect(warnings).toContainEqual(expect.stringMatching(/r_changes, public\.r_keyless, public\.r_past, public\.r_soft: what became of rows meanwhile is not in their history/))
    for (const table of ['r_past', 'r_changes', 'r_soft', 'r_keyless']) await pipeline.sql(`DELETE FROM ${table} WHERE id IN (2, 101); INSERT INTO ${table} VALUES (50, 5), (101, 2)`)
    await pipeline.catchUp()
    await expectEqual(pipeline, ['r_past'], '_is_current')
    await expectEqual(pipeline, ['r_soft'], '_deleted_at IS NULL')
    expect(foldAppendRows(await appendRows(async (sql) => pipeline.query(sql), 'r_changes', 'public'), ['id'])).toEqual(await pipeline.sourceRows('r_changes'))
    expect(await pipeline.query('SELECT id FROM public.r_keyless GROUP BY id, v HAVING sum(CASE WHEN _op = \'delete\' THEN -1 ELSE 1 END) <> 0 ORDER BY id')).toHaveLength(100)
    // One version for all that happened while nobody looked; the ones of before are there.
    expect(await pipeline.query('SELECT v, _is_current FROM public.r_past WHERE id IN (1, 3) ORDER BY id, _lsn')).toEqual([[1, false], [0, true], [3, false], [-3, true]])
    await pipeline.sql('UPDATE r_past SET v = 7 WHERE id = 1; UPDATE r_keyless SET v = 8 WHERE id = 1')
    await pipeline.catchUp()
    await expectEqual(pipeline, ['r_past'], '_is_current')
  })

  it('copies tables anew whose columns are others by now, goes on with copies that were under way, and leaves stopped tables stopped', async () => {
    await using pipeline = await pipelineOf(
      'r_shapes',
      `CREATE TABLE r_shapes (id int PRIMARY KEY, v int); INSERT INTO r_shapes VALUES (1, 1); CREATE TABLE r_stopped (id int PRIMARY KEY, v text); INSERT INTO r_stopped VALUES (1, '1');
       CREATE TABLE r_later (id int PRIMARY KEY, v int); CREATE TABLE r_renamed (id int PRIMARY KEY, v int); INSERT INTO r_renamed VALUES (1, 1)`,
      { tableNames: ['r_shapes', 'r_stopped', 'r_renamed'], columns: { r_stopped: { v: { dataType: 'BIGINT' } } } },
    )
    await pipeline.sql("INSERT INTO r_stopped VALUES (2, 'no number')")
    await pipeline.catchUp()
    await pipeline.order({ tag: 'add', tableNames: ['r_later'] })
    await loseSlot(pipeline)
    await pipeline.sql("ALTER TABLE r_shapes ALTER COLUMN v TYPE text; UPDATE r_shapes SET v = 'text'; INSERT INTO r_later VALUES (1, 1); ALTER TABLE r_renamed RENAME TO r_other; UPDATE r_other SET v = 2; UPDATE r_stopped SET v = '3'")
    await recover(pipeline)
    await pipeline.sql('INSERT INTO r_stopped VALUES (5, 5)')
    const { progress } = await pipeline.catchUp()
    expect(Object.fromEntries(Object.entries(progress.tables).map(([name, { state }]) => [name, state]))).toEqual({ 'public.r_later': 'streaming', 'public.r_other': 'streaming', 'public.r_shapes': 'streaming', 'public.r_stopped': 'failed' })
    await expectEqual(pipeline, ['r_shapes', 'r_later', 'r_other'])
    // With what was kept while it had stopped, and behind it the comparison.
    await pipeline.engine.retryTables({ spec: pipeline.spec, owner: pipeline.owner, tableNames: null })
    await pipeline.catchUp()
    await expectEqual(pipeline, ['r_stopped'])
  })

  it('refuses what was never replicated, and a slot of another kind, and changes nothing then', async () => {
    await using fresh = new TestPipeline(database.url, specOf({ slotName: 'r_fresh', tableNames: ['r_fresh'] }))
    await fresh.sql('CREATE TABLE r_fresh (id int PRIMARY KEY)')
    await expect(recover(fresh)).rejects.toMatchObject({ kind: 'InvalidInput', message: expect.stringContaining('has not been initialized') as string })
    await using pipeline = await pipelineOf('r_read', 'CREATE TABLE r_read (id int PRIMARY KEY)')
    await loseSlot(pipeline)
    await pipeline.sql("SELECT pg_create_physical_replication_slot('r_read')")
    await expect(recover(pipeline)).rejects.toMatchObject({ kind: 'InvalidInput', message: expect.stringContaining('physical slot') as string })
    await pipeline.sql("SELECT pg_drop_replication_slot('r_read')")
    expect(await pipeline.query("SELECT definition->>'gap' FROM _replication.tables")).toEqual([[null]])
  })

  it('takes the former source up again where its slot is whole, with all that it holds', async () => {
    await using pipeline = await pipelineOf(
      'r_back',
      'CREATE TABLE r_back (id int PRIMARY KEY, v int); INSERT INTO r_back VALUES (1, 1); CREATE TABLE r_bare (v int); ALTER TABLE r_bare REPLICA IDENTITY FULL; INSERT INTO r_bare VALUES (1)',
      { tableNames: ['r_back', 'r_bare'], writeMode: { r_back: ['append'] }, flushSlot: false },
    )
    await pipeline.sql('INSERT INTO r_back VALUES (2, 2)')
    await pipeline.catchUp()
    await pipeline.release()
    await pipeline.sql('UPDATE r_back SET v = 10 WHERE id = 1; UPDATE r_back SET v = 11 WHERE id = 1; INSERT INTO r_bare VALUES (2)')
    const slot = async (): Promise<unknown> => (await pipeline.sql("SELECT restart_lsn, confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = 'r_back'")).rows
    const before = await slot()
    const { created, warnings } = await recover(pipeline, { onlySourceDiffered: true })
    expect(created).toEqual({ slot: false, publication: false })
    expect(warnings.filter((warning) => warning.includes('lost'))).toEqual([])
    expect(await slot()).toEqual(before)
    const { copied } = await pipeline.catchUp()
    expect(copied).toEqual({})
    expect(await pipeline.query('SELECT v FROM public.r_back WHERE id = 1 ORDER BY _lsn, _seq')).toEqual([[1], [10], [11]])
    await expectEqual(pipeline, ['r_bare'])
    // The same slot proves nothing once it was seen to be lost: the source may have been put back, and its WAL has grown.
    await pipeline.release()
    expect((await recover(pipeline)).created.slot).toBe(true)
  })

  it('says that rows that were never brought come too', async () => {
    await using pipeline = await pipelineOf('r_never', 'CREATE TABLE r_never (id int PRIMARY KEY); INSERT INTO r_never VALUES (1)', { snapshotMode: 'never' })
    await loseSlot(pipeline)
    expect((await recover(pipeline)).warnings).toContainEqual(expect.stringContaining('snapshotMode "never" does not count here'))
    await pipeline.catchUp()
    await expectEqual(pipeline, ['r_never'])
  })

  it('makes one gap where the attempt that made the slot could not tell of it', async () => {
    await using pipeline = await pipelineOf('r_twice', 'CREATE TABLE r_twice (id int PRIMARY KEY, v int); INSERT INTO r_twice VALUES (1, 1)', { writeMode: 'append' })
    await loseSlot(pipeline)
    await pipeline.sql('UPDATE r_twice SET v = 2')
    expect((await recover(pipeline)).created.slot).toBe(true)
    await pipeline.sql('UPDATE r_twice SET v = 3; UPDATE r_twice SET v = 4')
    expect((await recover(pipeline)).created.slot).toBe(false)
    await pipeline.catchUp()
    expect((await pipeline.query('SELECT v FROM public.r_twice ORDER BY _lsn, _seq')).flat()).toEqual(expect.arrayContaining([1, 3, 4]))
    expect(foldAppendRows(await appendRows(async (sql) => pipeline.query(sql), 'r_twice', 'public'), ['id'])).toEqual(await pipeline.sourceRows('r_twice'))
  })

  it('keeps what comes to a history whose comparison the source refuses', async () => {
    const role = `reader_${database.name}`
    const url = new URL(database.url)
    url.username = role
    url.password = 'secret'
    await using admin = new TestPipeline(database.url, specOf({ slotName: 'r_admin', tableNames: [] }))
    await admin.sql(`CREATE ROLE ${role} LOGIN REPLICATION PASSWORD 'secret'; CREATE TABLE r_denied (id int PRIMARY KEY, v int); INSERT INTO r_denied VALUES (1, 1), (2, 2); GRANT SELECT ON r_denied TO ${role};
      CREATE PUBLICATION r_denied_pub FOR TABLE r_denied`)
    try {
      await using pipeline = new TestPipeline(url.href, specOf({ slotName: 'r_denied', tableNames: ['r_denied'], writeMode: 'append' }))
      await pipeline.initialize()
      await pipeline.catchUp()
      await pipeline.release()
      await admin.sql("SELECT pg_drop_replication_slot('r_denied')")
      await admin.sql('UPDATE r_denied SET v = 3 WHERE id = 1')
      await recover(pipeline)
      await admin.sql(`REVOKE SELECT ON r_denied FROM ${role}; UPDATE r_denied SET v = 20 WHERE id = 2; UPDATE r_denied SET v = 21 WHERE id = 2`)
      expect((await pipeline.catchUp()).progress.tables['public.r_denied']).toMatchObject({ state: 'failed', error: { type: 'PrivilegeMissing' } })
      await admin.sql('UPDATE r_denied SET v = 22 WHERE id = 2; UPDATE r_denied SET v = 23 WHERE id = 2')
      await pipeline.catchUp()
      await admin.sql(`GRANT SELECT ON r_denied TO ${role}`)
      await pipeline.engine.retryTables({ spec: pipeline.spec, owner: pipeline.owner, tableNames: null })
      await pipeline.catchUp()
      expect((await pipeline.query('SELECT v FROM public.r_denied WHERE id = 2 ORDER BY _lsn, _seq')).flat()).toEqual([2, 20, 21, 22, 23])
      expect(foldAppendRows(await appendRows(async (sql) => pipeline.query(sql), 'r_denied', 'public'), ['id'])).toEqual(await admin.sourceRows('r_denied'))
      await pipeline.release()
      await admin.sql("SELECT pg_drop_replication_slot('r_denied')")
    } finally {
      await admin.sql(`DROP OWNED BY ${role}; DROP ROLE ${role}`)
    }
  })

  it('keeps a failover slot one (PostgreSQL 17+), and takes one that was made so by hand', async ({ skip }) => {
    await using pipeline = await pipelineOf('r_failover', 'CREATE TABLE r_failover (id int PRIMARY KEY); INSERT INTO r_failover VALUES (1)')
    const { rows } = await pipeline.sql("SELECT current_setting('server_version_num')::int >= 170000 AS is_there")
    skip(!(rows[0] as { is_there: boolean }).is_there, 'failover slots came with PostgreSQL 17')
    await loseSlot(pipeline)
    await pipeline.sql("SELECT pg_create_logical_replication_slot('r_failover', 'pgoutput', failover => true); INSERT INTO r_failover VALUES (2)")
    await expect(pipeline.initialize().then(async () => pipeline.catchUp())).rejects.toMatchObject({ kind: 'SlotLost' })
    await recover(pipeline)
    await pipeline.sql('INSERT INTO r_failover VALUES (3)')
    await pipeline.catchUp()
    await pipeline.initialize()
    await expectEqual(pipeline, ['r_failover'])
    expect((await pipeline.sql("SELECT failover FROM pg_replication_slots WHERE slot_name = 'r_failover'")).rows).toEqual([{ failover: true }])
  })

  it('ends as if nobody had been killed, wherever somebody was, with writers at it', { timeout: 240_000 }, async () => {
    const killer = new CommitKiller()
    await using pipeline = await pipelineOf(
      'r_kill',
      'CREATE TABLE r_kill (id int PRIMARY KEY, v int); INSERT INTO r_kill SELECT g, g FROM generate_series(1, 300) g',
      {},
      { around: (destination) => killer.around(destination) },
    )
    let round = 0
    const write = async (): Promise<void> => {
      round++
      await pipeline.sql(`BEGIN; UPDATE r_kill SET v = v + 1 WHERE id % 9 = ${String(round % 9)}; DELETE FROM r_kill WHERE id % 50 = ${String(round % 50)}; INSERT INTO r_kill SELECT g, 0 FROM generate_series(1, 300) g WHERE g % 50 = ${String((round + 25) % 50)} ON CONFLICT DO NOTHING;
        UPDATE r_kill SET id = id + 1000 * (CASE WHEN id > 300 THEN -1 ELSE 1 END) WHERE id IN (${String(round % 300)}, ${String(1000 + ((round + 3) % 300))}) AND NOT EXISTS (SELECT FROM r_kill o WHERE o.id = r_kill.id + 1000 * (CASE WHEN r_kill.id > 300 THEN -1 ELSE 1 END)); COMMIT`)
    }
    // Behind each commit, and so before the next one.
    for (let index = 0, isOver = false; !isOver; index++) {
      await loseSlot(pipeline)
      await write()
      killer.arm(index, true)
      await survive(async () => recover(pipeline))
      const writing = write().then(write)
      const result: SliceResult = await survive(async () => {
        await pipeline.engine.release({ spec: pipeline.spec, owner: pipeline.owner, keepClaim: true })
        return pipeline.catchUp()
      })
      await writing
      expect(result.hasTablesToCopy).toBe(false)
      isOver = killer.disarm()
      await pipeline.catchUp()
      await expectEqual(pipeline, ['r_kill'])
    }
    expect(killer.victims.map((victim) => victim.slice('after '.length))).toEqual(expect.arrayContaining(['claim', 'saveTables', 'register']))
  })
})
