import type { PipelineKey, TableRecord } from '../../model/destination.ts'
import { shapesOf } from '../../model/shapes.ts'
import { tableKey, type TableName } from '../../model/table-schema.ts'
import { namesOf, namesTaken, type TakenName } from './checkpoint.ts'
import type { DatabaseSession } from './database.ts'

/**
 * What the destination's names are taken by, read once for many tables: DuckDB's catalog is read whole for each question, which for a thousand
 * tables takes it milliseconds.
 */
export class NamesThere {
  readonly databaseName: string
  readonly #holders = new Map<string, TakenName[]>()
  readonly #tables: Set<string>

  private constructor(databaseName: string, taken: readonly TakenName[], tables: readonly TableName[]) {
    this.databaseName = databaseName
    this.#tables = new Set(tables.map(foldedCase))
    for (const name of taken) this.#note(name)
  }

  static async read(session: DatabaseSession): Promise<NamesThere> {
    const [database] = await session.rows('SELECT current_database()')
    const tables = await session.rows('SELECT schema_name, table_name FROM duckdb_tables() WHERE NOT temporary AND database_name = current_database()')
    return new NamesThere(String(database?.[0]), await namesTaken(session), tables.map(([schema, name]) => ({ schema: String(schema), name: String(name) })))
  }

  /** Whose name it is, in whatever case. */
  holdersOf(name: TableName): readonly TakenName[] {
    return this.#holders.get(tableKey(name).toLowerCase()) ?? []
  }

  /** Does the table exist, in whatever case of ASCII letters? */
  hasTable(name: TableName): boolean {
    return this.#tables.has(foldedCase(name))
  }

  /** A table was made under a name that nobody had. */
  add(record: TableRecord, pipeline: PipelineKey): void {
    for (const { table } of shapesOf(record, record.target)) this.#tables.add(foldedCase(table))
    for (const name of namesOf(record, pipeline)) this.#note(name)
  }

  #note(taken: TakenName): void {
    const key = tableKey(taken.name).toLowerCase()
    const holders = this.#holders.get(key)
    if (holders === undefined) this.#holders.set(key, [taken])
    else holders.push(taken)
  }
}

/** DuckDB takes two names for one that differ in the case of ASCII letters only. */
function foldedCase({ schema, name }: TableName): string {
  return JSON.stringify([schema, name]).replaceAll(/[A-Z]/g, (letter) => letter.toLowerCase())
}
