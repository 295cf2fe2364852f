import { dirname, resolve } from 'node:path'

import { nearestName } from '../model/nearest-name.ts'
import { assignOverrides, type EnvironmentOverride, readOverrides, type Section } from './environment.ts'
import { DEFAULT_CONFIG_FILE, DEFAULT_TASK_QUEUE } from './options.ts'
import { type MetricsAddress, readMetricsAddress } from './metrics-address.ts'
import type { ConfigProblem } from './problems.ts'
import { type DestinationConfig, readDestination } from './destination-section.ts'
import type { RawSection } from './layers.ts'
import { readSource, type SourceConfig } from './source-section.ts'
import { isTable, readTomlFile, type TomlFile } from './toml-file.ts'
import type { ReadContext } from './values.ts'

/** The whole configuration, checked and deeply frozen. It holds secrets: show only `maskedConfig` of it. */
export interface Config {
  readonly file: { readonly path: string; readonly exists: boolean }
  /** Of the workflows, and of the activities that write no local file. */
  readonly taskQueue: string
  /** Where the worker serves its metrics; null = nowhere. */
  readonly metrics: MetricsAddress | null
  readonly sources: Readonly<Record<string, SourceConfig>>
  readonly destinations: Readonly<Record<string, DestinationConfig>>
}

export interface LoadOptions {
  readonly env: NodeJS.ProcessEnv
  /** Where a relative `REPLICATION_CONFIG` starts; the process's own by default. */
  readonly cwd?: string
}

/** Absolute path of the configuration file that the environment names. */
export function configPath({ env, cwd = process.cwd() }: LoadOptions): string {
  return resolve(cwd, given(env['REPLICATION_CONFIG']) ?? DEFAULT_CONFIG_FILE)
}

/** The task queue of workflows that the environment names. */
export function configuredTaskQueue(env: NodeJS.ProcessEnv): string {
  return given(env['REPLICATION_TASK_QUEUE']) ?? DEFAULT_TASK_QUEUE
}

function given(text: string | undefined): string | undefined {
  const trimmed = text?.trim()
  return trimmed === '' ? undefined : trimmed
}

/** Reads file and environment. Sections with problems are left out of `config`; nothing is thrown. */
export function readConfig(options: LoadOptions): { readonly config: Config; readonly problems: readonly ConfigProblem[] } {
  const problems: ConfigProblem[] = []
  const file = readTomlFile(configPath(options), problems)
  const overrides = readOverrides(options.env, problems)
  const taskQueue = configuredTaskQueue(options.env)
  const metrics = readMetricsAddress(options.env, problems)
  noteUnknownSections(file, problems)

  const context: ReadContext = { directory: dirname(file.path), problems }
  const sources: Record<string, SourceConfig> = {}
  for (const raw of rawSections('sources', { file, overrides, problems })) {
    const source = readSource(raw, context)
    if (source !== undefined) sources[raw.name] = source
  }
  const destinations: Record<string, DestinationConfig> = {}
  for (const raw of rawSections('destinations', { file, overrides, problems })) {
    const destination = readDestination(raw, taskQueue, context)
    if (destination !== undefined) destinations[raw.name] = destination
  }
  noteSharedFiles(destinations, problems)
  const config: Config = { file: { path: file.path, exists: file.exists }, taskQueue, metrics, sources, destinations }
  return { config: deepFreeze(config), problems }
}

function noteUnknownSections(file: TomlFile, problems: ConfigProblem[]): void {
  const known: readonly Section[] = ['sources', 'destinations']
  for (const key of Object.keys(file.root)) {
    if (known.some((section) => section === key)) continue
    const near = nearestName(key, known)
    problems.push({
      message: `${file.placeOf([key])}: ${key} is not a known section${near === undefined ? '' : `; the nearest known one is ${near}`}`,
      remedy: 'sections are [sources.<name>] and [destinations.<name>]',
    })
  }
}

function rawSections(
  section: Section,
  from: { readonly file: TomlFile; readonly overrides: readonly EnvironmentOverride[]; readonly problems: ConfigProblem[] },
): readonly RawSection[] {
  const { file, problems } = from
  const table = file.root[section] ?? {}
  const fileNames: string[] = []
  for (const [name, content] of Object.entries(isTable(table) ? table : { '': table })) {
    if (isTable(content) && name !== '') {
      fileNames.push(name)
      continue
    }
    // `[sources] credentials = …`: the name is missing.
    problems.push({
      message: `${file.placeOf([section, name])}: ${section}${name === '' ? '' : `.${name}`} is not a section`,
      remedy: `write [${section}.<name>], for example [${section}.${section === 'sources' ? 'shop' : 'warehouse'}], and put the options below it`,
    })
  }
  const assigned = assignOverrides(
    from.overrides.filter((override) => override.section === section),
    fileNames,
    problems,
  )
  const names = new Set([...fileNames, ...assigned.keys()])
  return [...names].map((name) => ({ section, name, file, fileNames, overrides: assigned.get(name) ?? [] }))
}

/** Two destinations in one file would keep two checkpoints for two owners in one place. */
function noteSharedFiles(destinations: Readonly<Record<string, DestinationConfig>>, problems: ConfigProblem[]): void {
  const byPath = new Map<string, string>()
  for (const destination of Object.values(destinations)) {
    if (destination.type !== 'duckdb') continue
    const other = byPath.get(destination.path)
    if (other !== undefined) {
      problems.push({
        message: `destinations.${other} and destinations.${destination.name} have the same path`,
        remedy: 'give each its own file, or use one destination for both',
      })
    }
    byPath.set(destination.path, destination.name)
  }
}

function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null) {
    for (const child of Object.values(value)) deepFreeze(child)
    Object.freeze(value)
  }
  return value
}
