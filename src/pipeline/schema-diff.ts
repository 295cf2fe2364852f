import type { RelationColumn } from '../model/change.ts'
import type { AddedColumn, ColumnsChange, TableRecord, TargetColumn } from '../model/destination.ts'
import type { SeenColumn } from '../model/source.ts'
import type { SourceColumn, TableSchema } from '../model/table-schema.ts'

/** What a table is known as: columns and key at the place of the stream that has been reached. */
export interface KnownTable {
  readonly columns: readonly TargetColumn[]
  readonly key: readonly string[]
  /** Numbers of columns that had gone by then: no row that comes has a value of them. */
  readonly gone?: Iterable<number>
}

/**
 * What happened to a table's columns, told by attribute number. `sent` are the Relation message's columns, `catalog` is the table as the
 * catalog has it **now**, which may be later than the message. Null where the two do not fit together (a second change came
 * since): then names alone are not enough to tell a renamed column from a new one. Null, too, where another column looks like a known one: it may
 * have had that name for a while, and its values were taken for the known one's, as no message told them apart. And null where a
 * new column may stand in the catalog for one that had its name when the rows came, and has gone or got another name since: numbers are given in turn, and one is missing.
 */
export function diffColumns(known: KnownTable, sent: readonly RelationColumn[], catalog: TableSchema): ColumnsChange | null {
  const present: SourceColumn[] = []
  for (const column of sent) {
    const found = catalog.columns.find((now) => looksLike(column, now))
    // What a column list leaves out, or the catalog has lost since.
    if (found === undefined) return null
    present.push(found)
  }
  const live = known.columns.filter(({ isDropped }) => !isDropped)
  if (present.some((now) => live.some((column) => looksLike(column, now) && column.attributeNumber !== now.attributeNumber))) return null
  return isOneMissing(present, known, catalog) ? null : changeTo(present, known, catalog)
}

/** Has a column come before the last one that is new, and is not among those that are sent? What is generated may not be. */
function isOneMissing(present: readonly SourceColumn[], known: KnownTable, { storage }: TableSchema): boolean {
  const told = new Set([...known.columns, ...present].map(({ attributeNumber }) => attributeNumber))
  for (const number of [...(known.gone ?? []), ...(storage?.generated ?? [])]) told.add(number)
  const added = present.filter(({ attributeNumber }) => !known.columns.some((column) => column.attributeNumber === attributeNumber && !column.isDropped))
  return added.some(({ attributeNumber: last }) => Array.from({ length: last }, (_, index) => index + 1).some((number) => !told.has(number)))
}

/** What happened to a table's columns so that they are those that are `present`: an attribute number is never another column's. */
export function changeTo(present: readonly SourceColumn[], known: KnownTable, catalog: Pick<TableSchema, 'key' | 'valuesOfOlderRows'>): ColumnsChange {
  const live = known.columns.filter(({ isDropped }) => !isDropped)
  const knownOf = (attributeNumber: number) => live.find((column) => column.attributeNumber === attributeNumber)
  const pairs = present.flatMap((now) => {
    const before = knownOf(now.attributeNumber)
    return before === undefined ? [] : [{ before, now }]
  })
  return {
    dropped: live.filter((column) => !present.some((now) => now.attributeNumber === column.attributeNumber)).map(({ name }) => name),
    renamed: pairs.filter(({ before, now }) => before.name !== now.name).map(({ before, now }) => ({ from: before.name, to: now.name })),
    added: present.filter((now) => knownOf(now.attributeNumber) === undefined).map((now) => ({ ...now, valueOfOlderRows: catalog.valuesOfOlderRows?.[String(now.attributeNumber)] ?? null })),
    retyped: pairs.filter(({ before, now }) => before.typeOid !== now.typeOid || before.typeModifier !== now.typeModifier).map(({ now }) => now),
    key: catalog.key,
  }
}

/**
 * The same by names, for a table whose history must not be replaced (`append`): a column of another name is a new one, and the old one
 * stays, unless it has the old one's number. Types of new names are the catalog's where it still has them.
 */
export function diffByName(known: KnownTable, sent: readonly RelationColumn[], catalog: TableSchema): ColumnsChange {
  const live = known.columns.filter(({ isDropped }) => !isDropped)
  const present = sent.flatMap((column) => catalog.columns.filter(({ name }) => name === column.name))
  const isSent = (name: string): boolean => sent.some((column) => column.name === name)
  const unknown = present.filter((now) => !live.some(({ name }) => name === now.name))
  const formerOf = (now: SourceColumn): TargetColumn | undefined => live.find(({ attributeNumber, name }) => attributeNumber === now.attributeNumber && !isSent(name))
  const renamed = unknown.flatMap((now) => {
    const former = formerOf(now)
    return former === undefined ? [] : [{ from: former.name, to: now.name }]
  })
  const nameAfter = (name: string): string => renamed.find(({ from }) => from === name)?.to ?? name
  return {
    dropped: live.filter(({ name }) => !isSent(nameAfter(name))).map(({ name }) => name),
    renamed,
    added: unknown.filter((now) => formerOf(now) === undefined).map((now) => ({ ...now, valueOfOlderRows: null })),
    retyped: present.filter((now) => live.some(({ name, typeOid, typeModifier }) => nameAfter(name) === now.name && (typeOid !== now.typeOid || typeModifier !== now.typeModifier))),
    key: catalog.key.every((name) => sent.some((column) => column.name === name)) ? catalog.key : known.key,
  }
}

