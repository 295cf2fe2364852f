/**
 * Records histories of real runs, with the fake engine, into test/replay/histories. Run it after a change of workflow code that a
 * recorded history does not know (a new step, a new message) and commit the new ones beside the old ones:
 *
 *   TEMPORAL_ADDRESS=localhost:7233 npx tsx test/replay/record.ts
 */
import { mkdirSync, writeFileSync } from 'node:fs'
import { historyToJSON } from '@temporalio/common/lib/proto-utils.js'
import type { WorkflowHandle } from '@temporalio/client'
import { checkTemporal } from '../../src/cli/check-temporal.ts'
import { SEARCH_ATTRIBUTE_NAMES } from '../../src/model/search-attributes.ts'
import type { EmptyInput } from '../../src/model/spec.ts'
import {
  addTablesUpdate,
  approveSchemaChangeUpdate,
  dropReplication,
  initReplication,
  pauseUpdate,
  recoverUpdate,
  removeTablesUpdate,
  resumeUpdate,
  resyncTablesUpdate,
  retryFailedUpdate,
  setOptionsUpdate,
  snapshotTables,
  stopSignal,
  stopUpdate,
  syncByXmin,
  syncChanges,
  verifyReplication,
} from '../../src/workflows/index.ts'
import { FakeEngine, slotLost, sourceDown } from '../support/fake-engine.ts'
import { INPUT, until, untilStatus, WorkflowHarness } from '../support/workflow-harness.ts'

const directory = new URL('./histories/', import.meta.url)
const NOTHING: { args: [EmptyInput] } = { args: [{}] }

/** Plays one scenario and returns the handle of the run to keep. */
type Scenario = (harness: WorkflowHarness, engine: FakeEngine) => Promise<WorkflowHandle>

