import pg from 'pg'
import { afterAll, afterEach, beforeAll, expect, inject, it } from 'vitest'
import type { OperationContext } from '../../../src/model/replication.ts'
import { differences, NO_DIFFERENCES } from '../../support/comparison.ts'
import { specOf, TestPipeline } from '../../support/pipeline.ts'
import { createDatabase, type TestDatabase } from '../../support/servers.ts'
import { until } from '../../support/workflow-harness.ts'

/**
 * PostgreSQL does not publish writes that came before `ALTER PUBLICATION … ADD TABLE` in a transaction that commits after it. So such
 * transactions must be waited for before the copy's snapshot, or their rows are in neither copy nor stream.
 */
let database: TestDatabase
let writer: pg.Client

beforeAll(async () => {
  database = await createDatabase(inject('postgresUrl'))
  writer = new pg.Client({ connectionString: database.url })
  await writer.connect()
})
afterEach(async () => {
  // A failed test's transaction would be waited for by all others.
  await writer.query('ROLLBACK')
})
afterAll(async () => {
  await writer.end()
  await database.drop()
})

/** A context that keeps what was reported, for people to see in the heartbeat. */
function reporting(pipeline: TestPipeline): { readonly context: OperationContext; readonly activities: string[] } {
  const activities: string[] = []
  return { activities, context: { ...pipeline.context(), report: ({ activity }) => activities.push(activity) } }
}

async function pidOf(client: pg.Client): Promise<string> {
  const { rows } = await client.query<{ pid: string }>('SELECT pg_backend_pid()::text AS pid')
  return rows[0]?.pid ?? ''
}

async function untilReported(activities: readonly string[], text: RegExp): Promise<void> {
  await until(async () => Promise.resolve(activities.filter((activity) => text.test(activity))), (found) => found.length > 0)
}

async function expectEqual(pipeline: TestPipeline, table: string): Promise<void> {
  expect(differences(await pipeline.destinationRows(table), await pipeline.sourceRows(table))).toEqual(NO_DIFFERENCES)
}

it('loses nothing of a transaction that is open across init, and tells whom it waits for', async () => {
  await using pipeline = new TestPipeline(database.url, specOf({ slotName: 'across_init', tableNames: ['across_init'] }))
  await pipeline.sql("CREATE TABLE across_init (id int PRIMARY KEY, note text); INSERT INTO across_init VALUES (1, 'there')")
  await writer.query("BEGIN; INSERT INTO across_init VALUES (2, 'before init'); UPDATE across_init SET note = 'changed' WHERE id = 1")
  const { context, activities } = reporting(pipeline)
  const initializing = pipeline.engine.initialize({ spec: pipeline.spec }, context)
  await untilReported(activities, new RegExp(`\\b${await pidOf(writer)}\\b`))
  await writer.query("INSERT INTO across_init VALUES (3, 'during init'); COMMIT")
  await initializing
  await pipeline.copy()
  await pipeline.catchUp()
  await expectEqual(pipeline, 'across_init')
})

it.each(['merge', 'append'] as const)('loses nothing of a transaction that wrote before its table was published (%s)', async (writeMode) => {
  const [first, later] = [`published_${writeMode}`, `joins_${writeMode}`]
  await using pipeline = new TestPipeline(database.url, specOf({ slotName: first, tableNames: [first], writeMode }))
  await pipeline.sql(`CREATE TABLE ${first} (id int PRIMARY KEY); CREATE TABLE ${later} (id int PRIMARY KEY, note text); INSERT INTO ${later} VALUES (1, 'there')`)
  await pipeline.initialize()
  await pipeline.catchUp()

  await writer.query(`BEGIN; INSERT INTO ${later} VALUES (2, 'before it was published'); UPDATE ${later} SET note = 'changed' WHERE id = 1`)
  const spec = { ...pipeline.spec, tableNames: [first, later] }
  // The slot is there: nothing waits yet.
  await pipeline.engine.initialize({ spec }, pipeline.context())
  await writer.query(`INSERT INTO ${later} VALUES (3, 'after it was published')`)
  const { context, activities } = reporting(pipeline)
  const slice = pipeline.engine.runSlice({ spec, mode: 'stream', tableNames: null, untilLsn: 'now', maxBusyMs: 60_000, maxIdleMs: 60_000 }, context)
  await untilReported(activities, new RegExp(`waits.*\\b${await pidOf(writer)}\\b`))
  await writer.query(`INSERT INTO ${later} VALUES (4, 'while the copy waits'); DELETE FROM ${later} WHERE id = 1; COMMIT`)
  expect((await slice).ended).toBe('done')
  await pipeline.sql(`INSERT INTO ${later} VALUES (5, 'after the copy')`)
  await pipeline.engine.runSlice({ spec, mode: 'stream', tableNames: null, untilLsn: 'now', maxBusyMs: 60_000, maxIdleMs: 60_000 }, pipeline.context())
  await expectEqual(pipeline, later)
  expect(await pipeline.query(`SELECT count(*)::INTEGER, count(DISTINCT id)::INTEGER FROM public.${later}`)).toEqual([[4, 4]])
})

