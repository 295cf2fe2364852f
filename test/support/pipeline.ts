import { mkdtempSync, rmSync } from 'node:fs'
import { existsSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DuckDBInstance } from '@duckdb/node-api'
import type pg from 'pg'
import { closeIdleDatabases } from '../../src/destinations/duckdb/database.ts'
import { openDuckDbDestination } from '../../src/destinations/duckdb/destination.ts'
import { spoolFolderOf } from '../../src/destinations/duckdb/spool-folder.ts'
import { toPostgresText } from '../../src/destinations/duckdb/type-mapping.ts'
import type { Destination } from '../../src/model/destination.ts'
import type { ChangeTablesResult, OperationContext, ReplicationEngine, SliceResult, SpoolResult, TablesOrder } from '../../src/model/replication.ts'
import type { ReplicationSpec } from '../../src/model/spec.ts'
import { parseCredentials } from '../../src/postgres/credentials.ts'
import { createEngine } from '../../src/replication/engine.ts'
import { sourcePool } from './source-pool.ts'

/** A spec with its defaults, for engine tests: what the workflows' validation would make of the given fields. */
export function specOf(given: Partial<ReplicationSpec> & { slotName: string; tableNames: readonly string[] | null }): ReplicationSpec {
  return {
    source: 'shop', destination: 'warehouse', publicationName: `${given.slotName}_pub`, schemaName: 'public',
    publish: ['insert', 'update', 'delete', 'truncate'], includeColumns: {}, columns: {}, datasetName: null, writeMode: 'merge', deleteMode: 'hard',
    snapshotMode: 'initial', schemaChanges: 'apply', reset: false, targetBatchSize: null, flushSlot: true, walBudgetBytes: null, spoolBudgetBytes: 10 * 2 ** 30,
    ...given,
  } // prettier-ignore
}

export interface TestPipelineOptions {
  /** May stand between the engine and its destination, to let calls fail as if the process had been killed there. */
  readonly around?: (destination: Destination) => Destination
  readonly tableSpoolBytes?: number
  readonly makesFailoverSlots?: () => boolean
  /** DuckDB's; by default the destination's own. */
  readonly memoryLimit?: string
}

/** The engine with a real source and a DuckDB file, without Temporal. */
export class TestPipeline implements AsyncDisposable {
  readonly directory = mkdtempSync(join(tmpdir(), 'pipeline-'))
  readonly file = this.fileOf('warehouse')
  readonly engine: ReplicationEngine
  /** May be replaced between slices: what a stop and a start with another input is. */
  spec: ReplicationSpec
  readonly source: pg.Pool
  owner = 'test-workflow'
  /** Nothing has run since the last {@link release}. */
  #isReleased = false

  constructor(url: string, spec: ReplicationSpec, { around = (destination) => destination, memoryLimit, ...limits }: TestPipelineOptions = {}) {
    this.spec = spec
    this.source = sourcePool({ connectionString: url, max: 8 })
    // A database that is dropped with force ends connections that are being closed.
    const credentials = parseCredentials(url)
    const engine = createEngine({
      credentialsOf: () => credentials,
      destinationNames: () => ['warehouse', 'second'],
      hasDestination: (name) => existsSync(this.fileOf(name)),
      ...limits,
      spoolFolder: (name, key) => spoolFolderOf(this.fileOf(name), key),
      openDestination: async (name) => around(await openDuckDbDestination({ path: this.fileOf(name), ...(memoryLimit === undefined ? {} : { memoryLimit }) })),
    })
    this.engine = new Proxy(engine, {
      get: (target, name) => {
        this.#isReleased = false
        const value: unknown = Reflect.get(target, name)
        return typeof value === 'function' ? (value.bind(target) as unknown) : value
      },
    })
  }

  /** The file of destination `warehouse`, or `second`. */
  fileOf(destination: string): string {
    return join(this.directory, `${destination}.duckdb`)
  }

  context(): OperationContext {
    return { signal: new AbortController().signal, owner: this.owner, isWorkflowOpen: async () => Promise.resolve(false), report: () => undefined, observe: () => undefined }
  }

