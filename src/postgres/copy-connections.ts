import type pg from 'pg'
import { CoalescingSocket } from './coalescing-socket.ts'
import type { SourceCredentials } from './credentials.ts'
import { connect, endQuietly, TAKE_BYTES_AS_THEY_ARE } from './session.ts'
import { execute } from './sql.ts'

/** A connection lent out by {@link CopyConnections}; `release` is called once. */
export interface CopyConnection {
  readonly client: pg.Client
  /** What the client reads from. */
  readonly socket: CoalescingSocket
  /** Gives it back; `isReusable` = no transaction is open and no copy runs. Never throws. */
  release(isReusable: boolean): Promise<void>
}

type OpenConnection = Omit<CopyConnection, 'release'>

/** Connections for copies: opened when needed, kept for the next chunk, closed by {@link CopyConnections.close}. */
export class CopyConnections {
  readonly #credentials: SourceCredentials
  readonly #idle: OpenConnection[] = []
  #isClosed = false

  constructor(credentials: SourceCredentials) {
    this.#credentials = credentials
  }

  /** Throws what connecting throws. */
  async acquire(): Promise<CopyConnection> {
    const connection = this.#idle.pop() ?? (await this.#open())
    const { client } = connection
    return {
      ...connection,
      release: async (isReusable) => {
        if (isReusable && !this.#isClosed && client.connection.stream.writable) this.#idle.push(connection)
        else await endQuietly(client)
      },
    }
  }

  /** Ends idle connections now, the others when they are given back. Idempotent. */
  async close(): Promise<void> {
    this.#isClosed = true
    await Promise.all(this.#idle.splice(0).map(async ({ client }) => endQuietly(client)))
  }

  async #open(): Promise<OpenConnection> {
    let socket = new CoalescingSocket()
    const client = await connect(this.#credentials, {
      // Again for each attempt: sslmode prefer may make two.
      socket: () => {
        socket = new CoalescingSocket()
        return socket
      },
    })
    try {
      await execute(client, { subject: 'connection of a copy', text: TAKE_BYTES_AS_THEY_ARE })
    } catch (error) {
      await endQuietly(client)
      throw error
    }
    const connection = { client, socket }
    client.once('end', () => {
      const index = this.#idle.indexOf(connection)
      if (index >= 0) this.#idle.splice(index, 1)
    })
    return connection
  }
}
