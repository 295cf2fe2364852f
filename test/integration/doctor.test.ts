import { copyFileSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, inject, it, vi } from 'vitest'
import { documentOf, run } from '../support/command-line.ts'
import { specOf, TestPipeline } from '../support/pipeline.ts'
import { createDatabase, type TestDatabase } from '../support/servers.ts'
import { XminPipeline } from '../support/xmin.ts'

interface Told {
  readonly checks: readonly { readonly subject: string; readonly name: string; readonly state: string; readonly message: string; readonly remedy: string | null }[]
  readonly tables: Readonly<Record<string, { readonly rows: number; readonly isWhole: boolean; readonly columns: readonly { readonly column: string; readonly isExact: boolean }[] }>>
}

describe('what doctor says of values', () => {
  const serverUrl = inject('postgresUrl')
  let database: TestDatabase
  let client: pg.Client
  let directory: string

  beforeAll(async () => {
    database = await createDatabase(serverUrl)
    client = new pg.Client({ connectionString: database.url })
    await client.connect()
  })
  afterAll(async () => {
    await client.end()
    await database.drop()
  })
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'doctor-'))
    const file = join(directory, 'replication.toml')
    writeFileSync(file, `[sources.shop]\ncredentials = ${JSON.stringify(database.url)}\n[destinations.warehouse]\npath = "w.duckdb"\n`)
    vi.stubEnv('REPLICATION_CONFIG', file)
    vi.stubEnv('TEMPORAL_ADDRESS', '127.0.0.1:1')
    vi.stubEnv('TMPDIR', directory)
  })
  afterEach(() => {
    rmSync(directory, { recursive: true, force: true })
  })

  async function doctor(...args: readonly string[]): Promise<Told & { readonly text: string }> {
    const outcome = await run('doctor', ...args, '--json')
    return { ...(documentOf(outcome) as Told), text: outcome.stdout }
  }
  const fidelityOf = ({ checks }: Told) => checks.filter(({ name }) => name === 'fidelity').map(({ subject, state, message, remedy }) => ({ subject, state, message, remedy }))
  const inexact = ({ tables }: Told, table: string) => tables[table]?.columns.filter(({ isExact }) => !isExact).map(({ column }) => column)
  const matching = (pattern: RegExp): unknown => expect.stringMatching(pattern)

  it('tells the columns that the copy then widens, and no others', async () => {
    await using pipeline = new TestPipeline(database.url, specOf({ slotName: `doctor_${database.name}`, tableNames: ['odd'] }))
    await pipeline.sql(`
      CREATE TABLE odd (id int PRIMARY KEY, free numeric, nan numeric(5,2), fits numeric(5,2), grid int[], list int[], late timestamptz, early timestamptz, doc jsonb, empty numeric, note text);
      INSERT INTO odd SELECT g, g + 0.5, 1, 1.25, ARRAY[g], ARRAY[g, NULL], now(), '0044-03-15 BC', '{"a": 1}', NULL, 'secret-' || g FROM generate_series(1, 20) g;
      UPDATE odd SET free = 1e-12 WHERE id = 7; UPDATE odd SET nan = 'NaN' WHERE id = 8;
      UPDATE odd SET grid = '{{1,2},{3,4}}' WHERE id = 9; UPDATE odd SET late = '294276-12-31' WHERE id = 10`)
    const told = await doctor('--tables', 'odd')
    expect(told.tables['public.odd']).toMatchObject({ rows: 20, isWhole: true })
    expect(told.tables['public.odd']?.columns[2]).toEqual({
      ...{ column: 'nan', sourceType: 'numeric(5,2)', destinationType: 'DECIMAL(5,2)', isHinted: false, cannotHold: 'NaN, ±Infinity', isExact: false },
    })
    expect(fidelityOf(told)).toEqual(['free', 'nan', 'grid', 'late'].map((column) => ({
      ...{ subject: 'table public.odd', state: 'warning', message: matching(new RegExp(`column "${column}" .* will become VARCHAR`)), remedy: matching(/docs\/types\.md/) },
    }))) // prettier-ignore
    expect(told.text).not.toContain('secret-')
    await pipeline.initialize()
    await pipeline.copy()
    const widened = await pipeline.query(`SELECT column_name FROM duckdb_columns() WHERE table_name = 'odd' AND data_type = 'VARCHAR' AND column_name <> 'note' ORDER BY column_index`)
    expect(widened.flat()).toEqual(inexact(told, 'public.odd'))
    await pipeline.sql(`DROP TABLE odd CASCADE`)
  })

  it('tells all columns whose hints their values do not fit, each as a failure with a hint that holds them', async () => {
    await client.query(`CREATE SCHEMA "od.d"; CREATE TABLE "od.d"."Ta""ble" (id int PRIMARY KEY, price numeric, note text, size bigint); INSERT INTO "od.d"."Ta""ble" VALUES (1, 1.25, 'mark-x', 40000), (2, 2, '17', 3)`)
    const columns = { '"od.d"."Ta""ble"': { price: { dataType: 'decimal', precision: 5, scale: 1 }, note: { dataType: 'bigint' }, size: { dataType: 'INTEGER' } } }
    const told = await doctor('--tables', '"od.d"."Ta""ble"', '--columns', JSON.stringify(columns))
    expect(inexact(told, 'od.d.Ta"ble')).toEqual(['price', 'note'])
    expect(fidelityOf(told).map(({ state, message }) => [state, message])).toEqual([
      ['failure', 'column "price" (numeric): among 2 rows is a value that does not fit DECIMAL(5,1), which a hint asks for: the table would stop'],
      ['failure', 'column "note" (text): among 2 rows is a value that does not fit BIGINT, which a hint asks for: the table would stop'],
    ])
    expect(told.text).not.toContain('mark-x')
    // The remedy works as it is.
    const [, remedy] = /--columns '(.*)'$/.exec(fidelityOf(told)[1]?.remedy ?? '') ?? []
    const mended = { '"od.d"."Ta""ble"': { price: { dataType: 'decimal', precision: 5, scale: 2 }, ...(JSON.parse(remedy ?? '') as Record<string, object>)['"od.d"."Ta""ble"'] } }
    expect(fidelityOf(await doctor('--tables', '"od.d"."Ta""ble"', '--columns', JSON.stringify(mended)))).toMatchObject([{ state: 'ok', message: '2 rows: every value is held exactly' }])
  })

  it('reads a sample of a large table, and every row with --full', async () => {
    await client.query(`CREATE TABLE large (id int PRIMARY KEY, n numeric, pad text); INSERT INTO large SELECT g, g, repeat('x', 200) FROM generate_series(1, 120000) g; INSERT INTO large VALUES (0, 'NaN', '')`)
    const sampled = await doctor('--tables', 'large')
    expect(sampled.tables['public.large']?.isWhole).toBe(false)
    expect(sampled.tables['public.large']?.rows).toBeGreaterThan(1_000)
    expect(sampled.tables['public.large']?.rows).toBeLessThan(60_000)
    const full = await doctor('--tables', 'large', '--full')
    expect(full.tables['public.large']).toMatchObject({ rows: 120_001, isWhole: true })
    expect(inexact(full, 'public.large')).toEqual(['n'])
  })

  it('reads no more than a bounded part of large values', async () => {
    await client.query(`CREATE TABLE heavy (id int PRIMARY KEY, v text); ALTER TABLE heavy ALTER v SET STORAGE EXTERNAL; INSERT INTO heavy SELECT g, repeat(md5(g::text), 100000) FROM generate_series(1, 40) g`)
    const { tables } = await doctor('--tables', 'heavy')
    expect(tables['public.heavy']?.isWhole).toBe(false)
    expect(tables['public.heavy']?.rows).toBeLessThan(25)
  })

  it('looks at what will be replicated: included columns, and rows that the publication lets through', async () => {
    await client.query(`CREATE TABLE parted (id int PRIMARY KEY, a numeric, b numeric); INSERT INTO parted VALUES (1, 1, 'NaN'), (2, 'NaN', 2)`)
    const told = await doctor('--tables', 'parted', '--include-columns', '{"parted": ["a"]}')
    expect(told.tables['public.parted']?.columns.map(({ column, isExact }) => [column, isExact])).toEqual([['id', true], ['a', false]])
    if (!(await isSince15())) return
    await client.query('CREATE PUBLICATION filtered FOR TABLE parted WHERE (id = 1)')
    expect(inexact(await doctor('--tables', 'parted', '--publication', 'filtered'), 'public.parted')).toEqual(['b'])
  })

  it('says what a start would refuse in names and hints, and leaves nothing behind', async () => {
    await client.query('CREATE TABLE named (id int PRIMARY KEY, "_lsn" int); CREATE TABLE hinted (id int PRIMARY KEY, b boolean)')
    expect(fidelityOf(await doctor('--tables', 'named,hinted', '--columns', '{"hinted": {"b": {"dataType": "bigint"}}}'))).toEqual([
      { subject: 'table public.named', state: 'failure', message: matching(/"_lsn" has the name/), remedy: matching(/RENAME COLUMN/) },
      { subject: 'table public.hinted', state: 'failure', message: matching(/the hint "bigint" does not fit/), remedy: matching(/VARCHAR/) },
    ])
    expect(fidelityOf(await doctor('--tables', 'hinted', '--columns', '{"hintd": {"b": {"dataType": "bigint"}}}'))).toMatchObject([{ subject: 'tables', state: 'failure' }])
    expect(readdirSync(directory)).toEqual(['replication.toml'])
  })

  // Cause: it knew nothing of what the destination has, and told of a start that would be the first.
  it('says of a replication that has begun what its next start would say', async () => {
    if (!(await isSince15())) return
    const [slotName, publicationName] = [`begun_${database.name}`, `begun_${database.name}`]
    await using pipeline = new TestPipeline(database.url, specOf({ slotName, publicationName, tableNames: null, schemaName: 'begun' }))
    await pipeline.sql('CREATE SCHEMA begun; CREATE TABLE begun.t (id int PRIMARY KEY); CREATE TABLE begun.left_out (id int PRIMARY KEY)')
    await pipeline.initialize()
    await pipeline.catchUp()
    await pipeline.order({ tag: 'remove', tableNames: ['begun.left_out'], dropDestination: false })
    await pipeline.release()
    writeFileSync(join(directory, 'replication.toml'), `[sources.shop]\ncredentials = ${JSON.stringify(database.url)}\n[destinations.warehouse]\npath = ${JSON.stringify(pipeline.file)}\n`)
    const args = ['--slot', slotName, '--publication', publicationName, '--schema', 'begun']
    const faults = ({ checks }: Told) => checks.filter(({ subject, state }) => subject === 'source shop' && state === 'failure')
    await pipeline.sql('CREATE TABLE begun.log (msg text); CREATE TABLE begun."T" (id int PRIMARY KEY)')
    const told = await doctor(...args)
    expect(faults(told)).toEqual([])
    const stay = told.checks.filter(({ state, message }) => state === 'warning' && message.includes('stays out')).map(({ message }) => message)
    expect(stay).toEqual((await pipeline.initialize()).warnings.filter((warning) => warning.includes('stays out')))
    expect(stay).toEqual([matching(/^"begun.T" stays out/), matching(/^"begun.log" stays out/)])
    expect(Object.keys(told.tables)).toEqual(['begun.t'])
    await pipeline.release()
    // Another one would be its first start.
    expect(faults(await doctor('--slot', 'another', '--publication', 'another', '--schema', 'begun')).map(({ name }) => name)).toEqual(expect.arrayContaining(['tables', 'replica identity']))
    await pipeline.sql(`SELECT pg_drop_replication_slot('${slotName}')`)
    expect(faults(await doctor(...args))).toMatchObject([{ name: 'slot', message: matching(/is gone, and the destination holds rows that came through it/) }])
    await pipeline.sql('DROP SCHEMA begun CASCADE')
  })

  // Cause: there was no way to ask what syncByXmin needs, and a source without logical decoding was told to switch it on.
  it('says what a run of syncByXmin would say, which needs no slot', async () => {
    const own = await createDatabase(serverUrl)
    const moved = `${own.name}_moved`
    const configure = (url: string): void => {
      writeFileSync(join(directory, 'replication.toml'), `[sources.shop]\ncredentials = ${JSON.stringify(url)}\n[destinations.warehouse]\npath = "w.duckdb"\n`)
    }
    const ofSource = ({ checks }: Told) => checks.filter(({ subject }) => subject === 'source shop')
    const faults = (told: Told) => ofSource(told).filter(({ state }) => state === 'failure')
    const args = ['--type', 'syncByXmin', '--tables', 'read'] as const
    try {
      configure(own.url)
      {
        await using pipeline = new XminPipeline(own.url, { tableNames: ['read'] })
        await pipeline.sql(`CREATE TABLE read (id int PRIMARY KEY, n numeric); CREATE TABLE bag (v int); INSERT INTO read VALUES (1, 1), (2, 'NaN')`)
        const told = await doctor(...args)
        expect(faults(told)).toEqual([])
        expect(ofSource(told).map(({ name }) => name)).toEqual(expect.arrayContaining(['connection', 'version', 'tables', 'key', 'SELECT']))
        expect(ofSource(told).filter(({ name }) => /slot|publication|wal_level|walsender|replica/i.test(name))).toEqual([])
        expect(inexact(told, 'public.read')).toEqual(['n'])
        expect(faults(await doctor('--type', 'syncByXmin'))).toMatchObject([{ name: 'key', message: matching(/without: .*bag/) }])
        expect((await doctor(...args, '--slot', 'some_slot')).text).toContain('takes no slotName')
        await pipeline.sync()
        await pipeline.release()
        copyFileSync(pipeline.file, join(directory, 'w.duckdb'))
        expect(faults(await doctor(...args))).toEqual([])
      }
      await client.query(`CREATE DATABASE ${moved} TEMPLATE ${own.name}`)
      configure(own.url.replace(own.name, moved))
      expect(faults(await doctor(...args))).toMatchObject([{ name: 'identity', message: matching(/is not the one that the destination was filled from/), remedy: matching(/"reset": true/) }])
      expect(faults(await doctor(...args, '--reset'))).toEqual([])
    } finally {
      await client.query(`DROP DATABASE IF EXISTS ${moved}`)
      await own.drop()
    }
  })

  async function isSince15(): Promise<boolean> {
    const { rows } = await client.query<{ since: boolean }>(`SELECT current_setting('server_version_num')::int >= 150000 AS since`)
    return rows[0]?.since === true
  }
})
