import { mkdirSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'

import type { Command } from 'commander'
import { stringify } from 'smol-toml'

import { configPath, loadConfig, maskedConfig } from '../config.ts'
import { starterFile } from '../config/starter.ts'
import { readTemporalSettings } from '../temporal-connection.ts'
import { answer } from './answer.ts'
import { CliError } from './failure.ts'

/** `init`: the starter file. */
export function addInit(program: Command): void {
  answer(program.command('init').description('write a commented starter replication.toml; never overwrites one'), async () => {
    const path = configPath({ env: process.env })
    mkdirSync(dirname(path), { recursive: true })
    try {
      // For its owner only: a password will stand in it.
      writeFileSync(path, starterFile(), { flag: 'wx', mode: 0o600 })
    } catch (error) {
      if (!(error instanceof Error && 'code' in error)) throw error
      throw new CliError(
        error.code === 'EEXIST'
          ? { type: 'AlreadyExists', message: `${path} already exists and was left as it is`, remedy: 'edit it, or set REPLICATION_CONFIG to another path' }
          : { type: 'InvalidConfig', message: `${path} cannot be written (${String(error.code)})`, remedy: 'run it in a folder that you can write to' },
      )
    }
    return { document: { path }, text: `wrote ${path}: fill in [sources.*] and [destinations.*], then npm run cli -- doctor` }
  })
}

/** `config`: what is in force. */
export function addConfig(program: Command): void {
  answer(program.command('config').description('print the configuration in force, with secrets masked'), async () => {
    const { address, namespace } = readTemporalSettings(process.env)
    const document = { temporal: { address, namespace }, ...maskedConfig(loadConfig({ env: process.env })) }
    return { document, text: stringify(withoutNulls(document)).trimEnd() }
  })
}

/** TOML has no null. */
function withoutNulls(table: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const entries = Object.entries(table).flatMap(([key, value]): [string, unknown][] => {
    if (value === null) return []
    return [[key, typeof value === 'object' ? withoutNulls({ ...value }) : value]]
  })
  return Object.fromEntries(entries)
}
