import pg from 'pg'

/** The source schema, and so the destination's. */
export const SHOP_SCHEMA = 'shop'

/** Written on the schema: only a schema that bears it is ever dropped. */
const OWN_COMMENT = 'made by the demo of temporal-pg-replication'

/** A table of the shop. */
export interface ShopTable {
  readonly name: string
  readonly key: readonly string[]
}

export const SHOP_TABLES: readonly ShopTable[] = [
  { name: 'customers', key: ['id'] },
  { name: 'products', key: ['id'] },
  { name: 'orders', key: ['id'] },
  { name: 'order_items', key: ['order_id', 'line_no'] },
]

/** Connects with the settings that make text comparable; the caller ends it. */
export async function connectShop(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 10_000, application_name: 'demo shop' })
  // A server that goes away at Ctrl-C is no news; queries in flight reject by themselves.
  client.on('error', () => undefined)
  await client.connect()
  // Without synchronous_commit, pg_current_wal_lsn() may lie before a commit that has been answered.
  await client.query(`SET TimeZone = 'UTC'; SET synchronous_commit = on`)
  return client
}

/** Makes and fills the shop, replacing the one of an earlier demo. Throws when the schema is somebody else's. */
export async function createShop(client: pg.Client): Promise<void> {
  await dropShop(client)
  await client.query(SCHEMA_SQL)
  await client.query(ROWS_SQL)
  // Afterwards: checking each row's reference on the way in would take longer than all the rest.
  await client.query(REFERENCES_SQL)
}

/** Removes what {@link createShop} made. Throws when the schema is somebody else's. Idempotent. */
export async function dropShop(client: pg.Client): Promise<void> {
  const { rows } = await client.query<{ comment: string | null }>(
    `SELECT obj_description(oid, 'pg_namespace') AS comment FROM pg_namespace WHERE nspname = $1`,
    [SHOP_SCHEMA],
  )
  const [found] = rows
  if (found === undefined) return
  if (found.comment !== OWN_COMMENT) {
    throw new Error(`this database has a schema ${SHOP_SCHEMA} that the demo did not make: give the demo another database`)
  }
  await client.query(`DROP SCHEMA ${SHOP_SCHEMA} CASCADE`)
}

/** Rows of each table, in the order of {@link SHOP_TABLES}. */
export async function countShopRows(client: pg.Client): Promise<ReadonlyMap<string, number>> {
  const counts = new Map<string, number>()
  for (const { name } of SHOP_TABLES) {
    const { rows } = await client.query<{ count: string }>(`SELECT count(*) FROM ${SHOP_SCHEMA}.${name}`)
    counts.set(name, Number(rows[0]?.count ?? 0))
  }
  return counts
}

/** Where the server's WAL ends now: what committed before this call lies before it. */
export async function readSourceLsn(client: pg.Client): Promise<string> {
  const { rows } = await client.query<{ lsn: string }>('SELECT pg_current_wal_lsn()::text AS lsn')
  return rows[0]?.lsn ?? '0/0'
}

/** Columns that come while the stream runs: one without a value for old rows, and one with. Returns the statements, to be shown. */
export async function changeShopSchema(client: pg.Client): Promise<readonly string[]> {
  const statements = [
    `ALTER TABLE ${SHOP_SCHEMA}.orders ADD COLUMN gift_note text`,
    `UPDATE ${SHOP_SCHEMA}.orders SET gift_note = 'for order ' || id WHERE id % 50 = 0`,
    `ALTER TABLE ${SHOP_SCHEMA}.customers ADD COLUMN tier text NOT NULL DEFAULT 'basic'`,
    `UPDATE ${SHOP_SCHEMA}.customers SET tier = 'gold' WHERE id % 10 = 0`,
  ]
  for (const statement of statements) await client.query(statement)
  return statements
}

/** Removes all cancelled orders, and by the foreign key their items, in one transaction. Returns the statement and the orders' count. */
export async function deleteCancelledOrders(client: pg.Client): Promise<{ readonly statement: string; readonly count: number }> {
  const statement = `DELETE FROM ${SHOP_SCHEMA}.orders WHERE status = 'cancelled'`
  const { rowCount } = await client.query(statement)
  return { statement, count: rowCount ?? 0 }
}

