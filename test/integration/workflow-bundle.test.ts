import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { developmentDirectory } from '../../src/embedded/project-directory.ts'
import { bundleWorkflowsApart, loadWorkflowBundle } from '../../src/workflow-bundle.ts'

it('bundles the workflows once, as long as nothing of them changes', async () => {
  const [made, first] = [await bundleWorkflowsApart(), await loadWorkflowBundle()]
  const folder = join(developmentDirectory, 'cache')
  const isKept = (name: string): boolean => /^workflows-[0-9a-f]{32}\.js$/.test(name) && readFileSync(join(folder, name), 'utf8') === first.code
  const kept = readdirSync(folder).find(isKept) ?? ''
  const writtenMs = statSync(join(folder, kept)).mtimeMs
  expect(await loadWorkflowBundle()).toEqual(first)
  expect(statSync(join(folder, kept)).mtimeMs).toBe(writtenMs)
  // Modules may come in another order.
  expect(Math.abs(made.code.length - first.code.length) < 1000).toBe(true)
})
