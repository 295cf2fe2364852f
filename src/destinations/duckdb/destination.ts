import { rmSync } from 'node:fs'
import type { TableComparison } from '../../model/comparison.ts'
import { isBeside, nextGeneration, replacingOf, unplannedCopy } from '../../model/destination.ts'
import type {
  ApplyResult, Batch, Checkpoint, ChunkPosition, ChunkStage, Departure, Destination, Fence, ForeseenChange, Foresight, PipelineKey, PipelineState, Registration, Reshaping, RowLookup,
  TableAmendment, TableRecord, TableRegistration, TargetColumn,
} from '../../model/destination.ts' // prettier-ignore
import { pipelineName } from '../../model/destination.ts'
import { DomainError } from '../../model/errors.ts'
import type { Lsn } from '../../model/lsn.ts'
import { isShapedAs, keepsPast, modesOf, type Shaping, shapesOf, shapingIn, shapingText } from '../../model/shapes.ts'
import type { TableSchema } from '../../model/table-schema.ts'
import { reloadName, tableKey } from '../../model/table-schema.ts'
import { applyChunkStages, applyKeysStage, applyStages, failedBy, failTable, restartCopy } from './apply.ts'
import { carryShapes } from './carry-shapes.ts'
import { DuckDbChunk } from './chunk-stage.ts'
import { refuseShape } from './column-names.ts'
import { DuckDbComparison } from './comparison.ts'
import { checkFence, forgetTable, prepareSchema, readPipeline, whereIs, writeAmendment, writeTable, writeTables } from './checkpoint.ts'
import { carriedColumns } from './columns.ts'
import { comparePublished } from '../../pipeline/storage-diff.ts'
import { acquireDatabase, destinationError, type Database, type DatabaseSettings } from './database.ts'
import { finalOpenError } from './open-error.ts'
import { createTables, dropAll, dropTables } from './ddl.ts'
import { foresee } from './foresee.ts'
import type { DeferredRows } from './judged-rows.ts'
import { createTarget, newTarget, Places } from './new-target.ts'
import { TableRefused } from './misfits.ts'
import { foreignAmong, isSameName, leaveTable, renameTables, type Renaming } from './names.ts'
import { NamesThere } from './names-there.ts'
import { quoteTable, quoteText } from './sql.ts'
import { refuseShapes, reshapeTable } from './reshape.ts'
import { isTransient } from './retry-widened.ts'
import { rehinted, retypeShapes } from './retype.ts'
import { spoolFolderOf } from './spool-folder.ts'
import { StagedBatch } from './staging.ts'
import { swapShapes } from './swap.ts'
import { targetColumns } from './type-mapping.ts'

/**
 * One row group of DuckDB (122,880 rows) and more than half of another: so that a checkpoint finds no three that fit into two, and writes none
 * of them again. With 250,000 rows it wrote a table of a million anew: 0.45 s of CPU time and 100 MB of memory.
 */
const CHUNK_ROWS = 215_000

/** Of staging files of this process. */
let names = 0

const NO_COUNTS = { snapshotRows: 0, inserts: 0, updates: 0, deletes: 0, truncates: 0, lastCommitLsn: null } as const

/** Opens a DuckDB file as a destination. Files are shared inside the process; `close` gives the handle back. */
export async function openDuckDbDestination(settings: DatabaseSettings): Promise<Destination> {
  const handle = await acquireDatabase(settings)
  const { database } = handle
  try {
    const id = await database.transaction(prepareSchema)
    return new DuckDbDestination(id, database, () => { handle.release() })
  } catch (error) {
    handle.release()
    // Where the file can be read and no log be written beside it, this is the first to notice.
    throw finalOpenError(error, database.path) ?? destinationError(error, `cannot prepare the DuckDB file ${database.path}`)
  }
}

/** See the destination contract in model/destination.ts. */
class DuckDbDestination implements Destination {
  readonly id: string
  readonly chunkRows = CHUNK_ROWS
  readonly #database: Database
  readonly #release: () => void
  /** Changes that wait for a running copy. A killed process loses them, and copies their chunk again from a later snapshot. */
  #deferred: DeferredRows[] = []

  constructor(id: string, database: Database, release: () => void) {
    this.id = id
    this.#database = database
    this.#release = release
  }

  async loadPipeline(key: PipelineKey): Promise<PipelineState | null> {
    return this.#database.exclusive(async (session) => readPipeline(session, key))
  }

