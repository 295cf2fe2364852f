import { randomBytes } from 'node:crypto'
import { chmod, chown, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { readLogTail } from './log-tail.ts'
import type { PostgresBinaries } from './postgres-binaries.ts'
import type { OnProgress } from './project-directory.ts'
import type { ProcessUser, Supervisor } from './supervisor.ts'

/** The superuser of a development server. */
export const postgresUser = 'postgres'

/** What a data directory needs to be used again by a later start; kept in it, readable by its owner only. */
const notesSchema = z.object({ password: z.string().min(1), port: z.number().int().optional() })

/** The superuser's password, and the port of the last start, so that a URL once copied goes on working. */
export type PostgresDataNotes = Readonly<z.infer<typeof notesSchema>>

/** Where and as whom to make a database cluster. */
export interface PostgresDataOptions {
  readonly supervisor: Supervisor
  readonly binaries: PostgresBinaries
  readonly directory: string
  readonly user: ProcessUser | undefined
  readonly logFile: string
  readonly onProgress?: OnProgress | undefined
}

/**
 * Makes the database cluster when the directory has none and returns its notes.
 *
 * The cluster is made beside its place and renamed when it is complete: a crash in between leaves no half cluster.
 * Throws when the cluster there is of another major version or was not made by this function.
 */
export async function ensurePostgresData(options: PostgresDataOptions): Promise<PostgresDataNotes> {
  const { directory, binaries } = options
  const existing = await readFile(join(directory, 'PG_VERSION'), 'utf8').catch(() => undefined)
  if (existing === undefined) return await createPostgresData(options)
  if (Number.parseInt(existing, 10) !== binaries.major) {
    throw new Error(
      `${directory} holds a cluster of PostgreSQL ${existing.trim()}, not ${binaries.major}: choose that version, or remove the folder`,
    )
  }
  const text = await readFile(notesPath(directory), 'utf8').catch(() => 'null')
  const notes = notesSchema.safeParse(JSON.parse(text))
  if (!notes.success) {
    throw new Error(`${directory} was not made by this project's development servers: give another folder`)
  }
  return notes.data
}

/** Replaces the notes of a data directory. */
export async function writePostgresNotes(directory: string, notes: PostgresDataNotes, user: ProcessUser | undefined): Promise<void> {
  await writeFile(notesPath(directory), JSON.stringify(notes), { mode: 0o600 })
  // Owned by the server like all else there, or a base backup of the directory would fail on it.
  if (user !== undefined) await chown(notesPath(directory), user.uid, user.gid)
}

/** The server programs' environment: nothing that would change their locale, place or port. */
export function postgresEnvironment(): Readonly<Record<string, string | undefined>> {
  const { PATH, HOME, TZ, TMPDIR } = process.env
  return { PATH, HOME, TZ, TMPDIR, LC_ALL: 'C' }
}

async function createPostgresData(options: PostgresDataOptions): Promise<PostgresDataNotes> {
  const { supervisor, binaries, directory, user, logFile } = options
  options.onProgress?.(`PostgreSQL ${binaries.version}: making a database cluster …`)
  const staging = `${directory}.new`
  const passwordFile = `${directory}.password`
  const notes = { password: randomBytes(12).toString('hex') }
  await rm(staging, { recursive: true, force: true })
  await rm(passwordFile, { force: true })
  try {
    await writeFile(passwordFile, notes.password, { mode: 0o600, flag: 'wx' })
    if (user !== undefined) await chown(passwordFile, user.uid, user.gid)
    const initdb = await supervisor.run({
      command: join(binaries.binDirectory, 'initdb'),
      args: [
        `--pgdata=${staging}`,
        `--username=${postgresUser}`,
        `--pwfile=${passwordFile}`,
        '--auth=scram-sha-256',
        '--encoding=UTF8',
        '--locale=C',
        '--no-sync',
        '--no-instructions',
      ],
      cwd: '/',
      env: postgresEnvironment(),
      user,
      output: { tag: 'file', path: logFile },
    })
    const exit = await supervisor.whileReferenced(initdb.exited)
    if (exit.code !== 0) {
      throw new Error(`initdb failed (${exit.signal ?? `exit code ${exit.code}`}): ${await readLogTail(logFile)}`)
    }
    await writePostgresNotes(staging, notes, user)
    await chmod(staging, 0o700)
    await rename(staging, directory)
  } finally {
    await rm(passwordFile, { force: true })
    await rm(staging, { recursive: true, force: true })
  }
  return notes
}

function notesPath(directory: string): string {
  return join(directory, 'development-server.json')
}
