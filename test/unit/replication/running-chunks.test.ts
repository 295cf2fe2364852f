import { expect, it } from 'vitest'
import { Bell } from '../../../src/replication/bell.ts'
import { keepCopying, RunningChunks } from '../../../src/replication/running-chunks.ts'

it('ends at once where the end is rung while it looks for something to copy', async () => {
  const ended = new AbortController()
  const bell = new Bell()
  const looks: (() => void)[] = []
  const copy = async (): Promise<null> => new Promise((resolve) => looks.push(() => { resolve(null) }))
  const { done, copied } = keepCopying({ signal: ended.signal, chunks: new RunningChunks(() => undefined) }, { copy, bell })
  ended.abort()
  bell.ring()
  looks[0]?.()
  // Cause: every slice ended a second late, when the loop looked again by itself.
  expect(await Promise.race([done.then(() => 'over'), new Promise((resolve) => setTimeout(resolve, 100, 'waiting'))])).toBe('over')
  expect(copied).toEqual({})
  expect(looks).toHaveLength(1)
})
