import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { availableParallelism, cpus, loadavg, platform, release, totalmem } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { DuckDBInstance } from '@duckdb/node-api'
import { projectRoot } from '../src/embedded/project-directory.ts'
import type { BenchServers } from './servers.ts'

const run = promisify(execFile)

/** Where and with what the figures were taken. */
export interface Machine {
  readonly time: string
  readonly commit: string | null
  readonly cores: number
  readonly cpu: string
  readonly memoryBytes: number
  readonly system: string
  /** Before the first workload: over 0.5 or so, something else ran beside. */
  readonly loadAverage: number
  readonly versions: Readonly<Record<'node' | 'postgresql' | 'temporalServer' | 'temporalSdk' | 'duckdb' | 'package', string>>
}

/** Names the machine in general terms: nothing of its name, user or paths. */
export async function describeMachine({ postgres, temporal }: BenchServers): Promise<Machine> {
  const ownPackage = await readVersion(join(projectRoot, 'package.json'))
  return {
    time: new Date().toISOString(),
    commit: await run('git', ['rev-parse', '--short', 'HEAD'], { cwd: projectRoot }).then(
      ({ stdout }) => stdout.trim(),
      () => null,
    ),
    cores: availableParallelism(),
    cpu: cpus()[0]?.model ?? 'unknown',
    memoryBytes: totalmem(),
    system: `${platform()} ${release()}`,
    loadAverage: loadavg()[0] ?? 0,
    versions: {
      node: process.versions.node,
      postgresql: postgres.version,
      temporalServer: temporal.program?.serverVersion ?? 'unknown',
      temporalSdk: await readVersion(join(projectRoot, 'node_modules', '@temporalio', 'worker', 'package.json')),
      duckdb: await readDuckdbVersion(),
      package: ownPackage,
    },
  }
}

/** One line for people. */
export function machineText({ cores, memoryBytes, versions, loadAverage }: Machine): string {
  const { node, postgresql, temporalServer, duckdb } = versions
  return `${cores} cores, ${Math.round(memoryBytes / 2 ** 30)} GB, load ${loadAverage.toFixed(1)}; PostgreSQL ${postgresql}, DuckDB ${duckdb}, Temporal server ${temporalServer}, Node.js ${node}`
}

async function readVersion(path: string): Promise<string> {
  const parsed: unknown = JSON.parse(await readFile(path, 'utf8'))
  return typeof parsed === 'object' && parsed !== null && 'version' in parsed ? String(parsed.version) : 'unknown'
}

async function readDuckdbVersion(): Promise<string> {
  const instance = await DuckDBInstance.create()
  const connection = await instance.connect()
  const reader = await connection.runAndReadAll('SELECT version()')
  connection.closeSync()
  instance.closeSync()
  const version = reader.getRowsJson()[0]?.[0]
  return typeof version === 'string' ? version.replace(/^v/, '') : 'unknown'
}
