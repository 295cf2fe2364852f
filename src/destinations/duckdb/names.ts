import type { PipelineKey, TableNames, TableRecord } from '../../model/destination.ts'
import { asThere, isBeside, pipelineName, shapingThere, XMIN_PIPELINE } from '../../model/destination.ts'
import { DomainError } from '../../model/errors.ts'
import { remedyText } from '../../model/remedy.ts'
import { keepsPast, shapesOf, type Shaping } from '../../model/shapes.ts'
import { reloadName, tableKey, type TableName } from '../../model/table-schema.ts'
import { createAsOf, dropAsOf } from './as-of.ts'
import { forgetTable, readPipeline, writeTable } from './checkpoint.ts'
import type { DatabaseSession } from './database.ts'
import { dropAll, dropTables, hasTable, moveTable } from './ddl.ts'
import { NamesThere } from './names-there.ts'
import { quoteTable, quoteText } from './sql.ts'

/** A table that is to be called otherwise. */
export interface Renaming {
  readonly record: TableRecord
  readonly names: TableNames
}

/** What came of it: records of all tables that were touched, and why some cannot have their names. */
export interface Renamed {
  readonly records: ReadonlyMap<number, TableRecord>
  readonly refused: ReadonlyMap<number, DomainError>
}

/**
 * Gives tables other names, all at once, so that names may go round in a circle. Comes before anything else in its transaction: DuckDB 1.5.5
 * cannot replay from its WAL a transaction that renames a table which it has deleted rows from before ("GetDefaultDatabase with no
 * default database set"), so that after a kill the file could not be opened any more. Inside one transaction nobody sees the order.
 */
export async function renameTables(session: DatabaseSession, key: PipelineKey, renamings: readonly Renaming[]): Promise<Renamed> {
  const refused = new Map<number, DomainError>()
  const records = new Map<number, TableRecord>()
  // Written at once: who has a name is asked of what is written.
  const note = async (record: TableRecord): Promise<void> => {
    records.set(record.oid, record)
    await writeTable(session, key, record, false)
  }
  const isMoving = renamings.filter(({ record, names }) => tableKey(record.target) !== tableKey(names.target))
  // Out of each other's way first: a swap has both names taken.
  for (const { record } of isMoving) {
    if (!isMoving.some(({ names }) => isSameName(names.target, record.target))) continue
    await note(await moved(session, record, asideName(record)))
  }
  for (const { record, names } of renamings) {
    const present = named(records.get(record.oid) ?? record, names.source)
    await note(present)
    if (tableKey(present.target) === tableKey(names.target)) continue
    const known = (await readPipeline(session, key))?.tables ?? []
    const twin = twinRefusal(present, known)
    const holders = known.filter(({ oid, target }) => oid !== present.oid && isSameName(target, names.target))
    if (twin === null) for (const other of await giveWay(session, key, holders)) await note(other)
    // While it is copied into other shapes, the former ones go along, and the new ones will.
    const claim = { target: names.target, use: 'give' } as const
    const refusal = twin ?? (await foreignTarget(session, key, { ...claim, shaping: present })) ?? (await foreignTarget(session, key, { ...claim, shaping: shapingThere(present) }))
    if (refusal === null) await note(await moved(session, present, names.target))
    else refused.set(record.oid, refusal)
  }
  return { records, refused }
}

/**
 * Those of this pipeline that have a name which another is to have give way: rows of a table that is gone are dropped, but an `append` history is kept under
 * another name; a table that is there still waits under another name for its own news.
 */
async function giveWay(session: DatabaseSession, key: PipelineKey, holders: readonly TableRecord[]): Promise<readonly TableRecord[]> {
  const displaced: TableRecord[] = []
  for (const holder of holders) {
    if (isDisposable(holder)) {
      await dropAll(session, holder)
      await forgetTable(session, key, holder.oid)
    } else {
      displaced.push(await moved(session, holder, asideName(holder)))
    }
  }
  return displaced
}

/**
 * Why a table cannot have its name beside another of ours whose name at the source differs from it in case alone. That one has no other name that we have not heard of: it
 * was looked up where they met.
 */
