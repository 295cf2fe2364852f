import { readFileSync } from 'node:fs'

import { type Command, InvalidArgumentError, Option } from 'commander'

import { parseReplicationInput, parseXminInput } from '../model/spec-parse.ts'
import { usageError } from './failure.ts'
import { asObject } from './temporal.ts'

/** A field of the replication spec (contract §4) as an option. */
interface SpecOption {
  readonly field: string
  readonly flags: string
  readonly description: string
  readonly parse?: (text: string, previous: unknown) => unknown
}

/** `a,"b,c".d` → its parts: commas inside of SQL quotes belong to the name. Repeating the option adds. */
export function parseTableList(text: string, previous: unknown): readonly string[] {
  const names = text.match(/(?:"(?:[^"]|"")*"|[^,"])+/g) ?? []
  const given = names.map((name) => name.trim()).filter((name) => name !== '')
  if (given.length === 0) throw new InvalidArgumentError('it names no table.')
  return [...(Array.isArray(previous) ? previous.map(String) : []), ...given]
}

function parseInteger(text: string): number {
  if (!/^\d+$/.test(text) || !Number.isSafeInteger(Number(text))) throw new InvalidArgumentError('it must be a whole number.')
  return Number(text)
}

function parseFlag(text: string): boolean {
  if (text !== 'true' && text !== 'false') throw new InvalidArgumentError('it must be true or false.')
  return text === 'true'
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    throw new InvalidArgumentError('it must be JSON.')
  }
}

/** A plain word, or JSON for the form by table. */
function parseWordOrJson(text: string): unknown {
  return text.trimStart().startsWith('{') ? parseJson(text) : text
}

const SPEC_OPTIONS: readonly SpecOption[] = [
  { field: 'slotName', flags: '--slot, --slot-name <name>', description: 'replication slot' },
  { field: 'publicationName', flags: '--publication, --publication-name <name>', description: 'publication' },
  { field: 'tableNames', flags: '--tables, --table-names <names>', description: 'tables, separated by commas; none = the whole schema', parse: parseTableList },
  { field: 'schemaName', flags: '--schema, --schema-name <name>', description: 'schema of unqualified table names (default: public)' },
  { field: 'source', flags: '--source <name>', description: 'a [sources.*] name (default: the only one)' },
  { field: 'destination', flags: '--destination <name>', description: 'a [destinations.*] name (default: the only one)' },
  { field: 'publish', flags: '--publish <operations>', description: 'published operations, separated by commas (default: all)' },
  { field: 'includeColumns', flags: '--include-columns <json>', description: 'columns to replicate: {"table": ["column", …]}', parse: parseJson },
  { field: 'columns', flags: '--columns <json>', description: 'type hints: {"table": {"column": {"dataType": …}}}', parse: parseJson },
  { field: 'datasetName', flags: '--dataset-name <name>', description: 'destination schema (default: each table\'s own)' },
  { field: 'writeMode', flags: '--write-mode <mode>', description: 'merge, append, scd2, or by table {"table": "mode" or ["mode", …]}', parse: parseWordOrJson },
  { field: 'deleteMode', flags: '--delete-mode <mode>', description: 'hard or soft' },
  { field: 'snapshotMode', flags: '--snapshot-mode <mode>', description: 'initial, persisted or never' },
  { field: 'schemaChanges', flags: '--schema-changes <mode>', description: 'apply, ask or refuse' },
  { field: 'reset', flags: '--reset', description: 'drop slot, publication and destination tables first' },
  { field: 'targetBatchSize', flags: '--target-batch-size <rows>', description: 'rows per destination commit (default: tuned)', parse: parseInteger },
  { field: 'flushSlot', flags: '--flush-slot <boolean>', description: 'confirm applied changes to the slot (default: true)', parse: parseFlag },
  { field: 'walBudgetBytes', flags: '--wal-budget-bytes <bytes>', description: 'most WAL to leave at the source', parse: parseInteger },
  { field: 'deletes', flags: '--deletes <mode>', description: 'with syncByXmin: ignore (default), or compare all keys to find them' },
  { field: 'spoolBudgetBytes', flags: '--spool-budget-bytes <bytes>', description: 'most to keep in spool files', parse: parseInteger },
]

/** Adds every field of the replication spec as an option, and `--input` for the whole of it. */
export function addSpecOptions(command: Command): Command {
  addOptions(command, SPEC_OPTIONS)
  return command.option('--input <json>', 'the workflow\'s input as JSON, or @file; options win over it')
}

/** The options that tell how tables land. */
export function addShapeOptions(command: Command): void {
  addOptions(command, SPEC_OPTIONS.filter(({ field }) => field === 'writeMode' || field === 'deleteMode'))
}

function addOptions(command: Command, options: readonly SpecOption[]): void {
  for (const { flags, description, parse } of options) {
    if (parse === undefined) command.option(flags, description)
    else command.option(flags, description, parse)
  }
}

/** The input that the options make, not yet checked. */
export function specInput(command: Command): Readonly<Record<string, unknown>> {
  const options: Readonly<Record<string, unknown>> = command.opts()
  const input: Record<string, unknown> = { ...readInput(options['input']) }
  for (const { field } of SPEC_OPTIONS) {
    // Commander calls `--slot, --slot-name` by the last of its flags, in camel case: our field.
    const value = options[field]
    if (value !== undefined) input[field] = value
  }
  return input
}

/**
 * The input, checked as the workflow checks it, before Temporal stores it: a credential that somebody put into it stays here.
 * Throws `InvalidInput`, and a usage error where slot or publication is missing.
 */
export function checkedSpecInput(command: Command, workflowType: string): Readonly<Record<string, unknown>> {
  const input = specInput(command)
  if (workflowType === 'syncByXmin') {
    parseXminInput(input, { of: workflowType, storedIn: null })
    return input
  }
  for (const [field, option] of [['slotName', '--slot'], ['publicationName', '--publication']] as const) {
    if (input[field] === undefined) throw usageError(`which ${field}?`, `give ${option} <name>, or ${field} in --input`)
  }
  parseReplicationInput(input, { of: workflowType, storedIn: null })
  return input
}

/** `--type`: which of these workflow types; the first by default. */
export function addTypeOption(command: Command, types: readonly [string, ...string[]]): Command {
  return command.addOption(new Option('--type <workflow type>', 'which workflow').choices(types).default(types[0]))
}

export function typeOf(command: Command): string {
  const options: Readonly<Record<string, unknown>> = command.opts()
  return String(options['type'])
}

/** What a run is called by: its slot, or the source that it reads without one. */
export function pipelineOf(input: Readonly<Record<string, unknown>>): string {
  const { slotName, source } = input
  return typeof slotName === 'string' ? slotName : `xmin${typeof source === 'string' ? `-${source}` : ''}`
}

function readInput(given: unknown): Readonly<Record<string, unknown>> {
  if (typeof given !== 'string') return {}
  const text = given.startsWith('@') ? readInputFile(given.slice(1)) : given
  let parsed: unknown
  try {
    parsed = JSON.parse(text)
  } catch {
    throw usageError('--input is not JSON', 'write it like --input \'{"slotName": "s", "publicationName": "p"}\', or --input @file.json')
  }
  if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed)) {
    throw usageError('--input is not a JSON object', 'write it like --input \'{"slotName": "s", "publicationName": "p"}\'')
  }
  return asObject(parsed)
}

function readInputFile(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    throw usageError(`the file of --input cannot be read: ${path}`, 'name a readable file after @')
  }
}