  async sql(text: string, values: unknown[] = []): Promise<pg.QueryResult> {
    return this.source.query(text, values)
  }

  async initialize(): ReturnType<ReplicationEngine['initialize']> {
    return this.engine.initialize({ spec: this.spec }, this.context())
  }

  async order(order: TablesOrder): Promise<ChangeTablesResult> {
    return this.engine.changeTables({ spec: this.spec, order }, this.context())
  }

  /** Copies what is to be copied. */
  async copy(): Promise<SliceResult> {
    return this.engine.runSlice({ spec: this.spec, mode: 'copy', tableNames: null, untilLsn: null, maxBusyMs: 60_000, maxIdleMs: 60_000 }, this.context())
  }

  /** Applies everything that is committed now, in as many slices as it takes. Fails when it takes minutes: no bound on speed, a busy machine is slow. */
  async catchUp(): Promise<SliceResult> {
    const deadlineMs = performance.now() + 240_000
    let result = await this.#streamUntil('now')
    while (result.ended === 'time' && performance.now() < deadlineMs) result = joined(result, await this.#streamUntil(result.untilLsn ?? 'now'))
    if (process.env['DEBUG_PIPELINE'] !== undefined) console.log(JSON.stringify(result))
    if (result.ended !== 'done') throw new Error(`did not catch up: ${JSON.stringify(result.progress)}`)
    return result
  }

  async #streamUntil(untilLsn: string): Promise<SliceResult> {
    return this.engine.runSlice({ spec: this.spec, mode: 'stream', tableNames: null, untilLsn, maxBusyMs: 60_000, maxIdleMs: 60_000 }, this.context())
  }

  /** Keeps the stream beside the destination, until the slot has confirmed what is committed now, or (`isOver`) the test has seen enough. */
  async spool(isOver: () => boolean = () => false): Promise<SpoolResult> {
    const { rows } = await this.source.query('SELECT pg_current_wal_insert_lsn()::text AS lsn')
    const { lsn } = rows[0] as { lsn: string }
    const ended = new AbortController()
    const spooling = this.engine.spool({ spec: this.spec, maxMs: 240_000 }, { ...this.context(), signal: ended.signal })
    spooling.catch(() => undefined)
    const isConfirmed = async (): Promise<boolean> => {
      const slot = await this.source.query('SELECT 1 FROM pg_replication_slots WHERE slot_name = $1 AND confirmed_flush_lsn >= $2::pg_lsn', [this.spec.slotName, lsn])
      return slot.rowCount === 1
    }
    const watching = (async (): Promise<void> => {
      while (!ended.signal.aborted && !isOver() && !(await isConfirmed())) await new Promise((resolve) => setTimeout(resolve, 50))
    })()
    await Promise.race([watching, spooling])
    ended.abort()
    await watching
    return spooling
  }

  async release(): Promise<void> {
    if (this.#isReleased) return
    await this.engine.release({ spec: this.spec, owner: this.owner })
    await closeIdleDatabases()
    this.#isReleased = true
  }

  /** Rows of a query on the destination file, which nobody may hold open. */
  async query(sql: string): Promise<unknown[][]> {
    return this.#read(async (rowsOf) => rowsOf(sql))
  }

  async #read<T>(work: (rowsOf: (sql: string) => Promise<unknown[][]>) => Promise<T>): Promise<T> {
    await this.release()
    const instance = await DuckDBInstance.create(this.file, { access_mode: 'READ_ONLY' })
    try {
      const connection = await instance.connect()
      await connection.run("SET TimeZone = 'UTC'")
      const result = await work(async (sql) => (await connection.runAndReadAll(sql)).getRowsJson())
      connection.closeSync()
      return result
    } finally {
      instance.closeSync()
    }
  }

  /** Changes the destination file behind the engine's back, as its owner may. */
  async write(sql: string): Promise<void> {
    await this.release()
    const instance = await DuckDBInstance.create(this.file)
    const connection = await instance.connect()
    await connection.run(sql)
    connection.closeSync()
    instance.closeSync()
  }

