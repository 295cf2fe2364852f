import { spawn } from 'node:child_process'
import { openSync, closeSync } from 'node:fs'
import { devNull } from 'node:os'
import type { PostgresServer } from '../src/embedded/postgres-server.ts'
import { TABLE } from './workloads.ts'

/** A reference may take this long; then it is ended and the run fails. */
const TIMEOUT_MS = 300_000

/** How PostgreSQL's own programs find the server. */
export interface ReferenceTarget {
  readonly postgres: PostgresServer
  readonly database: string
}

/** Seconds that `pg_recvlogical` takes to receive a slot's changes up to `endLsn` and throw them away. */
export async function timeRecvlogical(
  program: string,
  target: ReferenceTarget,
  slot: { readonly slotName: string; readonly publicationName: string; readonly endLsn: string },
): Promise<number> {
  return await timeProgram(program, target, [
    ...['--start', '--no-loop', '--file', devNull, '--slot', slot.slotName, '--endpos', slot.endLsn],
    ...['-o', 'proto_version=1', '-o', `publication_names=${slot.publicationName}`],
  ])
}

/** Seconds that `psql` takes to copy the table out as CSV and throw it away. */
export async function timeCopy(program: string, target: ReferenceTarget): Promise<number> {
  return await timeProgram(program, target, ['--no-psqlrc', '--command', `COPY ${TABLE} TO STDOUT (FORMAT csv)`])
}

/** Runs a client program to its end, its output thrown away by the kernel, and takes the time. */
async function timeProgram(program: string, { postgres, database }: ReferenceTarget, args: readonly string[]): Promise<number> {
  const nowhere = openSync(devNull, 'w')
  const startMs = performance.now()
  const child = spawn(program, ['--host', postgres.host, '--port', String(postgres.port), '--username', postgres.user, '--dbname', database, ...args], {
    env: { PATH: process.env['PATH'], PGPASSWORD: postgres.password, PGSSLMODE: 'disable', LC_ALL: 'C' },
    stdio: ['ignore', nowhere, 'pipe'],
    timeout: TIMEOUT_MS,
  })
  closeSync(nowhere)
  let complaints = ''
  child.stderr?.on('data', (chunk: Buffer) => {
    complaints += chunk.toString()
  })
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', resolve)
  })
  const seconds = (performance.now() - startMs) / 1000
  if (code !== 0) throw new Error(`${program} ended with ${code === null ? 'a signal' : `exit code ${code}`}: ${complaints.trim()}`)
  return seconds
}
