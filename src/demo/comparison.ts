import { type DuckDBConnection, DuckDBInstance, type DuckDBResultReader } from '@duckdb/node-api'
import type pg from 'pg'
import { SHOP_SCHEMA, type ShopTable } from './shop.ts'

/** Rows compared at a time. */
const PAGE_ROWS = 20_000

/** What a comparison of one table found. */
export interface TableComparison {
  readonly table: string
  readonly compared: number
  readonly different: number
  /** What the first difference is, in words: never a value. */
  readonly firstDifference: string | null
}

/** A column and the expression of each side that makes one and the same text of one and the same value. */
interface ComparedColumn {
  readonly name: string
  readonly sourceText: string
  readonly destinationText: string
}

/** The destination file, open for reading only. The caller closes it. Fails while a worker has it open. */
export class Warehouse {
  readonly #instance: DuckDBInstance
  readonly connection: DuckDBConnection

  private constructor(instance: DuckDBInstance, connection: DuckDBConnection) {
    this.#instance = instance
    this.connection = connection
  }

  static async open(path: string): Promise<Warehouse> {
    const instance = await DuckDBInstance.create(path, { access_mode: 'READ_ONLY' })
    return new Warehouse(instance, await instance.connect())
  }

  close(): void {
    this.connection.closeSync()
    this.#instance.closeSync()
  }
}

/**
 * Compares every row and every column of a table, in key order, page by page: `onPage` hears the rows compared so far. It knows nothing
 * of how rows got there: each side makes text of its own values.
 */
export async function compareTable(
  sides: { readonly source: pg.Client; readonly warehouse: Warehouse },
  table: ShopTable,
  onPage: (compared: number) => void,
): Promise<TableComparison> {
  const columns = await readColumns(sides.source, table.name)
  const missing = await missingColumns(sides.warehouse, { table: table.name, columns })
  if (missing.length > 0) return { table: table.name, compared: 0, different: 1, firstDifference: `the destination lacks column ${missing.join(', ')}` }
  let compared = 0
  let different = 0
  let firstDifference: string | null = null
  let after: readonly string[] | null = null
  for (;;) {
    const [source, destination]: [pg.QueryArrayResult<(string | null)[]>, DuckDBResultReader] = await Promise.all([
      sides.source.query<(string | null)[]>({ text: pageSql(table, columns.map(({ sourceText }) => sourceText), after), rowMode: 'array' }),
      sides.warehouse.connection.runAndReadAll(pageSql(table, columns.map(({ destinationText }) => destinationText), after)),
    ])
    const destinationRows = destination.getRowsJson()
    for (let index = 0; index < Math.max(source.rows.length, destinationRows.length); index++) {
      const reason = differenceOf(source.rows[index], destinationRows[index], columns)
      if (reason === null) continue
      different += 1
      firstDifference ??= `row ${compared + index + 1} in key order: ${reason}`
    }
    compared += source.rows.length
    onPage(compared)
    const last = source.rows.at(-1)
    if (last === undefined || source.rows.length < PAGE_ROWS || different > 0) return { table: table.name, compared, different, firstDifference }
    after = table.key.map((key) => last[columns.findIndex(({ name }) => name === key)] ?? '')
  }
}

/** Keys of the shop's tables are integers, so their text needs no quotes. */
function pageSql(table: ShopTable, texts: readonly string[], after: readonly string[] | null): string {
  const key = table.key.join(', ')
  const where = after === null ? '' : `WHERE (${key}) > (${after.join(', ')})`
  // Named anew: ORDER BY would take an output column called like the key, which is text.
  return `SELECT ${texts.map((text, index) => `${text} AS c${index}`).join(', ')} FROM ${SHOP_SCHEMA}.${table.name} ${where} ORDER BY ${key} LIMIT ${PAGE_ROWS}`
}

function differenceOf(source: readonly unknown[] | undefined, destination: readonly unknown[] | undefined, columns: readonly ComparedColumn[]): string | null {
  if (source === undefined) return 'only the destination has it'
  if (destination === undefined) return 'only the source has it'
  const wrong = columns.find((_, index) => source[index] !== destination[index])
  return wrong === undefined ? null : `column ${wrong.name} differs`
}

async function readColumns(source: pg.Client, table: string): Promise<readonly ComparedColumn[]> {
  const { rows } = await source.query<{ name: string; type: string; is_array: boolean }>(
    `SELECT attname AS name, format_type(atttypid, NULL) AS type, typcategory = 'A' AS is_array
     FROM pg_attribute JOIN pg_type ON pg_type.oid = atttypid
     WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum`,
    [`${SHOP_SCHEMA}.${table}`],
  )
  return rows.map(({ name, type, is_array: isArray }) => {
    if (isArray) return { name, sourceText: `to_json(${name}::text[])::text`, destinationText: `to_json(${name}::VARCHAR[])::VARCHAR` }
    if (type === 'timestamp with time zone') {
      return { name, sourceText: `(extract(epoch FROM ${name}) * 1000000)::bigint::text`, destinationText: `epoch_us(${name})::VARCHAR` }
    }
    return { name, sourceText: `${name}::text`, destinationText: `${name}::VARCHAR` }
  })
}

async function missingColumns(warehouse: Warehouse, wanted: { readonly table: string; readonly columns: readonly ComparedColumn[] }): Promise<readonly string[]> {
  const found = await warehouse.connection.runAndReadAll(
    `SELECT column_name FROM duckdb_columns() WHERE schema_name = '${SHOP_SCHEMA}' AND table_name = '${wanted.table}'`,
  )
  const names = found.getRowsJson().map(([name]) => name)
  return wanted.columns.map(({ name }) => name).filter((name) => !names.includes(name))
}
