// Runs in a process of its own, started by supervisor.ts. It owns the servers, so that they end whatever happens to the
// program that wanted them: an IPC channel ties the two, the operating system closes it when that program ends in any
// way (kill -9 too), and then everything here is stopped and the temporary folders are removed. That needs nothing but
// a pipe, so it holds on Linux and macOS alike. Plain JavaScript, because it must start fast, without a loader.
//
// States: open --(channel closed, or SIGTERM/SIGINT/SIGHUP)--> closing --(every child ended, folders removed)--> exit.
import { spawn } from 'node:child_process'
import { openSync, closeSync, rmSync } from 'node:fs'

/** @type {Map<number, { child: import("node:child_process").ChildProcess, stopSignals: { signal: NodeJS.Signals, graceMs: number }[], ended: Promise<void> }>} */
const running = new Map()
const removeAtEnd = new Set()
let closing = false

function tell(message) {
  if (process.connected) process.send(message, undefined, undefined, () => {})
}

function run({ id, command, args, cwd, env, uid, gid, stopSignals, output }) {
  let log
  try {
    if (output.tag === 'file') log = openSync(output.path, output.append ? 'a' : 'w', 0o644)
    const sink = log ?? 'inherit'
    const child = spawn(command, args, { cwd, env, uid, gid, stdio: ['ignore', sink, sink] })
    const ended = new Promise((resolve) => {
      child.once('error', (error) => {
        if (child.pid === undefined) {
          running.delete(id)
          tell({ tag: 'failed', id, message: error.message, code: error.code })
          resolve()
        }
      })
      child.once('exit', (code, signal) => {
        running.delete(id)
        tell({ tag: 'exited', id, code, signal })
        resolve()
      })
    })
    running.set(id, { child, stopSignals, ended })
    if (child.pid !== undefined) tell({ tag: 'started', id, pid: child.pid })
  } catch (error) {
    tell({ tag: 'failed', id, message: error.message, code: error.code })
  } finally {
    if (log !== undefined) closeSync(log)
  }
}

async function stop(id) {
  const entry = running.get(id)
  if (entry === undefined) return
  const { child, stopSignals, ended } = entry
  for (const { signal, graceMs } of stopSignals) {
    child.kill(signal)
    let timer
    const timeout = new Promise((resolve) => {
      timer = setTimeout(resolve, graceMs)
    })
    await Promise.race([ended, timeout])
    clearTimeout(timer)
    if (!running.has(id)) return
  }
  child.kill('SIGKILL')
  await ended
}

async function close() {
  if (closing) return
  closing = true
  await Promise.all([...running.keys()].map(stop))
  for (const path of removeAtEnd) {
    try {
      // Retried: processes of a killed server may write for an instant longer than the server itself.
      rmSync(path, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 })
    } catch {
      // It is temporary data and nobody is left to be told.
    }
  }
  process.exit(0)
}

process.on('message', (message) => {
  switch (message.tag) {
    case 'run':
      if (!closing) run(message)
      break
    case 'signal':
      running.get(message.id)?.child.kill(message.signal)
      break
    case 'stop':
      void stop(message.id)
      break
    case 'removeAtEnd':
      removeAtEnd.add(message.path)
      break
  }
})
process.on('disconnect', () => void close())
for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP']) process.on(signal, () => void close())
tell({ tag: 'ready' })