const SCHEMA_SQL = `
  CREATE SCHEMA ${SHOP_SCHEMA};
  COMMENT ON SCHEMA ${SHOP_SCHEMA} IS '${OWN_COMMENT}';
  SET search_path = ${SHOP_SCHEMA};
  CREATE TYPE order_status AS ENUM ('new', 'paid', 'shipped', 'cancelled');
  CREATE TABLE customers (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    email text,
    phones text[] NOT NULL DEFAULT '{}',
    preferences jsonb,
    created_at timestamptz NOT NULL DEFAULT now()
  );
  CREATE TABLE products (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sku text NOT NULL UNIQUE,
    price numeric(10, 2) NOT NULL,
    attributes jsonb NOT NULL,
    tags text[],
    is_active boolean NOT NULL DEFAULT true
  );
  CREATE TABLE orders (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id bigint NOT NULL,
    status order_status NOT NULL DEFAULT 'new',
    note text,
    placed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    shipped_at timestamptz
  );
  CREATE TABLE order_items (
    order_id bigint NOT NULL,
    line_no integer NOT NULL,
    product_id bigint NOT NULL,
    quantity integer NOT NULL,
    unit_price numeric(10, 2) NOT NULL,
    discounts numeric(5, 4)[],
    PRIMARY KEY (order_id, line_no)
  );
`

const ROWS_SQL = `
  INSERT INTO customers (name, email, phones, preferences, created_at)
  SELECT 'Customer ' || n, CASE WHEN n % 7 > 0 THEN 'customer' || n || '@example.com' END,
    CASE WHEN n % 3 = 0 THEN '{}' ELSE ARRAY['+44 20 ' || n, 'ext, "' || n % 90 || '"'] END,
    CASE WHEN n % 5 > 0 THEN jsonb_build_object('newsletter', n % 2 = 0, 'limit', n * 1.10, 'said', E'naïve\\n"quoted" ' || n) END,
    timestamptz '2020-01-01 00:00+00' + n * interval '3 hours 7.123457 seconds'
  FROM generate_series(1, 5000) n;
  INSERT INTO products (sku, price, attributes, tags)
  SELECT 'SKU-' || lpad(n::text, 5, '0'), (n * 37 % 10000) / 100.0, jsonb_build_object('weight', n / 8.0, 'colours', jsonb_build_array('red', NULL, n)),
    CASE n % 4 WHEN 0 THEN NULL WHEN 1 THEN '{}' ELSE ARRAY['tag ' || n % 12, NULL, ''] END
  FROM generate_series(1, 1000) n;
  INSERT INTO orders (customer_id, status, note, placed_at, shipped_at)
  SELECT 1 + n * 7919 % 5000, (ARRAY['new', 'paid', 'shipped', 'cancelled'])[1 + n % 40 / 12]::order_status, CASE WHEN n % 9 = 0 THEN '' WHEN n % 4 = 0 THEN 'ring twice, then "knock"' END,
    timestamptz '2024-01-01 00:00+00' + n * interval '61.000001 seconds', CASE WHEN n % 40 / 12 = 2 THEN timestamptz '2024-06-01 00:00+00' + n * interval '1 minute' END
  FROM generate_series(1, 60000) n;
  INSERT INTO order_items (order_id, line_no, product_id, quantity, unit_price, discounts)
  SELECT o, l, 1 + o * 31 * l % 1000, 1 + o % 5, (o * l % 9973) / 100.0, CASE WHEN o % 6 = 0 THEN ARRAY[0.05, 0.0125 * l] END
  FROM generate_series(1, 60000) o, generate_series(1, 1 + o % 4) l;
`

const REFERENCES_SQL = `
  ALTER TABLE orders ADD FOREIGN KEY (customer_id) REFERENCES customers;
  ALTER TABLE order_items ADD FOREIGN KEY (order_id) REFERENCES orders ON DELETE CASCADE;
  ALTER TABLE order_items ADD FOREIGN KEY (product_id) REFERENCES products;
  ANALYZE customers, products, orders, order_items;
  RESET search_path;
`
