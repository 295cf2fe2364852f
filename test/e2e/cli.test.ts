import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, inject, it, vi } from 'vitest'

import { DomainError } from '../../src/model/errors.ts'
import { documentOf, json, run } from '../support/command-line.ts'
import { FakeEngine, slotLost } from '../support/fake-engine.ts'
import { type TestWorker, until, WorkflowHarness } from '../support/workflow-harness.ts'

const SPEC = ['--slot', 'shop_slot', '--publication', 'shop_publication', '--tables', 'orders,items']
const CLI = fileURLToPath(new URL('../../src/cli.ts', import.meta.url))

let harness: WorkflowHarness
let engine: FakeEngine
let worker: TestWorker
let directory: string
let counter = 0
let id: string

beforeAll(async () => {
  harness = await WorkflowHarness.open(inject('temporalAddress'))
})
afterAll(async () => {
  await harness.close()
})
beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'cli-'))
  id = `${harness.taskQueue}-${++counter}`
  vi.stubEnv('TEMPORAL_ADDRESS', inject('temporalAddress'))
  vi.stubEnv('TEMPORAL_NAMESPACE', 'default')
  vi.stubEnv('REPLICATION_TASK_QUEUE', harness.taskQueue)
  vi.stubEnv('REPLICATION_CONFIG', join(directory, 'replication.toml'))
  vi.stubEnv('TEMPORAL_UI_URL', 'http://ui.example/')
  engine = new FakeEngine()
  worker = await harness.start(engine)
})
afterEach(async () => {
  await harness.terminateAll()
  await worker.stop()
  rmSync(directory, { recursive: true, force: true })
})

/** Runs a verb with `--json` that must fail, and returns its error. */
async function failure(...args: readonly string[]): Promise<unknown> {
  const outcome = await run(...args, '--json')
  expect([outcome.exitCode, outcome.stdout]).toEqual([1, outcome.stdout])
  return documentOf(outcome)
}

const matching = (pattern: RegExp): unknown => expect.stringMatching(pattern)
const error = (type: string, message: RegExp): unknown => ({ error: { type, message: matching(message), remedy: matching(/./) } })

async function untilPhase(phase: string): Promise<unknown> {
  return await until(
    async () => await json('status', id),
    (status) => typeof status === 'object' && status !== null && 'phase' in status && status.phase === phase,
  )
}

