import { DESTINATION_OPTIONS, type OptionEntry, SOURCE_OPTIONS, TYPE_OPTION } from './options.ts'

const WIDTH = 110
/** Options that a starter file has in force; the others stand in it as comments. */
const FILLED_IN: Readonly<Record<string, string>> = { credentials: '', type: '', path: '"./data/warehouse.duckdb"' }

/** A commented `replication.toml` with every supported option: what `cli init` writes, and `replication.example.toml`. */
export function starterFile(): string {
  const duckdb = DESTINATION_OPTIONS.duckdb.filter((entry) => !entry.key.startsWith('serve'))
  return [
    '# replication.toml: which PostgreSQL databases are replicated, and into what. The worker reads it; secrets stay here.',
    '# Every key has an environment variable that wins over it: SOURCES__SHOP__PASSWORD, DESTINATIONS__WAREHOUSE__PATH.',
    '# Relative paths are relative to this file. Check it with: npm run cli -- doctor',
    '',
    '[sources.shop]',
    ...SOURCE_OPTIONS.flatMap(optionLines),
    '[destinations.warehouse]',
    ...[TYPE_OPTION, ...duckdb].flatMap(optionLines),
  ]
    .join('\n')
    .trimEnd()
    .concat('\n')
}

function optionLines(entry: OptionEntry): readonly string[] {
  const isFilledIn = Object.hasOwn(FILLED_IN, entry.key)
  const value = FILLED_IN[entry.key] ?? ''
  const about = isFilledIn ? entry.description : `${entry.description} Default: ${entry.default.replaceAll('`', '')}.`
  return [...wrap(about).map((line) => `# ${line}`), `${isFilledIn ? '' : '# '}${entry.key} = ${value === '' ? entry.example : value}`, '']
}

function wrap(text: string): readonly string[] {
  const lines: string[] = []
  let line = ''
  for (const word of text.split(' ')) {
    if (line !== '' && line.length + word.length + 1 > WIDTH) {
      lines.push(line)
      line = word
    } else line = line === '' ? word : `${line} ${word}`
  }
  return [...lines, line]
}
