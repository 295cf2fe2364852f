import { readFile } from 'node:fs/promises';

/** The last lines of a server's log, for an error message; empty when there is none. */
export async function readLogTail(logFile: string, lineCount = 8): Promise<string> {
  const text = await readFile(logFile, 'utf8').catch(() => '');
  return text.trim().split('\n').slice(-lineCount).join('\n');
}
