import { execFile } from 'node:child_process'
import { access, chown, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import pg from 'pg'
import { expect, it } from 'vitest'
import { findSystemPostgres, type PostgresBinaries } from '../../../src/embedded/postgres-binaries.ts'
import { startPostgres, type PostgresServer } from '../../../src/embedded/postgres-server.ts'
import { findServerUser } from '../../../src/embedded/process-user.ts'
import { differences } from '../../support/pipeline.ts'
import { XminPipeline } from '../../support/xmin.ts'

const run = promisify(execFile)

const EQUAL = { missing: [], extra: [] }
/** Two bits for each transaction, in files of 256 kB. */
const TRANSACTIONS_PER_STATUS_FILE = 4 * 262_144
/** An epoch has four thousand million ids, of which half may be in use: it takes two steps, all rows frozen after each. */
const STEPS = [2_000_000_000, 4_000_000_000, 4_294_966_900]
const EPOCH = 2n ** 32n

/** One with the program that sets the next transaction id. */
async function resettableServer(): Promise<PostgresBinaries | null> {
  for (const binaries of await findSystemPostgres()) {
    const isThere = await access(join(binaries.binDirectory, 'pg_resetwal')).then(() => true, () => false)
    if (isThere && binaries.major >= 14) return binaries
  }
  return null
}

const binaries = await resettableServer()

/**
 * The server's next transaction has this id.
 *
 * Source: https://www.postgresql.org/docs/current/app-pgresetwal.html
 */
async function setNextTransaction(server: PostgresServer, id: number): Promise<void> {
  const { binDirectory = '', dataDirectory = '' } = server
  const user = await findServerUser()
  await server.kill('SIGINT')
  const name = Math.floor(id / TRANSACTIONS_PER_STATUS_FILE).toString(16).toUpperCase().padStart(4, '0')
  const path = join(dataDirectory, 'pg_xact', name)
  await writeFile(path, Buffer.alloc(262_144))
  if (user !== undefined) await chown(path, user.uid, user.gid)
  await run(join(binDirectory, 'pg_resetwal'), ['-x', String(id), '-D', dataDirectory], { cwd: '/', ...user })
  await server.restart()
}

async function freeze(server: PostgresServer): Promise<void> {
  const databases = ['postgres', 'template1', 'template0']
  for (const database of databases) {
    const client = new pg.Client({ connectionString: server.url.replace(/postgres$/, database) })
    await client.connect()
    await client.query("UPDATE pg_database SET datallowconn = true WHERE datname = 'template0'")
    await client.query('VACUUM FREEZE')
    await client.end()
  }
}

it.skipIf(binaries === null)('goes on reading by xmin where an epoch of transaction ids ends', { timeout: 240_000 }, async () => {
  await using server = await startPostgres({ binDirectory: binaries?.binDirectory, settings: { autovacuum: false } })
  for (const id of STEPS) {
    await setNextTransaction(server, id)
    await freeze(server)
  }
  await using pipeline = new XminPipeline(server.url, { tableNames: ['wrapped'] })
  const isEqual = async (): Promise<unknown> => differences(await pipeline.destinationRows('wrapped'), await pipeline.sourceRows('wrapped'))
  const nextId = async (): Promise<bigint> => {
    const { rows } = await pipeline.source.query<{ id: string }>('SELECT pg_current_xact_id()::text AS id')
    return BigInt(rows[0]?.id ?? 0)
  }
  const passTo = async (id: bigint): Promise<void> => {
    const count = Number(id - (await nextId()))
    if (count > 0) await pipeline.sql(`DO $$ BEGIN FOR i IN 1..${String(count)} LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$`)
  }
  await pipeline.sql("CREATE TABLE wrapped (id int PRIMARY KEY, v text); INSERT INTO wrapped SELECT i, 'first' FROM generate_series(1, 100) i")
  const first = await pipeline.sync()
  expect(first.tables['public.wrapped']?.rows).toBe(100)
  expect(await nextId()).toBeLessThan(EPOCH)

  await passTo(EPOCH - 20n)
  await pipeline.sql("UPDATE wrapped SET v = 'before the end' WHERE id = 1; INSERT INTO wrapped VALUES (101, 'before the end')")
  const open = await pipeline.source.connect()
  try {
    await open.query("BEGIN; UPDATE wrapped SET v = 'open at the end' WHERE id = 2")
    await passTo(EPOCH + 20n)
    expect(await nextId()).toBeGreaterThan(EPOCH)
    await pipeline.sql("UPDATE wrapped SET v = 'behind the end' WHERE id = 3; INSERT INTO wrapped VALUES (102, 'behind the end')")
    // Of both sides of the end, while what is open is not to be seen.
    const across = await pipeline.sync()
    expect(across.tables['public.wrapped']?.rows).toBe(4)
    expect(await isEqual()).toEqual(EQUAL)
    await open.query('COMMIT')
  } finally {
    open.release()
  }
  await pipeline.sql("UPDATE wrapped SET v = 'later' WHERE id = 4")
  await pipeline.sync()
  expect(await isEqual()).toEqual(EQUAL)
  const settled = await pipeline.sync()
  expect(settled.tables['public.wrapped']?.rows).toBe(0)
  expect(BigInt(settled.tables['public.wrapped']?.watermark ?? 0)).toBeGreaterThan(EPOCH)
  // Frozen rows of the former epoch, whose ids are those of this one by now, are nobody's news.
  await pipeline.sql('VACUUM (FREEZE) wrapped')
  expect((await pipeline.sync()).tables['public.wrapped']?.rows).toBe(0)
  expect(await isEqual()).toEqual(EQUAL)
})
