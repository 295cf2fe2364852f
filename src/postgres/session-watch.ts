import type pg from 'pg'

/** How often a session is looked at that waits for an answer. */
const TICK_MS = 5_000
/** So many ticks without a byte before the server is asked: a statement may take its time. */
const PATIENT_TICKS = 6
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
}

/**
 * Ends a session whose connection is half open (a firewall that forgot it, a host that went without a word), so that its statement fails as on
 * a broken one; nothing else would tell for a quarter of an hour, or ever. A statement may run for hours without a byte, so the server is asked by
 * another connection: does that backend still work on it, and can the server be reached at all? Stops with the session, or when the returned function is called.
 *
 * Behind a connection pooler, which gives backends numbers of its own, only reaching the server counts.
 */
export function watchSession(client: pg.Client, { openProbe, end }: WatchOptions): () => void {
  let silentTicks = 0
  let fruitlessLooks = 0
  let seenBytes = -1
  let isLooking = false
  const bytesRead = (): number => (client.connection.stream as unknown as { readonly bytesRead: number }).bytesRead
  const hasAnswer = (): boolean => stateOf(client).readyForQuery !== false || bytesRead() !== seenBytes
  const look = async (): Promise<void> => {
    const isAtWork = await isBackendAtWork(stateOf(client).processID, openProbe, end)
    fruitlessLooks = isAtWork || hasAnswer() ? 0 : fruitlessLooks + 1
    if (fruitlessLooks < FRUITLESS_LOOKS) return
    stop()
    const message = `the server has not answered for ${String((silentTicks * TICK_MS) / 1_000)} s, and does not work on it`
    client.connection.stream.destroy(Object.assign(new Error(message), { code: 'ETIMEDOUT' }))
  }
  const timer = setInterval(() => {
    if (isLooking) return
    if (hasAnswer()) {
      silentTicks = 0
      fruitlessLooks = 0
      seenBytes = bytesRead()
      return
    }
    silentTicks += 1
    if (silentTicks < PATIENT_TICKS) return
    isLooking = true
    void look().finally(() => {
      isLooking = false
    })
  }, TICK_MS)
  timer.unref()
  const stop = (): void => { clearInterval(timer) }
  client.once('end', stop)
  return stop
}

/** Asks `client`'s server for the number of its backend, which a pooler has another one for. */
export async function isPooled(client: pg.Client): Promise<boolean> {
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
  } catch {
    return false
  } finally {
    if (probe !== null) await end(probe)
  }
}

function stateOf(client: pg.Client): ClientState {
  return client as unknown as ClientState
}
