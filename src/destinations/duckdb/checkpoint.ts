import { randomUUID } from 'node:crypto'
import type { ChunkRecord, CopyRecord, Fence, PipelineKey, PipelineState, QuarantineRecord, TableAmendment, TableRecord } from '../../model/destination.ts'
import { pipelineName } from '../../model/destination.ts'
import { DomainError } from '../../model/errors.ts'
import { toLsn, type Lsn } from '../../model/lsn.ts'
import { type Shaping, shapesOf } from '../../model/shapes.ts'
import type { SourceIdentity } from '../../model/source.ts'
import type { TableName } from '../../model/table-schema.ts'
import type { DatabaseSession } from './database.ts'
import { quoteText } from './sql.ts'

/**
 * Schema `_replication`: the destination's own memory. No indexes and no constraints: they would be checked eagerly inside one
 * transaction; the single writer keeps them true.
 *
 * - `destination`: one row, the random id noted at the sources;
 * - `checkpoints`: one row a pipeline: owner, epoch (the fence), source identity, applied position, what updates changed of its tables;
 * - `tables`: one row a replicated table: state and counts for people, `definition` (JSON) for us;
 * - `chunks`: the key ranges of a copy that the stream has not passed yet.
 */
const SCHEMA = `
CREATE SCHEMA IF NOT EXISTS _replication;
CREATE TABLE IF NOT EXISTS _replication.destination (id VARCHAR, created_at TIMESTAMPTZ);
CREATE TABLE IF NOT EXISTS _replication.checkpoints (source VARCHAR, slot_name VARCHAR, publication_name VARCHAR, owner VARCHAR,
  epoch BIGINT, identity JSON, applied_lsn UBIGINT, updated_at TIMESTAMPTZ, amendment JSON);
CREATE TABLE IF NOT EXISTS _replication.tables (source VARCHAR, slot_name VARCHAR, oid BIGINT, source_schema VARCHAR, source_table VARCHAR,
  target_schema VARCHAR, target_table VARCHAR, write_mode VARCHAR, state VARCHAR, snapshot_rows BIGINT, inserts BIGINT, updates BIGINT,
  deletes BIGINT, truncates BIGINT, last_commit_lsn VARCHAR, error JSON, definition JSON);
CREATE TABLE IF NOT EXISTS _replication.chunks (source VARCHAR, slot_name VARCHAR, oid BIGINT, index BIGINT, lower JSON, upper JSON,
  snapshot VARCHAR, snapshot_lsn VARCHAR);
`

/** Creates what is missing and returns the destination's id. */
export async function prepareSchema(session: DatabaseSession): Promise<string> {
  await session.run(SCHEMA)
  // A file of an earlier version.
  const [known] = await session.rows(
    "SELECT 1 FROM duckdb_columns() WHERE database_name = current_database() AND schema_name = '_replication' AND table_name = 'checkpoints' AND column_name = 'amendment'",
  )
  if (known === undefined) await session.run('ALTER TABLE _replication.checkpoints ADD COLUMN amendment JSON')
  const [row] = await session.rows('SELECT id FROM _replication.destination')
  if (typeof row?.[0] === 'string') return row[0]
  const id = randomUUID()
  await session.run(`INSERT INTO _replication.destination VALUES (${quoteText(id)}, now())`)
  return id
}

export function whereIs(key: PipelineKey): string {
  return `source = ${quoteText(key.source)} AND slot_name = ${quoteText(key.slotName)}`
}

/** Reads everything stored for a pipeline. */
export async function readPipeline(session: DatabaseSession, key: PipelineKey): Promise<PipelineState | null> {
  const [row] = await session.rows(
    `SELECT owner, epoch::VARCHAR, identity::VARCHAR, publication_name, applied_lsn::VARCHAR, amendment::VARCHAR FROM _replication.checkpoints WHERE ${whereIs(key)}`,
  )
  if (row === undefined) return null
  const [owner, epoch, identity, publicationName, appliedLsn, amendment] = row as (string | null)[]
  return {
    key,
    owner: owner ?? null,
    epoch: Number(epoch),
    identity: identity == null ? null : (JSON.parse(identity) as SourceIdentity),
    publicationName: publicationName ?? null,
    appliedLsn: appliedLsn == null ? null : toLsn(BigInt(appliedLsn)),
    tables: await readTables(session, key),
    amendment: amendment == null ? null : (JSON.parse(amendment) as TableAmendment),
  }
}

export async function writeAmendment(session: DatabaseSession, key: PipelineKey, amendment: TableAmendment | null): Promise<void> {
  await session.run(`UPDATE _replication.checkpoints SET amendment = ${nullable(amendment === null ? null : JSON.stringify(amendment))} WHERE ${whereIs(key)}`)
}

