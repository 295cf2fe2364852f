import { type Destination, type Fence, isBeside } from '../model/destination.ts'
import type { TableRuntime } from './table-runtime.ts'

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
