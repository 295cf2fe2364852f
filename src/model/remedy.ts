/**
 * A remedy's text: what to do, and below it the statements, each on a line of its own and ended with a semicolon, so that they can be
 * pasted as they stand. Where there are two ways out, two such texts follow each other.
 */
export function remedyText(advice: string, statements: readonly string[] = []): string {
  return [advice, ...statements.map((statement) => `${statement};`)].filter((line) => line !== '').join('\n')
}

/** The two ways on behind a gap, whichever workflow met it: behind "send". */
export const RECOVER_OR_RESET = 'replicate (start it, if none is open) the update recover (cli recover): a new slot, then only what differs is copied. Or start it with "reset": true'

export const SLOT_LOST_REMEDY = `Send ${RECOVER_OR_RESET}: a new slot, all tables copied anew.`

/** Whether a line of a remedy is a statement to run; the others are prose. */
export function isStatement(line: string): boolean {
  return line.endsWith(';')
}

/** One word of a POSIX shell, quoted when it has to be: ids and names are whatever their users chose. */
export function shellWord(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`
}