describe('a replication by the command line', () => {
  it('is started, shown, paused, resumed, retried and stopped', async () => {
    expect(await json('start', id, ...SPEC)).toEqual({
      workflowId: id,
      runId: matching(/^[0-9a-f-]{36}$/),
      uiLink: matching(new RegExp(`^http://ui\\.example/namespaces/default/workflows/${id}/[0-9a-f-]{36}/history$`)),
    })
    const status = await untilPhase('streaming')
    expect(status).toMatchObject({
      slotName: 'shop_slot',
      publicationName: 'shop_publication',
      appliedLsn: matching(/^0\/[0-9A-F]+$/),
      tables: { 'public.orders': { state: 'streaming', snapshotRows: 10 } },
    })
    expect(await json('pause', id)).toMatchObject({ phase: 'paused' })
    expect(await json('resume', id)).toMatchObject({ slotName: 'shop_slot' })
    await untilPhase('streaming')
    expect(await json('retry', id, '--tables', 'orders')).toMatchObject({ slotName: 'shop_slot' })
    expect(engine.namesOf('retryTables').at(-1)?.detail).toEqual(['orders'])
    const text = await run('status', id)
    expect(text.stdout).toMatch(new RegExp(`${id}: streaming`))
    expect(text.stdout).toMatch(/public\.orders +│ streaming/)
    expect(await json('stop', id)).toMatchObject({ phase: 'stopped' })
    // Its result: no worker is asked.
    await worker.stop()
    expect(await json('status', id)).toMatchObject({ phase: 'stopped' })
  })

  it('gives the workflow its input as it was typed, options over --input', async () => {
    const input = join(directory, 'input.json')
    writeFileSync(input, JSON.stringify({ slotName: 'shop_slot', publicationName: 'of_the_file', targetBatchSize: 5 }))
    await json('start', id, '--input', `@${input}`, '--publication', 'of_the_option', '--flush-slot', 'false')
    expect(await untilPhase('streaming')).toMatchObject({ publicationName: 'of_the_option' })
  })

  it('is not started twice under one id', async () => {
    await json('start', id, ...SPEC)
    expect(await failure('start', id, ...SPEC)).toEqual(error('AlreadyReplicating', /already running/))
  })

  it('is listed while it is open, and found without its id where it is the only one', async () => {
    await json('start', id, ...SPEC)
    await untilPhase('streaming')
    const all = await until(
      async () => await json('status'),
      (list) => JSON.stringify(list).includes(id),
    )
    expect(all).toEqual(expect.arrayContaining([expect.objectContaining({ workflowId: id, status: expect.objectContaining({ phase: 'streaming' }) as unknown })]))
    expect((await run('status')).stdout).toMatch(new RegExp(`${id} +│ streaming`))
  })

  it('shows what the running activity says between two answers of the workflow', async () => {
    engine.maxSliceMs = 60_000
    await json('start', id, ...SPEC)
    await untilPhase('streaming')
    const text = await until(
      async () => (await run('status', id)).stdout,
      (shown) => shown.includes('(claimed)'),
    )
    expect(text).toContain('a warning of the stream')
  })

  it('shows the failure of one that failed', async () => {
    await harness.client.workflow.start('replicate', { workflowId: id, taskQueue: harness.taskQueue, args: [{ slotName: 'Bad Name', publicationName: 'p' }] })
    await harness.client.workflow.getHandle(id).result().catch(() => undefined)
    expect(await failure('status', id)).toEqual(error('InvalidInput', /slotName/))
  })

  it('adds, removes and copies tables anew, and lets one make its change', async () => {
    await json('start', id, ...SPEC)
    await untilPhase('streaming')
    expect(await json('add', id, '--tables', 'more,others')).toMatchObject({ tables: { 'public.more': { state: 'pending' }, 'public.others': { state: 'pending' } } })
    expect(await json('resync', id, '--tables', 'orders')).toMatchObject({ tables: { 'public.orders': { state: 'pending' } } })
    await json('resync', id, '--tables', 'orders', '--write-mode', '{"orders": ["merge", "scd2"]}', '--delete-mode', 'soft')
    await json('resync', id, '--tables', 'orders', '--write-mode', 'append')
    expect(await failure('resync', id, '--tables', 'orders', '--write-mode', 'apend')).toEqual(error('InvalidInput', /writeMode must be merge, append or scd2/))
    const removed = await run('remove', id, '--tables', 'more', '--drop-destination')
    expect([removed.exitCode, removed.stderr]).toEqual([0, ''])
    expect(removed.stdout).toMatch(/public\.more +│ removed/)
    expect(await json('approve', id, '--table', 'public.orders')).toMatchObject({ slotName: 'shop_slot' })
    expect(engine.namesOf('changeTables').map(({ detail }) => detail)).toEqual([
      { tag: 'add', tableNames: ['more', 'others'] },
      { tag: 'resync', tableNames: ['orders'] },
      { tag: 'resync', tableNames: ['orders'], shapes: { writeMode: { orders: ['merge', 'scd2'] }, deleteMode: 'soft' } },
      { tag: 'resync', tableNames: ['orders'], shapes: { writeMode: 'append' } },
      { tag: 'remove', tableNames: ['more'], dropDestination: true },
      { tag: 'approve', tableNames: ['public.orders'] },
    ])
    expect(await failure('add', id, '--tables', 'nowhere')).toEqual(error('InvalidInput', /there is no table nowhere/))
    expect((await run('add', id)).exitCode).toBe(2)
    expect((await run('approve', id)).exitCode).toBe(2)
  })

  it('recovers after a lost slot, and tells where nothing was lost', async () => {
    await json('start', id, ...SPEC)
    await untilPhase('streaming')
    engine.faults.slice = [slotLost()]
    await untilPhase('failed')
    const recovered = await json('recover', id)
    expect(recovered).toMatchObject({ phase: 'streaming', warnings: expect.arrayContaining(['a warning of recovery']) as unknown })
    expect(recovered).not.toHaveProperty('lastError')
    expect(await failure('recover', id)).toEqual(error('InvalidInput', /has not failed/))
  })

  it('verifies: a report, JSON, and exit code 1 where something differs or could not be compared', async () => {
    const found = await run('verify', ...SPEC)
    expect(found).toMatchObject({ exitCode: 1 })
    expect(found.stdout).toMatch(/1 rows differ[\s\S]*public\.orders[\s\S]*changed 7[\s\S]*public\.items was not compared: it has stopped[\s\S]*warning: a warning of it/)
    const repaired = await run('verify', ...SPEC, '--repair', '--json')
    expect(repaired.exitCode).toBe(1)
    expect(JSON.parse(repaired.stdout)).toMatchObject({ tables: { 'public.orders': { compared: 10, different: 1, repaired: 1 } } })
    expect((await run('verify', ...SPEC, '--max-rows-per-second', '0')).exitCode).toBe(2)
    for (const other of ['--json', '--repair']) expect(await run('verify', ...SPEC, '--show-values', other)).toMatchObject({ exitCode: 2 })
  })

  // Cause: it printed nothing before its end, which may be hours away; how far it had come stood in heartbeats alone.
  it('shows how far a verification has come, on stderr, each thing once; with --json at a terminal alone', async () => {
    engine.verifyMs = 3_000
    const found = await run('verify', ...SPEC)
    expect(found.exitCode).toBe(1)
    const isProgress = (line: string): boolean => line !== 'starting'
    expect(found.stderr.split('\n').filter(isProgress)).toEqual(['comparing public.orders: 5 of about 10 rows, 0 differ, about 3 s left', 'comparing public.orders: 5 of about 10 rows, 1 differ, about 3 s left', ''])
    expect(found.stdout).not.toContain('comparing')
    expect((await run('verify', ...SPEC, '--json')).stderr).toBe('')
    const { isTTY, columns } = process.stderr
    try {
      Object.assign(process.stderr, { isTTY: true, columns: 30 })
      const shown = await run('verify', ...SPEC, '--json')
      expect(shown.stderr.split('\r\u001b[K').filter(isProgress)).toEqual(['', 'comparing public.orders: 5 of', 'comparing public.orders: 5 of', ''])
      expect(documentOf(shown)).toHaveProperty('tables')
    } finally {
      Object.assign(process.stderr, { isTTY, columns })
    }
  })

  it('names a workflow that does not exist', async () => {
    for (const verb of ['status', 'pause', 'drop']) {
      expect([verb, await failure(verb, `${id}-none`)]).toEqual([verb, error('WorkflowNotFound', new RegExp(`${id}-none`))])
    }
  })

  it('says that a stopped one is not open any more', async () => {
    await json('start', id, ...SPEC)
    await json('stop', id)
    expect(await failure('pause', id)).toEqual(error('WorkflowNotFound', /is open/))
  })

  it('says that no worker answers', async () => {
    await json('start', id, ...SPEC)
    await untilPhase('streaming')
    await worker.stop()
    expect(await failure('pause', id, '--timeout', '1')).toEqual(error('WorkerUnavailable', /worker/))
    expect(await failure('status', id)).toEqual(error('WorkerUnavailable', /worker/))
    vi.stubEnv('REPLICATION_TASK_QUEUE', `${harness.taskQueue}-other`)
    expect(await failure('drop', ...SPEC, '--confirm', 'shop_slot')).toEqual(error('WorkerUnavailable', /-other/))
    expect((await run('start', `${id}-b`, ...SPEC)).stdout).toContain('no worker polls')
    await harness.client.workflow.getHandle(`${id}-b`).terminate()
  })
})

