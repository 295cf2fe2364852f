import type { DuckdbDestinationConfig } from './config/destination-section.ts'
import { environmentName } from './config/environment.ts'
import { maskTable } from './config/mask.ts'
import { problemsError } from './config/problems.ts'
import { type Config, type LoadOptions, readConfig } from './config/read.ts'
import type { SourceConfig } from './config/source-section.ts'
import { DomainError } from './model/errors.ts'
import { nearestName } from './model/nearest-name.ts'

export type { DestinationConfig, DuckdbDestinationConfig } from './config/destination-section.ts'
export { maskText } from './config/mask.ts'
export type { MetricsAddress } from './config/metrics-address.ts'
export type { ConfigProblem } from './config/problems.ts'
export { type Config, configPath, configuredTaskQueue, type LoadOptions, readConfig } from './config/read.ts'
export type { ServerCredentials, SourceConfig } from './config/source-section.ts'

/**
 * Reads `replication.toml` and the environment (which wins) into a checked, frozen configuration. Touches no source or
 * destination; a missing file is an empty one, and is told when something of it is used.
 *
 * Throws `InvalidConfig` that names every problem: key, file and line or environment variable, nearest known name; never a value.
 */
export function loadConfig(options: LoadOptions): Config {
  const { config, problems } = readConfig(options)
  const [first, ...rest] = problems
  if (first !== undefined) throw problemsError([first, ...rest])
  return config
}

/** The configuration for showing: as in force, defaults filled in, secrets replaced by `***`. JSON-safe. */
export function maskedConfig(config: Config): Readonly<Record<string, unknown>> {
  return maskTable(config)
}

/**
 * The source of that name. Without a name, or with `default` where none is called so: the only one configured.
 * Throws `InvalidConfig` where none is configured, `InvalidInput` that names the configured ones otherwise.
 */
export function resolveSource(config: Config, name: string | null = null): SourceConfig {
  return resolveNamed(config, 'source', { name, table: config.sources })
}

/**
 * The destination of that name, found as {@link resolveSource} does. Throws `InvalidInput` also for what is not yet
 * supported (types ducklake and postgres, `md:` paths, `serve`).
 */
export function resolveDestination(config: Config, name: string | null = null): DuckdbDestinationConfig {
  const destination = resolveNamed(config, 'destination', { name, table: config.destinations })
  if (destination.type !== 'duckdb') {
    throw new DomainError({
      kind: 'InvalidInput',
      message: `destination ${destination.name} is of type ${destination.type}, which is not yet supported`,
      remedy: 'use a destination of type duckdb',
    })
  }
  if (!destination.isLocalFile) {
    throw new DomainError({
      kind: 'InvalidInput',
      message: `destination ${destination.name} is a MotherDuck database (${destination.path.split('?', 1)[0] ?? 'md:'}), which is not yet supported`,
      remedy: 'use the path of a DuckDB file',
    })
  }
  if (destination.serve !== undefined) {
    throw new DomainError({
      kind: 'InvalidInput',
      message: `destination ${destination.name} has serve, which is not yet supported`,
      remedy: `remove serve from [destinations.${destination.name}] (readers open the file while the replication is paused or stopped)`,
    })
  }
  return destination
}

/** Task queues that a worker with this configuration polls: the workflows' own first, then those of its destinations. */
export function taskQueuesOf(config: Config): readonly string[] {
  return [...new Set([config.taskQueue, ...Object.values(config.destinations).map((destination) => destination.taskQueue)])]
}

function resolveNamed<T>(
  config: Config,
  kind: 'source' | 'destination',
  { name, table }: { readonly name: string | null; readonly table: Readonly<Record<string, T>> },
): T {
  const names = Object.keys(table)
  const wanted = name ?? 'default'
  const exact = Object.hasOwn(table, wanted) ? table[wanted] : undefined
  if (exact !== undefined) return exact
  // `my-shop`, where the environment could only spell `MY_SHOP`.
  const alike = names.filter((candidate) => environmentName(candidate) === environmentName(wanted))
  const meant = alike.length === 1 ? alike : wanted === 'default' && names.length === 1 ? names : []
  const found = meant[0] === undefined ? undefined : table[meant[0]]
  if (found !== undefined) return found
  if (names.length === 0) throw noneConfigured(config, kind)
  const near = nearestName(wanted, names)
  throw new DomainError({
    kind: 'InvalidInput',
    message:
      wanted === 'default'
        ? `there are several ${kind}s and the input does not say which: ${names.join(', ')}`
        : `there is no ${kind} ${shownName(wanted)} in the worker's configuration${near === undefined ? '' : ` (nearest: ${near})`}`,
    remedy: `set ${kind} to one of: ${names.join(', ')}`,
  })
}

/** The name, unless it could be a connection string that somebody put where a name belongs. */
function shownName(name: string): string {
  return /^[\p{L}\p{N}_. -]{1,64}$/u.test(name) ? JSON.stringify(name) : 'of that name'
}

function noneConfigured(config: Config, kind: 'source' | 'destination'): DomainError {
  const variable = kind === 'source' ? 'SOURCES__SHOP__CREDENTIALS' : 'DESTINATIONS__WAREHOUSE__PATH'
  const section = kind === 'source' ? '[sources.shop]' : '[destinations.warehouse]'
  return new DomainError({
    kind: 'InvalidConfig',
    message: config.file.exists ? `${config.file.path} has no ${kind}` : `no ${kind} is configured: ${config.file.path} does not exist`,
    remedy: config.file.exists
      ? `add ${section} to it, or set ${variable}`
      : `npm run cli -- init writes a starter to fill in (REPLICATION_CONFIG names another file), or set ${variable}`,
  })
}
