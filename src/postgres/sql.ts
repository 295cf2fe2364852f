import pg from 'pg'
import { z } from 'zod'
import { DomainError } from '../model/errors.ts'
import type { TableName } from '../model/table-schema.ts'
import { toDomainError } from './sqlstate.ts'

/** The part of a session that statements need. */
export type SqlClient = Pick<pg.ClientBase, 'query'>

export interface Statement {
  readonly text: string
  readonly values?: readonly unknown[]
  /** The object that it is about, for errors. */
  readonly subject: string
}

/**
 * An identifier as SQL, quoted always: what needs no quotes in this version may need them in the next.
 *
 * Source: https://www.postgresql.org/docs/current/sql-syntax-lexical.html#SQL-SYNTAX-IDENTIFIERS
 */
export function quoteIdentifier(name: string): string {
  return pg.escapeIdentifier(name)
}

/** A text constant as SQL. For statements that take no parameters (DDL). */
export function quoteLiteral(text: string): string {
  return pg.escapeLiteral(text).trimStart()
}

/** A table's qualified name as SQL. */
export function quoteTable(table: TableName): string {
  return `${quoteIdentifier(table.schema)}.${quoteIdentifier(table.name)}`
}

/** Runs a query and parses its rows. Throws a `DomainError`; rows of another shape are a `ProtocolViolation`. */
export async function queryRows<T>(client: SqlClient, rowSchema: z.ZodType<T>, statement: Statement): Promise<T[]> {
  const rows = await runStatement(client, statement)
  const parsed = rowsSchemaOf(rowSchema).safeParse(rows)
  if (parsed.success) return parsed.data
  const where = parsed.error.issues.map((issue) => `${issue.path.join('.')}: ${issue.code}`).slice(0, 3)
  throw new DomainError({
    kind: 'ProtocolViolation',
    message: `${statement.subject}: the catalog has another shape than expected (${where.join(', ')})`,
    remedy: 'Report this with the server\'s version.',
  })
}

/** zod compiles a schema when it is used first: one for each, not for each query. */
const ROWS_SCHEMAS = new WeakMap<z.ZodType, z.ZodType>()

function rowsSchemaOf<T>(rowSchema: z.ZodType<T>): z.ZodType<T[]> {
  const known = ROWS_SCHEMAS.get(rowSchema) as z.ZodType<T[]> | undefined
  if (known !== undefined) return known
  const made = z.array(rowSchema)
  ROWS_SCHEMAS.set(rowSchema, made)
  return made
}

/** Like {@link queryRows} for a query that gives exactly one row. */
export async function queryRow<T>(client: SqlClient, rowSchema: z.ZodType<T>, statement: Statement): Promise<T> {
  const [row] = await queryRows(client, rowSchema, statement)
  if (row !== undefined) return row
  throw new DomainError({ kind: 'ProtocolViolation', message: `${statement.subject}: no row where one was expected`, remedy: 'Report this with the server\'s version.' })
}

/** Runs a statement for its effect. Throws a `DomainError`. */
export async function execute(client: SqlClient, statement: Statement): Promise<void> {
  await runStatement(client, statement)
}

/** Runs `work` in a transaction; rolls back when it throws. */
export async function inTransaction<T>(client: SqlClient, subject: string, work: () => Promise<T>): Promise<T> {
  await execute(client, { text: 'BEGIN', subject })
  try {
    const result = await work()
    await execute(client, { text: 'COMMIT', subject })
    return result
  } catch (error) {
    await client.query('ROLLBACK').catch(() => undefined)
    throw error
  }
}

async function runStatement(client: SqlClient, statement: Statement): Promise<unknown[]> {
  try {
    const result = await client.query<Record<string, unknown>>(statement.text, [...(statement.values ?? [])])
    return result.rows
  } catch (error) {
    throw toDomainError(error, { subject: statement.subject })
  }
}
