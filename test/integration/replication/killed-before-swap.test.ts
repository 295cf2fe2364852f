import { expect, inject, it } from 'vitest'
import { differences, specOf, TestPipeline } from '../../support/pipeline.ts'
import { createDatabase } from '../../support/servers.ts'

// Cause: the swap is a transaction behind that of the last chunk; after a kill between the two nobody did it any more, and the copied rows were lost.
it('swaps a whole copy in that a killed worker has left beside its table', async () => {
  const database = await createDatabase(inject('postgresUrl'))
  try {
    await using pipeline = new TestPipeline(database.url, specOf({ slotName: 'killed_before_swap', tableNames: ['t'] }))
    await pipeline.sql("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT g, 'v' FROM generate_series(1, 10) g")
    await pipeline.initialize()
    await pipeline.copy()
    await pipeline.catchUp()
    await pipeline.write(`
      CREATE TABLE public.t__replication_copy AS FROM public.t;
      DELETE FROM public.t WHERE id > 5;
      UPDATE _replication.tables SET definition = json_merge_patch(definition, '{"copy": {"generation": 2, "into": {"schema": "public", "name": "t__replication_copy"}, "estimatedRows": 10}}');
      INSERT INTO _replication.chunks SELECT source, slot_name, oid, 0, NULL, NULL, '3:3:', '0/1' FROM _replication.tables`)
    await pipeline.sql("UPDATE t SET v = 'later' WHERE id = 7")
    await pipeline.catchUp()
    expect(differences(await pipeline.destinationRows('t'), await pipeline.sourceRows('t'))).toEqual({ missing: [], extra: [] })
    expect(await pipeline.query("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'public'")).toEqual([['t']])
  } finally {
    await database.drop()
  }
})
