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

/** What `work` comes to; null where it takes longer than `limitMs`, or rejects: then nobody is told of it. */
export async function answerWithin<T>(work: Promise<T>, limitMs: number): Promise<T | null> {
  const limit = new AbortController()
  try {
    return await Promise.race([work.catch(() => null), sleep(limitMs, null, { signal: limit.signal })])
  } finally {
    limit.abort()
  }
}
