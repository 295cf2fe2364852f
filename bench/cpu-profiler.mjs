/**
 * Loaded into the worker by `--profile` (Node's own `--cpu-prof` may not stand in NODE_OPTIONS): samples the main thread from its start
 * and writes a V8 CPU profile when it ends.
 */
import { writeFileSync } from 'node:fs'
import { Session } from 'node:inspector'
import { isMainThread } from 'node:worker_threads'

const path = process.env.BENCH_PROFILE_PATH
if (isMainThread && path !== undefined) {
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
