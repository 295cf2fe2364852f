import Table from 'cli-table3'
import type { GrowthStep, Measurement } from './measure-sync.ts'
import type { ReferenceName } from './references.ts'
import type { WorkloadName } from './options.ts'
import type { Aim, FigureName, Workload } from './workloads.ts'

/** Our speed by a reference's of the same run. */
export interface Ratio {
  readonly reference: ReferenceName
  /** Medians. */
  readonly referenceSeconds: number
  readonly ratio: number
}

/** One workload's figures over its runs. Medians, unless said otherwise; null = unknown. */
export interface WorkloadReport {
  readonly workload: string
  readonly title: string
  readonly size: number
  readonly runs: readonly Measurement[]
  readonly seconds: number | null
  readonly rowsPerSecond: number | null
  readonly ratios: readonly Ratio[]
  readonly workerCpuSecondsPerMillion: number | null
  readonly postgresCpuSecondsPerMillion: number | null
  /** The highest of all runs. */
  readonly peakRssBytes: number | null
  readonly figures: Readonly<Partial<Record<FigureName, number>>>
  /** Of the last run. */
  readonly steps: readonly GrowthStep[]
  readonly verdicts: readonly Verdict[]
  readonly faults: readonly string[]
}

/** An aim, and whether it was reached; null where its figure is unknown. */
export interface Verdict {
  readonly aim: Aim
  readonly value: number | null
  readonly isReached: boolean | null
}

/** The middle value, or the mean of the two in the middle; null where some run has none. */
export function median(values: readonly (number | null)[]): number | null {
  const known = values.filter((value) => value !== null).sort((left, right) => left - right)
  const upper = known[Math.floor(known.length / 2)]
  const lower = known[Math.ceil(known.length / 2) - 1]
  return upper === undefined || lower === undefined || known.length < values.length ? null : (upper + lower) / 2
}

const RATIO_FIGURES: Readonly<Record<ReferenceName, FigureName>> = {
  'pg_recvlogical': 'ratioToRecvlogical',
  'COPY csv': 'ratioToCopy',
  'DuckDB postgres': 'ratioToDuckdbExtension',
  'dlt': 'ratioToDlt',
  'Debezium': 'ratioToDebezium',
  'ingestr': 'ratioToIngestr',
}

/** Whose work is the same but for one thing, and the figure that tells what this comes to. */
const PLAIN: Readonly<Partial<Record<WorkloadName, readonly [plain: WorkloadName, figure: FigureName]>>> = { W4: ['W1', 'ratioToUnencrypted'], W2A: ['W2', 'ratioToMerge'], W2S: ['W2', 'ratioToMerge'] }

/** Puts the runs of one workload together; `others` are reports of the same bench, some of which may be of the same work without TLS or history. */
export function summarize(workload: Workload, runs: readonly Measurement[], others: readonly WorkloadReport[] = []): WorkloadReport {
  const [plainName, plainFigure] = PLAIN[workload.name] ?? []
  const plainSeconds = others.find((report) => report.workload === plainName)?.seconds ?? null
  const seconds = median(runs.map((run) => run.seconds))
  const perMillion = (spent: number | null): number | null => (spent === null || workload.size === 0 ? null : (spent / workload.size) * 1e6)
  const ratios = ratiosOf(runs)
  const names = [...new Set(runs.flatMap(({ figures }) => Object.keys(figures) as FigureName[]))]
  const measured = Object.fromEntries(names.map((name) => [name, median(runs.map(({ figures }) => figures[name] ?? null))]))
  const peakRssBytes = runs.some((run) => run.peakRssBytes === null) ? null : Math.max(...runs.map((run) => run.peakRssBytes ?? 0))
  const figures: Partial<Record<FigureName, number>> = {
    ...withoutNull(measured),
    ...Object.fromEntries(ratios.map(({ reference, ratio }) => [RATIO_FIGURES[reference], ratio])),
    ...(peakRssBytes === null ? {} : { peakRssBytes }),
    ...(plainFigure !== undefined && seconds !== null && plainSeconds !== null ? { [plainFigure]: plainSeconds / seconds } : {}),
  }
  return {
    workload: workload.name,
    title: workload.title,
    size: workload.size,
    runs,
    seconds,
    rowsPerSecond: seconds === null ? null : workload.size / seconds,
    ratios,
    workerCpuSecondsPerMillion: perMillion(median(runs.map((run) => run.workerCpuSeconds))),
    postgresCpuSecondsPerMillion: perMillion(median(runs.map((run) => run.postgresCpuSeconds))),
    peakRssBytes,
    figures,
    steps: runs.at(-1)?.steps ?? [],
    verdicts: workload.aims.map((aim) => verdictOf(aim, figures)),
    faults: runs.flatMap(({ faults }, index) => faults.map((fault) => (runs.length === 1 ? fault : `run ${index + 1}: ${fault}`))),
  }
}

/** Each run is compared with the references around it, not with those of other runs: the mean of the one before and the one after. */
function ratiosOf(runs: readonly Measurement[]): readonly Ratio[] {
  const names = [...new Set(runs.flatMap(({ references }) => references.map(({ name }) => name)))]
  return names.flatMap((reference) => {
    const times = runs.map((run) => mean(run.references.find(({ name }) => name === reference)?.seconds ?? []))
    const referenceSeconds = median(times)
    const ratio = median(runs.map(({ seconds }, index) => (seconds === null || times[index] == null ? null : times[index] / seconds)))
    return referenceSeconds === null || ratio === null ? [] : [{ reference, referenceSeconds, ratio }]
  })
}

