import { afterAll, beforeAll, expect, inject, it } from 'vitest'
import type { ReplicationSpec } from '../../../src/model/spec.ts'
import { specOf, TestPipeline } from '../../support/pipeline.ts'
import { createDatabase, type TestDatabase } from '../../support/servers.ts'

let database: TestDatabase

beforeAll(async () => {
  database = await createDatabase(inject('postgresUrl'))
})

afterAll(async () => {
  await database.drop()
})

type Options = Partial<Pick<ReplicationSpec, 'snapshotMode' | 'publish' | 'includeColumns' | 'columns' | 'targetBatchSize' | 'flushSlot' | 'datasetName' | 'deleteMode'>>

const INCLUDED: Options = { includeColumns: { combined: ['v'] } }
const HINTED: Options = { columns: { combined: { v: { dataType: 'text' } } } }
const ONE_COLUMN: Options = { ...INCLUDED, ...HINTED }

/** dlt's options, each value with each other's once at least; soft deletes only where deletes are sent. */
const COMBINATIONS: readonly Options[] = [
  { snapshotMode: 'initial', ...ONE_COLUMN, targetBatchSize: 1, flushSlot: false, datasetName: 'copy' },
  { snapshotMode: 'initial', publish: ['insert'], flushSlot: true },
  { snapshotMode: 'persisted', ...ONE_COLUMN, publish: ['insert', 'update'], flushSlot: false },
  { snapshotMode: 'persisted', targetBatchSize: 1, publish: ['insert'], datasetName: 'copy' },
  { snapshotMode: 'persisted', deleteMode: 'soft', datasetName: 'copy' },
  { snapshotMode: 'never', ...ONE_COLUMN, publish: ['insert', 'update'], targetBatchSize: 1, datasetName: 'copy' },
  { snapshotMode: 'never', flushSlot: false },
  { snapshotMode: 'never', ...ONE_COLUMN, publish: ['insert'] },
  { snapshotMode: 'initial', publish: ['insert', 'update'], targetBatchSize: 1 },
  { snapshotMode: 'initial', ...HINTED, publish: ['insert'], targetBatchSize: 1, flushSlot: false },
  { snapshotMode: 'persisted', ...INCLUDED, deleteMode: 'soft', targetBatchSize: 1, flushSlot: false },
  { snapshotMode: 'never', ...HINTED, deleteMode: 'soft' },
  { snapshotMode: 'initial', deleteMode: 'soft' },
]

it.each(COMBINATIONS.map((options, index) => [JSON.stringify(options), options, index] as const))('%s, and again with reset', async (_, options, index) => {
  const publish = options.publish ?? ['insert', 'update', 'delete', 'truncate']
  const isAppend = publish.length === 1
  const slotName = `combined_${String(index)}`
  await using pipeline = new TestPipeline(database.url, specOf({ slotName, publicationName: slotName, tableNames: ['combined'], writeMode: isAppend ? 'append' : 'merge', ...options }))
  await pipeline.sql(`DROP TABLE IF EXISTS combined; CREATE TABLE combined (id int PRIMARY KEY, v int, secret text)`)
  await pipeline.sql(`INSERT INTO combined SELECT i, i, 's' FROM generate_series(1, 3) i`)
  const { consistentPoint } = await pipeline.initialize()
  // A kept snapshot is of the slot's position whenever it is loaded; a copy is of its own moment.
  if (options.snapshotMode === 'initial') await pipeline.copy()
  await pipeline.sql('INSERT INTO combined VALUES (4, 4, NULL); UPDATE combined SET v = -1 WHERE id = 1; DELETE FROM combined WHERE id = 2')
  await pipeline.catchUp()

  const isCopied = options.snapshotMode !== 'never'
  const rows = new Map<number, number>(isCopied ? [[1, 1], [2, 2], [3, 3]] : [])
  rows.set(4, 4)
  if (publish.includes('update')) rows.set(1, -1)
  if (publish.includes('delete') && options.deleteMode !== 'soft') rows.delete(2)
  const table = `"${options.datasetName ?? 'public'}".combined`
  expect(await pipeline.query(`SELECT id, v::VARCHAR FROM ${table} ORDER BY id`)).toEqual([...rows].sort(([a], [b]) => a - b).map(([id, v]) => [id, String(v)]))
  const names = await pipeline.query(`SELECT column_name FROM (DESCRIBE ${table}) WHERE NOT starts_with(column_name, '_')`)
  expect(names.flat()).toEqual(options.includeColumns === undefined ? ['id', 'v', 'secret'] : ['id', 'v'])
  if (options.deleteMode === 'soft') expect(await pipeline.query(`SELECT id FROM ${table} WHERE _deleted_at IS NOT NULL`)).toEqual(isCopied ? [[2]] : [])
  const slot = await pipeline.sql('SELECT confirmed_flush_lsn > $1::pg_lsn AS moved FROM pg_replication_slots WHERE slot_name = $2', [consistentPoint, slotName])
  expect(slot.rows).toEqual([{ moved: options.flushSlot !== false }])

  pipeline.spec = { ...pipeline.spec, reset: true }
  await pipeline.initialize()
  pipeline.spec = { ...pipeline.spec, reset: false }
  await pipeline.catchUp()
  expect(await pipeline.query(`SELECT id FROM ${table} ORDER BY id`)).toEqual(isCopied ? [[1], [3], [4]] : [])
  await pipeline.engine.drop({ source: 'shop', destination: 'warehouse', slotName, publicationName: slotName, dropDestination: true }, pipeline.context())
})
