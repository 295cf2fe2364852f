import type { TableRecord } from '../model/destination.ts'
import type { TableSchema, TableStorage } from '../model/table-schema.ts'

/**
 * Were the rows of a table rewritten, or did some come or go, without the stream saying so?
 *
 * - A table whose file is another **and** one of whose columns was defined anew: ALTER TABLE has written new values. The file alone:
 *   VACUUM FULL, CLUSTER, another tablespace (nothing changed), or TRUNCATE (which is sent).
 * - A table that was UNLOGGED for a while, and written to, got another file and another TOAST table when it became LOGGED again. Where it has none, see {@link isSuspect}.
 * - An enumeration's label that was renamed, or an attribute that a composite type got or lost, shows in every row that has it.
 * - A type that is new to the table and has been changed since: rows may have come in between, as its values were shown then.
 * - A partition tree whose members are others, or were for a while: rows went with a partition that was dropped or detached, or came with one that was attached. The
 *   file of a partition alone may be VACUUM FULL, but also a TRUNCATE of that partition, which is **not** sent: taken for the worse.
 */
export function isRewritten(before: TableStorage, now: TableStorage): boolean {
  const isRelabelled = Object.entries(now.labels).some(([label, text]) => before.labels[label] !== undefined && before.labels[label] !== text)
  if (isRelabelled || isShownOtherwise(before, now)) return true
  const isFileNew = hasOtherFile(before, now)
  const isJoinedAnew = Object.entries(before.joined ?? {}).some(([oid, writer]) => now.joined?.[oid] !== undefined && now.joined[oid] !== writer)
  if (now.isPartitioned) return isFileNew || isJoinedAnew || now.attached.some((oid) => before.files[String(oid)] === undefined)
  const isDefinedAnew = Object.entries(now.columns).some(([attributeNumber, writer]) => before.columns[attributeNumber] !== writer)
  return isFileNew && (isDefinedAnew || (compareToast(before, now) === 'other' && couldBeUnlogged(before, now)))
}

function isShownOtherwise(before: TableStorage, now: TableStorage): boolean {
  const { horizon, shown: known } = before
  if (horizon === undefined || known === undefined) return false
  const oldest = Number(BigInt(horizon) % 2n ** 32n)
  // Transactions are 32 bits there, and those before 3 are older than all.
  const isSince = (xid: string): boolean => Number(xid) > 2 && (Number(xid) - oldest) >>> 0 < 2 ** 31
  return Object.entries(now.shown ?? {}).some(([type, writers]) => known[type] === undefined && writers !== '' && writers.split(',').some(isSince))
}

/**
 * May the table have been UNLOGGED for a while, and only its rows can tell? It has another file and no TOAST table; so it is after VACUUM FULL and TRUNCATE, too. Rows that are older
 * than `before.horizon` tell that it was not: SET LOGGED writes all of them anew.
 */
export function isSuspect(before: TableStorage, now: TableStorage): boolean {
  const isUntold = before.horizon !== undefined && !now.isPartitioned && compareToast(before, now) === 'untold'
  return isUntold && hasOtherFile(before, now) && couldBeUnlogged(before, now) && !isRewritten(before, now)
}

/** Is one of the files that were there another one now, or gone? */
export function hasOtherFile(before: TableStorage, now: TableStorage): boolean {
  return Object.entries(before.files).some(([oid, file]) => now.files[oid] !== file)
}

/** `untold`: there is none, then or now, as no value can be long. */
function compareToast(before: TableStorage, now: TableStorage): 'kept' | 'other' | 'untold' {
  if ((before.toast ?? 0) === 0 || (now.toast ?? 0) === 0) return 'untold'
  return before.toast === now.toast ? 'kept' : 'other'
}

function couldBeUnlogged(before: TableStorage, now: TableStorage): boolean {
  return before.published?.isListed === false || now.published?.isListed === false
}

/**
 * Is a column there that was generated until now, and left out by the publication? No message tells what rows have in it that came before, nor does the catalog: there it looks
 * like a new column without a value for them.
 */
export function hasUnsentValues({ columns, storage, hasColumnList }: Pick<TableRecord, 'columns' | 'storage' | 'hasColumnList'>, now: TableStorage): boolean {
  const isUnsent = (attributeNumber: number): boolean => !columns.some((column) => column.attributeNumber === attributeNumber)
  const isPlain = (attributeNumber: number): boolean => now.columns[attributeNumber] !== undefined && now.generated?.includes(attributeNumber) === false
  return !hasColumnList && (storage?.generated ?? []).some((attributeNumber) => isPlain(attributeNumber) && isUnsent(attributeNumber))
}

/**
 * Is the primary key another one, or gone, where the stream does not say so? Under FULL every column is marked as the identity's; rows told apart by a
 * key that is none any more would be taken for each other.
 */
export function hasOtherKey(before: TableStorage, now: TableStorage): boolean {
  return now.hasFullIdentity === true && before.primaryKey !== undefined && before.primaryKey !== now.primaryKey
}

/**
 * Does the publication send of a table what it sent, and has it ever since? `otherwise`: other operations or rows, or it did not send the table for a while.
 * `altered`: its row was written anew and says the same; between, it may have said something else.
 */
export function comparePublished(before: TableStorage, now: TableStorage): 'same' | 'altered' | 'otherwise' {
  const was = before.published
  const is = now.published
  if (was === undefined || is === undefined) return 'same'
  const isSchemaLeft = was.schemaEntry != null && is.schemaEntry != null && was.schemaEntry !== is.schemaEntry
  const hasStayed = was.publication === is.publication && !isSchemaLeft && was.memberships.every((oid) => is.memberships.includes(oid))
  if (!hasStayed || was.hasRowFilter !== is.hasRowFilter || was.operations.join() !== is.operations.join()) return 'otherwise'
  return was.version === is.version ? 'same' : 'altered'
}

/** Is the publication that sends tables another one than it was, under whatever name? `untold`: nothing was noted of it. */
export function comparePublications(before: readonly Pick<TableRecord, 'oid' | 'storage'>[], now: readonly Pick<TableSchema, 'oid' | 'storage'>[]): 'same' | 'other' | 'untold' {
  const isSame = before.flatMap(({ oid, storage }) => {
    const was = storage?.published
    const is = now.find((table) => table.oid === oid)?.storage?.published
    return was === undefined || is === undefined ? [] : [is.publication === was.publication]
  })
  return isSame.length === 0 ? 'untold' : isSame.includes(false) ? 'other' : 'same'
}

/** Nothing to note? */
export function isSameStorage(a: TableStorage, b: TableStorage): boolean {
  if (JSON.stringify(a.published) !== JSON.stringify(b.published)) return false
  if (JSON.stringify([a.joined, a.generated, a.gone, a.shown]) !== JSON.stringify([b.joined, b.generated, b.gone, b.shown])) return false
  return a.toast === b.toast && a.primaryKey === b.primaryKey && a.hasFullIdentity === b.hasFullIdentity && isSameMap(a.files, b.files) && isSameMap(a.columns, b.columns) && isSameMap(a.labels, b.labels)
}

function isSameMap(a: Readonly<Record<string, unknown>>, b: Readonly<Record<string, unknown>>): boolean {
  const keys = Object.keys(a)
  return keys.length === Object.keys(b).length && keys.every((key) => a[key] === b[key])
}
