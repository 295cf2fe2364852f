import fc from 'fast-check'
import pg from 'pg'
import { countsWrites } from './comparison.ts'

/**
 * Random work on a few tables of different identities. Every statement is valid whatever stands in the tables, so that fast-check may
 * leave any of them out while it shrinks; numbers choose keys and values.
 */
export interface Statement {
  readonly table: number
  readonly kind: StatementKind
  readonly key: number
  readonly other: number
  readonly value: number
}

const STATEMENT_WEIGHTS = {
  insert: 8,
  insertMany: 2,
  update: 5,
  /** Leaves the TOASTed columns as they are. */
  touch: 6,
  rekey: 4,
  delete: 4,
  deleteMany: 1,
  truncate: 1,
  savepoint: 2,
  rollbackTo: 2,
  addColumn: 1,
  useColumn: 2,
} as const
type StatementKind = keyof typeof STATEMENT_WEIGHTS

export interface Transaction {
  readonly statements: readonly Statement[]
  readonly isRolledBack: boolean
}

/** Writers that work at the same time, each on a connection of its own. */
export type Burst = readonly (readonly Transaction[])[]

/** A table to work on. Column `big` is long and stored out of line; `grown_*` come by ALTER TABLE. Each write of a row with a key changes column `w`. */
export interface RandomTable {
  readonly name: string
  readonly ddl: string
  /** What identifies a row in the stream; empty = the whole row. */
  readonly key: readonly string[]
  readonly insert: (key: number, value: number) => string
  readonly set: (value: number) => string
  readonly touch: (value: number) => string
  /** A condition on one row, or (without a key) on the rows with that number. */
  readonly where: (key: number) => string
  readonly rekey: (other: number) => string
}

const NUMERICS = ['0', '1.5', '-7.25', '42', '1000000.000000001', '0.1', 'NULL', "'NaN'", '12345678901234567890123456789012.123456789012'] as const
const MOMENTS = ["'2024-02-29 12:00:00.000001+00'", "'1999-12-31 23:59:59+05:30'", "'-infinity'", "'infinity'", 'NULL', "'0044-03-15 10:00:00 BC'", "'294276-12-31 23:59:59.999999+00'"] as const
const DOCUMENTS = [`'{"a": [1, 2.50, null], "b": "x\\"y"}'`, `'"\\u00e9 \\ud83d\\ude00"'`, `'[]'`, `'1e400'`, 'NULL', `'{"": {"deep": [[]]}}'`] as const
const LISTS = [`'{}'`, `'{a,NULL,"b c","q\\"q",""}'`, `'{"{x}","NULL"}'`, 'NULL', `'{{a,b},{c,d}}'`, `'[2:3]={x,y}'`] as const
const TEXTS = [`''`, `'plain'`, `E'tab\\tnew\\nline\\r'`, `'∅ ünï 😀'`, `'"quoted", ''single'' \\N \\.'`, `E'\\x1e\\x1f'`, 'NULL'] as const

/** Mostly the first few, which every type holds; now and then one that widens a column. */
function pick(values: readonly string[], value: number): string {
  const ordinary = Math.min(3, values.length)
  return values[value % 5 === 0 ? value % values.length : value % ordinary] ?? 'NULL'
}

/** Now and then one that is larger by itself than what the server decodes in memory where transactions are streamed: 80 kB. */
const big = (value: number): string => (value % 7 === 0 ? 'NULL' : `repeat(md5('${String(value)}'), ${value % 11 === 5 ? '2500' : '100'})`)
const EXTERNAL = (table: string): string => `ALTER TABLE ${table} ALTER big SET STORAGE EXTERNAL`

