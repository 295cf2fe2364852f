import type { Command } from 'commander'
import colors from '../terminal-colors.ts'

import { type Config, type ConfigProblem, type DestinationConfig, readConfig, resolveDestination, resolveSource, taskQueuesOf } from '../config.ts'
import { parseReplicationInput } from '../model/spec-parse.ts'
import type { UnresolvedSpec } from '../model/spec.ts'
import { runPreflight, type SourceInspection } from '../postgres/preflight.ts'
import type { SourceRequest } from '../postgres/source-request.ts'
import { sourceRequestOf } from '../replication/source-request-of.ts'
import { answer } from './answer.ts'
import type { Check } from './check.ts'
import { checkDestination } from './check-destination.ts'
import { checkFidelity, type Fidelity, type TableFidelity } from './check-fidelity.ts'
import { checkTemporal } from './check-temporal.ts'
import { describeFailure } from './failure.ts'
import { type KnownPipeline, readKnownPipeline } from './known-pipeline.ts'
import { addSpecOptions, specInput } from './spec-options.ts'
import { textTable } from './status-text.ts'

/** A name that does not exist yet: what is checked then is whether it could be made. */
const UNNAMED = 'not_made_yet'

/** `doctor`: everything that a replication needs, checked one by one; changes nothing but by `--register`. */
export function addDoctor(program: Command): void {
  const command = addSpecOptions(
    program
      .command('doctor')
      .description('check configuration, sources, destinations and Temporal; with --slot, --publication, --tables also what a start needs, and how each column would be held')
      .option('--full', 'look at every row of the tables, not at a sample')
      .option('--register', 'make the search attributes by which Temporal lists replications, where its namespace lacks them'),
  )
  answer(command, async () => {
    const given = specInput(command)
    const { full, register } = command.opts<{ readonly full?: boolean; readonly register?: boolean }>()
    const isFull = full === true
    const isGiven = Object.keys(given).length > 0 || isFull
    const spec = isGiven ? parseReplicationInput({ slotName: UNNAMED, publicationName: UNNAMED, ...given }, { of: 'doctor', storedIn: null }) : null
    const { config, problems } = readConfig({ env: process.env })
    const known = await knownOf(config, spec)
    const [sources, destinations, temporal] = await Promise.all([checkSources(config, spec, known), checkDestinations(config, spec), checkTemporal(process.env, taskQueuesOf(config), register === true)])
    const fidelity = await checkTables(config, { spec, known, inspection: sources.inspection, isFull })
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

async function checkSources(config: Config, spec: UnresolvedSpec | null, known: KnownPipeline | null): Promise<{ readonly checks: readonly Check[]; readonly inspection: SourceInspection | null }> {
  const failure = failureOf(() => (spec === null ? null : resolveSource(config, spec.source)))
  const wanted = spec === null || failure !== null ? null : resolveSource(config, spec.source).name
  let inspection: SourceInspection | null = null
  const found = await Promise.all(
    Object.values(config.sources).map(async ({ name, credentials, makesFailoverSlots }): Promise<readonly Check[]> => {
      const request = spec !== null && name === wanted ? requestOf(spec, known) : null
      const preflight = await runPreflight(credentials, { request, makesFailoverSlots })
      inspection = preflight.inspection ?? inspection
      // That something could be made under a name that nobody gave is nothing to tell.
      const told = preflight.findings.filter((finding) => finding.state !== 'ok' || !finding.message.includes(`"${UNNAMED}"`))
      return told.map((finding) => ({ subject: `source ${name}`, name: finding.name, state: finding.state, message: finding.message, remedy: finding.remedy }))
    }),
  )
  return { checks: [...(failure === null ? [] : [{ subject: 'source', name: 'name', state: 'failure' as const, ...failure }]), ...found.flat()], inspection }
}

/** Nothing where no table was asked about, or its source or destination is not there to be asked. */
async function checkTables(
  config: Config,
  { spec, known, inspection, isFull }: { readonly spec: UnresolvedSpec | null; readonly known: KnownPipeline | null; readonly inspection: SourceInspection | null; readonly isFull: boolean },
): Promise<Fidelity> {
  if (spec === null || inspection === null || failureOf(() => resolveDestination(config, spec.destination)) !== null) return { checks: [], tables: {} }
  const source = resolveSource(config, spec.source)
  const destination = resolveDestination(config, spec.destination)
  const resolved = { ...spec, source: source.name, destination: destination.name }
  return checkFidelity({ credentials: source.credentials, spec: resolved, request: requestOf(spec, known), known: known?.state?.tables ?? [], inspection, destination, isFull })
}

/** What the destination knows already of the slot: a start is checked with it. Null where there is nothing to be read. */
async function knownOf(config: Config, spec: UnresolvedSpec | null): Promise<KnownPipeline | null> {
  if (spec === null || spec.slotName === UNNAMED || failureOf(() => [resolveSource(config, spec.source), resolveDestination(config, spec.destination)]) !== null) return null
  return readKnownPipeline(resolveDestination(config, spec.destination), { source: resolveSource(config, spec.source).name, slotName: spec.slotName })
}

function requestOf(spec: UnresolvedSpec, known: KnownPipeline | null): SourceRequest {
  return sourceRequestOf(spec, known?.destinationId ?? null, known?.state ?? null)
}

async function checkDestinations(config: Config, spec: UnresolvedSpec | null): Promise<readonly Check[]> {
  const failure = failureOf(() => (spec === null ? null : resolveDestination(config, spec.destination)))
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
