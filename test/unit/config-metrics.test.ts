import { describe, expect, it } from 'vitest'
import { loadConfig } from '../../src/config.ts'
import { DomainError } from '../../src/model/errors.ts'

const metricsOf = (given?: string) => loadConfig({ env: { REPLICATION_CONFIG: '/nowhere/replication.toml', ...(given === undefined ? {} : { REPLICATION_METRICS_ADDRESS: given }) } }).metrics

describe('REPLICATION_METRICS_ADDRESS', () => {
  it.each([
    [undefined, { address: '127.0.0.1:9464', isGiven: false }],
    ['', { address: '127.0.0.1:9464', isGiven: false }],
    ['off', null],
    ['9999', { address: '127.0.0.1:9999', isGiven: true }],
    ['localhost:9999', { address: '127.0.0.1:9999', isGiven: true }],
    ['0.0.0.0:80', { address: '0.0.0.0:80', isGiven: true }],
    ['[::1]:9464', { address: '[::1]:9464', isGiven: true }],
  ])('%s', (given, metrics) => {
    expect(metricsOf(given)).toEqual(metrics)
  })

  it.each(['on', 'db.example:9464', '127.0.0.1', '127.0.0.1:0', '127.0.0.1:65536', '::1:9464', '[127.0.0.1]:9464', '300.1.1.1:80'])('refuses %s, and does not repeat it', (given) => {
    const error: unknown = (() => { try { return metricsOf(given) } catch (reason) { return reason } })()
    expect(error).toBeInstanceOf(DomainError)
    expect(error).toMatchObject({ kind: 'InvalidConfig', message: expect.stringContaining('REPLICATION_METRICS_ADDRESS') as string })
    expect(String(error)).not.toContain(given === 'on' ? 'be on' : given)
  })
})
