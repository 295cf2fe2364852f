import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type AddressInfo, type Server, type Socket } from 'node:net'
import { afterEach, describe, expect, it } from 'vitest'
import { CoalescingSocket } from '../../../src/postgres/coalescing-socket.ts'
import { waitFor } from './stream-harness.ts'

const servers: Server[] = []
const sockets: { destroy(): unknown }[] = []

afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy()
  await Promise.all(servers.splice(0).map((server) => new Promise((resolve) => server.close(resolve))))
})

/** A socket connected to `serve`, by TCP or a unix socket. */
async function connectTo(serve: (peer: Socket) => void, path?: string): Promise<CoalescingSocket> {
  const server = createServer((peer) => {
    sockets.push(peer)
    peer.on('error', () => undefined)
    serve(peer)
  })
  servers.push(server)
  await new Promise<void>((resolve) => { server.listen(path ?? { port: 0, host: '127.0.0.1' }, resolve) })
  const socket = new CoalescingSocket()
  sockets.push(socket)
  const connected = new Promise((resolve) => socket.once('connect', resolve))
  if (path === undefined) socket.connect((server.address() as AddressInfo).port, '127.0.0.1')
  else socket.connect(path)
  await connected
  return socket
}

describe('CoalescingSocket', () => {
  it.each([
    ['eagerly', false, false, false],
    ['in bursts', true, false, false],
    ['to a consumer that is slower than the network', true, true, false],
    ['into the same memory again and again', true, false, true],
    ['into the same memory for a consumer that is slower than the network', true, true, true],
  ])('gives every byte once and in order, %s, and then the end', async (_title, isBursting, isSlow, reusesSlab) => {
    const sent = createHash('sha256')
    let sentBytes = 0
    const socket = await connectTo((peer) => {
      const send = (): void => {
        while (sentBytes < 40_000_000) {
          const bytes = randomBytes(1 + (sentBytes % 50_021))
          sentBytes += bytes.length
          sent.update(bytes)
          if (!peer.write(bytes)) {
            peer.once('drain', send)
            return
          }
        }
        peer.end()
      }
      send()
    })
    if (isBursting) socket.startBursts({ reusesSlab })
    const received = createHash('sha256')
    for await (const chunk of socket) {
      received.update(chunk as Buffer)
      if (isSlow) await new Promise((resolve) => setTimeout(resolve, 1))
    }
    expect(received.digest('hex')).toBe(sent.digest('hex'))
    expect(socket.bytesRead).toBe(sentBytes)
  })

  it('keeps chunks as they were for as long as they are held', async () => {
    const socket = await connectTo((peer) => {
      for (let index = 0; index < 200; index++) peer.write(Buffer.alloc(40_000, index))
      peer.end()
    })
    socket.startBursts()
    const chunks: Buffer[] = []
    for await (const chunk of socket) chunks.push(chunk as Buffer)
    const all = Buffer.concat(chunks)
    expect(all.length).toBe(200 * 40_000)
    for (let index = 0; index < 200; index++) expect(all.subarray(index * 40_000, (index + 1) * 40_000).every((byte) => byte === index)).toBe(true)
  })

  it('keeps the last chunk of bursts that reuse their memory, and those after them', async () => {
    const socket = await connectTo((peer) => peer.on('data', (bytes) => peer.write(bytes)))
    socket.startBursts({ reusesSlab: true })
    const chunks: Buffer[] = []
    socket.on('data', (chunk: Buffer) => chunks.push(chunk))
    const echo = async (text: string): Promise<void> => {
      socket.write(text)
      await once(socket, 'data')
    }
    await echo('last of the bursts')
    socket.endBursts()
    await echo('first after them')
    await echo('second')
    expect(Buffer.concat(chunks).toString()).toBe('last of the burstsfirst after themsecond')
    socket.destroy()
  })

  it('does not delay single messages, before and after a burst', async () => {
    const socket = await connectTo((peer) => peer.on('data', (bytes) => peer.write(bytes)))
    const roundTrip = async (bytes: Buffer): Promise<number> => {
      const from = performance.now()
      let length = 0
      await new Promise<void>((resolve) => {
        const onData = (chunk: Buffer): void => {
          length += chunk.length
          if (length < bytes.length) return
          socket.off('data', onData)
          resolve()
        }
        socket.on('data', onData)
        socket.write(bytes)
      })
      return performance.now() - from
    }
    const median = async (): Promise<number> => {
      const times: number[] = []
      for (let count = 0; count < 21; count++) times.push(await roundTrip(Buffer.alloc(200)))
      return times.sort((a, b) => a - b)[10] ?? Number.NaN
    }
    // A pause is 20 ms; a busy machine makes every round trip longer.
    const bound = 12 + 3 * (await median())
    socket.startBursts()
    expect(await median()).toBeLessThan(bound)
    await roundTrip(Buffer.alloc(30_000_000))
    const from = performance.now()
    await waitFor('an idle moment', () => performance.now() - from > 100)
    await roundTrip(Buffer.alloc(200))
    expect(await median()).toBeLessThan(bound)
  })

  it('reads in bursts while much comes, so that chunks are large', async () => {
    const socket = await connectTo((peer) => {
      // As a walsender: many small sends, one after the other.
      let count = 0
      const send = (): void => {
        for (let index = 0; index < 200; index++) peer.write(Buffer.alloc(170))
        if (++count < 500) setImmediate(send)
        else peer.end()
      }
      peer.setNoDelay(true)
      send()
    })
    socket.startBursts()
    let chunkCount = 0
    for await (const chunk of socket) if ((chunk as Buffer).length > 0) chunkCount++
    expect(socket.bytesRead / chunkCount).toBeGreaterThan(30_000)
  })

  it('reads nothing while stopped, writes all the same, and then goes on', async () => {
    let answered = 0
    const socket = await connectTo((peer) => {
      peer.on('data', () => { answered++ })
      const send = (): void => { while (peer.writable && peer.write(Buffer.alloc(65_536))) { /* until the kernel has enough */ } }
      peer.on('drain', send)
      send()
    })
    let read = 0
    socket.on('data', (chunk: Buffer) => { read += chunk.length })
    await waitFor('some bytes', () => read > 1_000_000)
    socket.stopReading()
    const atStop = read
    socket.write('still here')
    await waitFor('the peer to have it', () => answered > 0)
    expect(read).toBe(atStop)
    socket.startReading()
    await waitFor('more bytes', () => read > atStop + 1_000_000)
  })

  it('sees the other side\'s end while it discards', async () => {
    const socket = await connectTo((peer) => {
      peer.write(Buffer.alloc(20_000_000))
      peer.on('data', () => peer.end())
    })
    let read = 0
    socket.on('data', (chunk: Buffer) => { read += chunk.length })
    socket.stopReading()
    const closed = new Promise((resolve) => socket.once('close', resolve))
    socket.discard()
    socket.end('bye')
    await closed
    expect(read).toBeLessThan(20_000_000)
    expect(socket.bytesRead).toBe(20_000_000)
  })

  it('gives the last words of a server that hangs up, and then closes', async () => {
    const socket = await connectTo((peer) => peer.end('FATAL'))
    const words: string[] = []
    const closed = new Promise((resolve) => socket.once('close', resolve))
    socket.on('data', (chunk: Buffer) => words.push(chunk.toString()))
    await closed
    expect(words.join('')).toBe('FATAL')
  })

  it('reports a refused connection as an error', async () => {
    const server = createServer()
    await new Promise<void>((resolve) => { server.listen(0, '127.0.0.1', resolve) })
    const { port } = server.address() as AddressInfo
    await new Promise((resolve) => server.close(resolve))
    const socket = new CoalescingSocket()
    const error = await new Promise((resolve) => { socket.once('error', resolve).connect(port, '127.0.0.1') })
    expect(error).toMatchObject({ code: 'ECONNREFUSED' })
  })
})
