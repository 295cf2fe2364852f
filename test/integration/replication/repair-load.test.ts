import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, inject, it } from 'vitest'
import { closeIdleDatabases } from '../../../src/destinations/duckdb/database.ts'
import type { VerifyProgress } from '../../../src/model/verification.ts'
import { appendRows, countsWrites, countVersions, doubledChanges, falseVersions, foldAppendRows, NO_DIFFERENCES, readFile } from '../../support/comparison.ts'
import { EngineProcess, STREAMER } from '../../support/engine-process.ts'
import { differences, specOf, TestPipeline } from '../../support/pipeline.ts'
import { createDatabase, type TestDatabase } from '../../support/servers.ts'
import { randomNumbers } from '../../support/worker-harness.ts'

/** Repairs under write load, each killed on the way (long mode: 100); `VERIFY_SEED` chooses what is damaged, written, and when it is killed. */
const ROUNDS = Number(process.env['REPAIR_ROUNDS'] ?? '2')
const SEED = Number(process.env['VERIFY_SEED'] ?? '7')
const ROWS = 3_000
const RANGE_ROWS = 500
const WRITER_PAUSE_MS = 100
/** Damaged are the keys that leave a remainder. */
const PARTS = 97
/** A process begins, and repairs, within it: it is killed anywhere in that. */
const KILL_WITHIN_MS = 3_500
const VERIFY_SLICE_MS = 50

let database: TestDatabase

beforeAll(async () => {
  database = await createDatabase(inject('postgresUrl'))
})

afterAll(async () => {
  await database.drop()
})

/** What somebody does to the destination: rows that the writers write to as well as others, of each shape and of the table without a key. */
function damage(part: number): string {
  const of = (offset: number): string => `id % ${String(PARTS)} = ${String((part + offset) % PARTS)}`
  // Without a key, a row that the stream is to change and that is not there stops the table: it is loud without a comparison.
  const calm = (count: number): string => `SELECT rowid FROM public.bag WHERE v LIKE 'v%' ORDER BY hash(rowid + ${String(part)}) LIMIT ${String(count)}`
  return `UPDATE public.paid SET v = 'wrong' WHERE ${of(0)}; DELETE FROM public.paid WHERE ${of(1)};
    INSERT INTO public.paid SELECT * FROM public.paid WHERE ${of(2)}; INSERT INTO public.paid SELECT * REPLACE (id + 100000 AS id) FROM public.paid WHERE ${of(3)};
    UPDATE public.paid__history SET v = 'wrong' WHERE _is_current AND ${of(4)};
    UPDATE public.paid__changes SET v = 'wrong' WHERE _op <> 'delete' AND rowid IN (
      SELECT r FROM (SELECT rowid AS r, row_number() OVER (PARTITION BY id ORDER BY _lsn DESC, _seq DESC) AS place FROM public.paid__changes WHERE ${of(4)}) WHERE place = 1);
    DELETE FROM public.bag WHERE rowid IN (${calm(4)}); INSERT INTO public.bag SELECT * FROM public.bag ORDER BY hash(rowid) LIMIT 3; UPDATE public.bag SET v = 'wrong' WHERE rowid IN (${calm(3)})`
}

