import { refuseNotYetSupported } from '../model/spec-parse.ts'
import type { ReplicationInput } from '../model/spec.ts'
import { parseRunInput } from './run-input.ts'

/** Comparison of source and destination. Part of the contract, not of this version: fails with `InvalidInput`. */
export async function verifyReplication(input: Partial<ReplicationInput>, ...more: readonly undefined[]): Promise<never> {
  return parseRunInput([input, ...more], (given, origin) => refuseNotYetSupported('verifyReplication', given, origin))
}
