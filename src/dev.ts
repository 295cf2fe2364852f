/**
 * `npm run dev`: PostgreSQL, Temporal and the worker, kept running until Ctrl-C, as a place to try things. The data stays
 * in `.dev`, so the next start goes on where this one ended.
 *
 * Options: `--postgres <major or URL>` chooses the version of the embedded PostgreSQL (14 to 18) or a running server.
 * `TEMPORAL_ADDRESS` names a running Temporal server.
 */
import { access, writeFile } from 'node:fs/promises'
import { join, relative, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { stringify } from 'smol-toml'
import { describeRunningServers } from './embedded/instructions.ts'
import { defaultPostgresMajor, parsePostgresMajor } from './embedded/postgres-majors.ts'
import { startPostgres, type PostgresServer } from './embedded/postgres-server.ts'
import { developmentDirectory, ensureDevelopmentDirectory } from './embedded/project-directory.ts'
import { createSampleShop, sampleTables } from './embedded/sample-shop.ts'
import { findOnPath } from './embedded/temporal-downloads.ts'
import { standardTemporalPort, standardTemporalUiPort, startTemporal, type TemporalServer } from './embedded/temporal-server.ts'
import { describeExit, startWorkerProcess } from './embedded/worker-process.ts'

const say = (line: string): void => console.log(line)

/** What has been started, in order; stopped the other way round. */
const started: { stop(): Promise<unknown> }[] = []
let stopping: Promise<void> | undefined

/** Stops everything and ends the process. Signals that come while it does change nothing. */
async function finish(exitCode: number): Promise<void> {
  stopping ??= (async () => {
    for (const part of started.reverse()) {
      await part.stop().catch((error: unknown) => {
        console.error(error instanceof Error ? error.message : String(error))
      })
    }
    process.exit(exitCode)
  })()
  await stopping
}

async function startDevelopmentPostgres(choice: string | undefined): Promise<PostgresServer> {
  if (choice?.includes('://') === true) return await startPostgres({ url: choice })
  const major = choice === undefined ? defaultPostgresMajor : parsePostgresMajor(choice)
  return await startPostgres({
    major,
    directory: join(developmentDirectory, `postgres-${major}`),
    onProgress: say,
  })
}

async function startDevelopmentTemporal(): Promise<TemporalServer> {
  return await startTemporal({
    address: process.env['TEMPORAL_ADDRESS'],
    namespace: process.env['TEMPORAL_NAMESPACE'],
    databaseFile: join(developmentDirectory, 'temporal.db'),
    port: standardTemporalPort,
    uiPort: standardTemporalUiPort,
    onProgress: say,
  })
}

/** The user's own configuration if there is one, else one for the sample database, written anew at each start. */
async function chooseConfig(sampleUrl: string): Promise<{ readonly path: string; readonly isOwn: boolean }> {
  const own = resolve(process.env['REPLICATION_CONFIG'] ?? 'replication.toml')
  if (await exists(own)) return { path: own, isOwn: true }
  const path = join(await ensureDevelopmentDirectory(), 'replication.toml')
  const config = {
    sources: { shop: { credentials: sampleUrl } },
    destinations: { warehouse: { type: 'duckdb', path: './warehouse.duckdb' } },
  }
  const heading = '# Written by `npm run dev`. A replication.toml in the project folder is used instead of it.\n'
  await writeFile(path, heading + stringify(config), { mode: 0o600 })
  return { path, isOwn: false }
}

/** The Temporal CLI as a shell finds it. A running server brings none with it, and then there may be none at all. */
async function findTemporalCli({ program }: TemporalServer): Promise<string | null> {
  if ((await findOnPath('temporal')) !== undefined) return 'temporal'
  const path = program?.path ?? join(developmentDirectory, 'bin', 'temporal')
  return (await exists(path)) ? relative(process.cwd(), path) : null
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  )
}

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { postgres: { type: 'string' } } })
  const postgres = await startDevelopmentPostgres(values.postgres)
  started.push(postgres)
  const temporal = await startDevelopmentTemporal()
  started.push(temporal)
  const sampleUrl = postgres.owned ? await createSampleShop(postgres.url) : postgres.url
  const { path: configPath, isOwn } = await chooseConfig(sampleUrl)

  say('worker: starting …')
  const worker = await startWorkerProcess({
    env: {
      REPLICATION_CONFIG: configPath,
      TEMPORAL_ADDRESS: temporal.address,
      TEMPORAL_NAMESPACE: temporal.namespace,
    },
    onLine: (line) => say(`worker: ${line}`),
  })
  started.push(worker)
  void worker.exited.then(async (exit) => {
    if (stopping !== undefined) return
    console.error(`The worker ended (${describeExit(exit)}).`)
    await finish(1)
  })

  say('')
  for (const line of describeRunningServers({
    postgresUrl: sampleUrl,
    temporalAddress: temporal.address,
    namespace: temporal.namespace,
    uiUrl: temporal.uiUrl,
    configPath: relative(process.cwd(), configPath),
    isConfigOwn: isOwn,
    taskQueue: process.env['REPLICATION_TASK_QUEUE'] ?? 'pg-replication',
    temporalProgram: await findTemporalCli(temporal),
    tableNames: sampleTables,
  })) {
    say(line)
  }
}

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(signal, () => {
    if (stopping === undefined) say('\nstopping …')
    void finish(0)
  })
}
// A timer without work: servers and worker do not keep this process alive, being alive is its work.
setInterval(() => undefined, 60_000)

main().catch(async (error: unknown) => {
  if (stopping !== undefined) return
  console.error(error instanceof Error ? error.message : String(error))
  await finish(1)
})
