import { z } from 'zod'
import type { ChangedTable, KeyRange, SmallTable } from '../model/source.ts'
import { tableKey, type TableSchema } from '../model/table-schema.ts'
import { beginWithTable, type KnownTable, type LockedTable } from './locked-table.ts'
import { execute, queryRows, quoteIdentifier, type SqlClient } from './sql.ts'
import type { StoredTable } from './stored-table.ts'

/** Rows of a range may be this many times the target before it is worth a second one. */
const TOLERANCE = 1.5
/** So many pages a range, one of each stretch of the table, make ranges differ by two or three percent. */
const SPREAD_PAGES_PER_RANGE = 40
/** Pages at random say less where a page holds neighbours: ranges differ by some ten percent. */
const RANDOM_PAGES_PER_RANGE = 120
/** Where there are very many ranges. */
const MINIMUM_PAGES_PER_RANGE = 20
const MAXIMUM_SAMPLED_PAGES = 20_000
const SAMPLED_ROWS_PER_RANGE = 100
/** Up to here a table is sampled whole. */
const MINIMUM_SAMPLED_ROWS = 20_000
/** What the server has to sort at most (about). */
const SORTED_ROWS_PER_RANGE = 1_000
const MAXIMUM_SORTED_ROWS = 200_000

/**
 * Where rows lie in another order than that of their key (random uuids), each range's rows are on nearly every page: reading them in many
 * ranges reads the table as often. Tables that fit into a cache do not care.
 */
const MAXIMUM_SCATTERED_RANGES = 8
const SCATTERED_CORRELATION = 0.5
const SCATTERED_MINIMUM_PAGES = 8_192

export interface ChunkPlan {
  readonly tag: 'plan'
  /** In key order; the first is open below and the last open above, and each begins where the one before it ends. */
  readonly ranges: readonly KeyRange[]
  /** The planner's estimate: after many changes without ANALYZE it can be far off. */
  readonly estimatedRows: number
}

export interface ChunkPlanRequest extends KnownTable {
  readonly targetRows: number
}

const EVERYTHING: KeyRange = { lower: null, upper: null }

/**
 * Ranges of about `targetRows` rows each, covering every key that there is or will be, for keys of any type and number of
 * columns: quantiles of a sample of pages, taken in the key's own order, by three short statements whatever the table's size.
 * A table without a key, or of little more than `targetRows` rows, has one range.
 *
 * A table that has another shape by now gets no plan.
 *
 * Source: https://www.postgresql.org/docs/current/sql-select.html#SQL-FROM (TABLESAMPLE)
 */
export async function planChunks(client: SqlClient, request: ChunkPlanRequest): Promise<ChunkPlan | ChangedTable> {
  const locked = await beginWithTable(client, request)
  if (locked.tag === 'changed') return locked
  const plan = await planRanges(client, request, locked)
  await execute(client, { subject: `key ranges of table ${tableKey(request.table)}`, text: 'ROLLBACK' })
  return { tag: 'plan', ...plan }
}

const SIZE_ROW = z.object({ oid: z.number(), byteCount: z.number().nullable(), mostRows: z.number().nullable(), estimatedRows: z.number() })

/**
 * Ordinary tables (by oid) whose pages have no room for more rows than a range may have: {@link planChunks} would give them one. A size is asked for
 * behind a lock that is held alone: tables with one are left out. Whether they have the shape that is known shows when they are read.
 *
 * Source: https://www.postgresql.org/docs/current/storage-page-layout.html: a page has a header of 24 bytes, a row one of 24 and a pointer of 4
 */
