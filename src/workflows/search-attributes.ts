import { defineSearchAttributeKey, type SearchAttributeUpdatePair } from '@temporalio/common'
import { upsertMemo, upsertSearchAttributes, workflowInfo } from '@temporalio/workflow'
import { isSearchAttributeName, type SearchAttributeName } from '../model/search-attributes.ts'
import type { ReplicationSpec } from '../model/spec.ts'
import type { ReplicationStatus } from '../model/status.ts'

const KEYS = {
  phase: defineSearchAttributeKey('ReplicationPhase', 'KEYWORD'),
  lagBytes: defineSearchAttributeKey('ReplicationLagBytes', 'INT'),
  source: defineSearchAttributeKey('ReplicationSource', 'KEYWORD'),
  slot: defineSearchAttributeKey('ReplicationSlot', 'KEYWORD'),
} as const

/**
 * Shows a replication in Temporal's list of workflows, where the namespace has the attributes. Each setting is an event of the history: so a phase is shown when it
 * changes, and the lag when it is of another magnitude.
 */
export class ListedAttributes {
  readonly #registered: ReadonlySet<SearchAttributeName>
  readonly #spec: Pick<ReplicationSpec, 'source' | 'slotName'>
  /** What is shown, as far as it matters. */
  #shown: string | null = null

  constructor(registered: readonly SearchAttributeName[], spec: Pick<ReplicationSpec, 'source' | 'slotName'>) {
    this.#registered = new Set(registered)
    this.#spec = spec
  }

  show({ phase, lagBytes }: ReplicationStatus): void {
    if (this.#registered.size === 0) return
    const wanted = [
      ...(this.#registered.has('ReplicationPhase') ? [phase] : []),
      ...(this.#registered.has('ReplicationLagBytes') ? [magnitude(lagBytes)] : []),
    ].join(' ')
    if (wanted === this.#shown) return
    this.#shown = wanted
    const pairs: readonly (readonly [SearchAttributeName, SearchAttributeUpdatePair])[] = [
      ['ReplicationPhase', { key: KEYS.phase, value: phase }],
      ['ReplicationLagBytes', { key: KEYS.lagBytes, value: lagBytes }],
      ['ReplicationSource', { key: KEYS.source, value: this.#spec.source }],
      ['ReplicationSlot', { key: KEYS.slot, value: this.#spec.slotName }],
    ]
    upsertSearchAttributes(pairs.filter(([name]) => this.#registered.has(name)).map(([, pair]) => pair))
  }
}

/** Those that this run, or one that it continues, has set: where nobody tells what the namespace has, they must not stand as they were then. */
export function shownAttributes(): readonly SearchAttributeName[] {
  return workflowInfo().typedSearchAttributes.getAll().map(({ key }) => key.name).filter(isSearchAttributeName)
}

/** Lists show it without a query; runs that continue this one have it too. */
export function noteInMemo({ source, destination, slotName, publicationName }: ReplicationSpec): void {
  if (workflowInfo().memo?.['slotName'] !== undefined) return
  upsertMemo({ source, destination, slotName, publicationName })
}

/** Of lag: `–`, 0, 1, 2, … for unknown, nothing, 1 byte, 2 bytes, 4 bytes … */
function magnitude(bytes: number | null): string {
  return bytes === null ? '–' : String(bytes < 1 ? 0 : 1 + Math.floor(Math.log2(bytes)))
}
