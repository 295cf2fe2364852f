import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

const run = promisify(execFile)
const root = fileURLToPath(new URL('../../', import.meta.url))

/** What a program wrote and how it ended. */
export interface ProgramResult {
  readonly exitCode: number
  readonly stdout: string
  readonly stderr: string
}

/** An empty project into which the package was installed from its tarball, as a user would; `close` deletes it. */
export interface ConsumerProject {
  readonly directory: string
  /** Paths in the tarball, relative to the package (`dist/cli.js`). */
  readonly packedFiles: readonly string[]
  /** Writes a file into the project. */
  write(path: string, content: string): Promise<void>
  /** Runs a program in the project and waits for its end, whatever its exit code. */
  run(program: string, args: readonly string[], env?: NodeJS.ProcessEnv): Promise<ProgramResult>
  close(): Promise<void>
}

/** Our environment without what `npm test` adds for its own scripts: a nested npm would take it for its configuration. */
export function environmentOutsideNpm(): NodeJS.ProcessEnv {
  const ofNpmRun = /^(npm_(package|lifecycle|command|execpath|node_execpath|config_local_prefix)|INIT_CWD$|NODE_PATH$|VITEST|NODE_ENV$)/
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !ofNpmRun.test(name)))
}

/**
 * Builds and packs the package (`npm pack` runs the build), and installs the tarball into an empty project beside those
 * of our own dependencies that a user names for themselves. Takes npm's cache where it can, else the network: minutes
 * when cold, so give its hook time.
 */
export async function installPackedPackage(ownDependencies: readonly string[]): Promise<ConsumerProject> {
  const env = environmentOutsideNpm()
  const directory = await mkdtemp(join(tmpdir(), 'packed-package-'))
  const npm = (args: readonly string[], cwd: string) => run('npm', args, { cwd, env, maxBuffer: 64 * 1024 * 1024 })
  try {
    const tarballDirectory = join(directory, 'tarball')
    const project = join(directory, 'project')
    await mkdir(tarballDirectory)
    await mkdir(project)

    await npm(['pack', '--pack-destination', tarballDirectory], root)
    const [tarball] = await readdir(tarballDirectory)
    if (tarball === undefined) throw new Error('npm pack made no tarball')
    const listing = await run('tar', ['-tzf', join(tarballDirectory, tarball)])

    const ours = JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as { dependencies: Record<string, string> }
    const dependencies = Object.fromEntries(ownDependencies.map((name) => [name, ours.dependencies[name]]))
    const manifest = {
      name: 'consumer',
      private: true,
      type: 'module',
      dependencies: { ...dependencies, 'temporal-pg-replication': `file:${join(tarballDirectory, tarball)}` },
    }
    await writeFile(join(project, 'package.json'), JSON.stringify(manifest, null, 2))
    await npm(['install', '--prefer-offline', '--no-audit', '--no-fund', '--loglevel=error'], project)

    return {
      directory: project,
      packedFiles: listing.stdout.split('\n').flatMap((path) => (path === '' ? [] : [path.replace(/^package\//, '')])),
      write: (path, content) => writeFile(join(project, path), content),
      run: (program, args, extraEnv = {}) => runToEnd(program, args, { cwd: project, env: { ...env, ...extraEnv } }),
      close: () => rm(directory, { recursive: true, force: true }),
    }
  } catch (error) {
    await rm(directory, { recursive: true, force: true })
    throw error
  }
}

async function runToEnd(
  program: string,
  args: readonly string[],
  options: { readonly cwd: string; readonly env: NodeJS.ProcessEnv },
): Promise<ProgramResult> {
  const child = spawn(program, args, { ...options, stdio: ['ignore', 'pipe', 'pipe'] })
  const [stdout, stderr, [exitCode, signal]] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    once(child, 'exit') as Promise<[number | null, string | null]>,
  ])
  if (exitCode === null) throw new Error(`${program} was ended by ${String(signal)}`)
  return { exitCode, stdout, stderr }
}
