import { type MetricMeter, noopMetricMeter } from '@temporalio/common'
import { expect, it } from 'vitest'
import { MetricSet, PipelineMetrics } from '../../../src/activities/pipeline-metrics.ts'
import { METRICS } from '../../../src/model/metrics.ts'

/** Holds what its gauges were set to last, by name, slot and table. */
function gaugesOf(): { readonly meter: MetricMeter; readonly value: (name: string, slot: string, table: string) => number | undefined } {
  const values = new Map<string, number>()
  const place = (...names: readonly unknown[]): string => JSON.stringify(names)
  const meter: MetricMeter = {
    createCounter: (...given) => noopMetricMeter.createCounter(...given),
    createHistogram: (...given) => noopMetricMeter.createHistogram(...given),
    withTags: () => meter,
    createGauge: (name, ...given) => ({
      ...noopMetricMeter.createGauge(name, ...given),
      set: (value, tags) => void values.set(place(name, tags?.['slot'], tags?.['table']), value),
    }),
  }
  return { meter, value: (name, slot, table) => values.get(place(name, slot, table)) }
}

const PIPELINE = { source: 'shop', destination: 'warehouse', slotName: 'shop_slot' }
const OTHER = { ...PIPELINE, slotName: 'other_slot' }

// Cause: a table that had left the replication kept the rows that differed in it, and the alert with them.
it('knows nothing any more of tables that the last verification of the pipeline did not look at', () => {
  const { meter, value } = gaugesOf()
  const metrics = new PipelineMetrics(new MetricSet(meter))
  const compared = (different: number, repaired = 0): { compared: number; different: number; repaired: number } => ({ compared: 10, different, repaired })
  const different = (table: string, slot = 'shop_slot'): number | undefined => value(METRICS.differentRows.name, slot, table)
  const verified = (table: string): number | undefined => value(METRICS.verifiedRows.name, 'shop_slot', table)
  metrics.verified(PIPELINE, { tables: { 'public.a': compared(5), 'public.b': compared(3, 1), 'public.c': compared(1) }, notCompared: {} })
  metrics.verified(OTHER, { tables: { 'public.a': compared(7) }, notCompared: {} })
  expect(['public.a', 'public.b', 'public.c'].map((table) => different(table))).toEqual([5, 2, 1])
  metrics.verified(PIPELINE, { tables: { 'public.b': compared(2, 2) }, notCompared: { 'public.c': 'it has stopped' } })
  expect(['public.a', 'public.b', 'public.c'].map((table) => [different(table), verified(table)])).toEqual([[Number.NaN, Number.NaN], [0, 10], [Number.NaN, Number.NaN]])
  expect(different('public.a', 'other_slot')).toBe(7)
  metrics.verified(PIPELINE, { tables: { 'public.a': compared(0) }, notCompared: {} })
  expect(['public.a', 'public.b'].map((table) => [different(table), verified(table)])).toEqual([[0, 10], [Number.NaN, Number.NaN]])
})
