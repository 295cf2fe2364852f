import type { WriteMode } from './spec.ts'
import type { TableName } from './table-schema.ts'

/** What a destination table holds of its source table: one of the modes, or the current rows with the deleted ones marked. */
export type ShapeKind = WriteMode | 'soft'

/** How a table lands: the modes that were asked for, in their order. */
export interface Shaping {
  readonly writeMode: WriteMode
  /** Further shapes of the same table, fed by the same changes in the same transactions; absent = none. */
  readonly otherModes?: readonly WriteMode[]
  /** `deleteMode: "soft"`: of the current rows, those that the source deleted stay, marked. Absent = they go. */
  readonly isSoft?: boolean
}

/** One destination table of a source table. */
export interface Shape {
  readonly kind: ShapeKind
  readonly table: TableName
}

/** What is put behind the name of a table's second and third shape (contract §4). */
const SUFFIX: Readonly<Record<WriteMode, string>> = { merge: '__current', append: '__changes', scd2: '__history' }

/** All modes of a table, the one that has the table's own name first. */
export function modesOf({ writeMode, otherModes }: Shaping): readonly WriteMode[] {
  return [writeMode, ...(otherModes ?? [])]
}

/** The tables that hold its shapes, where the first is called `base`. */
export function shapesOf(shaping: Shaping, base: TableName): readonly Shape[] {
  return modesOf(shaping).map((mode, index) => ({
    kind: kindOf(shaping, mode),
    table: index === 0 ? base : { schema: base.schema, name: base.name + SUFFIX[mode] },
  }))
}

export function kindsOf(shaping: Shaping): readonly ShapeKind[] {
  return modesOf(shaping).map((mode) => kindOf(shaping, mode))
}

function kindOf({ isSoft }: Shaping, mode: WriteMode): ShapeKind {
  return mode === 'merge' && isSoft === true ? 'soft' : mode
}

/** Is every change kept, and nothing else: so that no copy can stand for it? */
export function isAppendOnly(shaping: Shaping): boolean {
  return modesOf(shaping).every((mode) => mode === 'append')
}

/** Is there a shape that holds the past: changes, or versions? */
export function hasHistory(shaping: Shaping): boolean {
  return modesOf(shaping).some((mode) => mode !== 'merge')
}

/** Does it hold anything that the source does not have any more, and that a fresh copy could not bring back? */
export function keepsPast(shaping: Shaping): boolean {
  return kindsOf(shaping).some((kind) => kind !== 'merge')
}

/** Are two tables kept in the same shapes? */
export function isShapedAs(a: Shaping, b: Shaping): boolean {
  return kindsOf(a).join() === kindsOf(b).join()
}

/** Nothing but how it lands, of a record that says more. */
export function shapingIn({ writeMode, otherModes, isSoft }: Shaping): Shaping {
  return { writeMode, ...(otherModes === undefined ? {} : { otherModes }), ...(isSoft === true ? { isSoft } : {}) }
}

/** For messages: `merge and scd2, deleteMode soft`. */
export function shapingText(shaping: Shaping): string {
  return modesOf(shaping).join(' and ') + (shaping.isSoft === true ? ', deleteMode soft' : '')
}
