/**
 * A value of `pg_current_snapshot()`: which transactions a copy sees. Transaction ids are 64 bits (with epoch).
 *
 * Source: https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-PG-SNAPSHOT
 */
export interface Snapshot {
  /** Every transaction below it has ended. */
  readonly xmin: bigint
  /** Every transaction from it on had not begun (or not been given an id). */
  readonly xmax: bigint
  /** Those between them that were running. */
  readonly running: ReadonlySet<bigint>
}

const SNAPSHOT_TEXT = /^(\d+):(\d+):((?:\d+,)*\d+)?$/

/** Parses `xmin:xmax:xip,…`. Throws `RangeError` on anything else. */
export function parseSnapshot(text: string): Snapshot {
  const match = SNAPSHOT_TEXT.exec(text)
  if (match?.[1] === undefined || match[2] === undefined) throw new RangeError('not a pg_snapshot')
  const running = match[3] === undefined ? [] : match[3].split(',').map(BigInt)
  return { xmin: BigInt(match[1]), xmax: BigInt(match[2]), running: new Set(running) }
}
