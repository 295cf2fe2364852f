import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { homedir, tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { inspect } from 'node:util'

import { afterEach, beforeEach, describe, expect, it } from 'vitest'

import { type Config, loadConfig, maskedConfig, resolveDestination, resolveSource, taskQueuesOf } from '../../src/config.ts'
import { DomainError } from '../../src/model/errors.ts'
import type { SourceCredentials } from '../../src/postgres/credentials.ts'

let directory: string

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'config-'))
})

afterEach(() => {
  rmSync(directory, { recursive: true, force: true })
})

function load(toml: string | undefined, env: NodeJS.ProcessEnv = {}): Config {
  const path = join(directory, env['REPLICATION_CONFIG'] ?? 'replication.toml')
  mkdirSync(dirname(path), { recursive: true })
  if (toml !== undefined) writeFileSync(path, toml)
  return loadConfig({ env, cwd: directory })
}

function refusal(run: () => unknown): DomainError {
  try {
    run()
  } catch (error) {
    if (error instanceof DomainError) return error
    throw error
  }
  throw new Error('nothing was refused')
}

const WAREHOUSE = '[destinations.warehouse]\npath = "w.duckdb"\n'
const SHOP = '[sources.shop]\ncredentials = "postgresql://u:s3cr3t@db.example:5433/shop?sslmode=require&connect_timeout=300"\n'

describe('sources', () => {
  it('takes a URL apart, its parameters too', () => {
    const credentials: SourceCredentials = resolveSource(load(SHOP)).credentials
    expect({ ...credentials }).toEqual({
      host: 'db.example',
      port: 5433,
      database: 'shop',
      username: 'u',
      password: 's3cr3t',
      sslmode: 'require',
      sslrootcert: null,
      sslcert: null,
      sslkey: null,
      channelBinding: false,
      connectTimeoutSeconds: 300,
      applicationName: null,
      options: null,
    })
  })

  it('takes fields, with defaults for the rest', () => {
    const { credentials } = resolveSource(load('[sources.a]\nusername = "me"\npassword = "p"\napplication_name = "app"\n'))
    expect(credentials).toMatchObject({ host: 'localhost', port: 5432, database: 'me', username: 'me', sslmode: 'prefer', applicationName: 'app' })
  })

  it('lets a field beside the URL win over the part of the URL', () => {
    expect(resolveSource(load(`${SHOP}port = 6000\n`)).credentials).toMatchObject({ host: 'db.example', port: 6000 })
  })

  it.each([
    ['postgres://u:p@h/d', { host: 'h', port: 5432, database: 'd', username: 'u', password: 'p' }],
    ['postgresql+psycopg2://u:p@h/d', { host: 'h' }],
    ['postgresql://u:p%40ss%2F%23@h:1/d%20b', { password: 'p@ss/#', database: 'd b' }],
    ['postgresql://u:p#x@y@h/d', { password: 'p#x@y', host: 'h' }],
    ['postgresql://u@[::1]:5432/d', { host: '::1', port: 5432, password: null }],
    ['postgresql:///d?host=/var/run/postgresql&user=u&port=6', { host: '/var/run/postgresql', username: 'u', database: 'd', port: 6 }],
    ['postgresql://u@%2Fvar%2Frun/d', { host: '/var/run' }],
    ['postgresql://u@h/d?channel_binding=require&keepalives=1&options=endpoint%3Dep', { channelBinding: true, options: 'endpoint=ep' }],
  ])('understands %s', (url, expected) => {
    expect(resolveSource(load(undefined, { SOURCES__A__CREDENTIALS: url })).credentials).toMatchObject(expected)
  })

  it.each([
    ['mysql://u:s3cr3t@h/d', 'begins with postgresql://'],
    ['host=h password=s3cr3t', 'begins with postgresql://'],
    ['postgresql://u:s3/cr3t@h/d', 'port that is not a number'],
    ['postgresql://u@s3cr3t.host:port/d', 'port that is not a number'],
    ['postgresql://u:s3cr3t%@h/d', 'begins no escape in its password'],
    ['postgresql://u:s3cr3t@h:0/d', 'from 1 to 65535'],
    ['postgresql://u:s3cr3t@h,i/d', 'several hosts'],
    ['postgresql://u:s3cr3t@h/d?sslmod=require', 'nearest known one is sslmode'],
    ['postgresql://u:s3cr3t@h/d?sslmode=required', 'nearest: require'],
    ['postgresql://u:s3cr3t@h/d?connect_timeout=soon', 'whole number'],
    ['postgresql://h/d', 'lacks username'],
  ])('refuses %s without repeating it', (url, message) => {
    for (const run of [() => load(`[sources.a]\ncredentials = ${JSON.stringify(url)}\n`), () => load('', { SOURCES__A__CREDENTIALS: url })]) {
      const error = refusal(run)
      expect(error.kind).toBe('InvalidConfig')
      expect(error.message).toContain(message)
      // The folder's random name is no part of what is looked for.
      expect(`${error.message} ${error.remedy} ${inspect(error)}`.replaceAll(directory, '')).not.toMatch(/s3|cr3t/)
    }
  })

  it('names contradictory TLS options', () => {
    const tls = (lines: string): string => refusal(() => load(`[sources.a]\nusername = "u"\n${lines}\n`)).message
    expect(tls('sslmode = "verify-ca"')).toContain('needs sslrootcert')
    expect(tls('sslrootcert = "system"')).toContain('needs sslmode verify-full')
    expect(tls('sslcert = "c.crt"')).toContain('belong together')
  })
})

