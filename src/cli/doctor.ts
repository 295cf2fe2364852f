import type { Command } from 'commander'
import colors from '../terminal-colors.ts'

import { type Config, type ConfigProblem, type DestinationConfig, readConfig, resolveDestination, resolveSource, taskQueuesOf } from '../config.ts'
import { runPreflight } from '../postgres/preflight.ts'
import { answer } from './answer.ts'
import { type Asked, askedOf } from './asked-tables.ts'
import type { Check } from './check.ts'
import { checkDestination } from './check-destination.ts'
import { checkFidelity, type Fidelity, type PlannedTables, type TableFidelity } from './check-fidelity.ts'
import { checkTemporal } from './check-temporal.ts'
import { describeFailure } from './failure.ts'
import { type KnownPipeline, readKnownPipeline } from './known-pipeline.ts'
import { addSpecOptions, addTypeOption, specInput, typeOf } from './spec-options.ts'
import { textTable } from './status-text.ts'

/** `doctor`: everything that a replication needs, checked one by one; changes nothing but by `--register`. */
export function addDoctor(program: Command): void {
  const command = addSpecOptions(addTypeOption(
    program
      .command('doctor')
      .description('check configuration, sources, destinations and Temporal; with --slot, --publication, --tables (or --type syncByXmin, which needs no slot) also what a start needs, and how each column would be held')
      .option('--full', 'look at every row of the tables, not at a sample')
      .option('--register', 'make the search attributes by which Temporal lists replications, where its namespace lacks them'),
    ['replicate', 'syncByXmin'],
  ))
  answer(command, async () => {
    const given = specInput(command)
    const { full, register } = command.opts<{ readonly full?: boolean; readonly register?: boolean }>()
    const isFull = full === true
    const type = typeOf(command)
    const asked = Object.keys(given).length > 0 || isFull || type !== 'replicate' ? askedOf(type, given) : null
    const { config, problems } = readConfig({ env: process.env })
    const known = await knownOf(config, asked)
    const [sources, destinations, temporal] = await Promise.all([checkSources(config, asked, known), checkDestinations(config, asked), checkTemporal(process.env, taskQueuesOf(config), register === true)])
    const fidelity = await checkTables(config, { asked, tables: sources.tables, isFull })
    const checks: readonly Check[] = [...checkConfig(config, problems), ...sources.checks, ...fidelity.checks, ...destinations, ...temporal]
    const failures = checks.filter(({ state }) => state === 'failure').length
    return { document: { ok: failures === 0, checks, tables: fidelity.tables }, text: doctorText(checks, fidelity.tables), exitCode: failures === 0 ? 0 : 1 }
  })
}

function checkConfig(config: Config, problems: readonly ConfigProblem[]): readonly Check[] {
  const { path, exists } = config.file
  const counts = `${count(config.sources, 'source')}, ${count(config.destinations, 'destination')}`
  const subject = 'config'
  if (problems.length > 0) return problems.map((problem) => ({ subject, name: 'content', state: 'failure', ...problem }))
  const isComplete = Object.keys(config.sources).length > 0 && Object.keys(config.destinations).length > 0
  const remedy = exists ? 'add [sources.<name>] and [destinations.<name>]' : 'npm run cli -- init writes a starter to fill in'
  return [
    {
      subject,
      name: 'content',
      state: isComplete ? 'ok' : 'failure',
      message: exists ? `${path}: ${counts}` : `${path} does not exist; from the environment: ${counts}`,
      remedy: isComplete ? null : remedy,
    },
  ]
}

function count(table: object, what: string): string {
  const { length } = Object.keys(table)
  return `${length} ${what}${length === 1 ? '' : 's'}`
}

async function checkSources(config: Config, asked: Asked | null, known: KnownPipeline | null): Promise<{ readonly checks: readonly Check[]; readonly tables: PlannedTables | null }> {
  const failure = failureOf(() => (asked === null ? null : resolveSource(config, asked.source)))
  const wanted = asked === null || failure !== null ? null : resolveSource(config, asked.source).name
  let tables: PlannedTables | null = null
  const found = await Promise.all(
    Object.values(config.sources).map(async (source): Promise<readonly Check[]> => {
      const { name, credentials, makesFailoverSlots } = source
      const looked = asked !== null && name === wanted ? await asked.look(source, known) : { ...(await runPreflight(credentials, { request: null, makesFailoverSlots })), tables: null }
      tables = looked.tables ?? tables
      return looked.findings.map((finding) => ({ subject: `source ${name}`, name: finding.name, state: finding.state, message: finding.message, remedy: finding.remedy }))
    }),
  )
  return { checks: [...(failure === null ? [] : [{ subject: 'source', name: 'name', state: 'failure' as const, ...failure }]), ...found.flat()], tables }
}

