import type pg from 'pg'
import type { Source } from '../model/source.ts'
import { beginCopy, beginSnapshotRead } from './snapshot-copy.ts'
import { endsWithin } from './ends-within.ts'
import { lookAtCatalog } from './catalog-look.ts'
import { findSmallTables, planChunks } from './chunk-plan.ts'
import { CopyConnections } from './copy-connections.ts'
import type { SourceCredentials } from './credentials.ts'
import { dropSnapshots, listSnapshots } from './kept-snapshots.ts'
import { locateKeys, readRows } from './key-lookup.ts'
import { describePublishedTables, describeReadableTable } from './publication.ts'
import { openReplicationStream } from './replication-stream.ts'
import { readFullSnapshot, takeTransactionId, waitForTransactions } from './running-transactions.ts'
import { readHealth, readIdentity, readSeenPosition } from './server.ts'
import { hasSentRows } from './sent-rows.ts'
import { connect, endQuietly } from './session.ts'
import { waitForWriters } from './table-writers.ts'

/**
 * The source of one publication (null = of the tables as they are, for reading without a slot): composes this folder's parts into the contract of model/source.ts. Short questions share one
 * connection, copies have their own; both are opened when needed.
 */
export function createSource(credentials: SourceCredentials, publicationName: string | null): Source {
  const copies = new CopyConnections(credentials)
  let catalog: Promise<pg.Client> | null = null
  let tail: Promise<unknown> = Promise.resolve()
  let isClosed = false

  /** Runs `work` on the shared connection, one caller at a time; a broken connection is replaced for the next one. */
  async function ask<T>(work: (client: pg.Client) => Promise<T>): Promise<T> {
    const run = tail.then(async () => {
      catalog ??= connect(credentials)
      const opening = catalog
      try {
        const client = await opening
        return await work(client)
      } catch (error) {
        if (catalog === opening) catalog = null
        await opening.then(endQuietly, () => undefined)
        throw error
      }
    })
    tail = run.catch(() => undefined)
    return run
  }

  return {
    identify: async () => ask(readIdentity),
    health: async (slotName) => ask(async (client) => readHealth(client, slotName)),
    openStream: async (options) => openReplicationStream(credentials, options),
    describeTables: async (oids) =>
      ask(async (client) => {
        if (publicationName === null) {
          const described = await Promise.all(oids.map(async (oid) => describeReadableTable(client, oid)))
          return described.flatMap((found) => (found === null ? [] : [found.table]))
        }
        const { serverVersion } = await readIdentity(client)
        return describePublishedTables(client, publicationName, { oids, serverVersion })
      }),
    look: async (oids, wholeSchema) => ask(async (client) => lookAtCatalog(client, publicationName ?? '', { oids, wholeSchema })),
    hasSentRows: async (table, since) => ask(async (client) => hasSentRows(client, table, since)),
    readSnapshot: async () => ask(readFullSnapshot),
    // A connection of its own: it may wait for hours.
    waitForTransactions: async (ids, wait) => {
      const client = await connect(credentials)
      try {
        await waitForTransactions(client, ids, wait)
      } finally {
        await endQuietly(client)
      }
    },
    waitForWriters: async (table, onWaiting, signal) => {
      const client = await connect(credentials)
      try {
        await waitForWriters(client, table.oid, { onWaiting, signal })
      } finally {
        await endQuietly(client)
      }
    },
    flushWal: async () => ask(async (client) => { await takeTransactionId(client) }),
    planChunks: async (table, request) => ask(async (client) => planChunks(client, { ...request, table, publicationName })),
    findSmallTables: async (oids, targetRows) => ask(async (client) => findSmallTables(client, oids, targetRows)),
    beginCopy: async (table, request, signal) => beginCopy(copies, { ...request, table, publicationName, signal }),
    listSnapshots: async (slotName) => ask(async (client) => listSnapshots(client, slotName)),
    beginSnapshotRead: async (snapshot, request) => beginSnapshotRead(copies, { ...request, snapshot }),
    dropSnapshots: async (snapshots) => ask(async (client) => { await dropSnapshots(client, snapshots) }),
    locateKeys: async (table, ranges, keys) => ask(async (client) => locateKeys(client, table, { ranges, keys })),
    readRows: async (table, keys, columns) => ask(async (client) => ({ rows: await readRows(client, table, { keys, columns }), lsn: await readSeenPosition(client) })),
    close: async () => {
      if (isClosed) return
      isClosed = true
      await copies.close()
      await endsWithin(tail, 1_000)
      await catalog?.then(endQuietly, () => undefined)
    },
  }
}
