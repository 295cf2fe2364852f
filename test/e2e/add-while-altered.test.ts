import pg from 'pg'
import { afterAll, beforeAll, expect, inject, it } from 'vitest'
import { parseLsn } from '../../src/model/lsn.ts'
import { addTablesUpdate, stopUpdate } from '../../src/workflows/index.ts'
import { destinationRows, differences, readFile, sourceRows } from '../support/comparison.ts'
import { createDatabase, type TestDatabase } from '../support/servers.ts'
import { randomNumbers, WorkerHarness } from '../support/worker-harness.ts'
import { until, untilStatus } from '../support/workflow-harness.ts'

/** `ADD_SEED` chooses what is written and altered. */
const SEED = Number(process.env['ADD_SEED'] ?? '1')
const ROUNDS = 3
/** A table is altered in half of them: not so often that nobody could ever copy it. */
const STEPS = 60
const STEP_SECONDS = 0.1

let database: TestDatabase
let source: pg.Client

beforeAll(async () => {
  database = await createDatabase(inject('postgresUrl'))
  source = await connected()
})

afterAll(async () => {
  await source.end()
  await database.drop()
})

async function connected(): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: database.url })
  await client.connect()
  return client
}

/** Writes to a table and alters it, in transactions of both. Returns how often it was altered. */
async function alterAndWrite(table: string, seed: number): Promise<number> {
  const random = randomNumbers(seed)
  const client = await connected()
  const columns: string[] = []
  let isText = false
  let alterations = 0
  const alter = (step: number): string => {
    alterations++
    const place = Math.floor(random() * columns.length)
    const column = columns[place]
    switch (Math.floor(random() * 6)) {
      case 0:
        columns.push(`computed_${String(step)}`)
        return `ALTER TABLE ${table} ADD COLUMN computed_${String(step)} int DEFAULT (random() * 1000)::int`
      case 1:
        isText = !isText
        return `ALTER TABLE ${table} ALTER COLUMN amount TYPE ${isText ? 'text' : 'int'} USING amount::${isText ? 'text' : 'int'}`
      case 2:
        if (column === undefined) break
        columns.splice(place, 1)
        return `ALTER TABLE ${table} DROP COLUMN ${column}`
      case 3:
        if (column === undefined) break
        columns[place] = `renamed_${String(step)}`
        return `ALTER TABLE ${table} RENAME COLUMN ${column} TO renamed_${String(step)}`
      case 4:
        return `TRUNCATE ${table}; INSERT INTO ${table} SELECT g, 'after it', 0 FROM generate_series(1, 300) g`
      default:
    }
    columns.push(`constant_${String(step)}`)
    return `ALTER TABLE ${table} ADD COLUMN constant_${String(step)} int DEFAULT ${String(step)}`
  }
  try {
    for (let step = 0; step < STEPS; step++) {
      const write = `INSERT INTO ${table} (id, note) VALUES (${String(10_000 + step)}, 'new'); UPDATE ${table} SET note = 'step ${String(step)}' WHERE id % 40 = ${String(step % 40)}; DELETE FROM ${table} WHERE id = ${String(step)}`
      await client.query(random() < 0.5 ? write : `BEGIN; ${random() < 0.5 ? `${write}; ${alter(step)}` : `${alter(step)}; ${write}`}; COMMIT`)
      await client.query(`SELECT pg_sleep(${String(STEP_SECONDS)})`)
    }
    return alterations
  } finally {
    await client.end()
  }
}

it('two orders at once add the same and other tables while each of them is written to and altered', async () => {
  await source.query('CREATE TABLE base (id int PRIMARY KEY, note text, amount int)')
  await using harness = await WorkerHarness.open({ temporalAddress: inject('temporalAddress'), sourceUrl: database.url })
  await harness.startWorker()
  const handle = await harness.startReplicate({ slotName: `add_${database.name}`, publicationName: 'add_pub', tableNames: 'base' })
  await untilStatus(handle, ({ phase }) => phase === 'streaming')
  const tables = ['base']
  const writers = [alterAndWrite('base', SEED)]
  for (let round = 1; round <= ROUNDS; round++) {
    const [left, right, both] = ['left', 'right', 'both'].map((name) => `${name}_${String(round)}`) as [string, string, string]
    for (const [place, table] of [left, right, both].entries()) {
      await source.query(`CREATE TABLE ${table} (id int PRIMARY KEY, note text, amount int); INSERT INTO ${table} SELECT g, repeat('n', g % 50), g FROM generate_series(1, 3000) g`)
      writers.push(alterAndWrite(table, SEED * 100 + round * 10 + place))
      tables.push(table)
    }
    await Promise.all([[left, both], [both, right]].map(async (tableNames) => handle.executeUpdate(addTablesUpdate, { args: [{ tableNames }] })))
  }
  for (const alterations of await Promise.all(writers)) expect(alterations).toBeGreaterThan(5)
  const lsn = parseLsn((await source.query<{ lsn: string }>('SELECT pg_current_wal_insert_lsn()::text AS lsn')).rows[0]?.lsn ?? '')
  await untilStatus(handle, ({ appliedLsn, tables: shown }) => appliedLsn !== null && parseLsn(appliedLsn) >= lsn && tables.every((table) => shown[`public.${table}`]?.state === 'streaming'), 240_000)
  await handle.executeUpdate(stopUpdate, { args: [{}] })
  const rows = async (table: string): Promise<string[]> =>
    until(
      async () => readFile(harness.file, async (query) => destinationRows(query, table)).catch(() => null),
      (found) => found !== null,
    ).then((found) => found ?? [])
  for (const table of tables) expect(differences(await rows(table), await sourceRows(source, table)), table).toEqual({ missing: [], extra: [] })
})
