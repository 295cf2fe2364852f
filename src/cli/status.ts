import { setTimeout as sleep } from 'node:timers/promises'

import type { Client } from '@temporalio/client'
import type { Command } from 'commander'

import { type Answer, argumentsOf, isJson, print, withJson } from './answer.ts'
import { describeFailure, usageError } from './failure.ts'
import { listOpenReplications, type LiveStatus, readStatus } from './replication-status.ts'
import { Readings } from './readings.ts'
import { overviewText, statusText } from './status-text.ts'
import { withClient } from './temporal.ts'

const REFRESH_MS = 2_000
const CLEAR_SCREEN = '\u001b[H\u001b[J'

interface StatusOptions {
  readonly watch?: true
}

/** `status [workflowId]`: one replication in full, or every open one. */
export function addStatus(program: Command): void {
  const command = withJson(program.command('status'))
    .description('show a replication, or every open one')
    .argument('[workflowId]', 'id of the workflow')
    .option('--watch', 'refresh until Ctrl-C')
  command.action(async () => {
    const [workflowId] = argumentsOf(command)
    const { watch } = command.opts<StatusOptions>()
    if (watch === true && isJson(command)) throw usageError('--watch prints for people, --json one document', 'use one of them')
    await withClient(async (client) => {
      if (watch === true) await watchStatus(client, workflowId)
      else print(command, workflowId === undefined ? await overview(client) : await single(client, workflowId))
    })
  })
}

async function single(client: Client, workflowId: string, readings?: Readings): Promise<Answer & { readonly live: LiveStatus }> {
  const live = await readStatus(client, workflowId)
  readings?.add(live.status)
  return { live, document: live.status, text: statusText(live, readings?.trend ?? null) }
}

async function overview(client: Client): Promise<Answer> {
  const replications = await Promise.all(
    (await listOpenReplications(client)).map(async (workflowId) => {
      try {
        return await readStatus(client, workflowId)
      } catch (error) {
        return { workflowId, error: describeFailure(error).shown }
      }
    }),
  )
  return {
    document: replications.map((replication) =>
      'error' in replication ? replication : { workflowId: replication.workflowId, runId: replication.runId, status: replication.status },
    ),
    text: overviewText(replications.map((found) => ('error' in found ? { workflowId: found.workflowId, error: found.error.message } : found))),
  }
}

/** Prints the status again and again; ends on Ctrl-C, and when the one that it shows has ended. */
async function watchStatus(client: Client, workflowId: string | undefined): Promise<void> {
  const stop = new AbortController()
  const onInterrupt = (): void => {
    stop.abort()
  }
  process.once('SIGINT', onInterrupt)
  process.once('SIGTERM', onInterrupt)
  try {
    const readings = new Readings()
    while (!stop.signal.aborted) {
      const { text, live } = await refresh(client, workflowId, readings)
      process.stdout.write(`${process.stdout.isTTY ? CLEAR_SCREEN : ''}${text}\n`)
      if (live?.status.phase === 'stopped') return
      await sleep(REFRESH_MS, undefined, { signal: stop.signal }).catch(() => undefined)
    }
  } finally {
    process.off('SIGINT', onInterrupt)
    process.off('SIGTERM', onInterrupt)
  }
}

async function refresh(
  client: Client,
  workflowId: string | undefined,
  readings: Readings,
): Promise<{ readonly text: string; readonly live?: LiveStatus }> {
  try {
    return workflowId === undefined ? { text: (await overview(client)).text } : await single(client, workflowId, readings)
  } catch (error) {
    const { shown } = describeFailure(error)
    // A worker or server that is away comes back; an id that does not exist does not.
    if (!shown.type.endsWith('Unavailable')) throw error
    return { text: `${shown.message}\n${shown.remedy}` }
  }
}
