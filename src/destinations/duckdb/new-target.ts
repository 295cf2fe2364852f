import { asThere, type PipelineKey, type TableRecord, unplannedCopy } from '../../model/destination.ts'
import { isShapedAs, keepsPast, type Shaping } from '../../model/shapes.ts'
import { reloadName } from '../../model/table-schema.ts'
import { carryShapes } from './carry-shapes.ts'
import { forgetTable, readPipeline, writeTable } from './checkpoint.ts'
import type { DatabaseSession } from './database.ts'
import { createTables, dropTables, hasTable } from './ddl.ts'
import { asideName, foreignTarget, isDisposable, isSameName, moved, twinRefusal, type TargetClaim } from './names.ts'

/** The name that a new table wants, and what for: a first load begins with an empty table, `never` goes on with what is there. */
export function newTarget(record: Pick<TableRecord, 'target' | 'state'> & Shaping): TargetClaim {
  const { target, state } = record
  return { target, shaping: record, use: state === 'pending' ? 'fill' : 'goOn' }
}

/**
 * Makes the table of a new record. Rows of an earlier table of that name stay for readers until the new one is copied whole; an
 * `append` history, and a table that is there still under a name that we have not heard of yet, stand aside.
 */
export async function createTarget(
  session: DatabaseSession,
  key: PipelineKey,
  record: TableRecord,
  gone: ReadonlySet<number>,
): Promise<{ readonly record: TableRecord; readonly displaced: readonly TableRecord[] }> {
  const refusal = await foreignTarget(session, key, newTarget(record))
  if (refusal !== null) throw refusal
  const known = (await readPipeline(session, key))?.tables ?? []
  const twin = twinRefusal(record, known.filter(({ oid }) => !gone.has(oid)))
  if (twin !== null) throw twin
  const displaced: TableRecord[] = []
  let isReplacing = false
  let former: TableRecord | null = null
  for (const holder of known) {
    if (!isSameName(holder.target, record.target)) continue
    const left: TableRecord = gone.has(holder.oid) ? { ...asThere(holder), state: 'removed', departure: 'dropped', quarantine: null } : holder
    if (holder.oid === record.oid && keepsPast(left) && !isShapedAs(left, record)) {
      // It was replicated in other shapes before: what these hold stays.
      await moved(session, left, asideName(left))
      await forgetTable(session, key, holder.oid)
    } else if (holder.oid === record.oid || isDisposable(left)) {
      isReplacing = true
      if (holder.oid === record.oid && keepsPast(record)) former = holder
      await forgetTable(session, key, holder.oid)
      if (holder.oid !== record.oid) displaced.push(left)
    } else {
      const aside = await moved(session, holder, asideName(left))
      await writeTable(session, key, aside, false)
      displaced.push(aside)
    }
  }
  const isBeside = isReplacing && record.state === 'pending' && (await hasTable(session, record.target))
  const copy = unplannedCopy({ generation: 1, into: reloadName(record.target) })
  const made: TableRecord = !isBeside
    ? record
    : former === null
      ? { ...record, copy: { ...copy, isReplacing: true } }
      : { ...record, copy, columns: await carryShapes(session, former, record.columns, 'inPlace') }
  // What stands under its name from another life is not what the source has.
  if (!isBeside && record.state === 'pending') await dropTables(session, record.target, record)
  if (!isBeside) await createTables(session, record.target, record)
  await writeTable(session, key, made, true)
  return { record: made, displaced }
}
