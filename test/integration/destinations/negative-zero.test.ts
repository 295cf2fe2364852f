import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DuckDBInstance } from '@duckdb/node-api'
import { afterAll, expect, it } from 'vitest'

const directory = mkdtempSync(join(tmpdir(), 'zeros-'))

afterAll(() => {
  rmSync(directory, { recursive: true, force: true })
})

/** A column's values after the file was closed and opened again. */
async function reopened(name: string, definition: string, values: readonly string[]): Promise<readonly string[]> {
  const path = join(directory, `${name}.duckdb`)
  const writer = await DuckDBInstance.create(path)
  const writing = await writer.connect()
  await writing.run(`CREATE TABLE t (id INTEGER, v ${definition})`)
  await writing.run(`INSERT INTO t VALUES ${values.map((value, index) => `(${String(index)}, '${value}')`).join(', ')}`)
  writing.closeSync()
  writer.closeSync()
  const reader = await DuckDBInstance.create(path, { access_mode: 'READ_ONLY' })
  const reading = await reader.connect()
  const rows = (await reading.runAndReadAll('SELECT v::VARCHAR FROM t ORDER BY id')).getRowsJson()
  reading.closeSync()
  reader.closeSync()
  return rows.map(([text]) => text as string)
}

it.each(['DOUBLE', 'FLOAT'])('−0 of %s comes back beside numbers that are not zero', async (type) => {
  expect(await reopened(`apart_${type}`, type, ['1.5', '-0', '2.5', '0'])).toEqual(['1.5', '-0.0', '2.5', '0.0'])
})

it('−0 comes back from a VARCHAR, which a hint may ask for', async () => {
  expect(await reopened('text', 'VARCHAR', ['0', '-0', '-0', '0'])).toEqual(['0', '-0', '-0', '0'])
})

/** What docs/types.md says of DuckDB 1.5.5. Where it fails, DuckDB has learnt to keep the sign: then the page, and perhaps the mapping, can do better. */
it.each(['', ' USING COMPRESSION uncompressed', ' USING COMPRESSION alp', ' USING COMPRESSION alprd'])('among zeros alone DuckDB keeps one of them, under any compression (DOUBLE%s)', async (compression) => {
  expect(new Set(await reopened(`zeros${compression.replaceAll(' ', '_')}`, `DOUBLE${compression}`, ['0', '-0', '0', '-0'])).size).toBe(1)
})
