import pg from 'pg'

/**
 * Connections that a test opens beside the product's. That the server ends one is no error of the test: servers are
 * stopped and databases dropped while connections close, and `end` does not wait for that. A query that it cuts short fails all the same.
 */
export function sourcePool(config: pg.PoolConfig): pg.Pool {
  const pool = new pg.Pool(config)
  pool.on('error', () => undefined)
  pool.on('connect', (client) => { client.on('error', () => undefined) })
  return pool
}
