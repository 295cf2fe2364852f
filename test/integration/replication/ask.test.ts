import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest'
import type { ErrorReport } from '../../../src/model/errors.ts'
import { ChangingPipeline } from '../../support/schema-changes.ts'
import { createDatabase } from '../../support/servers.ts'

let database: Awaited<ReturnType<typeof createDatabase>>

beforeAll(async () => {
  database = await createDatabase(inject('postgresUrl'))
})

afterAll(async () => {
  await database.drop()
})

type Given = Parameters<typeof ChangingPipeline.over>[3]

async function asking(name: string, ddl: string, given: Given = {}): Promise<ChangingPipeline> {
  return ChangingPipeline.over(database.url, name, ddl, { schemaChanges: 'ask', ...given })
}

async function approve(pipeline: ChangingPipeline, table: string): Promise<void> {
  const { tables } = await pipeline.order({ tag: 'approve', tableNames: [table] })
  expect(Object.values(tables).filter(({ state }) => state === 'failed')).toEqual([])
}

/** Reads on, and returns what the table waits for. */
async function waitsAt(pipeline: ChangingPipeline, table: string): Promise<ErrorReport> {
  const { progress } = await pipeline.catchUp()
  const status = progress.tables[`public.${table}`]
  expect(status).toMatchObject({ state: 'failed', error: { type: 'SchemaChangeRefused' } })
  if (status?.error === undefined) throw new Error('no error')
  return status.error
}

async function retry(pipeline: ChangingPipeline): Promise<void> {
  await pipeline.engine.retryTables({ spec: pipeline.spec, owner: pipeline.owner, tableNames: null })
}

