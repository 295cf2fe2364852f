import { setTimeout as sleep } from 'node:timers/promises'

/** Waits for `work`, `limitMs` at most. False where it takes longer: it goes on, and what becomes of it then is nobody's concern. Rejects as `work` does. */
export async function endsWithin(work: Promise<unknown>, limitMs: number): Promise<boolean> {
  const limit = new AbortController()
  try {
    return await Promise.race([work.then(() => true), sleep(limitMs, false, { signal: limit.signal })])
  } finally {
    limit.abort()
  }
}
