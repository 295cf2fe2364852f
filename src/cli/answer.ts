import type { Command } from 'commander'

/** What a verb answers: one JSON document for `--json`, text for people otherwise. */
export interface Answer {
  readonly document: unknown
  readonly text: string
  /** 1 where the verb worked but what it tells is a failure (`doctor`). */
  readonly exitCode?: 0 | 1
}

/** Exit code of wrong usage. */
export const EXIT_USAGE = 2

/** Adds a verb that answers once; `run` gets the arguments, undefined where an optional one is left out. */
export function answer(command: Command, run: (args: readonly (string | undefined)[]) => Promise<Answer>): void {
  withJson(command).action(async () => {
    const result = await run(argumentsOf(command))
    print(command, result)
    if (result.exitCode !== undefined) process.exitCode = result.exitCode
  })
}

/** Prints an answer as the command line asked for it. */
export function print(command: Command, { document, text }: Answer): void {
  process.stdout.write(`${isJson(command) ? JSON.stringify(document, null, 2) : text}\n`)
}

/** The command with the option that every verb has. */
export function withJson(command: Command): Command {
  return command.option('--json', 'print one JSON document and nothing else')
}

/** Whether `--json` stands after the verb or before it. */
export function isJson(command: Command): boolean {
  return command.optsWithGlobals()['json'] === true
}

/** The command's arguments; undefined for an optional one that is left out. */
export function argumentsOf(command: Command): readonly (string | undefined)[] {
  return command.processedArgs.map((argument: unknown) => (typeof argument === 'string' ? argument : undefined))
}