it('says at once what keeps a replication from beginning', async () => {
  engine.faults.initialize = [new DomainError({ kind: 'InvalidInput', message: 'there is no table "public.custommers"', remedy: 'Did you mean "public.customers"?' })]
  const outcome = await run('start', id, ...SPEC)
  expect([outcome.exitCode, outcome.stdout]).toEqual([1, matching(/waits in phase failed: InvalidInput: there is no table.*\nDid you mean/)])
})

describe('drop', () => {
  it('asks for confirmation, and drops what the workflow was started with', async () => {
    await json('start', id, ...SPEC)
    await untilPhase('streaming')
    await json('stop', id)
    const unconfirmed = await run('drop', id, '--json')
    expect(unconfirmed.exitCode).toBe(2)
    expect(documentOf(unconfirmed)).toEqual(error('Usage', /drops slot shop_slot/))
    expect(await failure('drop', id, '--confirm', 'other')).toEqual(error('InvalidInput', /confirm/))
    expect(engine.namesOf('drop')).toEqual([])
    // Cause: a drop on another task queue met a worker with another destination, which knew of no replication.
    vi.stubEnv('REPLICATION_TASK_QUEUE', `${harness.taskQueue}-other`)
    expect(await json('drop', id, '--confirm', 'shop_slot', '--drop-destination')).toEqual({ dropped: ['slot shop_slot', 'publication shop_publication'] })
    expect(engine.namesOf('drop')[0]?.detail).toMatchObject({ slotName: 'shop_slot', dropDestination: true })
  })
})