describe('destinations', () => {
  it('is duckdb by default, with a queue of its own for the local file', () => {
    const config = load(WAREHOUSE, { REPLICATION_TASK_QUEUE: 'q' })
    const destination = resolveDestination(config)
    expect(destination).toMatchObject({ type: 'duckdb', name: 'warehouse', path: join(directory, 'w.duckdb'), isLocalFile: true, taskQueue: 'q-warehouse' })
    expect(taskQueuesOf(config)).toEqual(['q', 'q-warehouse'])
  })

  it('leaves md: as it is, on the common queue, and refuses it when it is used', () => {
    const config = load('[destinations.w]\npath = "md:my_db"\n')
    expect(config.destinations['w']).toMatchObject({ path: 'md:my_db', isLocalFile: false, taskQueue: 'pg-replication' })
    expect(() => resolveDestination(config)).toThrow('not yet supported')
  })

  it('reads every duckdb option', () => {
    const toml = `[destinations.w]
type = "duckdb"
path = "/data/w.duckdb"
threads = 2
memoryLimit = "2GB"
tempDirectory = "~/tmp"
taskQueue = "mine"
`
    expect(resolveDestination(load(toml))).toMatchObject({
      path: '/data/w.duckdb',
      threads: 2,
      memoryLimit: '2GB',
      tempDirectory: join(homedir(), 'tmp'),
      taskQueue: 'mine',
    })
  })

  it.each([
    ['ducklake', 'type = "ducklake"\ncatalog = "sqlite:c.db"\ndataPath = "s3://b/"', 'type ducklake, which is not yet supported'],
    ['postgres', 'type = "postgres"\ncredentials = "postgresql://u:s3cr3t@h/d"', 'type postgres, which is not yet supported'],
    ['serve', 'path = "w.duckdb"\nserve = "quack:localhost:9494"', 'serve, which is not yet supported'],
  ])('accepts %s and refuses it when used', (_name, lines, message) => {
    const config = load(`[destinations.w]\n${lines}\n`)
    const error = refusal(() => resolveDestination(config))
    expect([error.kind, error.message]).toEqual(['InvalidInput', expect.stringContaining(message)])
  })

  it.each([
    ['', 'lacks path'],
    ['path = ":memory:"', 'must be a file'],
    ['path = "w"\nthreads = 0', 'whole number from 1'],
    ['path = "w"\nthreads = "2"', 'without quotes'],
    ['path = "w"\nmemoryLimit = 2', 'text in quotes'],
    ['path = "w"\nmemoryLimit = "much"', 'an amount such as'],
    ['path = ""', 'not empty'],
    ['path = "w"\nmemory_limit = "2GB"', 'nearest known one is memoryLimit'],
    ['type = "duckbd"', 'nearest: duckdb'],
    ['type = "ducklake"', 'lacks catalog, dataPath'],
  ])('refuses %j', (lines, message) => {
    const error = refusal(() => load(`[destinations.w]\n${lines}\n`))
    expect([error.kind, error.message]).toEqual(['InvalidConfig', expect.stringContaining(message)])
  })

  it('refuses one file for two destinations', () => {
    expect(refusal(() => load(`${WAREHOUSE}[destinations.b]\npath = "./w.duckdb"\n`)).message).toContain('same path')
  })
})

