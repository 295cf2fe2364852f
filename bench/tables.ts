/** How a column's value is written the same way by PostgreSQL and by DuckDB; see {@link canonicalOf}. */
type ColumnKind = 'text' | 'number' | 'numeric' | 'time' | 'boolean' | 'double'

/** A table that a workload fills and compares. */
export interface BenchTable {
  readonly name: string
  readonly columns: readonly (readonly [name: string, kind: ColumnKind])[]
  /** Makes the table, and the function `<name>_between(low, high)` that gives its rows of these numbers: the same each time. */
  readonly createSql: string
}

/** Adds rows `low` … `high`, in one statement. */
export function insertSql({ name }: BenchTable, low: number, high: number): string {
  return `INSERT INTO ${name} SELECT * FROM ${name}_between(${low}, ${high})`
}

/** The ten columns of the types that tables have most: with NULLs and text of various lengths, about 200 bytes a row. */
export function itemsTable(name = 'items'): BenchTable {
  return {
    name,
    columns: [
      ['id', 'number'], ['quantity', 'number'], ['account', 'number'], ['price', 'numeric'], ['name', 'text'], ['note', 'text'], ['created_at', 'time'],
      ['is_active', 'boolean'], ['score', 'double'], ['attributes', 'text'],
    ], // prettier-ignore
    createSql: `
  CREATE TABLE ${name} (
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
  CREATE FUNCTION ${name}_between(low bigint, high bigint) RETURNS SETOF ${name} LANGUAGE sql AS $$
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
  $$;`,
  }
}

const WIDE_COLUMNS: BenchTable['columns'] = [
  ['id', 'number'],
  ...Array.from({ length: 99 }, (_, index) => {
    const kind = (['number', 'text', 'numeric', 'double', 'boolean'] as const)[index % 5] ?? 'text'
    return [`c${index + 1}`, kind] as const
  }),
]

const WIDE_TYPES = { number: 'integer', text: 'text', numeric: 'numeric(12,2)', double: 'double precision', boolean: 'boolean' } as const
const WIDE_VALUES = {
  number: (place: number) => `(i * ${place + 7} % 1000000)::integer`,
  text: (place: number) => `'value ' || i % ${place + 90}`,
  numeric: (place: number) => `(i * ${place + 11} % 10000000)::numeric / 100`,
  double: (place: number) => `(i * ${place + 13} % 100000)::double precision / 7`,
  boolean: (place: number) => `i % ${place + 2} = 0`,
} as const

/** A hundred columns, about 900 bytes a row. */
export function wideTable(): BenchTable {
  const columns = WIDE_COLUMNS.slice(1) as readonly (readonly [string, keyof typeof WIDE_TYPES])[]
  return {
    name: 'wide',
    columns: WIDE_COLUMNS,
    createSql: `
  CREATE TABLE wide (id bigint PRIMARY KEY, ${columns.map(([name, kind]) => `${name} ${WIDE_TYPES[kind]}`).join(', ')});
  CREATE FUNCTION wide_between(low bigint, high bigint) RETURNS SETOF wide LANGUAGE sql AS $$
    SELECT i, ${columns.map(([, kind], place) => WIDE_VALUES[kind](place)).join(', ')} FROM generate_series(low, high) AS i
  $$;`,
  }
}

/** Texts of 20 kB, stored out of line and not compressed. */
export function documentsTable(): BenchTable {
  return {
    name: 'documents',
    columns: [['id', 'number'], ['views', 'number'], ['body', 'text']],
    createSql: `
  CREATE TABLE documents (id bigint PRIMARY KEY, views integer NOT NULL, body text NOT NULL);
  ALTER TABLE documents ALTER COLUMN body SET STORAGE EXTERNAL;
  CREATE FUNCTION documents_between(low bigint, high bigint) RETURNS SETOF documents LANGUAGE sql AS $$
    SELECT i, 0, repeat(md5(i::text) || ' ', 606) FROM generate_series(low, high) AS i
  $$;`,
  }
}

/** The text that both sides give for a value, as SQL of PostgreSQL and of DuckDB. */
export function canonicalOf(name: string, kind: ColumnKind): readonly [postgres: string, duckdb: string] {
  switch (kind) {
    case 'text':
      return [`coalesce(${name}::text, '∅')`, `coalesce(${name}::VARCHAR, '∅')`]
    case 'number':
    case 'numeric':
      return [`${name}::text`, `${name}::VARCHAR`]
    case 'time':
      return [`(extract(epoch FROM ${name}) * 1000000)::bigint::text`, `epoch_us(${name})::VARCHAR`]
    case 'boolean':
      return [`${name}::integer::text`, `${name}::INTEGER::VARCHAR`]
    case 'double':
      return [`${name}::text`, String.raw`regexp_replace(${name}::VARCHAR, '\.0$', '')`]
    default:
      return kind satisfies never
  }
}
