import type { TableRecord, TargetColumn } from '../../model/destination.ts'
import { kindsOf, type Shape, shapesOf } from '../../model/shapes.ts'
import type { TableName } from '../../model/table-schema.ts'
import { createAsOf } from './as-of.ts'
import type { DatabaseSession } from './database.ts'
import { addedNames, columnsOf } from './added-columns.ts'
import { dropTable, hasTable } from './ddl.ts'
import { giveWayToShapes } from './reshape.ts'
import { isToldByText } from './row-identity.ts'
import { allOf, groupedBy, quoteName, quoteTable, quoteText } from './sql.ts'
import { toPostgresText } from './type-mapping.ts'

/** A finished copy of one shape, and the table that it is to be joined to. */
interface Joining {
  readonly record: TableRecord
  /** The table that readers see, quoted. */
  readonly there: string
  /** The copy's rows, and what the stream has brought since. */
  readonly copy: string
  /** Which of them were copied: pairs of `_lsn` and time, as a list of VALUES. */
  readonly copied: string
  /** When the copy began, as far as its rows tell. */
  readonly beginLsn: string
  readonly beginTime: string
}

/**
 * Puts a finished copy in the place of its table, shape by shape, in one transaction: current rows are replaced. What the source does not have any
 * more is kept: deleted rows stay marked (those that went unseen get the copy's time), a version that the copy says again goes on, and a
 * history of changes takes only what differs from what it comes to.
 */
export async function swapShapes(session: DatabaseSession, record: TableRecord): Promise<TableRecord> {
  const { copy, target } = record
  if (copy === null) return record
  session.watches.void(target)
  await giveWayToShapes(session, record)
  const copies = shapesOf(record, copy.into)
  for (const [index, shape] of shapesOf(record, target).entries()) {
    const table = copies[index]?.table
    if (table !== undefined) await swapShape(session, record, shape, table)
  }
  await createAsOf(session, record, target)
  const { isReplacing: _isReplacing, former: _former, copiedAt: _copiedAt, ...rest } = copy
  return { ...record, copy: { ...rest, into: target } }
}

async function swapShape(session: DatabaseSession, record: TableRecord, { kind, table }: Shape, copy: TableName): Promise<void> {
  const { isReplacing, former, copiedAt } = record.copy ?? {}
  const [first] = [...(copiedAt ?? [])].sort(([a], [b]) => (BigInt(a) < BigInt(b) ? -1 : 1))
  const isNew = former !== undefined && !kindsOf(former).includes(kind)
  if (kind === 'merge' || isReplacing === true || isNew || first === undefined || !(await hasTable(session, table))) {
    await dropTable(session, table)
    await session.run(`ALTER TABLE ${quoteTable(copy)} RENAME TO ${quoteName(table.name)}`)
    return
  }
  const times = [...(copiedAt ?? [])].map(([, time]) => time).sort()
  const joining: Joining = {
    record,
    there: quoteTable(table),
    copy: quoteTable(copy),
    copied: (copiedAt ?? []).map(([lsn, time]) => `(${lsn}::UBIGINT, ${quoteText(time)}::TIMESTAMPTZ)`).join(', '),
    beginLsn: `${first[0]}::UBIGINT`,
    beginTime: `${quoteText(times[0] ?? '')}::TIMESTAMPTZ`,
  }
  if (kind === 'soft') {
    await joinMarked(session, joining, table)
    return
  }
  if (kind === 'scd2') await joinVersions(session, joining)
  else await joinChanges(session, joining)
  await dropTable(session, copy)
}

/**
 * Rows that the copy does not have stay, marked: they join it, and it takes the table's place. Of a key that came again, its delete unsent, before anybody
 * knew that deletes are not sent any more, the newest. No third table: some other may have its name.
 */
async function joinMarked(session: DatabaseSession, { record, there, copy, beginLsn, beginTime }: Joining, table: TableName): Promise<void> {
  const columns = [...columnsOf('soft', record.columns).map(({ name }) => quoteName(name))]
  const names = [...columns, ...addedNames('soft')].join(', ')
  await session.run(
    `CREATE OR REPLACE TEMP TABLE kept AS SELECT ${columns.join(', ')}, CASE WHEN _deleted_at IS NULL THEN ${beginLsn} ELSE _lsn END AS _lsn, coalesce(_deleted_at, ${beginTime}) AS _deleted_at
       FROM ${there} t ANTI JOIN ${copy} c ON ${sameKey(record, 't', 'c')} QUALIFY ${isNewest(record)};
     DROP TABLE ${there}; ALTER TABLE ${copy} RENAME TO ${quoteName(table.name)};
     INSERT INTO ${there} (${names}) SELECT ${names} FROM temp.kept; DROP TABLE temp.kept`,
  )
}

/**
 * A copied row that is as its current version is makes none: that version goes on, and is closed where the row has changed since. Another one's current
 * version ends where the copied one begins; of a row that is gone, when the copy began. A key has two current versions where it came again, its delete unsent,
 * before anybody knew that deletes are not sent any more: the newest goes on.
 */
