import pg from 'pg'
import { parse } from 'pg-connection-string'
import type { PostgresServer } from './postgres-server.ts'

/** A server that runs already, after it has answered; throws when it does not. It is never stopped from here. */
export async function useGivenPostgres(url: string): Promise<PostgresServer> {
  const { host, port, user, password } = parse(url)
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 10_000 })
  client.on('error', () => undefined)
  let version: string
  try {
    await client.connect()
    const { rows } = await client.query<{ server_version: string }>('SHOW server_version')
    version = rows[0]?.server_version.split(' ')[0] ?? ''
  } catch (cause) {
    throw new Error(`no PostgreSQL server answers at ${host ?? 'localhost'}:${port ?? '5432'}: check the given URL`, {
      cause,
    })
  } finally {
    await client.end().catch(() => undefined)
  }
  const refuse = async (): Promise<never> => {
    throw new Error('this PostgreSQL server was not started here, so it is not stopped here either')
  }
  return {
    url,
    host: host ?? 'localhost',
    port: Number(port ?? 5432),
    user: user ?? '',
    password: password ?? '',
    version,
    major: Number.parseInt(version, 10),
    owned: false,
    binDirectory: undefined,
    dataDirectory: undefined,
    logFile: undefined,
    pid: undefined,
    stop: async () => undefined,
    kill: refuse,
    restart: refuse,
    [Symbol.asyncDispose]: async () => undefined,
  }
}
