import { execFile } from 'node:child_process'
import { access, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { bundledNativeDirectory, installedNativeDirectory, installPostgresPackage, prepareNativeDirectory } from './postgres-package.ts'
import type { PostgresMajor } from './postgres-majors.ts'
import type { OnProgress } from './project-directory.ts'

const run = promisify(execFile)

/** A folder with at least `initdb` and `postgres`, and the version of those. */
export interface PostgresBinaries {
  readonly binDirectory: string
  readonly major: number
  /** As the program says it: `18.4`, `15.18`. */
  readonly version: string
}

/** Where binaries of one major version can come from on this machine. */
export interface PostgresSources {
  readonly major: PostgresMajor
  readonly bundledMajor: number | undefined
  readonly isCached: boolean
  readonly system: readonly PostgresBinaries[]
}

/** The chosen source of binaries. */
export type PostgresSource =
  | { readonly tag: 'bundled' }
  | { readonly tag: 'cached' }
  | { readonly tag: 'system'; readonly binaries: PostgresBinaries }
  | { readonly tag: 'install' }

/** The order of preference: the npm package at hand, the project's cache, the system's own, and only then a download. */
export function choosePostgresSource(sources: PostgresSources): PostgresSource {
  if (sources.bundledMajor === sources.major) return { tag: 'bundled' }
  if (sources.isCached) return { tag: 'cached' }
  const binaries = sources.system.find((candidate) => candidate.major === sources.major)
  return binaries === undefined ? { tag: 'install' } : { tag: 'system', binaries }
}

/** Finds binaries of one major version, downloading the npm package into `.dev` when there are none. */
export async function findPostgresBinaries(major: PostgresMajor, onProgress?: OnProgress): Promise<PostgresBinaries> {
  const bundled = await bundledNativeDirectory()
  const cached = await installedNativeDirectory(major)
  const source = choosePostgresSource({
    major,
    bundledMajor: bundled?.major,
    isCached: cached !== undefined,
    system: await findSystemPostgres(),
  })
  switch (source.tag) {
    case 'bundled':
      return await readNativeBinaries(bundled?.directory ?? '')
    case 'cached':
      return await readNativeBinaries(cached ?? '')
    case 'system':
      return source.binaries
    case 'install':
      return await readNativeBinaries(await installPostgresPackage(major, onProgress))
    default:
      return source satisfies never
  }
}

/**
 * The system's own PostgreSQL installations, newest first: Debian's, PGDG's and Homebrew's conventional folders, and
 * what `pg_config` on the PATH names. Client-only installations (no `initdb`) are left out.
 */
export async function findSystemPostgres(): Promise<readonly PostgresBinaries[]> {
  const candidates: string[] = []
  const addChildren = async (parent: string, matches: RegExp): Promise<void> => {
    const names = await readdir(parent).catch(() => [])
    for (const name of names) if (matches.test(name)) candidates.push(join(parent, name, 'bin'))
  }
  await addChildren('/usr/lib/postgresql', /^\d+$/)
  await addChildren('/usr', /^pgsql-\d+$/)
  await addChildren('/opt/homebrew/opt', /^postgresql@\d+$/)
  await addChildren('/usr/local/opt', /^postgresql@\d+$/)
  const fromPath = await run('pg_config', ['--bindir']).then(
    ({ stdout }) => stdout.trim(),
    () => undefined,
  )
  if (fromPath !== undefined) candidates.push(fromPath)

  const found = new Map<string, PostgresBinaries>()
  for (const binDirectory of candidates) {
    const binaries = await readPostgresBinaries(binDirectory).catch(() => undefined)
    if (binaries !== undefined) found.set(binDirectory, binaries)
  }
  return [...found.values()].sort((left, right) => right.major - left.major)
}

/** Reads what is in a folder of binaries; throws when `initdb` or `postgres` is missing or does not run. */
export async function readPostgresBinaries(binDirectory: string): Promise<PostgresBinaries> {
  await access(join(binDirectory, 'initdb'))
  const { stdout } = await run(join(binDirectory, 'postgres'), ['--version'])
  return { binDirectory, ...parsePostgresVersion(stdout) }
}

/** Parses `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`. */
export function parsePostgresVersion(output: string): { readonly major: number; readonly version: string } {
  const match = /\(PostgreSQL\) (?<version>(?<major>\d+)[\w.]*)/.exec(output)
  const { major, version } = match?.groups ?? {}
  if (major === undefined || version === undefined) {
    throw new Error(`not the answer of a PostgreSQL server program to --version: ${output.trim()}`)
  }
  return { major: Number(major), version }
}

async function readNativeBinaries(nativeDirectory: string): Promise<PostgresBinaries> {
  await prepareNativeDirectory(nativeDirectory)
  return await readPostgresBinaries(join(nativeDirectory, 'bin'))
}
