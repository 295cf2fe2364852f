import type { WriteMode } from '../src/model/spec.ts'
import type { BenchOptions, WorkloadName } from './options.ts'
import { type BenchTable, documentsTable, insertSql, itemsTable, wideTable } from './tables.ts'

/** Rows that are there before anything is measured: numbers 1 … `count` of the table. */
export interface Preload {
  readonly table: BenchTable
  readonly count: number
}

/** Source changes, as they are reported. */
export interface ChangeCounts {
  readonly inserts: number
  readonly updates: number
  readonly deletes: number
}

/** A backlog of changes that is drained from a slot. */
export interface BacklogTask {
  readonly tag: 'backlog'
  readonly preload: readonly Preload[]
  /** Makes the changes. */
  readonly changesSql: string
  readonly expected: ChangeCounts
  readonly isEncrypted: boolean
  /** Absent = `merge`. */
  readonly writeMode?: WriteMode
}

/** An initial load, init of publication and slot included. */
export interface SnapshotTask {
  readonly tag: 'snapshot'
  readonly preload: readonly Preload[]
}

/** Small transactions at a steady rate while `replicate` runs: how long until each is visible. */
export interface LatencyTask {
  readonly tag: 'latency'
  readonly table: BenchTable
  readonly transactionsPerSecond: number
  readonly seconds: number
}

/** The same few random changes on a small and on a large table. */
export interface ReachTask {
  readonly tag: 'reach'
  readonly table: BenchTable
  readonly rowCounts: readonly [small: number, large: number]
  readonly changeCount: number
}

/** `replicate` with nothing to do. */
export interface IdleTask {
  readonly tag: 'idle'
  readonly table: BenchTable
  readonly seconds: number
}

/** Backlogs of several slots, drained at once by one worker into a file each. */
export interface ParallelTask {
  readonly tag: 'parallel'
  readonly pipelineCount: number
  readonly changesOfEach: number
}

/** `verifyReplication` of a table that is equal, and of one that is equal but for a row. */
export interface VerifyTask {
  readonly tag: 'verify'
  readonly table: BenchTable
  readonly rowCount: number
  /** Of the row that is changed at the destination. */
  readonly wrongKey: number
}

/** Tasks of growing size, one after the other, to see that cost grows no faster. */
export interface GrowthTask {
  readonly tag: 'growth'
  readonly unit: 'changes' | 'tables'
  readonly steps: readonly { readonly size: number; readonly task: BacklogTask | SnapshotTask }[]
}

export type Task = BacklogTask | SnapshotTask | LatencyTask | ReachTask | IdleTask | ParallelTask | VerifyTask | GrowthTask

/** Figures that an aim may be about. */
export type FigureName =
  | 'ratioToRecvlogical' | 'ratioToCopy' | 'ratioToDuckdbExtension' | 'ratioToDlt' | 'ratioToDebezium' | 'ratioToIngestr' | 'ratioToUnencrypted' | 'ratioToMerge' | 'peakRssBytes' | 'latencyP50Ms' | 'latencyP99Ms'
  | 'reachRatio' | 'reachSmallMs' | 'reachLargeMs' | 'idleCpuShare' | 'idleEventsPer10s' | 'eventLoopDelayP99Ms' | 'checkpointSeconds' | 'costGrowth' | 'verifiedPerSecond' | 'verifiedPerSecondOneWrong' // prettier-ignore

/** What must be reached: at least or at most a bound. */
export interface Aim {
  readonly figure: FigureName
  readonly atLeast?: number
  readonly atMost?: number
}

/** One thing to measure. */
export interface Workload {
  readonly name: WorkloadName
  readonly title: string
  /** Changes or rows that are moved; 0 where the figure is another one. */
  readonly size: number
  readonly task: Task
  readonly aims: readonly Aim[]
}

