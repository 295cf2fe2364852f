import { expect, inject, it } from 'vitest'
import { falseVersions, readFile } from '../../support/comparison.ts'
import { KilledDestination, survive } from '../../support/killed-destination.ts'
import { specOf, TestPipeline } from '../../support/pipeline.ts'
import { createDatabase } from '../../support/servers.ts'

/** Long mode: each step is killed at each of its commits, before and after it. */
const IS_WHOLE = process.env['KILLS'] === 'all'
const ROUNDS = 4
const ROWS = 20

/** Rows `id` is 1 to 20. Nobody writes to 10 and above; 3 alone is written to beside a copy. */
const TABLES = [
  { name: 'keyed', key: ['id'], versions: 'keyed' },
  { name: 'keyless', key: [], versions: 'keyless' },
  { name: 'shaped', key: ['id'], versions: 'shaped__history' },
] as const

interface Step {
  readonly name: string
  readonly ddl: (table: string, round: number) => string
  /** The row that is written to behind it. */
  readonly written: number
  /** Does each row get a version by it? */
  readonly changesAll?: boolean
}

const STEPS: readonly Step[] = [
  { name: 'a new column', ddl: (table, round) => `ALTER TABLE ${table} ADD COLUMN c${String(round)} text; UPDATE ${table} SET c${String(round)} = 'told' WHERE id = 1`, written: 1 },
  { name: 'a dropped column', ddl: (table, round) => `ALTER TABLE ${table} DROP COLUMN c${String(round)}`, written: 2 },
  { name: 'a new column with a value for all rows', ddl: (table, round) => `ALTER TABLE ${table} ADD COLUMN d${String(round)} int DEFAULT 7`, written: 3, changesAll: true },
  { name: 'another type', ddl: (table, round) => `ALTER TABLE ${table} ALTER t TYPE ${round % 2 === 0 ? 'text' : 'int USING t::int'}`, written: 3 },
]

it('makes no version that nobody wrote, and leaves what was closed as it was, wherever it is killed between a schema change and the rows behind it', { timeout: 900_000 }, async () => {
  const database = await createDatabase(inject('postgresUrl'))
  const killer: KilledDestination = new KilledDestination((): string => pipeline.file)
  const spec = specOf({ slotName: 'versions_kill', tableNames: TABLES.map(({ name }) => name), writeMode: { keyed: ['scd2'], keyless: ['scd2'], shaped: ['merge', 'scd2', 'append'] } })
  await using pipeline: TestPipeline = new TestPipeline(database.url, spec, { around: (destination) => killer.around(destination) })
  try {
    for (const { name, key } of TABLES) {
      await pipeline.sql(`CREATE TABLE ${name} (id int${key.length > 0 ? ' PRIMARY KEY' : ''}, n int, t int); INSERT INTO ${name} SELECT g, 0, g FROM generate_series(1, ${String(ROWS)}) g`)
      if (key.length === 0) await pipeline.sql(`ALTER TABLE ${name} REPLICA IDENTITY FULL`)
    }
    await pipeline.initialize()
    await pipeline.catchUp()
    const wanted = { untouched: 1, 1: 1, 2: 1 }
    for (let round = 0, isOver = false; !isOver; round++) {
      const killsBefore = killer.kills
      for (const [place, step] of STEPS.entries()) {
        for (const { name } of TABLES) await pipeline.sql(`UPDATE ${name} SET n = n + 1 WHERE id IN (1, 2)`)
        await pipeline.catchUp()
        const closed = await closedVersions(pipeline)
        const change = (name: string): string => `${step.ddl(name, round)}; UPDATE ${name} SET n = n + 1 WHERE id = ${String(step.written)}`
        // All in one transaction, or each in its own.
        if (round % 2 === 0) await pipeline.sql(`BEGIN; ${TABLES.map(({ name }) => change(name)).join('; ')}; COMMIT`)
        else for (const statement of TABLES.flatMap(({ name }) => change(name).split('; '))) await pipeline.sql(statement)
        killer.arm(IS_WHOLE ? Math.floor(round / 2) : round * (step.changesAll === true ? 2 : 1), (round + place) % 2 === 0)
        await survive(killer, pipeline, async () => pipeline.catchUp())
        killer.revive()
        // The update of the column itself is one more, where it is a transaction of its own.
        wanted[1] += 1 + (step.written === 1 ? (round % 2 === 0 ? 1 : 2) : 0)
        wanted[2] += 1 + (step.written === 2 ? 1 : 0)
        if (step.changesAll === true) for (const id of ['untouched', 1, 2] as const) wanted[id] += 1
        await expectHistories(pipeline, closed, wanted, `${step.name}, round ${String(round)}`)
      }
      isOver = IS_WHOLE ? killer.kills === killsBefore && round % 2 === 1 : round + 1 === ROUNDS
    }
    process.stderr.write(`versions and schema changes: ${String(killer.kills)} kills\n`)
    expect(killer.kills).toBeGreaterThan(STEPS.length)
    await pipeline.engine.drop({ source: 'shop', destination: 'warehouse', slotName: spec.slotName, publicationName: spec.publicationName, dropDestination: true }, pipeline.context())
  } finally {
    await pipeline.release().catch(() => undefined)
    await database.drop()
  }
})

