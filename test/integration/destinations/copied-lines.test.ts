import { afterAll, beforeAll, describe, expect, inject, it, vi } from 'vitest'
import { BinaryRowFile } from '../../../src/destinations/duckdb/binary-row-file.ts'
import { type Query, readFile } from '../../support/comparison.ts'
import { specOf, TestPipeline } from '../../support/pipeline.ts'
import { createDatabase, type TestDatabase } from '../../support/servers.ts'

/** Everything that has a meaning in the staging format, in COPY's formats or at the start of a file; NULL and empty among them. */
const TEXTS = ['', null, '\ufeff', '\ufeffabc', '\x1f', '\x1e', '\x1e\x1e', 'a\x1fb\x1ec', '\n', '\r', '\r\n', 'a\nb', '\\.', '\\N', 'NULL', '"', '""', ' ', '\t', ',', '#', ' x ', 'BC', '0044-03-15 BC', '\x01\x7f', '漢字 é 🐘', 'z\x1f\n'.repeat(1_000_000)] as const

const COLUMNS = 'first text, id int PRIMARY KEY, flag boolean, day date, moment timestamptz, local timestamp, price numeric(12,2), free numeric, wide numeric(30,5), score double precision, doc jsonb, raw bytea, tag uuid, last text'

const TABLES: Readonly<Record<string, string>> = {
  in_binary_form: COLUMNS,
  by_lines: COLUMNS,
  by_cells: `${COLUMNS}, kept interval`,
}

let database: TestDatabase
const rows: Record<'source' | 'merge' | 'append', Map<string, unknown[][]>> = { source: new Map(), merge: new Map(), append: new Map() }
const ended = vi.spyOn(BinaryRowFile.prototype, 'end')
const sourceOnly = new Map<string, unknown[]>()
const destinationOnly = new Map<string, unknown[]>()

/** Sides spell the same value in their own way; what they hold is compared. */
const texts = (hex: (text: string) => string): string => ['first', 'last'].map((name) => hex(`coalesce(${name}, '∅')`)).join(', ')
const OF_SOURCE = `id, ${texts((text) => `encode(convert_to(${text}, 'UTF8'), 'hex')`)}, flag, (extract(epoch FROM moment) * 1000000)::bigint::text, (extract(epoch FROM local) * 1000000)::bigint::text,
  day - date '2000-01-01', price::text, trim_scale(free)::text, wide::text, score::text, doc::text, encode(raw, 'hex'), tag::text`
const OF_DESTINATION = `id, ${texts((text) => `lower(hex(encode(${text})))`)}, flag, epoch_us(moment)::VARCHAR, epoch_us(local)::VARCHAR,
  (day - DATE '2000-01-01')::INTEGER, price::VARCHAR, regexp_replace(free::VARCHAR, '\\.?0*$', ''), wide::VARCHAR, score::VARCHAR, doc::VARCHAR, lower(hex(raw)), tag::VARCHAR`

beforeAll(async () => {
  database = await createDatabase(inject('postgresUrl'))
  for (const writeMode of ['merge', 'append'] as const) {
    await using pipeline = new TestPipeline(database.url, specOf({ slotName: `lines_${writeMode}`, tableNames: null, writeMode }))
    if (writeMode === 'merge') await fill(pipeline)
    await pipeline.initialize()
    await pipeline.copy()
    await pipeline.release()
    await readFile(pipeline.file, async (query) => readDestination(query, writeMode))
  }
})

afterAll(async () => {
  await database.drop()
})

