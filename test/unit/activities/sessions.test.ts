import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { SessionKeeper, type SessionUser } from '../../../src/activities/sessions.ts'
import { parseReplicationInput } from '../../../src/model/spec-parse.ts'

const spec = {
  ...parseReplicationInput({ slotName: 's', publicationName: 'p' }, { of: 'test', storedIn: null }),
  source: 'shop',
  destination: 'warehouse',
}
const user: SessionUser = { spec, owner: 'one' }
const later = () => false
const now = () => true

let log: string[]
let keeper: SessionKeeper

beforeEach(() => {
  vi.useFakeTimers()
  log = []
  keeper = new SessionKeeper({
    release: async ({ owner, keepClaim }) => {
      log.push(`release ${owner} ${keepClaim === true ? 'keeps claim' : ''}`)
    },
    onReleaseError: () => log.push('error'),
    lingerMs: 1_000,
  })
})
afterEach(() => {
  vi.useRealTimers()
})

function call(name: string): { readonly run: () => Promise<void>; readonly end: () => void } {
  let end: () => void = () => undefined
  const ended = new Promise<void>((resolve) => {
    end = resolve
  })
  return {
    run: async () => {
      log.push(`${name} begins`)
      await ended
      log.push(`${name} ends`)
    },
    end: () => {
      end()
    },
  }
}

describe('sessions', () => {
  it('are let go of when no next call comes in time, with the claim kept', async () => {
    await keeper.use(user, async () => undefined, later)
    await vi.advanceTimersByTimeAsync(900)
    await keeper.use(user, async () => undefined, later)
    await vi.advanceTimersByTimeAsync(900)
    expect(log).toEqual([])
    await vi.advanceTimersByTimeAsync(200)
    expect(log).toEqual(['release one keeps claim'])
  })

  it('let one call in at a time for each owner', async () => {
    const zombie = call('zombie')
    const next = call('next')
    const other = call('other')
    const first = keeper.use(user, zombie.run, now)
    const second = keeper.use(user, next.run, later)
    const third = keeper.use({ spec, owner: 'two' }, other.run, later)
    await vi.advanceTimersByTimeAsync(0)
    expect(log).toEqual(['zombie begins', 'other begins'])
    zombie.end()
    await first
    await vi.advanceTimersByTimeAsync(0)
    // The zombie's end lets go of nothing: the next attempt uses it.
    expect(log).toEqual(['zombie begins', 'other begins', 'zombie ends', 'next begins'])
    next.end()
    other.end()
    await Promise.all([second, third])
  })

  it('are let go of at once when nobody will come', async () => {
    await keeper.use(user, async () => undefined, now)
    expect(log).toEqual(['release one keeps claim'])
  })

  it('are let go of after a call that failed, too', async () => {
    await expect(keeper.use(user, async () => Promise.reject(new Error('x')), later)).rejects.toThrow('x')
    await vi.advanceTimersByTimeAsync(1_100)
    expect(log).toEqual(['release one keeps claim'])
  })

  it('are not touched any more once they are forgotten', async () => {
    await keeper.use(user, async () => { keeper.forget(user) }, later) // prettier-ignore
    await vi.advanceTimersByTimeAsync(5_000)
    expect(log).toEqual([])
  })

  it('are all let go of when the worker ends, after the calls that run', async () => {
    const running = call('running')
    const use = keeper.use(user, running.run, later)
    await vi.advanceTimersByTimeAsync(0)
    const closing = keeper.closeAll()
    running.end()
    await use
    await closing
    expect(log).toEqual(['running begins', 'running ends', 'release one keeps claim'])
  })
})
