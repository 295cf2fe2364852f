import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { DuckDBInstance } from '@duckdb/node-api'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'

import { starterFile } from '../../../src/config/starter.ts'
import { documentOf, run } from '../../support/command-line.ts'

const VERBS = [
  ...['init', 'doctor', 'start', 'status', 'show', 'pause', 'resume', 'stop', 'retry', 'recover', 'add', 'remove', 'resync', 'approve'],
  ...['verify', 'drop', 'schedule', 'config'],
]
/** Nothing listens there. */
const NO_TEMPORAL = '127.0.0.1:1'

let directory: string
let file: string

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'cli-'))
  file = join(directory, 'replication.toml')
  vi.stubEnv('REPLICATION_CONFIG', file)
  vi.stubEnv('TEMPORAL_ADDRESS', NO_TEMPORAL)
})

afterEach(() => {
  rmSync(directory, { recursive: true, force: true })
})

/** vitest types its matchers as `any`. */
const matching = (pattern: RegExp): unknown => expect.stringMatching(pattern)
const checkLike = (check: Readonly<Record<string, unknown>>): unknown => expect.arrayContaining([expect.objectContaining(check)])
const error = (type: string, message: RegExp): unknown => ({ error: { type, message: matching(message), remedy: matching(/./) } })

describe('the command line', () => {
  it('lists every verb in its help, and each takes --json', async () => {
    const help = await run('--help')
    expect(help.exitCode).toBe(0)
    for (const verb of VERBS) {
      expect(help.stdout).toMatch(new RegExp(`^ {2}${verb} `, 'm'))
      const verbHelp = await run(verb, ...(verb === 'schedule' ? ['create'] : []), '--help')
      expect([verb, verbHelp.exitCode, verbHelp.stdout]).toEqual([verb, 0, matching(/--json/)])
    }
  })

  it('prints its version', async () => {
    expect(await run('--version')).toMatchObject({ exitCode: 0, stdout: matching(/^\d+\.\d+\.\d+\n$/) })
  })

  it.each([
    [['nonsense'], /unknown command 'nonsense'/],
    [['status', '--nonsense'], /unknown option/],
    [['status', 'a', 'b'], /too many arguments/],
    [['add', 'id'], /required option '--tables/],
    [['start', '--publication', 'p'], /which slotName/],
    [['start', '--slot', 's'], /which publicationName/],
    [['start', '--input', 'no json'], /not JSON/],
    [['start', '--input', '[]'], /not a JSON object/],
    [['start', '--input', '@/nonexistent'], /cannot be read/],
    [['start', '--target-batch-size', 'many'], /whole number/],
    [['start', '--tables', ','], /names no table/],
    [['start', '--columns', '{'], /must be JSON/],
    [['schedule', 'create', '--slot', 's', '--publication', 'p'], /when is it to run/],
    [['schedule', 'create', '--every', 'often'], /like 90s/],
    [['schedule', 'create', '--slot', 's', '--publication', 'p', '--every', '5m', '--cron', '* * * * *'], /exclude each other/],
    [['schedule', 'create', '--slot', 's', '--publication', 'p', '--every', '5m', '--timezone', 'UTC'], /that of --cron/],
    [['schedule', 'create', '--slot', 's', '--publication', 'p', '--jitter', '30s'], /when is it to run/],
    [['schedule', 'create', '--every', '5m', '--jitter', 'some'], /like 90s/],
    [['status', '--watch'], /--watch prints for people/],
    [['pause', 'id', '--timeout', 'soon'], /number of seconds/],
    [[], /no verb/],
  ])('refuses %j as wrong usage: exit code 2', async (args, message) => {
    const outcome = await run(...args, '--json')
    expect([outcome.exitCode, documentOf(outcome), outcome.stderr]).toEqual([2, error('Usage', message), ''])
  })

  it('says what is wrong on stderr for people, once', async () => {
    const outcome = await run('nonsense')
    expect(outcome).toMatchObject({ exitCode: 2, stdout: '' })
    expect(outcome.stderr).toMatch(/^Usage: unknown command 'nonsense'\n.*help.*\n$/)
  })

  it.each([[[]], [['schedule']]])('shows help for %j: exit code 2', async (args) => {
    expect(await run(...args)).toMatchObject({ exitCode: 2, stderr: matching(/Commands:/) })
  })

  it.each([
    [['status']],
    [['status', 'id']],
    [['pause', 'id']],
    [['start', '--slot', 's', '--publication', 'p']],
    [['drop', 'id']],
    [['schedule', 'list']],
  ])('%j names the address where Temporal does not answer: exit code 1', async (args) => {
    const outcome = await run(...args, '--json')
    expect([outcome.exitCode, documentOf(outcome)]).toEqual([1, error('TemporalUnavailable', /127\.0\.0\.1:1$/)])
  })

  it('refuses a credential in the input before Temporal sees it', async () => {
    const outcome = await run('start', '--slot', 's', '--publication', 'p', '--source', 'postgresql://u:s3cr3t@h/d', '--json')
    expect([outcome.exitCode, documentOf(outcome)]).toEqual([1, error('InvalidInput', /connection string/)])
    expect(outcome.stdout).not.toContain('s3cr3t')
  })

  it('hides a password that stands in a misspelled option', async () => {
    const outcome = await run('start', '--credential=postgresql://u:s3cr3t@h/d')
    expect(outcome.exitCode).toBe(2)
    expect(outcome.stderr).not.toContain('s3cr3t')
  })
})

describe('init', () => {
  it('writes the starter for its owner only, and never overwrites one', async () => {
    expect(documentOf(await run('init', '--json'))).toEqual({ path: file })
    expect(readFileSync(file, 'utf8')).toBe(starterFile())
    expect(statSync(file).mode & 0o777).toBe(0o600)
    writeFileSync(file, 'mine')
    const again = await run('init', '--json')
    expect([again.exitCode, documentOf(again)]).toEqual([1, error('AlreadyExists', /left as it is/)])
    expect(readFileSync(file, 'utf8')).toBe('mine')
  })
})

describe('config', () => {
  it('prints what is in force without secrets', async () => {
    writeFileSync(file, '[sources.shop]\ncredentials = "postgresql://u:s3cr3t@h/d"\n[destinations.w]\npath = "w.duckdb"\n')
    vi.stubEnv('SOURCES__SHOP__PORT', '6543')
    const json = await run('config', '--json')
    expect(documentOf(json)).toMatchObject({
      sources: { shop: { credentials: { host: 'h', port: 6543, password: '***' } } },
      destinations: { w: { path: join(directory, 'w.duckdb') } },
    })
    const text = await run('config')
    expect(text.stdout).toContain('port = 6543')
    expect(json.stdout + text.stdout).not.toContain('s3cr3t')
  })

  it('names file, line and nearest key of a broken one', async () => {
    writeFileSync(file, '[destinations.w]\npaht = "w.duckdb"\n')
    expect(documentOf(await run('config', '--json'))).toEqual(error('InvalidConfig', /replication\.toml:2: destinations\.w\.paht .* path/))
  })
})

describe('doctor', () => {
  it('tells every problem with its remedy: exit code 1', async () => {
    writeFileSync(file, '[sources.shop]\nprot = 1\n[destinations.w]\npath = "w.duckdb"\n')
    const outcome = await run('doctor', '--json')
    expect(outcome.exitCode).toBe(1)
    const document = documentOf(outcome)
    expect(document).toMatchObject({ ok: false })
    expect(document).toHaveProperty('checks', checkLike({ subject: 'config', state: 'failure', message: matching(/nearest known one is port/) }))
    expect(document).toHaveProperty('checks', checkLike({ subject: 'destination w', name: 'file', state: 'ok' }))
    expect(document).toHaveProperty('checks', checkLike({ subject: 'temporal', state: 'failure', message: matching(/127\.0\.0\.1:1$/) }))
    expect((await run('doctor')).stdout).toContain('what to do:')
  })

  it('says that there is no configuration, and how to begin', async () => {
    const document = documentOf(await run('doctor', '--json'))
    expect(document).toHaveProperty('checks', checkLike({ subject: 'config', state: 'failure', remedy: matching(/init/) }))
  })
})

describe('show', () => {
  beforeEach(() => {
    writeFileSync(file, '[destinations.w]\npath = "w.duckdb"\n')
  })

  it('says that the file is not there yet', async () => {
    const outcome = await run('show', '--json')
    expect([outcome.exitCode, documentOf(outcome)]).toEqual([1, error('DestinationFailed', /does not exist yet/)])
  })

  it('names the known destinations', async () => {
    expect(documentOf(await run('show', 'v', '--json'))).toEqual(error('InvalidInput', /no destination "v"/))
  })

  it('shows tables with rows and positions', async () => {
    const instance = await DuckDBInstance.create(join(directory, 'w.duckdb'))
    const connection = await instance.connect()
    await connection.run(`
      CREATE TABLE public_notes (id INTEGER);
      CREATE SCHEMA shop; CREATE TABLE shop."Order Items" AS SELECT * FROM range(3);
      CREATE TABLE shop."Order Items__history" AS SELECT * FROM range(5);
      CREATE SCHEMA _replication;
      CREATE TABLE _replication.tables AS SELECT '{"writeMode": "merge", "otherModes": ["scd2"]}' AS definition, 'shop' AS target_schema, 'Order Items' AS target_table, 'public' AS source_schema,
        'Order Items' AS source_table, 'merge' AS write_mode, 'streaming' AS state, '16/B374D848' AS last_commit_lsn;
      CREATE TABLE _replication.checkpoints AS SELECT 'shop' AS source, 's' AS slot_name, 97500059720::UBIGINT AS applied_lsn, now() AS updated_at;`)
    connection.closeSync()
    instance.closeSync()
    expect(documentOf(await run('show', '--json'))).toEqual({
      destination: 'w',
      path: join(directory, 'w.duckdb'),
      pipelines: [{ source: 'shop', slotName: 's', appliedLsn: '16/B374D848', updatedAt: matching(/^\d{4}-/) }],
      tables: [
        { table: 'main.public_notes', rows: 0, lastCommitLsn: null, sourceTable: null, writeMode: null, state: null },
        { table: 'shop.Order Items', rows: 3, lastCommitLsn: '16/B374D848', sourceTable: 'public.Order Items', writeMode: 'merge', state: 'streaming' },
        { table: 'shop.Order Items__history', rows: 5, lastCommitLsn: '16/B374D848', sourceTable: 'public.Order Items', writeMode: 'scd2', state: 'streaming' },
      ],
    })
    expect((await run('show')).stdout).toMatch(/shop\.Order Items.*3.*merge.*streaming.*16\/B374D848/)
  })

  it('says who has the file open, and what to do', async () => {
    // Another process: DuckDB's lock does not hold against its own.
    const script = `
      const { DuckDBInstance } = await import(${JSON.stringify(import.meta.resolve('@duckdb/node-api'))})
      globalThis.instance = await DuckDBInstance.create(${JSON.stringify(join(directory, 'w.duckdb'))})
      console.log('open'); setInterval(() => undefined, 1000)`
    const holder = spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: ['ignore', 'pipe', 'inherit'] })
    try {
      await once(holder.stdout, 'data')
      const outcome = await run('show', '--json')
      expect([outcome.exitCode, documentOf(outcome)]).toEqual([1, error('DestinationFailed', new RegExp(`is being written: .*pid ${holder.pid ?? ''}`))])
      expect(outcome.stdout).toContain('pause or stop')
      expect(documentOf(await run('doctor', '--json'))).toHaveProperty('checks', checkLike({ name: 'lock', state: 'warning' }))
    } finally {
      holder.kill('SIGKILL')
      await once(holder, 'exit')
    }
  })

  it('says that a file of another kind is none', async () => {
    writeFileSync(join(directory, 'w.duckdb'), 'not a database')
    expect(documentOf(await run('show', '--json'))).toEqual(error('DestinationFailed', /cannot be opened/))
  })
})