const scenarios: Record<string, Scenario> = {
  'replicate-paused-resumed-stopped': async (harness) => {
    const handle = await harness.startReplicate({ ...INPUT, reset: true })
    await untilStatus(handle, (status) => status.phase === 'streaming')
    await handle.executeUpdate(pauseUpdate, NOTHING)
    await handle.executeUpdate(resumeUpdate, NOTHING)
    await handle.executeUpdate(stopUpdate, NOTHING)
    return handle
  },
  'replicate-listed': async (harness) => {
    // As by `doctor --register`; a namespace learns of them a moment later.
    await until(async () => checkTemporal(process.env, [], true), (checks) => checks.some(({ name, message }) => name === 'search attributes' && message === SEARCH_ATTRIBUTE_NAMES.join(', ')))
    const handle = await harness.startReplicate()
    await untilStatus(handle, (status) => status.phase === 'streaming')
    await handle.executeUpdate(pauseUpdate, NOTHING)
    await handle.executeUpdate(resumeUpdate, NOTHING)
    await untilStatus(handle, (status) => status.phase === 'streaming')
    await handle.executeUpdate(stopUpdate, NOTHING)
    return handle
  },
  'replicate-faults-and-retry': async (harness, engine) => {
    engine.faults.initialize = [sourceDown()]
    engine.faults.slice = [sourceDown(), slotLost()]
    const handle = await harness.startReplicate()
    await untilStatus(handle, (status) => status.phase === 'failed')
    await handle.executeUpdate(retryFailedUpdate, NOTHING)
    await untilStatus(handle, (status) => status.phase === 'streaming' && status.lastError === undefined)
    engine.tables['public.orders'] = 'failed'
    await untilStatus(handle, (status) => status.tables['public.orders']?.state === 'failed')
    await handle.executeUpdate(retryFailedUpdate, { args: [{ tableNames: ['nowhere'] }] }).catch(() => undefined)
    await handle.executeUpdate(retryFailedUpdate, { args: [{ tableNames: ['orders'] }] })
    await handle.signal(stopSignal)
    await handle.result()
    return handle
  },
  'replicate-recovered': async (harness, engine) => {
    engine.faults.slice = [slotLost()]
    engine.faults.recover = [sourceDown()]
    const handle = await harness.startReplicate()
    await untilStatus(handle, (status) => status.phase === 'failed')
    await handle.executeUpdate(recoverUpdate, NOTHING)
    await untilStatus(handle, (status) => status.phase === 'streaming' && status.lastError === undefined)
    await handle.executeUpdate(stopUpdate, NOTHING)
    return handle
  },
  'replicate-recovered-while-paused': async (harness, engine) => {
    const handle = await harness.startReplicate()
    await untilStatus(handle, (status) => status.phase === 'streaming')
    engine.faults.slice = [slotLost()]
    await untilStatus(handle, (status) => status.phase === 'failed')
    await handle.executeUpdate(pauseUpdate, NOTHING)
    await handle.executeUpdate(recoverUpdate, NOTHING)
    await handle.executeUpdate(resumeUpdate, NOTHING)
    await untilStatus(handle, (status) => status.phase === 'streaming')
    await handle.executeUpdate(stopUpdate, NOTHING)
    return handle
  },
  'replicate-orders-for-tables': async (harness, engine) => {
    engine.commitMs = 200
    const handle = await harness.startReplicate()
    await untilStatus(handle, (status) => status.phase === 'streaming')
    const order = (tableNames: readonly string[]): { args: [{ tableNames: readonly string[] }] } => ({ args: [{ tableNames }] })
    await Promise.all([handle.executeUpdate(addTablesUpdate, order(['more'])), handle.executeUpdate(removeTablesUpdate, order(['items']))])
    await handle.executeUpdate(addTablesUpdate, order(['nowhere'])).catch(() => undefined)
    await handle.executeUpdate(pauseUpdate, NOTHING)
    await handle.executeUpdate(resyncTablesUpdate, order(['orders']))
    await handle.executeUpdate(resumeUpdate, NOTHING)
    await untilStatus(handle, (status) => status.phase === 'streaming')
    await handle.executeUpdate(stopUpdate, NOTHING)
    return handle
  },
  'replicate-schema-change-approved': async (harness, engine) => {
    engine.commitMs = 100
    const handle = await harness.startReplicate({ ...INPUT, schemaChanges: 'ask' })
    await untilStatus(handle, (status) => status.phase === 'streaming')
    await handle.executeUpdate(approveSchemaChangeUpdate, { args: [{ table: 'nowhere' }] }).catch(() => undefined)
    await handle.executeUpdate(approveSchemaChangeUpdate, { args: [{ table: 'orders' }] })
    await handle.executeUpdate(pauseUpdate, NOTHING)
    await handle.executeUpdate(approveSchemaChangeUpdate, { args: [{ table: 'items' }] })
    await handle.executeUpdate(stopUpdate, NOTHING)
    return handle
  },
  'replicate-slot-watched-while-paused': async (harness, engine) => {
    engine.maxSliceMs = 1_000
    const handle = await harness.startReplicate({ ...INPUT, walBudgetBytes: 5 })
    await untilStatus(handle, (status) => status.phase === 'streaming')
    engine.faults.spool = [sourceDown()]
    await handle.executeUpdate(pauseUpdate, NOTHING)
    await untilStatus(handle, ({ warnings }) => warnings.some((warning) => warning.startsWith('the slot cannot be watched')))
    await handle.executeUpdate(setOptionsUpdate, { args: [{ spoolBudgetBytes: 7 }] })
    await until(async () => engine.namesOf('spool').length, (count) => count > 3)
    await handle.executeUpdate(resyncTablesUpdate, { args: [{ tableNames: ['orders'] }] })
    await handle.executeUpdate(resumeUpdate, NOTHING)
    await untilStatus(handle, (status) => status.phase === 'streaming')
    await handle.executeUpdate(stopUpdate, NOTHING)
    return handle
  },
  'replicate-options-set': async (harness, engine) => {
    engine.maxSliceMs = 60_000
    const handle = await harness.startReplicate()
    await untilStatus(handle, (status) => status.phase === 'streaming')
    await handle.executeUpdate(setOptionsUpdate, { args: [{ targetBatchSize: 5 }] })
    await handle.executeUpdate(pauseUpdate, NOTHING)
    await handle.executeUpdate(setOptionsUpdate, { args: [{ flushSlot: false }] })
    await handle.executeUpdate(resumeUpdate, NOTHING)
    await handle.executeUpdate(stopUpdate, NOTHING)
    return handle
  },
  'replicate-cancelled': async (harness, engine) => {
    engine.maxSliceMs = 60_000
    const handle = await harness.startReplicate()
    await until(async () => engine.namesOf('slice').length, (count) => count > 0)
    await handle.cancel()
    await handle.result().catch(() => undefined)
    return handle
  },
  'replicate-stopped-while-source-is-down': async (harness, engine) => {
    engine.faults.initialize = Array.from({ length: 20 }, sourceDown)
    const handle = await harness.startReplicate()
    await until(async () => engine.namesOf('initialize').length, (count) => count > 2)
    await handle.executeUpdate(stopUpdate, NOTHING)
    return handle
  },
  'replicate-continued-as-new': async (harness, engine) => {
    engine.maxSliceMs = 0
    const handle = await harness.startReplicate()
    const { runId } = await handle.describe()
    await until(async () => (await handle.describe()).runId, (current) => current !== runId, 120_000)
    engine.maxSliceMs = 300
    await handle.executeUpdate(pauseUpdate, NOTHING)
    await handle.executeUpdate(resumeUpdate, NOTHING)
    await handle.executeUpdate(stopUpdate, NOTHING)
    return handle
  },
  'replicate-already-replicating': async (harness, engine) => {
    const first = await harness.startReplicate()
    await untilStatus(first, (status) => status.phase === 'streaming')
    const second = await harness.startReplicate()
    await second.result().catch(() => undefined)
    await first.executeUpdate(stopUpdate, NOTHING)
    engine.calls.length = 0
    return second
  },
  'replicate-invalid-input': async (harness) => {
    const handle = await harness.startReplicate({ ...INPUT, slotName: 'Not A Slot' })
    await handle.result().catch(() => undefined)
    return handle
  },
  // A worker with a queue of its own; then one that says so and is gone.
  'replicate-at-home': async (harness, engine) => {
    const first = await harness.startDestinationAtHome(engine)
    const handle = await harness.startReplicate()
    await until(async () => engine.namesOf('slice').length, (count) => count > 2)
    await handle.executeUpdate(pauseUpdate, NOTHING)
    await handle.executeUpdate(removeTablesUpdate, { args: [{ tableNames: ['items'] }] })
    await handle.executeUpdate(resumeUpdate, NOTHING)
    await until(async () => engine.namesOf('slice').length, (count) => count > 4)
    await first.stop()
    await harness.startDestinationAtHome(engine, { ownTaskQueue: `${harness.destinationQueue}-gone`, polls: false })
    await until(async () => engine.namesOf('slice').length, (count) => count > 6)
    await handle.executeUpdate(stopUpdate, NOTHING)
    return handle
  },
  'verify-replication-at-home': async (harness, engine) => {
    await harness.startDestinationAtHome(engine)
    return oneShot(harness, verifyReplication, { ...INPUT, repair: true })
  },
  'init-replication': (harness) => oneShot(harness, initReplication),
  'snapshot-tables': (harness) => oneShot(harness, snapshotTables),
  'sync-changes': (harness) => oneShot(harness, syncChanges),
  'sync-changes-failed': async (harness, engine) => {
    engine.faults.slice = [sourceDown(), slotLost()]
    return oneShot(harness, syncChanges)
  },
  'drop-replication': (harness) => oneShot(harness, dropReplication, { ...INPUT, confirm: INPUT.slotName }),
  'sync-by-xmin': (harness) => oneShot(harness, syncByXmin, { tableNames: ['orders'] }),
  'sync-by-xmin-refused': (harness) => oneShot(harness, syncByXmin),
  'verify-replication': (harness) => oneShot(harness, verifyReplication, { ...INPUT, repair: true }),
  'verify-replication-refused': (harness) => oneShot(harness, verifyReplication, { ...INPUT, reset: true }),
}

