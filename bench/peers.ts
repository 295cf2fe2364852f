import { timeDebezium } from './debezium-reference.ts'
import { IngestrReference, type TablesToCopy } from './ingestr-reference.ts'
import type { PeerOptions } from './options.ts'
import { publicationNameOf, slotNameOf, type BenchReplication } from './pipeline.ts'
import { timeDlt, type ReferenceTime } from './references.ts'
import type { BenchDatabase } from './servers.ts'

/** Changes that programs of others drain after us, each from a slot of its own that stands where ours does. */
export interface PeerBacklog {
  readonly database: BenchDatabase
  readonly replication: BenchReplication
  readonly tableName: string
  readonly changeCount: number
}

/** Programs of others that are given, and are ready for the changes that come now; {@link PeerDrains.close} must be called. */
export class PeerDrains {
  readonly #peers: PeerOptions
  readonly #backlog: PeerBacklog
  readonly #ingestr: IngestrReference | null

  private constructor(peers: PeerOptions, backlog: PeerBacklog, ingestr: IngestrReference | null) {
    this.#peers = peers
    this.#backlog = backlog
    this.#ingestr = ingestr
  }

  /** Makes their slots, and has the initial load done where a program has its own. To be called before the changes are made. */
  static async prepare(peers: PeerOptions, backlog: PeerBacklog): Promise<PeerDrains> {
    const drains = new PeerDrains(peers, backlog, peers.ingestrProgram === null ? null : await IngestrReference.open(peers.ingestrProgram))
    try {
      for (const [name, given] of [['dlt', peers.dltSourcePath], ['debezium', peers.debeziumPath]] as const) {
        if (given !== null) await backlog.database.client.query("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", [drains.#slotOf(name)])
      }
      await drains.#catchUpIngestr()
    } catch (error) {
      await drains.close()
      throw error
    }
    return drains
  }

  /** Lets them drain the changes up to a position, one after the other. */
  async time(endLsn: string): Promise<readonly ReferenceTime[]> {
    const { database, replication, changeCount } = this.#backlog
    const slot = (name: string) => ({ tag: 'changes', slotName: this.#slotOf(name), publicationName: publicationNameOf(replication), endLsn }) as const
    const times: ReferenceTime[] = []
    if (this.#peers.dltSourcePath !== null) times.push(['dlt', await timeDlt(this.#peers, database, slot('dlt'))])
    if (this.#peers.debeziumPath !== null) times.push(['Debezium', await timeDebezium(this.#peers.debeziumPath, database.url, { ...slot('debezium'), recordCount: changeCount })])
    times.push(...(await this.#catchUpIngestr()))
    if (this.#ingestr !== null && !(await this.#hasConfirmed('ingestr', endLsn))) throw new Error(`ingestr ended before it had confirmed ${endLsn}`)
    return times
  }

  /** Removes their files. */
  async close(): Promise<void> {
    await this.#ingestr?.close()
  }

  async #catchUpIngestr(): Promise<readonly ReferenceTime[]> {
    const { database, replication, tableName } = this.#backlog
    if (this.#ingestr === null) return []
    return [['ingestr', await this.#ingestr.catchUp(database.url, { slotName: this.#slotOf('ingestr'), publicationName: publicationNameOf(replication), tableName })]]
  }

  async #hasConfirmed(name: string, endLsn: string): Promise<boolean> {
    const { rowCount } = await this.#backlog.database.client.query('SELECT FROM pg_replication_slots WHERE slot_name = $1 AND confirmed_flush_lsn >= $2::pg_lsn', [this.#slotOf(name), endLsn])
    return rowCount === 1
  }

  #slotOf(name: string): string {
    return `${slotNameOf(this.#backlog.replication)}_${name}`
  }
}

/** Lets them copy tables, one after the other. */
export async function timePeerCopies(peers: PeerOptions, database: BenchDatabase, tables: TablesToCopy): Promise<readonly ReferenceTime[]> {
  const { tableNames, rowCount } = tables
  const times: ReferenceTime[] = []
  if (peers.dltSourcePath !== null) times.push(['dlt', await timeDlt(peers, database, { tag: 'snapshot', tableNames })])
  if (peers.debeziumPath !== null) times.push(['Debezium', await timeDebezium(peers.debeziumPath, database.url, { tag: 'snapshot', tableNames, recordCount: rowCount })])
  if (peers.ingestrProgram === null) return times
  const ingestr = await IngestrReference.open(peers.ingestrProgram)
  try {
    times.push(['ingestr', await ingestr.copy(database.url, tables)])
  } finally {
    await ingestr.close()
  }
  return times
}
