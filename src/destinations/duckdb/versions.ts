import type { TableRecord } from '../../model/destination.ts'
import type { TableName } from '../../model/table-schema.ts'
import type { DatabaseSession } from './database.ts'
import { addedNames } from './added-columns.ts'
import { identityOf } from './row-identity.ts'
import { allOf, groupedBy, quoteTable } from './sql.ts'
import { keyNames, keysMatch, STAGED, targetNames, targetTypes, valueNames } from './staged-rows.ts'
import type { RowsStep } from './steps.ts'

/**
 * Adds the versions of the staged rows to an `scd2` table: for each key one a transaction, of the row as the transaction left it. It closes the
 * version that was current; where the same transaction had written that one in an earlier step, nobody ever saw it, and it goes.
 */
export async function addVersions(session: DatabaseSession, step: RowsStep, into: TableName): Promise<void> {
  const keys = keyNames(step)
  const name = quoteTable(into)
  // `finals` is without the rows' values, which the last statement takes from where they are: a second copy of them would stand in memory for as long.
  await session.run(
    `CREATE OR REPLACE TEMP TABLE finals AS SELECT ${keys}, lsn, committed_at, s.rowid AS r, row_number() OVER w AS place, lead(lsn) OVER w AS next_lsn, lead(committed_at) OVER w AS next_at
       FROM ${STAGED} s WHERE s.rowid IN (SELECT max(rowid) FROM ${STAGED} GROUP BY lsn, ${keys}) WINDOW w AS (PARTITION BY ${keys} ORDER BY s.rowid);
     DELETE FROM ${name} AS t USING (SELECT * FROM temp.finals WHERE lsn = (SELECT min(lsn) FROM temp.finals)) AS s
       WHERE t._lsn = (SELECT min(lsn) FROM temp.finals) AND t._is_current AND t._valid_from = s.committed_at AND ${keysMatch(step, 's', 't')};
     UPDATE ${name} AS t SET _valid_to = s.committed_at, _closed_lsn = s.lsn, _is_current = false
       FROM (SELECT * FROM temp.finals WHERE place = 1) AS s WHERE t._is_current AND ${keysMatch(step, 's', 't')};
     INSERT INTO ${name} (${[...targetNames(step, 'scd2'), ...addedNames('scd2')].join(', ')}) SELECT ${[...valueNames(step, 'scd2').map((cell) => `s.${cell}`), 's.committed_at', 'f.next_at', 'f.next_lsn IS NULL', 's.lsn', 'f.next_lsn'].join(', ')}
       FROM ${STAGED} s JOIN temp.finals f ON f.r = s.rowid WHERE s.op NOT IN ('D', 'X');
     DROP TABLE temp.finals`,
  )
}

/**
 * The same without a key: rows are told apart by their whole content, and of equal ones there are as many versions. What counts of a transaction is
 * how many rows of one content it leaves more or less; the oldest of equal versions is closed first. Returns how many rows that went were nowhere.
 */
export async function addWholeVersions(session: DatabaseSession, step: RowsStep, record: TableRecord, into: TableName): Promise<number> {
  // A column that is gone at the source tells no row from another; the versions that are there may have a value in it.
  const names = valueNames(step, 'merge')
  const list = names.length === 0 ? 'NULL AS nothing' : names.join(', ')
  const name = quoteTable(into)
  const columns = targetNames(step, 'merge')
  const types = targetTypes(columns, record)
  const identity = (alias: string): readonly string[] => names.map((cell, index) => identityOf(types[index] ?? '', `${alias}.${cell}`))
  const equal = (a: string, b: string): string => allOf(identity(a).map((value, index) => `${value} IS NOT DISTINCT FROM ${identity(b)[index] ?? ''}`))
  const current = columns.map((column, index) => `${column} AS ${names[index] ?? ''}`)
  await session.run(
    `CREATE OR REPLACE TEMP TABLE contents AS SELECT *, row_number() OVER () AS g FROM (SELECT DISTINCT ON (${groupedBy(identity('s'))}) ${list} FROM ${STAGED} s);
     CREATE OR REPLACE TEMP TABLE nets AS SELECT c.g, s.lsn, any_value(s.committed_at) AS committed_at, min(s.rowid) AS r,
         count(*) FILTER (s.op NOT IN ('D', 'X')) - count(*) FILTER (s.op IN ('D', 'X')) AS net
       FROM ${STAGED} s JOIN temp.contents c ON ${equal('s', 'c')} GROUP BY c.g, s.lsn;
     CREATE OR REPLACE TEMP TABLE held AS SELECT c.g, t.r, row_number() OVER (PARTITION BY c.g ORDER BY t.l, t.r) AS k
       FROM temp.contents c JOIN (SELECT ${['rowid AS r', '_lsn AS l', ...current].join(', ')} FROM ${name} WHERE _is_current) t ON ${equal('c', 't')};
     CREATE OR REPLACE TEMP TABLE opened AS SELECT n.g, n.lsn, n.committed_at, n.r, coalesce(h.n, 0) + row_number() OVER (PARTITION BY n.g ORDER BY n.lsn) AS k
       FROM (SELECT *, unnest(range(net)) FROM temp.nets WHERE net > 0) n LEFT JOIN (SELECT g, count(*) AS n FROM temp.held GROUP BY g) h ON h.g = n.g;
     CREATE OR REPLACE TEMP TABLE closed AS SELECT g, lsn, committed_at, row_number() OVER (PARTITION BY g ORDER BY lsn) AS k FROM (SELECT *, unnest(range(-net)) FROM temp.nets WHERE net < 0);
     UPDATE ${name} AS t SET _valid_to = s.committed_at, _closed_lsn = s.lsn, _is_current = false FROM (SELECT h.r, c.committed_at, c.lsn FROM temp.held h JOIN temp.closed c USING (g, k)) AS s WHERE t.rowid = s.r;
     INSERT INTO ${name} (${[...columns, ...addedNames('scd2')].join(', ')}) SELECT ${[...names.map((cell) => `c.${cell}`), 'o.committed_at', 'd.committed_at', 'd.lsn IS NULL', 'o.lsn', 'd.lsn'].join(', ')}
       FROM temp.opened o JOIN temp.contents c ON c.g = o.g LEFT JOIN temp.closed d ON d.g = o.g AND d.k = o.k ORDER BY o.r;
     DELETE FROM ${name} WHERE NOT _is_current AND _lsn = (SELECT min(lsn) FROM temp.nets) AND _closed_lsn = _lsn AND _valid_from = _valid_to`,
  )
  const [row] = await session.rows(
    'SELECT count(*)::INTEGER FROM temp.closed c ANTI JOIN (SELECT g, k FROM temp.held UNION ALL SELECT g, k FROM temp.opened) o ON o.g = c.g AND o.k = c.k',
  )
  await session.run(['contents', 'nets', 'held', 'opened', 'closed'].map((table) => `DROP TABLE temp.${table}`).join('; '))
  return Number(row?.[0] ?? 0)
}
