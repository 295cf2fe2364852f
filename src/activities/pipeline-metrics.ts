import type { MetricCounter, MetricGauge, MetricHistogram, MetricMeter } from '@temporalio/common'
import { METRICS, type MetricEntry } from '../model/metrics.ts'
import type { LiveProgress, Measure } from '../model/replication.ts'
import { TABLE_STATES } from '../model/status.ts'
import type { VerifyProgress } from '../model/verification.ts'

/** Whose figures they are; without a slot where none is used (`syncByXmin`). */
export interface PipelineId {
  readonly source: string
  readonly destination: string
  readonly slotName: string | null
}

type Labels = Readonly<Record<'source' | 'destination' | 'slot', string>>
type MetricKey = keyof typeof METRICS
type KeysOf<Kind extends MetricEntry['kind']> = { [Key in MetricKey]: (typeof METRICS)[Key]['kind'] extends Kind ? Key : never }[MetricKey]

/** The metrics of `model/metrics.ts` on somebody's meter: the SDK's, whose endpoint shows them beside its own. */
export class MetricSet {
  readonly #gauges = new Map<string, MetricGauge>()
  readonly #counters = new Map<string, MetricCounter>()
  readonly #histograms = new Map<string, MetricHistogram>()

  constructor(meter: MetricMeter) {
    for (const { name, kind, description } of Object.values<MetricEntry>(METRICS)) {
      if (kind === 'gauge') this.#gauges.set(name, meter.createGauge(name, 'float', '', description))
      else if (kind === 'counter') this.#counters.set(name, meter.createCounter(name, '', description))
      else this.#histograms.set(name, meter.createHistogram(name, 'float', '', description))
    }
  }

  /** Null = not known: NaN, which no alert takes for a figure. */
  set(key: KeysOf<'gauge'>, value: number | null, labels: Readonly<Record<string, string>>): void {
    this.#gauges.get(METRICS[key].name)?.set(value ?? Number.NaN, labels)
  }

  add(key: KeysOf<'counter'>, value: number, labels: Readonly<Record<string, string>>): void {
    this.#counters.get(METRICS[key].name)?.add(value, labels)
  }

  record(key: KeysOf<'histogram'>, value: number, labels: Readonly<Record<string, string>>): void {
    this.#histograms.get(METRICS[key].name)?.record(value, labels)
  }
}

const PIPELINE_GAUGES = ['lagBytes', 'lagSeconds', 'retainedWalBytes', 'maxSlotWalKeepBytes', 'spoolBytes', 'figuresTime'] as const satisfies readonly KeysOf<'gauge'>[]

/**
 * What the pipelines of this worker measure. Gauges are of whoever reports: once it lets go of the slot they are NaN, because what nobody looks at any more
 * is not known (it may have gone on at another worker).
 */
export class PipelineMetrics {
  readonly #metrics: MetricSet
  /** By pipeline: who has set its gauges. */
  readonly #owners = new Map<string, string>()
  /** By pipeline: the error type that it has stopped with. */
  readonly #stopped = new Map<string, string>()
  /** By pipeline: the tables that its last verification told of. */
  readonly #verified = new Map<string, readonly string[]>()

  constructor(metrics: MetricSet) {
    this.#metrics = metrics
  }

  /** Live figures of an activity. What says nothing of the slot changes nothing. */
  report(pipeline: PipelineId, owner: string, { progress, slot }: LiveProgress): void {
    if (progress === undefined && slot === undefined) return
    const labels = labelsOf(pipeline)
    this.#owners.set(keyOf(pipeline), owner)
    this.#metrics.set('lagBytes', progress?.lagBytes ?? null, labels)
    this.#metrics.set('lagSeconds', progress?.lagMs == null ? null : progress.lagMs / 1_000, labels)
    if (slot !== undefined) {
      this.#metrics.set('retainedWalBytes', slot.retainedWalBytes, labels)
      this.#metrics.set('maxSlotWalKeepBytes', slot.maxSlotWalKeepBytes, labels)
      this.#metrics.set('spoolBytes', slot.spoolBytes, labels)
    }
    this.#metrics.set('figuresTime', Date.now() / 1_000, labels)
    if (progress === undefined) return
    const tables = Object.values(progress.tables)
    // A state that nothing is in is 0 rather than what it was.
    for (const state of TABLE_STATES) this.#metrics.set('tables', tables.filter((table) => table.state === state).length, { ...labels, state })
  }