function mean(values: readonly number[]): number | null {
  return values.length === 0 ? null : values.reduce((sum, each) => sum + each, 0) / values.length
}

function withoutNull(values: Readonly<Record<string, number | null>>): Readonly<Record<string, number>> {
  return Object.fromEntries(Object.entries(values).flatMap(([name, value]) => (value === null ? [] : [[name, value]])))
}

function verdictOf(aim: Aim, figures: WorkloadReport['figures']): Verdict {
  const value = figures[aim.figure] ?? null
  return { aim, value, isReached: value === null ? null : value >= (aim.atLeast ?? -Infinity) && value <= (aim.atMost ?? Infinity) }
}

/** The figures as text for a terminal. */
export function renderReports(reports: readonly WorkloadReport[]): string {
  const table = new Table({
    head: ['', 'rows', 'seconds', 'rows/s', 'reference', 'rows/s', 'ratio', 'worker CPU s/M', 'PostgreSQL CPU s/M', 'peak RSS', 'rows equal'],
    style: { head: [], border: [] },
    colAligns: ['left', ...Array<'right'>(3).fill('right'), 'left', ...Array<'right'>(5).fill('right'), 'left'],
  })
  for (const report of reports) {
    const { size, ratios } = report
    table.push([
      report.workload,
      size === 0 ? '–' : count(size),
      orDash(report.seconds, (seconds) => seconds.toFixed(2)),
      orDash(size === 0 ? null : report.rowsPerSecond, count),
      ratios.map(({ reference }) => reference).join('\n') || '–',
      ratios.map(({ referenceSeconds }) => count(size / referenceSeconds)).join('\n'),
      ratios.map(({ ratio }) => `${ratio.toFixed(2)} ×`).join('\n'),
      orDash(report.workerCpuSecondsPerMillion, (seconds) => seconds.toFixed(1)),
      orDash(report.postgresCpuSecondsPerMillion, (seconds) => seconds.toFixed(1)),
      orDash(report.peakRssBytes, (bytes) => megabytes(bytes)),
      report.faults.length === 0 ? 'yes' : 'NO',
    ])
  }
  return [table.toString(), ...reports.flatMap(reportLines)].join('\n')
}

function reportLines({ workload, title, verdicts, steps, faults }: WorkloadReport): readonly string[] {
  return [
    `${workload}: ${title}`,
    ...steps.map(({ size, seconds, workerCpuSeconds }) => `  ${count(size)}: ${seconds.toFixed(2)} s, ${orDash(workerCpuSeconds, (spent) => spent.toFixed(2))} CPU s`),
    ...verdicts.map(verdictText),
    ...faults.map((fault) => `  WRONG: ${fault}`),
  ]
}

/** What a figure is called, and how its values are written. */
export const FIGURES: Readonly<Record<FigureName, { readonly title: string; readonly show: (value: number) => string }>> = {
  ratioToRecvlogical: { title: '÷ pg_recvlogical', show: times },
  ratioToCopy: { title: '÷ COPY … csv', show: times },
  ratioToDuckdbExtension: { title: "÷ DuckDB's postgres extension", show: times },
  ratioToDlt: { title: "÷ dlt's source", show: times },
  ratioToDebezium: { title: "÷ Debezium's embedded engine", show: times },
  ratioToIngestr: { title: '÷ ingestr', show: times },
  ratioToUnencrypted: { title: '÷ W1 without TLS', show: times },
  ratioToMerge: { title: '÷ W2 (merge)', show: times },
  peakRssBytes: { title: 'peak RSS', show: megabytes },
  latencyP50Ms: { title: 'commit to visible, p50', show: milliseconds },
  latencyP99Ms: { title: 'commit to visible, p99', show: milliseconds },
  reachRatio: { title: 'large table ÷ small table', show: times },
  reachSmallMs: { title: 'transaction on the small table', show: milliseconds },
  reachLargeMs: { title: 'transaction on the large table', show: milliseconds },
  idleCpuShare: { title: 'share of a core', show: (value) => `${(value * 100).toFixed(2)} %` },
  idleEventsPer10s: { title: 'history events per 10 s', show: (value) => value.toFixed(2) },
  eventLoopDelayP99Ms: { title: 'event loop delay, p99', show: milliseconds },
  checkpointSeconds: { title: "of it DuckDB's checkpoint at the end", show: (value) => `${value.toFixed(2)} s` },
  verifiedPerSecond: { title: 'rows/s, all equal', show: count },
  verifiedPerSecondOneWrong: { title: 'rows/s, one wrong', show: count },
  costGrowth: { title: 'cost of a unit in the largest step ÷ in the cheapest before it', show: times },
}

function verdictText({ aim, value, isReached }: Verdict): string {
  const { title, show } = FIGURES[aim.figure]
  const bound = aim.atLeast === undefined ? `≤ ${show(aim.atMost ?? 0)}` : `≥ ${show(aim.atLeast)}`
  if (value === null || isReached === null) return `  not measured here: ${title} (aim: ${bound})`
  return `  ${isReached ? 'reached' : 'NOT reached'}: ${title} ${show(value)} (aim: ${bound})`
}

function times(value: number): string {
  return `${value.toFixed(2)} ×`
}

function milliseconds(value: number): string {
  return `${value.toFixed(0)} ms`
}

function megabytes(bytes: number): string {
  return `${Math.round(bytes / 1024 / 1024)} MB`
}

const orDash = (value: number | null, show: (value: number) => string): string => (value === null ? '–' : show(value))

function count(value: number): string {
  return Math.round(value).toLocaleString('en')
}