export function twinRefusal(claimant: Pick<TableRecord, 'oid' | 'source'>, others: readonly TableRecord[]): DomainError | null {
  const key = tableKey(claimant.source)
  const folded = key.toLowerCase()
  const twin = others.find(({ oid, source, state }) => {
    const other = tableKey(source)
    return oid !== claimant.oid && state !== 'removed' && other !== key && other.toLowerCase() === folded
  })
  if (twin === undefined) return null
  return new DomainError({
    kind: 'InvalidInput',
    message: `${tableKey(claimant.source)} and ${tableKey(twin.source)} differ only in case, and the destination does not tell such names apart`,
    remedy: 'rename one of them at the source, or replicate one of them with a slot and datasetName of its own',
  })
}

/** So many former names are remembered. */
const FORMER_NAMES = 10

function named(record: TableRecord, source: TableName): TableRecord {
  if (tableKey(record.source) === tableKey(source)) return record
  const former = [record.source, ...(record.formerNames ?? [])].filter((name) => tableKey(name) !== tableKey(source))
  return { ...record, source, formerNames: former.slice(0, FORMER_NAMES) }
}

/** Are its rows of no account once another table has its name? */
export function isDisposable(record: TableRecord): boolean {
  return record.state === 'removed' && !keepsPast(record)
}

/** Where a table waits, or its history stays, when another has its name. */
export function asideName({ target, oid, state }: TableRecord): TableName {
  return { schema: target.schema, name: `${target.name}__${state === 'removed' ? 'removed' : 'renamed'}_${String(oid)}` }
}

/** The table under another name, with its other shapes and what is being copied beside it. */
export async function moved(session: DatabaseSession, record: TableRecord, target: TableName): Promise<TableRecord> {
  const there = { ...record, ...shapingThere(record) }
  await dropAsOf(session, there, record.target)
  await moveShapes(session, there, record.target, target)
  await createAsOf(session, there, target)
  const { copy } = record
  if (copy === null) return { ...record, target }
  if (tableKey(copy.into) === tableKey(record.target)) return { ...record, target, copy: { ...copy, into: target } }
  const into = reloadName(target)
  await moveShapes(session, record, copy.into, into)
  return { ...record, target, copy: { ...copy, into } }
}

async function moveShapes(session: DatabaseSession, record: TableRecord, from: TableName, to: TableName): Promise<void> {
  const names = shapesOf(record, to)
  for (const [index, { table }] of shapesOf(record, from).entries()) {
    const name = names[index]?.table
    if (name !== undefined && (await hasTable(session, table))) await moveTable(session, table, name)
  }
}

/**
 * The table has left: its rows stay. Where another table of ours has its source's name by now they go, and the record with them; an `append`
 * history stays aside.
 */
export async function leaveTable(session: DatabaseSession, key: PipelineKey, record: TableRecord): Promise<TableRecord> {
  if (record.copy !== null && isBeside(record)) await dropTables(session, record.copy.into, record)
  const left: TableRecord = { ...asThere(record), state: 'removed', copy: null, quarantine: null, error: null }
  const others = ((await readPipeline(session, key))?.tables ?? []).filter(({ oid }) => oid !== record.oid)
  const hasSuccessor = others.some(({ state, source }) => state !== 'removed' && tableKey(source) === tableKey(record.source))
  if (!hasSuccessor || !isDisposable(left)) {
    await writeTable(session, key, left, true)
    return left
  }
  if (!others.some(({ target }) => isSameName(target, record.target))) await dropTables(session, record.target, left)
  await forgetTable(session, key, record.oid)
  return left
}

/**
 * A name of the destination, and what it is wanted for: to fill a table from nothing (one that some replication has filled, and writes no
 * more, may go), to go on with the rows that are there, or to give it to a table that has rows (nothing may be there).
 */
export interface TargetClaim {
  readonly target: TableName
  /** What the shapes are, each of which has a name. */
  readonly shaping: Shaping
  readonly use: 'fill' | 'goOn' | 'give'
}

const OWN_DATASET = 'give this replication a datasetName of its own'
const HAND_OVER = `${OWN_DATASET}; or, to have this one fill the table from now on, end the schedule of syncByXmin that reads it and say so at the destination, while no workflow uses it:`

