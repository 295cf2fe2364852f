import { existsSync, readdirSync, statSync } from 'node:fs'
import { rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { WorkflowHandle } from '@temporalio/client'
import type pg from 'pg'
import { expect } from 'vitest'
import { spoolFolderOf } from '../../src/destinations/duckdb/spool-folder.ts'
import { type Shape, shapesOf } from '../../src/model/shapes.ts'
import type { ReplicationInput, WriteMode } from '../../src/model/spec.ts'
import type { ReplicationStatus } from '../../src/model/status.ts'
import { type replicate, statusQuery, stopUpdate } from '../../src/workflows/index.ts'
import { appendRows, destinationRows, differences, doubledChanges, falseVersions, foldAppendRows, NO_DIFFERENCES, type Query, readFile, repeatedChanges, sourceRows } from './comparison.ts'
import { sourcePool } from './source-pool.ts'
import { WorkerHarness } from './worker-harness.ts'
import { until, untilStatus } from './workflow-harness.ts'

/** A worker that is not killed in this time does not come where the case wants it. */
const KILL_MS = 90_000
const WRITER_PAUSE_MS = 150
/** Of which each table begins with so many rows. */
const ROWS = 500

/** Where a worker dies: what `kill-points.mjs` reads. */
export interface KillPoint {
  /** PostgreSQL's statements, DuckDB's, operations on files, answers to workflow tasks. */
  readonly on: 'source' | 'destination' | 'file' | 'workflow'
  /** A regular expression for the statement; `rm path`, `sync path` or `write path at position`; or the answer's commands. */
  readonly matching: string
  /** Of a statement inside a transaction: of its commit. `during`: it has been sent, and has no answer yet. */
  readonly moment: 'before' | 'after' | 'during'
}

export interface LaneOptions {
  /** Slot, publication, schema and workflow bear it. */
  readonly name: string
  readonly temporalAddress: string
  readonly sourceUrl: string
  readonly input?: Partial<ReplicationInput>
  /** The tables that it begins with, and how they land: by itself `m`, current rows, and `h`, all changes. */
  readonly modes?: Readonly<Record<string, readonly WriteMode[]>>
}

/**
 * One replication in a worker of its own, which is killed again and again at chosen places, with a writer on its tables all the time: those that it begins
 * with, and those that its cases make.
 */
export class KillLane implements AsyncDisposable {
  readonly name: string
  readonly source: pg.Pool
  readonly harness: WorkerHarness
  /** Cases that have come about. */
  readonly kills: string[] = []
  /** What is written to, and compared in the end. */
  readonly tables = new Set<string>()
  /** Names at the destination alone: tables that were removed and stay. */
  readonly left = new Set<string>()
  readonly #given: Partial<ReplicationInput>
  readonly #modes: Readonly<Record<string, readonly WriteMode[]>>
  #handle: WorkflowHandle<typeof replicate> | null = null
  #isWriting = true
  #writing: Promise<void> = Promise.resolve()

  private constructor(harness: WorkerHarness, { name, sourceUrl, input = {}, modes = { m: ['merge'], h: ['append'] } }: LaneOptions) {
    this.name = name
    this.harness = harness
    this.#given = input
    this.#modes = modes
    this.source = sourcePool({ connectionString: sourceUrl, max: 3, options: `-c search_path=${name}` })
  }

  static async open(options: LaneOptions): Promise<KillLane> {
    const { temporalAddress, sourceUrl } = options
    const harness = await WorkerHarness.open({ temporalAddress, sourceUrl, env: { REPLICATION_METRICS_ADDRESS: 'off' }, hasKillPoints: true })
    const lane = new KillLane(harness, options)
    await lane.source.query(`CREATE SCHEMA ${lane.name}`)
    for (const table of Object.keys(lane.#modes)) await lane.create(table)
    await harness.startWorker()
    lane.#writing = lane.#write()
    return lane
  }

  get slotName(): string {
    return `kill_${this.name}`
  }

  get input(): ReplicationInput {
    return { slotName: this.slotName, publicationName: `${this.name}_publication`, schemaName: this.name, tableNames: Object.keys(this.#modes), writeMode: this.#modes, ...this.#given }
  }

  get handle(): WorkflowHandle<typeof replicate> {
    if (this.#handle === null) throw new RangeError('it has not been started')
    return this.#handle
  }

  key(table: string): string {
    return `${this.name}.${table}`
  }

  /** A table that is written to from now on. */
  async create(table: string): Promise<void> {
    await this.source.query(`CREATE TABLE ${table} (id serial PRIMARY KEY, v numeric NOT NULL); INSERT INTO ${table} (v) SELECT g FROM generate_series(1, ${String(ROWS)}) g`)
    this.tables.add(table)
  }

  async start(): Promise<void> {
    this.#handle = await this.harness.startReplicate(this.input)
  }

  async status(): Promise<ReplicationStatus> {
    return this.handle.query(statusQuery)
  }

  async until(isWanted: (status: ReplicationStatus) => boolean): Promise<ReplicationStatus> {
    return untilStatus(this.handle, isWanted)
  }

  /** Everything streams, and nothing is amiss. */
  async untilWell(): Promise<ReplicationStatus> {
    return this.until(({ phase, lastError, tables }) => phase === 'streaming' && lastError === undefined && Object.values(tables).every(({ state }) => state === 'streaming' || state === 'removed'))
  }

  /** Lets the worker die at `point` of what `act` sets going, and gives it a successor. Resolves when `act` has its answer. */
  async kill(name: string, point: KillPoint, act: () => Promise<unknown>): Promise<void> {
    const { worker, killPointFile: file } = this.harness
    // It is looked at before each statement: it must be there whole.
    await writeFile(`${file}.new`, JSON.stringify(point))
    await rename(`${file}.new`, file)
    const acting = act()
    acting.catch(() => undefined)
    const failing = acting.then(async () => new Promise<never>(() => undefined))
    const isDead = await Promise.race([worker.exited.then(() => true), failing, sleep(KILL_MS, false, { ref: false })])
    if (!isDead || !existsSync(`${file}.done`)) {
      const what = isDead ? 'the worker has ended otherwise' : 'no worker has come there'
      throw new Error(`${this.name}, ${name}: ${what}; ${JSON.stringify(await this.status().catch(String))}\n${this.harness.lines.slice(-10).join('\n')}`)
    }
    await rm(`${file}.done`)
    await this.harness.killWorker()
    await this.harness.startWorker()
    await acting
    this.kills.push(`${name}, ${point.moment}`)
  }

  async stopWriter(): Promise<void> {
    this.#isWriting = false
    await this.#writing
  }

  async #write(): Promise<void> {
    for (let round = 1; this.#isWriting; round++) {
      const change = (table: string): string => `INSERT INTO ${table} (v) VALUES (${String(round)}); UPDATE ${table} SET v = v + 1 WHERE id % 50 = ${String(round % 50)}; DELETE FROM ${table} WHERE id = ${String(round)}`
      await this.source.query(`BEGIN; ${[...this.tables].map(change).join('; ')}; COMMIT`)
      await sleep(WRITER_PAUSE_MS)
    }
  }

  /**
   * Ends it, and requires both sides to be equal and nothing to be left over of what was killed. Of a history with gaps changes are not told apart: what a
   * comparison finds has its place.
   */
  async finish(hasGaps = false): Promise<void> {
    await this.stopWriter()
    await this.handle.executeUpdate(stopUpdate, { args: [{}] })
    await this.harness.sync(this.input)
    expect(await this.harness.stopWorker(), this.harness.lines.slice(-5).join('\n')).toBe(0)
    await this.#expectEqual(hasGaps)
    await this.#expectNothingLeft()
  }

  async #expectEqual(hasGaps: boolean): Promise<void> {
    const client = await this.source.connect()
    try {
      await readFile(this.harness.file, async (query) => {
        for (const table of this.tables) {
          const source = await sourceRows(client, table, this.name)
          for (const shape of this.#shapes(table)) expect(differences(await this.#currentRows(query, shape, hasGaps), source), this.key(shape.table.name)).toEqual(NO_DIFFERENCES)
        }
      })
    } finally {
      client.release()
    }
  }

  /** The rows that a shape comes to. Every write changes its row, so that a history tells by itself what nobody has written. */
  async #currentRows(query: Query, { kind, table: { name } }: Shape, hasGaps: boolean): Promise<string[]> {
    if (kind === 'scd2') expect(await falseVersions(query, name, ['id'], this.name), `versions of ${this.key(name)} that nobody made`).toEqual([])
    if (kind !== 'append') return destinationRows(query, name, this.name, { where: kind === 'scd2' ? '_is_current' : 'true' })
    const rows = await appendRows(query, name, this.name)
    if (!hasGaps) expect([doubledChanges(rows, ['id']), repeatedChanges(rows, ['id'])], `changes of ${this.key(name)} that nobody made`).toEqual([[], []])
    return foldAppendRows(rows, ['id'])
  }

  #shapes(table: string): readonly Shape[] {
    const [writeMode = 'merge', ...otherModes] = this.#modes[table] ?? []
    return shapesOf({ writeMode, otherModes }, { schema: this.name, name: table })
  }

  /** Publication, slots, tables, plans of copies, staging files and spools are what the replication needs. */
  async #expectNothingLeft(): Promise<void> {
    const members = await this.source.query<{ tablename: string }>('SELECT tablename FROM pg_publication_tables WHERE pubname = $1 ORDER BY 1', [this.input.publicationName])
    expect(members.rows.map(({ tablename }) => tablename)).toEqual([...this.tables].sort())
    const slots = await this.source.query<{ slot_name: string; active: boolean }>("SELECT slot_name, active FROM pg_replication_slots WHERE slot_name LIKE '%' || $1 || '%'", [this.name])
    expect(slots.rows).toEqual([{ slot_name: this.slotName, active: false }])
    const { file } = this.harness
    await readFile(file, async (query) => {
      const tables = await query(`SELECT table_name FROM duckdb_tables() WHERE schema_name = '${this.name}' ORDER BY 1`)
      expect(tables.map(([table]) => table)).toEqual([...new Set([...[...this.tables].flatMap((table) => this.#shapes(table).map(({ table: { name } }) => name)), ...this.left])].sort())
      expect(await query('SELECT * FROM _replication.chunks WHERE snapshot IS NULL')).toEqual([])
    })
    expect([`${file}.staging`, `${file}.tmp`].filter((path) => existsSync(path))).toEqual([])
    expect(filesUnder(spoolFolderOf(file, { source: 'shop', slotName: this.slotName }))).toEqual([])
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stopWriter()
    await this.harness[Symbol.asyncDispose]()
    await this.source.end()
  }
}

function filesUnder(folder: string): readonly string[] {
  return existsSync(folder) ? readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((name) => statSync(join(folder, name)).isFile()) : []
}

/** The slot's confirmed position is past what is committed now: nothing of it is held back at the source. */
export async function untilKept(lane: KillLane): Promise<void> {
  const { rows } = await lane.source.query<{ lsn: string }>('SELECT pg_current_wal_insert_lsn()::text AS lsn')
  await until(
    async () => (await lane.source.query('SELECT 1 FROM pg_replication_slots WHERE slot_name = $1 AND confirmed_flush_lsn >= $2::pg_lsn', [lane.slotName, rows[0]?.lsn])).rowCount,
    (count) => count === 1,
  )
}
