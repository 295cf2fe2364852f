import { readdirSync, rmSync, statSync } from 'node:fs'
import { randomUUID } from 'node:crypto'
import { join } from 'node:path'
import type { TableRecord } from '../model/destination.ts'
import { tableKey } from '../model/table-schema.ts'
import { SpoolFile } from '../postgres/spool-file.ts'
import { StreamSpool, type SpooledSource } from './stream-spool.ts'
import { TableSpool } from './table-spool.ts'

/** The most that one stopped table's changes may take; beyond it the table has to be copied anew. */
export const TABLE_SPOOL_BYTES = 2 ** 30

/**
 * The spools of one slot's stopped tables: a folder beside the destination with one file a table. Transactions in progress are kept there,
 * too, for as long as a connection lasts.
 */
export class Spools {
  readonly folder: string
  /** Of the whole stream, from before this session. */
  readonly stream: StreamSpool
  readonly #limitBytes: number
  readonly #spools = new Map<number, TableSpool>()

  constructor(folder: string, source: SpooledSource, limitBytes = TABLE_SPOOL_BYTES) {
    this.folder = folder
    this.stream = new StreamSpool(folder, source)
    this.#limitBytes = limitBytes
  }

  /** A name that no spool has had before: what an earlier one left behind cannot be taken for it. */
  static newName(oid: number): string {
    return `${String(oid)}-${randomUUID()}.spool`
  }

  pathOf(name: string): string {
    return join(this.folder, name)
  }

  /**
   * Opens the spools of `records`, cut to what was committed, and removes files that none of them names. Returns the records whose kept
   * changes are gone, as they are to be stored.
   */
  open(records: readonly TableRecord[]): readonly TableRecord[] {
    const lost: TableRecord[] = []
    const names = new Set<string>()
    for (const record of records) {
      const { oid, quarantine } = record
      if (quarantine === null) continue
      const file = SpoolFile.open(this.pathOf(quarantine.spool), quarantine.endOffset)
      if (file === null) {
        lost.push(withoutSpool(record))
        continue
      }
      names.add(quarantine.spool)
      this.#spools.set(oid, new TableSpool(oid, file, record.state === 'failed' ? quarantine.startOffset + this.#limitBytes : Infinity))
    }
    for (const name of filesOf(this.folder)) if (!names.has(name)) rmSync(this.pathOf(name), { force: true })
    return lost
  }

  /** What all files take: the stream's, stopped tables', and those of transactions in progress. */
  get byteCount(): number {
    return filesOf(this.folder).reduce((sum, name) => sum + (statSync(this.pathOf(name), { throwIfNoEntry: false })?.size ?? 0), this.stream.byteCount)
  }

  of(oid: number): TableSpool | null {
    return this.#spools.get(oid) ?? null
  }

  /** From now on the spool is bounded: nobody reads it. */
  bound(oid: number, startOffset: number): void {
    const spool = this.#spools.get(oid)
    if (spool !== undefined) spool.limitOffset = startOffset + this.#limitBytes
  }

  /** Forgets a spool whose changes are in the table, or of no account. */
  remove(oid: number, name: string): void {
    this.#spools.get(oid)?.close()
    this.#spools.delete(oid)
    rmSync(this.pathOf(name), { force: true })
  }

  close(): void {
    for (const spool of this.#spools.values()) spool.close()
  }
}

/** Without the folder of the stream's own spool. */
function filesOf(folder: string): readonly string[] {
  try {
    return readdirSync(folder, { withFileTypes: true }).filter((entry) => entry.isFile()).map(({ name }) => name)
  } catch {
    return []
  }
}

function withoutSpool(record: TableRecord): TableRecord {
  return {
    ...record,
    state: 'failed',
    quarantine: null,
    error: {
      type: 'DestinationLost',
      message: `the changes of ${tableKey(record.source)} that were kept while it had stopped are not beside the destination any more`,
      remedy: 'What stands in the table is older than the source.',
    },
  }
}