export async function findSmallTables(client: SqlClient, oids: readonly number[], targetRows: number): Promise<ReadonlyMap<number, SmallTable>> {
  const rows = await queryRows(client, SIZE_ROW, {
    subject: 'sizes of tables',
    values: [[...oids]],
    text: `
      WITH open AS MATERIALIZED (
        SELECT c.oid, greatest(0, c.reltuples)::float8 AS "estimatedRows" FROM pg_class c
         WHERE c.oid = ANY ($1::oid[]) AND c.relkind = 'r' AND c.oid NOT IN (
           SELECT l.relation FROM pg_locks l JOIN pg_database d ON d.oid = l.database WHERE d.datname = current_database() AND l.relation IS NOT NULL AND l.mode = 'AccessExclusiveLock'))
      SELECT o.oid, s.size::float8 AS "byteCount", s.size::float8 / b.size * floor((b.size - 24) / 28.0)::float8 AS "mostRows", "estimatedRows"
        FROM open o CROSS JOIN LATERAL pg_relation_size(o.oid) s(size) CROSS JOIN (SELECT current_setting('block_size')::int8) b(size)`,
  })
  return new Map(rows.flatMap(({ oid, byteCount, mostRows, estimatedRows }) =>
    // Where it is being dropped it has no size.
    byteCount === null || mostRows === null || mostRows > targetRows * TOLERANCE ? [] : [[oid, { byteCount, estimatedRows }] as const]))
}

async function planRanges(client: SqlClient, { table, targetRows }: ChunkPlanRequest, { stored, rowFilter: filter }: LockedTable): Promise<Omit<ChunkPlan, 'tag'>> {
  const estimatedRows = await estimateRows(client, table, { stored, filter })
  if (table.key.length === 0 || estimatedRows <= targetRows * TOLERANCE) return { ranges: [EVERYTHING], estimatedRows }
  const sample = await sampleBoundaries(client, table, { stored, filter, estimatedRows, targetRows })
  const isScattered = Math.abs(sample.correlation) < SCATTERED_CORRELATION && stored.pageCount > SCATTERED_MINIMUM_PAGES
  const boundaries = isScattered ? everyNth(sample.boundaries, MAXIMUM_SCATTERED_RANGES - 1) : sample.boundaries
  return { ranges: rangesBetween(boundaries), estimatedRows }
}

/** Ranges that meet at these boundaries, which must be in key order and distinct. */
export function rangesBetween(boundaries: readonly (readonly string[])[]): readonly KeyRange[] {
  return [...boundaries, null].map((upper, index) => ({ lower: index === 0 ? null : (boundaries[index - 1] ?? null), upper }))
}

/** At most `count` of them, evenly spread. */
function everyNth<T>(items: readonly T[], count: number): readonly T[] {
  if (items.length <= count) return items
  const step = (items.length + 1) / (count + 1)
  return items.filter((_, index) => Math.floor((index + 1) / step) > Math.floor(index / step))
}

async function estimateRows(client: SqlClient, table: TableSchema, from: { readonly stored: StoredTable; readonly filter: string | null }): Promise<number> {
  const plan = z.object({ 'QUERY PLAN': z.array(z.object({ Plan: z.object({ 'Plan Rows': z.number() }) })) })
  const [row] = await queryRows(client, plan, {
    subject: `size of table ${tableKey(table)}`,
    text: `EXPLAIN (FORMAT JSON) SELECT FROM ${from.stored.from}${where(from.filter)}`,
  })
  return row?.['QUERY PLAN'][0]?.Plan['Plan Rows'] ?? 0
}

interface SampleOptions {
  readonly stored: StoredTable
  readonly filter: string | null
  readonly estimatedRows: number
  readonly targetRows: number
}

interface BoundarySample {
  readonly boundaries: readonly (readonly string[])[]
  /** Of the order of keys with the order of pages, −1 … 1; 1 where it is not known. */
  readonly correlation: number
}

