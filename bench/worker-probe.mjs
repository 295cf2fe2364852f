/**
 * Loaded into the measured worker (`NODE_OPTIONS=--import …`). Writes when the process ends:
 *
 * - `BENCH_PROBE_PATH`: how late the event loop was, how long DuckDB's last checkpoints took (of files that are closed), and each commit at the
 *   destination: when its rows became visible (milliseconds of Unix time), the LSN that is applied then, and how long its transaction took;
 * - `BENCH_PROFILE_PATH`: a V8 CPU profile of the main thread (Node's own `--cpu-prof` may not stand in NODE_OPTIONS).
 */
import { writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { Session } from 'node:inspector'
import { monitorEventLoopDelay, performance } from 'node:perf_hooks'
import { isMainThread } from 'node:worker_threads'

const { BENCH_PROBE_PATH: probePath, BENCH_PROFILE_PATH: profilePath, BENCH_PROJECT: project } = process.env
const APPLIED_LSN = /^UPDATE _replication\.checkpoints SET .*applied_lsn = greatest\(applied_lsn, (\d+)::UBIGINT\)/

if (isMainThread && profilePath !== undefined) profile(profilePath)
if (isMainThread && probePath !== undefined && project !== undefined) probe(probePath, project)

function profile(path) {
  const session = new Session()
  session.connect()
  session.post('Profiler.enable')
  session.post('Profiler.setSamplingInterval', { interval: 1000 })
  session.post('Profiler.start')
  process.once('exit', () => {
    session.post('Profiler.stop', (error, answer) => {
      if (error === null) writeFileSync(path, JSON.stringify(answer.profile))
    })
  })
}

function probe(path, from) {
  const delay = monitorEventLoopDelay({ resolution: 10 })
  delay.enable()
  const commits = []
  let checkpointMs = 0
  const { DuckDBConnection } = createRequire(from)('@duckdb/node-api')
  const { run } = DuckDBConnection.prototype
  const open = new WeakMap()
  DuckDBConnection.prototype.run = async function (sql, ...rest) {
    if (sql === 'BEGIN TRANSACTION') open.set(this, { startMs: performance.now(), lsn: null })
    const transaction = open.get(this)
    const lsn = APPLIED_LSN.exec(sql)?.[1]
    if (transaction !== undefined && lsn !== undefined) transaction.lsn = lsn
    const startMs = performance.now()
    const result = await run.call(this, sql, ...rest)
    if (sql.endsWith('CHECKPOINT')) checkpointMs += performance.now() - startMs
    if (sql === 'COMMIT' && transaction?.lsn != null) {
      const nowMs = performance.now()
      commits.push([performance.timeOrigin + nowMs, transaction.lsn, nowMs - transaction.startMs])
    }
    return result
  }
  process.once('exit', () => {
    writeFileSync(path, JSON.stringify({ eventLoopDelayP99Ms: delay.percentile(99) / 1e6, eventLoopDelayMaxMs: delay.max / 1e6, checkpointMs, commits }))
  })
}
