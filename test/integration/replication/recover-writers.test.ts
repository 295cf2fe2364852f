import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, inject, it } from 'vitest'
import { differences, specOf, TestPipeline } from '../../support/pipeline.ts'
import { createDatabase, type TestDatabase } from '../../support/servers.ts'

const WRITER_PAUSE_MS = 40

let database: TestDatabase

beforeAll(async () => {
  database = await createDatabase(inject('postgresUrl'))
})

afterAll(async () => {
  await database.drop()
})

it('recovers exactly while rows are written all the time and keys, with values that are left out, move between what has been compared and what has not', { timeout: 120_000 }, async () => {
  await using pipeline = new TestPipeline(database.url, specOf({ slotName: 'r_hot', tableNames: ['r_hot', 'r_hot_big'] }))
  await pipeline.sql(`CREATE TABLE r_hot (id int PRIMARY KEY, v int); INSERT INTO r_hot SELECT g, g FROM generate_series(1, 10000) g;
    CREATE TABLE r_hot_big (id int PRIMARY KEY, v int, big text); ALTER TABLE r_hot_big ALTER COLUMN big SET STORAGE EXTERNAL; INSERT INTO r_hot_big SELECT g, g, repeat(md5(g::text), 100) FROM generate_series(1, 200) g`)
  await pipeline.initialize()
  await pipeline.catchUp()
  await pipeline.release()
  await pipeline.sql(`SELECT pg_drop_replication_slot('r_hot')`)
  await pipeline.sql(`UPDATE r_hot SET v = -v WHERE id % 3 = 0; DELETE FROM r_hot WHERE id % 11 = 0; UPDATE r_hot_big SET big = repeat(md5('late' || id), 100) WHERE id <= 60`)
  let isWriting = true
  const write = async (seed: number): Promise<void> => {
    for (let n = 0; isWriting; n++) {
      await sleep(WRITER_PAUSE_MS)
      const hot = String((n * 7 + seed) % 20)
      const moved = 20 + (n % 30)
      await pipeline.sql(`UPDATE r_hot SET v = v + 1 WHERE id = ${hot}`)
      await pipeline.sql(`DELETE FROM r_hot WHERE id = 100 + ${hot}`)
      await pipeline.sql(`INSERT INTO r_hot VALUES (100 + ${hot}, ${String(n)}) ON CONFLICT DO NOTHING`)
      await pipeline.sql(`UPDATE r_hot_big b SET id = -b.id WHERE abs(id) = ${String(moved)} AND NOT EXISTS (SELECT FROM r_hot_big o WHERE o.id = -b.id)`).catch(() => undefined)
    }
  }
  const writers = [write(1), write(2)]
  await pipeline.engine.recover({ spec: pipeline.spec }, pipeline.context())
  const { progress } = await pipeline.catchUp()
  isWriting = false
  await Promise.all(writers)
  expect(progress.warnings).toContainEqual(expect.stringMatching(/public\.r_hot was compared with the source in the recovery: .* rows, of which [\d,]+ were put right/))
  await pipeline.catchUp()
  for (const table of ['r_hot', 'r_hot_big']) expect(differences(await pipeline.destinationRows(table), await pipeline.sourceRows(table)), table).toEqual({ missing: [], extra: [] })
})
