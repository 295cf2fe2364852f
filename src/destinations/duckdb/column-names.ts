import type { TargetColumn } from '../../model/destination.ts'
import { DomainError } from '../../model/errors.ts'
import { remedyText } from '../../model/remedy.ts'
import { isAppendOnly, kindsOf, type ShapeKind, type Shaping } from '../../model/shapes.ts'
import { tableKey, type TableName } from '../../model/table-schema.ts'
import { ADDED_COLUMNS } from './added-columns.ts'
import { quoteName, quoteTable } from './sql.ts'

const ADDED_BY: Readonly<Record<ShapeKind, string>> = { merge: 'writeMode merge', soft: 'deleteMode soft', append: 'writeMode append', scd2: 'writeMode scd2' }

/**
 * What is wrong with the names of a table's columns (contract §5): one has the very name of one that we add or need, or two differ only in case, which
 * DuckDB does not tell apart. Null where nothing is.
 */
function refusedColumnName(source: TableName, columns: readonly Pick<TargetColumn, 'name'>[], shaping: Shaping): DomainError | null {
  const kinds = kindsOf(shaping)
  const seen = new Map<string, string>(kinds.flatMap((kind) => ADDED_COLUMNS[kind].map(([name]) => [name.toLowerCase(), `a column that ${ADDED_BY[kind]} adds`] as const)))
  const finding = kinds.find((kind) => kind === 'scd2' || kind === 'append')
  // It would hide DuckDB's own, and several rows may have one value of it.
  if (finding !== undefined) seen.set('rowid', `DuckDB's own, by which ${ADDED_BY[finding]} finds rows`)
  for (const { name } of columns) {
    const other = seen.get(name.toLowerCase())
    seen.set(name.toLowerCase(), `column ${JSON.stringify(name)}, but for the case`)
    if (other === undefined) continue
    const newName = name.startsWith('_') ? `source${name}` : `${name}_2`
    return new DomainError({
      kind: 'InvalidInput',
      message: `${tableKey(source)}: column ${JSON.stringify(name)} has the name of ${other}`,
      remedy: remedyText('leave it out with includeColumns, or rename it at the source:', [`ALTER TABLE ${quoteTable(source)} RENAME COLUMN ${quoteName(name)} TO ${quoteName(newName)}`]),
    })
  }
  return null
}

/** Why a table of the source cannot be held with these columns, key and shapes; null where it can. */
export function refusedShape(source: TableName, shape: { readonly columns: readonly TargetColumn[]; readonly key: readonly string[]; readonly shaping: Shaping }): DomainError | null {
  return refusedKeyType(source, shape) ?? refusedColumnName(source, shape.columns, shape.shaping) ?? refusedSoftDelete(source, shape.key, shape.shaping)
}

/** Throws why a table of the source cannot be held so, if it cannot. */
export function refuseShape(source: TableName, shape: Parameters<typeof refusedShape>[1]): void {
  const refused = refusedShape(source, shape)
  if (refused !== null) throw refused
}

/** Why rows cannot be told apart by a key that a hint has given another type; null where they can, or where changes are only added. */
function refusedKeyType(source: TableName, { columns, key, shaping }: { readonly columns: readonly TargetColumn[]; readonly key: readonly string[]; readonly shaping: Shaping }): DomainError | null {
  if (isAppendOnly(shaping)) return null
  const refused = columns.find(({ name, shape, type }) => {
    const isText = shape.tag === 'base' && ['text', 'varchar', 'bpchar'].includes(shape.name ?? '')
    return isText && key.includes(name) && type !== 'VARCHAR' && type !== 'JSON'
  })
  if (refused === undefined) return null
  return new DomainError({
    kind: 'InvalidInput',
    message: `columns: ${tableKey(source)}: key column ${JSON.stringify(refused.name)} cannot be ${refused.type}: keys of different text may be the same ${refused.type}`,
    remedy: 'leave the hint out, or use "VARCHAR"',
  })
}

/**
 * Why deleted rows of a table cannot be marked; null where they can. Without a key a row is known by its whole content, so that each update would
 * leave what the row was before it behind, marked as if somebody had deleted it.
 */
function refusedSoftDelete(source: TableName, key: readonly string[], shaping: Shaping): DomainError | null {
  if (key.length > 0 || !kindsOf(shaping).includes('soft')) return null
  return new DomainError({
    kind: 'InvalidInput',
    message: `${tableKey(source)} has no key: with deleteMode soft each update would leave the former row behind, marked as deleted`,
    remedy: remedyText(`give this table another mode, "writeMode": {"${source.name}": "scd2"} (or "append"), or give it a key at the source, for example:`, [
      `ALTER TABLE ${quoteTable(source)} ADD COLUMN id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY`,
      `ALTER TABLE ${quoteTable(source)} REPLICA IDENTITY DEFAULT`,
    ]),
  })
}
