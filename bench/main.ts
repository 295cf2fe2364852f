/**
 * `npm run bench`: how fast changes and copies come through, the whole way: PostgreSQL → walsender → worker → committed DuckDB rows, as
 * `syncChanges` workflows that a client starts; beside PostgreSQL's own programs in the same run. See docs/performance.md.
 *
 * It starts its own PostgreSQL, Temporal server and worker and stops them. Exit code 1 when a row is wrong or a run fails, whatever its
 * speed; 2 for wrong arguments. Figures below the aims are told, and are no failure.
 */
import { mkdir, writeFile } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { projectRoot } from '../src/embedded/project-directory.ts'
import { drawCharts } from './charts.ts'
import { describeMachine, machineText } from './machine.ts'
import { measure } from './measure.ts'
import { NOTHING_MEASURED, type Measurement, type RunOptions } from './measure-sync.ts'
import { parseBenchOptions, USAGE, type BenchOptions } from './options.ts'
import { renderReports, summarize, type WorkloadReport } from './report.ts'
import { startServers, stopServers } from './servers.ts'
import { workloadsOf } from './workloads.ts'

/** A run of one workload that takes longer hangs; the servers end with this process. */
const RUN_LIMIT_MS = 60 * 60_000

const say = (line: string): void => {
  process.stderr.write(`${line}\n`)
}

async function main(options: BenchOptions): Promise<boolean> {
  const workloads = workloadsOf(options).filter(({ name }) => options.workloads.includes(name))
  limitTime(workloads.length * options.runCount * RUN_LIMIT_MS)
  const servers = await startServers({ postgres: options.postgres, needsTls: workloads.some(({ name }) => name === 'W4') }, say)
  try {
    const machine = await describeMachine(servers)
    say(machineText(machine))
    const reports: WorkloadReport[] = []
    for (const workload of workloads) {
      const runs: Measurement[] = []
      for (let run = 1; run <= options.runCount; run++) {
        const measured = await measureOrFail({ servers, workload, run, profileDirectory: options.profileDirectory, peers: options.peers, onProgress: say })
        say(`${workload.name}: run ${run}: ${runText(measured)}`)
        runs.push(measured)
      }
      reports.push(summarize(workload, runs, reports))
    }
    const path = resolve(options.jsonPath ?? join(projectRoot, 'bench', 'results', `${machine.time.replaceAll(/[:.]/g, '-')}.json`))
    await mkdir(dirname(path), { recursive: true })
    await writeFile(path, `${JSON.stringify({ machine, isQuick: options.isQuick, isProfiled: options.profileDirectory !== null, workloads: reports }, null, 2)}\n`)
    if (options.chartDirectory !== null) await writeCharts(options.chartDirectory, reports)
    console.log(renderReports(reports))
    console.log(machineText(machine))
    console.log(`as JSON: ${path}`)
    return reports.every(({ faults }) => faults.length === 0)
  } finally {
    await stopServers(servers)
  }
}

/** A run that fails is told with the others' figures: they are not lost with it. */
async function measureOrFail(options: RunOptions): Promise<Measurement> {
  try {
    return await measure(options)
  } catch (error) {
    return { ...NOTHING_MEASURED, faults: [`it failed: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`] }
  }
}

function runText({ faults, seconds, references, activities, closeSeconds, figures }: Measurement): string {
  const parts = [
    ...(seconds === null ? [] : [`${seconds.toFixed(2)} s`]),
    ...references.map(({ name, seconds: times }) => `${name} ${times.map((time) => time.toFixed(2)).join(', ')}`),
    ...activities.map(({ activity, seconds: time }) => `${activity} ${time.toFixed(2)}`),
    ...(closeSeconds === null ? [] : [`closed after ${closeSeconds.toFixed(1)}`]),
    ...Object.entries(figures).map(([name, value]) => `${name} ${value.toPrecision(3)}`),
    ...faults,
  ]
  return parts.join('; ')
}

async function writeCharts(directory: string, reports: readonly WorkloadReport[]): Promise<void> {
  await mkdir(directory, { recursive: true })
  for (const { name, svg } of drawCharts(reports)) await writeFile(join(directory, `${name}.svg`), svg)
}

/** Whatever hangs ends here; supervised servers and the worker end with this process. */
function limitTime(limitMs: number): void {
  setTimeout(() => {
    say(`the benchmark took longer than ${limitMs / 60_000} minutes and was ended`)
    process.exit(1)
  }, limitMs).unref()
}

let options: BenchOptions | null
try {
  options = parseBenchOptions(process.argv.slice(2))
} catch (error) {
  console.error(error instanceof Error ? error.message : String(error))
  console.error(USAGE)
  process.exit(2)
}
if (options === null) {
  console.log(USAGE)
  process.exit(0)
}
try {
  process.exit((await main(options)) ? 0 : 1)
} catch (error) {
  console.error(error instanceof Error ? (error.stack ?? error.message) : String(error))
  process.exit(1)
}
