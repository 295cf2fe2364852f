import { type Client, ServiceError } from '@temporalio/client'
import { expect, it, vi } from 'vitest'

import { sendUpdate } from '../../../src/cli/control.ts'

/** A client whose workflow answers updates as the test says. */
function clientAnswering(executeUpdate: (name: string, options: { readonly updateId: string }) => Promise<unknown>): Client {
  return { workflow: { getHandle: () => ({ executeUpdate }) } } as unknown as Client
}

function serviceError(details: string): ServiceError {
  const cause = Object.assign(new Error(details), { code: 9, details, metadata: {} })
  return new ServiceError('Workflow Update failed', { cause })
}

it('sends an update again, under the same id, when the server turned its workflow task down (UnhandledCommand)', async () => {
  const turnedDown = serviceError('Unable to perform workflow execution update due to unexpected workflow task failure.')
  const executeUpdate = vi.fn<(name: string, options: { readonly updateId: string }) => Promise<unknown>>()
  executeUpdate.mockRejectedValueOnce(turnedDown).mockResolvedValueOnce({ phase: 'stopped' })
  expect(await sendUpdate(clientAnswering(executeUpdate), 'w', { name: 'stop', input: {} })).toEqual({ phase: 'stopped' })
  const [first, second] = executeUpdate.mock.calls
  expect(first?.[1].updateId).toBe(second?.[1].updateId)
})

it('does not send an update again that was refused otherwise', async () => {
  const executeUpdate = vi.fn(async () => await Promise.reject(serviceError('permission denied')))
  await expect(sendUpdate(clientAnswering(executeUpdate), 'w', { name: 'stop', input: {} })).rejects.toThrow('Workflow Update failed')
  expect(executeUpdate).toHaveBeenCalledTimes(1)
})
