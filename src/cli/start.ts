import { setTimeout as sleep } from 'node:timers/promises'

import { type Client, WorkflowExecutionAlreadyStartedError } from '@temporalio/client'
import type { Command } from 'commander'

import { configuredTaskQueue } from '../config.ts'
import type { ErrorReport } from '../model/errors.ts'
import { shellWord } from '../model/remedy.ts'
import { answer } from './answer.ts'
import { CliError } from './failure.ts'
import { readStatus } from './replication-status.ts'
import { addSpecOptions, addTypeOption, checkedSpecInput, pipelineOf, typeOf } from './spec-options.ts'
import { hasWorker } from './task-queue-pollers.ts'
import { uiLink, withClient } from './temporal.ts'

/** What is wrong with an input shows within this time, mostly. */
const LOOK_MS = 5_000
const LOOK_AGAIN_MS = 200

/** `start`: the `replicate` workflow, or one run of `syncByXmin`. */
export function addStart(program: Command): void {
  const command = program
    .command('start')
    .description('start a replication: initial load, then changes until stopped; or with --type syncByXmin one run that reads without a slot')
    .argument('[workflowId]', 'id of the workflow (default: replicate-<slot>, or sync-xmin-<source>)')
  answer(addSpecOptions(addTypeOption(command, ['replicate', 'syncByXmin'])), async ([given]) => {
    const type = typeOf(command)
    const input = checkedSpecInput(command, type)
    const isRun = type === 'syncByXmin'
    const workflowId = given ?? `${isRun ? 'sync' : 'replicate'}-${pipelineOf(input)}`
    return await withClient(async (client) => {
      const taskQueue = configuredTaskQueue(process.env)
      try {
        const handle = await client.workflow.start(type, {
          workflowId,
          taskQueue,
          args: [input],
          staticSummary: isRun ? 'read by xmin' : `slot ${String(input['slotName'])}`,
        })
        const runId = handle.firstExecutionRunId
        const isAwaited = await hasWorker(client, taskQueue, 'workflows and activities')
        const link = uiLink(client, workflowId, runId)
        const failure = isAwaited && !isRun ? await failureAtOnce(client, workflowId) : null
        return {
          document: { workflowId, runId, ...(link === null ? {} : { uiLink: link }), ...(failure === null ? {} : { error: failure }) },
          exitCode: failure === null ? 0 : 1,
          text: [
            `started ${workflowId} (run ${runId})`,
            ...(link === null ? [] : [link]),
            ...(isAwaited ? [] : [`no worker polls task queue ${taskQueue} yet: npm start runs one`]),
            ...(failure === null ? [] : [`it waits in phase failed: ${failure.type}: ${failure.message}`, failure.remedy, `then npm run cli -- retry ${shellWord(workflowId)}; for another input stop it first, and start again`]),
            isRun ? `temporal workflow result --workflow-id ${shellWord(workflowId)}` : `npm run cli -- status ${shellWord(workflowId)} --watch`,
          ].join('\n'),
        }
      } catch (error) {
        if (!(error instanceof WorkflowExecutionAlreadyStartedError)) throw error
        throw new CliError({
          type: 'AlreadyReplicating',
          message: `a workflow ${workflowId} is already running`,
          remedy: isRun ? `let it end; temporal workflow result --workflow-id ${shellWord(workflowId)} waits for it` : `npm run cli -- status ${shellWord(workflowId)} shows it; npm run cli -- stop ${shellWord(workflowId)} stops it; give another workflow id for another slot`,
        })
      }
    })
  })
}

/** Why the replication waits in phase `failed` already; null where it has begun, or is still about to. */
async function failureAtOnce(client: Client, workflowId: string): Promise<ErrorReport | null> {
  const endMs = performance.now() + LOOK_MS
  while (performance.now() < endMs) {
    const { status } = await readStatus(client, workflowId)
    if (status.phase === 'failed') return status.lastError ?? null
    if (status.phase !== 'initializing') return null
    await sleep(LOOK_AGAIN_MS)
  }
  return null
}
