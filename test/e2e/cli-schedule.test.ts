import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, inject, it, vi } from 'vitest'

import { documentOf, json, run } from '../support/command-line.ts'
import { FakeEngine } from '../support/fake-engine.ts'
import { type TestWorker, until, WorkflowHarness } from '../support/workflow-harness.ts'

let harness: WorkflowHarness
let worker: TestWorker
let directory: string
let slot: string
let spec: readonly string[]
let counter = 0

beforeAll(async () => {
  harness = await WorkflowHarness.open(inject('temporalAddress'))
})
afterAll(async () => {
  await harness.close()
})
beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'cli-schedule-'))
  slot = `${harness.taskQueue}_${String(++counter)}`.replaceAll('-', '_')
  spec = ['--slot', slot, '--publication', 'shop_publication', '--tables', 'orders,items']
  vi.stubEnv('TEMPORAL_ADDRESS', inject('temporalAddress'))
  vi.stubEnv('TEMPORAL_NAMESPACE', 'default')
  vi.stubEnv('REPLICATION_TASK_QUEUE', harness.taskQueue)
  vi.stubEnv('REPLICATION_CONFIG', join(directory, 'replication.toml'))
  worker = await harness.start(new FakeEngine())
})
afterEach(async () => {
  await run('schedule', 'delete', `sync-${slot}`)
  await harness.terminateAll()
  await worker.stop()
  rmSync(directory, { recursive: true, force: true })
})

describe('a run of a schedule', () => {
  const matching = (pattern: RegExp): unknown => expect.stringMatching(pattern)

  it('is told from a replication by status, and named by its schedule in verify', async () => {
    const scheduleId = `sync-${slot}`
    await json('schedule', 'create', ...spec, '--every', '1d', '--paused')
    await json('schedule', 'trigger', scheduleId)
    const shown = await until(
      async () => JSON.stringify(await json('schedule', 'show', scheduleId)),
      (text) => text.includes('"state":"completed"'),
    )
    const runId = /"workflowId":"([^"]*Z)"/.exec(shown)?.[1] ?? ''
    // Cause: both led to the list of open replications, where neither is.
    for (const id of [runId, scheduleId]) {
      const refused = await run('status', id, '--json')
      expect([refused.exitCode, documentOf(refused)]).toEqual([1, { error: expect.objectContaining({ remedy: matching(new RegExp(`schedule show ${scheduleId} tells`)) }) as unknown }])
    }
    // Cause: the id that `schedule show` names as the workflow's is that of no workflow.
    expect((await run('verify', scheduleId, '--json')).stdout).toContain('"compared"')
    expect((await run('drop', scheduleId, '--confirm', slot, '--json')).stdout).toContain('WorkflowNotFound')
  })

  it('is warned of where a replication has the slot', async () => {
    await json('start', `replicate-${slot}`, ...spec)
    await until(
      async () => JSON.stringify(await json('status')),
      (text) => text.includes(`replicate-${slot}`),
    )
    expect(await json('schedule', 'create', ...spec, '--every', '1d', '--paused')).toMatchObject({ warnings: [matching(new RegExp(`^replicate-${slot} replicates slot ${slot}: .*AlreadyReplicating.*schedule pause sync-${slot}`))] })
    expect(await json('schedule', 'create', ...spec, '--verify', '--every', '1d', '--paused')).not.toHaveProperty('warnings')
    await json('schedule', 'delete', `verify-${slot}`)
  })
})

describe('the times of a schedule', () => {
  it('are spread by --jitter, which lasts until it is changed', async () => {
    expect(await json('schedule', 'create', ...spec, '--every', '1h', '--jitter', '90s', '--paused')).toMatchObject({ everyMs: 3_600_000, jitterMs: 90_000 })
    expect((await run('schedule', 'show', `sync-${slot}`)).stdout).toContain('every 1h, up to 90s later; skipped while a run goes on; a missed run is started up to 10m late')
    expect(await json('schedule', 'update', `sync-${slot}`, '--every', '2h')).toMatchObject({ everyMs: 7_200_000, jitterMs: 90_000 })
    expect(await json('schedule', 'update', `sync-${slot}`, '--jitter', '2m')).toMatchObject({ everyMs: 7_200_000, jitterMs: 120_000 })
    expect(await json('schedule', 'update', `sync-${slot}`, '--jitter', '0')).toMatchObject({ everyMs: 7_200_000, jitterMs: 0 })
    expect((await run('schedule', 'show', `sync-${slot}`)).stdout).toContain('every 2h; skipped')
  })

  it('keep their time zone when the hour changes', async () => {
    await json('schedule', 'create', ...spec, '--cron', '0 3 * * *', '--timezone', 'Asia/Tokyo', '--paused')
    // Cause: an update without --timezone put the schedule back to UTC.
    expect(await json('schedule', 'update', `sync-${slot}`, '--cron', '0 4 * * *')).toMatchObject({ timezone: 'Asia/Tokyo', calendars: [{ hour: [expect.objectContaining({ start: 4 })] }] })
    // Cause: without --cron it was taken, and did nothing.
    expect(await json('schedule', 'update', `sync-${slot}`, '--timezone', 'Europe/Berlin')).toMatchObject({ timezone: 'Europe/Berlin', calendars: [{ hour: [expect.objectContaining({ start: 4 })] }] })
  })
})
