/**
 * Keeps docs/configuration.md and replication.example.toml in step with src/config/options.ts, the one table of options, and docs/monitoring.md with
 * src/model/metrics.ts, the one table of metrics:
 * `npx tsx scripts/configuration-docs.ts` writes them; a unit test fails where they differ.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'

import { DESTINATION_OPTIONS, ENVIRONMENT_VARIABLES, type OptionEntry, SOURCE_OPTIONS, TYPE_OPTION } from '../src/config/options.ts'
import { starterFile } from '../src/config/starter.ts'
import { METRICS } from '../src/model/metrics.ts'

const root = fileURLToPath(new URL('../', import.meta.url))
export const DOCS_FILE = join(root, 'docs/configuration.md')
export const MONITORING_FILE = join(root, 'docs/monitoring.md')
export const EXAMPLE_FILE = join(root, 'replication.example.toml')

function table(headings: readonly string[], rows: readonly (readonly string[])[]): string {
  const lines = [headings, headings.map(() => '---'), ...rows]
  return lines.map((cells) => `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`).join('\n')
}

function optionTable(entries: readonly OptionEntry[]): string {
  return table(
    ['key', 'meaning', 'default', 'example'],
    entries.map((entry) => [`\`${entry.key}\``, entry.description, entry.default, `\`${entry.example}\``]),
  )
}

/** Tables by the name between `<!-- table:NAME -->` and `<!-- end -->`. */
const TABLES: Readonly<Record<string, string>> = {
  environment: table(
    ['variable', 'meaning', 'default'],
    ENVIRONMENT_VARIABLES.map((variable) => [`\`${variable.name}\``, variable.description, variable.default]),
  ),
  sources: optionTable(SOURCE_OPTIONS),
  duckdb: optionTable([TYPE_OPTION, ...DESTINATION_OPTIONS.duckdb]),
  ducklake: optionTable(DESTINATION_OPTIONS.ducklake),
  metrics: table(
    ['metric', 'kind', 'labels', 'meaning'],
    Object.values(METRICS).map(({ name, kind, labels, description }) => [`\`${name}\``, kind, labels.join(', '), description]),
  ),
}

/** The page with its tables as the code has them. */
export function withCurrentTables(page: string): string {
  return page.replaceAll(/(<!-- table:(\w+) -->\n)[\s\S]*?(<!-- end -->)/g, (_all, start: string, name: string, end: string) => {
    const content = TABLES[name]
    if (content === undefined) throw new Error(`a page asks for an unknown table ${name}`)
    return `${start}\n${content}\n\n${end}`
  })
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  for (const file of [DOCS_FILE, MONITORING_FILE]) writeFileSync(file, withCurrentTables(readFileSync(file, 'utf8')))
  writeFileSync(EXAMPLE_FILE, starterFile())
}
