import { randomBytes } from 'node:crypto'
import { appendFileSync } from 'node:fs'
import { mkdtemp, readdir, rename, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { Client } from '@temporalio/client'
import { stringify } from 'smol-toml'
import { readLogTail } from '../embedded/log-tail.ts'
import { isAlive } from '../embedded/postgres-lock.ts'
import { defaultPostgresMajor, parsePostgresMajor } from '../embedded/postgres-majors.ts'
import { startPostgres, type PostgresServer } from '../embedded/postgres-server.ts'
import { ensureDevelopmentDirectory } from '../embedded/project-directory.ts'
import { startTemporal, type TemporalServer } from '../embedded/temporal-server.ts'
import { startWorkerProcess, type WorkerProcess } from '../embedded/worker-process.ts'
import { connectClient, readTemporalSettings } from '../temporal-connection.ts'

/** Everything that the demo plays on. */
export interface Stage {
  readonly postgres: PostgresServer
  readonly temporal: TemporalServer
  readonly client: Client
  /** Its own, so that no other worker on a shared server takes its work. */
  readonly taskQueue: string
  readonly configPath: string
  readonly warehousePath: string
  readonly workerLogPath: string
  /** The environment that a worker and the CLI need, and nothing of the user's own replications. */
  readonly environment: Readonly<Record<string, string>>
}

/** What the demo is given instead of starting its own. */
export interface StageOptions {
  /** A major version of the embedded PostgreSQL, or the URL of a database to use. */
  readonly postgres: string | undefined
  /** Called with each part as soon as it is there, so that it is stopped whatever comes next. */
  readonly onStarted: (part: { stop(): Promise<unknown> }) => void
  readonly onProgress: (line: string) => void
}

const RUN_PREFIX = 'run-'

/** Starts servers, writes the configuration. The worker is not started yet. */
export async function setStage(options: StageOptions): Promise<Stage> {
  const { onStarted, onProgress } = options
  const postgres = await startDemoPostgres(options.postgres, onProgress)
  onStarted(postgres)
  const givenAddress = process.env['TEMPORAL_ADDRESS']
  const isGiven = givenAddress !== undefined && givenAddress !== ''
  const temporal = await startTemporal({ address: isGiven ? givenAddress : undefined, namespace: process.env['TEMPORAL_NAMESPACE'], onProgress })
  onStarted(temporal)

  const directory = await makeRunDirectory()
  const configPath = join(directory, 'replication.toml')
  const config = { sources: { shop: { credentials: postgres.url } }, destinations: { warehouse: { type: 'duckdb', path: './warehouse.duckdb' } } }
  await writeFile(configPath, `# Written by \`npm run demo\`.\n${stringify(config)}`, { mode: 0o600 })
  const emptyPath = join(directory, 'temporal.toml')
  await writeFile(emptyPath, '[profile.default]\n')

  const taskQueue = `demo-${randomBytes(4).toString('hex')}`
  const environment = {
    // The user's own connection to some Temporal is not for a server that was started here.
    ...blank(isGiven ? /^(SOURCES|DESTINATIONS)__/i : /^((SOURCES|DESTINATIONS)__|TEMPORAL_)/i),
    ...(isGiven ? {} : { TEMPORAL_CONFIG_FILE: emptyPath }),
    REPLICATION_CONFIG: configPath,
    REPLICATION_TASK_QUEUE: taskQueue,
    TEMPORAL_ADDRESS: temporal.address,
    TEMPORAL_NAMESPACE: temporal.namespace,
    ...(uiOf(temporal) === null ? {} : { TEMPORAL_UI_URL: uiOf(temporal) ?? '' }),
  }
  // Never closed: a call that is being retried at Ctrl-C would throw out of a timer. It ends with the process.
  const client = await connectClient(readTemporalSettings({ ...process.env, ...environment }))
  return {
    postgres,
    temporal,
    client,
    taskQueue,
    configPath,
    warehousePath: join(directory, 'warehouse.duckdb'),
    workerLogPath: join(directory, 'worker.log'),
    environment,
  }
}

/** Starts a worker in a process of its own; its log goes to a file. */
export async function startWorker(stage: Stage): Promise<WorkerProcess> {
  return await startWorkerProcess({ env: stage.environment, onLine: (line) => appendFileSync(stage.workerLogPath, `${line}\n`) })
}

/** The last lines that workers have logged. */
export async function readWorkerLog(stage: Stage): Promise<string> {
  return await readLogTail(stage.workerLogPath, 12)
}

/** The workflow's page in the Temporal UI; null where no UI is known. */
export function workflowUrl(stage: Stage, workflowId: string): string | null {
  const base = uiOf(stage.temporal)
  const namespace = encodeURIComponent(stage.temporal.namespace)
  return base === null ? null : `${base.replace(/\/+$/, '')}/namespaces/${namespace}/workflows/${encodeURIComponent(workflowId)}`
}

/** Moves the DuckDB file and the log to where they can be found, and removes the rest. Returns the file's new path. */
export async function keepResults(stage: Stage): Promise<string> {
  const directory = await ensureDevelopmentDirectory('demo')
  const path = join(directory, 'warehouse.duckdb')
  await rm(`${path}.wal`, { force: true })
  await rename(stage.warehousePath, path)
  await rename(stage.workerLogPath, join(directory, 'worker.log'))
  await removeRun(stage)
  return path
}

/** Removes the run's folder. */
export async function removeRun(stage: Stage): Promise<void> {
  await rm(dirname(stage.configPath), { recursive: true, force: true })
}

async function startDemoPostgres(choice: string | undefined, onProgress: (line: string) => void): Promise<PostgresServer> {
  if (choice?.includes('://') === true) return await startPostgres({ url: choice })
  const major = choice === undefined ? defaultPostgresMajor : parsePostgresMajor(choice)
  return await startPostgres({ major, onProgress })
}

/** A folder of this run's own. Those of runs that were killed go: nothing in them is worth keeping. */
async function makeRunDirectory(): Promise<string> {
  const parent = await ensureDevelopmentDirectory('demo')
  for (const name of await readdir(parent)) {
    const pid = Number(name.slice(RUN_PREFIX.length).split('-')[0])
    if (name.startsWith(RUN_PREFIX) && !isAlive(pid)) await rm(join(parent, name), { recursive: true, force: true })
  }
  return await mkdtemp(join(parent, `${RUN_PREFIX}${process.pid}-`))
}

/** Empty variables count as not set, for the configuration and for Temporal. */
function blank(pattern: RegExp): Record<string, string> {
  return Object.fromEntries(Object.keys(process.env).filter((name) => pattern.test(name)).map((name) => [name, '']))
}

function uiOf(temporal: TemporalServer): string | null {
  const given = process.env['TEMPORAL_UI_URL']
  return temporal.uiUrl ?? (given === undefined || given === '' ? null : given)
}
