import type { WorkloadName } from './options.ts'

/** The one table of the first workloads: ten columns of the types that tables have most. */
export const TABLE = 'items'

/** One thing to measure. */
export interface Workload {
  readonly name: WorkloadName
  readonly title: string
  /** `changes`: a backlog is drained from a slot. `rows`: a table is copied. */
  readonly kind: 'changes' | 'rows'
  /** Changes of the backlog, or rows of the table. */
  readonly size: number
  /** Rows that are there before anything is measured. */
  readonly preloadedRows: number
  /** Makes the backlog, in many short transactions; null where nothing is to be made. */
  readonly backlogSql: string | null
  /** What `syncChanges` must report. */
  readonly expected: { readonly inserts: number; readonly updates: number; readonly deletes: number }
  /** At least this share of the reference's speed. */
  readonly minimumRatio: number
}

/** The worker's resident memory, at most (issue: first version). */
export const MAXIMUM_RSS_BYTES = 700 * 1024 * 1024

const NOTHING = { inserts: 0, updates: 0, deletes: 0 }

/** The workloads at full or quick size. */
export function workloadsOf(isQuick: boolean): readonly Workload[] {
  const changes = isQuick ? 100_000 : 500_000
  const preloadedRows = isQuick ? 100_000 : 500_000
  const rows = isQuick ? 200_000 : 1_000_000
  return [
    {
      name: 'W1',
      title: 'single-row inserts, 100 per transaction',
      kind: 'changes',
      size: changes,
      preloadedRows: 0,
      backlogSql: insertsSql(changes),
      expected: { ...NOTHING, inserts: changes },
      minimumRatio: 0.6,
    },
    {
      name: 'W2',
      title: 'mixed changes (40 % insert, 40 % update, 20 % delete), 1–10 per transaction',
      kind: 'changes',
      size: changes,
      preloadedRows,
      backlogSql: mixedSql(changes, preloadedRows),
      expected: { inserts: changes * 0.4, updates: changes * 0.4, deletes: changes * 0.2 },
      minimumRatio: 0.6,
    },
    {
      name: 'S1',
      title: 'snapshot of one table',
      kind: 'rows',
      size: rows,
      preloadedRows: rows,
      backlogSql: null,
      expected: NOTHING,
      minimumRatio: 0.5,
    },
  ]
}

/** The table, and a function that makes its row number `i`: the same row each time, with NULLs and text of various lengths. */
export const SCHEMA_SQL = `
  CREATE TABLE ${TABLE} (
    id bigint PRIMARY KEY,
    quantity integer NOT NULL,
    account bigint NOT NULL,
    price numeric(12,2) NOT NULL,
    name text NOT NULL,
    note text,
    created_at timestamptz NOT NULL,
    is_active boolean NOT NULL,
    score double precision NOT NULL,
    attributes jsonb NOT NULL
  );
  CREATE FUNCTION items_between(low bigint, high bigint) RETURNS SETOF ${TABLE} LANGUAGE sql AS $$
    SELECT i,
           (i * 7919 % 10000)::integer,
           i * 1000003 % 100000000000,
           (i * 104729 % 100000000)::numeric / 100,
           'item ' || md5(i::text),
           CASE WHEN i % 7 <> 0 THEN repeat('lorem ipsum ', (i % 6)::integer) || i END,
           timestamptz '2026-01-01 00:00:00+00' + i * interval '1.000123 second',
           i % 3 <> 0,
           (i * 31337 % 1000000)::double precision / 997,
           jsonb_build_object('color', (ARRAY['red', 'green', 'blue'])[1 + i % 3], 'size', i % 100, 'tag', 'tag-' || i % 1000)
      FROM generate_series(low, high) AS i
  $$;`

/** Rows 1 … `count`, in one statement. */
export function preloadSql(count: number): string {
  return `INSERT INTO ${TABLE} SELECT * FROM items_between(1, ${count})`
}

/** Each of these rows is a heap insert and a message of its own, as if it had been a statement of its own. */
function insertsSql(count: number): string {
  return `
    DO $$
    BEGIN
      FOR batch IN 0 .. ${count / 100 - 1} LOOP
        INSERT INTO ${TABLE} SELECT * FROM items_between(batch * 100 + 1, batch * 100 + 100);
        COMMIT;
      END LOOP;
    END $$`
}

/**
 * Every statement hits exactly one row: deletes walk through the preloaded rows in a scattered order (7919 is coprime to their
 * number), updates take one that no delete has reached yet or, one time in two, a row that was inserted in this run.
 */
function mixedSql(count: number, preloadedRows: number): string {
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
      FOR change IN 0 .. ${count - 1} LOOP
        IF change % 5 IN (0, 2) THEN
          INSERT INTO ${TABLE} SELECT * FROM items_between(next_id, next_id);
          next_id := next_id + 1;
        ELSIF change % 5 IN (1, 3) THEN
          IF random() < 0.5 THEN
            target := ${preloadedRows} + 1 + floor(random() * (next_id - ${preloadedRows} - 1))::bigint;
          ELSE
            target := 1 + (deleted + floor(random() * (${preloadedRows} - deleted))::bigint) * 7919 % ${preloadedRows};
          END IF;
          UPDATE ${TABLE} SET quantity = quantity + 1, price = price + 0.01, note = 'changed ' || change, is_active = NOT is_active WHERE id = target;
        ELSE
          DELETE FROM ${TABLE} WHERE id = 1 + deleted * 7919 % ${preloadedRows};
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
