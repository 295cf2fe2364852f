import { parseArgs } from 'node:util'
import { parsePostgresMajor, type PostgresMajor } from '../src/embedded/postgres-majors.ts'

/** The workloads by name, in the order in which they run. */
export const WORKLOAD_NAMES = ['W1', 'W2', 'W2A', 'W2S', 'W3', 'W3L', 'W4', 'S1', 'S2', 'V1', 'L1', 'B1', 'I1', 'T1', 'P4', 'G1', 'G2'] as const

export type WorkloadName = (typeof WORKLOAD_NAMES)[number]

/** What a quick run is made of, unless `--only` says otherwise. */
const QUICK_NAMES: readonly WorkloadName[] = ['W1', 'W2', 'S1', 'L1']
/** Many minutes: only when asked for. */
const LARGE_NAMES: readonly WorkloadName[] = ['W3L']

/** Programs of others that are measured beside us where they are given; null = not. */
export interface PeerOptions {
  /** DuckDB's `postgres` extension, as a file for the very version of DuckDB that is installed here. */
  readonly duckdbExtensionPath: string | null
  /** A folder with dlt's `pg_replication` source, and the Python that has its packages. */
  readonly dltSourcePath: string | null
  readonly python: string
  /** A folder with the jars of Debezium's embedded engine and its PostgreSQL connector; `java` is the one on the PATH. */
  readonly debeziumPath: string | null
  /** ingestr's program, as a path or a name on the PATH. */
  readonly ingestrProgram: string | null
}

/** What the command line asks for. */
export interface BenchOptions {
  /** A tenth of the rows and less: under two minutes. Constant costs weigh more, so its ratios are lower. */
  readonly isQuick: boolean
  /** What takes many minutes and gigabytes too: W3L, and the largest step of G1. */
  readonly isLarge: boolean
  /** Runs of each workload; the medians are reported. */
  readonly runCount: number
  readonly workloads: readonly WorkloadName[]
  /** `system`: one with `psql` and `pg_recvlogical` beside it where there is one, else the embedded default. */
  readonly postgres: 'system' | PostgresMajor
  /** Where the JSON goes; null = a file named by the time in `bench/results`. */
  readonly jsonPath: string | null
  /** Where charts go as SVG; null = none are drawn. */
  readonly chartDirectory: string | null
  /** A folder for V8 CPU profiles of the worker; null = none. Profiled runs are slower. */
  readonly profileDirectory: string | null
  readonly peers: PeerOptions
}

/** The text of `--help`. */
export const USAGE = `npm run bench -- [options]
  --quick            small sizes, and ${QUICK_NAMES.join(', ')} alone unless --only names others
  --runs N           runs of each workload, medians are shown (default 1)
  --only W1,S1       some of ${WORKLOAD_NAMES.join(', ')}
  --large            ${LARGE_NAMES.join(', ')} and G1's 10,000,000 changes too (many minutes and gigabytes)
  --postgres M       major version of an embedded PostgreSQL, or "system" (default: one with pg_recvlogical beside it, if any)
  --json PATH        where the figures go as JSON (default: bench/results/<time>.json)
  --charts DIR       draw charts there, as SVG
  --profile DIR      write V8 CPU profiles of the worker there (slows it down)
  --duckdb-postgres-extension FILE   measure DuckDB's own postgres extension beside S1
  --dlt-source DIR   measure dlt's pg_replication source (that folder holds pg_replication/) beside W1, W2 and S1
  --python PROGRAM   the Python that has dlt, duckdb and psycopg2 (default: python3)
  --debezium DIR     measure Debezium's embedded engine (the jars are in that folder) beside W1, W2 and S1; needs a JDK's java
  --ingestr PROGRAM  measure ingestr beside W1, W2 and S1`

/** Parses the arguments. Null when help was asked for. Throws an error with a text for the user. */
export function parseBenchOptions(args: readonly string[]): BenchOptions | null {
  const { values } = parseArgs({
    args: [...args],
    options: {
      'quick': { type: 'boolean', default: false },
      'large': { type: 'boolean', default: false },
      'runs': { type: 'string', default: '1' },
      'only': { type: 'string' },
      'postgres': { type: 'string', default: 'system' },
      'json': { type: 'string' },
      'charts': { type: 'string' },
      'profile': { type: 'string' },
      'duckdb-postgres-extension': { type: 'string' },
      'dlt-source': { type: 'string' },
      'python': { type: 'string', default: 'python3' },
      'debezium': { type: 'string' },
      'ingestr': { type: 'string' },
      'help': { type: 'boolean', default: false },
    },
  })
  if (values.help) return null
  if (!/^[1-9]\d?$/.test(values.runs)) throw new Error('--runs takes a number from 1 to 99')
  const standard = values.quick ? QUICK_NAMES : WORKLOAD_NAMES.filter((name) => values.large || !LARGE_NAMES.includes(name))
  return {
    isQuick: values.quick,
    isLarge: values.large,
    runCount: Number(values.runs),
    workloads: values.only === undefined ? standard : parseNames(values.only),
    postgres: values.postgres === 'system' ? 'system' : parsePostgresMajor(values.postgres),
    jsonPath: values.json ?? null,
    chartDirectory: values.charts ?? null,
    profileDirectory: values.profile ?? null,
    peers: {
      duckdbExtensionPath: values['duckdb-postgres-extension'] ?? null,
      dltSourcePath: values['dlt-source'] ?? null,
      python: values.python,
      debeziumPath: values.debezium ?? null,
      ingestrProgram: values.ingestr ?? null,
    },
  }
}

function parseNames(text: string): readonly WorkloadName[] {
  const wanted = text.split(',').map((name) => name.trim().toUpperCase())
  const unknown = wanted.find((name) => !WORKLOAD_NAMES.some((known) => known === name))
  if (unknown !== undefined) throw new Error(`there is no workload ${JSON.stringify(unknown)}: choose of ${WORKLOAD_NAMES.join(', ')}`)
  return WORKLOAD_NAMES.filter((name) => wanted.includes(name))
}
