import { expect, it } from 'vitest'
import { answerWithin } from '../../../src/postgres/ends-within.ts'

it('answers what comes in time, and null where nothing does, or an error', async () => {
  expect(await answerWithin(Promise.resolve(7), 10_000)).toBe(7)
  expect(await answerWithin(Promise.reject(new Error('gone')), 10_000)).toBeNull()
  expect(await answerWithin(new Promise(() => undefined), 10)).toBeNull()
})
