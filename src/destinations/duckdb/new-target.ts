import { asThere, type PipelineKey, type TableRecord, unplannedCopy } from '../../model/destination.ts'
import { isShapedAs, keepsPast, shapesOf, type Shaping } from '../../model/shapes.ts'
import { reloadName } from '../../model/table-schema.ts'
import { carryShapes } from './carry-shapes.ts'
import { forgetTable, readPipeline, writeTable } from './checkpoint.ts'
import type { DatabaseSession } from './database.ts'
import { createTables, dropTables } from './ddl.ts'
import { asideName, foreignAmong, isDisposable, isSameName, moved, twinRefusal, type TargetClaim } from './names.ts'
import { NamesThere } from './names-there.ts'

/** The name that a new table wants, and what for: a first load begins with an empty table, `never` goes on with what is there. */
export function newTarget(record: Pick<TableRecord, 'target' | 'state'> & Shaping): TargetClaim {
  const { target, state } = record
  return { target, shaping: record, use: state === 'pending' ? 'fill' : 'goOn' }
}

/** What is at the destination before a table comes: read once for as many as come to names that nobody has. */
export class Places {
  readonly there: NamesThere
  readonly #known: TableRecord[]

  private constructor(there: NamesThere, known: readonly TableRecord[]) {
    this.there = there
    this.#known = [...known]
  }

  static async read(session: DatabaseSession, key: PipelineKey): Promise<Places> {
    return new Places(await NamesThere.read(session), (await readPipeline(session, key))?.tables ?? [])
  }

  /** All tables of the pipeline. */
  get known(): readonly TableRecord[] {
    return this.#known
  }

  /** A table was made under a name that nobody had. */
  add(record: TableRecord, key: PipelineKey): void {
    this.#known.push(record)
    this.there.add(record, key)
  }
}

/**
 * Makes the table of a new record. Rows of an earlier table of that name stay for readers until the new one is copied whole; an
 * `append` history, and a table that is there still under a name that we have not heard of yet, stand aside. `isAlone`: nobody had its name.
 */
export async function createTarget(
  session: DatabaseSession,
  key: PipelineKey,
  record: TableRecord,
  { places: { there, known }, gone }: { readonly places: Places; readonly gone: ReadonlySet<number> },
): Promise<{ readonly record: TableRecord; readonly displaced: readonly TableRecord[]; readonly isAlone: boolean }> {
  const refusal = foreignAmong(there, key, newTarget(record))
  if (refusal !== null) throw refusal
  const twin = twinRefusal(record, known.filter(({ oid }) => !gone.has(oid)))
  if (twin !== null) throw twin
  const displaced: TableRecord[] = []
  let isReplacing = false
  let former: TableRecord | null = null
  const holders = known.filter(({ target }) => isSameName(target, record.target))
  for (const holder of holders) {
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
  const isBeside = isReplacing && record.state === 'pending' && there.hasTable(record.target)
  const copy = unplannedCopy({ generation: 1, into: reloadName(record.target) })
  const made: TableRecord = !isBeside
    ? record
    : former === null
      ? { ...record, copy: { ...copy, isReplacing: true } }
      : { ...record, copy, columns: await carryShapes(session, former, record.columns, 'inPlace') }
  // What stands under its name from another life is not what the source has.
  const isThere = shapesOf(record, record.target).some(({ table }) => there.hasTable(table))
  if (!isBeside && record.state === 'pending' && isThere) await dropTables(session, record.target, record)
  if (!isBeside) await createTables(session, record.target, record)
  await writeTable(session, key, made, true)
  return { record: made, displaced, isAlone: holders.length === 0 }
}