async function sampleBoundaries(client: SqlClient, table: TableSchema, options: SampleOptions): Promise<BoundarySample> {
  const { stored, estimatedRows, targetRows } = options
  const rangeCount = Math.ceil(estimatedRows / targetRows)
  const pagesPerRange = stored.isHeap ? SPREAD_PAGES_PER_RANGE : RANDOM_PAGES_PER_RANGE
  const share = Math.min(
    1,
    Math.max(
      Math.max(rangeCount * MINIMUM_PAGES_PER_RANGE, Math.min(rangeCount * pagesPerRange, MAXIMUM_SAMPLED_PAGES)) / Math.max(1, stored.pageCount),
      (rangeCount * SAMPLED_ROWS_PER_RANGE) / estimatedRows,
      MINIMUM_SAMPLED_ROWS / estimatedRows,
    ),
  )
  const sortedRows = Math.min(MAXIMUM_SORTED_ROWS, Math.max(MINIMUM_SAMPLED_ROWS, rangeCount * SORTED_ROWS_PER_RANGE))
  const thinning = Math.min(1, sortedRows / (share * estimatedRows))
  // The sample's own size tells how many rows there are, which after many changes the planner does not know.
  const sampledRowsPerRange = Math.max(1, targetRows * share * thinning)
  const conditions = [...(options.filter === null ? [] : [`(${options.filter})`]), ...(thinning < 1 ? [`random() < ${thinning.toFixed(6)}`] : [])]
  const keys = table.key.map((name, index) => `${quoteIdentifier(name)} AS k${index}`).join(', ')
  const names = table.key.map((_, index) => `k${index}`).join(', ')
  // ctid is written (page,item), which a point is too. Pages of different partitions say nothing of each other.
  const page = stored.isPartitioned ? 'NULL::float8' : '((ctid::text)::point)[0]'
  const rows = await queryRows(client, z.object({ boundary: z.array(z.string()), correlation: z.number().nullable() }), {
    subject: `key ranges of table ${tableKey(table)}`,
    text: `
      SELECT ARRAY[${table.key.map((_, index) => `pg_catalog.format('%s', k${index})`).join(', ')}] AS boundary, correlation
        FROM (
          SELECT ${names}, tile, lead(tile) OVER (ORDER BY ${names}) AS next_tile, corr(position, page) OVER () AS correlation
            FROM (
              SELECT ${names}, page, ntile(greatest(1, round(total / ${sampledRowsPerRange}))::int) OVER (ORDER BY ${names}) AS tile, row_number() OVER (ORDER BY ${names}) AS position
                FROM (
                  SELECT *, count(*) OVER ()::float8 AS total FROM (${sampledRows(stored, share, { select: `${keys}, ${page} AS page`, conditions })}) AS read
                ) AS sampled
            ) AS tiled
        ) AS bordered
       WHERE tile <> next_tile
       ORDER BY ${names}`,
  })
  return { boundaries: rows.map((row) => row.boundary), correlation: rows[0]?.correlation ?? 1 }
}

/**
 * The rows of a share (0 … 1) of the table's pages, as SQL: of a heap one page of each of as many stretches of equal length, else pages at random. Where rows lie in the order of
 * their key, the former tell the quantiles with a fifth of the error for a third of the pages.
 *
 * Source: https://www.postgresql.org/docs/14/release-14.html (ranges of ctid are read as such)
 */
function sampledRows({ from, isHeap, pageCount }: StoredTable, share: number, { select, conditions }: { readonly select: string; readonly conditions: readonly string[] }): string {
  if (!isHeap || share === 1) return `SELECT ${select} FROM ${from} TABLESAMPLE SYSTEM (${(share * 100).toFixed(6)})${where(conditions.join(' AND '))}`
  const count = Math.ceil(share * pageCount)
  const stretch = pageCount / count
  const pages = `SELECT (floor(i * ${stretch.toFixed(6)}::float8) + floor(random() * ${Math.floor(stretch).toFixed(0)}))::int8 AS __page FROM generate_series(0, ${(count - 1).toFixed(0)}) AS i OFFSET 0`
  const isOnPage = "ctid >= pg_catalog.format('(%s,0)', __pages.__page)::tid AND ctid < pg_catalog.format('(%s,0)', __pages.__page + 1)::tid"
  // OFFSET 0 keeps the page a parameter of the scan: as a condition of a join the whole table would be read for each.
  return `SELECT read.* FROM (${pages}) AS __pages CROSS JOIN LATERAL (SELECT ${select} FROM ${from} WHERE ${[isOnPage, ...conditions].join(' AND ')} OFFSET 0) AS read`
}

function where(condition: string | null): string {
  return condition === null || condition === '' ? '' : ` WHERE ${condition}`
}
