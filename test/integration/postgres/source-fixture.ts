import { randomBytes } from 'node:crypto'
import pg from 'pg'
import { parseCredentials, type SourceCredentials } from '../../../src/postgres/credentials.ts'
import { initializeSource, type InitializeContext, type SourceInit } from '../../../src/postgres/initialize.ts'
import { inspectSource, type SourceInspection } from '../../../src/postgres/preflight.ts'
import { connect, endQuietly } from '../../../src/postgres/session.ts'
import type { SourceRequest } from '../../../src/postgres/source-request.ts'
import { createDatabase } from '../../support/servers.ts'

/** A database of one test file's own, and roles that go with it. */
export interface SourceFixture {
  /** A superuser's session in the database. */
  readonly admin: pg.Client
  readonly credentials: SourceCredentials
  readonly databaseName: string
  readonly serverVersion: number
  /** A login role that may do nothing yet but what `attributes` says. */
  createRole(attributes?: string): Promise<{ readonly name: string; readonly credentials: SourceCredentials }>
  /** Names of a slot and a publication that nobody else uses, with the other defaults of a spec. */
  request(overrides?: Partial<SourceRequest>): SourceRequest
  inspect(request: SourceRequest, credentials?: SourceCredentials): Promise<SourceInspection>
  initialize(request: SourceRequest, context?: Partial<InitializeContext> & { readonly credentials?: SourceCredentials }): Promise<SourceInit>
  close(): Promise<void>
}

export async function openSourceFixture(serverUrl: string): Promise<SourceFixture> {
  const database = await createDatabase(serverUrl)
  const admin = new pg.Client({ connectionString: database.url })
  await admin.connect()
  // A slot is read up to what is flushed: what a test wrote must be in it at once.
  await admin.query('SET synchronous_commit = local')
  const credentials = parseCredentials(database.url)
  const roles: string[] = []
  const version = await admin.query<{ version: number }>(`SELECT current_setting('server_version_num')::int AS version`)
  let sequence = 0

  const inspect: SourceFixture['inspect'] = async (request, as = credentials) => {
    const client = await connect(as)
    try {
      return await inspectSource(client, request)
    } finally {
      await endQuietly(client)
    }
  }

  return {
    admin,
    credentials,
    databaseName: database.name,
    serverVersion: version.rows[0]?.version ?? 0,
    createRole: async (attributes = '') => {
      const name = `role_${randomBytes(6).toString('hex')}`
      await admin.query(`CREATE ROLE ${name} LOGIN PASSWORD 'secret-${name}' ${attributes}`)
      roles.push(name)
      const url = new URL(database.url)
      url.username = name
      url.password = `secret-${name}`
      return { name, credentials: parseCredentials(url.href) }
    },
    request: (overrides = {}) => {
      sequence += 1
      const name = `${database.name}_${sequence}`
      return {
        slotName: name,
        publicationName: name,
        schemaName: 'public',
        tableNames: null,
        publish: ['insert', 'update', 'delete', 'truncate'],
        includeColumns: {},
        snapshotMode: 'initial',
        reset: false,
        destinationId: 'destination-1',
        destinationHasState: false,
        ...overrides,
      }
    },
    inspect,
    initialize: async (request, context = {}) => {
      const { credentials: as = credentials, ...rest } = context
      return await initializeSource(as, request, { onWaiting: () => undefined, signal: new AbortController().signal, ...rest })
    },
    close: async () => {
      await admin.end()
      await database.drop()
      const client = new pg.Client({ connectionString: serverUrl })
      await client.connect()
      for (const role of roles) await client.query(`DROP ROLE ${role}`)
      await client.end()
    },
  }
}

/** A promise that the test resolves from a callback. */
export function deferred<T>(): { readonly promise: Promise<T>; resolve(value: T): void } {
  let resolve: (value: T) => void = () => undefined
  const promise = new Promise<T>((settle) => {
    resolve = settle
  })
  return { promise, resolve: (value) => { resolve(value) } }
}
