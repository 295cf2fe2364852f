import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import type { DuckdbDestinationConfig } from '../config.ts'
import { cannotHold } from '../destinations/duckdb/cannot-hold.ts'
import { closeIdleDatabases } from '../destinations/duckdb/database.ts'
import { openDuckDbDestination } from '../destinations/duckdb/destination.ts'
import type { TableRegistration } from '../model/destination.ts'
import { DomainError } from '../model/errors.ts'
import { shellWord } from '../model/remedy.ts'
import { tableKey } from '../model/table-schema.ts'
import type { SourceCredentials } from '../postgres/credentials.ts'
import { readValues, type ReadValues } from '../postgres/value-reader.ts'
import { rehearse, type RehearsedColumn } from '../replication/rehearsal.ts'
import type { Check } from './check.ts'

/** How a column would be held. */
export interface ColumnFidelity {
  readonly column: string
  /** As PostgreSQL writes it: `numeric(12,2)`. */
  readonly sourceType: string
  readonly destinationType: string
  /** True where a hint asks for the type: then it is never widened. */
  readonly isHinted: boolean
  /** Which values the type cannot hold; empty where it holds all. */
  readonly cannotHold: string
  /** Whether every value that was looked at is held exactly. */
  readonly isExact: boolean
}

export interface TableFidelity {
  /** Rows looked at. */
  readonly rows: number
  /** True where no row was left out. */
  readonly isWhole: boolean
  readonly columns: readonly ColumnFidelity[]
}

export interface Fidelity {
  readonly checks: readonly Check[]
  /** By `schema.table`, as in results and `status`. */
  readonly tables: Readonly<Record<string, TableFidelity>>
}

/** What a start would copy. */
export interface PlannedTables {
  /** Throws a `DomainError` where a start would. */
  readonly registrations: () => readonly TableRegistration[]
  /** The publication's row filter of a table, by oid, as SQL; null = all rows. */
  readonly rowFilterOf: (oid: number) => string | null
}

export interface FidelityRequest {
  readonly credentials: SourceCredentials
  readonly tables: PlannedTables
  readonly destination: DuckdbDestinationConfig
  /** True: every row is looked at, not a sample. */
  readonly isFull: boolean
}

/**
 * Tells of each table how its columns would be held, and whether what they hold now would be held exactly. A rehearsal: values are copied as the
 * first load copies them, into a DuckDB file in a folder of its own that is removed. One table at a time, by one connection.
 */
export async function checkFidelity({ credentials, tables: planned, destination, isFull }: FidelityRequest): Promise<Fidelity> {
  let registrations: readonly TableRegistration[]
  try {
    registrations = planned.registrations()
  } catch (error) {
    if (!(error instanceof DomainError)) throw error
    return { checks: [failure('tables', error)], tables: {} }
  }
  const checks: Check[] = []
  const tables: Record<string, TableFidelity> = {}
  for (const registration of registrations) {
    const { source } = registration
    const rowFilter = planned.rowFilterOf(source.oid)
    let read: ReadValues = { rowCount: 0, isWhole: false }
    try {
      const columns = await withScratchFile(async (path) => {
        const scratch = await openDuckDbDestination({ ...destination, path })
        try {
          return await rehearse(scratch, registration, async (onRow) => {
            read = await readValues(credentials, { table: source, rowFilter, isSample: !isFull }, onRow)
          })
        } finally {
          await scratch.close()
        }
      })
      tables[tableKey(source)] = { rows: read.rowCount, isWhole: read.isWhole, columns: columns.map(fidelityOf) }
      checks.push(...checksOf(registration, columns, read))
    } catch (error) {
      if (!(error instanceof DomainError)) throw error
      // What the role may not read, the checks of its privileges tell.
      if (error.kind !== 'PrivilegeMissing') checks.push(failure(`table ${tableKey(source)}`, error))
    }
  }
  return { checks, tables }
}

async function withScratchFile<T>(use: (path: string) => Promise<T>): Promise<T> {
  const folder = mkdtempSync(join(tmpdir(), 'pg-replication-doctor-'))
  const remove = (): void => { rmSync(folder, { recursive: true, force: true }) }
  const onInterrupt = (): void => {
    remove()
    process.exit(130)
  }
  process.once('SIGINT', onInterrupt)
  try {
    return await use(join(folder, 'rehearsal.duckdb'))
  } finally {
    await closeIdleDatabases()
    process.removeListener('SIGINT', onInterrupt)
    remove()
  }
}

function fidelityOf({ column, isExact }: RehearsedColumn): ColumnFidelity {
  return {
    column: column.name,
    sourceType: column.typeName,
    destinationType: column.type,
    isHinted: column.isPinned,
    cannotHold: cannotHold(column),
    isExact,
  }
}

const NAME = 'fidelity'

function failure(subject: string, { message, remedy }: DomainError): Check {
  return { subject, name: NAME, state: 'failure', message, remedy }
}

function checksOf({ source }: TableRegistration, columns: readonly RehearsedColumn[], { rowCount, isWhole }: ReadValues): readonly Check[] {
  const subject = `table ${tableKey(source)}`
  const rows = `${rowCount.toLocaleString('en')} ${isWhole ? (rowCount === 1 ? 'row' : 'rows') : 'sampled rows'}`
  const misfits = columns.filter(({ isExact }) => !isExact)
  if (misfits.length === 0) return [{ subject, name: NAME, state: 'ok', message: `${rows}: every value is held exactly`, remedy: null }]
  return misfits.map(({ column }): Check => {
    const { name, typeName, type, isPinned } = column
    const found = `column ${JSON.stringify(name)} (${typeName}): among ${rows} is a value that does not fit ${type}`
    if (!isPinned) return { subject, name: NAME, state: 'warning', message: `${found}: the column will become VARCHAR`, remedy: WIDENED }
    const hint = JSON.stringify({ [spelling(source.schema, source.name)]: { [name]: { dataType: 'VARCHAR' } } })
    return {
      ...{ subject, name: NAME, state: 'failure', message: `${found}, which a hint asks for: the table would stop` },
      remedy: `change such values at the source (${cannotHold(column)}), or give another hint: --columns ${shellWord(hint)}`,
    }
  })
}

const WIDENED = 'nothing, if PostgreSQL\'s text will do (docs/types.md); else change such values at the source before the start, or give a hint that holds them'

/** The table as `columns` takes it, whatever dots its names have. */
function spelling(schema: string, name: string): string {
  const isPlain = /^[^".]+$/
  if (isPlain.test(schema) && isPlain.test(name)) return `${schema}.${name}`
  const quoted = (part: string): string => `"${part.replaceAll('"', '""')}"`
  return `${quoted(schema)}.${quoted(name)}`
}
