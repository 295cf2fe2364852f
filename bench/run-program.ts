import { spawn } from 'node:child_process'
import { closeSync, openSync } from 'node:fs'

/** A reference may take this long; then it is ended and the run fails. */
const TIMEOUT_MS = 30 * 60_000

/** Runs a program to its end and returns what it wrote, or lets the kernel throw it away. Throws with what it complained about where it failed. */
export async function runProgram(program: string, args: readonly string[], env: NodeJS.ProcessEnv, outputPath?: string): Promise<string> {
  const nowhere = outputPath === undefined ? null : openSync(outputPath, 'w')
  const child = spawn(program, args, { env, stdio: ['ignore', nowhere ?? 'pipe', 'pipe'], timeout: TIMEOUT_MS })
  if (nowhere !== null) closeSync(nowhere)
  let [output, complaints] = ['', '']
  child.stdout?.on('data', (chunk: Buffer) => {
    output += chunk.toString()
  })
  child.stderr?.on('data', (chunk: Buffer) => {
    complaints += chunk.toString()
  })
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', resolve)
  })
  if (code !== 0) throw new Error(`${program} ended with ${code === null ? 'a signal' : `exit code ${code}`}: ${complaints.trim()}`)
  return output
}

/** A number that a program says, by a pattern whose first group it is. Throws where it said none. */
export function numberIn(output: string, pattern: RegExp, program: string): number {
  const value = Number(pattern.exec(output)?.[1])
  if (!Number.isFinite(value)) throw new Error(`${program} did not say what it was asked for: ${output}`)
  return value
}
