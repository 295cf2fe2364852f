/** One metric: the only place that knows its name, unit and meaning. */
export interface MetricEntry {
  /** As it is scraped; the unit is its ending, as Prometheus has it. */
  readonly name: string
  readonly kind: 'counter' | 'gauge' | 'histogram'
  readonly labels: readonly string[]
  /** One sentence or two, for the documentation and the endpoint's `# HELP`. */
  readonly description: string
  /** Upper bounds of a histogram's buckets, in the metric's unit. */
  readonly buckets?: readonly number[]
}

/** Whose figures they are. Never a workflow id: those of schedules are without number. */
const PIPELINE = ['source', 'destination', 'slot'] as const

/** Names and labels are a contract with dashboards and alerts (`examples/`): a change is a change of the major version. */
export const METRICS = {
  lagBytes: {
    name: 'pg_replication_lag_bytes',
    kind: 'gauge',
    labels: PIPELINE,
    description: 'WAL that the source has written and the destination has not applied yet.',
  },
  lagSeconds: {
    name: 'pg_replication_lag_seconds',
    kind: 'gauge',
    labels: PIPELINE,
    description: 'How long ago the source stood where the destination stands now; 0 when everything is applied.',
  },
  retainedWalBytes: {
    name: 'pg_replication_retained_wal_bytes',
    kind: 'gauge',
    labels: PIPELINE,
    description: 'WAL that the slot holds back on the disk of the source.',
  },
  maxSlotWalKeepBytes: {
    name: 'pg_replication_wal_keep_limit_bytes',
    kind: 'gauge',
    labels: PIPELINE,
    description: 'max_slot_wal_keep_size of the source: with more than that held back the slot may be lost. NaN where there is no limit.',
  },
  spoolBytes: {
    name: 'pg_replication_spool_bytes',
    kind: 'gauge',
    labels: PIPELINE,
    description: 'Changes kept in files beside the destination: of the whole stream while the destination is down or paused, and of stopped tables.',
  },
  tables: {
    name: 'pg_replication_tables',
    kind: 'gauge',
    labels: [...PIPELINE, 'state'],
    description: 'Tables by state: pending, snapshotting, streaming, failed, removed.',
  },
  figuresTime: {
    name: 'pg_replication_figures_timestamp_seconds',
    kind: 'gauge',
    labels: PIPELINE,
    description: 'Unix time at which the gauges of this pipeline were set.',
  },
  changes: {
    name: 'pg_replication_changes_total',
    kind: 'counter',
    labels: [...PIPELINE, 'table', 'operation'],
    description: 'Changes that are committed at the destination, by operation: insert, update, delete, truncate.',
  },
  copiedRows: {
    name: 'pg_replication_copied_rows_total',
    kind: 'counter',
    labels: [...PIPELINE, 'table'],
    description: 'Rows of initial loads and resyncs (and rows read by syncByXmin, whose slot is empty) that are committed at the destination.',
  },
  commitSeconds: {
    name: 'pg_replication_commit_duration_seconds',
    kind: 'histogram',
    labels: [...PIPELINE, 'work'],
    description: 'Time of one destination commit with all that it writes, by work: stream, copy, or replay of the kept changes of a stopped table.',
    buckets: [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300],
  },
  batchRows: {
    name: 'pg_replication_batch_rows',
    kind: 'histogram',
    labels: [...PIPELINE, 'work'],
    description: 'Rows or changes of one destination commit.',
    buckets: [1, 10, 100, 1_000, 10_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 10_000_000],
  },
  batchBytes: {
    name: 'pg_replication_batch_bytes',
    kind: 'histogram',
    labels: [...PIPELINE, 'work'],
    description: 'Staged bytes of one destination commit.',
    buckets: [1_024, 16_384, 262_144, 1_048_576, 4_194_304, 16_777_216, 67_108_864, 268_435_456, 1_073_741_824],
  },
  sessions: {
    name: 'pg_replication_sessions_total',
    kind: 'counter',
    labels: PIPELINE,
    description: 'How often this worker has connected to the slot and opened the destination: once at the start, then after each fault, pause, changed option or stopped table.',
  },
  failures: {
    name: 'pg_replication_failures_total',
    kind: 'counter',
    labels: [...PIPELINE, 'type', 'final'],
    description: 'Failed attempts by error type; final="true" where no retry mends it and somebody has to.',
  },
  stopped: {
    name: 'pg_replication_stopped',
    kind: 'gauge',
    labels: [...PIPELINE, 'type'],
    description: '1 from a failure that no retry mends, whose error type it names, until the pipeline goes on or a stop ends it; then 0.',
  },
  verifiedRows: {
    name: 'pg_replication_verified_rows',
    kind: 'gauge',
    labels: [...PIPELINE, 'table'],
    description: 'Rows of the source that the last verification which ended at this worker has compared. NaN where it could not compare the table, or did not look at it.',
  },
  differentRows: {
    name: 'pg_replication_different_rows',
    kind: 'gauge',
    labels: [...PIPELINE, 'table'],
    description: 'Rows that differed in that verification and were not put right. NaN where it could not compare the table, or did not look at it.',
  },
  verifiedTime: {
    name: 'pg_replication_verified_timestamp_seconds',
    kind: 'gauge',
    labels: PIPELINE,
    description: 'Unix time at which that verification ended.',
  },
  eventLoopDelay: {
    name: 'pg_replication_event_loop_delay_seconds',
    kind: 'gauge',
    labels: ['statistic'],
    description: 'How late timers of the worker fire: mean, p99 and max of the last 5 s. Seconds of it starve heartbeats and status updates.',
  },
} as const satisfies Readonly<Record<string, MetricEntry>>

/** Where nothing else is said: loopback, and the port that OpenTelemetry's own Prometheus exporters have. */
export const DEFAULT_METRICS_ADDRESS = '127.0.0.1:9464'