describe('schedule', () => {
  it('is made, listed, changed, paused, triggered and deleted', async () => {
    const made = await json('schedule', 'create', id, ...SPEC, '--every', '1h', '--paused')
    expect(made).toMatchObject({
      ...{ scheduleId: id, paused: true, everyMs: 3_600_000, overlap: 'SKIP', catchupWindowMs: 600_000, workflowType: 'syncChanges' },
      input: { slotName: 'shop_slot', tableNames: ['orders', 'items'] },
    })
    expect(await failure('schedule', 'create', id, ...SPEC, '--every', '1h')).toEqual(error('AlreadyScheduled', /already/))
    await until(
      async () => await json('schedule', 'list'),
      (list) => JSON.stringify(list).includes(id),
    )
    expect(await json('schedule', 'update', id, '--cron', '0 3 * * *', '--target-batch-size', '7')).toMatchObject({
      ...{ paused: true, everyMs: null, catchupWindowMs: 600_000, overlap: 'SKIP' },
      input: { slotName: 'shop_slot', targetBatchSize: 7 },
    })
    expect(await json('schedule', 'unpause', id)).toMatchObject({ paused: false })
    expect(await json('schedule', 'pause', id)).toMatchObject({ paused: true })
    await json('schedule', 'trigger', id)
    await until(
      async () => await json('schedule', 'show', id),
      (shown) => JSON.stringify(shown).includes('"recent":[{'),
    )
    await until(
      async () => engine.namesOf('slice').length,
      (slices) => slices > 0,
    )
    const completed = await until(
      async () => await json('schedule', 'show', id),
      (shown) => JSON.stringify(shown).includes('"state":"completed"'),
    )
    expect(completed).toMatchObject({ failedRuns: 0, recent: [{ state: 'completed' }] })
    engine.faults.slice = [slotLost()]
    await json('schedule', 'trigger', id)
    const failed = await until(
      async () => await json('schedule', 'show', id),
      (shown) => JSON.stringify(shown).includes('"failedRuns":1'),
    )
    expect(failed).toMatchObject({ recent: [{ state: 'completed' }, { state: 'failed', error: { type: 'SlotLost' } }] })
    expect((await run('schedule', 'show', id)).stdout).toMatch(/failed runs that Temporal still keeps: 1\n.*SlotLost/)
    expect(await json('schedule', 'delete', id)).toEqual({ scheduleId: id, deleted: true })
    await json('schedule', 'create', id, ...SPEC, '--every', '1h', '--now')
    await until(
      async () => await json('schedule', 'show', id),
      (shown) => JSON.stringify(shown).includes('"state":"completed"'),
    )
    await json('schedule', 'delete', id)
    const misunderstood = await run('schedule', 'create', id, ...SPEC, '--cron', 'at night', '--json')
    expect([misunderstood.exitCode, documentOf(misunderstood)]).toEqual([2, error('Usage', /does not take this time/)])
    expect(await failure('schedule', 'show', id)).toEqual(error('ScheduleNotFound', /no schedule/))
  })
})

