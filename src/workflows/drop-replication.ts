import { parseDropInput } from '../model/spec-parse.ts'
import type { DropReplicationInput } from '../model/spec.ts'
import { runOneShot } from './one-shot.ts'
import { parseRunInput } from './run-input.ts'

/** What `dropReplication` returns: what it dropped, for people. */
export interface DropReplicationResult {
  readonly dropped: readonly string[]
}

/** Drops slot and publication and, with `dropDestination`, the destination's tables and state. `confirm` must be the slot's name. */
export async function dropReplication(input: DropReplicationInput, ...more: readonly undefined[]): Promise<DropReplicationResult> {
  const { spec, dropDestination } = parseRunInput([input, ...more], parseDropInput)
  return runOneShot(spec, async ({ spec: { source, destination, slotName, publicationName }, run }) => {
    const drop = { source, destination, slotName, publicationName, dropDestination }
    const { dropped } = await run(`drop slot ${slotName}`, (activities) => activities.dropSlotAndPublication(drop))
    return { dropped }
  })
}
