import { CancellationScope, setCurrentDetails, workflowInfo } from '@temporalio/workflow'
import type { XminResult, XminTableResult } from '../model/replication.ts'
import { parseXminInput } from '../model/spec-parse.ts'
import type { XminInput, XminSpec } from '../model/spec.ts'
import { activitiesOn, resolveNames } from './activity-proxies.ts'
import { endingOf } from './failures.ts'
import { refuseFailed } from './one-shot.ts'
import { parseRunInput } from './run-input.ts'

/** Longer slices keep the history of a first copy of days short; heartbeats tell what it is about. */
const MAX_SLICE_MS = 300_000

/** What `syncByXmin` returns. */
export interface SyncByXminResult {
  readonly tables: Readonly<Record<string, XminTableResult>>
  readonly warnings: readonly string[]
}

/**
 * Incremental sync without a slot, by the `xmin` of the rows: takes what was inserted or updated since the last run, and ends. For schedules
 * (overlap policy SKIP). One run at a time for a source and destination.
 */
export async function syncByXmin(input: XminInput, ...more: readonly undefined[]): Promise<SyncByXminResult> {
  const unresolved = parseRunInput([input, ...more], parseXminInput)
  const root = CancellationScope.current()
  try {
    const { source, destination, taskQueue } = await resolveNames(unresolved, 'server')
    return await read({ ...unresolved, source, destination }, taskQueue)
  } catch (error) {
    throw endingOf(error, root)
  }
}

async function read(spec: XminSpec, taskQueue: string): Promise<SyncByXminResult> {
  const { runId } = workflowInfo()
  const warnings = new Set<string>()
  for (;;) {
    const result = await activitiesOn(taskQueue, 'read what was written since the last run', 'server').readByXmin({ spec, runId, maxMs: MAX_SLICE_MS })
    for (const warning of result.warnings) warnings.add(warning)
    setCurrentDetails(details(result, [...warnings]))
    if (result.ended !== 'done') continue
    refuseFailed(Object.entries(result.failed))
    return { tables: result.tables, warnings: [...warnings] }
  }
}

/** What the UI shows of it. */
function details({ ended, tables, failed }: XminResult, warnings: readonly string[]): string {
  const rows = Object.entries(tables).map(([name, table]) => `- ${name}: ${table.rows} rows${name in failed ? ', **stopped**' : ''}`)
  return [`**${ended === 'done' ? 'done' : 'reading'}**`, ...rows, ...warnings.map((warning) => `> ${warning}`)].join('\n')
}
