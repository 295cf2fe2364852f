import { describe, expect, inject, it } from 'vitest'
import { ChangingPipeline } from '../../support/schema-changes.ts'
import { createDatabase } from '../../support/servers.ts'

const EXCHANGE = (table: string): string =>
  `ALTER TABLE ${table} RENAME COLUMN v TO between; ALTER TABLE ${table} RENAME COLUMN w TO v; ALTER TABLE ${table} RENAME COLUMN between TO w`

describe('columns', () => {
  const url = inject('postgresUrl')
  // Cause: a Relation message has names and types and no attribute numbers: to it nothing has changed. Old rows kept the values of the other column.
  it('that take each other’s names are told by the catalog: the table is copied again', async () => {
    const database = await createDatabase(url)
    try {
      await using pipeline = await ChangingPipeline.over(database.url, 'exchanged', "CREATE TABLE exchanged (id int PRIMARY KEY, v text, w text); INSERT INTO exchanged VALUES (1, 'a', 'b')")
      await pipeline.sql(EXCHANGE('exchanged'))
      await pipeline.sql("INSERT INTO exchanged (id, v) VALUES (20, 'new')")
      expect((await pipeline.catchUp()).copied).toEqual({ 'public.exchanged': { rows: 2 } })
      await pipeline.expectEqual('exchanged')
      await pipeline.sql(`UPDATE exchanged SET w = 'x'; ${EXCHANGE('exchanged')}; ALTER TABLE exchanged ADD COLUMN more int; UPDATE exchanged SET more = id`)
      await pipeline.catchUp()
      await pipeline.expectEqual('exchanged')
      expect((await pipeline.catchUp()).copied).toEqual({})
    } finally {
      await database.drop()
    }
  })

  // Causes: what was dropped and added anew looks the same in a Relation message, so old rows kept the former column's values. And where a further change
  // came later, it was told by attribute numbers from before the rows in between, which lost values or got them in each other's columns.
  it.each([
    ['dropped and added anew', 'ALTER TABLE again DROP COLUMN v; ALTER TABLE again ADD COLUMN v text'],
    ['dropped and added anew with a default', "ALTER TABLE again DROP COLUMN v; ALTER TABLE again ADD COLUMN v text DEFAULT 'd'"],
    ['taken from another that is dropped', 'ALTER TABLE again DROP COLUMN v; ALTER TABLE again RENAME COLUMN w TO v; ALTER TABLE again ADD COLUMN w text'],
    ['exchanged', EXCHANGE('again')],
  ])('whose names are %s have the values that the source has, with rows before, between and after a further change', async (_case, change) => {
    const database = await createDatabase(url)
    try {
      await using pipeline = await ChangingPipeline.over(database.url, 'again', "CREATE TABLE again (id int PRIMARY KEY, v text, w text); INSERT INTO again VALUES (1, 'v1', 'w1')")
      await pipeline.sql(change)
      await pipeline.catchUp()
      await pipeline.expectEqual('again')
      await pipeline.sql(`BEGIN; INSERT INTO again (id, v, w) VALUES (2, 'v2', 'w2'); ${change}; INSERT INTO again (id, v, w) VALUES (3, 'v3', 'w3'); COMMIT`)
      await pipeline.catchUp()
      await pipeline.expectEqual('again')
      await pipeline.sql(`${change}; INSERT INTO again (id, v, w) VALUES (4, 'v4', 'w4'); ALTER TABLE again ADD COLUMN more int; INSERT INTO again (id, v, w) VALUES (5, 'v5', 'w5')`)
      await pipeline.catchUp()
      await pipeline.expectEqual('again')
      await pipeline.sql(`ALTER TABLE again DROP COLUMN w; ALTER TABLE again ADD COLUMN w int; UPDATE again SET w = id WHERE id > 2`)
      expect((await pipeline.catchUp()).copied).toEqual({})
      await pipeline.expectEqual('again')
    } finally {
      await database.drop()
    }
  })

  // Cause: message and catalog said what was known; the rows in between had their values in each other's columns.
  it('that had each other’s names for a while are told by the order in which they are sent: the table is copied again', async () => {
    const database = await createDatabase(url)
    try {
      await using pipeline = await ChangingPipeline.over(database.url, 'awhile', "CREATE TABLE awhile (id int PRIMARY KEY, v text, w text); INSERT INTO awhile VALUES (1, 'a', 'b')")
      await pipeline.sql(`${EXCHANGE('awhile')}; INSERT INTO awhile (id, v, w) VALUES (2, 'of w', 'of v'); ${EXCHANGE('awhile')}; INSERT INTO awhile VALUES (3, 'c', 'd')`)
      expect((await pipeline.catchUp()).copied).toEqual({ 'public.awhile': { rows: 3 } })
      await pipeline.expectEqual('awhile')
      await pipeline.sql("UPDATE awhile SET w = 'x'")
      expect((await pipeline.catchUp()).copied).toEqual({})
      await pipeline.expectEqual('awhile')
    } finally {
      await database.drop()
    }
  })

  // Cause: the first message was resolved with the catalog of now: it gave the new column's number to the one that was gone, and rows kept the values of that one.
  it.each([
    ['dropped and added anew', 'ALTER TABLE since ADD COLUMN c int; UPDATE since SET c = 1; ALTER TABLE since DROP COLUMN c; ALTER TABLE since ADD COLUMN c int'],
    ['renamed, and another one added with its name', 'ALTER TABLE since ADD COLUMN c int; UPDATE since SET c = 1; ALTER TABLE since RENAME COLUMN c TO d; ALTER TABLE since ADD COLUMN c int'],
    ['dropped and added anew, in one transaction', 'BEGIN; ALTER TABLE since ADD COLUMN c int; UPDATE since SET c = 1; ALTER TABLE since DROP COLUMN c; ALTER TABLE since ADD COLUMN c int; COMMIT'],
  ])('that came since the stream was here last, and were %s: the table is copied again', async (_case, change) => {
    const database = await createDatabase(url)
    try {
      await using pipeline = await ChangingPipeline.over(database.url, 'since', "CREATE TABLE since (id int PRIMARY KEY, former int, v text); ALTER TABLE since DROP COLUMN former; INSERT INTO since VALUES (1, 'a'), (2, 'b')")
      // Each statement is a transaction of its own; several in one are one.
      for (const statement of change.startsWith('BEGIN') ? [change] : change.split('; ')) await pipeline.sql(statement)
      await pipeline.sql('INSERT INTO since (id, c) VALUES (3, 3)')
      expect((await pipeline.catchUp()).copied).toEqual({ 'public.since': { rows: 3 } })
      await pipeline.expectEqual('since')
    } finally {
      await database.drop()
    }
  })

  it('are added in their place where others were dropped before', async () => {
    const database = await createDatabase(url)
    try {
      await using pipeline = await ChangingPipeline.over(
        database.url,
        'holes',
        'CREATE TABLE holes (id int PRIMARY KEY, former int, v text); ALTER TABLE holes DROP COLUMN former; CREATE TABLE clock (id int PRIMARY KEY)',
        { tableNames: ['holes', 'clock'] },
      )
      for (const [statements, isSeen] of [
        ['ALTER TABLE holes ADD COLUMN a int; UPDATE holes SET a = 1', false],
        ['ALTER TABLE holes DROP COLUMN a; INSERT INTO holes VALUES (1)', false],
        ['ALTER TABLE holes ADD COLUMN b int; UPDATE holes SET b = 1', false],
        // Here nothing but a look tells that one came and went.
        ['ALTER TABLE holes ADD COLUMN c int; ALTER TABLE holes DROP COLUMN c', true],
        ['ALTER TABLE holes ADD COLUMN d int, ADD COLUMN e text; UPDATE holes SET d = 1', false],
      ] as const) {
        await pipeline.sql(`${statements}; INSERT INTO clock SELECT count(*) FROM clock`)
        expect([statements, (await pipeline.catchUp()).copied]).toEqual([statements, {}])
        if (isSeen) expect((await pipeline.catchUp()).copied).toEqual({})
      }
      await pipeline.expectEqual('holes')
    } finally {
      await database.drop()
    }
  })

  it('that take each other’s names in a history: what was sent stays, what comes has its name, and a warning says so', async () => {
    const database = await createDatabase(url)
    try {
      await using pipeline = await ChangingPipeline.over(database.url, 'told', "CREATE TABLE told (id int PRIMARY KEY, v text, w text); INSERT INTO told VALUES (1, 'a', 'b')", { writeMode: 'append' })
      await pipeline.sql(EXCHANGE('told'))
      await pipeline.sql("INSERT INTO told (id, v) VALUES (20, 'new')")
      const { progress } = await pipeline.catchUp()
      expect(progress.warnings.join()).toContain('public.told was rewritten')
      await pipeline.sql("ALTER TABLE told RENAME COLUMN v TO vv; INSERT INTO told (id, vv) VALUES (21, 'last')")
      await pipeline.catchUp()
      expect(await pipeline.query('SELECT id, vv, w FROM public.told ORDER BY _lsn, id')).toEqual([[1, 'a', 'b'], [20, 'new', null], [21, 'last', null]])
    } finally {
      await database.drop()
    }
  })

  // Cause: the catalog was ahead of the message, so columns were told by names; the renamed one was taken for a new one of the same number.
  it('that were renamed in a history before another one got its type', async () => {
    const database = await createDatabase(url)
    try {
      await using pipeline = await ChangingPipeline.over(database.url, 'ahead', "CREATE TABLE ahead (id int PRIMARY KEY, v text, big text); INSERT INTO ahead VALUES (1, 'a', 'b')", { writeMode: 'append' })
      await pipeline.sql('BEGIN; ALTER TABLE ahead RENAME COLUMN big TO bigger; ALTER TABLE ahead ADD COLUMN n int; INSERT INTO ahead (id, n) VALUES (8, 3); COMMIT')
      await pipeline.sql('ALTER TABLE ahead ALTER n TYPE bigint USING n * 2')
      await pipeline.sql("INSERT INTO ahead (id, bigger, n) VALUES (20, 'B', 5)")
      await pipeline.catchUp()
      expect(await pipeline.query('SELECT id, v, bigger, n::INTEGER FROM public.ahead ORDER BY _lsn, id')).toEqual([[1, 'a', 'b', null], [8, null, null, 3], [20, null, 'B', 5]])
    } finally {
      await database.drop()
    }
  })
})

