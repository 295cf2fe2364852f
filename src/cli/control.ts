import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'

import { type Client, isGrpcServiceError } from '@temporalio/client'
import { WorkflowNotFoundError } from '@temporalio/common'
import type { Command } from 'commander'

import type { ReplicationStatus } from '../model/status.ts'
import { type Answer, answer } from './answer.ts'
import { usageError } from './failure.ts'
import { listOpenReplications, readStatus } from './replication-status.ts'
import { addShapeOptions, parseTableList } from './spec-options.ts'
import { statusText } from './status-text.ts'
import { withClient, within } from './temporal.ts'

/** An update of `replicate` as a verb. */
interface ControlVerb {
  readonly verb: string
  readonly update: string
  readonly description: string
  /** Whether it takes tables, or exactly one. */
  readonly tables?: 'optional' | 'required' | 'one'
}

const CONTROL_VERBS: readonly ControlVerb[] = [
  { verb: 'pause', update: 'pause', description: 'pause a replication after its running commit' },
  { verb: 'resume', update: 'resume', description: 'go on with a paused replication' },
  { verb: 'stop', update: 'stop', description: 'stop a replication; the slot stays, a later start goes on' },
  { verb: 'retry', update: 'retryFailed', description: 'go on with failed tables, or after a failure', tables: 'optional' },
  { verb: 'recover', update: 'recover', description: 'after a lost slot (or a restored, promoted or upgraded source): make a new slot, or go on with one that was kept; copy what differs' },
  { verb: 'add', update: 'addTables', description: 'replicate more tables, beside those that go on', tables: 'required' },
  { verb: 'remove', update: 'removeTables', description: 'stop replicating tables; their rows stay', tables: 'required' },
  { verb: 'resync', update: 'resyncTables', description: 'copy tables anew, in another shape where one is given, swapped in at once', tables: 'required' },
  { verb: 'approve', update: 'approveSchemaChange', description: 'let a table make the schema change that it waits at (--schema-changes ask)', tables: 'one' },
]

interface ControlOptions {
  readonly tables?: readonly string[]
  readonly table?: string
  readonly dropDestination?: true
  readonly writeMode?: unknown
  readonly deleteMode?: string
  readonly timeout?: string
}

const DEFAULT_TIMEOUT_SECONDS = 120

/** `pause`, `resume`, `stop`, `retry`, `recover`, `add`, `remove`, `resync`, `approve`: one update each, answered with the status. */
export function addControlVerbs(program: Command): void {
  for (const control of CONTROL_VERBS) {
    const command = program
      .command(control.verb)
      .description(control.description)
      .argument('[workflowId]', 'id of the workflow (default: the only open replication)')
      .option('--timeout <seconds>', `longest time to wait for the answer (default: ${DEFAULT_TIMEOUT_SECONDS})`)
    if (control.tables === 'optional') command.option('--tables <names>', 'tables, separated by commas', parseTableList)
    if (control.tables === 'required') command.requiredOption('--tables <names>', 'tables, separated by commas', parseTableList)
    if (control.tables === 'one') command.requiredOption('--table <name>', 'the table')
    if (control.verb === 'resync') addShapeOptions(command)
    if (control.verb === 'remove') command.option('--drop-destination', 'drop their destination tables too')
    answer(command, async ([workflowId]) => await runControl(control, workflowId, command.opts<ControlOptions>()))
  }
}

async function runControl(control: ControlVerb, given: string | undefined, options: ControlOptions): Promise<Answer> {
  const timeoutSeconds = Number(options.timeout ?? DEFAULT_TIMEOUT_SECONDS)
  if (!(timeoutSeconds > 0)) throw usageError('--timeout is not a number of seconds', `for example --timeout ${DEFAULT_TIMEOUT_SECONDS}`)
  const input = {
    ...(options.tables === undefined ? {} : { tableNames: options.tables }),
    ...(options.table === undefined ? {} : { table: options.table }),
    ...(options.dropDestination === undefined ? {} : { dropDestination: true }),
    ...(options.writeMode === undefined ? {} : { writeMode: options.writeMode }),
    ...(options.deleteMode === undefined ? {} : { deleteMode: options.deleteMode }),
  }
  return await withClient(async (client) => {
    const workflowId = given ?? (await onlyOpenReplication(client))
    const status = await within(client, timeoutSeconds, async () => await sendUpdate(client, workflowId, { name: control.update, input }))
    const more = control.verb === 'pause' && status.phase === 'paused' ? '\na DuckDB file that nobody else writes is free for readers within 5 s' : ''
    return { document: status, text: `${statusText({ workflowId, runId: '', status, activity: null })}${more}` }
  })
}

const RETRY_AFTER_MS = 200

/**
 * Sends an update until the workflow has answered it. One that meets a workflow task that the server turns down (the workflow wanted to end
 * while something else arrived: `UnhandledCommand`) is given back as failed although it was never seen; its id keeps it from being carried
 * out twice. Where the workflow has ended meanwhile, its end is the answer.
 */
export async function sendUpdate(client: Client, workflowId: string, { name, input }: { readonly name: string; readonly input: object }): Promise<ReplicationStatus> {
  const handle = client.workflow.getHandle(workflowId)
  const updateId = randomUUID()
  for (let attempt = 1; ; attempt++) {
    try {
      return await handle.executeUpdate<ReplicationStatus, [object]>(name, { args: [input], updateId })
    } catch (error) {
      const hasEnded = error instanceof WorkflowNotFoundError && (attempt > 1 || error.message.includes('aborted by closing'))
      if (hasEnded) return (await readStatus(client, workflowId)).status
      if (!isTurnedDown(error)) throw error
      await sleep(RETRY_AFTER_MS)
    }
  }
}

function isTurnedDown(error: unknown): boolean {
  const cause = error instanceof Error ? error.cause : undefined
  return isGrpcServiceError(cause) && cause.details.includes('unexpected workflow task failure')
}

/** The id of the one open replication. Throws a usage error where there is none or more than one. */
export async function onlyOpenReplication(client: Client): Promise<string> {
  const [first, ...others] = await listOpenReplications(client)
  if (first === undefined) throw usageError('no replication is open', 'npm run cli -- start begins one')
  if (others.length > 0) throw usageError(`there are several open replications: ${[first, ...others].join(', ')}`, 'name one of them')
  return first
}