type Definition = Omit<TableRecord, 'state' | 'counts' | 'error' | 'copy' | 'quarantine' | 'storage'> & {
  readonly copy: Omit<CopyRecord, 'chunks'> | null
  readonly quarantine?: QuarantineRecord | null
  readonly storage?: TableRecord['storage']
}

async function readTables(session: DatabaseSession, key: PipelineKey): Promise<readonly TableRecord[]> {
  const rows = await session.rows(
    `SELECT definition::VARCHAR, state, snapshot_rows::VARCHAR, inserts::VARCHAR, updates::VARCHAR, deletes::VARCHAR, truncates::VARCHAR,
       last_commit_lsn, error::VARCHAR FROM _replication.tables WHERE ${whereIs(key)} ORDER BY source_schema, source_table, state <> 'removed'`,
  )
  const chunks = await readChunks(session, key)
  return rows.map((row) => {
    const [definitionText, state, snapshotRows, inserts, updates, deletes, truncates, lastCommitLsn, error] = row as (string | null)[]
    const definition = JSON.parse(definitionText ?? '{}') as Definition
    return {
      ...definition,
      // Written before there were any.
      quarantine: definition.quarantine ?? null,
      storage: definition.storage ?? null,
      state: state as TableRecord['state'],
      copy: definition.copy === null ? null : { ...definition.copy, chunks: chunks.get(definition.oid) ?? [] },
      counts: {
        snapshotRows: Number(snapshotRows),
        inserts: Number(inserts),
        updates: Number(updates),
        deletes: Number(deletes),
        truncates: Number(truncates),
        lastCommitLsn: lastCommitLsn ?? null,
      },
      error: error == null ? null : (JSON.parse(error) as TableRecord['error']),
    }
  })
}

/** A table of the destination that some pipeline fills, or has filled. */
export interface TakenName {
  readonly name: TableName
  /** The first shape's name. */
  readonly target: TableName
  readonly source: TableName
  readonly state: string
  readonly pipeline: PipelineKey
}

/** All names that pipelines have at the destination. */
export async function namesTaken(session: DatabaseSession): Promise<readonly TakenName[]> {
  const rows = await session.rows('SELECT source, slot_name, state, definition::VARCHAR FROM _replication.tables')
  return (rows as readonly (readonly [string, string, string, string])[]).flatMap(([source, slotName, state, definitionText]) => {
    const definition = JSON.parse(definitionText) as Definition
    return namesOf({ ...definition, state }, { source, slotName })
  })
}

/** The names of one table. */
export function namesOf(table: Shaping & { readonly target: TableName; readonly source: TableName; readonly state: string; readonly copy: Pick<CopyRecord, 'former'> | null }, pipeline: PipelineKey): readonly TakenName[] {
  const { target, source, state, copy } = table
  const former = copy?.former
  // Until the swap the former shapes stand there, and then some of them elsewhere.
  const names = [...shapesOf(table, target), ...(former === undefined ? [] : [...shapesOf(former, target), ...shapesOf(former, former.keptAs)])]
  return names.map(({ table: name }) => ({ name, target, source, state, pipeline }))
}

async function readChunks(session: DatabaseSession, key: PipelineKey): Promise<ReadonlyMap<number, readonly ChunkRecord[]>> {
  const rows = await session.rows(
    `SELECT oid::VARCHAR, lower::VARCHAR, upper::VARCHAR, snapshot, snapshot_lsn FROM _replication.chunks WHERE ${whereIs(key)} ORDER BY oid, index`,
  )
  const byTable = new Map<number, ChunkRecord[]>()
  for (const row of rows) {
    const [oid, lower, upper, snapshot, lsn] = row as (string | null)[]
    const list = byTable.get(Number(oid)) ?? []
    list.push({
      lower: lower == null ? null : (JSON.parse(lower) as string[]),
      upper: upper == null ? null : (JSON.parse(upper) as string[]),
      done: snapshot == null || lsn == null ? null : { snapshot, lsn },
    })
    byTable.set(Number(oid), list)
  }
  return byTable
}

/** Replaces a table's row. With `withChunks` its chunks too. */
export async function writeTable(session: DatabaseSession, key: PipelineKey, record: TableRecord, withChunks: boolean): Promise<void> {
  await writeTables(session, key, [record], withChunks)
}

/** Replaces the rows of tables, see {@link writeTable}: a statement of its own for each costs as much as a small table's rows. */
export async function writeTables(session: DatabaseSession, key: PipelineKey, records: readonly TableRecord[], withChunks: boolean): Promise<void> {
  if (records.length === 0) return
  const oids = records.map(({ oid }) => String(oid)).join(', ')
  await session.run(
    `DELETE FROM _replication.tables WHERE ${whereIs(key)} AND oid IN (${oids}); INSERT INTO _replication.tables VALUES ${records.map((record) => tableRow(key, record)).join(', ')}`,
  )
  if (!withChunks) return
  await session.run(`DELETE FROM _replication.chunks WHERE ${whereIs(key)} AND oid IN (${oids})`)
  const rows = records.flatMap((record) => chunkRows(key, record))
  if (rows.length > 0) await session.run(`INSERT INTO _replication.chunks VALUES ${rows.join(', ')}`)
}