describe('the environment', () => {
  it('wins over the file, and adds to it', () => {
    const config = load(`${SHOP}${WAREHOUSE}`, {
      SOURCES__SHOP__PASSWORD: 'other',
      SOURCES__SHOP__PORT: '6000',
      DESTINATIONS__WAREHOUSE__PATH: 'elsewhere.duckdb',
      DESTINATIONS__WAREHOUSE__MEMORYLIMIT: '1GB',
      DESTINATIONS__WAREHOUSE__TEMP_DIRECTORY: 'tmp',
      DESTINATIONS__WAREHOUSE__THREADS: ' 3 ',
    })
    expect(resolveSource(config).credentials).toMatchObject({ host: 'db.example', port: 6000, password: 'other' })
    expect(resolveDestination(config)).toMatchObject({
      path: join(directory, 'elsewhere.duckdb'),
      memoryLimit: '1GB',
      tempDirectory: join(directory, 'tmp'),
      threads: 3,
    })
  })

  it('never sends the password of the file to the host of a URL in the environment', () => {
    const config = load(`${SHOP}sslrootcert = "ca.crt"\n`, { SOURCES__SHOP__CREDENTIALS: 'postgresql://v@other/d' })
    expect(resolveSource(config).credentials).toMatchObject({
      host: 'other',
      port: 5432,
      username: 'v',
      password: null,
      sslmode: 'require',
      sslrootcert: join(directory, 'ca.crt'),
    })
  })

  it('makes a source and a destination without any file', () => {
    const config = load(undefined, { SOURCES__MY_SHOP__CREDENTIALS: 'postgresql://u@h/d', DESTINATIONS__WAREHOUSE__PATH: 'w.duckdb' })
    expect(Object.keys(config.sources)).toEqual(['my_shop'])
    expect(resolveSource(config, 'my-shop').name).toBe('my_shop')
    expect(resolveDestination(config).name).toBe('warehouse')
  })

  it.each(['my-shop', 'My_Shop', 'my shop', 'MY_SHOP'])('finds the source %j by SOURCES__MY_SHOP__PASSWORD in any case', (name) => {
    for (const variable of ['SOURCES__MY_SHOP__PASSWORD', 'sources__my_shop__password']) {
      const config = load(`[sources.${JSON.stringify(name)}]\nusername = "u"\n`, { [variable]: 'p' })
      expect(resolveSource(config, name).credentials.password).toBe('p')
    }
  })

  it('refuses an override that could mean two sources', () => {
    const toml = '[sources.my-shop]\nusername = "u"\n[sources.my_shop]\nusername = "u"\n'
    expect(refusal(() => load(toml, { SOURCES__MY_SHOP__PASSWORD: 'p' })).message).toContain('could mean my-shop or my_shop')
  })

  it('takes an empty value for none', () => {
    expect(resolveSource(load(SHOP, { SOURCES__SHOP__PASSWORD: '' })).credentials.password).toBe('s3cr3t')
  })

  it.each([
    ['SOURCES__SHOP__PASWORD', 'nearest known one is password'],
    ['DESTINATIONS__WAREHOUSE__PAHT', 'nearest known one is path'],
    ['SOURCES__SHOP', 'names no option'],
    ['SOURCES__SHPO__PASSWORD', 'sources.shpo lacks username'],
  ])('refuses the unknown %s', (variable, message) => {
    const error = refusal(() => load(`${SHOP}${WAREHOUSE}`, { [variable]: 's3cr3t' }))
    expect(error.message).toContain(message)
    expect(error.message + error.remedy).not.toContain('s3cr3t')
  })

  it('hints at the source that a mistyped variable was meant for', () => {
    expect(refusal(() => load(SHOP, { SOURCES__SHPO__PASSWORD: 'p' })).remedy).toContain('nearest: shop')
  })
})

