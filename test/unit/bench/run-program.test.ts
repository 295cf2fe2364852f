import { describe, expect, it } from 'vitest'
import { numberIn } from '../../../bench/run-program.ts'

describe('what a reference says of itself', () => {
  it('is the number in its output', () => {
    expect(numberIn('began\nseconds 1.250\n', /^seconds (\d+\.\d+)$/m, 'it')).toBe(1.25)
  })

  it('is never guessed', () => {
    expect(() => numberIn('began\n', /^seconds (\d+\.\d+)$/m, 'it')).toThrow('it did not say what it was asked for: began')
  })
})