const MEGABYTE = 1024 * 1024
const MEMORY: Aim = { figure: 'peakRssBytes', atMost: 600 * MEGABYTE }
const EVENT_LOOP: Aim = { figure: 'eventLoopDelayP99Ms', atMost: 100 }
const COPY_AIMS: readonly Aim[] = [{ figure: 'ratioToCopy', atLeast: 0.9 }, { figure: 'ratioToDuckdbExtension', atLeast: 0.75 }, { figure: 'ratioToDlt', atLeast: 30 }]

const NO_CHANGES: ChangeCounts = { inserts: 0, updates: 0, deletes: 0 }

/** The workloads at full or quick size; `isLarge` adds the largest step of those that grow. */
export function workloadsOf({ isQuick, isLarge }: Pick<BenchOptions, 'isQuick' | 'isLarge'>): readonly Workload[] {
  const pick = (full: number, quick: number): number => (isQuick ? quick : full)
  const items = itemsTable()
  const changeCount = pick(1_000_000, 100_000)
  const mixedRows = pick(500_000, 100_000)
  const largeTransaction = (size: number): BacklogTask => ({ tag: 'backlog', preload: [{ table: items, count: 0 }], changesSql: insertSql(items, 1, size), expected: { ...NO_CHANGES, inserts: size }, isEncrypted: false })
  const largeAims: readonly Aim[] = [{ figure: 'ratioToRecvlogical', atLeast: 1 }, MEMORY, EVENT_LOOP]
  const snapshotRows = pick(5_000_000, 200_000)
  const tables = pick(200, 20)
  const wide = wideTasks(pick(50_000, 5_000), pick(5_000, 500))
  const idleSeconds = pick(120, 60)
  const rate = 1_000
  const mixed: BacklogTask = {
    tag: 'backlog', preload: [{ table: items, count: mixedRows }], changesSql: mixedSql(items, changeCount, mixedRows),
    expected: { inserts: changeCount * 0.4, updates: changeCount * 0.4, deletes: changeCount * 0.2 }, isEncrypted: false,
  }
  return [
    {
      name: 'W1', title: 'single-row inserts, 100 per transaction', size: changeCount, task: insertsTask(changeCount),
      aims: [{ figure: 'ratioToRecvlogical', atLeast: 1.6 }, ...peerAims({ dlt: 16, debezium: 4.5, ingestr: 6 }), MEMORY, EVENT_LOOP],
    },
    {
      name: 'W2', title: `mixed changes (40 % insert, 40 % update, 20 % delete), 1–10 per transaction, of a table of ${count(mixedRows)} rows`, size: changeCount, task: mixed,
      aims: [{ figure: 'ratioToRecvlogical', atLeast: 1.8 }, ...peerAims({ dlt: 16, debezium: 4, ingestr: 9 }), MEMORY, EVENT_LOOP],
    },
    { name: 'W2A', title: 'W2 with writeMode append', size: changeCount, task: { ...mixed, writeMode: 'append' }, aims: [{ figure: 'ratioToMerge', atLeast: 1 }, MEMORY, EVENT_LOOP] },
    { name: 'W2S', title: 'W2 with writeMode scd2', size: changeCount, task: { ...mixed, writeMode: 'scd2' }, aims: [{ figure: 'ratioToMerge', atLeast: 0.4 }, MEMORY, EVENT_LOOP] },
    { name: 'W3', title: 'one transaction of inserts', size: pick(2_000_000, 200_000), task: largeTransaction(pick(2_000_000, 200_000)), aims: largeAims },
    { name: 'W3L', title: 'one transaction of many more inserts', size: pick(10_000_000, 1_000_000), task: largeTransaction(pick(10_000_000, 1_000_000)), aims: largeAims },
    {
      name: 'W4', title: 'W1 through TLS', size: changeCount, task: { ...insertsTask(changeCount), isEncrypted: true },
      aims: [{ figure: 'ratioToUnencrypted', atLeast: 0.7 }, MEMORY, EVENT_LOOP],
    },
    { name: 'S1', title: 'snapshot of one table', size: snapshotRows, task: { tag: 'snapshot', preload: [{ table: items, count: snapshotRows }] }, aims: [...COPY_AIMS, MEMORY, EVENT_LOOP] },
    { name: 'S2', title: `snapshot of ${count(tables)} tables of 5,000 rows`, size: tables * 5_000, task: tablesTask(tables, 5_000), aims: [MEMORY, EVENT_LOOP] },
    {
      name: 'V1', title: 'verification of a table that is equal, and of one with a wrong row', size: snapshotRows,
      task: { tag: 'verify', table: items, rowCount: snapshotRows, wrongKey: Math.round(snapshotRows * 0.7) },
      aims: [{ figure: 'verifiedPerSecond', atLeast: 1_000_000 }, { figure: 'verifiedPerSecondOneWrong', atLeast: 1_000_000 }, EVENT_LOOP],
    },
    {
      name: 'L1', title: `${count(rate)} transactions a second`, size: 0, task: { tag: 'latency', table: items, transactionsPerSecond: rate, seconds: pick(60, 10) },
      aims: [{ figure: 'latencyP50Ms', atMost: 100 }, { figure: 'latencyP99Ms', atMost: 500 }, MEMORY, EVENT_LOOP],
    },
    {
      name: 'B1', title: `1,000 random changes of a table of ${count(pick(500_000, 50_000))} and of ${count(pick(20_000_000, 500_000))} rows`, size: 0,
      task: { tag: 'reach', table: items, rowCounts: [pick(500_000, 50_000), pick(20_000_000, 500_000)], changeCount: 1_000 }, aims: [{ figure: 'reachRatio', atMost: 3 }],
    },
    {
      name: 'I1', title: `an idle replication for ${idleSeconds} s`, size: 0, task: { tag: 'idle', table: items, seconds: idleSeconds },
      aims: [{ figure: 'idleCpuShare', atMost: 0.01 }, { figure: 'idleEventsPer10s', atMost: 1 }, MEMORY],
    },
    { name: 'T1', title: 'rows of 100 columns, texts of 20 kB, and updates that leave these as they are', size: wide.size, task: wide.task, aims: [MEMORY, EVENT_LOOP] },
    {
      name: 'P4', title: 'four replications in one worker', size: changeCount, task: { tag: 'parallel', pipelineCount: 4, changesOfEach: changeCount / 4 }, aims: [MEMORY, EVENT_LOOP],
    },
    {
      name: 'G1', title: 'W1 with growing backlogs', size: 0,
      task: { tag: 'growth', unit: 'changes', steps: [10_000, 100_000, ...(isQuick ? [] : [1_000_000]), ...(isLarge ? [10_000_000] : [])].map((size) => ({ size, task: insertsTask(size) })) },
      aims: [{ figure: 'costGrowth', atMost: 1 }],
    },
    {
      name: 'G2', title: 'snapshots of more and more tables of 500 rows', size: 0,
      task: { tag: 'growth', unit: 'tables', steps: [1, 10, 100, ...(isQuick ? [] : [1_000])].map((size) => ({ size, task: tablesTask(size, 500) })) },
      aims: [{ figure: 'costGrowth', atMost: 1 }],
    },
  ] // prettier-ignore
}

