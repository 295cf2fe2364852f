import { afterAll, beforeAll, expect, it } from 'vitest'
import { startPostgres, type PostgresServer } from '../../../src/embedded/postgres-server.ts'
import { destinationRows, differences, NO_DIFFERENCES, readFile, sourceRows } from '../../support/comparison.ts'
import { specOf, TestPipeline } from '../../support/pipeline.ts'
import { sourcePool } from '../../support/source-pool.ts'

/**
 * A commit is in the log, and may be in the stream, before its transaction is visible: until the log is on disk, or a standby has it. A snapshot
 * taken in between does not see it, although the snapshot's LSN is past it.
 */
let server: PostgresServer

beforeAll(async () => {
  // Every commit sleeps for 30 ms between its record and its being visible.
  server = await startPostgres({ settings: { fsync: 'on', synchronous_commit: 'on', commit_delay: 30_000, commit_siblings: 0 } })
})
afterAll(async () => {
  await server.stop()
})

const TABLES = ['a', 'b', 'c', 'd', 'e', 'f'] as const
const HOT_ROWS = 3

it.each(['merge', 'append'] as const)('puts copied rows and streamed changes in their right order (%s)', async (writeMode) => {
  await using pipeline = new TestPipeline(server.url, specOf({ slotName: `slow_${writeMode}`, tableNames: TABLES, schemaName: writeMode, writeMode }))
  const pool = sourcePool({ connectionString: server.url, max: 12, options: `-c search_path=${writeMode}` })
  let isWriting = true
  const count = async (table: string, id: number): Promise<void> => {
    while (isWriting) await pool.query(`UPDATE ${table} SET v = v + 1 WHERE id = $1`, [id])
  }
  try {
    await pool.query(`CREATE SCHEMA ${writeMode}`)
    for (const table of TABLES) await pool.query(`CREATE TABLE ${table} (id int PRIMARY KEY, v int NOT NULL, pad text); INSERT INTO ${table} SELECT g, 0, md5(g::text) FROM generate_series(1, 2000) g`)
    await pipeline.initialize()
    const writers = TABLES.flatMap((table) => Array.from({ length: HOT_ROWS }, (_, id) => count(table, id + 1)))
    await pipeline.catchUp()
    isWriting = false
    await Promise.all(writers)
    await pipeline.catchUp()
    await pipeline.release()
    const client = await pool.connect()
    const sources = new Map<string, readonly string[]>()
    for (const table of TABLES) sources.set(table, await sourceRows(client, table, writeMode))
    client.release()
    await readFile(pipeline.file, async (query) => {
      for (const [table, source] of sources) {
        if (writeMode === 'merge') expect(differences(await destinationRows(query, table, writeMode), source), table).toEqual(NO_DIFFERENCES)
        else expect(await query(outOfOrder(`${writeMode}.${table}`)), table).toEqual([])
      }
    })
  } finally {
    isWriting = false
    await pool.end()
  }
})

/** Rows that do not count their key up by one. */
function outOfOrder(table: string): string {
  return `SELECT * FROM (SELECT id, v, _op, _lsn, lag(v) OVER (PARTITION BY id ORDER BY _lsn, _seq) AS before FROM ${table})
    WHERE (before IS NULL AND _op <> 'snapshot') OR v <> before + 1 LIMIT 3`
}