it('repairs every shape of tables that are written to meanwhile, in small ranges, whose process is killed on the way: equal, and nothing twice in a history', { timeout: 120_000 + ROUNDS * 60_000 }, async () => {
  const pipeline = new TestPipeline(database.url, specOf({ slotName: 'v_mend', tableNames: ['paid', 'bag'], writeMode: { paid: ['merge', 'scd2', 'append'], bag: ['merge'] } }))
  pipeline.owner = STREAMER
  await pipeline.sql(`CREATE TABLE paid (id int PRIMARY KEY, v text); ${countsWrites('paid')}; INSERT INTO paid SELECT g, 'v' || g FROM generate_series(1, ${String(ROWS)}) g; ANALYZE paid;
    CREATE TABLE bag (v text); ALTER TABLE bag REPLICA IDENTITY FULL; INSERT INTO bag SELECT 'v' || g % 700 FROM generate_series(1, 1000) g`)
  await pipeline.initialize()
  await pipeline.copy()
  await pipeline.engine.release({ spec: pipeline.spec, owner: pipeline.owner, keepClaim: true })
  await closeIdleDatabases()
  const engine = new EngineProcess({ url: database.url, file: pipeline.file, spec: pipeline.spec, chunkRows: RANGE_ROWS })
  engine.start()
  const random = randomNumbers(SEED)
  let isOver = false
  const write = async (): Promise<void> => {
    for (let value = 0; !isOver; value++) {
      const part = `id % 50 = ${String(value % 50)}`
      await pipeline.sql(`UPDATE paid SET v = 'w${String(value)}' WHERE ${part}`)
      await pipeline.sql(`DELETE FROM paid WHERE ${part} AND id % 7 = 0`)
      await pipeline.sql(`INSERT INTO paid SELECT g, 'again' FROM generate_series(1, ${String(ROWS)}) g WHERE g % 50 = ${String((value + 25) % 50)} ON CONFLICT DO NOTHING`)
      await pipeline.sql(`INSERT INTO bag VALUES ('w${String(value)}'), ('w${String(value)}'); DELETE FROM bag WHERE ctid IN (SELECT ctid FROM bag WHERE v LIKE 'w%' LIMIT 1); UPDATE bag SET v = v || 'u' WHERE ctid IN (SELECT ctid FROM bag WHERE v LIKE 'w%' LIMIT 1)`)
      await sleep(WRITER_PAUSE_MS)
    }
  }
  let slices = 0
  const verify = async (repair: boolean, killing: Promise<void> = Promise.resolve()): Promise<VerifyProgress> => {
    const { progress, again } = await engine.verifyToEnd({ repair, maxMs: VERIFY_SLICE_MS, killing })
    slices += again
    return progress
  }
  const writing = write()
  writing.catch(() => undefined)
  let repaired = 0
  try {
    for (let round = 0; round < ROUNDS; round++) {
      await engine.plant(damage(Math.floor(random() * PARTS)))
      const found = await verify(true, engine.killAfter(random() * KILL_WITHIN_MS))
      repaired += Object.values(found.tables).reduce((sum, table) => sum + table.repaired, 0)
    }
    const left = await verify(false)
    expect(left.notCompared).toEqual({})
    expect(Object.values(left.tables).map(({ different }) => different), JSON.stringify(left)).toEqual([0, 0])
    // The damage of a round is about 100 rows; those that the stream has overwritten, or that were put right before the kill, do not count.
    expect(repaired).toBeGreaterThan(0)
    expect(slices).toBeGreaterThan(ROUNDS)
    process.stderr.write(`repaired ${String(ROUNDS)} times under load and kills: ${String(repaired)} rows counted, in ${String(slices)} slices\n`)
  } finally {
    isOver = true
    await writing
    await engine.stop()
  }
  await pipeline.catchUp()
  const source = await pipeline.sourceRows('paid')
  expect(differences(await pipeline.destinationRows('paid'), source)).toEqual(NO_DIFFERENCES)
  expect(differences(await pipeline.destinationRows('paid__history', 'public', '_is_current'), source)).toEqual(NO_DIFFERENCES)
  expect(differences(await pipeline.destinationRows('bag'), await pipeline.sourceRows('bag'))).toEqual(NO_DIFFERENCES)
  await pipeline.release()
  await readFile(pipeline.file, async (query) => {
    const changes = await appendRows(query, 'paid__changes')
    expect(differences(foldAppendRows(changes, ['id']), source)).toEqual(NO_DIFFERENCES)
    expect(doubledChanges(changes, ['id'])).toEqual([])
    expect(await falseVersions(query, 'paid__history', ['id'])).toEqual([])
    expect(await query('SELECT count(*)::INTEGER FROM public.paid__history')).toEqual([[countVersions(changes, ['id']).versions]])
  })
  await pipeline.engine.drop({ source: 'shop', destination: 'warehouse', slotName: 'v_mend', publicationName: pipeline.spec.publicationName, dropDestination: true }, pipeline.context())
  await pipeline[Symbol.asyncDispose]()
})
