import type pg from 'pg'
import { inject } from 'vitest'
import type { Destination } from '../../src/model/destination.ts'
import type { ReplicationSpec } from '../../src/model/spec.ts'
import { destinationRows, differences, type Query, readFile } from './comparison.ts'
import { specOf, TestPipeline } from './pipeline.ts'
import { withoutScale } from './type-arbitraries.ts'

/** A table that is made and filled, copied, and changed round by round; `$t` stands for its name. */
export interface TableCase {
  readonly title: string
  readonly ddl: string
  /** Each statement is a transaction of its own, unless it brings its own BEGIN and COMMIT. */
  readonly rounds: readonly (readonly string[])[]
  /** The rows that are the table's own, as FROM names them. */
  readonly own?: string
  /** A column that must have become text. */
  readonly widened?: string
  /** Makes texts of one value equal, where the destination's may be another one. */
  readonly normal?: (cell: string) => string
}

/** When the changes come: all in one batch, each round in batches of its own, or the first round between the chunks of the copy. */
export type Pace = 'at once' | 'round by round' | 'while it is copied'

/** What became of a table. */
export interface CaseOutcome {
  readonly state: string
  readonly error: string | null
  /** Columns that only one side has, or that stand in another place, or that should be text and are not; of generated ones the source's count where they are published. */
  readonly otherColumns: readonly string[]
  readonly missing: readonly string[]
  readonly extra: readonly string[]
}

export const AS_AT_SOURCE: CaseOutcome = { state: 'streaming', error: null, otherColumns: [], missing: [], extra: [] }

/** So small that a handful of rows are several chunks. */
const CHUNK_ROWS = 3

/** Runs all cases in one pipeline over a whole schema, and compares each table with its source at the end. */
export async function runTableCases(url: string, cases: readonly TableCase[], run: { readonly slotName: string; readonly pace: Pace; readonly first?: string; readonly given?: Partial<ReplicationSpec> }): Promise<readonly CaseOutcome[]> {
  const tables = cases.map((given, index) => ({ ...given, table: `t${String(index)}` }))
  const changesOf = ({ table, rounds }: (typeof tables)[number], round: number): readonly string[] => (rounds[round] ?? []).map((sql) => named(sql, table))
  const whileCopying: { changed: Set<string>; pipeline: TestPipeline | null } = { changed: new Set(), pipeline: null }
  const onChunk = async (name: string): Promise<void> => {
    const table = tables.find((candidate) => candidate.table === name)
    if (run.pace !== 'while it is copied' || table === undefined || whileCopying.changed.has(name)) return
    whileCopying.changed.add(name)
    for (const sql of changesOf(table, 0)) await whileCopying.pipeline?.sql(sql)
  }
  await using pipeline = new TestPipeline(url, specOf({ slotName: run.slotName, tableNames: null, ...run.given }), { around: (destination) => inSmallChunks(destination, onChunk) })
  whileCopying.pipeline = pipeline
  await pipeline.sql(run.first ?? 'SELECT 1')
  for (const { table, ddl } of tables) await pipeline.sql(named(ddl, table))
  await pipeline.sql('ANALYZE')
  await pipeline.initialize()
  if (run.pace === 'while it is copied') await pipeline.catchUp()
  else await pipeline.copy()
  const roundCount = Math.max(...tables.map(({ rounds }) => rounds.length))
  for (let round = run.pace === 'while it is copied' ? 1 : 0; round < roundCount; round++) {
    for (const table of tables) for (const sql of changesOf(table, round)) await pipeline.sql(sql)
    if (run.pace === 'round by round') await pipeline.catchUp()
  }
  const { progress } = await pipeline.catchUp()
  await pipeline.release()
  return await readFile(pipeline.file, async (query) => {
    const outcomes: CaseOutcome[] = []
    for (const { table, own, widened, normal = withoutScale } of tables) {
      const seen = progress.tables[`public.${table}`]
      const placed = await heldColumns(query, table)
      const columns = [...placed].sort()
      const unwidened = widened === undefined ? [] : await query(`SELECT '${widened} is ' || data_type FROM duckdb_columns() WHERE schema_name = 'public' AND table_name = '${table}' AND column_name = '${widened}' AND data_type <> 'VARCHAR'`)
      const held = seen === undefined ? [] : await destinationRows(query, table)
      // By the types' output functions: some casts to text say it otherwise.
      const cells = columns.map((name) => `CASE WHEN "${name}" IS NULL THEN '∅' ELSE pg_catalog.format('%s', "${name}") END`)
      const { rows } = await pipeline.source.query<{ text: string }>(`SELECT ${cells.length === 0 ? "''" : cells.join(" || ' | ' || ")} AS text FROM ${named(own ?? '$t', table)}`)
      const asCells = (row: string): string => row.split(' | ').map(normal).join(' | ')
      outcomes.push({ state: seen?.state ?? 'none', error: seen?.error?.message ?? null, otherColumns: [...otherNames(placed, await publishedColumns(pipeline.source, table)), ...unwidened.map(String)], ...differences(held.map(asCells), rows.map(({ text }) => asCells(text))) })
    }
    return outcomes
  })
}

/** PostgreSQL publishes generated columns from here on, those that are stored. */
const GENERATED_SINCE = 18

/** The source's columns of a destination table in their places; ours begin with an underscore. */
export async function heldColumns(query: Query, table: string): Promise<readonly string[]> {
  const rows = await query(`SELECT column_name FROM duckdb_columns() WHERE schema_name = 'public' AND table_name = '${table}' AND column_name NOT LIKE '\\_%' ESCAPE '\\' ORDER BY column_index`)
  return rows.map(([name]) => String(name))
}

/** The columns that a table's rows are sent with, in their places. */
export async function publishedColumns(source: pg.Pool, table: string): Promise<readonly string[]> {
  const generated = inject('postgresMajor') >= GENERATED_SINCE ? "IN ('', 's')" : "= ''"
  const { rows } = await source.query<{ name: string }>(`SELECT attname::text AS name FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated ${generated} ORDER BY attnum`, [`public.${table}`])
  return rows.map(({ name }) => name)
}

/** Names of one side alone; where there are none, the first that stands in another place. */
export function otherNames(held: readonly string[], wanted: readonly string[]): readonly string[] {
  const alone = [...held.filter((name) => !wanted.includes(name)).map((name) => `+ ${name}`), ...wanted.filter((name) => !held.includes(name)).map((name) => `- ${name}`)]
  return (alone.length > 0 ? alone : held.filter((name, index) => name !== wanted[index])).slice(0, 5)
}

function named(sql: string, table: string): string {
  return sql.replaceAll('$t', table)
}

/** The destination with chunks of a few rows; `onChunk` is called behind each that was copied, while the others are not. */
function inSmallChunks(destination: Destination, onChunk: (table: string) => Promise<void>): Destination {
  return new Proxy(destination, {
    get: (target, property) => {
      if (property === 'chunkRows') return CHUNK_ROWS
      if (property === 'applyChunks') {
        return async (...given: Parameters<Destination['applyChunks']>) => {
          const result = await target.applyChunks(...given)
          for (const { table } of given[1]) await onChunk(table.source.name)
          return result
        }
      }
      const value: unknown = Reflect.get(target, property, target)
      return typeof value === 'function' ? (value.bind(target) as unknown) : value
    },
  })
}
