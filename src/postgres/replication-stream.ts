import { setTimeout as sleep } from 'node:timers/promises'
import type pg from 'pg'
import { LogicalReplicationService } from 'pg-logical-replication'
import { DomainError } from '../model/errors.ts'
import { formatLsn, type Lsn } from '../model/lsn.ts'
import { SLOT_LOST_REMEDY } from '../model/remedy.ts'
import type { ReplicationStream, StreamOptions } from '../model/source.ts'
import { CoalescingSocket } from './coalescing-socket.ts'
import type { SourceCredentials } from './credentials.ts'
import { createDecoder, type Decoder } from './pgoutput/decode.ts'
import { SourceText } from './pgoutput/source-text.ts'
import { createStreamedDecoder } from './pgoutput/decode-streamed.ts'
import { clientConfigOf, settleSslMode, watchAnswers } from './session.ts'
import { endsWithin } from './ends-within.ts'
import { isHeldByUs, waitUntilReleased } from './slot-holder.ts'
import { toDomainError } from './sqlstate.ts'
import { encodeStandbyStatus, statusIntervalMs } from './standby-status.ts'
import { type StreamedReplay, StreamedTransactions } from './streamed-transactions.ts'
import { canStream, prepareWalsender, startReplicationCommand, type Walsender } from './walsender.ts'
import { WalsenderReader } from './walsender-reader.ts'

/** Bounds of waiting; tests shorten them. */
export interface StreamLimits {
  /** How long a slot that a former connection of ours still holds is waited for. */
  readonly zombieWaitMs: number
  /** A connection without any sign of life for so long is given up, although nothing says that it is closed; at least `wal_sender_timeout`. */
  readonly silenceTimeoutMs: number
  /** How long `close()` waits for the server to let go of the slot. */
  readonly releaseWaitMs: number
}

const LIMITS: StreamLimits = { zombieWaitMs: 30_000, silenceTimeoutMs: 60_000, releaseWaitMs: 5_000 }
const ZOMBIE_RETRY_MS = 250
/** Confirmations are sent at most so often: each may make the server write the slot's state to disk. */
const CONFIRM_INTERVAL_MS = 100
/** The server ends a connection that sent Terminate at once, unless it is deep in decoding. */
const TERMINATE_WAIT_MS = 2_000

/**
 * Opens the stream of a slot at exactly `options.startLsn`. No callback is called before the promise has resolved.
 *
 * A slot that is held by a walsender with our `application_name` (a worker that was killed a moment ago) is waited for.
 * Throws `SlotInUse`, `SlotLost`, `SourceNotReady`, `SourceUnavailable` and what connecting throws; on `options.signal` its reason.
 */
export async function openReplicationStream(credentials: SourceCredentials, options: StreamOptions, limits = LIMITS): Promise<ReplicationStream> {
  const settled = await settleSslMode(credentials)
  const deadlineMs = performance.now() + limits.zombieWaitMs
  for (;;) {
    options.signal?.throwIfAborted()
    const stream = new WalsenderStream(settled, options, limits)
    try {
      await stream.start()
      return stream
    } catch (error) {
      const isInUse = error instanceof DomainError && error.kind === 'SlotInUse'
      if (!isInUse || performance.now() >= deadlineMs || !(await isHeldByUs(settled, options.slotName))) throw error
    }
    await sleep(ZOMBIE_RETRY_MS, undefined, options.signal === undefined ? {} : { signal: options.signal })
  }
}

type State = 'connecting' | 'starting' | 'streaming' | 'closed' | 'failed'

/**
 * One walsender connection. `pg-logical-replication` connects and carries the connection; what the walsender streams is read in its place by
 * {@link WalsenderReader}, and status updates are sent here alone (facts 1, 2).
 *
 * States: *connecting* → (replication started) → *starting* → (the caller has the stream) → *streaming* → *closed*, and from each
 * → *failed*. Callbacks are called in *streaming* only; messages that come in *starting* are kept for it. A pause takes effect between two
 * messages: what was read already (at most a slab) waits. So it is while a transaction that came in parts before its commit is replayed.
 */
