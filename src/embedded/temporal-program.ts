import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import type { OnProgress } from './project-directory.ts'

const run = promisify(execFile)

/** The Temporal CLI, which holds the development server. */
export interface TemporalProgram {
  readonly path: string
  /** The CLI's own version and that of the server in it: `1.9.1`, `1.32.0`. */
  readonly cliVersion: string
  readonly serverVersion: string
}

/** One place that may have the program. */
export interface TemporalProgramSource {
  /** As it stands in messages: "`temporal` on the PATH". */
  readonly name: string
  /** Slow and bound to fail again soon after a failure: then it is tried after all others. */
  readonly failedLately?: boolean
  /** The program's path, or undefined when this place does not have it; may throw, the next place is then tried. */
  readonly find: (onProgress: OnProgress) => Promise<string | undefined>
}

/** Activity pause and workflow updates need it. */
export const minimumServerVersion = '1.28.0'

/** The order in which places are tried: as given, those that failed lately last. */
export function orderSources(sources: readonly TemporalProgramSource[]): readonly TemporalProgramSource[] {
  return [...sources.filter((source) => source.failedLately !== true), ...sources.filter((source) => source.failedLately === true)]
}

/**
 * Tries each source in order and returns the first program that runs and is new enough.
 *
 * Throws one error that lists what was tried, why it did not do, and what to do.
 */
export async function findTemporalProgram(
  sources: readonly TemporalProgramSource[],
  onProgress: OnProgress,
  inspect: (path: string) => Promise<TemporalProgram> = readTemporalProgram,
): Promise<TemporalProgram> {
  const reasons: string[] = []
  for (const source of orderSources(sources)) {
    try {
      const path = await source.find(onProgress)
      if (path === undefined) {
        reasons.push(`${source.name}: not there`)
        continue
      }
      const program = await inspect(path)
      if (compareVersions(program.serverVersion, minimumServerVersion) >= 0) return program
      reasons.push(`${source.name}: its server ${program.serverVersion} is older than ${minimumServerVersion}`)
    } catch (error) {
      reasons.push(`${source.name}: ${firstLine(error)}`)
    }
  }
  throw new Error(
    [
      'no Temporal server, and no program to start one:',
      ...reasons.map((reason) => `  - ${reason}`),
      'Install the Temporal CLI (https://docs.temporal.io/cli/setup-cli) so that `temporal` is on the PATH, or set TEMPORAL_ADDRESS to a running server.',
    ].join('\n'),
  )
}

/** Asks a program for its versions; throws when it is not a Temporal CLI that runs here. */
export async function readTemporalProgram(path: string): Promise<TemporalProgram> {
  const { stdout } = await run(path, ['--version'], { timeout: 20_000 })
  return { path, ...parseTemporalVersion(stdout) }
}

/** Parses `temporal version 1.9.1 (Server 1.32.0, UI 2.54.1)`. */
export function parseTemporalVersion(output: string): { readonly cliVersion: string; readonly serverVersion: string } {
  const match = /^temporal version (?<cli>\S+) \(Server (?<server>\d+\.\d+\.\d+)/m.exec(output)
  const { cli, server } = match?.groups ?? {}
  if (cli === undefined || server === undefined) {
    throw new Error(`not the Temporal CLI's answer to --version: ${output.trim().slice(0, 100)}`)
  }
  return { cliVersion: cli, serverVersion: server }
}

/** Negative, zero or positive, as `left` is older than, equal to or newer than `right` (three numbers each). */
export function compareVersions(left: string, right: string): number {
  const [a, b] = [left, right].map((version) => version.split('.').map(Number))
  for (let place = 0; place < 3; place++) {
    const difference = (a?.[place] ?? 0) - (b?.[place] ?? 0)
    if (difference !== 0) return difference
  }
  return 0
}

function firstLine(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error)
  return message.trim().split('\n')[0] ?? 'failed'
}
