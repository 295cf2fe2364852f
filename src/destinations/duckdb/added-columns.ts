import type { TargetColumn } from '../../model/destination.ts'
import type { ShapeKind } from '../../model/shapes.ts'
import { quoteName } from './sql.ts'

/** Columns that we add, after the source's own (contract §5). */
export const ADDED_COLUMNS: Readonly<Record<ShapeKind, readonly (readonly [name: string, type: string])[]>> = {
  merge: [['_lsn', 'UBIGINT']],
  soft: [
    ['_lsn', 'UBIGINT'],
    ['_deleted_at', 'TIMESTAMPTZ'],
  ],
  append: [
    ['_op', 'VARCHAR'],
    ['_lsn', 'UBIGINT'],
    ['_seq', 'BIGINT'],
    ['_committed_at', 'TIMESTAMPTZ'],
  ],
  scd2: [
    ['_valid_from', 'TIMESTAMPTZ'],
    ['_valid_to', 'TIMESTAMPTZ'],
    ['_is_current', 'BOOLEAN'],
    ['_lsn', 'UBIGINT'],
    ['_closed_lsn', 'UBIGINT'],
  ],
}

/** The columns of ours, quoted. */
export function addedNames(kind: ShapeKind): readonly string[] {
  return ADDED_COLUMNS[kind].map(([name]) => quoteName(name))
}

/** Does a column that the source dropped stay in such a shape? */
export function hasDropped(kind: ShapeKind): boolean {
  return kind === 'append' || kind === 'scd2'
}

/** The source's columns that a shape has. */
export function columnsOf<T extends Pick<TargetColumn, 'isDropped'>>(kind: ShapeKind, columns: readonly T[]): readonly T[] {
  return hasDropped(kind) ? columns : columns.filter(({ isDropped }) => !isDropped)
}
