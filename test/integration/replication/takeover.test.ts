import { afterAll, beforeAll, expect, inject, it } from 'vitest'
import { differences, specOf, TestPipeline } from '../../support/pipeline.ts'
import { createDatabase, type TestDatabase } from '../../support/servers.ts'

let database: TestDatabase

beforeAll(async () => {
  database = await createDatabase(inject('postgresUrl'))
})

afterAll(async () => {
  await database.drop()
})

/** As docs/coming-from-dlt.md says: slot and rows of another pipeline, without a new copy. */
it("goes on with another program's slot and rows, without a copy", async () => {
  await using pipeline = new TestPipeline(database.url, specOf({ slotName: 'taken_over', publicationName: 'taken_over', tableNames: ['taken'], snapshotMode: 'never' }))
  await pipeline.sql(`CREATE TABLE taken (id int PRIMARY KEY, note text, amount numeric(12,2), made timestamptz);
    INSERT INTO taken SELECT i, 'n' || i, i / 4.0, '2026-01-01' FROM generate_series(1, 100) i; CREATE PUBLICATION taken_over FOR TABLE taken`)
  await pipeline.sql(`SELECT pg_create_logical_replication_slot('taken_over', 'pgoutput')`)
  // What the other program has loaded when it ended; what came since waits in the slot.
  const { rows } = await pipeline.sql('SELECT id, note, amount::text AS amount, made::text AS made FROM taken ORDER BY id')
  await pipeline.sql(`UPDATE taken SET note = 'since' WHERE id <= 5; DELETE FROM taken WHERE id > 95; INSERT INTO taken VALUES (200, 'new', 1, now())`)
  const { created, warnings } = await pipeline.initialize()
  expect(created).toEqual({ slot: false, publication: false })
  expect(warnings.join()).toContain('goes on at its position')
  const values = (rows as { id: number; note: string; amount: string; made: string }[]).map(({ id, note, amount, made }) => `(${String(id)}, '${note}', ${amount}, '${made}')`)
  await pipeline.write(`CREATE SCHEMA dlt; CREATE TABLE dlt.taken (id BIGINT, note VARCHAR, amount DECIMAL(38,9), made TIMESTAMPTZ); INSERT INTO dlt.taken VALUES ${values.join(', ')};
    INSERT INTO public.taken BY NAME SELECT id, note, amount, made, 0 AS _lsn FROM dlt.taken`)
  const { changes } = await pipeline.catchUp()
  expect(changes['public.taken']).toEqual({ inserts: 1, updates: 5, deletes: 5, truncates: 0 })
  expect(differences(await pipeline.destinationRows('taken'), await pipeline.sourceRows('taken'))).toEqual({ missing: [], extra: [] })
  await pipeline.engine.drop({ source: 'shop', destination: 'warehouse', slotName: 'taken_over', publicationName: 'taken_over', dropDestination: true }, pipeline.context())
})
