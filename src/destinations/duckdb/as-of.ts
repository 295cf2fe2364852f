import type { TableRecord } from '../../model/destination.ts'
import { type Shaping, shapesOf } from '../../model/shapes.ts'
import type { TableName } from '../../model/table-schema.ts'
import type { DatabaseSession } from './database.ts'
import { addedNames } from './added-columns.ts'
import { quoteName, quoteTable } from './sql.ts'

/** The macro that gives an `scd2` table as it stood: `orders_as_of`. */
export function asOfName({ schema, name }: TableName): TableName {
  return { schema, name: `${name}_as_of` }
}

/**
 * Makes the macro of each `scd2` table of `base`. A moment is told by the last transaction in LSN order that had committed by then, as its commit time
 * says: clocks may go backwards, and then intervals of times overlap; those of LSNs do not. A table without any columns, of which a query could give none,
 * gives `_lsn`.
 */
export async function createAsOf(session: DatabaseSession, record: TableRecord, base: TableName): Promise<void> {
  const excluded = addedNames('scd2').filter((name) => record.columns.length > 0 || name !== quoteName('_lsn'))
  for (const { kind, table } of shapesOf(record, base)) {
    if (kind !== 'scd2') continue
    const name = quoteTable(table)
    const [high, low] = [1, 2].map((half) => `('0x' || split_part(lsn::VARCHAR, '/', ${String(half)}))::UBIGINT`)
    const lastBy = `SELECT max(l) FROM (SELECT max(_lsn) AS l FROM ${name} WHERE _valid_from <= moment::TIMESTAMPTZ
      UNION ALL SELECT max(_closed_lsn) FROM ${name} WHERE _valid_to <= moment::TIMESTAMPTZ)`
    const place = `(SELECT CASE WHEN lsn IS NULL THEN (${lastBy}) WHEN contains(lsn::VARCHAR, '/') THEN (${high ?? ''} << 32) + ${low ?? ''} ELSE lsn::VARCHAR::UBIGINT END)`
    await session.run(
      `CREATE OR REPLACE MACRO ${quoteTable(asOfName(table))}(moment := NULL, lsn := NULL) AS TABLE
         SELECT * EXCLUDE (${excluded.join(', ')}) FROM ${name} WHERE _lsn <= ${place} AND (_closed_lsn IS NULL OR _closed_lsn > ${place})`,
    )
  }
}

/** Drops what {@link createAsOf} made. */
export async function dropAsOf(session: DatabaseSession, shaping: Shaping, base: TableName): Promise<void> {
  for (const { kind, table } of shapesOf(shaping, base)) {
    if (kind === 'scd2') await session.run(`DROP MACRO TABLE IF EXISTS ${quoteTable(asOfName(table))}`)
  }
}
