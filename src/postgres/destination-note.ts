/**
 * The note on a publication that says which destination a slot is served into (contract §4): one line of its comment per slot.
 * Other lines of the comment are somebody else's and are kept.
 *
 * `temporal-pg-replication destination=<id> slot=<slot>`
 */
const NOTE_LINE = /^temporal-pg-replication destination=(\S+) slot=([a-z0-9_]+)$/

/** Destination ids by slot name. */
export type DestinationNotes = ReadonlyMap<string, string>

export function parseNotes(comment: string | null): DestinationNotes {
  const notes = new Map<string, string>()
  for (const line of linesOf(comment)) {
    const [, destinationId, slotName] = NOTE_LINE.exec(line) ?? []
    if (destinationId !== undefined && slotName !== undefined) notes.set(slotName, destinationId)
  }
  return notes
}

/** The comment with this slot's note set to `destinationId`, or taken out where it is null; null = no comment is left. */
export function withNote(comment: string | null, slotName: string, destinationId: string | null): string | null {
  const lines = linesOf(comment).filter((line) => NOTE_LINE.exec(line)?.[2] !== slotName)
  if (destinationId !== null) lines.push(`temporal-pg-replication destination=${destinationId} slot=${slotName}`)
  return lines.length === 0 ? null : lines.join('\n')
}

function linesOf(comment: string | null): string[] {
  return comment === null || comment === '' ? [] : comment.split('\n')
}
