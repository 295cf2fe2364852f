import { nearestName } from '../model/nearest-name.ts'
import { environmentKey, type EnvironmentOverride, mistypedNameHint, type Section } from './environment.ts'
import type { OptionEntry } from './options.ts'
import { isTable, type TomlFile } from './toml-file.ts'
import { readValue, type ReadContext, type Values } from './values.ts'

/** One section's raw content: the file's table and the environment's overrides. */
export interface RawSection {
  readonly section: Section
  readonly name: string
  readonly file: TomlFile
  readonly overrides: readonly EnvironmentOverride[]
  /** Names of the file's sections of this kind, for hints. */
  readonly fileNames: readonly string[]
}

/** An option's values by where they were given; the environment wins. */
export interface Layers {
  readonly file: Values
  readonly environment: Values
}

const keyOf = (entry: OptionEntry): string => entry.key

/** `sources.shop` */
export function describeSection(raw: RawSection): string {
  return `${raw.section}.${raw.name}`
}

/** The section's table in the file; empty where it has none. */
export function tableOf(raw: RawSection): Readonly<Record<string, unknown>> {
  const section = raw.file.root[raw.section]
  const table = isTable(section) && Object.hasOwn(section, raw.name) ? section[raw.name] : undefined
  return isTable(table) ? table : {}
}

/** Reads every given option of the section by its entry; unknown ones are problems that name the nearest known one. */
export function readLayers(raw: RawSection, entries: readonly OptionEntry[], context: ReadContext): Layers {
  const file: Record<string, string | number> = {}
  for (const [key, value] of Object.entries(tableOf(raw))) {
    const entry = entries.find((candidate) => candidate.key === key)
    const place = `${raw.file.placeOf([raw.section, raw.name, key])}: ${describeSection(raw)}.${key}`
    if (entry === undefined) noteUnknown(place, key, { entries, context })
    else assign(file, entry, readValue(entry, { value, place, isText: false }, context))
  }
  const environment: Record<string, string | number> = {}
  for (const { variable, key, value } of raw.overrides) {
    const entry = entries.find((candidate) => environmentKey(candidate.key) === environmentKey(key))
    const place = `the environment variable ${variable}`
    if (entry === undefined) noteUnknown(place, key, { entries, context })
    else assign(environment, entry, readValue(entry, { value, place, isText: true }, context))
  }
  return { file, environment }
}

/** Keeps a value that was read well. */
export function assign(target: Record<string, string | number>, entry: OptionEntry, value: string | number | undefined): void {
  if (value !== undefined) target[entry.key] = value
}

/** Notes an unknown option, naming the nearest known one. */
export function noteUnknown(
  place: string,
  key: string,
  { entries, context }: { readonly entries: readonly OptionEntry[]; readonly context: ReadContext },
): void {
  const keys = entries.map(keyOf)
  // dlt's name; its only possible value here goes without saying.
  const near = key.toLowerCase() === 'drivername' ? undefined : nearestName(key, keys)
  context.problems.push({
    message: `${place} is not a known option${near === undefined ? '' : `; the nearest known one is ${near}`}`,
    remedy: near === undefined ? `leave it out; known are ${keys.join(', ')}` : `rename it to ${near}, or leave it out`,
  })
}

/** Notes options that must be given and are not. */
export function noteMissing(raw: RawSection, missing: readonly string[], context: ReadContext): void {
  const wanted = missing.includes('username') ? ['credentials'] : missing
  const variables = wanted.map((key) => environmentVariable(raw, key)).join(', ')
  context.problems.push({
    message: `${raw.file.placeOf([raw.section, raw.name])}: ${describeSection(raw)} lacks ${missing.join(', ')}`,
    remedy:
      (wanted === missing ? `give it there or by ${variables}` : `give credentials = "postgresql://USER:PASSWORD@HOST:PORT/DATABASE" there or by ${variables}`) +
      mistypedNameHint(raw.name, raw.fileNames),
  })
}

function environmentVariable(raw: RawSection, key: string): string {
  return [raw.section, raw.name.replaceAll(/[^A-Za-z0-9]/g, '_'), key].join('__').toUpperCase()
}