  observe(pipeline: PipelineId, measure: Measure): void {
    const labels = labelsOf(pipeline)
    if (measure.tag === 'sessionOpened') {
      this.#metrics.add('sessions', 1, labels)
      return
    }
    const { work, durationMs, rowCount, byteCount, tables } = measure
    this.#metrics.record('commitSeconds', durationMs / 1_000, { ...labels, work })
    this.#metrics.record('batchRows', rowCount, { ...labels, work })
    this.#metrics.record('batchBytes', byteCount, { ...labels, work })
    for (const [table, { copiedRows, inserts, updates, deletes, truncates }] of Object.entries(tables)) {
      for (const [operation, count] of [['insert', inserts], ['update', updates], ['delete', deletes], ['truncate', truncates]] as const) {
        if (count > 0) this.#metrics.add('changes', count, { ...labels, table, operation })
      }
      if (copiedRows > 0) this.#metrics.add('copiedRows', copiedRows, { ...labels, table })
    }
  }

  /** A verification has ended. Its figures take the place of those of the one before: a table that it says nothing of is not known any more. */
  verified(pipeline: PipelineId, { tables, notCompared }: Pick<VerifyProgress, 'tables' | 'notCompared'>): void {
    const labels = labelsOf(pipeline)
    const former = this.#verified.get(keyOf(pipeline)) ?? []
    for (const [table, { compared, different, repaired }] of Object.entries(tables)) {
      this.#metrics.set('verifiedRows', compared, { ...labels, table })
      this.#metrics.set('differentRows', different - repaired, { ...labels, table })
    }
    for (const table of [...former.filter((name) => !(name in tables)), ...Object.keys(notCompared)]) {
      this.#metrics.set('verifiedRows', null, { ...labels, table })
      this.#metrics.set('differentRows', null, { ...labels, table })
    }
    this.#metrics.set('verifiedTime', Date.now() / 1_000, labels)
    this.#verified.set(keyOf(pipeline), Object.keys(tables))
  }

  /** An attempt has failed. */
  failed(pipeline: PipelineId, { type, isFinal }: { readonly type: string; readonly isFinal: boolean }): void {
    this.#metrics.add('failures', 1, { ...labelsOf(pipeline), type, final: String(isFinal) })
  }

  /** No retry mends it: the pipeline waits for somebody. */
  stopped(pipeline: PipelineId, type: string): void {
    this.goesOn(pipeline)
    this.#stopped.set(keyOf(pipeline), type)
    this.#metrics.set('stopped', 1, { ...labelsOf(pipeline), type })
  }

  /** Whatever stopped it is over. */
  goesOn(pipeline: PipelineId): void {
    const type = this.#stopped.get(keyOf(pipeline))
    if (type === undefined) return
    this.#stopped.delete(keyOf(pipeline))
    this.#metrics.set('stopped', 0, { ...labelsOf(pipeline), type })
  }

  /** This owner looks at the slot no more. */
  forget(pipeline: PipelineId, owner: string): void {
    if (this.#owners.get(keyOf(pipeline)) !== owner) return
    this.#owners.delete(keyOf(pipeline))
    const labels = labelsOf(pipeline)
    for (const gauge of PIPELINE_GAUGES) this.#metrics.set(gauge, null, labels)
    for (const state of TABLE_STATES) this.#metrics.set('tables', null, { ...labels, state })
  }
}

function labelsOf({ source, destination, slotName }: PipelineId): Labels {
  return { source, destination, slot: slotName ?? '' }
}

function keyOf(pipeline: PipelineId): string {
  return JSON.stringify(labelsOf(pipeline))
}