function peerAims({ dlt, debezium, ingestr }: Readonly<Record<'dlt' | 'debezium' | 'ingestr', number>>): readonly Aim[] {
  return [{ figure: 'ratioToDlt', atLeast: dlt }, { figure: 'ratioToDebezium', atLeast: debezium }, { figure: 'ratioToIngestr', atLeast: ingestr }]
}

function count(value: number): string {
  return value.toLocaleString('en')
}

/** Each of these rows is a heap insert and a message of its own, as if it had been a statement of its own. */
export function insertsSql(table: BenchTable, size: number): string {
  return `
    DO $$
    BEGIN
      FOR batch IN 0 .. ${size / 100 - 1} LOOP
        INSERT INTO ${table.name} SELECT * FROM ${table.name}_between(batch * 100 + 1, batch * 100 + 100);
        COMMIT;
      END LOOP;
    END $$`
}

function insertsTask(size: number): BacklogTask {
  return { tag: 'backlog', preload: [{ table: itemsTable(), count: 0 }], changesSql: insertsSql(itemsTable(), size), expected: { ...NO_CHANGES, inserts: size }, isEncrypted: false }
}

function tablesTask(tableCount: number, rowsOfEach: number): SnapshotTask {
  return { tag: 'snapshot', preload: Array.from({ length: tableCount }, (_, index) => ({ table: itemsTable(`items_${index + 1}`), count: rowsOfEach })) }
}

