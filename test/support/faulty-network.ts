import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net'

type State = 'up' | 'stalled' | 'cut'

interface Pair {
  readonly ends: readonly [Socket, Socket | null]
  isStalled: boolean
}

/** A TCP relay on loopback before a server, whose connections can be made to behave as a broken network makes them. */
export class FaultyNetwork implements AsyncDisposable {
  readonly #server: Server
  readonly #target: { readonly host: string; readonly port: number }
  readonly #pairs = new Set<Pair>()
  #state: State = 'up'

  private constructor(target: { readonly host: string; readonly port: number }) {
    this.#target = target
    this.#server = createServer((client) => { this.#accept(client) })
  }

  static async before(url: string): Promise<FaultyNetwork> {
    const { hostname, port } = new URL(url)
    const network = new FaultyNetwork({ host: hostname, port: Number(port) })
    await new Promise<void>((resolve) => network.#server.listen(0, '127.0.0.1', resolve))
    return network
  }

  /** `url` by way of this relay. */
  urlOf(url: string): string {
    const through = new URL(url)
    through.hostname = '127.0.0.1'
    through.port = String((this.#server.address() as AddressInfo).port)
    return through.toString()
  }

  /** Nothing moves any more and nobody is told: connections are half open, new ones are taken and never answered. */
  stall(): void {
    this.#state = 'stalled'
    for (const pair of this.#pairs) pair.isStalled = true
  }

  /** All connections are reset, new ones too. */
  cut(): void {
    this.#state = 'cut'
    for (const { ends } of this.#pairs) for (const socket of ends) socket?.destroy()
  }

  /** New connections work; those that were stalled stay so for ever. */
  mend(): void {
    this.#state = 'up'
  }

  #accept(client: Socket): void {
    if (this.#state === 'cut') {
      client.destroy()
      return
    }
    const isStalled = this.#state === 'stalled'
    const pair: Pair = { ends: [client, isStalled ? null : connect(this.#target)], isStalled }
    this.#pairs.add(pair)
    const relay = (from: Socket, to: Socket): void => {
      // What is lost once is lost for ever: no packet that follows can be taken.
      from.on('data', (bytes) => { if (!pair.isStalled) to.write(bytes) })
      from.on('error', () => undefined)
      from.on('close', () => {
        // The other end learns of it only where the network still works.
        if (!pair.isStalled) to.destroy()
        if (from === client) this.#pairs.delete(pair)
      })
    }
    const [, server] = pair.ends
    relay(client, server ?? client)
    if (server !== null) relay(server, client)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.cut()
    await new Promise((resolve) => this.#server.close(resolve))
  }
}