describe('doctor', () => {
  const checkLike = (check: Readonly<Record<string, unknown>>): unknown => expect.arrayContaining([expect.objectContaining(check)])

  it('finds source, destination, Temporal and worker well', async () => {
    vi.stubEnv('SOURCES__SHOP__CREDENTIALS', inject('postgresUrl'))
    vi.stubEnv('DESTINATIONS__WAREHOUSE__PATH', 'w.duckdb')
    const outcome = await run('doctor', '--json')
    const document = documentOf(outcome)
    expect([outcome.exitCode, document]).toEqual([0, expect.objectContaining({ ok: true })])
    for (const subject of ['config', 'source shop', 'destination warehouse', 'temporal']) {
      expect(document).toHaveProperty('checks', checkLike({ subject, state: 'ok' }))
    }
    for (const taskQueue of [harness.taskQueue, harness.destinationQueue]) {
      expect(document).toHaveProperty('checks', checkLike({ subject: 'temporal', name: 'worker', state: 'ok', message: `task queue ${taskQueue} is polled` }))
    }
  })

  it('checks the tables that are to be replicated', async () => {
    vi.stubEnv('SOURCES__SHOP__CREDENTIALS', inject('postgresUrl'))
    vi.stubEnv('DESTINATIONS__WAREHOUSE__PATH', 'w.duckdb')
    const outcome = await run('doctor', '--tables', 'no_such_table', '--json')
    expect(outcome.exitCode).toBe(1)
    expect(documentOf(outcome)).toHaveProperty('checks', checkLike({ subject: 'source shop', state: 'failure', message: matching(/no_such_table/) }))
  })
})

describe('status --watch', () => {
  it('refreshes until Ctrl-C: exit code 0', async () => {
    await json('start', id, ...SPEC)
    await untilPhase('streaming')
    const child = spawn(process.execPath, ['--import', import.meta.resolve('tsx'), CLI, 'status', id, '--watch'], { stdio: ['ignore', 'pipe', 'pipe'] })
    let shown = ''
    child.stdout.on('data', (chunk: Buffer) => {
      shown += chunk.toString()
    })
    const ended = new Promise<number | null>((resolve) => child.once('exit', resolve))
    await until(
      async () => shown.split(`${id}: `).length,
      (times) => times > 2,
    )
    child.kill('SIGINT')
    expect(await ended).toBe(0)
    expect(shown).toContain('streaming')
  })

  it('ends when the replication is stopped', async () => {
    await json('start', id, ...SPEC)
    await untilPhase('streaming')
    await json('stop', id)
    expect(await run('status', id, '--watch')).toMatchObject({ exitCode: 0, stdout: matching(/stopped/) })
  })

  it('verifies on a schedule, with the options of a verification', async () => {
    const made = await json('schedule', 'create', ...SPEC, '--verify', '--every', '1d', '--paused', '--repair', '--max-rows-per-second', '500')
    expect(made).toMatchObject({ scheduleId: 'verify-shop_slot', workflowType: 'verifyReplication', workflowId: 'verify-shop_slot', input: { slotName: 'shop_slot', repair: true, maxRowsPerSecond: 500 } })
    expect(await json('schedule', 'update', 'verify-shop_slot', '--max-rows-per-second', '700')).toMatchObject({ input: { repair: true, maxRowsPerSecond: 700 } })
    await json('schedule', 'trigger', 'verify-shop_slot')
    await until(
      async () => await json('schedule', 'show', 'verify-shop_slot'),
      (shown) => JSON.stringify(shown).includes('"state":"completed","different":0,"notCompared":["public.items"]'),
    )
    expect((await run('schedule', 'show', 'verify-shop_slot')).stdout).toContain('completed: equal, as far as was compared; not compared: public.items')
    await json('schedule', 'delete', 'verify-shop_slot')
    // Of another type, these options mean nothing.
    expect(await failure('schedule', 'create', ...SPEC, '--every', '1d', '--repair')).toEqual(error('InvalidInput', /repair is not a known field/))
  })
})
