import { expect, inject, it } from 'vitest'
import { specOf, TestPipeline } from '../../support/pipeline.ts'
import { createDatabase } from '../../support/servers.ts'

// Cause: without a key a table is one chunk; a slice that was over ended it, and `replicate`, whose slices last 5 s while tables are copied, began it anew for ever.
it('copies a table without a key that takes longer than a slice lasts', async () => {
  const database = await createDatabase(inject('postgresUrl'))
  try {
    await using pipeline = new TestPipeline(database.url, specOf({ slotName: 'long_chunk', tableNames: ['keyless'] }))
    await pipeline.sql(`CREATE TABLE keyless (n int, note text); ALTER TABLE keyless REPLICA IDENTITY FULL;
      INSERT INTO keyless SELECT g, 'a note of some length, so that it takes its time ' || g FROM generate_series(1, 1500000) g`)
    await pipeline.initialize()
    let isCopied = false
    // Longer than it takes to begin, shorter than the rows take on any machine.
    for (let slices = 0; !isCopied && slices < 40; slices++) {
      const slice = await pipeline.engine.runSlice({ spec: pipeline.spec, mode: 'stream', tableNames: null, untilLsn: null, maxBusyMs: 300, maxIdleMs: 300 }, pipeline.context())
      isCopied = !slice.hasTablesToCopy
    }
    expect(isCopied).toBe(true)
    expect(await pipeline.query('SELECT count(*)::VARCHAR, count(DISTINCT n)::VARCHAR FROM public.keyless')).toEqual([['1500000', '1500000']])
  } finally {
    await database.drop()
  }
})
