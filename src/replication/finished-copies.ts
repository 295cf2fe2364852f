import type { Destination, Fence, TableRecord } from '../model/destination.ts'
import { tableKey } from '../model/table-schema.ts'
import type { TableRuntime } from './table-runtime.ts'

/** Are the table's copied rows in a table beside the one that readers see? */
export function isBeside({ copy, target }: TableRecord): boolean {
  return copy !== null && tableKey(copy.into) !== tableKey(target)
}

/**
 * Puts whole copies in the place of their tables, where that has not come about: the swap is a transaction of its own behind the last chunk's, and
 * a kill may come between the two.
 */
export async function swapFinishedCopies(tables: Iterable<TableRuntime>, { destination, fence }: { readonly destination: Destination; readonly fence: Fence }): Promise<void> {
  for (const table of tables) {
    const { record } = table
    if (record.state === 'streaming' && isBeside(record)) table.update(await destination.swapCopy(fence, record))
  }
}