export const RANDOM_TABLES: readonly RandomTable[] = [
  {
    name: 'numbers',
    ddl: `CREATE TABLE numbers (id int PRIMARY KEY, n numeric, at timestamptz, doc jsonb, tags text[], big text); ${EXTERNAL('numbers')}; ${countsWrites('numbers')}`,
    key: ['id'],
    insert: (key, value) => `(id, n, at, doc, tags, big) VALUES (${String(key)}, ${pick(NUMERICS, value)}, ${pick(MOMENTS, value)}, ${pick(DOCUMENTS, value)}, ${pick(LISTS, value)}, ${big(value)})`,
    set: (value) => `n = ${pick(NUMERICS, value)}, at = ${pick(MOMENTS, value)}, doc = ${pick(DOCUMENTS, value)}, tags = ${pick(LISTS, value)}, big = ${big(value)}`,
    touch: (value) => `n = ${pick(NUMERICS, value)}`,
    where: (key) => `id = ${String(key)}`,
    rekey: (other) => `id = ${String(other)}`,
  },
  {
    name: 'places',
    // Two collations that order 'a', 'B', 'ä' otherwise than bytes do.
    ddl: `CREATE TABLE places (country text COLLATE "en-x-icu", code varchar(9) COLLATE "sv-x-icu", amount numeric(12,3), note text, big text, PRIMARY KEY (country, code)); ${EXTERNAL('places')}; ${countsWrites('places')}`,
    key: ['country', 'code'],
    insert: (key, value) => `(country, code, amount, note, big) VALUES (${placeOf(key)}, ${String(value % 1000)}.5, ${pick(TEXTS, value)}, ${big(value)})`,
    set: (value) => `amount = ${String(value % 100)}, note = ${pick(TEXTS, value)}, big = ${big(value)}`,
    touch: (value) => `note = ${pick(TEXTS, value)}`,
    where: (key) => `(country, code) = (${placeOf(key)})`,
    rekey: (other) => `(country, code) = (${placeOf(other)})`,
  },
  {
    name: 'heap',
    ddl: `CREATE TABLE heap (a int, b text, n numeric, big text); ${EXTERNAL('heap')}; ALTER TABLE heap REPLICA IDENTITY FULL`,
    key: [],
    // Few different rows: most have duplicates.
    insert: (key, value) => `(a, b, n, big) VALUES (${key % 4 === 0 ? 'NULL' : String(key % 4)}, ${pick(TEXTS, value % 3)}, ${pick(NUMERICS, value % 3)}, ${big(value % 2)})`,
    set: (value) => `b = ${pick(TEXTS, value % 3)}, big = ${big(value % 2)}`,
    touch: (value) => `n = ${pick(NUMERICS, value)}`,
    where: (key) => `ctid IN (SELECT ctid FROM heap WHERE a IS NOT DISTINCT FROM ${key % 4 === 0 ? 'NULL' : String(key % 4)} LIMIT 2)`,
    rekey: (other) => `a = ${String(other % 4)}`,
  },
  {
    name: 'coded',
    ddl: `CREATE TABLE coded (id serial PRIMARY KEY, code text NOT NULL, v float8, big text); CREATE UNIQUE INDEX coded_code ON coded (code); ${EXTERNAL('coded')}; ${countsWrites('coded')}; ALTER TABLE coded REPLICA IDENTITY USING INDEX coded_code`,
    key: ['code'],
    insert: (key, value) => `(code, v, big) VALUES (${codeOf(key)}, ${String(value)} / 3.0, ${big(value)})`,
    set: (value) => `v = ${value % 11 === 0 ? "'NaN'" : String(value)}, big = ${big(value)}`,
    touch: (value) => `v = ${value % 13 === 0 ? "'-Infinity'" : `${String(value)} / 7.0`}`,
    where: (key) => `code = ${codeOf(key)}`,
    rekey: (other) => `code = ${codeOf(other)}`,
  },
]

function placeOf(key: number): string {
  const countries = ['a', 'B', 'ä', 'Å', 'z', ''] as const
  return `'${countries[key % countries.length] ?? ''}', '${['x', 'Y', 'ö'][key % 3] ?? ''}${String(key % 4)}'`
}

function codeOf(key: number): string {
  return `'code ${String(key)}${key % 2 === 0 ? ' é' : ''}'`
}

const KEYS = 14

/** A table to work on, as an index of {@link RANDOM_TABLES}, and whether a column may come with a value for the rows that are there. */
export interface WorkedTable {
  readonly index: number
  readonly hasDefaults: boolean
}

/** Statements on the given tables. */
function statement(tables: readonly WorkedTable[]): fc.Arbitrary<Statement> {
  const statements = fc.record({
    table: fc.constantFrom(...tables.map(({ index }) => index)),
    kind: fc.oneof(...Object.entries(STATEMENT_WEIGHTS).map(([kind, weight]) => ({ arbitrary: fc.constant(kind as StatementKind), weight }))),
    key: fc.nat(KEYS),
    other: fc.nat(KEYS),
    value: fc.nat(2_000),
  })
  const withoutDefault = new Set(tables.flatMap(({ index, hasDefaults }) => (hasDefaults ? [] : [index])))
  return statements.map((made) => (made.kind === 'addColumn' && withoutDefault.has(made.table) ? { ...made, value: made.value - (made.value % 2) } : made))
}

export function burst(tables: readonly WorkedTable[], limits: { readonly writers: number; readonly transactions: number }): fc.Arbitrary<Burst> {
  const transaction = fc.record({
    statements: fc.array(statement(tables), { minLength: 1, maxLength: 6 }),
    isRolledBack: fc.oneof({ arbitrary: fc.constant(false), weight: 6 }, { arbitrary: fc.constant(true), weight: 1 }),
  })
  return fc.array(fc.array(transaction, { maxLength: limits.transactions }), { minLength: 1, maxLength: limits.writers })
}

/** Changes that committed, as an append table must show them: by table name. */
export type ChangeTally = Map<string, number>

