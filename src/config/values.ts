import { homedir } from 'node:os'
import { resolve } from 'node:path'

import { nearestName } from '../model/nearest-name.ts'
import type { OptionEntry } from './options.ts'
import type { ConfigProblem } from './problems.ts'

/** Option values by key, each checked by its entry: text (paths absolute) or a number. */
export type Values = Readonly<Record<string, string | number>>

export interface ReadContext {
  /** Folder that relative paths are relative to. */
  readonly directory: string
  readonly problems: ConfigProblem[]
}

/** One value as given: where it stands, what it is called there, and whether it is text that stands for any kind. */
export interface GivenValue {
  readonly value: unknown
  /** `replication.toml:3: sources.shop.port` or `SOURCES__SHOP__PORT`. */
  readonly place: string
  /** True for the environment and URL parameters, where numbers are text. */
  readonly isText: boolean
}

/**
 * Checks one value by its entry. Returns undefined, and notes the problem, where it is wrong. Problems never repeat the
 * value: it may be a secret that stands in the wrong place.
 */
export function readValue(entry: OptionEntry, given: GivenValue, context: ReadContext): string | number | undefined {
  const value = checkValue(entry, given, context)
  if (typeof value !== 'object') return value
  context.problems.push({
    message: `${given.place} must be ${value.expected}`,
    remedy: value.remedy ?? `for example ${entry.key} = ${entry.example}`,
  })
  return undefined
}

/** What is wrong with a value. */
interface Refusal {
  readonly expected: string
  readonly remedy?: string
}

function checkValue(entry: OptionEntry, given: GivenValue, context: ReadContext): string | number | Refusal {
  if (entry.kind.tag === 'integer') {
    const { minimum, maximum } = entry.kind
    const isNumeral = typeof given.value === 'string' && given.isText && /^\s*\d+\s*$/.test(given.value)
    const value = isNumeral ? Number(given.value) : given.value
    if (typeof value !== 'number' || !Number.isInteger(value) || value < minimum || value > maximum) {
      return { expected: `a whole number from ${minimum} to ${maximum}${typeof value === 'string' && !given.isText ? ', without quotes' : ''}` }
    }
    return value
  }
  if (typeof given.value !== 'string') {
    if (entry.key === 'credentials') {
      return {
        expected: 'a connection URL',
        remedy: 'put host, port, database, username and password directly into the section, without .credentials in its name',
      }
    }
    return { expected: 'text in quotes' }
  }
  const text = given.value
  if (text === '') return { expected: 'not empty' }
  switch (entry.kind.tag) {
    case 'text':
      return text
    case 'path':
      return entry.kind.literals.test(text) ? text : absolutePath(text, context.directory)
    case 'choice': {
      if (entry.kind.choices.includes(text)) return text
      const near = nearestName(text, entry.kind.choices)
      return { expected: `one of ${entry.kind.choices.join(', ')}${near === undefined ? '' : ` (nearest: ${near})`}` }
    }
    case 'pattern':
      return entry.kind.pattern.test(text) ? text : { expected: entry.kind.expected }
    default:
      entry.kind satisfies never
      return text
  }
}

function absolutePath(text: string, directory: string): string {
  return text === '~' || text.startsWith('~/') ? resolve(homedir(), text.slice(2)) : resolve(directory, text)
}