/** The shape of a table, as the source or the replication has it. */
export interface TableShape {
  readonly columns: readonly SeenColumn[]
  readonly key: readonly string[]
}

/** The same columns under the same names, of the same types, and the same key? With a column list others may stand beside them. */
export function hasShape(present: TableShape, known: TableShape, hasColumnList: boolean): boolean {
  return hasColumns(present, known, hasColumnList) && sorted(present.key) === sorted(known.key)
}

/** The same, whatever the key is. */
export function hasColumns(present: Pick<TableShape, 'columns'>, known: Pick<TableShape, 'columns'>, hasColumnList: boolean): boolean {
  const isThere = (column: TableShape['columns'][number]): boolean =>
    present.columns.some((now) => now.attributeNumber === column.attributeNumber && looksLike(column, now))
  const hasMore = present.columns.length > known.columns.length
  return known.columns.every(isThere) && (hasColumnList || !hasMore)
}

function sorted(names: readonly string[]): string {
  return JSON.stringify([...names].sort())
}

/**
 * Are other columns behind the names and types that are known: taken from each other, or dropped and added anew? Then a Relation message says
 * nothing of it.
 */
export function haveOthersTheirNames(known: readonly TargetColumn[], present: readonly SeenColumn[]): boolean {
  const live = known.filter(({ isDropped }) => !isDropped)
  const sameNamed = live.flatMap((column) => present.filter((now) => looksLike(column, now)).map((now) => now.attributeNumber !== column.attributeNumber))
  return sameNamed.length === live.length && sameNamed.some((isOther) => isOther)
}

/** Is there no difference between them in a Relation message? */
function looksLike(a: Omit<SeenColumn, 'attributeNumber'>, b: Omit<SeenColumn, 'attributeNumber'>): boolean {
  return a.name === b.name && a.typeOid === b.typeOid && a.typeModifier === b.typeModifier
}

/** What is replicated of a table as the catalog has it now: with a column list, of its columns those that are known. */
export function replicatedShape(record: Pick<TableRecord, 'columns' | 'hasColumnList'>, catalog: TableSchema): TableSchema {
  if (!record.hasColumnList) return catalog
  return { ...catalog, columns: catalog.columns.filter((column) => record.columns.some(({ attributeNumber }) => attributeNumber === column.attributeNumber)) }
}

/** Is everything as it is known? */
export function isNoChange({ dropped, renamed, added, retyped, key }: ColumnsChange, known: KnownTable): boolean {
  return [dropped, renamed, added, retyped].every(({ length }) => length === 0) && sorted(key) === sorted(known.key)
}

/**
 * Can a table with current rows take the change where it stands, with old rows right? A default that was computed for each row, or another type, changed
 * them without the stream saying how; a type that only allows more does not, where the catalog says that no row was written anew (`isRewritten`). Where rows of
 * the past stay beside them (`keepsPast`), only a fresh copy tells which of them have a default.
 */
export function isInPlace(change: ColumnsChange, known: KnownTable, keepsPast: boolean): boolean {
  const renamedKey = known.key.map((name) => change.renamed.find(({ from }) => from === name)?.to ?? name)
  const isKnown = ({ hasDefault, valueOfOlderRows }: AddedColumn): boolean => !hasDefault || (!keepsPast && valueOfOlderRows !== null)
  const isSpelledAlike = (now: SourceColumn): boolean => {
    const kind = spelling(known.columns.find(({ attributeNumber, isDropped }) => !isDropped && attributeNumber === now.attributeNumber))
    return kind !== null && kind === spelling(now)
  }
  return sorted(renamedKey) === sorted(change.key) && change.retyped.every(isSpelledAlike) && change.added.every(isKnown)
}

/** Types whose values have one spelling, whatever their modifier says of length or precision; null = of another type. */
function spelling(column: SourceColumn | undefined): string | null {
  const name = column?.shape.tag === 'base' ? column.shape.name : null
  if (name === 'varchar' || name === 'text') return 'text'
  return name !== null && ['timestamp', 'timestamptz', 'time', 'timetz', 'interval'].includes(name) ? name : null
}
