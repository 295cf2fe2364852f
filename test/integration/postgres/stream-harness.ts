import pg from 'pg'
import type { ChangeHandler } from '../../../src/model/change.ts'
import { parseLsn, type Lsn } from '../../../src/model/lsn.ts'
import type { ReplicationStream, StreamOptions } from '../../../src/model/source.ts'
import { parseCredentials, type SourceCredentials } from '../../../src/postgres/credentials.ts'
import { cellsOf, type Cell } from '../../unit/postgres/pgoutput/recording.ts'
import { createDatabase } from '../../support/servers.ts'

/** No bound on speed: whatever never comes ends by it. */
const DEADLINE_MS = 120_000
const POLL_MS = 20

/** Polls until `condition` gives something else than undefined or false; fails after a deadline, naming what was waited for. */
export async function waitFor<T>(what: string, condition: () => Promise<T | undefined | false> | T | undefined | false): Promise<T> {
  const deadline = performance.now() + DEADLINE_MS
  for (;;) {
    const result = await condition()
    if (result !== undefined && result !== false) return result
    if (performance.now() > deadline) throw new Error(`waited in vain for ${what}`)
    await new Promise((resolve) => setTimeout(resolve, POLL_MS))
  }
}

export interface Transaction {
  readonly commitLsn: Lsn
  readonly endLsn: Lsn
  readonly commitTimeMicros: bigint
  readonly rows: (readonly Cell[])[]
}

/** Collects whole transactions. */
export class Collector {
  readonly transactions: Transaction[] = []
  readonly keepalives: Lsn[] = []
  /** Every call of the handler, keepalives too. */
  callCount = 0
  #rows: (readonly Cell[])[] = []

  readonly handler: ChangeHandler = {
    begin: () => { this.callCount++ },
    commit: (commitLsn, endLsn, commitTimeMicros) => {
      this.callCount++
      this.transactions.push({ commitLsn, endLsn, commitTimeMicros, rows: this.#rows })
      this.#rows = []
    },
    relation: () => { this.callCount++ },
    insert: (_, tuple) => { this.callCount++; this.#rows.push(cellsOf(tuple)) },
    update: (_, __, ___, tuple) => { this.callCount++; this.#rows.push(cellsOf(tuple)) },
    delete: (_, __, tuple) => { this.callCount++; this.#rows.push(cellsOf(tuple)) },
    truncate: () => { this.callCount++ },
    type: () => { this.callCount++ },
    origin: () => { this.callCount++ },
    message: () => { this.callCount++ },
  }

  readonly onKeepalive = (walEnd: Lsn): void => {
    this.callCount++
    this.keepalives.push(walEnd)
  }

  /** The rows of all transactions. */
  get rows(): (readonly Cell[])[] {
    return this.transactions.flatMap((transaction) => transaction.rows)
  }

  async waitForRows(count: number): Promise<void> {
    await waitFor(`${count} rows`, () => this.rows.length >= count)
  }
}

/** A database with table `t (id int8 primary key, v text)`, publication `p` and slots made by {@link SourceDatabase.createSlot}. */
export class SourceDatabase {
  readonly url: string
  readonly client: pg.Client
  readonly credentials: SourceCredentials
  readonly #drop: () => Promise<void>
  #slotCount = 0

  private constructor(url: string, client: pg.Client, drop: () => Promise<void>) {
    this.url = url
    this.client = client
    this.credentials = parseCredentials(url)
    this.#drop = drop
  }

  static async create(serverUrl: string): Promise<SourceDatabase> {
    const database = await createDatabase(serverUrl)
    const client = new pg.Client({ connectionString: database.url })
    await client.connect()
    await client.query('CREATE TABLE t (id int8 PRIMARY KEY, v text); CREATE PUBLICATION p FOR TABLE t')
    return new SourceDatabase(database.url, client, () => database.drop())
  }

  async drop(): Promise<void> {
    await this.client.end()
    await this.#drop()
  }

  /** Slots are shared by all databases of a server: their names hold this one's. */
  async createSlot(): Promise<{ readonly slotName: string; readonly startLsn: Lsn }> {
    const slotName = `${this.credentials.database}_${++this.#slotCount}`
    const { rows } = await this.client.query<{ lsn: string }>(`SELECT lsn::text FROM pg_create_logical_replication_slot($1, 'pgoutput')`, [slotName])
    return { slotName, startLsn: parseLsn(rows[0]?.lsn ?? '') }
  }

  /** The stream's options with a collector as handler. */
  optionsFor(slot: { readonly slotName: string; readonly startLsn: Lsn }, collector: Collector): StreamOptions {
    return { slotName: slot.slotName, startLsn: slot.startLsn, publicationName: 'p', handler: collector.handler, stagingFolder: null, onKeepalive: collector.onKeepalive }
  }

  async currentLsn(): Promise<Lsn> {
    const { rows } = await this.client.query<{ lsn: string }>('SELECT pg_current_wal_lsn()::text AS lsn')
    return parseLsn(rows[0]?.lsn ?? '')
  }

  async slotState(slotName: string): Promise<{ readonly confirmedFlushLsn: Lsn; readonly activePid: number | null }> {
    const { rows } = await this.client.query<{ lsn: string; pid: number | null }>(
      'SELECT confirmed_flush_lsn::text AS lsn, active_pid AS pid FROM pg_replication_slots WHERE slot_name = $1',
      [slotName],
    )
    return { confirmedFlushLsn: parseLsn(rows[0]?.lsn ?? ''), activePid: rows[0]?.pid ?? null }
  }
}

/** What `ended` rejects with. */
export async function failureOf(stream: ReplicationStream): Promise<unknown> {
  return await stream.ended.then(
    () => { throw new Error('the stream ended without an error') },
    (error: unknown) => error,
  )
}

/** Now, in the unit of commit times. */
export function nowMicros(): bigint {
  return BigInt(Date.now()) * 1000n
}
