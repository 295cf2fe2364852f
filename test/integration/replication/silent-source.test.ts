import { afterAll, beforeAll, expect, inject, it } from 'vitest'
import type { TableRecord } from '../../../src/model/destination.ts'
import { FaultyNetwork } from '../../support/faulty-network.ts'
import { specOf, TestPipeline } from '../../support/pipeline.ts'
import { createDatabase, type TestDatabase } from '../../support/servers.ts'
import { until } from '../../support/workflow-harness.ts'

let database: TestDatabase

beforeAll(async () => {
  database = await createDatabase(inject('postgresUrl'))
})

afterAll(async () => {
  await database.drop()
})

// Cause: a table that stops asked the source's catalog first, with nothing else written meanwhile: a silent one was waited for until its session was given up, a minute later.
it('a table stops soon although the source has gone silent', async () => {
  await using network = await FaultyNetwork.before(database.url)
  let stalledAtMs = 0
  let stoppedAtMs = 0
  await using pipeline = new TestPipeline(network.urlOf(database.url), specOf({ slotName: 'silent', tableNames: ['silent'], columns: { silent: { v: { dataType: 'decimal', precision: 5, scale: 2 } } } }), {
    around: (destination) =>
      new Proxy(destination, {
        get: (target, name: keyof typeof destination) => {
          const member: unknown = Reflect.get(target, name, target)
          if (typeof member !== 'function') return member
          return (...given: unknown[]): unknown => {
            if (name === 'saveTables' && (given[1] as readonly TableRecord[]).some(({ state }) => state === 'failed')) stoppedAtMs = performance.now()
            const called: unknown = Reflect.apply(member, target, given)
            if (name !== 'applyBatch') return called
            return (called as ReturnType<typeof destination.applyBatch>).then((applied) => {
              if (applied.failures.length > 0) {
                network.stall()
                stalledAtMs = performance.now()
              }
              return applied
            })
          }
        },
      }),
  })
  await pipeline.sql('CREATE TABLE silent (id int PRIMARY KEY, v numeric); INSERT INTO silent VALUES (1, 1.25)')
  await pipeline.initialize()
  await pipeline.catchUp()
  await pipeline.sql('INSERT INTO silent VALUES (2, 99999)')
  const slice = pipeline.catchUp().catch(() => undefined)
  await until(async () => Promise.resolve(stoppedAtMs), (atMs) => atMs > 0)
  expect(stoppedAtMs - stalledAtMs).toBeLessThan(20_000)
  network.cut()
  await slice
})
