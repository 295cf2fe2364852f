import { describe, expect, it } from 'vitest'
import { MAX_UNEXPECTED_ATTEMPTS, safeStack, toFailure } from '../../../src/activities/failures.ts'
import { DomainError } from '../../../src/model/errors.ts'

const during = { operation: 'slice', attempt: 1 }
const SECRET = 'hunter2'

describe('failures', () => {
  it('drop the cause, whose text may hold row values and credentials', () => {
    const cause = Object.assign(new Error(`duplicate key (email)=(${SECRET})`), { detail: SECRET })
    const failure = toFailure(new DomainError({ kind: 'DestinationFailed', message: 'the file is locked', remedy: 'close it', cause }), during)
    expect(failure.cause).toBeUndefined()
    expect(JSON.stringify(failure) + String(failure.stack)).not.toContain(SECRET)
    expect(failure.details).toEqual([{ message: 'the file is locked', remedy: 'close it' }])
    expect(failure.message).toBe('the file is locked. Remedy: close it')
  })

  it.each([
    ['a network error', Object.assign(new Error(SECRET), { code: 'ECONNRESET' }), 'SourceUnavailable'],
    ['a full disk', Object.assign(new Error(SECRET), { code: 'ENOSPC' }), 'DestinationFailed'],
    ['a bug', new TypeError(`${SECRET} is not a function`), 'ProtocolViolation'],
    ['no error at all', SECRET, 'ProtocolViolation'],
    ['a code that is a text', Object.assign(new Error('x'), { code: `password=${SECRET}` }), 'ProtocolViolation'],
  ])('tell %s by its class only, and retry it', (_what, error, type) => {
    const failure = toFailure(error, during)
    expect(failure.type).toBe(type)
    expect(failure.nonRetryable).toBe(false)
    expect(JSON.stringify(failure) + String(failure.stack)).not.toContain(SECRET)
  })

  it('give up a bug after some attempts', () => {
    expect(toFailure(new TypeError('x'), { ...during, attempt: MAX_UNEXPECTED_ATTEMPTS }).nonRetryable).toBe(true)
    expect(toFailure(Object.assign(new Error('x'), { code: 'ECONNRESET' }), { ...during, attempt: 100 }).nonRetryable).toBe(false)
  })

  it('leave call sites for the log', () => {
    const stack = safeStack(new Error(`first line ${SECRET}\nsecond line ${SECRET}`))
    expect(stack).toContain('failures.test.ts')
    expect(stack).not.toContain(SECRET)
  })
})
