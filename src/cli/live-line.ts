import { setTimeout as sleep } from 'node:timers/promises'
import type { WorkflowHandle } from '@temporalio/client'
import { printable } from './printable.ts'
import { newestHeartbeat } from './replication-status.ts'

const REFRESH_MS = 2_000
const CLEAR_LINE = '\r\u001b[K'

/**
 * Waits for a workflow's result; meanwhile shows on stderr what its activity is about, every 2 s where it is something else: at a terminal in one line that is gone
 * at the end, else in a line each. Throws what the workflow throws.
 */
export async function showUntilResult(handle: WorkflowHandle): Promise<unknown> {
  const { stderr } = process
  const ended = new AbortController()
  const result = handle.result().finally(() => { ended.abort() })
  const showing = show(handle, ended.signal)
  try {
    return (await result) as unknown
  } finally {
    await showing
    if (stderr.isTTY) stderr.write(CLEAR_LINE)
  }
}

async function show(handle: WorkflowHandle, ended: AbortSignal): Promise<void> {
  const { stderr } = process
  let shown: string | null = null
  for (;;) {
    await sleep(REFRESH_MS, undefined, { signal: ended }).catch(() => undefined)
    if (ended.aborted) return
    // A server that is away for a while is the result's to tell.
    const activity = await handle.describe().then(({ raw }) => newestHeartbeat(raw.pendingActivities ?? []).activity, () => null)
    if (isOver(ended)) return
    if (activity === null || activity === shown) continue
    shown = activity
    stderr.write(stderr.isTTY ? `${CLEAR_LINE}${printable(activity).slice(0, stderr.columns - 1)}` : `${printable(activity)}\n`)
  }
}

/** Asked anew: it may have come about during a wait. */
function isOver(signal: AbortSignal): boolean {
  return signal.aborted
}
