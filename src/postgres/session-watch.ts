import type { Readable } from 'node:stream'
import pg from 'pg'
import { DomainError } from '../model/errors.ts'
import { SERVER_ERROR } from './sqlstate.ts'

/** How often a session is looked at that waits for an answer. */
const TICK_MS = 5_000
/** So many ticks without a byte before the server is asked: a statement may take its time. */
const PATIENT_TICKS = 6
/** After a look that found the statement at work the next one comes so many ticks later. */
const TICKS_AFTER_GOOD_LOOK = 60
/** So many looks in a row must find no sign of the statement. */
const FRUITLESS_LOOKS = 2

/** What of `pg`'s client its types leave out. */
interface ClientState {
  /** False while an answer is waited for. */
  readonly readyForQuery: boolean | null
  readonly processID: number | null
}

interface WatchOptions {
  /** Opens another session, whose statements give up by themselves. */
  readonly openProbe: () => Promise<pg.Client>
  /** Ends {@link WatchOptions.openProbe}'s session; never throws. */
  readonly end: (client: pg.Client) => Promise<void>
  /** Default {@link TICK_MS}. */
  readonly tickMs?: number
}

/**
 * Ends a session whose connection is half open (a firewall that forgot it, a host that went without a word), so that its statement fails as on
 * a broken one; nothing else would tell for a quarter of an hour, or ever. A statement may run for hours without a byte, so the server is asked by
 * another connection: does that backend still work on it, and can the server be reached at all? Stops with the session, or when the returned function is called.
 *
 * Behind a connection pooler, which gives backends numbers of its own, only reaching the server counts.
 */
export function watchSession(client: pg.Client, { openProbe, end, tickMs = TICK_MS }: WatchOptions): () => void {
  let silentTicks = 0
  let nextLook = PATIENT_TICKS
  let fruitlessLooks = 0
  let seenBytes = -1
  let isLooking = false
  const stream = (): Readable & { readonly bytesRead: number } => client.connection.stream as unknown as Readable & { readonly bytesRead: number }
  // What waits in a socket that we do not read from is an answer too.
  const hasAnswer = (): boolean => stateOf(client).readyForQuery !== false || stream().isPaused() || stream().bytesRead !== seenBytes
  const look = async (): Promise<void> => {
    const isAtWork = await isBackendAtWork(stateOf(client).processID, openProbe, end)
    if (isAtWork || hasAnswer()) {
      fruitlessLooks = 0
      nextLook = silentTicks + TICKS_AFTER_GOOD_LOOK
      return
    }
    fruitlessLooks += 1
    if (fruitlessLooks < FRUITLESS_LOOKS) return
    stop()
    const message = `the server has not answered for ${String((silentTicks * tickMs) / 1_000)} s, and does not work on it`
    client.connection.stream.destroy(Object.assign(new Error(message), { code: 'ETIMEDOUT' }))
  }
  const timer = setInterval(() => {
    if (isLooking) return
    if (hasAnswer()) {
      silentTicks = 0
      nextLook = PATIENT_TICKS
      fruitlessLooks = 0
      seenBytes = stream().bytesRead
      return
    }
    silentTicks += 1
    if (silentTicks < nextLook) return
    isLooking = true
    void look().finally(() => {
      isLooking = false
    })
  }, tickMs)
  timer.unref()
  const stop = (): void => { clearInterval(timer) }
  client.once('end', stop)
  return stop
}

/** Asks `client`'s server for the number of its backend, which a pooler has another one for. */
async function isPooled(client: pg.Client): Promise<boolean> {
  const { rows } = await client.query<{ pid: number }>('SELECT pg_catalog.pg_backend_pid() AS pid')
  return rows[0]?.pid !== stateOf(client).processID
}

async function isBackendAtWork(pid: number | null, openProbe: WatchOptions['openProbe'], end: WatchOptions['end']): Promise<boolean> {
  let probe: pg.Client | null = null
  try {
    probe = await openProbe()
    if (pid === null || (await isPooled(probe))) return true
    const { rows } = await probe.query<{ isAtWork: boolean }>("SELECT coalesce(state NOT LIKE 'idle%', true) AS \"isAtWork\" FROM pg_catalog.pg_stat_activity WHERE pid = $1", [pid])
    return rows[0]?.isAtWork ?? false
  } catch (error) {
    // Whatever the server refuses us (no connection left, another password by now), it is there.
    return error instanceof DomainError ? error.cause instanceof Error && error.cause.name === SERVER_ERROR : error instanceof pg.DatabaseError
  } finally {
    if (probe !== null) await end(probe)
  }
}

function stateOf(client: pg.Client): ClientState {
  return client as unknown as ClientState
}
