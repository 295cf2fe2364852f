/**
 * Loaded before a worker (`NODE_OPTIONS=--import …`): kills it by SIGKILL at the statement, file operation or answer to Temporal that the file `KILL_POINT`
 * names, when that file is there: a `KillPoint` of `kill-lane.ts`. Plain JavaScript, as it is loaded before anything that reads TypeScript.
 */
import fs from 'node:fs'
import { createRequire, syncBuiltinESMExports } from 'node:module'

const ORDER = process.env.KILL_POINT
/** What a killed statement may still do at the server. */
const DURING_MS = 200

const { existsSync, readFileSync, renameSync, openSync, rmSync, fdatasync, writeSync } = fs

function pointOn(on, text) {
  if (!existsSync(ORDER)) return null
  const point = JSON.parse(readFileSync(ORDER, 'utf8'))
  return point.on === on && new RegExp(point.matching, 's').test(text) ? point : null
}

function die() {
  // Who waits for the kill knows by this that it came about here.
  renameSync(ORDER, `${ORDER}.done`)
  process.kill(process.pid, 'SIGKILL')
}

/** Around one asynchronous step of its own. */
async function around(point, step) {
  if (point?.moment === 'before') die()
  if (point?.moment === 'during') setTimeout(die, DURING_MS)
  const result = await step()
  if (point?.moment === 'after') die()
  return result
}

/** A statement counts when its transaction commits; one outside of a transaction commits by itself. */
class Transactions {
  #on
  /** What each connection's running transaction has met. */
  #open = new WeakMap()

  constructor(on) {
    this.#on = on
  }

  run(connection, text, step) {
    const point = pointOn(this.#on, text)
    if (/^BEGIN\b/i.test(text)) this.#open.set(connection, null)
    const isInside = this.#open.has(connection)
    if (isInside && /^(COMMIT|ROLLBACK)$/i.test(text)) {
      const met = this.#open.get(connection)
      this.#open.delete(connection)
      return met !== null && text === 'COMMIT' ? around(met, step) : step()
    }
    if (point === null) return step()
    if (!isInside || point.moment === 'during') return around(point, step)
    this.#open.set(connection, point)
    return step()
  }
}

function watchSource(require) {
  const pg = require('pg')
  const transactions = new Transactions('source')
  const { query } = pg.Client.prototype
  pg.Client.prototype.query = function (...given) {
    const text = typeof given[0] === 'string' ? given[0] : given[0]?.text
    // Queries that report by a callback are streams; none of them commits.
    const isPromised = typeof text === 'string' && typeof given.at(-1) !== 'function' && typeof given[0].submit !== 'function'
    return isPromised ? transactions.run(this, text, () => query.apply(this, given)) : query.apply(this, given)
  }
}

function watchDestination(require) {
  const { DuckDBConnection } = require('@duckdb/node-api')
  const transactions = new Transactions('destination')
  for (const name of ['run', 'runAndReadAll']) {
    const original = DuckDBConnection.prototype[name]
    DuckDBConnection.prototype[name] = function (sql, ...rest) {
      return transactions.run(this, sql.replace(/^BEGIN TRANSACTION/, 'BEGIN'), () => original.call(this, sql, ...rest))
    }
  }
}

function watchFiles() {
  const paths = new Map()
  fs.openSync = (path, ...rest) => {
    const descriptor = openSync(path, ...rest)
    paths.set(descriptor, String(path))
    return descriptor
  }
  const watched = (original, describe) => (...given) => {
    const point = pointOn('file', describe(...given))
    if (point?.moment === 'before') die()
    const result = original(...given)
    if (point?.moment === 'after') die()
    return result
  }
  fs.rmSync = watched(rmSync, (path) => `rm ${path}`)
  fs.writeSync = watched(writeSync, (descriptor, _data, _offset, _length, position) => `write ${paths.get(descriptor)} at ${position}`)
  fs.fdatasync = (descriptor, done) => {
    const point = pointOn('file', `sync ${paths.get(descriptor)}`)
    if (point?.moment === 'before') die()
    fdatasync(descriptor, (error) => {
      if (point?.moment === 'after') die()
      done(error)
    })
  }
  syncBuiltinESMExports()
}

function watchWorkflows(require) {
  const requireOfWorker = createRequire(require.resolve('@temporalio/worker'))
  const { native } = requireOfWorker('@temporalio/core-bridge')
  const { coresdk } = requireOfWorker('@temporalio/proto')
  const { workerCompleteWorkflowActivation: complete } = native
  native.workerCompleteWorkflowActivation = (worker, completion) => {
    const { successful } = coresdk.workflow_completion.WorkflowActivationCompletion.decodeDelimited(new Uint8Array(completion))
    const names = (successful?.commands ?? []).map((command) => {
      const answer = command.updateResponse?.accepted ? ' accepted' : command.updateResponse?.completed ? ' completed' : ''
      return `${command.variant}${answer} ${command.scheduleActivity?.activityType ?? ''}`
    })
    return around(pointOn('workflow', names.join('; ')), () => complete(worker, completion))
  }
}

// Processes that the worker starts inherit the options, and the point is not theirs.
if (ORDER !== undefined && /worker\.[jt]s$/.test(process.argv[1] ?? '')) {
  const require = createRequire(import.meta.url)
  watchSource(require)
  watchDestination(require)
  watchFiles()
  watchWorkflows(require)
}
