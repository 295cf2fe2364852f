import { workflowInfo } from '@temporalio/workflow'
import { type InputOrigin, refuseMoreArguments } from '../model/spec-parse.ts'
import { refusing } from './failures.ts'

/** Parses a run's arguments, which must be one JSON object. Throws the failure that the run ends with. */
export function parseRunInput<T>(args: readonly unknown[], parse: (input: unknown, origin: InputOrigin) => T): T {
  const { workflowId, runId, workflowType } = workflowInfo()
  return parseOneObject(args, { of: workflowType, storedIn: { workflowId, runId } }, parse)
}

/** Parses an update's arguments: one JSON object, or none at all. Temporal does not store an update that its validator rejects. */
export function parseUpdateInput<T>(update: string, args: readonly unknown[], parse: (input: unknown, origin: InputOrigin) => T): T {
  return parseOneObject(args, { of: `update ${update}`, storedIn: null }, parse)
}

function parseOneObject<T>(args: readonly unknown[], origin: InputOrigin, parse: (input: unknown, origin: InputOrigin) => T): T {
  return refusing(() => {
    refuseMoreArguments(args, origin)
    return parse(args[0], origin)
  })
}
