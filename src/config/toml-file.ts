import { readFileSync } from 'node:fs'
import { parse, TomlError } from 'smol-toml'

import type { ConfigProblem } from './problems.ts'

/** The configuration file as it was found. */
export interface TomlFile {
  /** Absolute. */
  readonly path: string
  readonly exists: boolean
  /** Empty where the file is missing or cannot be parsed. */
  readonly root: Readonly<Record<string, unknown>>
  /** `path:line` of a key, or the path alone where it cannot be told. */
  placeOf(keyPath: readonly string[]): string
}

export function isTable(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Date)
}

/** Reads and parses the file; a missing one is no problem here (everything may stand in the environment). */
export function readTomlFile(path: string, problems: ConfigProblem[]): TomlFile {
  const absent: TomlFile = { path, exists: false, root: {}, placeOf: () => path }
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined
    if (code === 'ENOENT' || code === 'ENOTDIR') return absent
    problems.push({
      message: `${path} cannot be read (${String(code)})`,
      remedy: 'make REPLICATION_CONFIG name a file that this user can read',
    })
    return { ...absent, exists: true }
  }
  const placeOf = (keyPath: readonly string[]): string => {
    const line = lineOf(text, keyPath)
    return line === undefined ? path : `${path}:${line}`
  }
  try {
    return { path, exists: true, root: parse(text), placeOf }
  } catch (error) {
    // The error's text (and it as a cause) quotes the lines around the fault: those may hold a password.
    const { line, column, what } =
      error instanceof TomlError
        ? { line: error.line, column: error.column, what: (error.message.split('\n')[0] ?? '').replace('Invalid TOML document: ', '') }
        : { line: 0, column: 0, what: 'not TOML' }
    problems.push({
      message: `${path}:${line}:${column}: ${what}`,
      remedy: 'mend the TOML there (strings need quotes; a section starts with its name in brackets: [sources.shop])',
    })
    return { path, exists: true, root: {}, placeOf }
  }
}

const HEADER = /^\s*\[\s*([^[\]]+?)\s*\]\s*(#.*)?$/
const ASSIGNMENT = /^\s*([^=#]+?)\s*=/

/** `a."b.c".d` → its parts. */
function splitKey(text: string): string[] {
  return [...text.matchAll(/"([^"]*)"|'([^']*)'|([^.\s"']+)/g)].map((match) => match[1] ?? match[2] ?? match[3] ?? '')
}

/**
 * The 1-based line of a key or, where the key itself is not found, of its section. A hint for people: looks at lines
 * only, because the parser gives no positions.
 */
function lineOf(text: string, keyPath: readonly string[]): number | undefined {
  const wanted = keyPath.join('\0')
  let section: string[] = []
  let sectionLine: number | undefined
  for (const [index, line] of text.split('\n').entries()) {
    const header = HEADER.exec(line)
    if (header?.[1] !== undefined) {
      section = splitKey(header[1])
      if (wanted === section.join('\0') || wanted.startsWith(`${section.join('\0')}\0`)) sectionLine = index + 1
    } else {
      const key = ASSIGNMENT.exec(line)?.[1]
      if (key !== undefined && [...section, ...splitKey(key)].join('\0') === wanted) return index + 1
    }
  }
  return sectionLine
}
