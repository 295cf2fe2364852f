import { ActivityFailure, ApplicationFailure, RetryState, TimeoutFailure, TimeoutType } from '@temporalio/common'
import { describe, expect, it } from 'vitest'
import { toFailure } from '../../../src/activities/failures.ts'
import { DomainError, ERROR_POLICY, type ErrorKind } from '../../../src/model/errors.ts'
import { failureOf, faultOf, refusing } from '../../../src/workflows/failures.ts'

const during = { operation: 'slice', attempt: 1 }

function activityFailure(cause: Error): ActivityFailure {
  return new ActivityFailure('Activity task failed', 'replicateSlice', '1', RetryState.NON_RETRYABLE_FAILURE, 'me', cause)
}

describe('an error on its way from the engine to the status', () => {
  it.each(Object.keys(ERROR_POLICY) as ErrorKind[])('%s keeps type, message, remedy and whether a retry can mend it', (kind) => {
    const error = new DomainError({ kind, message: 'what happened', remedy: 'what to do' })
    expect(faultOf(activityFailure(toFailure(error, during)))).toEqual({
      report: { type: kind, message: 'what happened', remedy: 'what to do' },
      isRetryable: error.isRetryable,
    })
  })

  it('takes a permanent one of a kind that usually mends itself for what it is', () => {
    const error = new DomainError({ kind: 'DestinationFailed', message: 'read-only', remedy: 'chmod', permanent: true })
    expect(faultOf(activityFailure(toFailure(error, during))).isRetryable).toBe(false)
  })

  it('survives a worker that knows other error types', () => {
    const fault = faultOf(activityFailure(ApplicationFailure.create({ type: 'NotFoundError', message: 'activity is not registered' })))
    expect(fault.report.type).toBe('InvalidConfig')
    expect(fault.isRetryable).toBe(true)
  })

  it('takes a lost activity for a fault that time mends', () => {
    expect(faultOf(activityFailure(new TimeoutFailure('timed out', undefined, TimeoutType.HEARTBEAT))).isRetryable).toBe(true)
  })
})

it('a refusal fails the workflow with the error type and no retry', () => {
  const error = new DomainError({ kind: 'InvalidInput', message: 'slotName is required', remedy: 'give it' })
  expect(failureOf(error)).toMatchObject({ type: 'InvalidInput', message: 'slotName is required. Remedy: give it', nonRetryable: true })
  expect(() =>
    refusing(() => {
      throw error
    }),
  ).toThrow(ApplicationFailure)
})