// Cause: each slice took anew what was to be waited for: where transactions overlap longer than a slice lasts, the copy never began.
it('begins a copy although somebody writes at any time, and loses nothing', async () => {
  await using pipeline = new TestPipeline(database.url, specOf({ slotName: 'overlapping', tableNames: ['overlapping'] }))
  await pipeline.sql("CREATE TABLE overlapping (id int PRIMARY KEY); CREATE TABLE overlapping_later (id int PRIMARY KEY, note text); INSERT INTO overlapping_later VALUES (1, 'there')")
  await pipeline.initialize()
  await pipeline.catchUp()
  await writer.query("BEGIN; INSERT INTO overlapping_later VALUES (2, 'before it was published')")
  const spec = { ...pipeline.spec, tableNames: ['overlapping', 'overlapping_later'] }
  await pipeline.engine.initialize({ spec }, pipeline.context())
  const slice = async (context = pipeline.context()): Promise<boolean> =>
    (await pipeline.engine.runSlice({ spec, mode: 'stream', tableNames: null, untilLsn: null, maxBusyMs: 1_000, maxIdleMs: 1_000 }, context)).hasTablesToCopy
  expect(await slice()).toBe(true)
  const next = new pg.Client({ connectionString: database.url })
  await next.connect()
  try {
    await next.query("BEGIN; INSERT INTO overlapping_later VALUES (3, 'since it was published')")
    const { context, activities } = reporting(pipeline)
    expect(await slice(context)).toBe(true)
    expect(activities.join('\n')).toMatch(new RegExp(`waits.*\\b${await pidOf(writer)}\\b`))
    expect(activities.join('\n')).not.toMatch(new RegExp(`\\b${await pidOf(next)}\\b`))
    await writer.query('UPDATE overlapping_later SET note = \'changed\' WHERE id = 1; COMMIT')
    await until(slice, (mustCopy) => !mustCopy)
    await next.query("UPDATE overlapping_later SET note = 'changed again' WHERE id = 2; COMMIT")
  } finally {
    await next.end()
  }
  await pipeline.engine.runSlice({ spec, mode: 'stream', tableNames: null, untilLsn: 'now', maxBusyMs: 60_000, maxIdleMs: 60_000 }, pipeline.context())
  await expectEqual(pipeline, 'overlapping_later')
})

it('loses nothing of a transaction that is prepared across publishing and copy', async () => {
  await using pipeline = new TestPipeline(database.url, specOf({ slotName: 'two_phases', tableNames: ['two_phases'] }))
  await pipeline.sql('CREATE TABLE two_phases (id int PRIMARY KEY); CREATE TABLE two_phases_later (id int PRIMARY KEY)')
  await pipeline.initialize()
  await pipeline.catchUp()
  await writer.query("BEGIN; INSERT INTO two_phases_later VALUES (1), (2); PREPARE TRANSACTION 'kept open'")
  const spec = { ...pipeline.spec, tableNames: ['two_phases', 'two_phases_later'] }
  await pipeline.engine.initialize({ spec }, pipeline.context())
  const { context, activities } = reporting(pipeline)
  const slice = pipeline.engine.runSlice({ spec, mode: 'copy', tableNames: null, untilLsn: null, maxBusyMs: 60_000, maxIdleMs: 60_000 }, context)
  await untilReported(activities, /waits/)
  await writer.query("COMMIT PREPARED 'kept open'")
  await slice
  await pipeline.engine.runSlice({ spec, mode: 'stream', tableNames: null, untilLsn: 'now', maxBusyMs: 60_000, maxIdleMs: 60_000 }, pipeline.context())
  await expectEqual(pipeline, 'two_phases_later')
  expect(activities.join('\n')).toContain('kept open')
})