/** What is over, by its table: of each version the columns that are not NULL. */
type Closed = ReadonlyMap<string, readonly (readonly (readonly [name: string, cell: string | null])[])[]>

async function closedVersions(pipeline: TestPipeline): Promise<Closed> {
  const found = new Map<string, (readonly [string, string | null])[][]>()
  for (const { versions } of TABLES) {
    const columns = (await pipeline.query(`SELECT column_name FROM duckdb_columns() WHERE schema_name = 'public' AND table_name = '${versions}' ORDER BY column_index`)).map(([name]) => String(name))
    const rows = (await pipeline.query(`SELECT ${columns.map((name) => `"${name}"::VARCHAR`).join(', ')} FROM public.${versions} WHERE NOT _is_current`)) as (string | null)[][]
    found.set(versions, rows.map((row) => columns.map((name, index) => [name, row[index] ?? null] as const).filter(([, cell]) => cell !== null)))
  }
  return found
}

async function expectHistories(pipeline: TestPipeline, closed: Closed, wanted: { readonly untouched: number; readonly 1: number; readonly 2: number }, when: string): Promise<void> {
  const after = await closedVersions(pipeline)
  for (const { name, key, versions } of TABLES) {
    const where = `${versions}: ${when}`
    const texts = (rows: Closed): string[] => (rows.get(versions) ?? []).map((row) => JSON.stringify([...row].sort()))
    const later = new Set(texts(after))
    expect(texts(closed).filter((row) => !later.has(row)), `closed versions that are not as they were, ${where}`).toEqual([])
    const columns = (await pipeline.sql('SELECT column_name AS name FROM information_schema.columns WHERE table_name = $1 ORDER BY 1', [name])).rows as { name: string }[]
    const values = columns.map((column, index) => `${column.name}::varchar AS v${String(index)}`).join(', ')
    const source = (await pipeline.sql(`SELECT ${values} FROM ${name} ORDER BY id`)).rows as Record<string, string | null>[]
    expect(await pipeline.query(`SELECT ${values} FROM public.${versions} WHERE _is_current ORDER BY id`), `current versions, ${where}`).toEqual(source.map((row) => Object.values(row)))
    expect(await readFile(pipeline.file, async (query) => falseVersions(query, versions, key)), where).toEqual([])
    const counts = await pipeline.query(`SELECT id, count(*)::INTEGER FROM public.${versions} WHERE id <> 3 GROUP BY id ORDER BY id`)
    expect(counts, `versions, ${where}`).toEqual(Array.from({ length: ROWS }, (_, index) => index + 1).filter((id) => id !== 3).map((id) => [id, id === 1 || id === 2 ? wanted[id] : wanted.untouched]))
  }
}
