import { existsSync } from 'node:fs'

import { type DuckDBConnection, DuckDBInstance } from '@duckdb/node-api'
import type { Command } from 'commander'

import { type DuckdbDestinationConfig, loadConfig, resolveDestination } from '../config.ts'
import { DomainError } from '../model/errors.ts'
import { formatLsn, toLsn } from '../model/lsn.ts'
import { type Shaping, shapesOf } from '../model/shapes.ts'
import type { WriteMode } from '../model/spec.ts'
import { answer } from './answer.ts'
import { textTable } from './status-text.ts'

/** A table of the destination, as its file has it. */
interface ShownTable {
  readonly table: string
  readonly rows: number
  /** LSN text; null where nothing of a replication stands in it. */
  readonly lastCommitLsn: string | null
  readonly sourceTable: string | null
  readonly writeMode: string | null
  readonly state: string | null
}

interface ShownPipeline {
  readonly source: string
  readonly slotName: string
  readonly appliedLsn: string | null
  readonly updatedAt: string | null
}

export interface ShownDestination {
  readonly destination: string
  readonly path: string
  readonly pipelines: readonly ShownPipeline[]
  readonly tables: readonly ShownTable[]
}

/** `show [destination]`: its tables with row counts and LSNs. */
export function addShow(program: Command): void {
  const command = program
    .command('show')
    .description('show the tables of a destination, with row counts and LSNs')
    .argument('[destination]', 'a [destinations.*] name (default: the only one)')
  answer(command, async ([name]) => {
    const destination = resolveDestination(loadConfig({ env: process.env }), name ?? null)
    const document = await readDestination(destination)
    return { document, text: destinationText(document) }
  })
}

/** Reads the file beside no writer. Throws `DestinationFailed` where it is missing or another process has it. */
export async function readDestination(destination: DuckdbDestinationConfig): Promise<ShownDestination> {
  const { name, path } = destination
  if (destination.isLocalFile && !existsSync(path)) {
    throw new DomainError({
      kind: 'DestinationFailed',
      message: `destination ${name} does not exist yet: there is no file ${path}`,
      remedy: 'npm run cli -- start makes it',
      permanent: true,
    })
  }
  const instance = await openReadOnly(destination)
  try {
    const connection = await instance.connect()
    try {
      return { destination: name, path, ...(await readTables(connection)) }
    } finally {
      connection.closeSync()
    }
  } finally {
    instance.closeSync()
  }
}

/** Does another process have the file, as {@link openReadOnly} found? */
export function isHeldElsewhere(error: unknown): boolean {
  return error instanceof DomainError && error.kind === 'DestinationFailed' && error.message.includes(BEING_WRITTEN)
}

const BEING_WRITTEN = 'is being written: another process has'

/** Opens the file so that nothing in it can change. */
export async function openReadOnly({ name, path }: DuckdbDestinationConfig): Promise<DuckDBInstance> {
  try {
    return await DuckDBInstance.create(path, { access_mode: 'READ_ONLY' })
  } catch (error) {
    const text = error instanceof Error ? error.message : ''
    const holder = /PID (\d+)/.exec(text)?.[1]
    if (!text.includes('Could not set lock on file')) {
      throw new DomainError({
        kind: 'DestinationFailed',
        message: `destination ${name}: ${path} cannot be opened: ${text.split('\n')[0] ?? ''}`,
        remedy: 'see that it is a DuckDB file of this version that this user can read',
      })
    }
    throw new DomainError({
      kind: 'DestinationFailed',
      message: `destination ${name} ${BEING_WRITTEN} ${path} open${holder === undefined ? '' : ` (pid ${holder})`}`,
      remedy: 'npm run cli -- status shows live counts; to read the file, pause or stop the replication first: the worker closes it within 5 s',
    })
  }
}

async function query(connection: DuckDBConnection, sql: string): Promise<readonly (readonly unknown[])[]> {
  return (await connection.runAndReadAll(sql)).getRowsJson()
}

function quote(name: string): string {
  return `"${name.replaceAll('"', '""')}"`
}

const text = (value: unknown): string | null => (typeof value === 'string' ? value : null)

function lsnText(decimal: unknown): string | null {
  return typeof decimal === 'string' || typeof decimal === 'number' ? formatLsn(toLsn(BigInt(decimal))) : null
}

async function readTables(connection: DuckDBConnection): Promise<{ readonly pipelines: readonly ShownPipeline[]; readonly tables: readonly ShownTable[] }> {
  const found = await query(
    connection,
    `SELECT schema_name, table_name FROM duckdb_tables()
     WHERE database_name = current_database() AND NOT internal ORDER BY schema_name, table_name`,
  )
  const names = found.map(([schema, table]) => ({ schema: String(schema), table: String(table) }))
  const has = (table: string): boolean => names.some((name) => name.schema === '_replication' && name.table === table)
  const replicated = has('tables')
    ? await query(
        connection,
        'SELECT target_schema, target_table, source_schema, source_table, write_mode, state, last_commit_lsn, definition::VARCHAR FROM _replication.tables',
      )
    : []
  const checkpoints = has('checkpoints')
    ? await query(connection, 'SELECT source, slot_name, applied_lsn, updated_at::VARCHAR FROM _replication.checkpoints ORDER BY source, slot_name')
    : []
  const shapes = replicated.flatMap((row) => {
    const definition = JSON.parse(text(row[7]) ?? '{}') as Partial<Shaping> & { readonly copy?: { readonly former?: Shaping } | null }
    const shaping = definition.copy?.former ?? { writeMode: row[4] as WriteMode, ...definition }
    return shapesOf(shaping, { schema: String(row[0]), name: String(row[1]) }).map(({ kind, table }) => ({ schema: table.schema, table: table.name, mode: kind === 'soft' ? 'merge' : kind, row }))
  })
  const tables: ShownTable[] = []
  for (const { schema, table } of names) {
    if (schema === '_replication') continue
    const [count] = await query(connection, `SELECT count(*)::VARCHAR FROM ${quote(schema)}.${quote(table)}`)
    const { mode, row } = shapes.find((shape) => shape.schema === schema && shape.table === table) ?? { mode: null, row: [] }
    const [, , sourceSchema, sourceTable, , state, lsn] = row
    tables.push({
      table: `${schema}.${table}`,
      rows: Number(count?.[0] ?? 0),
      lastCommitLsn: text(lsn),
      sourceTable: typeof sourceTable === 'string' && typeof sourceSchema === 'string' ? `${sourceSchema}.${sourceTable}` : null,
      writeMode: mode,
      state: text(state),
    })
  }
  return {
    pipelines: checkpoints.map(([source, slotName, appliedLsn, updatedAt]) => ({
      source: String(source),
      slotName: String(slotName),
      appliedLsn: lsnText(appliedLsn),
      updatedAt: text(updatedAt),
    })),
    tables,
  }
}

function destinationText({ path, pipelines, tables }: ShownDestination): string {
  const rows = tables.map((table) => [
    table.table,
    table.rows.toLocaleString('en'),
    table.writeMode ?? '–',
    table.state ?? 'not replicated',
    table.lastCommitLsn ?? '–',
  ])
  return [
    path,
    ...pipelines.map(({ source, slotName, appliedLsn, updatedAt }) => `source ${source}, slot ${slotName}: applied ${appliedLsn ?? '–'} (${updatedAt ?? '–'})`),
    tables.length === 0 ? 'no tables yet' : textTable(['table', 'rows', 'mode', 'state', 'last commit LSN'], rows),
  ].join('\n')
}
