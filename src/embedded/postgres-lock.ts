import { execFile } from 'node:child_process'
import { readFile, readlink, realpath, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)

/** What `postmaster.pid` in a data directory says about the server that wrote it. */
export type PostmasterLock =
  | { readonly tag: 'absent' }
  /** Left by a crash: that process has ended. PostgreSQL recognises this itself. */
  | { readonly tag: 'dead'; readonly pid: number }
  /** Left by a crash, and its process id was given to another program since. PostgreSQL would refuse to start. */
  | { readonly tag: 'reused'; readonly pid: number }
  /** A server runs in this directory. */
  | { readonly tag: 'running'; readonly pid: number }

/**
 * Reads and judges the lock file of a data directory.
 *
 * PostgreSQL only asks whether a process with that id exists; after a reboot or in a restarted container small ids are
 * soon given again, and it would refuse to start ("lock file already exists"). Here the process must also be a server
 * of this directory: it works in it (Linux), or names it in its command line (macOS).
 *
 * @see https://www.postgresql.org/docs/18/storage-file-layout.html
 */
export async function readPostmasterLock(dataDirectory: string): Promise<PostmasterLock> {
  const text = await readFile(join(dataDirectory, 'postmaster.pid'), 'utf8').catch(() => undefined)
  if (text === undefined) return { tag: 'absent' }
  const pid = Number.parseInt(text, 10)
  if (!Number.isSafeInteger(pid) || pid <= 0) return { tag: 'reused', pid: 0 }
  if (!isAlive(pid)) return { tag: 'dead', pid }
  return { tag: (await isServerOf(pid, await realpath(dataDirectory))) ? 'running' : 'reused', pid }
}

/** Makes way for a new server: removes a lock that a crash left; throws when a server does run there. */
export async function clearStaleLock(dataDirectory: string): Promise<void> {
  const lock = await readPostmasterLock(dataDirectory)
  switch (lock.tag) {
    case 'absent':
    case 'dead': // PostgreSQL checks it for surviving children too, so it is left to it.
      return
    case 'reused':
      await rm(join(dataDirectory, 'postmaster.pid'), { force: true })
      return
    case 'running':
      throw new Error(
        `a PostgreSQL server (process ${lock.pid}) already runs in ${dataDirectory}: stop the program that started it, or run: kill -INT ${lock.pid}`,
      )
    default:
      lock satisfies never
  }
}

/** Whether a process with this id exists, whoever owns it. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}

async function isServerOf(pid: number, dataDirectory: string): Promise<boolean> {
  if (process.platform === 'linux') {
    const [cwd, commandLine] = await Promise.all([
      readlink(`/proc/${pid}/cwd`).catch(() => undefined),
      readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => ''),
    ])
    const program = commandLine.split('\0')[0] ?? ''
    if (cwd !== undefined) return cwd === dataDirectory && program.endsWith('postgres')
    return commandLine.split('\0').includes(dataDirectory)
  }
  return await run('ps', ['-o', 'command=', '-p', String(pid)]).then(
    ({ stdout }) => stdout.includes('postgres') && stdout.includes(dataDirectory),
    () => false,
  )
}
