import { columnsThere, isBeside, nextGeneration, type PipelineKey, type Reshaping, shapingThere, type TableRecord, unplannedCopy } from '../../model/destination.ts'
import { DomainError } from '../../model/errors.ts'
import { remedyText } from '../../model/remedy.ts'
import { hasHistory, isShapedAs, keepsPast, kindsOf, shapesOf, shapingIn, shapingText, type Shaping } from '../../model/shapes.ts'
import { reloadName, tableKey, type TableName } from '../../model/table-schema.ts'
import { createAsOf, dropAsOf } from './as-of.ts'
import { namesTaken, writeTable } from './checkpoint.ts'
import { refusedShape } from './column-names.ts'
import type { DatabaseSession } from './database.ts'
import { dropTable, dropTables, hasTable, moveTable } from './ddl.ts'
import { TableRefused } from './misfits.ts'
import { foreignTarget, isSameName } from './names.ts'
import { quoteTable } from './sql.ts'

/** Why a table cannot be held in these shapes: throws it. */
export async function refuseShapes(session: DatabaseSession, key: PipelineKey, { record, shaping }: Reshaping): Promise<void> {
  const there = record.columns.filter(({ isDropped }) => !isDropped)
  const refused =
    refusedShape(record.source, { columns: there, key: record.key, shaping }) ??
    refusedWayBack(record, shaping) ??
    (await foreignTarget(session, key, { target: record.target, shaping, use: 'fill' })) ??
    (await takenName(session, record, shapesOf(shaping, record.target).map(({ table }) => table)))
  if (refused !== null) throw refused
}

/** The tables of a shape that a running order leaves out are not altered any more: the record's columns are not theirs, and what was dropped there is forgotten. */
function refusedWayBack(record: TableRecord, shaping: Shaping): DomainError | null {
  const { copy } = record
  if (copy?.former === undefined || copy.isReplacing === true) return null
  const [former, present] = [kindsOf(copy.former), kindsOf(record)]
  const back = kindsOf(shaping).filter((kind) => kind !== 'merge' && former.includes(kind) && !present.includes(kind))
  if (back.length === 0) return null
  return new DomainError({
    kind: 'InvalidInput',
    message: `${tableKey(record.source)} is being copied into other shapes (${shapingText(record)}), and cannot come back to the ${back.join(' and ')} that it leaves until they are there`,
    remedy: 'order it once the state of the table is streaming',
  })
}

/** Why shapes cannot have these names: a table is there that is none of the record's, whoever has filled it. */
async function takenName(session: DatabaseSession, record: TableRecord, names: readonly TableName[]): Promise<DomainError | null> {
  const own = shapesOf(shapingThere(record), record.target)
  for (const name of names) {
    if (own.some(({ table }) => isSameName(table, name)) || !(await hasTable(session, name))) continue
    return new DomainError({
      kind: 'InvalidInput',
      message: `the destination has a table ${tableKey(name)} already, and ${tableKey(record.source)} would hold one of its shapes under that name`,
      remedy: remedyText('rename that table at the destination, or drop it:', [`DROP TABLE ${quoteTable(name)}`]),
    })
  }
  return null
}

/** See `reshapeTables` of the destination contract. */
export async function reshapeTable(session: DatabaseSession, key: PipelineKey, reshaping: Reshaping): Promise<TableRecord> {
  await refuseShapes(session, key, reshaping)
  const { record, shaping, inputShaping } = reshaping
  if (isBeside(record) && record.copy !== null) await dropTables(session, record.copy.into, record)
  const reshaped = await reshapedRecord(session, record, shaping)
  const ordered: TableRecord = isShapedAs(shaping, inputShaping) ? reshaped : { ...reshaped, inputShaping }
  await writeTable(session, key, ordered, true)
  return ordered
}

async function reshapedRecord(session: DatabaseSession, record: TableRecord, shaping: Shaping): Promise<TableRecord> {
  const { copy, target } = record
  const { writeMode: _writeMode, otherModes: _otherModes, isSoft: _isSoft, inputShaping: _inputShaping, unknownChanges, ...rest } = record
  // Rows of a first load that has not come to its end are none to keep, nor are another table's.
  const isUnloaded = !isBeside(record) && record.quarantine === null && (copy === null ? record.state === 'pending' : copy.chunks.some(({ done }) => done === null))
  const isReplacing = copy?.isReplacing === true || isUnloaded
  const there = shapingThere(record)
  return {
    ...rest,
    ...shapingIn(shaping),
    // They were in a past that goes.
    ...(unknownChanges === undefined || !keepsPast(shaping) ? {} : { unknownChanges }),
    columns: hasHistory(shaping) ? record.columns : record.columns.filter(({ isDropped }) => !isDropped),
    state: 'pending',
    error: null,
    quarantine: null,
    copy: {
      ...unplannedCopy({ generation: nextGeneration(record), into: reloadName(target) }),
      ...(isReplacing ? { isReplacing } : {}),
      ...(isShapedAs(there, shaping) ? {} : { former: { ...shapingIn(there), columns: columnsThere(record), keptAs: copy?.former?.keptAs ?? (await freeName(session, record)) } }),
    },
  }
}

/** Where shapes stay that are not wanted any more: `orders__former_2`. */
async function freeName(session: DatabaseSession, record: TableRecord): Promise<TableName> {
  const { schema, name } = record.target
  const taken = await namesTaken(session)
  for (let number = nextGeneration(record); ; number++) {
    const base = { schema, name: `${name}__former_${String(number)}` }
    const wanted = shapesOf(shapingThere(record), base).map(({ table }) => table)
    let isFree = !taken.some((other) => wanted.some((table) => isSameName(other.name, table)))
    for (const table of wanted) isFree &&= !(await hasTable(session, table))
    if (isFree) return base
  }
}

/**
 * Before copies take their places: shapes that are wanted as before get the names that they have now, current rows go, as the copy has them, and
 * what holds the past and is not wanted stays under another name. Comes before everything else in its transaction, as `renameTables` does. Throws
 * {@link TableRefused} where somebody else's table has come to one of the names meanwhile.
 */
export async function giveWayToShapes(session: DatabaseSession, record: TableRecord): Promise<void> {
  const { copy, target } = record
  const former = copy?.former
  if (former === undefined) return
  await dropAsOf(session, former, target)
  const wanted = shapesOf(record, target)
  const aside = shapesOf(former, former.keptAs)
  const moves: { readonly from: TableName; readonly to: TableName }[] = []
  for (const [index, { kind, table }] of shapesOf(former, target).entries()) {
    if (!(await hasTable(session, table))) continue
    const to = wanted.find((shape) => shape.kind === kind)?.table ?? aside[index]?.table
    if (kind === 'merge' || copy?.isReplacing === true || to === undefined) await dropTable(session, table)
    else if (tableKey(to) !== tableKey(table)) moves.push({ from: table, to })
  }
  const taken = await takenName(session, record, [...wanted.map(({ table }) => table), ...moves.map(({ to }) => to)])
  if (taken !== null) throw new TableRefused(record.oid, taken)
  // Whoever has the table's own name leaves it first: no two want another name.
  for (const { from, to } of moves.sort((a, b) => Number(isSameName(b.from, target)) - Number(isSameName(a.from, target)))) await moveTable(session, from, to)
  if (!kindsOf(record).includes('scd2') && copy?.isReplacing !== true) await createAsOf(session, { ...record, ...former }, former.keptAs)
}
