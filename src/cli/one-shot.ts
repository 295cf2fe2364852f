import type { Client } from '@temporalio/client'
import { WorkflowNotFoundError } from '@temporalio/common'
import type { Command } from 'commander'

import { configuredTaskQueue } from '../config.ts'
import { parseDropInput } from '../model/spec-parse.ts'
import { type Answer, answer } from './answer.ts'
import { usageError } from './failure.ts'
import { showUntilResult } from './live-line.ts'
import { addSpecOptions, specInput } from './spec-options.ts'
import { requireWorker } from './task-queue-pollers.ts'
import { asObject, scheduleOf, withClient, workflowInput } from './temporal.ts'

/** Fields of a replication that say where it is; the only ones that a drop needs of it. */
const IDENTIFYING_FIELDS = ['source', 'destination', 'slotName', 'publicationName', 'schemaName', 'tableNames', 'datasetName', 'writeMode']

/** Adds a verb that runs a workflow to its end, for the pipeline of a workflow id or of spec options. */
export function pipelineCommand(program: Command, verb: string, description: string): Command {
  const command = program
    .command(verb)
    .description(description)
    .argument('[workflowId]', 'id of a replicate workflow, open or not, whose slot is meant; or give the options')
  return addSpecOptions(command)
}

interface GivenPipeline {
  readonly fields: Readonly<Record<string, unknown>>
  /** The named workflow's own: where its worker, with its destination, is. */
  readonly taskQueue: string
}

/** What the options say, over what of the workflow's own input is wanted; with `isScheduleMeant` of the schedule's of that id, where there is no such workflow. */
export async function pipelineInput(
  client: Client,
  { workflowId, command, isScheduleMeant = false }: { readonly workflowId: string | undefined; readonly command: Command; readonly isScheduleMeant?: boolean },
  isWanted: (field: string) => boolean,
): Promise<GivenPipeline> {
  const given = specInput(command)
  if (workflowId === undefined) return { fields: { ...given }, taskQueue: configuredTaskQueue(process.env) }
  const handle = client.workflow.getHandle(workflowId)
  const { taskQueue, started } = await handle.describe().then(
    async (found) => ({ taskQueue: found.taskQueue, started: await workflowInput(client, handle) }),
    async (error: unknown) => {
      const schedule = isScheduleMeant && error instanceof WorkflowNotFoundError ? await scheduleOf(client, workflowId) : null
      if (schedule === null) throw error
      return { taskQueue: schedule.action.taskQueue, started: asObject(schedule.action.args?.[0]) }
    },
  )
  const wanted = Object.entries(started).filter(([field]) => isWanted(field))
  return { fields: { ...Object.fromEntries(wanted), ...given }, taskQueue }
}

interface RunOptions {
  readonly workflowId: string
  readonly taskQueue: string
  readonly input: object
  /** Shows on stderr what it is about. */
  readonly isShown?: boolean
}

/** Starts a workflow and waits for its result. Throws what it throws. */
export async function runToEnd(client: Client, workflowType: string, { workflowId, taskQueue, input, isShown = false }: RunOptions): Promise<unknown> {
  await requireWorker(client, taskQueue)
  const handle = await client.workflow.start(workflowType, { workflowId, taskQueue, args: [input] })
  return isShown ? await showUntilResult(handle) : ((await handle.result()) as unknown)
}

interface DropOptions {
  readonly confirm?: string
  readonly dropDestination?: true
}

/** `drop`: slot, publication and, when asked, the destination's tables. */
export function addDrop(program: Command): void {
  const command = pipelineCommand(program, 'drop', 'drop a replication\'s slot and publication')
    .option('--drop-destination', 'drop the destination tables and state too')
    .option('--confirm <slotName>', 'the slot\'s name again: what is dropped cannot be brought back')
  answer(command, async ([workflowId]): Promise<Answer> => {
    const { confirm, dropDestination } = command.opts<DropOptions>()
    return await withClient(async (client) => {
      const { fields: pipeline, taskQueue } = await pipelineInput(client, { workflowId, command }, (field) => IDENTIFYING_FIELDS.includes(field))
      const slotName = pipeline['slotName']
      if (typeof slotName !== 'string') throw usageError('which slot is to be dropped?', 'give the workflow id, or --slot and --publication')
      if (confirm === undefined) {
        const what = dropDestination === true ? 'its publication and its destination tables' : 'its publication'
        throw usageError(`this drops slot ${slotName}, ${what}`, `if that is meant, repeat it with --confirm ${slotName}`)
      }
      const input = { ...pipeline, confirm, ...(dropDestination === true ? { dropDestination } : {}) }
      parseDropInput(input, { of: 'dropReplication', storedIn: null })
      const document = await runToEnd(client, 'dropReplication', { workflowId: `drop-${slotName}`, taskQueue, input })
      return { document, text: droppedText(document) }
    })
  })
}

function droppedText(document: unknown): string {
  const dropped = typeof document === 'object' && document !== null && 'dropped' in document && Array.isArray(document.dropped) ? document.dropped : []
  return dropped.length === 0 ? 'nothing was left to drop' : dropped.map((name) => `dropped ${String(name)}`).join('\n')
}
