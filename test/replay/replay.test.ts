import { readdirSync, readFileSync } from 'node:fs'
import { Worker } from '@temporalio/worker'
import { DeterminismViolationError } from '@temporalio/workflow'
import { beforeAll, describe, expect, it } from 'vitest'
import { loadWorkflowBundle } from '../../src/workflow-bundle.ts'
import { quietRuntime } from '../support/workflow-harness.ts'

const directory = new URL('./histories/', import.meta.url)
const files = readdirSync(directory).filter((file) => file.endsWith('.json'))
const load = (file: string): unknown => JSON.parse(readFileSync(new URL(file, directory), 'utf8'))

type Bundle = Awaited<ReturnType<typeof loadWorkflowBundle>>
let workflowBundle: Bundle
let tracedBundle: Bundle
beforeAll(async () => {
  quietRuntime()
  workflowBundle = await loadWorkflowBundle()
  tracedBundle = await loadWorkflowBundle({ isTraced: true })
})

describe('workflows replay the histories that earlier versions wrote', () => {
  it('there are histories of every workflow', () => {
    const types = files.map((file) => /"workflowType": \{\s*"name": "(\w+)"/.exec(readFileSync(new URL(file, directory), 'utf8'))?.[1])
    expect([...new Set(types)].toSorted()).toEqual(['dropReplication', 'initReplication', 'replicate', 'snapshotTables', 'syncByXmin', 'syncChanges', 'verifyReplication'])
  })

  it.each(files)('%s', async (file) => {
    await Worker.runReplayHistory({ workflowBundle }, load(file), file.replace('.json', ''))
  })

  it.each(files)('%s, when traces are turned on', async (file) => {
    const exporter = { export: { fn: () => undefined, callDuringReplay: false } }
    await Worker.runReplayHistory({ workflowBundle: tracedBundle, sinks: { exporter } }, load(file), file.replace('.json', ''))
  })

  it('a history that they would not have written is noticed', async () => {
    const changed: unknown = JSON.parse(JSON.stringify(load('sync-changes.json')).replace('"initializeReplication"', '"somethingElse"'))
    await expect(Worker.runReplayHistory({ workflowBundle }, changed)).rejects.toThrow(DeterminismViolationError)
  })
})
