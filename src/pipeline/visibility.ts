import type { Snapshot } from '../model/snapshot.ts'

const EPOCH = 1n << 32n
const HALF_EPOCH = 1n << 31n

/**
 * The 64-bit transaction id that a stream's 32-bit one stands for: the one nearest to `reference`, a 64-bit id of about the same
 * time (ids further apart than 2^31 cannot be in use at once).
 */
export function widenXid(xid: number, reference: bigint): bigint {
  const candidate = (reference & ~(EPOCH - 1n)) | BigInt(xid >>> 0)
  if (candidate - reference > HALF_EPOCH) return candidate >= EPOCH ? candidate - EPOCH : candidate
  if (reference - candidate > HALF_EPOCH) return candidate + EPOCH
  return candidate
}

/** Does the snapshot see what a committed transaction did? */
export function isVisible(snapshot: Snapshot, xid: bigint): boolean {
  return xid < snapshot.xmin || (xid < snapshot.xmax && !snapshot.running.has(xid))
}
