import Table from 'cli-table3'
import type { Measurement } from './measure.ts'
import { MAXIMUM_RSS_BYTES, type Workload } from './workloads.ts'

/** One workload's figures over its runs. */
export interface WorkloadReport {
  readonly workload: string
  readonly title: string
  readonly size: number
  readonly runs: readonly Measurement[]
  /** Medians over the runs; of the references of one run the mean of the one before and the one after. */
  readonly seconds: number
  readonly rowsPerSecond: number
  readonly reference: string
  readonly referenceRowsPerSecond: number | null
  /** Our speed ÷ the reference's of the same run. */
  readonly ratio: number | null
  readonly minimumRatio: number
  readonly workerCpuSecondsPerMillion: number | null
  readonly postgresCpuSecondsPerMillion: number | null
  readonly peakRssBytes: number | null
  readonly isRatioReached: boolean | null
  readonly isMemoryReached: boolean | null
  readonly faults: readonly string[]
}

/** The middle value, or the mean of the two in the middle; null where some run has none. */
export function median(values: readonly (number | null)[]): number | null {
  const known = values.filter((value) => value !== null).sort((left, right) => left - right)
  const upper = known[Math.floor(known.length / 2)]
  const lower = known[Math.ceil(known.length / 2) - 1]
  return upper === undefined || lower === undefined || known.length < values.length ? null : (upper + lower) / 2
}

/** Puts the runs of one workload together. */
export function summarize(workload: Workload, runs: readonly Measurement[]): WorkloadReport {
  const referenceOf = (run: Measurement): number | null =>
    run.referenceSeconds.length === 0 ? null : run.referenceSeconds.reduce((sum, each) => sum + each, 0) / run.referenceSeconds.length
  const perMillion = (seconds: number | null): number | null => (seconds === null ? null : (seconds / workload.size) * 1e6)
  const seconds = median(runs.map((run) => run.seconds)) ?? 0
  const referenceSeconds = median(runs.map(referenceOf))
  const ratio = median(
    runs.map((run) => {
      const reference = referenceOf(run)
      return reference === null ? null : reference / run.seconds
    }),
  )
  const peakRssBytes = runs.some((run) => run.peakRssBytes === null) ? null : Math.max(...runs.map((run) => run.peakRssBytes ?? 0))
  return {
    workload: workload.name,
    title: workload.title,
    size: workload.size,
    runs,
    seconds,
    rowsPerSecond: workload.size / seconds,
    reference: workload.kind === 'changes' ? 'pg_recvlogical' : 'COPY … csv',
    referenceRowsPerSecond: referenceSeconds === null ? null : workload.size / referenceSeconds,
    ratio,
    minimumRatio: workload.minimumRatio,
    workerCpuSecondsPerMillion: perMillion(median(runs.map((run) => run.workerCpuSeconds))),
    postgresCpuSecondsPerMillion: perMillion(median(runs.map((run) => run.postgresCpuSeconds))),
    peakRssBytes,
    isRatioReached: ratio === null ? null : ratio >= workload.minimumRatio,
    isMemoryReached: peakRssBytes === null ? null : peakRssBytes < MAXIMUM_RSS_BYTES,
    faults: runs.flatMap(({ faults }, index) => faults.map((fault) => (runs.length === 1 ? fault : `run ${index + 1}: ${fault}`))),
  }
}

/** The figures as text for a terminal. */
export function renderReports(reports: readonly WorkloadReport[]): string {
  const table = new Table({
    head: ['', 'rows', 'seconds', 'rows/s', 'reference', 'rows/s', 'ratio', 'worker CPU s/M', 'PostgreSQL CPU s/M', 'peak RSS', 'rows equal'],
    style: { head: [], border: [] },
    colAligns: ['left', ...Array<'right'>(3).fill('right'), 'left', ...Array<'right'>(5).fill('right'), 'left'],
  })
  for (const report of reports) {
    table.push([
      report.workload,
      count(report.size),
      report.seconds.toFixed(2),
      count(report.rowsPerSecond),
      report.referenceRowsPerSecond === null ? `no ${report.reference} here` : report.reference,
      orDash(report.referenceRowsPerSecond, count),
      orDash(report.ratio, (ratio) => `${ratio.toFixed(2)} ×`),
      orDash(report.workerCpuSecondsPerMillion, (seconds) => seconds.toFixed(1)),
      orDash(report.postgresCpuSecondsPerMillion, (seconds) => seconds.toFixed(1)),
      orDash(report.peakRssBytes, (bytes) => `${megabytes(bytes)} MB`),
      report.faults.length === 0 ? 'yes' : 'NO',
    ])
  }
  return [table.toString(), ...reports.flatMap(verdicts)].join('\n')
}

function verdicts(report: WorkloadReport): readonly string[] {
  const { workload, ratio, minimumRatio, reference, isRatioReached, peakRssBytes, isMemoryReached } = report
  return [
    `${workload}: ${report.title}`,
    isRatioReached === null
      ? `  ${reference} is not on this machine: no ratio`
      : `  ${reached(isRatioReached)}: ${orDash(ratio, (value) => value.toFixed(2))} × ${reference} (aim: ≥ ${minimumRatio} ×)`,
    isMemoryReached === null ? '  memory could not be measured' : `  ${reached(isMemoryReached)}: peak RSS ${megabytes(peakRssBytes ?? 0)} MB (aim: < ${megabytes(MAXIMUM_RSS_BYTES)} MB)`,
    ...report.faults.map((fault) => `  WRONG: ${fault}`),
  ]
}

const reached = (isReached: boolean): string => (isReached ? 'reached' : 'NOT reached')
const count = (value: number): string => Math.round(value).toLocaleString('en')
const megabytes = (bytes: number): string => String(Math.round(bytes / 1024 / 1024))
const orDash = (value: number | null, show: (value: number) => string): string => (value === null ? '–' : show(value))
