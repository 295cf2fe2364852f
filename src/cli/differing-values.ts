import { setTimeout as sleep } from 'node:timers/promises'

import type { DuckDBConnection, DuckDBInstance } from '@duckdb/node-api'

import type { DuckdbDestinationConfig } from '../config.ts'
import { readPipeline } from '../destinations/duckdb/checkpoint.ts'
import { selectCurrent } from '../destinations/duckdb/current-rows.ts'
import { DatabaseSession } from '../destinations/duckdb/database.ts'
import { quoteName, quoteText } from '../destinations/duckdb/sql.ts'
import { toPostgresText } from '../destinations/duckdb/type-mapping.ts'
import { Watches } from '../destinations/duckdb/watched-rows.ts'
import { shapingThere, type TableRecord } from '../model/destination.ts'
import { type Shape, shapesOf } from '../model/shapes.ts'
import { tableKey } from '../model/table-schema.ts'
import type { NamedDifference } from '../model/verification.ts'
import type { SourceCredentials } from '../postgres/credentials.ts'
import { createSource } from '../postgres/source.ts'
import { schemaOf } from '../replication/copier.ts'
import { printable, printableString } from './printable.ts'
import { isHeldElsewhere, openReadOnly } from './show.ts'
import { textTable } from './status-text.ts'

/** Where both sides are, and the tables' differences, by `schema.table`. */
export interface ValuesRequest {
  readonly credentials: SourceCredentials
  readonly destination: DuckdbDestinationConfig
  readonly sourceName: string
  readonly slotName: string
  readonly publicationName: string
  readonly differences: Readonly<Record<string, readonly NamedDifference[]>>
}

/** One side's rows of a key, as text by column; there may be several, or none. */
type Rows = readonly (readonly (string | null)[])[]

/** A worker that has just ended its work closes the file 5 s later. */
const FREE_WITHIN_MS = 10_000
const ASK_MS = 500
/** Characters of a value that are shown, around the first that differs. */
const SHOWN = 120

/**
 * The values of rows that differ, of both sides, as they are now: for a terminal. Nothing of it is stored anywhere. Throws `DestinationFailed` where another process
 * has the DuckDB file open.
 */
export async function differingValues({ credentials, destination, sourceName, slotName, publicationName, differences }: ValuesRequest): Promise<string> {
  const source = createSource(credentials, publicationName)
  try {
    const instance = await openWhenFree(destination)
    try {
      const connection = await instance.connect()
      await connection.run("SET TimeZone = 'UTC'")
      const state = await readPipeline(new DatabaseSession(connection, new Watches()), { source: sourceName, slotName })
      const records = state?.tables ?? []
      const blocks: string[] = []
      for (const [name, named] of Object.entries(differences)) {
        const record = records.find((other) => other.state !== 'removed' && tableKey(other.source) === name)
        if (record === undefined) continue
        for (const difference of named) {
          const { key } = difference
          if (!isWhole(key)) continue
          const columns = record.columns.filter(({ isDropped }) => !isDropped).map((column) => column.name)
          const { rows: there } = await source.readRows(schemaOf(record), [key], columns)
          const title = `${printable(name)} ${difference.kind} ${record.key.map((column, index) => `${printable(column)} = ${printableString(key[index] ?? '')}`).join(', ')}`
          const shapes = shapesOf(shapingThere(record), record.target)
          const differing: string[] = []
          for (const shape of shapes) {
            const place = shapes.length === 1 ? '' : ` in ${printable(tableKey(shape.table))}`
            differing.push(...blockOf(`${title}${place}`, columns, { source: there, destination: await readHere(connection, { record, shape, key }) }))
          }
          blocks.push(...(differing.length === 0 ? [`${title}: the same values by now`] : differing))
        }
      }
      connection.closeSync()
      return blocks.join('\n')
    } finally {
      instance.closeSync()
    }
  } finally {
    await source.close()
  }
}

function isWhole(key: NamedDifference['key']): key is readonly string[] {
  return key?.every((value) => value !== null) === true
}

async function openWhenFree(destination: DuckdbDestinationConfig): Promise<DuckDBInstance> {
  const deadlineMs = performance.now() + FREE_WITHIN_MS
  for (;;) {
    try {
      return await openReadOnly(destination)
    } catch (error) {
      if (!isHeldElsewhere(error) || performance.now() > deadlineMs) throw error
      await sleep(ASK_MS)
    }
  }
}

async function readHere(connection: DuckDBConnection, { record, shape, key }: { readonly record: TableRecord; readonly shape: Shape; readonly key: readonly string[] }): Promise<Rows> {
  const textOf = (name: string): string => `CAST(${toPostgresText(record.columns.find((column) => column.name === name)?.type ?? 'VARCHAR', quoteName(name))} AS VARCHAR)`
  const where = record.key.map((name, index) => `${textOf(name)} = ${quoteText(key[index] ?? '')}`).join(' AND ')
  const live = record.columns.filter(({ isDropped }) => !isDropped).map(({ name }) => textOf(name))
  const rows = await connection.runAndReadAll(`SELECT ${live.join(', ')} FROM (${selectCurrent(shape, record, where)})`)
  return rows.getRowsJson() as (string | null)[][]
}

/** A row's columns, both sides beside each other: of a row that both have, those that differ. None where nothing does. */
function blockOf(title: string, columns: readonly string[], sides: { readonly source: Rows; readonly destination: Rows }): readonly string[] {
  const [ours] = sides.destination
  const [theirs] = sides.source
  const lines = columns.flatMap((column, index) => {
    const [a, b] = [theirs?.[index], ours?.[index]]
    if (theirs !== undefined && ours !== undefined && a === b) return []
    return [[printable(column), cellOf(a, b), cellOf(b, a)]]
  })
  const count = sides.destination.length > 1 ? ` (${String(sides.destination.length)} rows at the destination)` : ''
  if (lines.length > 0) return [`${title}${count}:\n${textTable(['column', 'source', 'destination'], lines)}`]
  return count === '' ? [] : [`${title}${count}`]
}

/** A value as a JSON string, so that what is in it does nothing to the terminal; `-` where that side has no such row. */
function cellOf(value: string | null | undefined, other: string | null | undefined): string {
  if (value === undefined) return '-'
  if (value === null) return 'NULL'
  if (value.length <= SHOWN) return printableString(value)
  let at = 0
  while (at < value.length && value[at] === (other ?? '')[at]) at++
  const from = Math.max(0, Math.min(at - SHOWN / 2, value.length - SHOWN))
  return `${from > 0 ? `…(${String(from)}) ` : ''}${printableString(value.slice(from, from + SHOWN))}${from + SHOWN < value.length ? ` …(${String(value.length)} characters)` : ''}`
}