function tableRow(key: PipelineKey, record: TableRecord): string {
  const { state, counts, error, copy, ...rest } = record
  const definition: Definition = {
    ...rest,
    copy: copy === null ? null : withoutChunks(copy),
  }
  const values = [
    quoteText(key.source),
    quoteText(key.slotName),
    String(record.oid),
    quoteText(record.source.schema),
    quoteText(record.source.name),
    quoteText(record.target.schema),
    quoteText(record.target.name),
    quoteText(record.writeMode),
    quoteText(state),
    ...[counts.snapshotRows, counts.inserts, counts.updates, counts.deletes, counts.truncates].map(String),
    nullable(counts.lastCommitLsn),
    nullable(error === null ? null : JSON.stringify(error)),
    quoteText(JSON.stringify(definition)),
  ]
  return `(${values.join(', ')})`
}

function withoutChunks({ chunks: _, ...copy }: CopyRecord): Omit<CopyRecord, 'chunks'> {
  return copy
}

/** Forgets a table; what it is called at the destination is left as it is. */
export async function forgetTable(session: DatabaseSession, key: PipelineKey, oid: number): Promise<void> {
  for (const table of ['tables', 'chunks']) await session.run(`DELETE FROM _replication.${table} WHERE ${whereIs(key)} AND oid = ${String(oid)}`)
}

function chunkRows(key: PipelineKey, record: TableRecord): readonly string[] {
  return (record.copy?.chunks ?? []).map(({ lower, upper, done }, index) => {
    const bounds = [lower, upper].map((bound) => nullable(bound === null ? null : JSON.stringify(bound)))
    return `(${[quoteText(key.source), quoteText(key.slotName), String(record.oid), String(index), ...bounds, nullable(done?.snapshot ?? null), nullable(done?.lsn ?? null)].join(', ')})`
  })
}

/** Only the counts of a batch: what most commits write. */
export async function writeCounts(session: DatabaseSession, key: PipelineKey, records: readonly TableRecord[]): Promise<void> {
  for (const { oid, counts } of records) {
    await session.run(
      `UPDATE _replication.tables SET snapshot_rows = ${String(counts.snapshotRows)}, inserts = ${String(counts.inserts)}, updates = ${String(counts.updates)},
         deletes = ${String(counts.deletes)}, truncates = ${String(counts.truncates)}, last_commit_lsn = ${nullable(counts.lastCommitLsn)}
       WHERE ${whereIs(key)} AND oid = ${String(oid)}`,
    )
  }
}

/** A chunk that has been copied. */
export interface DoneChunk {
  readonly oid: number
  readonly index: number
  readonly snapshot: string
  readonly lsn: string
}

/** Marks chunks as copied. */
export async function writeChunksDone(session: DatabaseSession, key: PipelineKey, chunks: readonly DoneChunk[]): Promise<void> {
  if (chunks.length === 0) return
  const rows = chunks.map(({ oid, index, snapshot, lsn }) => `(${String(oid)}, ${String(index)}, ${quoteText(snapshot)}, ${quoteText(lsn)})`)
  await session.run(
    `UPDATE _replication.chunks SET snapshot = done_snapshot, snapshot_lsn = done_lsn
     FROM (VALUES ${rows.join(', ')}) AS done(done_oid, done_index, done_snapshot, done_lsn) WHERE ${whereIs(key)} AND oid = done_oid AND index = done_index`,
  )
}

/**
 * Compare-and-set of the fence, in the transaction of the rows: a zombie attempt of an earlier epoch writes nothing.
 * Throws `AlreadyReplicating`.
 */
export async function checkFence(session: DatabaseSession, fence: Fence, appliedLsn: Lsn | null): Promise<void> {
  const position = appliedLsn === null ? '' : `, applied_lsn = greatest(applied_lsn, ${String(appliedLsn)}::UBIGINT)`
  const changed = await session.run(
    `UPDATE _replication.checkpoints SET updated_at = now()${position}
     WHERE ${whereIs(fence)} AND owner = ${quoteText(fence.owner)} AND epoch = ${String(fence.epoch)}`,
  )
  if (changed === 1) return
  throw new DomainError({
    kind: 'AlreadyReplicating',
    message: `${pipelineName(fence)} has been taken over by another run; this one writes nothing more`,
    remedy: 'nothing to do: the newer run goes on from the same checkpoint',
  })
}

function nullable(text: string | null): string {
  return text === null ? 'NULL' : quoteText(text)
}