/** Wide rows inserted, long texts inserted, and these rows updated without their texts. */
function wideTasks(wideRows: number, documentRows: number): { readonly size: number; readonly task: BacklogTask } {
  const [wide, documents] = [wideTable(), documentsTable()]
  return {
    size: wideRows + 2 * documentRows,
    task: {
      tag: 'backlog',
      preload: [{ table: wide, count: 0 }, { table: documents, count: 0 }],
      changesSql: `
        DO $$
        BEGIN
          FOR batch IN 0 .. ${wideRows / 100 - 1} LOOP
            INSERT INTO wide SELECT * FROM wide_between(batch * 100 + 1, batch * 100 + 100);
            COMMIT;
          END LOOP;
          FOR batch IN 0 .. ${documentRows / 10 - 1} LOOP
            INSERT INTO documents SELECT * FROM documents_between(batch * 10 + 1, batch * 10 + 10);
            COMMIT;
          END LOOP;
          FOR batch IN 0 .. ${documentRows / 10 - 1} LOOP
            UPDATE documents SET views = views + 1 WHERE id BETWEEN batch * 10 + 1 AND batch * 10 + 10;
            COMMIT;
          END LOOP;
        END $$`,
      expected: { inserts: wideRows + documentRows, updates: documentRows, deletes: 0 },
      isEncrypted: false,
    },
  }
}

/**
 * Every statement hits exactly one row: deletes walk through the preloaded rows in a scattered order (7919 is coprime to their
 * number), updates take one that no delete has reached yet or, one time in two, a row that was inserted in this run.
 */
function mixedSql(table: BenchTable, size: number, preloadedRows: number): string {
  return `
    DO $$
    DECLARE
      next_id bigint := ${preloadedRows} + 1;
      deleted bigint := 0;
      target bigint;
      until_commit integer := 1;
      transactions integer := 0;
    BEGIN
      PERFORM setseed(0.5);
      FOR change IN 0 .. ${size - 1} LOOP
        IF change % 5 IN (0, 2) THEN
          INSERT INTO ${table.name} SELECT * FROM ${table.name}_between(next_id, next_id);
          next_id := next_id + 1;
        ELSIF change % 5 IN (1, 3) THEN
          IF random() < 0.5 THEN
            target := ${preloadedRows} + 1 + floor(random() * (next_id - ${preloadedRows} - 1))::bigint;
          ELSE
            target := 1 + (deleted + floor(random() * (${preloadedRows} - deleted))::bigint) * 7919 % ${preloadedRows};
          END IF;
          ${randomUpdateSql(table, "'changed ' || change", 'target')};
        ELSE
          DELETE FROM ${table.name} WHERE id = 1 + deleted * 7919 % ${preloadedRows};
          deleted := deleted + 1;
        END IF;
        until_commit := until_commit - 1;
        IF until_commit = 0 THEN
          COMMIT;
          transactions := transactions + 1;
          until_commit := 1 + transactions % 10;
        END IF;
      END LOOP;
    END $$`
}

/** An update of four columns of one row. */
export function randomUpdateSql({ name }: BenchTable, note: string, id: string): string {
  return `UPDATE ${name} SET quantity = quantity + 1, price = price + 0.01, note = ${note}, is_active = NOT is_active WHERE id = ${id}`
}
