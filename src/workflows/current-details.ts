import { isStatement } from '../model/remedy.ts'
import type { ReplicationStatus, TableStatus } from '../model/status.ts'

/** The UI cuts long texts; the query has them all. */
const MAX_TABLES = 40

/**
 * Markdown for the UI: phase, position, lag, tables and their state (issue 3, section 6). Needs no history; names are escaped so that
 * no table name breaks the table.
 */
export function currentDetailsOf(status: ReplicationStatus): string {
  const { lastError } = status
  const tables = Object.entries(status.tables)
  const lines = [
    `**${status.phase}** · slot ${code(status.slotName)} · publication ${code(status.publicationName)}`,
    '',
    '| applied LSN | source LSN | lag | as of |',
    '| --- | --- | --- | --- |',
    `| ${lsnText(status.appliedLsn)} | ${lsnText(status.sourceLsn)} | ${lagText(status)} | ${code(status.asOf)} |`,
    ...(lastError === undefined ? [] : ['', ...textLines(`**${lastError.type}**: `, lastError.message), '', ...textLines('Remedy: ', lastError.remedy)]),
  ]
  if (tables.length > 0) {
    lines.push('', '| table | state | copied rows | inserts | updates | deletes | last commit |', '| --- | --- | ---: | ---: | ---: | ---: | --- |')
    // Those that need a hand come first.
    const sorted = tables.toSorted(([, a], [, b]) => Number(b.state === 'failed') - Number(a.state === 'failed'))
    lines.push(...sorted.slice(0, MAX_TABLES).map(([name, table]) => tableLine(name, table)))
    if (tables.length > MAX_TABLES) lines.push('', `and ${tables.length - MAX_TABLES} more tables (query status)`)
    for (const [name, { error }] of sorted.slice(0, MAX_TABLES)) {
      if (error !== undefined) lines.push('', ...textLines(`${code(name)}: **${error.type}** `, error.message), '', ...textLines('Remedy: ', error.remedy))
    }
  }
  if (status.warnings.length > 0) lines.push('', ...status.warnings.slice(0, MAX_TABLES).map((warning) => `- warning: ${escape(warning)}`))
  return lines.join('\n')
}

/** A message or a remedy behind `title`. Statements stand in blocks of code, as they are to be pasted. */
function textLines(title: string, text: string): readonly string[] {
  const [first = '', ...rest] = text.split('\n')
  const isTitleAlone = isStatement(first)
  const lines = [isTitleAlone ? title.trimEnd() : `${title}${escape(first)}`]
  let isInBlock = false
  for (const line of isTitleAlone ? [first, ...rest] : rest) {
    if (isStatement(line) !== isInBlock) {
      lines.push('```')
      isInBlock = !isInBlock
    }
    lines.push(isInBlock ? line.replaceAll('`', "'") : escape(line))
  }
  return isInBlock ? [...lines, '```'] : lines
}

function tableLine(name: string, table: TableStatus): string {
  const { copying } = table
  const copied = copying === undefined ? table.snapshotRows : `${String(table.snapshotRows)} of about ${String(copying.estimatedRows)}`
  const cells = [code(name), table.state, copied, table.inserts, table.updates, table.deletes, lsnText(table.lastCommitLsn)]
  return `| ${cells.join(' | ')} |`
}

/** As code: the UI sets cells without a gap between them, and a count before a bare LSN reads as one number. */
function lsnText(lsn: string | null): string {
  return lsn === null ? '–' : code(lsn)
}

function lagText({ lagBytes, lagMs }: ReplicationStatus): string {
  if (lagBytes === null) return '–'
  return lagMs === null ? `${lagBytes} bytes` : `${lagBytes} bytes, ${lagMs} ms`
}

function escape(text: string): string {
  return text.replaceAll(/[\\|<>*_`[\]]/g, String.raw`\$&`).replaceAll(/\s+/g, ' ')
}

function code(text: string): string {
  return `\`${text.replaceAll('`', "'").replaceAll('|', '¦').replaceAll(/\s+/g, ' ')}\``
}
