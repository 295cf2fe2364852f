import type { ReplicationStatus, TableStatus } from '../model/status.ts'

/** What several readings of one replication tell. */
export interface Trend {
  /** Rows and changes per second over all tables; null where two readings do not tell. */
  readonly rowsPerSecond: number | null
  /** The same by `schema.table`. */
  readonly tableRates: Readonly<Record<string, number>>
  /** By `schema.table`, of those that are copied: how long the rest takes if it goes on as it did in these readings. */
  readonly remainingMs: Readonly<Record<string, number>>
  /** Lag in bytes, oldest first; null = not known. */
  readonly lagBytes: readonly (number | null)[]
}

/** A sparkline's width. */
const MAX_READINGS = 40

/** The newest readings of a replication that is watched. */
export class Readings {
  #readings: readonly ReplicationStatus[] = []

  /** Figures of a moment that was seen before tell nothing new. */
  add(status: ReplicationStatus): void {
    if (this.#readings.at(-1)?.asOf === status.asOf) return
    this.#readings = [...this.#readings, status].slice(-MAX_READINGS)
  }

  /** Null before the first reading. */
  get trend(): Trend | null {
    const [earlier, later] = this.#readings.slice(-2)
    if (earlier === undefined) return null
    const lagBytes = this.#readings.map((reading) => reading.lagBytes)
    if (later === undefined) return { rowsPerSecond: null, tableRates: {}, remainingMs: {}, lagBytes }
    return { rowsPerSecond: rowsPerSecond(earlier, later), tableRates: tableRates(earlier, later), remainingMs: remainingMs(this.#readings), lagBytes }
  }
}

function appliedRows({ snapshotRows, inserts, updates, deletes }: TableStatus): number {
  return snapshotRows + inserts + updates + deletes
}

function secondsBetween(earlier: ReplicationStatus, later: ReplicationStatus): number {
  return (Date.parse(later.asOf) - Date.parse(earlier.asOf)) / 1_000
}

/** Rows per second between two readings, over all tables; null where they do not tell. */
export function rowsPerSecond(earlier: ReplicationStatus, later: ReplicationStatus): number | null {
  const sum = ({ tables }: ReplicationStatus): number => Object.values(tables).reduce((rows, table) => rows + appliedRows(table), 0)
  const seconds = secondsBetween(earlier, later)
  const rows = sum(later) - sum(earlier)
  return seconds > 0 && rows >= 0 ? rows / seconds : null
}

/** By table, where both readings have it; a copy that began anew between them tells nothing. */
export function tableRates(earlier: ReplicationStatus, later: ReplicationStatus): Readonly<Record<string, number>> {
  const seconds = secondsBetween(earlier, later)
  if (seconds <= 0) return {}
  return Object.fromEntries(
    Object.entries(later.tables).flatMap(([name, table]) => {
      const before = earlier.tables[name]
      const rows = before === undefined ? -1 : appliedRows(table) - appliedRows(before)
      return rows < 0 ? [] : [[name, rows / seconds]]
    }),
  )
}

/** Which part of a copy is committed, 0 to 1; null where there is no plan. */
export function copiedShare({ copying }: TableStatus): number | null {
  return copying === undefined || copying.ranges === 0 ? null : copying.rangesDone / copying.ranges
}

/** Of the copies in the newest reading, by what came since the oldest one in which each was under way. Ranges come one at a time: before the first nothing is known. */
export function remainingMs(readings: readonly ReplicationStatus[]): Readonly<Record<string, number>> {
  const newest = readings.at(-1)
  return Object.fromEntries(
    Object.entries(newest?.tables ?? {}).flatMap(([name, table]) => {
      const share = copiedShare(table)
      if (newest === undefined || share === null) return []
      let oldest = { reading: newest, share }
      for (const reading of readings.toReversed()) {
        const before = reading.tables[name]
        const earlier = before === undefined ? null : copiedShare(before)
        // Another plan: a copy that began anew.
        if (earlier === null || earlier > share || before?.copying?.ranges !== table.copying?.ranges) break
        oldest = { reading, share: earlier }
      }
      const gained = share - oldest.share
      return gained <= 0 ? [] : [[name, Math.round(((1 - share) / gained) * secondsBetween(oldest.reading, newest) * 1_000)]]
    }),
  )
}

/** `████░░░░` */
export function progressBar(share: number, width = 20): string {
  const full = Math.floor(Math.min(1, Math.max(0, share)) * width)
  return '█'.repeat(full) + '░'.repeat(width - full)
}

const BARS = '▁▂▃▄▅▆▇█'

/** One character for each value, as high as its share of the greatest; a space where it is not known. */
export function sparkline(values: readonly (number | null)[]): string {
  const greatest = Math.max(0, ...values.map((value) => value ?? 0))
  return values.map((value) => (value === null ? ' ' : (BARS[greatest === 0 ? 0 : Math.ceil((value / greatest) * (BARS.length - 1))] ?? ''))).join('')
}