async function oneShot(harness: WorkflowHarness, workflow: { readonly name: string }, input: object = INPUT): Promise<WorkflowHandle> {
  const handle = await harness.client.workflow.start(workflow.name, {
    taskQueue: harness.taskQueue,
    workflowId: `${workflow.name}-${harness.taskQueue}`,
    args: [input],
  })
  await handle.result().catch(() => undefined)
  return handle
}

/** Without what tells of the machine that it was recorded on. */
function withoutMachine(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutMachine)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(
    Object.entries(value).flatMap(([key, child]: [string, unknown]) => {
      if (key === 'stackTrace') return []
      // Identities, and the sticky queues that are called after them: pid@host.
      return [[key, typeof child === 'string' ? child.replace(/^\d+@[\w.]+/, 'recorder') : withoutMachine(child)]]
    }),
  )
}

mkdirSync(directory, { recursive: true })
const wanted = process.argv.slice(2)
for (const [name, play] of Object.entries(scenarios)) {
  if (wanted.length > 0 && !wanted.includes(name)) continue
  const harness = await WorkflowHarness.open(process.env['TEMPORAL_ADDRESS'] ?? 'localhost:7233')
  const engine = new FakeEngine()
  // Those start workers of their own.
  if (name.endsWith('-at-home')) await harness.startWorkflows()
  else await harness.start(engine)
  try {
    const handle = await play(harness, engine)
    const history: unknown = JSON.parse(historyToJSON(await handle.fetchHistory()))
    writeFileSync(new URL(`${name}.json`, directory), `${JSON.stringify(withoutMachine(history), null, 1)}\n`)
    process.stdout.write(`${name}\n`)
  } finally {
    await harness.close()
  }
}
