import { expect, vi } from 'vitest'

import { runCommandLine } from '../../src/cli/program.ts'

/** What one command line printed, and the exit code that it would have ended the process with. */
export interface Outcome {
  readonly stdout: string
  readonly stderr: string
  readonly exitCode: number
}

/** Runs a command line in this process, with stdout, stderr and exit code caught. */
export async function run(...args: readonly string[]): Promise<Outcome> {
  const printed = { stdout: '', stderr: '' }
  const before = process.exitCode
  const spies = (['stdout', 'stderr'] as const).map((stream) =>
    vi.spyOn(process[stream], 'write').mockImplementation((chunk) => {
      printed[stream] += String(chunk)
      return true
    }),
  )
  process.exitCode = 0
  try {
    await runCommandLine(args)
    return { ...printed, exitCode: process.exitCode }
  } finally {
    process.exitCode = before
    for (const spy of spies) spy.mockRestore()
  }
}

/** The one JSON document that `--json` printed. */
export function documentOf(outcome: Outcome): unknown {
  return JSON.parse(outcome.stdout)
}

/** Runs a verb with `--json` that must succeed, and returns its document. */
export async function json(...args: readonly string[]): Promise<unknown> {
  const outcome = await run(...args, '--json')
  expect([outcome.stderr, outcome.exitCode, outcome.stdout]).toEqual(['', 0, outcome.stdout])
  return documentOf(outcome)
}
