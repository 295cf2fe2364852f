import { existsSync, mkdirSync, rmSync, statSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { dirname, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { DuckDBInstance, type DuckDBConnection, type DuckDBValue } from '@duckdb/node-api'
import { DomainError } from '../../model/errors.ts'
import { finalOpenError } from './open-error.ts'
import { Watches } from './watched-rows.ts'

export interface DatabaseSettings {
  /** File path; parent folders are made. */
  readonly path: string
  /** DuckDB threads; 1 by default, which is best where the source shares two cores (facts 17), and 2 while the file is closed. */
  readonly threads?: number
  /** DuckDB's own buffer limit, e.g. `2GB`. */
  readonly memoryLimit?: string
  readonly tempDirectory?: string
}

/** A file is closed this long after its last user is gone; with the time that a session lingers, within 5 s (contract §5). */
const CLOSE_AFTER_MS = 1_000

/** So long another process may have the file: of two workers the one that had it lets go of it 3 s after its last slice. */
const LOCK_PATIENCE_MS = 5_000
const LOCK_RETRY_MS = 100

/** After such an error DuckDB refuses everything until the file has been opened anew. */
const BREAKING_ERROR = /^(FATAL|INTERNAL) Error|has been invalidated/

const DEFAULT_THREADS = 1
/** For the checkpoint that closes a file, when nobody waits for a core any more: it takes two thirds of the time. */
const CLOSING_THREADS = Math.min(2, availableParallelism())
const DEFAULT_MEMORY_LIMIT = '2GB'

/** What each connection is told. */
const CONNECTION_SETTINGS = [
  "SET TimeZone = 'UTC'",
  // So many keys of a batch are held against each row group's range of them before it is read. By itself DuckDB does so with 50, and with more only by the least and the
  // greatest of all: one old row among a hundred new ones, and the whole table is read (20 million rows: 58 ms instead of 8).
  'SET dynamic_or_filter_threshold = 500',
].join('; ')

/**
 * One open DuckDB file of this process: one writing connection, used by one caller at a time, and one that reads beside it.
 *
 * States: open (users > 0) → lingering (no user, timer runs) → closed; a new user within the time takes it back to open.
 */
export class Database {
  readonly path: string
  readonly stagingDirectory: string
  /** Tables with a value that has no place in binary form: found with one chunk, and of account for the next, and for whoever opens the file meanwhile. */
  readonly withoutBinary = new Set<string>()
  readonly #instance: DuckDBInstance
  readonly #connection: DuckDBConnection
  /** Which file it is, whatever its name. */
  readonly #inode: bigint | null
  readonly #closingThreads: number
  readonly #watches = new Watches()
  #tail: Promise<unknown> = Promise.resolve()
  #reader: DuckDBConnection | null = null
  #readerTail: Promise<unknown> = Promise.resolve()
  #isBroken = false

  private constructor(path: string, instance: DuckDBInstance, connection: DuckDBConnection, closingThreads: number) {
    this.path = path
    this.#closingThreads = closingThreads
    this.stagingDirectory = `${path}.staging`
    this.#instance = instance
    this.#connection = connection
    this.#inode = inodeOf(path)
  }

  /** Opens the file. Waits {@link LOCK_PATIENCE_MS} for another process that has it. Throws `DestinationFailed` where it cannot be opened, with the process that has it where DuckDB says; final where somebody has to mend it. */
  static async open(settings: DatabaseSettings): Promise<Database> {
    const path = resolve(settings.path)
    try {
      makeFolder(dirname(path))
      const instance = await createInstance(path, {
        threads: String(settings.threads ?? DEFAULT_THREADS),
        memory_limit: settings.memoryLimit ?? DEFAULT_MEMORY_LIMIT,
        temp_directory: settings.tempDirectory ?? `${path}.tmp`,
        preserve_insertion_order: 'true',
        checkpoint_threshold: '256MB',
        allocator_background_threads: 'false',
      })
      const connection = await instance.connect()
      await connection.run(CONNECTION_SETTINGS)
      const database = new Database(path, instance, connection, settings.threads ?? CLOSING_THREADS)
      // Whatever a killed process left there was never applied, or is in the file.
      rmSync(database.stagingDirectory, { recursive: true, force: true })
      mkdirSync(database.stagingDirectory, { recursive: true })
      return database
    } catch (error) {
      throw finalOpenError(error, path) ?? destinationError(error, `cannot open the DuckDB file ${path}`)
    }
  }

  /** True after an error that only opening the file anew can mend. */
  get isBroken(): boolean {
    return this.#isBroken
  }

  /** Runs `work` while nobody else uses the connection. */
  async exclusive<T>(work: (session: DatabaseSession) => Promise<T>): Promise<T> {
    const run = this.#tail.then(async () => work(new DatabaseSession(this.#connection, this.#watches)))
    this.#tail = run.catch((error: unknown) => {
      this.#isBroken ||= error instanceof Error && BREAKING_ERROR.test(error.message)
    })
    return run
  }

  /** Runs `work` in one transaction, rolled back when it throws. Throws `DestinationLost` where the file is not the one that was opened. */
  async transaction<T>(work: (session: DatabaseSession) => Promise<T>): Promise<T> {
    return this.exclusive(async (session) => {
      this.#requireFile()
      await session.run('BEGIN TRANSACTION')
      let result: T
      try {
        result = await work(session)
        await session.run('COMMIT')
      } catch (error) {
        await session.run('ROLLBACK').catch(() => undefined)
        throw error
      }
      return result
    })
  }

  /**
   * Runs `work`, which writes to temporary tables alone, on another connection than the writer's: neither waits for the other. One caller at a time; temporary
   * tables are not those of {@link exclusive}.
   */
  async reading<T>(work: (session: DatabaseSession) => Promise<T>): Promise<T> {
    const run = this.#readerTail.then(async () => {
      if (this.#reader === null) {
        this.#reader = await this.#instance.connect()
        await this.#reader.run(CONNECTION_SETTINGS)
      }
      return work(new DatabaseSession(this.#reader, this.#watches))
    })
    this.#readerTail = run.catch(() => undefined)
    return run
  }

  /** A file that was removed while it is open takes commits that nobody will ever read. */
  #requireFile(): void {
    if (inodeOf(this.path) === this.#inode) return
    this.#isBroken = true
    throw new DomainError({
      kind: 'DestinationLost',
      message: `the DuckDB file ${this.path} was removed or replaced while it was open`,
      remedy: 'put it back; or start with "reset": true to load everything anew',
    })
  }

  /** Waits for the running user, then closes the file and removes its (empty) staging folder. */
  async close(): Promise<void> {
    await Promise.all([this.#tail, this.#readerTail])
    this.#reader?.closeSync()
    // Closing would do it too, but on the event loop's own thread, for seconds after a long backlog.
    if (!this.#isBroken) await this.#connection.run(`SET threads = ${String(this.#closingThreads)}; CHECKPOINT`).catch(() => undefined)
    this.#connection.closeSync()
    this.#instance.closeSync()
    rmSync(this.stagingDirectory, { recursive: true, force: true })
  }
}

function inodeOf(path: string): bigint | null {
  return statSync(path, { bigint: true, throwIfNoEntry: false })?.ino ?? null
}

/** Statements on the one connection. Values in errors are cut: DuckDB quotes them. */
export class DatabaseSession {
  readonly #connection: DuckDBConnection
  /** Of the file. */
  readonly watches: Watches

  constructor(connection: DuckDBConnection, watches: Watches) {
    this.#connection = connection
    this.watches = watches
  }

  /** Runs one or more statements. Returns the number of rows that the last one changed. */
  async run(sql: string, values?: DuckDBValue[]): Promise<number> {
    const result = await this.#connection.run(sql, values)
    return result.rowsChanged
  }

  /** Rows as JSON-safe values: integers over 32 bits are text. */
  async rows(sql: string, values?: DuckDBValue[]): Promise<readonly (readonly unknown[])[]> {
    const reader = await this.#connection.runAndReadAll(sql, values)
    return reader.getRowsJson()
  }
}

interface Entry {
  readonly opening: Promise<Database>
  users: number
  timer: NodeJS.Timeout | null
  closing: Promise<unknown> | null
}

const OPEN = new Map<string, Entry>()

/** Throws DuckDB's own error. */
async function createInstance(path: string, options: Record<string, string>): Promise<DuckDBInstance> {
  const untilMs = performance.now() + LOCK_PATIENCE_MS
  for (;;) {
    try {
      return await DuckDBInstance.create(path, options)
    } catch (error) {
      if (!isLockedByAnother(error) || performance.now() >= untilMs) throw error
    }
    await sleep(LOCK_RETRY_MS)
  }
}

function isLockedByAnother(error: unknown): boolean {
  return error instanceof Error && error.message.includes('Could not set lock on file')
}

/** Shares one open file among the users of this process. Each caller gives it back by calling `release` once. */
export async function acquireDatabase(settings: DatabaseSettings): Promise<{ readonly database: Database; release(): void }> {
  const path = resolve(settings.path)
  let entry = OPEN.get(path)
  while (entry?.closing != null) {
    await entry.closing
    entry = OPEN.get(path)
  }
  if (entry?.users === 0 && (await entry.opening.catch(() => null))?.isBroken !== false) {
    await closeEntry(path, entry)
    entry = OPEN.get(path)
  }
  if (entry === undefined) {
    entry = { opening: Database.open(settings), users: 0, timer: null, closing: null }
    OPEN.set(path, entry)
  }
  const held = entry
  held.users++
  if (held.timer !== null) clearTimeout(held.timer)
  held.timer = null
  let isReleased = false
  const release = () => {
    if (isReleased) return
    isReleased = true
    held.users--
    if (held.users > 0) return
    held.timer = setTimeout(() => void closeEntry(path, held), CLOSE_AFTER_MS)
  }
  try {
    return { database: await held.opening, release }
  } catch (error) {
    if (OPEN.get(path) === held) OPEN.delete(path)
    throw error
  }
}

/** Closes every lingering file now: for a worker that ends. */
export async function closeIdleDatabases(): Promise<void> {
  await Promise.all([...OPEN].filter(([, entry]) => entry.users === 0).map(async ([path, entry]) => closeEntry(path, entry)))
}

async function closeEntry(path: string, entry: Entry): Promise<void> {
  if (entry.timer !== null) clearTimeout(entry.timer)
  entry.timer = null
  if (entry.users > 0 || OPEN.get(path) !== entry) return
  // Until the file is closed nobody may open it again: two instances in one process would not see each other's lock.
  entry.closing ??= entry.opening.then(async (database) => database.close()).finally(() => OPEN.delete(path))
  await entry.closing
}

/** Makes a folder and its parents. Node's `recursive` blocks this process for ever where a file system refuses with ENOENT, as `/proc` does. */
function makeFolder(path: string): void {
  if (existsSync(path)) return
  if (dirname(path) !== path) makeFolder(dirname(path))
  try {
    mkdirSync(path)
  } catch (error) {
    if (!existsSync(path)) throw error
  }
}

/** A DuckDB error as a domain error. Its text may quote a value, so only its class is shown, and for files the path. */
export function destinationError(error: unknown, what: string): DomainError {
  if (error instanceof DomainError) return error
  const text = error instanceof Error ? error.message : ''
  const holder = /PID (\d+)/.exec(text)?.[1]
  if (isLockedByAnother(error)) {
    return new DomainError({
      kind: 'DestinationFailed',
      message: `${what}: another process has it open${holder === undefined ? '' : ` (PID ${holder})`}`,
      remedy: 'close the other program; DuckDB lets one process at a time open a file that is written',
    })
  }
  const errorClass = /^([A-Z][A-Za-z ]+?)(?: Error)?:/.exec(text)?.[1] ?? 'unknown'
  const code = error instanceof Error && 'code' in error && typeof error.code === 'string' ? ` ${error.code}` : ''
  // These classes speak of files, sizes and transactions, never of values.
  const isIo = ['IO', 'Out of Memory', 'TransactionContext', 'FATAL'].includes(errorClass) || code !== ''
  return new DomainError({
    kind: 'DestinationFailed',
    message: `${what}: DuckDB ${errorClass} error${code}${isIo ? `: ${withoutValues(text)}` : ''}`,
    remedy: isIo ? 'see that the folder is writable and has room, and that memoryLimit suffices' : 'this should not happen: please report it with the table’s column types',
  })
}

/** Keeps a message that DuckDB makes of files and sizes, not of values. */
function withoutValues(text: string): string {
  return text.split('\n', 1)[0]?.slice(0, 300) ?? ''
}
