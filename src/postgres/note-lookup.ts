import { z } from 'zod'
import type { SourceCredentials } from './credentials.ts'
import { parseNotes } from './destination-note.ts'
import { connect, endQuietly } from './session.ts'
import { queryRows } from './sql.ts'

/** The id of the destination that a slot is served into, by the note on whichever publication of the database; null where none notes it. */
export async function readNotedDestination(credentials: SourceCredentials, slotName: string): Promise<string | null> {
  const client = await connect(credentials)
  try {
    const rows = await queryRows(client, z.object({ comment: z.string() }), {
      subject: 'publications of the source',
      text: `SELECT description AS comment FROM pg_description WHERE classoid = 'pg_publication'::regclass ORDER BY objoid`,
    })
    for (const { comment } of rows) {
      const noted = parseNotes(comment).get(slotName)
      if (noted !== undefined) return noted
    }
    return null
  } finally {
    await endQuietly(client)
  }
}