  /** All rows of a destination table as PostgreSQL's text, sorted; columns of ours left out. */
  async destinationRows(table: string, schema = 'public', where = 'true'): Promise<string[]> {
    const rows = await this.#read(async (rowsOf) => {
      const columns = await rowsOf(`SELECT column_name, data_type FROM information_schema.columns WHERE table_schema = '${schema}' AND table_name = '${table}' ORDER BY column_name`)
      const own = columns.filter(([name]) => !String(name).startsWith('_'))
      const texts = own.map(([name, type]) => `coalesce((${toPostgresText(shortType(String(type)), `"${String(name)}"`)})::VARCHAR, '∅')`)
      return rowsOf(`SELECT ${texts.join(', ')} FROM "${schema}"."${table}" WHERE ${where}`)
    })
    return rows.map((row) => row.map((cell) => withoutTrailingZeros(String(cell))).join(' | ')).sort()
  }

  /** All rows of a source table as text, sorted, its columns in the same order as {@link destinationRows}. */
  async sourceRows(table: string, schema = 'public'): Promise<string[]> {
    const columns = await this.sql('SELECT column_name, data_type FROM information_schema.columns WHERE table_schema = $1 AND table_name = $2', [schema, table])
    const own = (columns.rows as { column_name: string; data_type: string }[]).sort((a, b) => (a.column_name < b.column_name ? -1 : 1))
    const texts = own.map(({ column_name }) => `"${column_name}"::text`)
    const client = await this.source.connect()
    try {
      await client.query("SET TimeZone = 'UTC'; SET DateStyle = 'ISO'; SET IntervalStyle = 'postgres'; SET bytea_output = 'hex'")
      const { rows } = await client.query({ text: `SELECT ${texts.map((text, index) => `coalesce(${text}, '∅') AS c${String(index)}`).join(', ')} FROM "${schema}"."${table}"`, rowMode: 'array' })
      return (rows as string[][]).map((row) => row.map(withoutTrailingZeros).join(' | ')).sort()
    } finally {
      client.release()
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.release()
    await this.source.end()
    rmSync(this.directory, { recursive: true, force: true })
  }
}

/** Two slices that followed each other, as one. */
function joined(first: SliceResult, second: SliceResult): SliceResult {
  const changes = { ...first.changes }
  for (const [name, { inserts, updates, deletes, truncates }] of Object.entries(second.changes)) {
    const before = changes[name] ?? { inserts: 0, updates: 0, deletes: 0, truncates: 0 }
    changes[name] = { inserts: before.inserts + inserts, updates: before.updates + updates, deletes: before.deletes + deletes, truncates: before.truncates + truncates }
  }
  return { ...second, fromLsn: first.fromLsn, transactions: first.transactions + second.transactions, changes, copied: { ...first.copied, ...second.copied } }
}

/** Digits behind the last one that counts are no part of a number: DECIMAL and numeric show as many as their scale says. */
function withoutTrailingZeros(cell: string): string {
  return /^-?\d+\.\d+$/.test(cell) ? cell.replace(/\.?0+$/, '') : cell
}

/** information_schema's spelling → ours. */
function shortType(type: string): string {
  return type.replace('TIMESTAMP WITH TIME ZONE', 'TIMESTAMPTZ').replace('TIME WITH TIME ZONE', 'TIMETZ')
}

/** The first rows that one side has and the other has not, counted as a multiset. */
export function differences(destination: readonly string[], source: readonly string[]): { missing: string[]; extra: string[] } {
  const counts = new Map<string, number>()
  for (const row of source) counts.set(row, (counts.get(row) ?? 0) + 1)
  for (const row of destination) counts.set(row, (counts.get(row) ?? 0) - 1)
  const rows = [...counts].map(([row, count]) => [row.replaceAll(/[^|]{60,}/g, (cell) => `${cell.slice(0, 30)}… (${String(cell.length)})`), count] as const)
  return {
    missing: rows.filter(([, count]) => count > 0).map(([row]) => row).slice(0, 5),
    extra: rows.filter(([, count]) => count < 0).map(([row]) => row).slice(0, 5),
  }
}
