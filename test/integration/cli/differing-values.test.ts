import { expect, inject, it } from 'vitest'
import { differingValues } from '../../../src/cli/differing-values.ts'
import type { DuckdbDestinationConfig } from '../../../src/config.ts'
import type { WriteMode } from '../../../src/model/spec.ts'
import { parseCredentials } from '../../../src/postgres/credentials.ts'
import { specOf, TestPipeline } from '../../support/pipeline.ts'
import { createDatabase } from '../../support/servers.ts'

it.each<WriteMode>(['merge', 'scd2', 'append'])('shows the values of both sides of rows that differ, in %s, and nothing that could steer a terminal', async (writeMode) => {
  const database = await createDatabase(inject('postgresUrl'))
  try {
    await using pipeline = new TestPipeline(database.url, specOf({ slotName: 'show_values', tableNames: ['shown'], writeMode }))
    await pipeline.sql("CREATE TABLE shown (a int, b text, n numeric, v text, PRIMARY KEY (a, b)); INSERT INTO shown VALUES (1, 'x', 1.50, 'same'), (2, 'y', 2, repeat('z', 500) || 'end'), (3, E'z\\u009b', 3, E'\\x1b[31mred\\u009b2J')")
    await pipeline.initialize()
    await pipeline.catchUp()
    await pipeline.write(
      writeMode === 'append'
        ? "INSERT INTO public.shown SELECT a, b, 9, v[:499] || 'END', 'update', _lsn, _seq + 1, _committed_at FROM public.shown WHERE a = 2; INSERT INTO public.shown SELECT a, b, n, v, 'delete', _lsn, _seq + 1, _committed_at FROM public.shown WHERE a = 3"
        : "UPDATE public.shown SET n = 9, v = v[:499] || 'END' WHERE a = 2; DELETE FROM public.shown WHERE a = 3",
    )
    const { progress } = await pipeline.engine.verify({ spec: pipeline.spec, repair: false, maxRowsPerSecond: null, progress: null, maxMs: 60_000 }, pipeline.context())
    await pipeline.release()
    const destination = { name: 'warehouse', path: pipeline.file, type: 'duckdb', isLocalFile: true } as DuckdbDestinationConfig
    const { slotName, publicationName } = pipeline.spec
    const text = await differingValues({ credentials: parseCredentials(database.url), destination, sourceName: 'shop', slotName, publicationName, differences: progress.differences })
    // eslint-disable-next-line no-control-regex -- colours of the table are the CLI's own
    const plain = text.replaceAll(/\u001b\[\d+m/g, '')
    expect(plain).toMatch(/public\.shown changed a = "2", b = "y":\n/)
    expect(plain).toMatch(/n +│ "2" +│ "9"/)
    expect(plain).toMatch(/v +│ …\(\d+\) "z+end" +│ …\(\d+\) "z+END"/)
    expect(plain).not.toContain('same')
    expect(plain).toMatch(/public\.shown missing a = "3", b = "z\\u009b":\n/)
    expect(plain).toMatch(/v +│ "\\u001b\[31mred\\u009b2J" +│ - /)
  } finally {
    await database.drop()
  }
})

// Cause: only the first shape's row was looked at, so that one which differs in another had "the same values by now".
it('shows the row of each shape that differs', async () => {
  const database = await createDatabase(inject('postgresUrl'))
  try {
    await using pipeline = new TestPipeline(database.url, specOf({ slotName: 'show_shapes', tableNames: ['shown'], writeMode: { shown: ['merge', 'append', 'scd2'] } }))
    await pipeline.sql("CREATE TABLE shown (id int PRIMARY KEY, v text); INSERT INTO shown VALUES (1, 'one'), (2, 'two')")
    await pipeline.initialize()
    await pipeline.catchUp()
    await pipeline.write("UPDATE public.shown__changes SET v = 'by hand' WHERE id = 1; DELETE FROM public.shown__history WHERE id = 1")
    const destination = { name: 'warehouse', path: pipeline.file, type: 'duckdb', isLocalFile: true } as DuckdbDestinationConfig
    const { slotName, publicationName } = pipeline.spec
    const differences = { 'public.shown': [{ kind: 'missing', key: ['1'] }, { kind: 'changed', key: ['2'] }] } as const
    const plain = (await differingValues({ credentials: parseCredentials(database.url), destination, sourceName: 'shop', slotName, publicationName, differences }))
    expect(plain).not.toContain('id = "1":')
    expect(plain).toContain('public.shown missing id = "1" in public.shown__changes:\n')
    expect(plain).toContain('"by hand"')
    expect(plain).toContain('public.shown missing id = "1" in public.shown__history:\n')
    expect(plain).toContain('public.shown changed id = "2": the same values by now')
  } finally {
    await database.drop()
  }
})
