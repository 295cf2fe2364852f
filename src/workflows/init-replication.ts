import { parseReplicationInput } from '../model/spec-parse.ts'
import type { InitializeResult } from '../model/replication.ts'
import type { ReplicationInput } from '../model/spec.ts'
import { runOneShot } from './one-shot.ts'
import { parseRunInput } from './run-input.ts'

/** What `initReplication` returns. */
export type InitReplicationResult = Omit<InitializeResult, 'progress'>

/** Creates what is missing: publication, membership, slot. Idempotent; `reset` makes all of it anew. */
export async function initReplication(input: ReplicationInput, ...more: readonly undefined[]): Promise<InitReplicationResult> {
  const spec = parseRunInput([input, ...more], parseReplicationInput)
  return runOneShot(spec, async (shot) => {
    const result = await shot.run(`check and prepare slot ${spec.slotName}`, (activities) => activities.initializeReplication({ spec: shot.spec }))
    const { slotName, publicationName, consistentPoint, created, tables, warnings } = result
    return { slotName, publicationName, consistentPoint, created, tables, warnings }
  })
}
