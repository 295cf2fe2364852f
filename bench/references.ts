import { mkdtemp, rm } from 'node:fs/promises'
import { devNull, tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { DuckDBInstance } from '@duckdb/node-api'
import type { PostgresServer } from '../src/embedded/postgres-server.ts'
import type { PeerOptions } from './options.ts'
import { runProgram, numberIn } from './run-program.ts'
import type { BenchDatabase } from './servers.ts'

/** What we are compared with. */
export type ReferenceName = 'pg_recvlogical' | 'COPY csv' | 'DuckDB postgres' | 'dlt' | 'Debezium' | 'ingestr'

/** Seconds that one of them took. */
export type ReferenceTime = readonly [ReferenceName, number]

/** How PostgreSQL's own programs find the server. */
export interface ReferenceTarget {
  readonly postgres: PostgresServer
  readonly database: string
}

/** A slot to drain, to a position. */
export interface SlotToDrain {
  readonly slotName: string
  readonly publicationName: string
  readonly endLsn: string
}

/** Seconds that `pg_recvlogical` takes to receive a slot's changes up to `endLsn` and throw them away. */
export async function timeRecvlogical(program: string, target: ReferenceTarget, slot: SlotToDrain): Promise<number> {
  return await timePostgresProgram(program, target, [
    ...['--start', '--no-loop', '--file', devNull, '--slot', slot.slotName, '--endpos', slot.endLsn],
    ...['-o', 'proto_version=1', '-o', `publication_names=${slot.publicationName}`],
  ])
}

/** Seconds that `psql` takes to copy tables out as CSV, one after the other, and throw them away. */
export async function timeCopy(program: string, target: ReferenceTarget, tableNames: readonly string[]): Promise<number> {
  return await timePostgresProgram(program, target, ['--no-psqlrc', ...tableNames.flatMap((name) => ['--command', `COPY ${name} TO STDOUT (FORMAT csv)`])])
}

/** Seconds that DuckDB takes to copy tables through its own `postgres` extension into a new file, its checkpoint included. */
export async function duckdbReference(extensionPath: string, url: string, tableNames: readonly string[]): Promise<number> {
  const directory = await mkdtemp(join(tmpdir(), 'bench-duckdb-'))
  try {
    const instance = await DuckDBInstance.create(join(directory, 'reference.duckdb'), { allow_unsigned_extensions: 'true' })
    const connection = await instance.connect()
    await connection.run(`LOAD '${extensionPath.replaceAll("'", "''")}'; ATTACH '${url.replaceAll("'", "''")}' AS source (TYPE postgres, READ_ONLY)`)
    const startMs = performance.now()
    for (const name of tableNames) await connection.run(`CREATE TABLE ${name} AS SELECT * FROM source.public.${name}`)
    await connection.run('CHECKPOINT')
    const seconds = (performance.now() - startMs) / 1000
    connection.closeSync()
    instance.closeSync()
    return seconds
  } finally {
    await rm(directory, { recursive: true, force: true })
  }
}

/** What dlt's source is to do. */
export type DltTask = ({ readonly tag: 'changes' } & SlotToDrain) | { readonly tag: 'snapshot'; readonly tableNames: readonly string[] }

/** Seconds that dlt's `pg_replication` source takes into a DuckDB file of its own, tuned; its start and imports do not count. */
export async function timeDlt({ dltSourcePath, python }: PeerOptions, database: BenchDatabase, task: DltTask): Promise<number> {
  const directory = await mkdtemp(join(tmpdir(), 'bench-dlt-'))
  try {
    const output = await runProgram(python, [fileURLToPath(new URL('./dlt_reference.py', import.meta.url)), JSON.stringify({ ...task, sourcePath: dltSourcePath, directory, url: database.url })], {
      ...process.env,
      DLT_DATA_DIR: directory,
      RUNTIME__LOG_LEVEL: 'ERROR',
      RUNTIME__DLTHUB_TELEMETRY: 'false',
    })
    return numberIn(output, /^seconds (\d+\.\d+)$/m, 'dlt')
  } finally {
    await rm(directory, { recursive: true, force: true })
  }
}

async function timePostgresProgram(program: string, { postgres, database }: ReferenceTarget, args: readonly string[]): Promise<number> {
  const startMs = performance.now()
  await runProgram(program, ['--host', postgres.host, '--port', String(postgres.port), '--username', postgres.user, '--dbname', database, ...args], {
    PATH: process.env['PATH'],
    PGPASSWORD: postgres.password,
    PGSSLMODE: 'disable',
    LC_ALL: 'C',
  }, devNull)
  return (performance.now() - startMs) / 1000
}
