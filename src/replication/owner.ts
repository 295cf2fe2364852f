import { pipelineName, XMIN_PIPELINE, type Fence, type PipelineKey, type PipelineState } from '../model/destination.ts'
import { DomainError } from '../model/errors.ts'
import { shellWord } from '../model/remedy.ts'
import type { OperationContext } from '../model/replication.ts'

/** Decision 7: one owner a pipeline, for as long as its workflow is open. */
export async function requireOwner(state: Pick<PipelineState, 'key' | 'owner'> | null, context: OperationContext): Promise<void> {
  const owner = state?.owner ?? null
  if (state === null || owner === null || owner === context.owner || !(await context.isWorkflowOpen(owner))) return
  const isRun = state.key.slotName === XMIN_PIPELINE
  throw new DomainError({
    kind: 'AlreadyReplicating',
    message: isRun ? `${pipelineName(state.key)} is being done by workflow ${owner}` : `${pipelineName(state.key)} is being replicated by workflow ${owner}`,
    // Cancelling ends any workflow, and what it was at goes on exactly at the next start.
    remedy: isRun
      ? `let it end, or cancel it (temporal workflow cancel --workflow-id ${shellWord(owner)})`
      : `stop that workflow first (temporal workflow cancel --workflow-id ${shellWord(owner)}; a replicate has update stop too)`,
  })
}

/** What an owner writes under. */
export function fenceOf(key: PipelineKey, { owner, epoch }: PipelineState): Fence {
  return { ...key, owner: owner ?? '', epoch }
}