// Cause: only init looked for such names; in the stream DuckDB refused them with a message for nobody.
it.each([['_lsn', 'merge'], ['_SEQ', 'append'], ['V', 'merge']] as const)('a column %s that comes later stops its table alone, in %s, with what to do', async (column, writeMode) => {
  const database = await createDatabase(inject('postgresUrl'))
  try {
    await using pipeline = await ChangingPipeline.over(database.url, 'reserved', 'CREATE TABLE reserved (id int PRIMARY KEY, v text); CREATE TABLE other (id int PRIMARY KEY)', { tableNames: ['reserved', 'other'], writeMode })
    await pipeline.sql(`ALTER TABLE reserved ADD COLUMN "${column}" int; INSERT INTO reserved VALUES (1, 'x', 2); INSERT INTO other VALUES (1)`)
    const { progress } = await pipeline.catchUp()
    expect(progress.tables['public.reserved']).toMatchObject({ state: 'failed', error: { type: 'InvalidInput', remedy: expect.stringContaining('RENAME COLUMN') as string } })
    expect(progress.tables['public.other']).toMatchObject({ state: 'streaming', inserts: 1 })
    await pipeline.sql(`ALTER TABLE reserved RENAME COLUMN "${column}" TO mended; INSERT INTO reserved VALUES (2, 'y', 3)`)
    await pipeline.engine.retryTables({ spec: pipeline.spec, owner: pipeline.owner, tableNames: null })
    await pipeline.catchUp()
    if (writeMode === 'merge') await pipeline.expectEqual('reserved')
    expect((await pipeline.query('SELECT id, v, mended FROM public.reserved ORDER BY id')).slice(-1)).toEqual([[2, 'y', 3]])
  } finally {
    await database.drop()
  }
})
