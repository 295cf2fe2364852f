import { execFile, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

const run = promisify(execFile)

/** A program of its own that has started a development server, to be ended in some way. */
export interface ServerHolder {
  readonly process: ChildProcess
  /** Every process that it and its servers consist of. */
  readonly pids: readonly number[]
  /** Its TMPDIR. */
  readonly temporaryDirectory: string
}

/** Starts hold-server.ts and returns when it says that it has come as far as `what` asks. */
export async function startHolder(what: string): Promise<ServerHolder> {
  const temporaryDirectory = await mkdtemp(join(tmpdir(), 'holder-'))
  await chmod(temporaryDirectory, 0o777)
  const holder = spawn(
    process.execPath,
    ['--import', import.meta.resolve('tsx'), fileURLToPath(new URL('./hold-server.ts', import.meta.url)), what],
    { stdio: ['pipe', 'pipe', 'pipe'], env: { ...process.env, TMPDIR: temporaryDirectory } },
  )
  let errors = ''
  holder.stderr.on('data', (chunk: Buffer) => (errors += chunk.toString()))
  const lines = createInterface({ input: holder.stdout })
  const [line] = (await Promise.race([once(lines, 'line'), once(holder, 'exit').then(() => ['ended'])])) as [string]
  if (line !== 'holding') throw new Error(`the holder did not get there: ${line} ${errors}`)
  return { process: holder, pids: await listDescendants(holder.pid ?? 0), temporaryDirectory }
}

/** Ends the holder by a signal, by `process.exit` or by an exception that nobody catches. */
export async function endHolder(holder: ServerHolder, how: NodeJS.Signals | 'exit' | 'throw'): Promise<void> {
  const ended = once(holder.process, 'exit')
  if (how === 'exit' || how === 'throw') holder.process.stdin?.write(`${how}\n`)
  else holder.process.kill(how)
  await ended
}

/** Which of its processes still run, and which temporary files are left. */
export async function listRemains(holder: ServerHolder): Promise<readonly string[]> {
  const running = new Set((await listProcesses()).map((entry) => entry.pid))
  const files = await readdir(holder.temporaryDirectory).catch(() => [])
  return [
    ...holder.pids.filter((pid) => running.has(pid)).map((pid) => `process ${pid}`),
    // tsx has a cache there.
    ...files.filter((name) => !name.startsWith('tsx-')),
  ]
}

/** Waits until nothing is left of a holder that has ended; throws with what is, after a minute. */
export async function expectNoRemains(holder: ServerHolder): Promise<void> {
  const deadline = Date.now() + 60_000
  for (;;) {
    const remains = await listRemains(holder)
    if (remains.length === 0) break
    if (Date.now() > deadline) throw new Error(`left behind: ${remains.join(', ')}`)
    await delay(50)
  }
  await rm(holder.temporaryDirectory, { recursive: true, force: true })
}

async function listDescendants(root: number): Promise<readonly number[]> {
  const all = await listProcesses()
  const found = [root]
  for (const parent of found) {
    found.push(...all.filter((entry) => entry.parent === parent).map((entry) => entry.pid))
  }
  return found
}

/** Without zombies: they have ended, and only wait for somebody to take notice. */
async function listProcesses(): Promise<readonly { readonly pid: number; readonly parent: number }[]> {
  const { stdout } = await run('ps', ['-A', '-o', 'pid=,ppid=,stat='])
  return stdout
    .trim()
    .split('\n')
    .map((line) => line.trim().split(/\s+/))
    .filter(([, , state]) => state?.startsWith('Z') !== true)
    .map(([pid, parent]) => ({ pid: Number(pid), parent: Number(parent) }))
}
