import { afterAll, beforeAll, expect, inject, it } from 'vitest'
import { specOf, TestPipeline } from '../../support/pipeline.ts'
import { createDatabase, type TestDatabase } from '../../support/servers.ts'

/** `LARGE_VALUE_MB`: long mode: 300. A row of several has a third of it in each of them. */
const MEGABYTES = Number(process.env['LARGE_VALUE_MB'] ?? '16')
/** Three tables are copied at once. */
const MEMORY = MEGABYTES > 100 ? { memoryLimit: '6GB' } : {}
const QUARTERS = String(MEGABYTES * 250_000)

/** What the source makes, and the columns whose bytes are compared. */
const VALUES: Readonly<Record<string, string>> = {
  text: `repeat(E'ab"\\n', ${QUARTERS})`,
  bytea: `decode(repeat('00ff5c0a', ${QUARTERS}), 'hex')`,
  json: `('"' || repeat('\\u00e9\\"\\n ', ${QUARTERS} / 10) || '"')::json`,
}

let database: TestDatabase
let pipeline: TestPipeline

beforeAll(async () => {
  database = await createDatabase(inject('postgresUrl'))
  pipeline = new TestPipeline(database.url, specOf({ slotName: 'large_values', tableNames: null }), MEMORY)
  for (const [type, value] of Object.entries(VALUES)) {
    await pipeline.sql(`CREATE TABLE of_${type} (id int PRIMARY KEY, v ${type}); INSERT INTO of_${type} SELECT 1, ${value}`)
  }
  await pipeline.initialize()
  await pipeline.copy()
  for (const [type, value] of Object.entries(VALUES)) {
    await pipeline.sql(`INSERT INTO of_${type} SELECT 2, ${value}`)
    await pipeline.catchUp()
  }
}, 600_000)

afterAll(async () => {
  await pipeline[Symbol.asyncDispose]()
  await database.drop()
})

it.each(Object.keys(VALUES))(`holds a ${String(MEGABYTES)} MB value of %s byte for byte, by copy and by stream`, async (type) => {
  const isBytes = type === 'bytea'
  const { rows } = await pipeline.sql(`SELECT id, md5(v${isBytes ? '' : '::text'}) AS digest, octet_length(v${isBytes ? '' : '::text'}) AS bytes FROM of_${type} ORDER BY id`)
  const source = (rows as { id: number; digest: string; bytes: number }[]).map(({ id, digest, bytes }) => [id, digest, bytes])
  expect(source).toHaveLength(2)
  expect(await pipeline.query(`SELECT id, md5(v${isBytes ? '' : '::VARCHAR'}), octet_length(${isBytes ? 'v' : 'encode(v::VARCHAR)'})::INTEGER FROM public.of_${type} ORDER BY id`)).toEqual(source)
}, 600_000)

it(`holds a row of five values of ${String(Math.round(MEGABYTES / 3))} MB, by copy and by stream`, async () => {
  const names = ['a', 'b', 'c', 'd', 'e']
  await using own = new TestPipeline(database.url, specOf({ slotName: 'large_row', tableNames: ['of_row'] }), MEMORY)
  const insert = async (id: number): Promise<unknown> => own.sql(`INSERT INTO of_row SELECT ${String(id)}, ${names.map((name) => `repeat('${name}"\n ', ${QUARTERS} / 3)`).join(', ')}`)
  await own.sql(`CREATE TABLE of_row (id int PRIMARY KEY, ${names.map((name) => `${name} text`).join(', ')})`)
  await insert(1)
  await own.initialize()
  await own.copy()
  await insert(2)
  await own.catchUp()
  const digests = names.map((name) => `md5(${name})`).join(', ')
  const { rows } = await own.source.query<unknown[]>({ text: `SELECT id, ${digests} FROM of_row ORDER BY id`, rowMode: 'array' })
  expect(rows).toHaveLength(2)
  expect(await own.query(`SELECT id, ${digests} FROM public.of_row ORDER BY id`)).toEqual(rows)
}, 600_000)

it('holds a numeric of every digit that PostgreSQL has room for, by copy and by stream', async () => {
  await using own = new TestPipeline(database.url, specOf({ slotName: 'large_numeric', tableNames: ['of_numeric'] }))
  const insert = async (id: number): Promise<unknown> => own.sql(`INSERT INTO of_numeric SELECT ${String(id)}, (repeat('9', 131072) || '.' || repeat('1', 16383))::numeric`)
  await own.sql('CREATE TABLE of_numeric (id int PRIMARY KEY, v numeric)')
  await insert(1)
  await own.initialize()
  await own.copy()
  await insert(2)
  await own.catchUp()
  const { rows } = await own.sql('SELECT id, md5(v::text) AS digest, length(v::text) AS digits FROM of_numeric ORDER BY id')
  const source = (rows as { id: number; digest: string; digits: number }[]).map(({ id, digest, digits }) => [id, digest, digits])
  expect(source.map(([, , digits]) => digits)).toEqual([147_456, 147_456])
  expect(await own.query('SELECT id, md5(v), length(v)::INTEGER FROM public.of_numeric ORDER BY id')).toEqual(source)
})