function releaseSql({ schema, name }: TableName): string {
  return `UPDATE _replication.tables SET state = 'removed' WHERE target_schema = ${quoteText(schema)} AND target_table = ${quoteText(name)} AND slot_name = ${quoteText(XMIN_PIPELINE)}`
}

/** Names that tables have while they are copied or rewritten: a table of yours would be taken for one of them. */
const OUR_NAMES = /__(?:replication_copy|rewritten)$/i

/**
 * Names that no table can have here. Of a schema named like the DuckDB database (its file's name) or one of DuckDB's own, DuckDB does not tell whether
 * the one or the other is meant.
 */
function reservedName(database: string, target: TableName): DomainError | null {
  const taken = [database, 'temp', 'system', 'information_schema', 'pg_catalog', '_replication'].find((name) => name.toLowerCase() === target.schema.toLowerCase())
  if (taken !== undefined) {
    return new DomainError({
      kind: 'InvalidInput',
      message: `${tableKey(target)} would land in schema ${JSON.stringify(target.schema)}, and ${taken === database ? 'the DuckDB database itself' : 'one of the destination’s own'} has that name`,
      remedy: taken === database ? 'give this replication a datasetName, or the DuckDB file another name' : 'give this replication a datasetName',
    })
  }
  if (!OUR_NAMES.test(target.name)) return null
  return new DomainError({
    kind: 'InvalidInput',
    message: `${tableKey(target)} has the name of a table that is being copied or rewritten`,
    remedy: 'rename it at the source, or leave it out: name the other tables in tableNames',
  })
}

/** Why names of the destination cannot be taken: they are reserved, another table of ours or of another pipeline has one of them, or it is there and is not ours to replace. */
export async function foreignTarget(session: DatabaseSession, key: PipelineKey, claim: TargetClaim): Promise<DomainError | null> {
  return foreignAmong(await NamesThere.read(session), key, claim)
}

/** As {@link foreignTarget}, by what was read. */
export function foreignAmong(there: NamesThere, key: PipelineKey, claim: TargetClaim): DomainError | null {
  for (const { table } of shapesOf(claim.shaping, claim.target)) {
    const refusal = foreignName(there, key, table, claim)
    if (refusal !== null) return refusal
  }
  return null
}

function foreignName(there: NamesThere, key: PipelineKey, target: TableName, { use, target: claimed }: TargetClaim): DomainError | null {
  const reserved = reservedName(there.databaseName, target)
  if (reserved !== null) return reserved
  const holders = there.holdersOf(target)
  const owner = holders.find(({ pipeline, state }) => state !== 'removed' && (pipeline.source !== key.source || pipeline.slotName !== key.slotName))
  if (owner !== undefined) {
    return new DomainError({
      kind: 'InvalidInput',
      message: `destination table ${tableKey(target)} is fed by ${pipelineName(owner.pipeline)} already`,
      remedy: owner.pipeline.slotName === XMIN_PIPELINE ? remedyText(HAND_OVER, [releaseSql(owner.target)]) : `${OWN_DATASET}; or end that one: dropReplication with slotName ${owner.pipeline.slotName}, its publicationName, and confirm ${owner.pipeline.slotName}`,
    })
  }
  // Who has the claimed name itself gives way with all its shapes; any other has this name as long as it has its own.
  const shape = holders.find(({ state, target: first }) => state !== 'removed' && !isSameName(first, claimed))
  if (shape !== undefined) {
    return new DomainError({
      kind: 'InvalidInput',
      message: `destination table ${tableKey(target)} is wanted for two tables: it holds a shape of ${tableKey(shape.source)}`,
      remedy: 'give that table a single writeMode, or replicate one of the two with a datasetName and slot of its own',
    })
  }
  const mayStay = use === 'goOn' || (use === 'fill' && holders.length > 0)
  if (mayStay || !there.hasTable(target)) return null
  return new DomainError({
    kind: 'InvalidInput',
    message: `the destination has a table ${tableKey(target)} that no replication has filled`,
    remedy: remedyText('give this replication a datasetName of its own, or rename or drop that table there:', [`DROP TABLE ${quoteTable(target)}`]),
  })
}

/** DuckDB's names do not differ by case alone. */
export function isSameName(a: TableName, b: TableName): boolean {
  return tableKey(a).toLowerCase() === tableKey(b).toLowerCase()
}