describe('schemaChanges ask', () => {
  it('shows the statements and the rows touched, keeps the table\'s changes, and makes the change at its place once it is approved', async () => {
    await using pipeline = await asking('k_add', "CREATE TABLE k_add (id int PRIMARY KEY); CREATE TABLE k_other (id int PRIMARY KEY); INSERT INTO k_add VALUES (1), (2)", { tableNames: ['k_add', 'k_other'] })
    await pipeline.sql("INSERT INTO k_add VALUES (3); ALTER TABLE k_add ADD COLUMN note text DEFAULT 'a secret of old rows'; INSERT INTO k_add VALUES (4, 'four'); INSERT INTO k_other VALUES (1)")
    const error = await waitsAt(pipeline, 'k_add')
    expect(error.message).toBe(
      [
        'public.k_add has changed at the source and waits for approval (schemaChanges is "ask"): columns: added "note" text.',
        `ALTER TABLE "public"."k_add" ADD COLUMN "note" VARCHAR DEFAULT '…';`,
        'ALTER TABLE "public"."k_add" ALTER COLUMN "note" DROP DEFAULT;',
        'Rows touched: 2.',
      ].join('\n'),
    )
    expect(error.remedy).toContain('update approveSchemaChange {"table": "public.k_add"}')
    expect(error.remedy).toContain('The update approveSchemaChange then goes on exactly where the table stopped.')
    await pipeline.expectEqual('k_other')
    // Whatever is not this order changes nothing.
    await pipeline.sql("UPDATE k_add SET note = 'n' WHERE id = 1; DELETE FROM k_add WHERE id = 2")
    await retry(pipeline)
    expect(await waitsAt(pipeline, 'k_add')).toEqual(error)
    await pipeline.release()
    await pipeline.initialize()
    expect(await waitsAt(pipeline, 'k_add')).toEqual(error)
    await approve(pipeline, 'k_add')
    // An attempt whose answer was lost comes once more.
    await approve(pipeline, 'public.k_add')
    const { progress, copied } = await pipeline.catchUp()
    expect(progress.tables['public.k_add']).toMatchObject({ state: 'streaming', inserts: 2, updates: 1, deletes: 1, snapshotRows: 2 })
    expect(copied).toEqual({})
    await pipeline.expectEqual('k_add')
    await pipeline.sql("INSERT INTO k_add VALUES (5, 'five')")
    await pipeline.catchUp()
    await pipeline.expectEqual('k_add')
  })

  it('asks again for another change in the kept changes, and for the same one when it comes back', async () => {
    await using pipeline = await asking('k_two', 'CREATE TABLE k_two (id int PRIMARY KEY, a int); INSERT INTO k_two VALUES (1, 1)')
    await pipeline.sql('ALTER TABLE k_two ADD COLUMN b int; INSERT INTO k_two VALUES (2, 2, 2); ALTER TABLE k_two RENAME COLUMN a TO aa; INSERT INTO k_two VALUES (3, 3, 3)')
    // A column that has another name by now: its addition and the renaming cannot be told apart from the catalog, and a fresh copy is.
    expect((await waitsAt(pipeline, 'k_two')).message).toContain('copied anew')
    await approve(pipeline, 'k_two')
    await pipeline.catchUp()
    await pipeline.expectEqual('k_two')
    await pipeline.sql('ALTER TABLE k_two ADD COLUMN c int; INSERT INTO k_two VALUES (4, 4, 4, 4)')
    expect((await waitsAt(pipeline, 'k_two')).message).toContain('ADD COLUMN "c" INTEGER')
    await pipeline.sql('ALTER TABLE k_two ADD COLUMN d int; INSERT INTO k_two VALUES (5, 5, 5, 5, 5)')
    await pipeline.catchUp()
    await approve(pipeline, 'k_two')
    const second = await waitsAt(pipeline, 'k_two')
    expect(second.message).toContain('ADD COLUMN "d" INTEGER')
    await approve(pipeline, 'k_two')
    await pipeline.catchUp()
    await pipeline.expectEqual('k_two')
    await pipeline.sql('ALTER TABLE k_two DROP COLUMN d; INSERT INTO k_two VALUES (6, 6, 6, 6)')
    expect((await waitsAt(pipeline, 'k_two')).message).toContain('DROP COLUMN "d"')
    await approve(pipeline, 'k_two')
    await pipeline.catchUp()
    // The shape that was approved before is another change now.
    await pipeline.sql('ALTER TABLE k_two ADD COLUMN d int; INSERT INTO k_two VALUES (7, 7, 7, 7, 7)')
    expect((await waitsAt(pipeline, 'k_two')).message).toContain('ADD COLUMN "d" INTEGER')
    await approve(pipeline, 'k_two')
    await pipeline.catchUp()
    await pipeline.expectEqual('k_two')
  })

  it('follows a name once it is approved, and asks when the table gets its former one', async () => {
    await using pipeline = await asking('k_name', 'CREATE TABLE k_name (id int PRIMARY KEY); INSERT INTO k_name VALUES (1)')
    await pipeline.sql('ALTER TABLE k_name RENAME TO k_named; INSERT INTO k_named VALUES (2)')
    const { message } = await waitsAt(pipeline, 'k_name')
    expect(message).toContain('it is named public.k_named now.\nALTER TABLE "public"."k_name" RENAME TO "k_named";\nRows touched: 0.')
    expect(await pipeline.targets()).toEqual(['public.k_name'])
    await approve(pipeline, 'k_name')
    expect(Object.entries((await pipeline.catchUp()).progress.tables)).toEqual([['public.k_named', expect.objectContaining({ state: 'streaming', inserts: 1 })]])
    await pipeline.expectEqual('k_named')
    // The catalog alone tells of it.
    await pipeline.sql('ALTER TABLE k_named RENAME TO k_name')
    expect((await waitsAt(pipeline, 'k_named')).message).toContain('RENAME TO "k_name"')
    await pipeline.sql('ALTER TABLE k_name RENAME TO k_named; INSERT INTO k_named VALUES (3)')
    await retry(pipeline)
    expect((await pipeline.catchUp()).progress.tables).toMatchObject({ 'public.k_named': { state: 'streaming', inserts: 2 } })
    await pipeline.sql('ALTER TABLE k_named RENAME TO k_name')
    await waitsAt(pipeline, 'k_named')
    await approve(pipeline, 'k_named')
    await pipeline.catchUp()
    await pipeline.sql('ALTER TABLE k_name RENAME TO k_named')
    // Approved long ago, and in force since: not again.
    expect((await waitsAt(pipeline, 'k_name')).message).toContain('RENAME TO "k_named"')
  })

  it('copies anew only after approval what no statement makes right, also where only the catalog tells of it', async () => {
    await using pipeline = await asking('k_copy', 'CREATE TABLE k_copy (id int PRIMARY KEY, v int); INSERT INTO k_copy SELECT g, g FROM generate_series(1, 7) g')
    await pipeline.sql('ALTER TABLE k_copy ALTER v TYPE text; INSERT INTO k_copy VALUES (8, $$eight$$)')
    expect((await waitsAt(pipeline, 'k_copy')).message).toContain('"v" has type text.\nThe table is copied anew beside the rows that are there and swapped in at once: about 7 rows.')
    await approve(pipeline, 'k_copy')
    await pipeline.catchUp()
    await pipeline.expectEqual('k_copy')
    await pipeline.sql('ALTER TABLE k_copy ADD COLUMN u uuid DEFAULT gen_random_uuid()')
    expect((await waitsAt(pipeline, 'k_copy')).message).toContain('about 8 rows')
    await approve(pipeline, 'k_copy')
    expect((await pipeline.catchUp()).copied).toEqual({ 'public.k_copy': { rows: 8 } })
    await pipeline.expectEqual('k_copy')
  })

  it('lets a changed table be copied anew as it is, by resync', async () => {
    await using pipeline = await asking('k_resync', 'CREATE TABLE k_resync (id int PRIMARY KEY); INSERT INTO k_resync VALUES (1)')
    await pipeline.sql('ALTER TABLE k_resync ADD COLUMN a int; INSERT INTO k_resync VALUES (2, 2)')
    await waitsAt(pipeline, 'k_resync')
    await pipeline.order({ tag: 'resync', tableNames: ['k_resync'] })
    expect((await pipeline.catchUp()).progress.tables['public.k_resync']).toMatchObject({ state: 'streaming' })
    await pipeline.expectEqual('k_resync')
  })

  it('makes a pending change once schemaChanges is apply, and goes on by a copy where the source has changed it back', async () => {
    await using pipeline = await asking('k_back', 'CREATE TABLE k_back (id int PRIMARY KEY); INSERT INTO k_back VALUES (1)')
    await pipeline.sql('ALTER TABLE k_back ADD COLUMN a int; INSERT INTO k_back VALUES (2, 2)')
    await waitsAt(pipeline, 'k_back')
    await pipeline.sql('ALTER TABLE k_back DROP COLUMN a; INSERT INTO k_back VALUES (3)')
    await retry(pipeline)
    expect((await pipeline.catchUp()).progress.tables['public.k_back']).toMatchObject({ state: 'streaming' })
    await pipeline.expectEqual('k_back')
    await pipeline.sql('ALTER TABLE k_back ADD COLUMN b int; INSERT INTO k_back VALUES (4, 4)')
    await waitsAt(pipeline, 'k_back')
    pipeline.spec = { ...pipeline.spec, schemaChanges: 'apply' }
    await retry(pipeline)
    await pipeline.catchUp()
    await pipeline.expectEqual('k_back')
  })

  it('asks in a copy, too, and refuses an approval where nothing waits, naming what does', async () => {
    await using pipeline = await asking('k_load', 'CREATE TABLE k_load (id int PRIMARY KEY); INSERT INTO k_load VALUES (1); CREATE TABLE k_still (id int PRIMARY KEY)', { tableNames: ['k_load', 'k_still'] })
    await expect(pipeline.order({ tag: 'approve', tableNames: ['k_still'] })).rejects.toThrow('no schema change that waits for approval: its state is streaming')
    await expect(pipeline.order({ tag: 'approve', tableNames: ['k_nowhere'] })).rejects.toThrow('table names "k_nowhere", which is not one of the replicated tables')
    await pipeline.order({ tag: 'resync', tableNames: ['k_load'] })
    await pipeline.sql('ALTER TABLE k_load ADD COLUMN a int; UPDATE k_load SET a = 1')
    expect((await waitsAt(pipeline, 'k_load')).remedy).toContain('The update approveSchemaChange then copies the table anew.')
    await expect(pipeline.order({ tag: 'approve', tableNames: ['k_still'] })).rejects.toMatchObject({ kind: 'InvalidInput', remedy: 'these wait: public.k_load' })
    await approve(pipeline, 'k_load')
    await pipeline.catchUp()
    await pipeline.expectEqual('k_load')
  })

  it('keeps a history whole over a change that was approved late', async () => {
    await using pipeline = await asking('k_hist', 'CREATE TABLE k_hist (id int PRIMARY KEY, v int); INSERT INTO k_hist VALUES (1, 1)', { writeMode: 'append' })
    await pipeline.sql('ALTER TABLE k_hist DROP COLUMN v; INSERT INTO k_hist VALUES (2); UPDATE k_hist SET id = 3 WHERE id = 2')
    const { message } = await waitsAt(pipeline, 'k_hist')
    expect(message).toContain('dropped "v".\nNothing is run at the destination.')
    await approve(pipeline, 'k_hist')
    await pipeline.catchUp()
    expect(await pipeline.query('SELECT id, v, _op FROM public.k_hist ORDER BY _lsn, _seq')).toEqual([[1, 1, 'snapshot'], [2, null, 'insert'], [2, null, 'delete'], [3, null, 'insert']])
  })
})

describe('schemaChanges refuse', () => {
  it('does not let a column in by the copy of rewritten rows', async () => {
    await using pipeline = await asking('k_refuse', 'CREATE TABLE k_refuse (id int PRIMARY KEY); INSERT INTO k_refuse VALUES (1)', { schemaChanges: 'refuse' })
    await pipeline.sql('ALTER TABLE k_refuse ADD COLUMN u uuid DEFAULT gen_random_uuid()')
    await waitsAt(pipeline, 'k_refuse')
    expect(await pipeline.query("SELECT column_name FROM duckdb_columns() WHERE table_name = 'k_refuse' ORDER BY 1")).toEqual([['_lsn'], ['id']])
  })
})
