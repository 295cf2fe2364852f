import type { Relation } from '../model/change.ts'
import type { Batch } from '../model/destination.ts'
import { ZERO_LSN } from '../model/lsn.ts'
import { createDecoder, type Decoder } from '../postgres/pgoutput/decode.ts'
import type { SchemaWatcher } from './schema-watcher.ts'
import { SpoolReader } from '../postgres/spool-file.ts'
import { StreamConsumer, type SealedBatch } from './stream-consumer.ts'
import type { TableRuntime } from './table-runtime.ts'

const RELATION_TAG = 0x52

export interface SpoolPassOptions {
  readonly path: string
  /** A transaction begins there. */
  readonly startOffset: number
  readonly table: TableRuntime
  readonly watcher: SchemaWatcher
  readonly newBatch: () => Batch
}

/**
 * One reading of a table's spool, by the decoder and the consumer of the stream, into batches of that table alone. `table` is an object
 * of its own: the one in the session goes on taking changes into the spool's end.
 */
export class SpoolPass {
  readonly table: TableRuntime
  readonly watcher: SchemaWatcher
  readonly #consumer: StreamConsumer
  readonly #decoder: Decoder
  readonly #reader: SpoolReader
  /** The catalog is being asked about a Relation message. */
  #resolving: Promise<unknown> | null = null

  private constructor({ path, startOffset, table, watcher, newBatch }: SpoolPassOptions) {
    this.table = table
    this.watcher = watcher
    this.#reader = new SpoolReader(path, startOffset)
    this.#consumer = new StreamConsumer({
      newBatch,
      tableOf: () => table,
      onRelation: (relation) => { this.#onRelation(relation) },
      onBoundary: () => undefined,
      appliedLsn: ZERO_LSN,
    })
    this.#decoder = createDecoder(this.#consumer)
  }

  /** Begins at `startOffset`, with the shape that tuples have there. */
  static async begin(options: SpoolPassOptions): Promise<SpoolPass> {
    const pass = new SpoolPass(options)
    const relation = await lastRelation(options.path, options.startOffset)
    if (relation !== null) pass.#decoder.decode(relation)
    await pass.#resolving
    return pass
  }

  get rowCount(): number {
    return this.#consumer.rowCount
  }

  get byteCount(): number {
    return this.#consumer.byteCount
  }

  /** Where the next frame begins. */
  get offset(): number {
    return this.#reader.offset
  }

  /** Reads to the end of a transaction, or to `endOffset`. Reading pauses there, and where the disk or the catalog is asked. */
  async readTransaction(endOffset: number): Promise<void> {
    const reader = this.#reader
    do {
      while (!reader.next()) await reader.read(endOffset)
      if (reader.sequence > 0) this.#consumer.batch.sequence = reader.sequence
      this.#decoder.decode(reader.buffer, reader.start, reader.end)
      if (this.#resolving !== null) await this.#resolving
    } while (this.#consumer.isInTransaction)
  }

  /** What was read since the last seal; null where that is nothing. Only between transactions. */
  seal(): SealedBatch | null {
    return this.#consumer.seal()
  }

  async close(): Promise<void> {
    this.#consumer.discard()
    await this.#reader.close()
  }

  #onRelation(relation: Relation): void {
    const { table, watcher } = this
    if (!watcher.concerns(relation, table)) return
    this.#resolving = watcher.resolve({ relation, table, consumer: this.#consumer }).finally(() => {
      this.#resolving = null
    })
    // Whoever reads looks at it; until then a failure must not end the process.
    this.#resolving.catch(() => undefined)
  }
}

/** The last Relation message before `offset`. */
async function lastRelation(path: string, offset: number): Promise<Buffer | null> {
  const reader = new SpoolReader(path, 0)
  let relation: Buffer | null = null
  try {
    while (reader.offset < offset) {
      if (!reader.next()) await reader.read(offset)
      else if (reader.buffer[reader.start] === RELATION_TAG) relation = Buffer.from(reader.buffer.subarray(reader.start, reader.end))
    }
    return relation
  } finally {
    await reader.close()
  }
}
