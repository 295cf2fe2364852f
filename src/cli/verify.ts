import type { Client } from '@temporalio/client'
import type { Command } from 'commander'
import { InvalidArgumentError } from 'commander'

import { loadConfig, resolveDestination, resolveSource } from '../config.ts'
import { DomainError } from '../model/errors.ts'
import { parseVerifyInput } from '../model/spec-parse.ts'
import type { UnresolvedSpec } from '../model/spec.ts'
import type { Phase } from '../model/status.ts'
import type { NamedDifference, VerifiedTable } from '../model/verification.ts'
import colors from '../terminal-colors.ts'
import { type Answer, answer } from './answer.ts'
import { onlyOpenReplication } from './control.ts'
import { differingValues, type ValuesRequest } from './differing-values.ts'
import { usageError } from './failure.ts'
import { pipelineCommand, pipelineInput, runToEnd } from './one-shot.ts'
import { printable } from './printable.ts'
import { readStatus } from './replication-status.ts'
import { isHeldElsewhere } from './show.ts'
import { specInput } from './spec-options.ts'
import { textTable } from './status-text.ts'
import { asObject, withClient } from './temporal.ts'

export interface VerifyOptions {
  readonly repair?: true
  readonly maxRowsPerSecond?: number
}

/** The options of a verification beside the spec's. */
export function addVerifyOptions(command: Command): Command {
  return command
    .option('--repair', 'put the source\'s rows in the place of those that differ')
    .option('--max-rows-per-second <rows>', 'spare the source: rows read on average', (text) => {
      if (!/^[1-9]\d*$/.test(text)) throw new InvalidArgumentError('it must be a whole number.')
      return Number(text)
    })
}

/** What these options add to the input. */
export function verifyFields({ repair, maxRowsPerSecond }: VerifyOptions): Readonly<Record<string, unknown>> {
  return { ...(repair === true ? { repair } : {}), ...(maxRowsPerSecond === undefined ? {} : { maxRowsPerSecond }) }
}

/** `verify`: compares source and destination row by row. Exit code 1 where something differs, or could not be compared, and was not put right. */
export function addVerify(program: Command): void {
  const command = addVerifyOptions(pipelineCommand(program, 'verify', 'compare source and destination row by row, beside a running replication too')).option(
    '--show-values',
    'then show the values of rows that differ, on this terminal alone',
  )
  answer(command, async ([workflowId]): Promise<Answer> => {
    return await withClient(async (client) => {
      const meant = workflowId ?? (specInput(command)['slotName'] === undefined ? await onlyOpenReplication(client) : undefined)
      const { fields: pipeline, taskQueue } = await pipelineInput(client, { workflowId: meant, command, isScheduleMeant: true }, (field) => field !== 'reset' && field !== 'repair')
      const slotName = pipeline['slotName']
      if (typeof slotName !== 'string') throw usageError('which replication is to be compared?', 'give the workflow id, or --slot and --publication')
      const options = command.optsWithGlobals<VerifyOptions & { readonly showValues?: true; readonly json?: true }>()
      const input = { ...pipeline, ...verifyFields(options) }
      const { spec } = parseVerifyInput(input, { of: 'verifyReplication', storedIn: null })
      const sides = options.showValues === true ? sidesOf(spec, options) : null
      if (meant !== undefined && options.json !== true) process.stderr.write(await waitNote(client, meant))
      const document = await runToEnd(client, 'verifyReplication', { workflowId: `verify-${slotName}`, taskQueue, input, isShown: process.stderr.isTTY || options.json !== true })
      const report = reportOf(document)
      const values = sides === null ? '' : await shownValues(sides, report)
      return { document, text: verifyText(report) + values, exitCode: isClean(report) ? 0 : 1 }
    })
  })
}

/** What a verification waits for that begins now; empty = nothing. */
async function waitNote(client: Client, workflowId: string): Promise<string> {
  // Of one that has ended nothing is waited for.
  const phase = await readStatus(client, workflowId).then(({ status }) => status.phase, () => null)
  return phase === null ? '' : waitNoteOf(workflowId, phase)
}

/** The same, for a phase. */
export function waitNoteOf(workflowId: string, phase: Phase): string {
  const verb = phase === 'paused' ? 'resume' : phase === 'failed' ? 'retry' : null
  return verb === null ? '' : `${colors.yellow(phase === 'paused' ? 'paused' : 'failed')}: tables that ${workflowId} has not brought up to the moment of the comparison are waited for, until npm run cli -- ${verb} ${workflowId}\n`
}

type Sides = Omit<ValuesRequest, 'differences'>

