import { nearestName } from '../model/nearest-name.ts'
import type { ConfigProblem } from './problems.ts'

export type Section = 'sources' | 'destinations'

/** `SOURCES__SHOP__CREDENTIALS`, taken apart. */
export interface EnvironmentOverride {
  readonly variable: string
  readonly section: Section
  /** As written in the variable: `SHOP`. */
  readonly name: string
  /** As written in the variable: `CREDENTIALS`. */
  readonly key: string
  readonly value: string
}

/** How names from the environment are compared with names in the file: `MY_SHOP` is `my-shop`. */
export function environmentName(name: string): string {
  return name.toLowerCase().replaceAll(/[^\p{L}\p{N}]+/gu, '_')
}

/** How keys from the environment are compared with option names: `MEMORYLIMIT` and `MEMORY_LIMIT` are `memoryLimit`. */
export function environmentKey(key: string): string {
  return key.toLowerCase().replaceAll('_', '')
}

/** All overrides in the environment. An empty value counts as not given: Compose files pass those on. */
export function readOverrides(env: NodeJS.ProcessEnv, problems: ConfigProblem[]): readonly EnvironmentOverride[] {
  const overrides: EnvironmentOverride[] = []
  for (const [variable, value] of Object.entries(env)) {
    const match = /^(sources|destinations)__(.*)$/is.exec(variable)
    if (match?.[1] === undefined || match[2] === undefined || value === undefined || value === '') continue
    const section: Section = match[1].toLowerCase() === 'sources' ? 'sources' : 'destinations'
    const parts = match[2].split('__')
    const key = parts.pop()
    const name = parts.join('__')
    if (key === undefined || key === '' || name === '') {
      const example = section === 'sources' ? 'SOURCES__SHOP__CREDENTIALS' : 'DESTINATIONS__WAREHOUSE__PATH'
      problems.push({ message: `the environment variable ${variable} names no option`, remedy: `write it like ${example}, or unset it` })
      continue
    }
    overrides.push({ variable, section, name, key, value })
  }
  return overrides
}

/**
 * Gives each override the name of the section that it belongs to: one of `fileNames` where exactly one is meant, else its own in
 * lower case (a source may exist by the environment alone).
 */
export function assignOverrides(
  overrides: readonly EnvironmentOverride[],
  fileNames: readonly string[],
  problems: ConfigProblem[],
): ReadonlyMap<string, readonly EnvironmentOverride[]> {
  const assigned = new Map<string, EnvironmentOverride[]>()
  for (const override of overrides) {
    const meant = fileNames.filter((name) => environmentName(name) === environmentName(override.name))
    const exact = meant.find((name) => name === override.name)
    if (meant.length > 1 && exact === undefined) {
      problems.push({
        message: `the environment variable ${override.variable} could mean ${meant.join(' or ')}`,
        remedy: `rename one of these ${override.section}`,
      })
      continue
    }
    const name = exact ?? meant[0] ?? override.name.toLowerCase()
    assigned.set(name, [...(assigned.get(name) ?? []), override])
  }
  return assigned
}

/** For a section that exists in the environment alone and lacks something: the section that its variables may have been meant for. */
export function mistypedNameHint(name: string, fileNames: readonly string[]): string {
  const near = fileNames.includes(name) ? undefined : nearestName(name, fileNames)
  return near === undefined ? '' : `, or name the section that was meant in the environment variable (nearest: ${near})`
}
