import type { ReleaseRequest } from '../model/replication.ts'
import type { ReplicationSpec } from '../model/spec.ts'

/** Between two slices of a running workflow the engine's session stays open for this long; then readers may have the file (contract §5). */
export const LINGER_MS = 2_000

/** Whose session it is. */
export interface SessionUser {
  readonly spec: ReplicationSpec
  readonly owner: string
}

interface Session {
  /** Resolves when the last call that was let in has ended. */
  tail: Promise<void>
  callCount: number
  timer: NodeJS.Timeout | undefined
  user: SessionUser
}

/**
 * Lets one call at a time into the engine for each owner of a slot, and lets go of connection and file soon after the last one.
 *
 * One at a time: an attempt that missed its heartbeats may still be committing when Temporal starts the next. Letting go: nobody calls
 * `release` for a workflow that was terminated between two slices, and a paused one keeps its claim but not the file.
 */
export class SessionKeeper {
  readonly #release: (request: ReleaseRequest) => Promise<void>
  readonly #onReleaseError: (error: unknown) => void
  readonly #lingerMs: number
  readonly #sessions = new Map<string, Session>()

  constructor(options: {
    readonly release: (request: ReleaseRequest) => Promise<void>
    readonly onReleaseError: (error: unknown) => void
    readonly lingerMs?: number
  }) {
    this.#release = options.release
    this.#onReleaseError = options.onReleaseError
    this.#lingerMs = options.lingerMs ?? LINGER_MS
  }

  /** Runs a call for `user`, after those that came before it. `endsNow` is asked when it has ended: let go at once? */
  async use<T>(user: SessionUser, run: () => Promise<T>, endsNow: () => boolean): Promise<T> {
    const key = keyOf(user)
    const session = this.#sessions.get(key) ?? { tail: Promise.resolve(), callCount: 0, timer: undefined, user }
    this.#sessions.set(key, session)
    session.user = user
    session.callCount += 1
    clearTimeout(session.timer)
    const before = session.tail
    const call = before.then(run)
    session.tail = call.then(ignore, ignore)
    try {
      return await call
    } finally {
      session.callCount -= 1
      if (session.callCount === 0) {
        if (endsNow()) await this.#letGo(key, session)
        else this.#letGoLater(key, session)
      }
    }
  }

  /** The call that just ran has released the session: nothing is left to let go of. */
  forget(user: SessionUser): void {
    const key = keyOf(user)
    const session = this.#sessions.get(key)
    if (session === undefined || session.callCount > 1) return
    clearTimeout(session.timer)
    this.#sessions.delete(key)
  }

  /** Lets go of everything, after the calls that run. For a worker that ends. */
  async closeAll(): Promise<void> {
    await Promise.all(
      [...this.#sessions].map(async ([key, session]) => {
        await session.tail
        await this.#letGo(key, session)
      }),
    )
  }

  #letGoLater(key: string, session: Session): void {
    if (this.#sessions.get(key) !== session) return
    clearTimeout(session.timer)
    session.timer = setTimeout(() => void this.#letGo(key, session), this.#lingerMs)
    session.timer.unref()
  }

  async #letGo(key: string, session: Session): Promise<void> {
    clearTimeout(session.timer)
    if (session.callCount > 0 || this.#sessions.get(key) !== session) return
    // A call that comes meanwhile waits until the release is through: else it would be handed a session that is being closed.
    const released = this.#release({ ...session.user, keepClaim: true }).catch(this.#onReleaseError)
    session.tail = released
    await released
    if (session.callCount === 0 && this.#sessions.get(key) === session) this.#sessions.delete(key)
  }
}

function keyOf({ spec, owner }: SessionUser): string {
  return JSON.stringify([spec.source, spec.destination, spec.slotName, owner])
}

function ignore(): void {
  // The call's own caller hears of its error.
}
