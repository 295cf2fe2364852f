import { ServiceError } from '@temporalio/client'
import { describe, expect, it } from 'vitest'

import { describeFailure } from '../../../src/cli/failure.ts'

describe('an error of the server as the command line shows it', () => {
  const grpcError = (code: number, details: string): Error => Object.assign(new Error(`${String(code)} ${details}`), { code, details, metadata: {} })

  // Cause: a deadline that came while the call was being answered was shown as "Call cancelled", TemporalRefused.
  it.each([
    [1, 'Call cancelled'],
    [4, 'Deadline exceeded'],
  ])('says that no worker answered where the deadline came (code %i)', (code, details) => {
    const error = grpcError(code, details)
    expect(describeFailure(error).shown.type).toBe('WorkerUnavailable')
    expect(describeFailure(new ServiceError('Failed to query Workflow', { cause: error })).shown.type).toBe('WorkerUnavailable')
  })

  it('tells other refusals as they are', () => {
    expect(describeFailure(grpcError(7, 'not allowed')).shown).toMatchObject({ type: 'TemporalRefused', message: 'not allowed' })
  })
})
