import { createServer } from 'node:net'

/** The only interface that development servers listen on. */
export const loopbackHost = '127.0.0.1'

/**
 * Asks the operating system for a TCP port that is free on loopback.
 *
 * The port is released before this returns, so another process may take it first: whoever starts a server on it must
 * treat "address in use" as a reason to ask again.
 */
export async function findFreePort(): Promise<number> {
  const port = await listenBriefly(0)
  if (port === undefined) {
    throw new Error('no free TCP port on 127.0.0.1: close programs that hold many connections and try again')
  }
  return port
}

/** Several different free ports: each is held until all are found, so that none is given twice. */
export async function findFreePorts(count: number): Promise<readonly number[]> {
  const servers = Array.from({ length: count }, () => createServer())
  try {
    const ports: number[] = []
    for (const server of servers) {
      ports.push(
        await new Promise<number>((resolve, reject) => {
          server.once('error', reject)
          server.listen({ host: loopbackHost, port: 0, exclusive: true }, () => {
            const address = server.address()
            resolve(typeof address === 'object' && address !== null ? address.port : 0)
          })
        }),
      )
    }
    return ports
  } finally {
    await Promise.all(servers.map((server) => new Promise<void>((resolve) => server.close(() => resolve()))))
  }
}

/** Whether a server could listen on this loopback port now. */
export async function isPortFree(port: number): Promise<boolean> {
  return (await listenBriefly(port)) !== undefined
}

/** The preferred port when it is free, else any free one. */
export async function preferPort(preferred: number | undefined): Promise<number> {
  return preferred !== undefined && (await isPortFree(preferred)) ? preferred : await findFreePort()
}

async function listenBriefly(port: number): Promise<number | undefined> {
  const server = createServer()
  return await new Promise<number | undefined>((resolve) => {
    server.once('error', () => resolve(undefined))
    server.listen({ host: loopbackHost, port, exclusive: true }, () => {
      const address = server.address()
      const bound = typeof address === 'object' && address !== null ? address.port : undefined
      server.close(() => resolve(bound))
    })
  })
}
