import { setTimeout as sleep } from 'node:timers/promises'

/** Waits for `work`, `limitMs` at most. False where it takes longer: it goes on, and what becomes of it then is nobody's concern. Rejects as `work` does. */
export async function endsWithin(work: Promise<unknown>, limitMs: number): Promise<boolean> {
  return orAfter(work.then(() => true), limitMs, false)
}

/** What `work` comes to; null where it takes longer than `limitMs`, or rejects: then nobody is told of it. */
export async function answerWithin<T>(work: Promise<T>, limitMs: number): Promise<T | null> {
  return orAfter(work.catch(() => null), limitMs, null)
}

async function orAfter<T>(work: Promise<T>, limitMs: number, late: T): Promise<T> {
  const limit = new AbortController()
  try {
    return await Promise.race([work, sleep(limitMs, late, { signal: limit.signal })])
  } finally {
    limit.abort()
  }
}