describe('the file', () => {
  it('is named by REPLICATION_CONFIG, and relative paths are relative to it', () => {
    const toml = `[sources.a]\nusername = "u"\nsslmode = "verify-full"\nsslrootcert = "certs/ca.crt"\nsslcert = "/c.crt"\nsslkey = "k"\n${WAREHOUSE}`
    const config = load(toml, { REPLICATION_CONFIG: 'etc/my.toml', DESTINATIONS__B__PATH: 'b.duckdb' })
    const etc = join(directory, 'etc')
    expect(resolveSource(config).credentials).toMatchObject({ sslrootcert: join(etc, 'certs/ca.crt'), sslcert: '/c.crt', sslkey: join(etc, 'k') })
    expect(resolveDestination(config, 'warehouse').path).toBe(join(etc, 'w.duckdb'))
    expect(resolveDestination(config, 'b').path).toBe(join(etc, 'b.duckdb'))
  })

  it('may be missing until something of it is used', () => {
    const config = load(undefined)
    expect(config.file.exists).toBe(false)
    for (const use of [() => resolveSource(config), () => resolveDestination(config, 'w')]) {
      const error = refusal(use)
      expect([error.kind, error.message, error.remedy]).toEqual([
        'InvalidConfig',
        expect.stringContaining('does not exist'),
        expect.stringContaining('cli -- init'),
      ])
    }
  })

  it('names the line of broken TOML without quoting it', () => {
    const error = refusal(() => load('[sources.a]\ncredentials = "postgresql://u:s3cr3t@h/d\nport = 1\n'))
    expect(error.message).toMatch(/replication\.toml:2:/)
    expect(inspect(error, { depth: 9 })).not.toContain('s3cr3t')
  })

  it.each([
    ['[source.shop]\nport = 1\n', 'nearest known one is sources'],
    ['[sources]\ncredentials = "postgresql://u:s3cr3t@h/d"\n', 'sources.credentials is not a section'],
    ['sources = 1\n', 'sources is not a section'],
    ['[sources.a.credentials]\nusername = "u"\npassword = "s3cr3t"\n', 'must be a connection URL'],
    ['[sources.a]\nusername = "u"\ndrivername = "postgresql"\n', 'drivername is not a known option'],
    ['[sources.a]\nusername = "u"\npassword = 12345\n', 'must be text in quotes'],
  ])('refuses %j', (toml, message) => {
    const error = refusal(() => load(toml))
    expect([error.kind, error.message]).toEqual(['InvalidConfig', expect.stringContaining(message)])
    expect(error.message + error.remedy).not.toMatch(/s3cr3t|12345/)
  })

  it('names file and line of an unknown key', () => {
    expect(refusal(() => load(`${SHOP}\n# a comment\npasswrod = "p"\n`)).message).toBe(
      `${join(directory, 'replication.toml')}:5: sources.shop.passwrod is not a known option; the nearest known one is password`,
    )
    expect(refusal(() => load('sources.shop.username = "u"\nsources.shop.prot = 1\n')).message).toContain('.toml:2: ')
  })

  it('tells every problem at once', () => {
    const { message } = refusal(() => load('[sources.a]\nprot = 1\n[destinations.b]\n'))
    expect(message).toContain('2 problems')
    expect(message).toContain('sources.a.prot')
    expect(message).toContain('destinations.b lacks path')
  })
})

describe('resolving names', () => {
  const two = '[sources.a]\nusername = "u"\n[sources.b]\nusername = "u"\n'

  it('takes "default" for the only one, or for the one of that name', () => {
    expect(resolveSource(load(SHOP), 'default').name).toBe('shop')
    expect(resolveSource(load(`${two}[sources.default]\nusername = "u"\n`)).name).toBe('default')
  })

  it('names the known ones where it cannot tell or does not know', () => {
    const several = refusal(() => resolveSource(load(two)))
    expect([several.kind, several.message]).toEqual(['InvalidInput', expect.stringContaining('a, b')])
    const unknown = refusal(() => resolveSource(load(SHOP), 'shpo'))
    expect([unknown.kind, unknown.message, unknown.remedy]).toEqual([
      'InvalidInput',
      expect.stringContaining('"shpo"'),
      'set source to one of: shop',
    ])
  })

  it('does not repeat a connection string that stands where a name belongs', () => {
    const error = refusal(() => resolveSource(load(SHOP), 'postgresql://u:pa55@h/d'))
    expect(error.message + error.remedy).not.toContain('pa55')
  })

  it('knows no names of Object.prototype', () => {
    expect(refusal(() => resolveSource(load(SHOP), 'constructor')).kind).toBe('InvalidInput')
  })
})

describe('what is shown of it', () => {
  const toml = `${SHOP}[destinations.a]\npath = "md:db?motherduck_token=s3cr3t"\nserveToken = "s3cr3t"
[destinations.b]\ntype = "ducklake"\ncatalog = "postgres:host=h password=s3cr3t"\ndataPath = "d"
[destinations.c]\ntype = "postgres"\ncredentials = "postgresql://u:s3cr3t@h/d"\n`

  it('masks secrets wherever they stand', () => {
    const config = load(toml)
    const shown = maskedConfig(config)
    expect(JSON.stringify(shown)).not.toContain('s3cr3t')
    expect(shown).toMatchObject({ sources: { shop: { credentials: { host: 'db.example', password: '***' } } } })
  })

  it('prints and serialises without secrets, and is frozen', () => {
    const config = load(toml)
    expect(JSON.stringify(config)).not.toContain('s3cr3t')
    expect(inspect(config, { depth: 9 })).not.toContain('s3cr3t')
    expect(Object.isFrozen(resolveSource(config).credentials)).toBe(true)
  })
})
