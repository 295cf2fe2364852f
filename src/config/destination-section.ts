import { environmentKey } from './environment.ts'
import { describeSection, noteMissing, type RawSection, readLayers, tableOf } from './layers.ts'
import { hideSecrets } from './mask.ts'
import { DESTINATION_OPTIONS, DESTINATION_TYPES, type DestinationType, TYPE_OPTION } from './options.ts'
import { readCredentials, type ServerCredentials } from './source-section.ts'
import { readValue, type ReadContext, type Values } from './values.ts'

/** A DuckDB destination. */
export interface DuckdbDestinationConfig {
  readonly type: 'duckdb'
  readonly name: string
  /** Absolute, or `md:…`. */
  readonly path: string
  /** False for MotherDuck: then any worker may write it. */
  readonly isLocalFile: boolean
  readonly threads?: number
  readonly memoryLimit?: string
  readonly tempDirectory?: string
  readonly serve?: string
  readonly serveToken?: string
  /** Polled by the worker that writes this destination. */
  readonly taskQueue: string
}

/** Recognised, and refused when used (`resolveDestination`). */
export type UnsupportedDestinationConfig =
  | { readonly type: 'ducklake'; readonly name: string; readonly catalog: string; readonly dataPath: string; readonly taskQueue: string }
  | { readonly type: 'postgres'; readonly name: string; readonly taskQueue: string; readonly credentials: ServerCredentials }

export type DestinationConfig = DuckdbDestinationConfig | UnsupportedDestinationConfig

/** Reads `[destinations.<name>]`; undefined where it has problems. */
export function readDestination(raw: RawSection, taskQueue: string, context: ReadContext): DestinationConfig | undefined {
  const noted = context.problems.length
  const destinationType = readType(raw, context)
  if (destinationType === undefined) return undefined
  const layers = readLayers(raw, [TYPE_OPTION, ...DESTINATION_OPTIONS[destinationType]], context)
  const values: Values = { ...layers.file, ...layers.environment }
  if (context.problems.length > noted) return undefined
  const queue = { name: raw.name, taskQueue: String(values['taskQueue'] ?? taskQueue) }
  switch (destinationType) {
    case 'duckdb':
      return readDuckdb(raw, values, { taskQueue, context })
    case 'ducklake':
      if (!requireKeys(raw, values, { keys: ['catalog', 'dataPath'], context })) return undefined
      return hideSecrets({ type: destinationType, ...queue, catalog: String(values['catalog']), dataPath: String(values['dataPath']) })
    case 'postgres': {
      const credentials = readCredentials(raw, layers, context)
      return credentials === undefined ? undefined : { type: destinationType, ...queue, credentials }
    }
    default:
      destinationType satisfies never
      return undefined
  }
}

function readType(raw: RawSection, context: ReadContext): DestinationType | undefined {
  const override = raw.overrides.find(({ key }) => environmentKey(key) === 'type')
  const value = override?.value ?? tableOf(raw)['type'] ?? 'duckdb'
  const place =
    override === undefined
      ? `${raw.file.placeOf([raw.section, raw.name, 'type'])}: ${describeSection(raw)}.type`
      : `the environment variable ${override.variable}`
  const checked = readValue(TYPE_OPTION, { value, place, isText: override !== undefined }, context)
  return DESTINATION_TYPES.find((type) => type === checked)
}

function readDuckdb(
  raw: RawSection,
  values: Values,
  { taskQueue, context }: { readonly taskQueue: string; readonly context: ReadContext },
): DuckdbDestinationConfig | undefined {
  if (!requireKeys(raw, values, { keys: ['path'], context })) return undefined
  const path = String(values['path'])
  if (path.endsWith(':memory:')) {
    context.problems.push({
      message: `${raw.file.placeOf([raw.section, raw.name, 'path'])}: ${describeSection(raw)}.path must be a file: what is in memory does not outlive the worker`,
      remedy: 'for example path = "./data/warehouse.duckdb"',
    })
    return undefined
  }
  const isLocalFile = !/^(md|motherduck):/.test(path)
  const destination: DuckdbDestinationConfig = {
    type: 'duckdb',
    name: raw.name,
    path,
    isLocalFile,
    taskQueue: String(values['taskQueue'] ?? (isLocalFile ? `${taskQueue}-${raw.name}` : taskQueue)),
    ...texts(values, ['memoryLimit', 'tempDirectory', 'serve', 'serveToken']),
    ...(values['threads'] === undefined ? {} : { threads: Number(values['threads']) }),
  }
  return hideSecrets(destination)
}

function requireKeys(
  raw: RawSection,
  values: Values,
  { keys, context }: { readonly keys: readonly string[]; readonly context: ReadContext },
): boolean {
  const missing = keys.filter((key) => !(key in values))
  if (missing.length > 0) noteMissing(raw, missing, context)
  return missing.length === 0
}

/** The given ones of some text options, as properties of the same names. */
function texts<K extends string>(values: Values, keys: readonly K[]): Partial<Record<K, string>> {
  const given: Partial<Record<K, string>> = {}
  for (const key of keys) if (key in values) given[key] = String(values[key])
  return given
}
