import type { Snapshot } from '../model/snapshot.ts'
import type { OnWaiting, Source } from '../model/source.ts'
import type { TableRuntime } from './table-runtime.ts'

/** Takes the snapshot that says what those of `tables` wait for that have none yet (see {@link TableRuntime.awaited}). Nothing of `all` is being copied: a copy that is about to begin may have an older snapshot. */
export async function remember(source: Source, tables: readonly TableRuntime[], all: readonly TableRuntime[]): Promise<void> {
  const begun = tables.filter(({ awaited }) => awaited === null)
  // First: what is skipped before the snapshot is taken is seen by it, or runs in it.
  for (const table of begun) table.remember()
  const generations = begun.map(({ generation }) => generation)
  const snapshot = await source.readSnapshot()
  for (const table of all) table.noteVisible(snapshot)
  for (const [place, table] of begun.entries()) if (table.generation === generations[place]) table.awaited = snapshot
}

/** Tables that wait for nothing (more) first, then by what they wait for: what an earlier snapshot lists has never ended later than what the next one lists. */
export function byAge(tables: readonly TableRuntime[]): readonly (readonly TableRuntime[])[] {
  const groups = new Map<Snapshot | null, TableRuntime[]>()
  for (const table of tables) {
    const awaited = table.awaited === null || table.awaited.running.size === 0 ? null : table.awaited
    groups.set(awaited, [...(groups.get(awaited) ?? []), table])
  }
  return [...groups].sort(([a], [b]) => (a === null ? -1 : b === null ? 1 : a.xmax < b.xmax ? -1 : a.xmax > b.xmax ? 1 : 0)).map(([, group]) => group)
}

export interface AwaitedOptions {
  readonly onWaiting: OnWaiting
  readonly signal: AbortSignal
  /** Everything that is to be copied; nothing of it is being copied. */
  readonly all: readonly TableRuntime[]
  /** What an earlier slice has waited for. */
  readonly known: ReadonlySet<Snapshot | null>
}

/** Waits for what one group of {@link byAge} waits for. After an abort (it rejects with its reason) the next slice goes on waiting for what is left of it. */
export async function untilEnded(source: Source, group: readonly TableRuntime[], { onWaiting, signal, all, known }: AwaitedOptions): Promise<void> {
  const awaited = group[0]?.awaited ?? null
  if (awaited === null || awaited.running.size === 0) return
  const onSnapshot = (snapshot: Snapshot): void => {
    for (const table of all) table.noteVisible(snapshot)
  }
  await source.waitForTransactions(awaited.running, { onWaiting, onSnapshot, hasWaited: known.has(awaited), signal })
  for (const table of group) if (table.awaited === awaited) table.awaited = { ...awaited, running: new Set() }
}