async function fill(pipeline: TestPipeline): Promise<void> {
  for (const [table, columns] of Object.entries(TABLES)) {
    await pipeline.sql(`CREATE TABLE ${table} (gone int, ${columns}); ALTER TABLE ${table} DROP COLUMN gone`)
    for (const [index, text] of TEXTS.entries()) {
      const other = TEXTS[(index + 1) % TEXTS.length]
      await pipeline.sql(
        `INSERT INTO ${table} (first, id, flag, day, moment, local, price, free, wide, score, doc, raw, tag, last)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, to_jsonb($1::text), convert_to($1, 'UTF8'), $11, $12)`,
        [text, index, index % 3 === 0 ? null : index % 2 === 0, index % 2 === 0 ? '0044-03-15 BC' : '2024-02-29', index % 3 === 0 ? '4000-01-01 12:00:00.25+00 BC' : '2024-02-29 01:02:03.000001+00', index % 5 === 0 ? '0001-12-31 23:59:59.5 BC' : '12345-06-07 00:00:00', `-${String(index)}.10`, index % 4 === 0 ? '12345678901234567890.123456789' : '7.5', '1234567890123456789012345.12345', index / 4 + 0.125, '00000000-0000-0000-0000-0000000000ff', other],
      )
    }
    await pipeline.sql(`INSERT INTO ${table} (id) VALUES (1000)`)
    // More than 18 digits have no place in binary form.
    if (table === 'in_binary_form') await pipeline.sql(`UPDATE ${table} SET free = id + 0.25, wide = 1234567890123.12345 - id WHERE id < 1000`)
    const { rows: found } = await pipeline.source.query<unknown[]>({ text: `SELECT ${OF_SOURCE} FROM ${table} ORDER BY id`, rowMode: 'array' })
    rows.source.set(table, found)
  }
  await pipeline.sql('CREATE TABLE one_column (v text)')
  for (const text of TEXTS) await pipeline.sql('INSERT INTO one_column VALUES ($1)', [text])
  await pipeline.sql('ALTER TABLE one_column REPLICA IDENTITY FULL')
  const { rows: found } = await pipeline.source.query<unknown[]>({ text: "SELECT encode(convert_to(coalesce(v, '∅'), 'UTF8'), 'hex') FROM one_column ORDER BY 1", rowMode: 'array' })
  sourceOnly.set('one_column', found)
}

async function readDestination(query: Query, writeMode: 'merge' | 'append'): Promise<void> {
  for (const table of Object.keys(TABLES)) rows[writeMode].set(table, await query(`SELECT ${OF_DESTINATION} FROM public.${table} ORDER BY id`))
  destinationOnly.set(writeMode, await query("SELECT lower(hex(encode(coalesce(v, '∅')))) FROM public.one_column ORDER BY 1"))
  if (writeMode === 'append') destinationOnly.set('meta', await query('SELECT DISTINCT _op, _seq::INTEGER, _lsn > 0, _committed_at IS NOT NULL FROM public.by_lines'))
}

describe.each(Object.keys(TABLES))('rows copied %s', (table) => {
  it.each(['merge', 'append'] as const)('are the source\'s in %s mode: NULL, empty, quotes, separators, line ends, byte order marks, eras', (writeMode) => {
    const wanted = rows.source.get(table)?.map((row) => row.map(short))
    expect(wanted).toHaveLength(TEXTS.length + 1)
    expect(rows[writeMode].get(table)?.map((row) => row.map(short))).toEqual(wanted)
  })
})

it('takes rows in binary form where every value has a place in it', () => {
  // That table, and the one of a single text, in either mode.
  expect(ended.mock.results.map(({ value }) => value as unknown)).toEqual([true, true, true, true])
})

it('copies a table of one column, empty lines and NULLs included', () => {
  const wanted = sourceOnly.get('one_column')
  expect(destinationOnly.get('merge')).toEqual(wanted)
  expect(destinationOnly.get('append')).toEqual(wanted)
})

it('gives copied lines what append adds to a row', () => {
  expect(destinationOnly.get('meta')).toEqual([['snapshot', 0, true, true]])
})

/** Sides agree, and a difference is readable. */
function short(cell: unknown): unknown {
  return typeof cell === 'string' && cell.length > 100 ? `${cell.slice(0, 50)}… (${String(cell.length)})` : cell
}
