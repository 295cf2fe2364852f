import { readFileSync } from 'node:fs'

import { Command, CommanderError } from 'commander'
import colors from '../terminal-colors.ts'

import { addConfig, addInit } from './config.ts'
import { addControlVerbs } from './control.ts'
import { addDoctor } from './doctor.ts'
import { describeFailure } from './failure.ts'
import { addDrop } from './one-shot.ts'
import { addSchedule } from './schedule.ts'
import { addShow } from './show.ts'
import { addStart } from './start.ts'
import { addStatus } from './status.ts'
import { addVerify } from './verify.ts'

function createProgram(isJson: boolean): Command {
  const program = new Command('temporal-pg-replication')
    .description('replicate PostgreSQL into DuckDB by Temporal workflows')
    .version(readVersion())
    .option('--json', 'print one JSON document and nothing else')
    .addHelpText('after', '\nExit code: 0, 1 (failed) or 2 (usage). Temporal is found by TEMPORAL_* and temporal.toml; docs/configuration.md has the rest.')
  for (const add of [addInit, addDoctor, addStart, addStatus, addShow, addControlVerbs, addVerify, addDrop, addSchedule, addConfig]) add(program)
  for (const command of withSubcommands(program)) {
    command.exitOverride().showHelpAfterError(false).showSuggestionAfterError(true)
    // An error is shown once, by `main`; help goes where it was asked for.
    command.configureOutput({
      writeErr: (text) => {
        if (!isJson && !text.startsWith('error:')) process.stderr.write(text)
      },
    })
  }
  return program
}

function withSubcommands(command: Command): readonly Command[] {
  return [command, ...command.commands.flatMap(withSubcommands)]
}

function readVersion(): string {
  const manifest: unknown = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'))
  return typeof manifest === 'object' && manifest !== null && 'version' in manifest ? String(manifest.version) : 'unknown'
}

/**
 * Runs one command line: answers on stdout, errors on stderr (with `--json`: both as one JSON document on stdout). Never throws;
 * sets the exit code of the process: 0, 1 (failed) or 2 (usage).
 */
export async function runCommandLine(args: readonly string[]): Promise<void> {
  const isJson = args.includes('--json')
  try {
    await createProgram(isJson).parseAsync([...args], { from: 'user' })
  } catch (error) {
    if (error instanceof CommanderError && error.exitCode === 0) return
    const { shown, exitCode } = describeFailure(error)
    process.exitCode = exitCode
    // Without a verb: the help, which commander has printed, says it all.
    if (error instanceof CommanderError && error.code === 'commander.help' && !isJson) return
    if (isJson) process.stdout.write(`${JSON.stringify({ error: shown }, null, 2)}\n`)
    else process.stderr.write(`${colors.red(shown.type)}: ${shown.message}\n${shown.remedy}\n`)
    if (process.env['DEBUG'] !== undefined && error instanceof Error) process.stderr.write(`${error.stack ?? ''}\n`)
  }
}
