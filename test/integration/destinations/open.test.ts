import { spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DuckDBInstance } from '@duckdb/node-api'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Database, destinationError } from '../../../src/destinations/duckdb/database.ts'
import { finalOpenError } from '../../../src/destinations/duckdb/open-error.ts'
import { DomainError } from '../../../src/model/errors.ts'

let directory: string
let good: string

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'open-'))
  good = join(directory, 'good.duckdb')
  const instance = await DuckDBInstance.create(good)
  const connection = await instance.connect()
  await connection.run('CREATE TABLE t AS SELECT 1 AS a')
  connection.closeSync()
  instance.closeSync()
})

afterAll(() => {
  rmSync(directory, { recursive: true, force: true })
})

async function openingError(path: string): Promise<DomainError> {
  const error: unknown = await Database.open({ path }).then(
    () => null,
    (reason: unknown) => reason,
  )
  if (error instanceof DomainError) return error
  throw new Error(`opened, or failed with ${String(error)}`)
}

/** The first header of a file that a later format version has, with the checksum that DuckDB asks for. */
function ofNewerVersion(file: Buffer): Buffer {
  const newer = Buffer.from(file)
  newer.writeBigUInt64LE(9_999n, 12)
  let checksum = 5381n
  for (let offset = 8; offset < 4096; offset += 8) checksum ^= (newer.readBigUInt64LE(offset) * 0xbf58476d1ce4e5b9n) & 0xffff_ffff_ffff_ffffn
  newer.writeBigUInt64LE(checksum, 0)
  return newer
}

describe('a file that no retry can open', () => {
  it.each([
    ['whose folder would be in a file', /a part of its path is a file/, (path: string) => { writeFileSync(path, 'x'); return join(path, 'a.duckdb') }],
    ['whose folder would be deep in a file', /a part of its path is a file.*ENOTDIR/, (path: string) => { writeFileSync(path, 'x'); return join(path, 'folder', 'a.duckdb') }],
    ['that is a folder', /it is a folder/, (path: string) => { mkdirSync(path); return path }],
    ['that is something else', /it is no DuckDB database/, (path: string) => { writeFileSync(path, 'id,name\n'.repeat(1_000)); return path }],
    ['that is empty', /it is no DuckDB database/, (path: string) => { writeFileSync(path, ''); return path }],
    ['of a newer DuckDB', /another version of DuckDB/, (path: string) => { writeFileSync(path, ofNewerVersion(readFileSync(good))); return path }],
    ['that is damaged', /it is damaged/, (path: string) => { writeFileSync(path, readFileSync(good).fill(7, 4096, 4160).fill(7, 8192, 8256)); return path }],
    ['whose path is too long', /its path is too long/, (path: string) => join(path, 'x'.repeat(300), 'a.duckdb')],
  ] as const)('%s is a final error with its remedy', async (name, message, make) => {
    const error = await openingError(make(join(directory, name)))
    expect(error).toMatchObject({ kind: 'DestinationFailed', isRetryable: false })
    expect(error.message).toMatch(message)
    expect(error.remedy).toMatch(/path|copy/)
  })

  it.each([
    ['EACCES', 'permission denied, mkdir'],
    ['EROFS', 'read-only file system, mkdir'],
    [undefined, 'IO Error: Cannot open file "/x": Permission denied'],
    [undefined, 'IO Error: Cannot open file "/x": Read-only file system'],
  ])('is one for a user without rights: %s %s', (code, text) => {
    // Not tried: tests may run as root, who may do everything.
    expect(finalOpenError(Object.assign(new Error(text), code === undefined ? {} : { code }), '/x')).toMatchObject({ isRetryable: false })
  })
})

describe('a file that time may make good', () => {
  it('is one that another process has open: its pid is named', async () => {
    const script = `import { DuckDBInstance } from ${JSON.stringify(import.meta.resolve('@duckdb/node-api'))}
      const instance = await DuckDBInstance.create(${JSON.stringify(good)}); console.log('open'); setInterval(() => instance, 1000)`
    const holder = spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: ['ignore', 'pipe', 'inherit'] })
    try {
      await new Promise((resolve) => holder.stdout.once('data', resolve))
      const error = await openingError(good)
      expect(error).toMatchObject({ kind: 'DestinationFailed', isRetryable: true })
      expect(error.message).toContain(`PID ${String(holder.pid)}`)
    } finally {
      holder.kill()
      await new Promise((resolve) => holder.once('exit', resolve))
    }
  })

  it('is one that another process is about to let go of: it is waited for', async () => {
    const script = `import { DuckDBInstance } from ${JSON.stringify(import.meta.resolve('@duckdb/node-api'))}
      const instance = await DuckDBInstance.create(${JSON.stringify(good)}); console.log('open'); setTimeout(() => instance.closeSync(), 1000)`
    const holder = spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: ['ignore', 'pipe', 'inherit'] })
    try {
      await new Promise((resolve) => holder.stdout.once('data', resolve))
      const database = await Database.open({ path: good })
      await database.close()
    } finally {
      holder.kill()
      if (holder.exitCode === null) await new Promise((resolve) => holder.once('exit', resolve))
    }
  })

  it.each(['ENOSPC', 'EMFILE', 'EIO'])('is one that the system refuses for now: %s', (code) => {
    const error = Object.assign(new Error('no'), { code })
    expect(finalOpenError(error, '/x')).toBeNull()
    expect(destinationError(error, 'cannot open').isRetryable).toBe(true)
  })
})

it('tells both of its connections what they have to know', async () => {
  const database = await Database.open({ path: join(directory, 'settings.duckdb') })
  try {
    const settings = "SELECT current_setting('TimeZone'), current_setting('dynamic_or_filter_threshold')::VARCHAR"
    const expected = [['UTC', '500']]
    expect(await database.exclusive(async (session) => session.rows(settings))).toEqual(expected)
    expect(await database.reading(async (session) => session.rows(settings))).toEqual(expected)
  } finally {
    await database.close()
  }
})
