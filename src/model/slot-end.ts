import type { SlotState } from './source.ts'

/** Of `max_slot_wal_keep_size`: with less than that left the slot's end is near. */
const NEAR_SHARE = 0.25
/** Of `idle_replication_slot_timeout`: with more than that gone the slot's end is near. */
const IDLE_SHARE = 0.5

/** Is the server about to give the slot up for the WAL that it holds back? `boundBytes`: `max_slot_wal_keep_size`; null = there is none. */
export function isNearWalBound({ walStatus, safeWalBytes }: Pick<SlotState, 'walStatus' | 'safeWalBytes'>, boundBytes: number | null): boolean {
  return walStatus === 'unreserved' || (boundBytes !== null && safeWalBytes !== null && safeWalBytes < boundBytes * NEAR_SHARE)
}

/** Is the server about to give the slot up because nobody uses it? `timeoutSeconds`: `idle_replication_slot_timeout`. */
export function isNearIdleTimeout(idleSeconds: number, timeoutSeconds: number): boolean {
  return idleSeconds > timeoutSeconds * IDLE_SHARE
}
