/**
 * Search attributes of `replicate`: the only place that knows their names. A workflow sets those that its namespace knows; the numbers are Temporal's
 * `IndexedValueType` on the wire.
 */
export const SEARCH_ATTRIBUTES = {
  ReplicationPhase: { type: 'KEYWORD', wireType: 2, description: 'initializing, snapshotting, streaming, paused, failed or stopped' },
  ReplicationSource: { type: 'KEYWORD', wireType: 2, description: 'name of the source' },
  ReplicationSlot: { type: 'KEYWORD', wireType: 2, description: 'replication slot' },
  ReplicationLagBytes: { type: 'INT', wireType: 3, description: 'lag in bytes when it last doubled, halved, came or went' },
} as const

export type SearchAttributeName = keyof typeof SEARCH_ATTRIBUTES

export const SEARCH_ATTRIBUTE_NAMES = Object.keys(SEARCH_ATTRIBUTES).filter(isSearchAttributeName)

export function isSearchAttributeName(name: string): name is SearchAttributeName {
  return Object.hasOwn(SEARCH_ATTRIBUTES, name)
}