class WalsenderStream implements ReplicationStream {
  readonly ended: Promise<void>
  readonly #credentials: SourceCredentials
  readonly #options: StreamOptions
  readonly #limits: StreamLimits
  readonly #socket = new CoalescingSocket()
  readonly #subject: string
  #walsender: Walsender | null = null
  #state: State = 'connecting'
  #reader: WalsenderReader | null = null
  #isPaused = false
  /** A streamed transaction that has committed is being decoded. */
  #isReplaying = false
  #replaying: Promise<void> = Promise.resolve()
  #goOn: (mayGoOn: boolean) => void = () => undefined
  readonly #text = new SourceText()
  readonly #decoder: Decoder
  /** Of protocol version 1, for what is replayed. */
  readonly #changes: Decoder
  readonly #streamed: StreamedTransactions | null
  #wanted: Lsn | null = null
  #confirmed: Lsn | null = null
  #lastStatusMs = 0
  #intervalMs = 0
  #statusTimer: NodeJS.Timeout | undefined
  #confirmTimer: NodeJS.Timeout | undefined
  #bytesAtTick = 0
  #silentTicks = 0
  #closing: Promise<void> | null = null
  /** Of the time before the stream, which has signs of life of its own. */
  #stopWatch: () => void = () => undefined
  #resolveEnded: () => void = () => undefined
  #rejectEnded: (error: unknown) => void = () => undefined