function sqlOf(statement: Statement): string {
  const table = RANDOM_TABLES[statement.table]
  if (table === undefined) throw new RangeError('no such table')
  const { key, other, value } = statement
  const column = `grown_${String(value % 3)}`
  switch (statement.kind) {
    case 'insert':
      return `INSERT INTO ${table.name} ${table.insert(key, value)} ON CONFLICT DO NOTHING`
    case 'insertMany':
      return Array.from({ length: 4 }, (_, step) => `INSERT INTO ${table.name} ${table.insert(key + step, value + step)} ON CONFLICT DO NOTHING`).join(';')
    case 'update':
      return `UPDATE ${table.name} SET ${table.set(value)} WHERE ${table.where(key)}`
    case 'touch':
      return `UPDATE ${table.name} SET ${table.touch(value)} WHERE ${table.where(key)} OR ${table.where(other)}`
    case 'rekey':
      // The other key may be taken by the same moment's other writer: then the transaction fails and rolls back, which is a case too.
      return table.key.length === 0
        ? `UPDATE ${table.name} SET ${table.rekey(other)} WHERE ${table.where(key)}`
        : `UPDATE ${table.name} SET ${table.rekey(other)} WHERE ${table.where(key)} AND NOT EXISTS (SELECT FROM ${table.name} WHERE ${table.where(other)})`
    case 'delete':
      return `DELETE FROM ${table.name} WHERE ${table.where(key)}`
    case 'deleteMany':
      return `DELETE FROM ${table.name} WHERE ${table.where(key)} OR ${table.where(key + 1)} OR ${table.where(other)}`
    case 'truncate':
      return `TRUNCATE ${table.name}`
    case 'savepoint':
      return 'SAVEPOINT s'
    case 'rollbackTo':
      return 'ROLLBACK TO SAVEPOINT s'
    case 'addColumn':
      // Even values: no default. See `hasDefaults`.
      return `ALTER TABLE ${table.name} ADD COLUMN IF NOT EXISTS ${column} int${value % 2 === 0 ? '' : ` DEFAULT ${String(value)}`}`
    case 'useColumn':
      return `UPDATE ${table.name} SET ${column} = ${String(value)} WHERE ${table.where(key)}`
    default:
      return statement.kind satisfies never
  }
}

/** How many rows an append table gets for one changed row of this statement. */
function rowsPerChange(statement: Statement): number {
  const table = RANDOM_TABLES[statement.table]
  switch (statement.kind) {
    case 'rekey':
      return 2
    case 'update':
    case 'touch':
    case 'useColumn':
      // The whole row is the key.
      return table?.key.length === 0 ? 2 : 1
    case 'truncate':
      return 1
    case 'savepoint':
    case 'rollbackTo':
    case 'addColumn':
      return 0
    case 'insert':
    case 'insertMany':
    case 'delete':
    case 'deleteMany':
      return 1
    default:
      return statement.kind satisfies never
  }
}

/** What makes a transaction of a random writer fail, rightly: a taken key, a deadlock, a lock that does not come, a column that is not there yet. */
const EXPECTED_ERRORS: ReadonlySet<string> = new Set(['23505', '40P01', '55P03', '42703', '3B001'])

/** Runs the writers of a burst at the same time. Adds what they committed to `tally`. */
export async function runBurst(pool: pg.Pool, writers: Burst, tally: ChangeTally): Promise<void> {
  await Promise.all(
    writers.map(async (transactions) => {
      const client = await pool.connect()
      try {
        await client.query("SET deadlock_timeout = '20ms'; SET lock_timeout = '5s'")
        for (const transaction of transactions) await runTransaction(client, transaction, tally)
      } finally {
        client.release()
      }
    }),
  )
}

async function runTransaction(client: pg.PoolClient, { statements, isRolledBack }: Transaction, tally: ChangeTally): Promise<void> {
  const counted: ChangeTally = new Map()
  let atSavepoint: ChangeTally | null = null
  await client.query('BEGIN')
  try {
    for (const statement of statements) {
      if (statement.kind === 'rollbackTo' && atSavepoint === null) continue
      const results = [await client.query(sqlOf(statement))].flat()
      if (statement.kind === 'savepoint') atSavepoint = new Map(counted)
      if (statement.kind === 'rollbackTo' && atSavepoint !== null) restore(counted, atSavepoint)
      const name = RANDOM_TABLES[statement.table]?.name ?? ''
      const changed = statement.kind === 'truncate' ? 1 : results.reduce((sum, result) => sum + (result.rowCount ?? 0), 0)
      counted.set(name, (counted.get(name) ?? 0) + changed * rowsPerChange(statement))
    }
    await client.query(isRolledBack ? 'ROLLBACK' : 'COMMIT')
  } catch (error) {
    await client.query('ROLLBACK')
    if (error instanceof pg.DatabaseError && EXPECTED_ERRORS.has(error.code ?? '')) return
    throw error
  }
  if (!isRolledBack) for (const [name, count] of counted) tally.set(name, (tally.get(name) ?? 0) + count)
}

function restore(counted: ChangeTally, saved: ChangeTally): void {
  counted.clear()
  for (const [name, count] of saved) counted.set(name, count)
}