/** Both sides, as this machine's configuration has them. Throws a usage error where values have no place. */
function sidesOf({ source, destination, slotName, publicationName }: UnresolvedSpec, { json, repair }: { readonly json?: true; readonly repair?: true }): Sides {
  if (json === true) throw usageError('--show-values shows values on the terminal alone, not as JSON', 'leave out one of --show-values and --json')
  if (repair === true) throw usageError('after a repair both sides have the same values', 'give --show-values first, without --repair')
  const config = loadConfig({ env: process.env })
  const { name: sourceName, credentials } = resolveSource(config, source)
  return { credentials, sourceName, destination: resolveDestination(config, destination), slotName, publicationName }
}

async function shownValues(sides: Sides, { differences }: Report): Promise<string> {
  if (Object.keys(differences).length === 0) return ''
  try {
    const shown = await differingValues({ ...sides, differences })
    return shown === '' ? '' : `\n\nvalues as they are now:\n${shown}`
  } catch (error) {
    if (!(error instanceof DomainError)) throw error
    // While a replication is only paused a verification waits.
    return `\n\n${colors.yellow('values are not shown')}: ${error.message}\n  ${isHeldElsewhere(error) ? 'stop the replication (cli stop), verify with --slot and --publication, and start it again' : error.remedy}`
  }
}

/** What `verifyReplication` returns. */
export interface Report {
  readonly lsn: string | null
  readonly tables: Readonly<Record<string, VerifiedTable>>
  readonly differences: Readonly<Record<string, readonly NamedDifference[]>>
  readonly notCompared: Readonly<Record<string, string>>
  readonly warnings: readonly string[]
}

/** The result, of whatever version the worker is. */
export function reportOf(document: unknown): Report {
  const { lsn, tables, differences, notCompared, warnings } = asObject(document)
  return {
    lsn: typeof lsn === 'string' ? lsn : null,
    tables: asObject(tables) as Report['tables'],
    differences: asObject(differences) as Report['differences'],
    notCompared: asObject(notCompared) as Report['notCompared'],
    warnings: Array.isArray(warnings) ? warnings.map(String) : [],
  }
}

function isClean({ tables, notCompared }: Report): boolean {
  return Object.keys(notCompared).length === 0 && Object.values(tables).every(({ different, repaired }) => different === repaired)
}

/** Is there nothing that it does not know? Rows that were not decided are no failure: who looks again mostly finds them still. */
export function isWhole({ tables, notCompared }: Pick<Report, 'tables' | 'notCompared'>): boolean {
  return Object.keys(notCompared).length === 0 && Object.values(tables).every(({ undecided = 0 }) => undecided === 0)
}

/** The report as a table, and the keys of rows that differ; nothing of it does anything to the terminal but show. */
export function verifyText({ lsn, tables, differences, notCompared, warnings }: Report): string {
  const rows = Object.entries(tables).map(([name, { compared, different, repaired }]) => [
    printable(name),
    compared.toLocaleString('en'),
    different === repaired ? different.toLocaleString('en') : colors.red(different.toLocaleString('en')),
    repaired.toLocaleString('en'),
  ])
  const sum = (field: 'different' | 'repaired'): number => Object.values(tables).reduce((total, table) => total + table[field], 0)
  const repaired = sum('repaired')
  const left = sum('different') - repaired
  const equal = isWhole({ tables, notCompared }) ? colors.green('equal') : colors.yellow('equal, as far as was compared')
  const verdict = left > 0 ? colors.red(`${left.toLocaleString('en')} rows differ`) : `${equal}${repaired === 0 ? '' : `, ${repaired.toLocaleString('en')} rows repaired`}`
  return [
    `${verdict}${lsn === null ? '' : ` at LSN ${lsn}`}`,
    ...(rows.length === 0 ? [] : [textTable(['table', 'compared', 'different', 'repaired'], rows)]),
    ...Object.entries(differences).flatMap(([name, named]) => namedLines(name, named, tables[name]?.different ?? 0)),
    ...Object.entries(notCompared).map(([name, reason]) => `${colors.red(`${printable(name)} was not compared`)}: ${printable(reason)}`),
    ...warnings.map((warning) => `${colors.yellow('warning')}: ${printable(warning)}`),
  ].join('\n')
}

function namedLines(name: string, named: readonly NamedDifference[], count: number): readonly string[] {
  const lines = named.filter(({ key }) => key !== null).map(({ kind, key }) => `  ${kind} ${(key ?? []).map((value) => (value === null ? 'NULL' : printable(value))).join(', ')}`)
  const kinds = [...new Set(named.map(({ kind }) => kind))].join(', ')
  if (lines.length === 0) return [`${printable(name)}: rows without a key: ${kinds}`]
  return [`${printable(name)}:`, ...lines, ...(count > lines.length ? [`  and ${(count - lines.length).toLocaleString('en')} more`] : [])]
}