  constructor(credentials: SourceCredentials, options: StreamOptions, limits: StreamLimits) {
    this.#credentials = credentials
    this.#options = options
    this.#limits = limits
    this.#subject = `replication slot ${JSON.stringify(options.slotName)}`
    this.ended = new Promise((resolve, reject) => {
      this.#resolveEnded = resolve
      this.#rejectEnded = reject
    })
    this.#changes = createDecoder(options.handler, this.#text)
    this.#streamed = options.stagingFolder === null ? null : new StreamedTransactions(options.stagingFolder, (replay) => {
      this.#replaying = this.#replay(replay)
    })
    this.#decoder = this.#streamed === null ? this.#changes : createStreamedDecoder(this.#changes, this.#streamed)
    // Who opened the stream may look at it late; until then a failure must not end the process.
    this.ended.catch(() => undefined)
  }

  get confirmedLsn(): Lsn | null {
    return this.#confirmed
  }

  async start(): Promise<void> {
    const config = { ...clientConfigOf(this.#credentials, { replication: true }), stream: () => this.#socket }
    const service = new LogicalReplicationService(config, { acknowledge: { auto: false, timeoutSeconds: 0 } })
    listenEarly(service)
    const { slotName, publicationName, startLsn, signal } = this.#options
    const plugin = {
      name: 'pgoutput',
      options: undefined,
      start: async (client: pg.Client): Promise<unknown> => {
        client.on('notice', (notice) => { this.#onNotice(notice.code) })
        this.#stopWatch = watchAnswers(client, this.#credentials)
        // Before the first query: were it not between two messages, that query would show it.
        this.#reader = WalsenderReader.attach(client.connection, {
          mayDeliver: () => this.#state === 'connecting' || this.#canDeliver(),
          message: (buffer, start, end) => { this.#decoder.decode(buffer, start, end) },
          keepalive: (walEnd, isReplyRequested) => { this.#onKeepalive(walEnd, isReplyRequested) },
          // An exception must not escape into the socket's `data` event: there nobody could catch it.
          fail: (error) => { this.#fail(error) },
        })
        this.#walsender = await prepareWalsender(client)
        if (this.#walsender.byteTable !== null) this.#text.use(this.#walsender.byteTable)
        const isStreaming = this.#streamed !== null && canStream(this.#walsender)
        return await client.query(startReplicationCommand({ slotName, publicationName, startLsn, isStreaming }))
      },
      parse: (): never => {
        throw new RangeError('a message that its reader has not taken')
      },
    }
    const onAbort = (): void => { this.#fail(signal?.reason) }
    signal?.addEventListener('abort', onAbort, { once: true })
    try {
      await new Promise<void>((resolve, reject) => {
        this.ended.catch(reject)
        service.on('error', (error) => { this.#failWith(error) })
        service.on('start', () => {
          this.#onStarted()
          resolve()
        })
        // The library exports no base class of plugins; it uses these members only (facts 12).
        // eslint-disable-next-line @typescript-eslint/no-unsafe-class-instance-assignment
        service.subscribe(plugin, slotName, formatLsn(startLsn)).then(
          () => { this.#failWith(new DomainError({ kind: 'SourceUnavailable', message: `${this.#subject}: the server ended the stream`, remedy: 'It is tried again: the server shuts down or restarts.' })) },
          (error: unknown) => { this.#failWith(error) },
        )
      })
    } finally {
      signal?.removeEventListener('abort', onAbort)
    }
    setImmediate(() => { this.#begin() })
  }

  confirm(flushLsn: Lsn): void {
    // Servers before 17 would move the slot back.
    if (flushLsn < this.#options.startLsn || (this.#wanted !== null && flushLsn <= this.#wanted)) return
    this.#wanted = flushLsn
    if (this.#confirmTimer !== undefined || this.#state !== 'streaming') return
    const waitMs = this.#lastStatusMs + CONFIRM_INTERVAL_MS - performance.now()
    if (waitMs <= 0) this.#sendStatus(false)
    else this.#confirmTimer = setTimeout(() => { this.#sendStatus(false) }, waitMs)
  }

  pause(): void {
    this.#isPaused = true
    this.#socket.stopReading()
  }

  resume(): void {
    this.#isPaused = false
    this.#goOn(true)
    this.#readOn()
  }

  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  /** Reading stops until the caller has the stream, so that its callbacks can use it. */
  #onStarted(): void {
    if (this.#state !== 'connecting' || this.#walsender === null) return
    this.#state = 'starting'
    this.#stopWatch()
    this.#socket.stopReading()
    this.#intervalMs = statusIntervalMs(this.#walsender.walSenderTimeoutMs)
    this.#statusTimer = setInterval(() => { this.#tick() }, this.#intervalMs)
  }

  #begin(): void {
    if (this.#state !== 'starting') return
    this.#state = 'streaming'
    this.#socket.startBursts({ reusesSlab: true })
    this.#readOn()
    if (this.#wanted !== null) this.#sendStatus(false)
  }

  /** A callback may pause again: what has come by then stays where it is. */
  #readOn(): void {
    if (this.#canDeliver()) this.#reader?.goOn()
    if (this.#canDeliver()) this.#socket.startReading()
  }

  /** Nothing that comes is delivered before the transaction is, and nothing is read: status updates go on, so the server waits. */
  async #replay(replay: StreamedReplay): Promise<void> {
    this.#isReplaying = true
    this.#socket.stopReading()
    const mayGoOn = (): boolean => this.#state === 'streaming' && !this.#isPaused
    const untilItMay = async (): Promise<boolean> => {
      if (this.#state !== 'streaming') return false
      return await new Promise((resolve) => {
        this.#goOn = resolve
      })
    }
    try {
      await replay.run(this.#changes, { mayGoOn, untilItMay })
    } catch (error) {
      this.#fail(error)
    }
    this.#isReplaying = false
    this.#readOn()
  }

  #canDeliver(): boolean {
    return this.#state === 'streaming' && !this.#isPaused && !this.#isReplaying
  }

  #onKeepalive(walEnd: Lsn, isReplyRequested: boolean): void {
    if (isReplyRequested) this.#sendStatus(false)
    this.#options.onKeepalive(walEnd)
  }

  requestKeepalive(): void {
    if (this.#state === 'streaming') this.#sendStatus(true)
  }

  /**
   * From version 18 on a publication that is not there (or was not, at this place of the WAL) is a warning and its changes are left out;
   * before, it is an error. Leaving out changes is never right here.
   *
   * Source: https://www.postgresql.org/docs/18/release-18.html
   */
  #onNotice(code: string | undefined): void {
    if (code !== '55000') return
    const publication = JSON.stringify(this.#options.publicationName)
    this.#fail(
      new DomainError({
        kind: 'SlotLost',
        message: `${this.#subject}: publication ${publication} did not exist when the next change was written: what was written while it was not there cannot be decoded`,
        remedy: SLOT_LOST_REMEDY,
      }),
    )
  }

  #tick(): void {
    const { bytesRead } = this.#socket
    // Ticks are counted, not time: after the event loop was held up, what has come in meanwhile must first be read.
    const isSilent = bytesRead === this.#bytesAtTick && this.#canDeliver()
    this.#silentTicks = isSilent ? this.#silentTicks + 1 : 0
    this.#bytesAtTick = bytesRead
    const timeoutMs = Math.max(this.#limits.silenceTimeoutMs, this.#walsender?.walSenderTimeoutMs ?? 0)
    if (this.#silentTicks * this.#intervalMs >= timeoutMs) {
      this.#failWith(
        new DomainError({
          kind: 'SourceUnavailable',
          message: `${this.#subject}: the server has not answered for ${Math.round(timeoutMs / 1000)} s`,
          remedy: 'See that the server runs and can be reached from this worker. It is tried again.',
        }),
      )
      return
    }
    // An idle server sends nothing of itself to a client that reports often enough: its answer is the sign of life, and its position.
    this.#sendStatus(isSilent)
  }

  #sendStatus(isReplyRequested: boolean): void {
    if (this.#walsender === null || (this.#state !== 'streaming' && this.#state !== 'starting')) return
    clearTimeout(this.#confirmTimer)
    this.#confirmTimer = undefined
    this.#lastStatusMs = performance.now()
    this.#confirmed = this.#wanted
    this.#walsender.sendCopyData(encodeStandbyStatus(this.#confirmed, Date.now(), isReplyRequested))
  }

  #failWith(error: unknown): void {
    this.#fail(toDomainError(error, { subject: this.#subject, isDecoding: true }))
  }

  #fail(error: unknown): void {
    if (this.#state === 'closed' || this.#state === 'failed') return
    this.#state = 'failed'
    this.#end()
    this.#socket.destroy()
    this.#rejectEnded(error)
  }

  /** Nothing more is delivered. */
  #end(): void {
    clearInterval(this.#statusTimer)
    clearTimeout(this.#confirmTimer)
    this.#reader?.close()
    this.#goOn(false)
    this.#streamed?.close()
  }

  async #close(): Promise<void> {
    if (this.#state === 'failed') return
    this.#sendStatus(false)
    this.#state = 'closed'
    this.#end()
    const walsender = this.#walsender
    if (walsender !== null) {
      const isEnded = new Promise<void>((resolve) => this.#socket.once('close', () => { resolve() }))
      // A walsender that waits for us to read would not see Terminate; and only reading shows its end.
      this.#socket.discard()
      walsender.terminate()
      const hasEnded = await endsWithin(isEnded, TERMINATE_WAIT_MS)
      // The server closes a connection after it let go of the slot: nothing more to wait for.
      if (!hasEnded) {
        this.#socket.destroy()
        await waitUntilReleased(this.#credentials, { slotName: this.#options.slotName, pid: walsender.pid, timeoutMs: this.#limits.releaseWaitMs })
      }
    }
    await this.#replaying
    this.#resolveEnded()
  }
}

/**
 * The library listens to its client's errors only once it has connected: a server that ended the session in that very moment would end this process
 * by an error that nobody hears.
 */
function listenEarly(service: LogicalReplicationService): void {
  let held: pg.Client | null = null
  Object.defineProperty(service, '_client', {
    get: () => held,
    set: (client: pg.Client | null) => {
      held = client
      client?.on('error', (error) => service.emit('error', error))
    },
  })
}
