import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { chown, mkdir, mkdtemp, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { promisify } from 'node:util'
import type { ProcessUser } from './supervisor.ts'

const run = promisify(execFile)

/**
 * The user that PostgreSQL must run as, `undefined` for "as we are".
 *
 * PostgreSQL refuses to run as root, so as root (containers, CI) another existing account is used: `postgres`, the
 * account that called sudo, or `nobody`. The account must exist, as initdb looks its name up.
 */
export async function findServerUser(): Promise<ProcessUser | undefined> {
  if (process.getuid?.() !== 0) return undefined
  for (const name of ['postgres', process.env['SUDO_USER'], 'nobody']) {
    if (name === undefined || name === '' || name === 'root') continue
    try {
      const [uid, gid] = await Promise.all([run('id', ['-u', name]), run('id', ['-g', name])])
      return { uid: Number(uid.stdout.trim()), gid: Number(gid.stdout.trim()) }
    } catch {
      // No such account here; try the next.
    }
  }
  throw new Error(
    'PostgreSQL does not run as root, and there is no account `postgres` or `nobody` to run it as: create one (useradd --system postgres), or run this command as another user',
  )
}

/** Whether that user can enter the folder: its own permissions and those of every folder above it. */
export async function canEnter(directory: string, user: ProcessUser | undefined): Promise<boolean> {
  try {
    await run('/bin/sh', ['-c', 'cd "$0"', directory], { cwd: '/', ...user })
    return true
  } catch {
    return false
  }
}

/**
 * A new temporary folder that belongs to the server's user and that it can reach.
 *
 * Root's TMPDIR may lie in a private folder, so the common ones are tried after it.
 */
export async function makeServerTemporaryDirectory(user: ProcessUser | undefined): Promise<string> {
  for (const parent of new Set([tmpdir(), '/tmp', '/var/tmp'])) {
    if (!(await canEnter(parent, user))) continue
    const directory = await mkdtemp(join(parent, 'pg-replication-'))
    if (user !== undefined) await chown(directory, user.uid, user.gid)
    return directory
  }
  throw new Error("no temporary folder that PostgreSQL's user can enter: set TMPDIR to one")
}

/**
 * Makes the given folder for the server's user, or, where that user cannot reach it (a checkout under /root), a folder
 * under /var/tmp whose name is derived from the given one, so that the next start finds the same. Returns which.
 */
export async function makeServerDirectory(wanted: string, user: ProcessUser | undefined): Promise<string> {
  const parent = dirname(wanted)
  await mkdir(parent, { recursive: true })
  if (user === undefined || (await canEnter(parent, user))) {
    await mkdir(wanted, { recursive: true })
    if (user !== undefined) await chown(wanted, user.uid, user.gid)
    return wanted
  }
  const digest = createHash('sha256').update(wanted).digest('hex').slice(0, 12)
  const substitute = join('/var/tmp', `pg-replication-${digest}-${basename(wanted)}`)
  await mkdir(substitute, { recursive: true, mode: 0o700 })
  const { uid } = await stat(substitute)
  if (uid !== 0 && uid !== user.uid) throw new Error(`${substitute} belongs to another user: remove it`)
  await chown(substitute, user.uid, user.gid)
  return substitute
}