  async claim(key: PipelineKey, owner: string, formerOwner: string | null): Promise<PipelineState> {
    return this.#database.transaction(async (session) => {
      const present = (await readPipeline(session, key))?.owner ?? null
      if (present !== null && present !== owner && present !== formerOwner) {
        throw new DomainError({
          kind: 'AlreadyReplicating',
          message: `${pipelineName(key)} has just been taken by workflow ${present}`,
          remedy: 'stop that workflow first, or leave it to it',
        })
      }
      const changed = await session.run(`UPDATE _replication.checkpoints SET owner = ${quoteText(owner)}, epoch = epoch + 1, updated_at = now() WHERE ${whereIs(key)}`)
      if (changed === 0) {
        const values = [quoteText(key.source), quoteText(key.slotName), 'NULL', quoteText(owner), '1', 'NULL', 'NULL', 'now()', 'NULL']
        await session.run(`INSERT INTO _replication.checkpoints VALUES (${values.join(', ')})`)
      }
      const state = await readPipeline(session, key)
      if (state === null) throw new RangeError('the claim is not there')
      return state
    })
  }

  async release(key: PipelineKey, owner: string): Promise<void> {
    await this.#database.transaction(async (session) => {
      await session.run(`UPDATE _replication.checkpoints SET owner = NULL WHERE ${whereIs(key)} AND owner = ${quoteText(owner)}`)
    })
  }

  async check(key: PipelineKey, tables: readonly TableRegistration[], { startsAnew }: { readonly startsAnew: boolean }): Promise<void> {
    await this.#database.exclusive(async (session) => {
      const known = startsAnew ? [] : ((await readPipeline(session, key))?.tables ?? [])
      const existingOf = knownRecords(known)
      const there = await NamesThere.read(session)
      for (const table of tables) {
        const existing = existingOf.get(table.source.oid)
        if (existing === undefined) {
          const refusal = foreignAmong(there, key, newTarget(newRecord(table)))
          if (refusal !== null) throw refusal
        } else followed(existing, table)
      }
    })
  }

  async register(fence: Fence, registration: Registration): Promise<readonly TableRecord[]> {
    return this.#database.transaction(async (session) => {
      await checkFence(session, fence, null)
      const { identity, publicationName, appliedLsn, replacesPosition } = registration
      const position = replacesPosition ? `${String(appliedLsn)}::UBIGINT` : `coalesce(applied_lsn, ${String(appliedLsn)}::UBIGINT)`
      await session.run(
        `UPDATE _replication.checkpoints SET identity = ${quoteText(JSON.stringify(identity))}, publication_name = ${quoteText(publicationName)},
           applied_lsn = ${position} WHERE ${whereIs(fence)}`,
      )
      if (registration.amendment !== undefined) await writeAmendment(session, fence, registration.amendment)
      const before = await Places.read(session, fence)
      const existingOf = knownRecords(before.known)
      let places: Places | null = before
      const records: TableRecord[] = []
      const displaced: TableRecord[] = []
      for (const table of registration.tables) {
        const existing = existingOf.get(table.source.oid)
        if (existing === undefined) {
          places ??= await Places.read(session, fence)
          const created = await createTarget(session, fence, newRecord(table), { places, gone: registration.gone })
          records.push(created.record)
          displaced.push(...created.displaced)
          // What gave way is elsewhere now.
          if (created.isAlone) places.add(created.record, fence)
          else places = null
          continue
        }
        const record = followed(existing, table)
        if (record !== existing) {
          // A table that is to be copied anew gets its columns with the copy.
          if (record.copy === existing.copy) await retypeShapes(session, existing, record.columns)
          else if (keepsPast(existing)) await carryShapes(session, existing, record.columns, 'inPlace')
          await writeTable(session, fence, record, true)
          places = null
        }
        records.push(record)
      }
      return [...records, ...displaced]
    })
  }

  spoolFolder(key: PipelineKey): string {
    return spoolFolderOf(this.#database.path, key)
  }

  newBatch(): Batch {
    return new StagedBatch(this.#database.stagingDirectory, `batch-${String(names++)}`)
  }

  async applyBatch(fence: Fence, batch: Batch, checkpoint: Checkpoint): Promise<ApplyResult> {
    if (!(batch instanceof StagedBatch)) throw new RangeError('a batch of another destination')
    const { deferred, ...result } = await applyStages(this.#database, fence, batch.stages, checkpoint)
    this.#deferred.push(...deferred)
    return result
  }

  newChunk(table: TableRecord, chunk: ChunkPosition): ChunkStage {
    const { stagingDirectory: directory, withoutBinary } = this.#database
    return new DuckDbChunk({ directory, name: `chunk-${String(names++)}`, withoutBinary }, table, chunk)
  }

  async applyChunks(fence: Fence, stages: readonly ChunkStage[], lookup: RowLookup): Promise<readonly TableRecord[]> {
    const chunks = stages.map((stage) => {
      if (!(stage instanceof DuckDbChunk)) throw new RangeError('a chunk of another destination')
      return stage
    })
    const read = chunks.map((stage) => ({ stage: stage.toTableStage(), chunk: stage.chunk, aside: this.#deferred.filter((rows) => stage.isOf(rows)) }))
    const records = await applyChunkStages(this.#database, fence, read, lookup)
    await this.#forgetDeferred((rows) => chunks.some((stage) => stage.isOf(rows)))
    return records
  }

  async applyKeys(fence: Fence, table: TableRecord, keys: ChunkStage): Promise<TableRecord | null> {
    if (!(keys instanceof DuckDbChunk)) throw new RangeError('a chunk of another destination')
    return applyKeysStage(this.#database, fence, keys.toTableStage(), keys.chunk, table)
  }

  async dropTables(fence: Fence, tables: readonly TableRecord[]): Promise<void> {
    await this.#database.transaction(async (session) => {
      await checkFence(session, fence, null)
      for (const table of tables) {
        await dropAll(session, table)
        await forgetTable(session, fence, table.oid)
      }
    })
  }

  /** Drops what was set aside for a chunk whose copy failed: its next snapshot is later than those changes. */
  async dropDeferred(oid: number, chunk: number | null): Promise<void> {
    await this.#forgetDeferred((rows) => rows.oid === oid && (chunk === null || rows.chunk === chunk))
  }

  async #forgetDeferred(isOurs: (rows: DeferredRows) => boolean): Promise<void> {
    const gone = this.#deferred.filter(isOurs)
    this.#deferred = this.#deferred.filter((rows) => !isOurs(rows))
    if (gone.length === 0) return
    await this.#database.exclusive(async (session) => {
      await session.run(gone.map(({ table }) => `DROP TABLE IF EXISTS ${table}`).join('; '))
    })
  }

  async saveTables(fence: Fence, tables: readonly TableRecord[]): Promise<void> {
    await this.#database.transaction(async (session) => {
      await checkFence(session, fence, null)
      for (const table of tables) await writeTable(session, fence, table, true)
    })
  }

  async removeTables(fence: Fence, tables: readonly TableRecord[], { dropsRows, amendment }: { readonly dropsRows: boolean; readonly amendment: TableAmendment }): Promise<void> {
    await this.#database.transaction(async (session) => {
      await checkFence(session, fence, null)
      await writeAmendment(session, fence, amendment)
      for (const table of tables) {
        const left = table.state === 'removed' ? table : await leaveTable(session, fence, table)
        if (!dropsRows) continue
        await forgetTable(session, fence, table.oid)
        const others = (await readPipeline(session, fence))?.tables ?? []
        // Another table may have its name by now.
        if (!others.some(({ target }) => isSameName(target, table.target))) await dropTables(session, table.target, left)
      }
    })
  }

  async removeTable(fence: Fence, table: TableRecord, departure: Departure | null): Promise<TableRecord> {
    return this.#database.transaction(async (session) => {
      await checkFence(session, fence, null)
      return leaveTable(session, fence, departure === null ? table : { ...table, departure })
    })
  }

  async renameTables(fence: Fence, renamings: readonly Renaming[]): Promise<readonly TableRecord[]> {
    return this.#database.transaction(async (session) => {
      await checkFence(session, fence, null)
      const { records, refused } = await renameTables(session, fence, renamings)
      return Promise.all([...records.values()].map(async (record) => {
        const refusal = refused.get(record.oid)
        if (refusal === undefined) return record
        const stopped = failedBy(record, refusal)
        await writeTable(session, fence, stopped, false)
        return stopped
      }))
    })
  }

  async foresee(table: TableRecord, change: ForeseenChange): Promise<Foresight> {
    return this.#database.exclusive(async (session) => foresee(session, table, change))
  }

  async prepareCopies(fence: Fence, tables: readonly TableRecord[]): Promise<void> {
    await this.#database.transaction(async (session) => {
      await checkFence(session, fence, null)
      for (const table of tables) {
        if (table.copy === null) throw new RangeError('a copy without a plan')
        if (isBeside(table)) await dropTables(session, table.copy.into, table)
        await createTables(session, table.copy.into, table)
        for (const shape of shapesOf(table, table.copy.into)) await session.run(`DELETE FROM ${quoteTable(shape.table)}`)
      }
      await writeTables(session, fence, tables, true)
    })
  }

  async restartCopy(fence: Fence, table: TableRecord, source: TableSchema): Promise<TableRecord> {
    return this.#database.transaction(async (session) => {
      await checkFence(session, fence, null)
      const columns = targetColumns(source, table.hints, table.columns)
      refuseShape(source, { columns, key: source.key, shaping: table })
      const restarted = await restartCopy(session, table, 'inPlace', { columns, key: source.key, storage: source.storage ?? null })
      await writeTable(session, fence, restarted, true)
      return restarted
    })
  }

  async saveCheckpoint(fence: Fence, appliedLsn: Lsn): Promise<void> {
    await this.#database.transaction(async (session) => {
      await checkFence(session, fence, appliedLsn)
    })
  }

  async checkShapes(key: PipelineKey, reshapings: readonly Reshaping[]): Promise<void> {
    await this.#database.exclusive(async (session) => {
      for (const reshaping of reshapings) await refuseShapes(session, key, reshaping)
    })
  }

  async reshapeTables(fence: Fence, reshapings: readonly Reshaping[]): Promise<readonly TableRecord[]> {
    return this.#database.transaction(async (session) => {
      await checkFence(session, fence, null)
      const records: TableRecord[] = []
      for (const reshaping of reshapings) records.push(await reshapeTable(session, fence, reshaping))
      return records
    })
  }

  async swapCopy(fence: Fence, table: TableRecord): Promise<TableRecord> {
    if (!isBeside(table)) return table
    try {
      return await this.#database.transaction(async (session) => {
        await checkFence(session, fence, null)
        const swapped = await swapShapes(session, table)
        await writeTable(session, fence, swapped, true)
        return swapped
      })
    } catch (error) {
      if (!(error instanceof TableRefused) && (error instanceof DomainError || isTransient(error))) throw error
      // What cannot be put in its place stops that table alone; the rows that readers see stay.
      return this.#database.transaction(async (session) => {
        await checkFence(session, fence, null)
        return failTable(session, fence, table, error instanceof TableRefused ? error.reason : destinationError(error, `cannot put the copy of ${tableKey(table.source)} in the place of its table`))
      })
    }
  }

  async dropPipeline(key: PipelineKey, withTables: boolean): Promise<readonly string[]> {
    const result = await this.#database.transaction(async (session) => {
      const state = await readPipeline(session, key)
      const dropped: string[] = []
      if (withTables) {
        for (const record of state?.tables ?? []) for (const table of await dropAll(session, record)) dropped.push(`table ${tableKey(table)}`)
      }
      for (const table of ['checkpoints', 'chunks']) await session.run(`DELETE FROM _replication.${table} WHERE ${whereIs(key)}`)
      // Rows that stay were ours: a later replication may load into these tables anew.
      if (withTables) await session.run(`DELETE FROM _replication.tables WHERE ${whereIs(key)}`)
      else await session.run(`UPDATE _replication.tables SET state = 'removed' WHERE ${whereIs(key)}`)
      return dropped
    })
    rmSync(this.spoolFolder(key), { recursive: true, force: true })
    return result
  }

  async beginComparison(key: PipelineKey, table: TableRecord): Promise<TableComparison> {
    return Promise.resolve(new DuckDbComparison(this.#database, key, table))
  }

  async close(): Promise<void> {
    await this.#forgetDeferred(() => true)
    this.#release()
  }
}

/** The tables that are replicated, by oid. */
function knownRecords(known: readonly TableRecord[]): ReadonlyMap<number, TableRecord> {
  return new Map(known.flatMap((record) => (record.state === 'removed' ? [] : [[record.oid, record] as const])))
}

function newRecord(registration: TableRegistration): TableRecord {
  const { source, target, writeMode, otherModes, isSoft, hints, hasColumnList, isPartial, mayRepeat, initialState } = registration
  const columns = targetColumns(source, hints)
  refuseNames(source, columns, registration)
  return {
    oid: source.oid,
    source: { schema: source.schema, name: source.name },
    target,
    writeMode,
    ...(otherModes === undefined ? {} : { otherModes }),
    ...(isSoft === undefined ? {} : { isSoft }),
    state: initialState,
    columns,
    key: source.key,
    replicaIdentity: source.replicaIdentity,
    hints,
    hasColumnList,
    isPartial,
    mayRepeat,
    storage: source.storage ?? null,
    copy: null,
    quarantine: null,
    counts: NO_COUNTS,
    error: null,
  }
}

/**
 * Once rows may be missing or come again, that is so until the table is copied. So it is, too, where the publication sends otherwise than it did: the stream
 * is not there yet, and when it is the table is copied again.
 */
function asIncomplete(known: TableRecord, { source, isPartial, mayRepeat }: TableRegistration): TableRecord {
  const isSentOtherwise = known.storage !== null && source.storage !== undefined && comparePublished(known.storage, source.storage) === 'otherwise'
  const now = { isPartial: known.isPartial || isPartial || isSentOtherwise, mayRepeat: known.mayRepeat === true || mayRepeat || isSentOtherwise }
  return known.isPartial === now.isPartial && (known.mayRepeat ?? false) === now.mayRepeat ? known : { ...known, ...now }
}

function shapedAs({ otherModes: _otherModes, isSoft: _isSoft, ...registration }: TableRegistration, shaping: Shaping): TableRegistration {
  return { ...registration, ...shapingIn(shaping) }
}

/** Shapes that an update has ordered stand while the input wants what it wanted then; once it wants the same, the input's word counts again. */
function inOrderedShapes(existing: TableRecord, wanted: TableRegistration): TableRecord {
  const { inputShaping, ...rest } = existing
  if (inputShaping === undefined || !isShapedAs(wanted, existing)) return existing
  return rest
}

/**
 * A table that is replicated already, under an input that may be another one: what can be followed is followed by a fresh copy, what
 * would change the destination table's kind is refused.
 */
function followed(known: TableRecord, wanted: TableRegistration): TableRecord {
  const { source, target, hints, hasColumnList } = wanted
  const existing = inOrderedShapes(asIncomplete(known, wanted), wanted)
  const { inputShaping } = existing
  const registration = inputShaping !== undefined && isShapedAs(wanted, inputShaping) ? shapedAs(wanted, existing) : wanted
  const name = tableKey(source)
  const refuse = (what: string, remedy: string): never => {
    throw new DomainError({ kind: 'InvalidInput', message: `${name}: ${what}`, remedy })
  }
  const START = 'start with the former value, or with "reset": true to load everything anew'
  if (!isShapedAs(registration, existing)) {
    const order = JSON.stringify({ tableNames: [name], writeMode: { [name]: modesOf(registration) }, deleteMode: registration.isSoft === true ? 'soft' : 'hard' })
    refuse(
      `writeMode is ${shapingText(existing)} so far and cannot become ${shapingText(registration)} by a start`,
      existing.xmin !== undefined ? START : `${START}; or start \`replicate\` with the former value and send it the update resyncTables ${order}, which copies it in the other shape beside its rows (cli resync)`,
    )
  }
  // A table that was moved at the source has been followed to where it is; what is left is an input with another datasetName.
  const isMoved = source.schema !== existing.source.schema && existing.target.schema === existing.source.schema && target.schema === source.schema
  if (target.schema !== existing.target.schema && !isMoved) refuse(`it lands in schema ${existing.target.schema} so far and cannot move to ${target.schema}`, START)
  const names = (columns: readonly { readonly name: string }[]) => JSON.stringify(columns.map((column) => column.name).sort())
  const listChanged = (hasColumnList || existing.hasColumnList) && names(source.columns) !== names(existing.columns.filter(({ isDropped }) => !isDropped))
  if (JSON.stringify(hints) === JSON.stringify(existing.hints) && !listChanged) return existing
  const fresh = targetColumns(source, hints)
  refuseNames(source, fresh, registration)
  // Rows that can stay stay: history cannot be copied anew, and a table that has stopped goes on where it stopped.
  const isReadable = existing.quarantine !== null || (keepsPast(existing) && existing.state === 'streaming')
  const kept = isReadable && !listChanged ? rehinted(existing, hints) : null
  if (kept !== null) return { ...existing, columns: kept, hints }
  const copy = { ...unplannedCopy({ generation: nextGeneration(existing), into: reloadName(existing.target) }), ...replacingOf(existing) }
  const columns = keepsPast(existing) ? carriedColumns(existing.columns, fresh, existing) : fresh
  return { ...existing, columns, key: source.key, hints, hasColumnList, state: 'pending', error: null, copy, quarantine: null }
}

/** Contract §5: a source column with the very name of one that we add, and hints for columns that are not there. */
function refuseNames(source: TableSchema, columns: readonly TargetColumn[], registration: TableRegistration): void {
  const { hints } = registration
  refuseShape(source, { columns, key: source.key, shaping: registration })
  for (const name of Object.keys(hints)) {
    if (columns.some((column) => column.name === name)) continue
    throw new DomainError({
      kind: 'InvalidInput',
      message: `columns: ${tableKey(source)} has no replicated column ${JSON.stringify(name)}`,
      remedy: `its columns are ${columns.map((column) => column.name).join(', ')}`,
    })
  }
}
