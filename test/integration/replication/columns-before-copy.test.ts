import { describe, expect, inject, it } from 'vitest'
import { differences, specOf, TestPipeline } from '../../support/pipeline.ts'
import { createDatabase } from '../../support/servers.ts'

// Causes: the copy read the columns that init had seen. One that came since was altered in place beside it, and its values were lost; one that was
// gone or renamed stopped the whole replication.
const CHANGES = {
  'ADD COLUMN b int DEFAULT 5': 'a',
  'ADD COLUMN b int': 'a',
  'DROP COLUMN a': null,
  'RENAME COLUMN a TO b': 'b',
  "ALTER a TYPE int USING 7": 'a',
} as const

describe.each(['merge', 'append'] as const)('a table that is altered between init and copy (%s)', (writeMode) => {
  it.each(Object.entries(CHANGES))('is copied in the shape that it has: %s', async (change, column) => {
    const database = await createDatabase(inject('postgresUrl'))
    try {
      const spec = specOf({ slotName: `before_copy_${writeMode}`, tableNames: ['grown'], writeMode })
      await using pipeline = new TestPipeline(database.url, spec)
      await pipeline.sql("CREATE TABLE grown (id int PRIMARY KEY, a text); INSERT INTO grown SELECT g, 'old' FROM generate_series(1, 20) g")
      await pipeline.initialize()
      await pipeline.sql("INSERT INTO grown VALUES (30, 'before')")
      await pipeline.sql(`ALTER TABLE grown ${change}`)
      await pipeline.sql('INSERT INTO grown (id) VALUES (21)')
      if (column !== null) await pipeline.sql(`UPDATE grown SET ${column} = NULL WHERE id = 1`)
      expect((await pipeline.copy()).ended).toBe('done')
      await pipeline.sql('INSERT INTO grown (id) VALUES (22)')
      const { progress } = await pipeline.catchUp()
      expect(progress.tables['public.grown']).toMatchObject({ state: 'streaming', snapshotRows: 22, inserts: 1 })
      expect(differences(await pipeline.destinationRows('grown'), await pipeline.sourceRows('grown'))).toEqual({ missing: [], extra: [] })
      expect(await pipeline.query("SELECT count(*) FROM duckdb_tables() WHERE table_name LIKE 'grown\\_%' ESCAPE '\\'")).toEqual([['0']])
    } finally {
      await database.drop()
    }
  })
})

it('leaves out a table that is dropped before its copy, and copies the others', async () => {
  const database = await createDatabase(inject('postgresUrl'))
  try {
    await using pipeline = new TestPipeline(database.url, specOf({ slotName: 'dropped_before_copy', tableNames: ['goes', 'stays'] }))
    await pipeline.sql('CREATE TABLE goes (id int PRIMARY KEY); CREATE TABLE stays (id int PRIMARY KEY); INSERT INTO stays VALUES (1)')
    await pipeline.initialize()
    await pipeline.sql('DROP TABLE goes')
    expect((await pipeline.copy()).ended).toBe('done')
    const { progress } = await pipeline.catchUp()
    expect(progress.tables).toMatchObject({ 'public.goes': { state: 'removed' }, 'public.stays': { state: 'streaming', snapshotRows: 1 } })
    expect(progress.warnings.join()).toContain('public.goes')
  } finally {
    await database.drop()
  }
})

it('stops the altered table alone where schema changes are refused', async () => {
  const database = await createDatabase(inject('postgresUrl'))
  try {
    await using pipeline = new TestPipeline(database.url, specOf({ slotName: 'refused_before_copy', tableNames: ['grown', 'stays'], schemaChanges: 'refuse' }))
    await pipeline.sql('CREATE TABLE grown (id int PRIMARY KEY); CREATE TABLE stays (id int PRIMARY KEY); INSERT INTO stays VALUES (1)')
    await pipeline.initialize()
    await pipeline.sql('ALTER TABLE grown ADD COLUMN b int')
    await pipeline.copy()
    const { progress } = await pipeline.catchUp()
    expect(progress.tables).toMatchObject({ 'public.grown': { state: 'failed', error: { type: 'SchemaChangeRefused' } }, 'public.stays': { state: 'streaming', snapshotRows: 1 } })
  } finally {
    await database.drop()
  }
})
