import Table from 'cli-table3'
import colors from '../terminal-colors.ts'

import type { Phase, ReplicationStatus, TableState, TableStatus } from '../model/status.ts'
import { formatBytes, formatDuration } from '../model/units.ts'
import { copiedShare, progressBar, sparkline, type Trend } from './readings.ts'
import type { LiveStatus } from './replication-status.ts'

const NONE = '–'

function bytesOrNone(bytes: number | null): string {
  return bytes === null ? NONE : formatBytes(bytes)
}

function lagText({ lagBytes, lagMs }: ReplicationStatus): string {
  return `${bytesOrNone(lagBytes)}, ${lagMs === null ? NONE : formatDuration(lagMs)}`
}

/** A table of plain style. */
export function textTable(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const table = new Table({ head: head.map((cell) => colors.bold(cell)), style: { head: [], border: [], compact: true } })
  for (const row of rows) table.push([...row])
  return table.toString()
}

const PHASE_COLORS: Readonly<Record<Phase, (text: string) => string>> = {
  initializing: colors.cyan,
  snapshotting: colors.cyan,
  streaming: colors.green,
  paused: colors.yellow,
  failed: colors.red,
  stopped: colors.dim,
}

const STATE_COLORS: Readonly<Record<TableState, (text: string) => string>> = {
  pending: colors.dim,
  snapshotting: colors.cyan,
  streaming: colors.green,
  failed: colors.red,
  removed: colors.dim,
}

/** One replication in full; with a trend where it is watched. */
export function statusText({ workflowId, status, activity }: LiveStatus, trend: Trend | null = null): string {
  const rate = trend?.rowsPerSecond ?? null
  const phase = PHASE_COLORS[status.phase](colors.bold(status.phase))
  const facts = [
    ['applied LSN', status.appliedLsn ?? NONE],
    ['source LSN', status.sourceLsn ?? NONE],
    ['confirmed', status.confirmedFlushLsn ?? NONE],
    ['lag', lagText(status)],
    ['WAL retained', bytesOrNone(status.retainedWalBytes)],
    ...(rate === null ? [] : [['rows/s', Math.round(rate).toLocaleString('en')]]),
    ['as of', status.asOf],
  ]
  const lines = [
    `${workflowId}: ${phase}${activity === null ? '' : colors.dim(` (${activity})`)}`,
    `slot ${status.slotName}, publication ${status.publicationName}`,
    facts.map(([name, value]) => `${colors.dim(name ?? '')} ${value ?? ''}`).join('   '),
    ...(trend === null || trend.lagBytes.length < 2 ? [] : [`${colors.dim('lag')} ${sparkline(trend.lagBytes)} ${colors.dim(`at most ${formatBytes(Math.max(0, ...trend.lagBytes.map((bytes) => bytes ?? 0)))}`)}`]),
    tablesText(status, trend),
    ...Object.entries(status.tables).flatMap(([name, table]) => copyText(name, table, trend)),
    ...Object.entries(status.tables).flatMap(([name, { error }]) =>
      error === undefined ? [] : [`${colors.red(`${name}: ${error.type}`)}: ${indented(error.message).trimStart()}`, indented(error.remedy)],
    ),
    ...status.warnings.map((warning) => `${colors.yellow('warning')}: ${warning}`),
    ...(status.lastError === undefined
      ? []
      : status.phase === 'stopped' ? [colors.dim(`before it was stopped: ${status.lastError.type}: ${status.lastError.message}`)]
      : [`${colors.red(status.lastError.type)}: ${status.lastError.message}`, indented(status.lastError.remedy)]),
  ]
  return lines.join('\n')
}

function indented(text: string): string {
  return text.replaceAll(/^/gm, '  ')
}

function tablesText(status: ReplicationStatus, trend: Trend | null): string {
  const rows = Object.entries(status.tables).map(([name, table]) => [
    name,
    STATE_COLORS[table.state](table.state),
    ...[table.snapshotRows, table.inserts, table.updates, table.deletes, table.truncates].map((count) => count.toLocaleString('en')),
    table.lastCommitLsn ?? NONE,
    ...(trend === null ? [] : [rateText(trend.tableRates[name])]),
  ])
  return rows.length === 0
    ? colors.dim('no tables yet')
    : textTable(['table', 'state', 'copied', 'inserts', 'updates', 'deletes', 'truncates', 'last commit LSN', ...(trend === null ? [] : ['rows/s'])], rows)
}

/** `public.orders ████░░░░ 42 % of about 1,234,567 rows, 3 min left` */
function copyText(name: string, table: TableStatus, trend: Trend | null): readonly string[] {
  const share = copiedShare(table)
  if (share === null) return []
  const left = trend?.remainingMs[name]
  return [`${name} ${colors.cyan(progressBar(share))} ${String(Math.floor(share * 100))} % of about ${(table.copying?.estimatedRows ?? 0).toLocaleString('en')} rows${left === undefined ? '' : `, ${formatDuration(left)} left`}`]
}

function rateText(rate: number | undefined): string {
  return rate === undefined ? NONE : Math.round(rate).toLocaleString('en')
}

/** Why a replication, or tables of it, do not go on. */
function troublesOf({ workflowId, status: { lastError, tables } }: LiveStatus): readonly string[] {
  const failed = Object.entries(tables).flatMap(([name, { error }]) => (error === undefined ? [] : [{ ...error, message: `${name}: ${error.message}` }]))
  return [...(lastError === undefined ? [] : [lastError]), ...failed].map(({ type, message, remedy }) => `${workflowId}: ${colors.red(type)}: ${indented(message).trimStart()}\n${indented(remedy)}`)
}

/** All open replications, one line each, and what is wrong with them. */
export function overviewText(replications: readonly ({ readonly workflowId: string; readonly error: string } | LiveStatus)[]): string {
  if (replications.length === 0) return 'no replication is open (npm run cli -- start begins one)'
  const rows = replications.map((replication) => {
    if ('error' in replication) return [replication.workflowId, colors.red(replication.error), NONE, NONE, NONE, NONE]
    const { status } = replication
    const states = Object.values(status.tables).map(({ state }) => state)
    const failed = states.filter((state) => state === 'failed').length
    return [
      replication.workflowId,
      PHASE_COLORS[status.phase](status.phase),
      `${states.length}${failed === 0 ? '' : colors.red(` (${failed} failed)`)}`,
      status.appliedLsn ?? NONE,
      lagText(status),
      bytesOrNone(status.retainedWalBytes),
    ]
  })
  const troubles = replications.flatMap((replication) => ('error' in replication ? [] : troublesOf(replication)))
  return [textTable(['workflow id', 'phase', 'tables', 'applied LSN', 'lag', 'WAL retained'], rows), ...troubles].join('\n')
}
