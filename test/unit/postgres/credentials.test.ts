import { inspect } from 'node:util'
import { describe, expect, it } from 'vitest'
import { DomainError } from '../../../src/model/errors.ts'
import { parseCredentials, withSslMode, type CredentialFields } from '../../../src/postgres/credentials.ts'
import { clientConfigOf, startupOptions } from '../../../src/postgres/session.ts'

describe('credentials', () => {
  it('reads a URL', () => {
    expect(parseCredentials('postgresql://replicator:s%40cr%2Fet@db.example:6432/shop?sslmode=require&connect_timeout=300&application_name=etl')).toMatchObject({
      host: 'db.example', port: 6432, database: 'shop', username: 'replicator', password: 's@cr/et', sslmode: 'require', connectTimeoutSeconds: 300, applicationName: 'etl',
    })
  })

  it('fills in libpq\'s defaults', () => {
    expect(parseCredentials('postgres://me@localhost')).toMatchObject({ host: 'localhost', port: 5432, database: 'me', password: null, sslmode: 'prefer' })
  })

  it.each([
    ['postgresql://me@%2Fvar%2Frun%2Fpg/shop', { host: '/var/run/pg', database: 'shop' }],
    ['postgresql://me@/shop?host=/var/run/pg&port=5433', { host: '/var/run/pg', port: 5433, database: 'shop' }],
    ['postgresql://me@[::1]:5433/shop', { host: '::1', port: 5433 }],
    ['postgresql://me:a%2Fb@h/my db', { password: 'a/b', database: 'my db' }],
    ['postgresql+psycopg2://me@h/db', { host: 'h' }],
    ['postgresql://me@h/db?sslmode=verify-ca&sslrootcert=/a+b.crt', { sslrootcert: '/a+b.crt' }],
    ['postgresql://h/db?user=me&password=pw&dbname=other', { username: 'me', password: 'pw', database: 'other' }],
    ['postgresql://me@h/db?sslmode=require&channel_binding=require&target_session_attrs=any', { channelBinding: true }],
  ] as const)('reads %s', (url, expected) => {
    expect(parseCredentials(url)).toMatchObject(expected)
  })

  it('lets fields win over the URL\'s parts', () => {
    expect(parseCredentials({ credentials: 'postgresql://me@h/db?sslmode=disable', password: 'pw', sslmode: 'require', port: 1234 })).toMatchObject({
      host: 'h', username: 'me', password: 'pw', sslmode: 'require', port: 1234,
    })
  })

  it.each<[string | CredentialFields, string]>([
    ['mysql://me:planted@h/db', 'not a PostgreSQL URL'],
    ['host=h password=planted', 'not a PostgreSQL URL'],
    ['postgresql://me:plan?ted@h/db', 'not a valid URL'],
    ['postgresql://me:planted@h:port/db', 'not a valid URL'],
    ['postgresql://me:planted@h/db?sslmod=require', 'unknown credentials parameter "sslmod"'],
    ['postgresql://me:planted@h/db?sslmode=always', 'unknown sslmode "always"'],
    ['postgresql://me:planted@h/db?sslmode=verify-ca', 'needs sslrootcert'],
    ['postgresql://me:planted@h/db?sslcert=/c', 'belong together'],
    ['postgresql://me:planted@h1,h2/db', ''],
    [{ host: 'h', password: 'planted' }, 'no username'],
    [{ username: 'me', port: '70000', password: 'planted' }, 'port is not'],
    [{ username: 'me', sslrootcert: 'system', password: 'planted' }, 'needs sslmode verify-full'],
    [{ username: 'me', pasword: 'planted' }, 'unknown credentials parameter "pasword"'],
  ])('refuses %j without repeating a password', (input, message) => {
    let error: unknown
    try {
      parseCredentials(input)
    } catch (thrown) {
      error = thrown
    }
    if (!(error instanceof DomainError)) throw new Error('not refused')
    expect(error.kind).toBe('InvalidConfig')
    expect(error.message).toContain(message)
    expect(inspect(error, { depth: 10 })).not.toContain('planted')
  })

  it('names the nearest known parameter', () => {
    expect(() => parseCredentials('postgresql://me@h/db?sslmod=require')).toThrow(expect.objectContaining({ remedy: 'Did you mean sslmode?' }) as Error)
  })

  it('shows no password when printed or serialised, copies included', () => {
    const credentials = parseCredentials('postgresql://me:planted@h/db')
    for (const shown of [credentials, withSslMode(credentials, 'require')]) {
      expect(shown.password).toBe('planted')
      expect(inspect(shown) + JSON.stringify({ shown })).not.toContain('planted')
    }
  })
})

describe('session configuration', () => {
  it('pins settings behind the user\'s own options, so that ours win', () => {
    const { options } = clientConfigOf(parseCredentials('postgresql://me@h/db?options=-c%20TimeZone%3DAsia/Tokyo'))
    expect(options).toMatch(/^-c TimeZone=Asia\/Tokyo .*-c TimeZone=UTC /)
    expect(options).toContain('-c default_transaction_isolation=read\\ committed')
  })

  it('has no lock timeout on a replication connection, where waiting is the work', () => {
    expect(startupOptions({ replication: true })).toContain('-c lock_timeout=0')
    expect(startupOptions()).toContain('-c lock_timeout=30000')
    expect(clientConfigOf(parseCredentials('postgresql://me@h/db'), { replication: true })).toMatchObject({ replication: 'database', keepAlive: true })
  })

  it('uses no TLS on a unix socket', () => {
    expect(clientConfigOf(parseCredentials('postgresql://me@/db?host=/run/pg&sslmode=require')).ssl).toBe(false)
  })
})