async function joinVersions(session: DatabaseSession, { record, there, copy, copied, beginLsn, beginTime }: Joining): Promise<void> {
  const live = columnsOf('merge', record.columns)
  const nth = `row_number() OVER (PARTITION BY ${groupedBy(live.map((column) => spelled(column)))} ORDER BY _lsn, rowid)`
  const matches = record.key.length > 0 ? sameKey(record, 't', 'c') : `t.__place = c.__place AND ${sameRow(live)}`
  const row = (where: string): string => `(SELECT *, rowid AS __row, ${record.key.length > 0 ? `${isNewest(record)} AS __newest` : `true AS __newest, ${nth} AS __place`} FROM ${where})`
  await session.run(
    `CREATE OR REPLACE TEMP TABLE joined AS SELECT t.__row AS t, c.__row AS c, t.__newest AND c.__row IS NOT NULL AND ${sameRow(live)} AS is_same, c._valid_from, c._lsn, c._valid_to, c._closed_lsn, c._is_current
       FROM ${row(`${there} WHERE _is_current`)} t LEFT JOIN ${row(`${copy} WHERE (_lsn, _valid_from) IN (VALUES ${copied})`)} c ON ${matches};
     UPDATE ${there} AS t SET _valid_to = coalesce(j._valid_from, ${beginTime}), _closed_lsn = coalesce(j._lsn, ${beginLsn}), _is_current = false FROM temp.joined j WHERE t.rowid = j.t AND NOT j.is_same;
     UPDATE ${there} AS t SET _valid_to = j._valid_to, _closed_lsn = j._closed_lsn, _is_current = false FROM temp.joined j WHERE t.rowid = j.t AND j.is_same AND NOT j._is_current;
     INSERT INTO ${there} BY NAME SELECT c.* FROM ${copy} c WHERE c.rowid NOT IN (SELECT c FROM temp.joined WHERE is_same) ORDER BY c.rowid;
     DROP TABLE temp.joined`,
  )
}

/**
 * What the changes come to is compared with the copied rows: a row that is the same is left out, one that is gone gets a `delete` (counted on in
 * `_seq`, as any changes of one LSN are), and all others are added as `snapshot` rows; then what the stream has brought since.
 */
async function joinChanges(session: DatabaseSession, { record, there, copy, beginLsn, beginTime }: Joining): Promise<void> {
  const live = columnsOf('merge', record.columns)
  const all = columnsOf('append', record.columns).map(({ name }) => quoteName(name))
  const identity = record.key.length > 0 ? record.key.map(quoteName) : live.map(({ name }) => quoteName(name))
  const since = `FROM ${there} t WHERE (_lsn, _seq) > (SELECT coalesce(max((_lsn, _seq)), (0::UBIGINT, -1::BIGINT)) FROM ${there} WHERE _op = 'truncate')`
  const present =
    record.key.length > 0
      ? `SELECT * FROM (SELECT t.* ${since} QUALIFY row_number() OVER (PARTITION BY ${identity.join(', ')} ORDER BY _lsn DESC, _seq DESC) = 1) WHERE _op <> 'delete'`
      : `SELECT ${[...identity, 'unnest(range(__count)) + 1 AS __place'].join(', ')} FROM (SELECT ${[...identity.map((name) => `any_value(${name}) AS ${name}`), "greatest(0, sum(CASE WHEN _op = 'delete' THEN -1 ELSE 1 END))::BIGINT AS __count"].join(', ')} ${since} GROUP BY ${groupedBy(live.map((column) => spelled(column, 't')))})`
  const nth = record.key.length > 0 ? '' : `, row_number() OVER (PARTITION BY ${groupedBy(live.map((column) => spelled(column)))}) AS __place`
  const matches = record.key.length > 0 ? `${sameKey(record, 't', 'c')} AND ${sameRow(live)}` : `t.__place = c.__place AND ${sameRow(live)}`
  const isThere = record.key.length > 0 ? sameKey(record, 't', 'c') : matches
  await session.run(
    `CREATE OR REPLACE TEMP TABLE present AS ${present};
     CREATE OR REPLACE TEMP TABLE copied AS SELECT *, rowid AS __row${nth} FROM ${copy} WHERE _op = 'snapshot';
     INSERT INTO ${there} (${[...identity, ...addedNames('append')].join(', ')})
       SELECT ${[...identity.map((name) => `t.${name}`), "'delete'", beginLsn, 'row_number() OVER () - 1', beginTime].join(', ')} FROM temp.present t ANTI JOIN temp.copied c ON ${isThere};
     INSERT INTO ${there} (${[...all, ...addedNames('append')].join(', ')}) SELECT ${[...all, ...addedNames('append')].join(', ')} FROM ${copy}
       WHERE rowid NOT IN (SELECT c.__row FROM temp.copied c JOIN temp.present t ON ${matches}) ORDER BY rowid;
     DROP TABLE temp.present; DROP TABLE temp.copied`,
  )
}

/** Is a row the newest of its key? */
function isNewest({ key }: TableRecord): string {
  return `row_number() OVER (PARTITION BY ${key.map(quoteName).join(', ')} ORDER BY _lsn DESC, rowid DESC) = 1`
}

function sameKey({ key }: TableRecord, a: string, b: string): string {
  return key.map((name) => `${a}.${quoteName(name)} = ${b}.${quoteName(name)}`).join(' AND ')
}

/** Do the rows `t` and `c` hold the same values? */
function sameRow(columns: readonly TargetColumn[]): string {
  return allOf(columns.map((column) => `${spelled(column, 't')} IS NOT DISTINCT FROM ${spelled(column, 'c')}`))
}

/**
 * A value so that equal texts of the source are equal, and no others: DuckDB takes `1 month` for `30 days` and −0 for 0; and digits behind a
 * number's last one that counts went where its column became text, and are there in what came later.
 */
function spelled({ name, type, shape }: TargetColumn, alias = ''): string {
  const value = `${alias === '' ? '' : `${alias}.`}${quoteName(name)}`
  if (isToldByText(type)) return toPostgresText(type, value)
  if (type !== 'VARCHAR' || shape.tag !== 'base' || shape.name !== 'numeric') return value
  return `CASE WHEN regexp_full_match(${value}, '-?[0-9]+[.][0-9]+') THEN rtrim(rtrim(${value}, '0'), '.') ELSE ${value} END`
}
