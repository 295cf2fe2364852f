import type { Client } from '@temporalio/client'
import { WorkflowNotFoundError } from '@temporalio/common'

const CLOSED: ReadonlySet<string> = new Set(['COMPLETED', 'FAILED', 'CANCELLED', 'TERMINATED', 'TIMED_OUT'])

/**
 * Asks Temporal whether the newest run of a workflow id is open (design.md, decision 7). One that Temporal no longer knows is closed;
 * when Temporal cannot answer, the error goes up: guessing would let two workflows write one destination.
 */
export function isWorkflowOpen(client: Client): (workflowId: string) => Promise<boolean> {
  return async (workflowId) => {
    try {
      const { status } = await client.workflow.getHandle(workflowId).describe()
      return !CLOSED.has(status.name)
    } catch (error) {
      if (error instanceof WorkflowNotFoundError) return false
      throw error
    }
  }
}
