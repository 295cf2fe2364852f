import type { RowLookup, TableRecord } from '../model/destination.ts'
import { DomainError } from '../model/errors.ts'
import { ZERO_LSN } from '../model/lsn.ts'
import type { Source } from '../model/source.ts'
import { schemaOf } from './copier.ts'
import type { TableRuntime } from './table-runtime.ts'

/** What applying a batch may ask of the source. Of a table that has been dropped meanwhile there is nothing to ask: it will be removed soon. */
export function createLookup(source: Source, tables: ReadonlyMap<number, TableRuntime>): RowLookup {
  async function unlessGone<T>(table: TableRecord, ask: () => Promise<T>, otherwise: T): Promise<T> {
    try {
      return await ask()
    } catch (error) {
      if (!(error instanceof DomainError)) throw error
      const { tables: found } = await source.look([table.oid], null)
      if (found.length > 0) throw error
      return otherwise
    }
  }
  return {
    readRows: async (table, keys, columns) => unlessGone(table, async () => source.readRows(schemaOf(table), keys, columns), { rows: [], lsn: ZERO_LSN }),
    locateKeys: async (table, keys) =>
      unlessGone(table, async () => source.locateKeys(schemaOf(table), table.copy?.chunks ?? [], keys), keys.map(() => 0)),
    judge: (table, chunk, xid) => tables.get(table.oid)?.judgeRow(table, chunk, xid) ?? 'skip',
  }
}
