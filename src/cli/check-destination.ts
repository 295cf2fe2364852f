import { accessSync, constants, existsSync, statSync } from 'node:fs'
import { dirname } from 'node:path'

import { version } from '@duckdb/node-api'

import type { DuckdbDestinationConfig } from '../config.ts'
import { DomainError } from '../model/errors.ts'
import type { Check } from './check.ts'
import { openReadOnly } from './show.ts'

type Finding = Omit<Check, 'subject'>

/** Checks a DuckDB destination without changing anything: folder, file, lock, version. */
export async function checkDestination(destination: DuckdbDestinationConfig): Promise<readonly Finding[]> {
  const engine: Finding = { name: 'DuckDB', state: 'ok', message: `DuckDB ${version()}, task queue ${destination.taskQueue}`, remedy: null }
  if (!destination.isLocalFile) {
    const message = `${destination.path.split('?')[0] ?? ''} is not a local file: checked when it is used`
    return [engine, { name: 'file', state: 'warning', message, remedy: null }]
  }
  if (!existsSync(destination.path)) return [engine, checkFolder(destination.path)]
  return [engine, checkWritable(destination.path), await checkOpens(destination)]
}

/** The file will be made: by whom may it be? */
function checkFolder(path: string): Finding {
  let folder = dirname(path)
  while (!existsSync(folder) && dirname(folder) !== folder) folder = dirname(folder)
  if (!statSync(folder).isDirectory()) {
    return { name: 'file', state: 'failure', message: `${folder} is not a folder`, remedy: 'give another path' }
  }
  return canWrite(folder)
    ? { name: 'file', state: 'ok', message: `${path} will be made`, remedy: null }
    : { name: 'file', state: 'failure', message: `${path} cannot be made: ${folder} is not writable`, remedy: `let this user write to ${folder}, or give another path` }
}

function checkWritable(path: string): Finding {
  if (!statSync(path).isFile()) return { name: 'file', state: 'failure', message: `${path} is not a file`, remedy: 'give the path of a file' }
  // DuckDB writes its log and temporary files beside the file.
  return canWrite(path) && canWrite(dirname(path))
    ? { name: 'file', state: 'ok', message: `${path} is writable`, remedy: null }
    : { name: 'file', state: 'failure', message: `${path} or its folder is not writable`, remedy: `let this user write to ${dirname(path)}` }
}

async function checkOpens(destination: DuckdbDestinationConfig): Promise<Finding> {
  try {
    const instance = await openReadOnly(destination)
    instance.closeSync()
    return { name: 'lock', state: 'ok', message: 'no other process has the file open', remedy: null }
  } catch (error) {
    if (!(error instanceof DomainError)) throw error
    // Just what a running worker does; somebody's open shell would hold it up, and looks the same from here.
    const isLocked = error.message.includes('is being written')
    return isLocked
      ? { name: 'lock', state: 'warning', message: error.message, remedy: 'nothing, if that is the worker; else close the program that has the file open' }
      : { name: 'lock', state: 'failure', message: error.message, remedy: error.remedy }
  }
}

function canWrite(path: string): boolean {
  try {
    accessSync(path, constants.W_OK)
    return true
  } catch {
    return false
  }
}
