/**
 * What can be said of docker-compose.yml and Dockerfile without a container engine, of which development machines have
 * none: that they are valid by the Compose Specification's own schema, and that their parts agree with each other and with
 * the repository. That the containers start is checked by the `compose` job of .github/workflows/ci.yml, and only there.
 */
import { existsSync, readFileSync } from 'node:fs'

import type { ValidateFunction } from 'ajv'
import { Ajv2020 } from 'ajv/dist/2020.js'
import { describe, expect, it } from 'vitest'
import { parse } from 'yaml'

interface Service {
  readonly image?: string
  readonly command?: readonly string[]
  readonly ports?: readonly string[]
  readonly environment?: Readonly<Record<string, string>>
  readonly volumes?: readonly (string | { readonly type: string; readonly source: string; readonly target: string })[]
  readonly depends_on?: Readonly<Record<string, { readonly condition: string }>>
  readonly healthcheck?: { readonly test: readonly string[] }
}

interface Composition {
  readonly services: Readonly<Record<string, Service>>
  readonly volumes: Readonly<Record<string, unknown>>
}

const root = new URL('../../', import.meta.url)
const read = (path: string): string => readFileSync(new URL(path, root), 'utf8')
const composition = parse(read('docker-compose.yml')) as Composition
const { postgres, temporal, worker } = composition.services

function composeSchema(): ValidateFunction {
  const schema = JSON.parse(read('test/support/compose-spec.schema.json')) as object
  return new Ajv2020({ strict: false, allErrors: true, validateFormats: false }).compile(schema)
}

describe('docker-compose.yml, without a container engine', () => {
  const validate = composeSchema()

  it('is valid by the schema of the Compose Specification', () => {
    validate(composition)
    expect(validate.errors).toBeNull()
  })

  it.each([
    ['an unknown key', { worker: { ...worker, depend_on: ['postgres'] } }],
    ['an unknown condition', { worker: { ...worker, depends_on: { postgres: { condition: 'healthy' } } } }],
    ['a health check of the wrong form', { worker: { ...worker, healthcheck: { test: 3 } } }],
  ])('would not be valid with %s', (_what, services) => {
    expect(validate({ ...composition, services })).toBe(false)
  })

  it('starts the worker when PostgreSQL and Temporal are healthy', () => {
    expect(worker?.depends_on).toEqual({
      postgres: { condition: 'service_healthy' },
      temporal: { condition: 'service_healthy' },
    })
    for (const service of [postgres, temporal, worker]) expect(service?.healthcheck?.test[0]).toBe('CMD')
  })

  it('publishes ports on the loopback interface only', () => {
    const ports = Object.values(composition.services).flatMap((service) => service.ports ?? [])
    expect(ports.length).toBeGreaterThan(0)
    for (const port of ports) expect(port).toMatch(/^127\.0\.0\.1:/)
  })

  it('has logical decoding on in PostgreSQL 18', () => {
    expect(postgres?.image).toMatch(/^postgres:18(\D|$)/)
    expect(postgres?.command).toContain('wal_level=logical')
  })

  it('keeps the destination, PostgreSQL and Temporal on declared named volumes', () => {
    const mounted = Object.values(composition.services)
      .flatMap((service) => service.volumes ?? [])
      .flatMap((volume) => (typeof volume === 'string' ? [volume.split(':')[0]] : []))
    expect(mounted.toSorted()).toEqual(Object.keys(composition.volumes).toSorted())
    expect(worker?.volumes).toContain('warehouse:/data')
    expect(worker?.environment?.['DESTINATIONS__WAREHOUSE__PATH']).toMatch(/^\/data\//)
  })

  it('connects the worker to the services beside it, by a configuration file that exists', () => {
    expect(worker?.environment?.['TEMPORAL_ADDRESS']).toBe('temporal:7233')
    expect(worker?.environment?.['SOURCES__SHOP__CREDENTIALS']).toContain('@postgres:5432/shop')
    const config = worker?.volumes?.find((volume) => typeof volume === 'object')
    expect(config?.target).toBe(worker?.environment?.['REPLICATION_CONFIG'])
    const defaultSource = /:-(.*)\}$/.exec(config?.source ?? '')?.[1] ?? ''
    expect(existsSync(new URL(defaultSource, root))).toBe(true)
  })
})

describe('Dockerfile, without a container engine', () => {
  /** Sources of `COPY` from the build context (not from another stage). */
  const copied = [...read('Dockerfile').matchAll(/^COPY (?!--from)(.+)$/gm)].flatMap((match) => (match[1] ?? '').split(' ').slice(0, -1))

  it('copies only what exists and what .dockerignore lets through', () => {
    const letThrough = [...read('.dockerignore').matchAll(/^!(.+)$/gm)].map((match) => match[1] ?? '')
    expect(copied.length).toBeGreaterThan(0)
    for (const path of copied) {
      expect(existsSync(new URL(path, root)), `${path} exists`).toBe(true)
      expect(
        letThrough.some((prefix) => path === prefix || path.startsWith(prefix)),
        `${path} is let through`,
      ).toBe(true)
    }
  })
})
