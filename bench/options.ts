import { parseArgs } from 'node:util'
import { parsePostgresMajor, type PostgresMajor } from '../src/embedded/postgres-majors.ts'

/** The workloads by name, in the order in which they run. */
export const WORKLOAD_NAMES = ['W1', 'W2', 'S1'] as const

export type WorkloadName = (typeof WORKLOAD_NAMES)[number]

/** What the command line asks for. */
export interface BenchOptions {
  /** A fifth of the rows: under two minutes. Constant costs weigh more, so its ratios are lower. */
  readonly isQuick: boolean
  /** Runs of each workload; the medians are reported. */
  readonly runCount: number
  readonly workloads: readonly WorkloadName[]
  /** `system`: one with `psql` and `pg_recvlogical` beside it where there is one, else the embedded default. */
  readonly postgres: 'system' | PostgresMajor
  /** Where the JSON goes; null = a file named by the time in `bench/results`. */
  readonly jsonPath: string | null
  /** A folder for V8 CPU profiles of the worker; null = none. Profiled runs are slower. */
  readonly profileDirectory: string | null
}

/** The text of `--help`. */
export const USAGE = `npm run bench -- [options]
  --quick            100,000 changes and 200,000 rows instead of 500,000 and 1,000,000
  --runs N           runs of each workload, medians are shown (default 1)
  --only W1,S1       some of ${WORKLOAD_NAMES.join(', ')}
  --postgres M       major version of an embedded PostgreSQL, or "system" (default: one with pg_recvlogical beside it, if any)
  --json PATH        where the figures go as JSON (default: bench/results/<time>.json)
  --profile DIR      write V8 CPU profiles of the worker there (slows it down)`

/** Parses the arguments. Null when help was asked for. Throws an error with a text for the user. */
export function parseBenchOptions(args: readonly string[]): BenchOptions | null {
  const { values } = parseArgs({
    args: [...args],
    options: {
      quick: { type: 'boolean', default: false },
      runs: { type: 'string', default: '1' },
      only: { type: 'string' },
      postgres: { type: 'string', default: 'system' },
      json: { type: 'string' },
      profile: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  })
  if (values.help) return null
  if (!/^[1-9]\d?$/.test(values.runs)) throw new Error('--runs takes a number from 1 to 99')
  return {
    isQuick: values.quick,
    runCount: Number(values.runs),
    workloads: values.only === undefined ? WORKLOAD_NAMES : parseNames(values.only),
    postgres: values.postgres === 'system' ? 'system' : parsePostgresMajor(values.postgres),
    jsonPath: values.json ?? null,
    profileDirectory: values.profile ?? null,
  }
}

function parseNames(text: string): readonly WorkloadName[] {
  const wanted = text.split(',').map((name) => name.trim().toUpperCase())
  const unknown = wanted.find((name) => !WORKLOAD_NAMES.some((known) => known === name))
  if (unknown !== undefined) throw new Error(`there is no workload ${JSON.stringify(unknown)}: choose of ${WORKLOAD_NAMES.join(', ')}`)
  return WORKLOAD_NAMES.filter((name) => wanted.includes(name))
}
