import pg from 'pg'
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest'
import { DomainError } from '../../../src/model/errors.ts'
import { watchSession } from '../../../src/postgres/session-watch.ts'
import { FaultyNetwork } from '../../support/faulty-network.ts'

/** A tenth of a second where the product takes five. */
const TICK_MS = 100

describe('the watch of a session', () => {
  let network: FaultyNetwork
  beforeAll(async () => {
    network = await FaultyNetwork.before(inject('postgresUrl'))
  })
  afterAll(async () => {
    await network[Symbol.asyncDispose]()
  })

  const end = async (client: pg.Client): Promise<void> => client.end()
  async function connected(url: string): Promise<pg.Client> {
    const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 300 })
    client.on('error', () => undefined)
    await client.connect()
    return client
  }

  it('lets a statement go on for as long as the server works on it, and while nobody reads its answer', async () => {
    const client = await connected(inject('postgresUrl'))
    let looks = 0
    const stop = watchSession(client, { openProbe: async () => { looks++; return connected(inject('postgresUrl')) }, end, tickMs: TICK_MS })
    await client.query('SELECT pg_sleep(3)')
    expect(looks).toBe(1)
    client.connection.stream.pause()
    const answer = client.query('SELECT 1 AS one')
    await new Promise((resolve) => setTimeout(resolve, 2_000))
    client.connection.stream.resume()
    expect((await answer).rows).toEqual([{ one: 1 }])
    stop()
    await client.end()
  })

  it('takes a server that refuses another session for one that is there', async () => {
    const client = await connected(inject('postgresUrl'))
    const refused = new DomainError({ kind: 'SourceUnavailable', message: '', remedy: '', cause: Object.assign(new Error('too many'), { name: 'PostgresError', code: '53300' }) })
    const stop = watchSession(client, { openProbe: async () => Promise.reject(refused), end, tickMs: TICK_MS })
    await client.query('SELECT pg_sleep(3)')
    stop()
    await client.end()
  })

  it('ends one whose connection is half open, whether the server can be reached by another or not', async () => {
    for (const url of [inject('postgresUrl'), network.urlOf(inject('postgresUrl'))]) {
      const client = await connected(network.urlOf(inject('postgresUrl')))
      watchSession(client, { openProbe: async () => connected(url), end, tickMs: TICK_MS })
      network.stall()
      await expect(client.query('SELECT 1')).rejects.toMatchObject({ code: 'ETIMEDOUT' })
      network.mend()
    }
  })
})
