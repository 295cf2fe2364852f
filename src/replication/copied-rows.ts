import type { TableRegistration } from '../model/destination.ts'
import type { PublishedOperation } from '../model/spec.ts'

/** What holds of the rows of a table from its copy on: see {@link TableRegistration}. */
export type CopiedRows = Pick<TableRegistration, 'isPartial' | 'mayRepeat'>

/** Of a copy that was taken while these operations were published: with all of them, a key is free here before the source uses it again. */
export function rowsCopiedUnder(published: readonly PublishedOperation[]): CopiedRows {
  return {
    isPartial: !published.includes('insert') || !published.includes('update'),
    mayRepeat: !(['update', 'delete', 'truncate'] as const).every((operation) => published.includes(operation)),
  }
}
