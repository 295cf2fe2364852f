import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, it } from 'vitest'
import { closeIdleDatabases } from '../../../src/destinations/duckdb/database.ts'
import { openDuckDbDestination } from '../../../src/destinations/duckdb/destination.ts'
import type { Destination, TableRecord } from '../../../src/model/destination.ts'
import { ZERO_LSN } from '../../../src/model/lsn.ts'
import { columnOf, rowOf, rowsOf } from '../../support/binary-rows.ts'

const directory = mkdtempSync(join(tmpdir(), 'without-binary-'))
const path = join(directory, 'd.duckdb')
const POSITION = { index: 0, snapshot: '', lsn: ZERO_LSN, rowLsn: ZERO_LSN, timeMicros: 0n }
const KEY = { source: 'shop', slotName: 'shop_slot' }

afterAll(async () => {
  await closeIdleDatabases()
  rmSync(directory, { recursive: true })
})

function tableOf(schema: string): TableRecord {
  const name = { schema, name: 'notes' }
  return {
    oid: 16_400, source: name, target: name, writeMode: 'append', state: 'streaming', columns: [columnOf({ tag: 'base', oid: 25, name: 'text', typeModifier: -1 })], key: [], replicaIdentity: 'full',
    hints: {}, hasColumnList: false, isPartial: false, storage: null, copy: null, quarantine: null, error: null,
    counts: { snapshotRows: 0, inserts: 0, updates: 0, deletes: 0, truncates: 0, lastCommitLsn: null },
  } // prettier-ignore
}

/** Whether a first load and a verification would ask for rows in binary form. */
async function takes(destination: Destination, table: TableRecord): Promise<readonly boolean[]> {
  const comparison = await destination.beginComparison(KEY, table)
  const stages = [destination.newChunk(table, POSITION), comparison.newRows()]
  const found = stages.map(({ takesBinary }) => takesBinary)
  for (const stage of stages) stage.discard()
  await comparison.close()
  return found
}

// Cause: each session and each slice of a verification opened the file anew, and had the first chunk of such a table sent twice: all of a table without a key.
it('remembers for as long as the file is open which table has a value without a place in binary form', async () => {
  const first = await openDuckDbDestination({ path })
  const stage = first.newChunk(tableOf('a'), POSITION)
  expect(stage.addBinaryRows(rowsOf([rowOf([Buffer.from([0x80])])])) && stage.endBinaryRows()).toBe(false)
  expect(stage.takesBinary).toBe(false)
  stage.discard()
  const second = await openDuckDbDestination({ path })
  expect(await takes(second, tableOf('a'))).toEqual([false, false])
  // Of another source, by the same oid.
  expect(await takes(second, tableOf('b'))).toEqual([true, true])
  await first.close()
  await second.close()
})