/** Nothing where no table was asked about, or its source or destination is not there to be asked. */
async function checkTables(
  config: Config,
  { asked, tables, isFull }: { readonly asked: Asked | null; readonly tables: PlannedTables | null; readonly isFull: boolean },
): Promise<Fidelity> {
  if (asked === null || tables === null || failureOf(() => resolveDestination(config, asked.destination)) !== null) return { checks: [], tables: {} }
  return checkFidelity({ credentials: resolveSource(config, asked.source).credentials, tables, destination: resolveDestination(config, asked.destination), isFull })
}

/** What the destination knows already of the pipeline: a start is checked with it. Null where there is nothing to be read. */
async function knownOf(config: Config, asked: Asked | null): Promise<KnownPipeline | null> {
  const slotName = asked?.slotName ?? null
  if (asked === null || slotName === null || failureOf(() => [resolveSource(config, asked.source), resolveDestination(config, asked.destination)]) !== null) return null
  return readKnownPipeline(resolveDestination(config, asked.destination), { source: resolveSource(config, asked.source).name, slotName })
}

async function checkDestinations(config: Config, asked: Asked | null): Promise<readonly Check[]> {
  const failure = failureOf(() => (asked === null ? null : resolveDestination(config, asked.destination)))
  const found = await Promise.all(Object.values(config.destinations).map(async (destination) => await checkSupported(config, destination)))
  return [...(failure === null ? [] : [{ subject: 'destination', name: 'name', state: 'failure' as const, ...failure }]), ...found.flat()]
}

async function checkSupported(config: Config, { name }: DestinationConfig): Promise<readonly Check[]> {
  const subject = `destination ${name}`
  const failure = failureOf(() => resolveDestination(config, name))
  if (failure !== null) return [{ subject, name: 'support', state: 'failure', ...failure }]
  const findings = await checkDestination(resolveDestination(config, name))
  return findings.map((finding) => ({ subject, ...finding }))
}

function failureOf(run: () => unknown): { readonly message: string; readonly remedy: string } | null {
  try {
    run()
    return null
  } catch (error) {
    const { message, remedy } = describeFailure(error).shown
    return { message, remedy }
  }
}

const STATE_TEXT: Readonly<Record<Check['state'], string>> = {
  ok: colors.green('ok'),
  warning: colors.yellow('warning'),
  failure: colors.red('failure'),
}

function doctorText(checks: readonly Check[], tables: Readonly<Record<string, TableFidelity>>): string {
  const failures = checks.filter(({ state }) => state === 'failure').length
  const warnings = checks.filter(({ state }) => state === 'warning').length
  const remedies = checks.flatMap(({ subject, name, remedy }) => (remedy === null ? [] : [`${colors.bold(`${subject}, ${name}`)}: ${remedy}`]))
  return [
    textTable(
      ['subject', 'check', 'state', 'what was found'],
      checks.map((check) => [check.subject, check.name, STATE_TEXT[check.state], wrap(check.message)]),
    ),
    ...(Object.keys(tables).length === 0 ? [] : ['', columnsText(tables)]),
    ...(remedies.length === 0 ? [] : ['', 'what to do:', ...[...new Set(remedies)].map((text) => `- ${text.replaceAll('\n', '\n  ')}`)]),
    '',
    failures === 0 ? `all well${warnings === 0 ? '' : `, ${warnings} warning${warnings === 1 ? '' : 's'}`}` : `${failures} failed`,
  ].join('\n')
}

/** How each column would be held. */
function columnsText(tables: Readonly<Record<string, TableFidelity>>): string {
  const rows = Object.entries(tables).flatMap(([table, { columns }]) =>
    columns.map(({ column, sourceType, destinationType, isHinted, isExact, cannotHold }) => [
      ...[table, column, sourceType, `${destinationType}${isHinted ? ' (hint)' : ''}`],
      ...[isExact ? colors.green('yes') : colors.yellow('no'), wrap(cannotHold)],
    ]),
  )
  return textTable(['table', 'column', 'PostgreSQL', 'DuckDB', 'held exactly', 'what it could not hold'], rows)
}

/** Breaks long cells at words, so that the table fits a terminal. */
function wrap(text: string): string {
  const lines = ['']
  for (const word of text.split(' ')) {
    const line = lines.at(-1) ?? ''
    if (line !== '' && line.length + word.length > 70) lines.push(word)
    else lines[lines.length - 1] = line === '' ? word : `${line} ${word}`
  }
  return lines.join('\n')
}
