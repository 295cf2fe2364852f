import { DomainError } from '../model/errors.ts'

/** One thing that is wrong with the configuration. Neither text ever holds a value that could be a secret. */
export interface ConfigProblem {
  /** Names the place (file and line, or environment variable), the key and what is wrong. */
  readonly message: string
  readonly remedy: string
}

/** All problems as one `InvalidConfig`, so that a user mends them in one go. */
export function problemsError(problems: readonly [ConfigProblem, ...ConfigProblem[]]): DomainError {
  const [first] = problems
  if (problems.length === 1) return new DomainError({ kind: 'InvalidConfig', ...first })
  return new DomainError({
    kind: 'InvalidConfig',
    message: `${problems.length} problems in the configuration:\n${problems.map((problem) => `- ${problem.message}`).join('\n')}`,
    remedy: [...new Set(problems.map((problem) => problem.remedy))].join('; '),
  })
}
