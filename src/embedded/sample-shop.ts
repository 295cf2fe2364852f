import pg from 'pg'

/** The tables that {@link createSampleShop} makes. */
export const sampleTables = ['customers', 'orders'] as const

/**
 * Makes a small database `shop` to try replication on and returns its URL; what is there already stays as it is.
 * Safe to repeat after a crash at any statement.
 */
export async function createSampleShop(serverUrl: string): Promise<string> {
  await withClient(serverUrl, async (client) => {
    const { rowCount } = await client.query("SELECT FROM pg_database WHERE datname = 'shop'")
    if (rowCount === 0) await client.query('CREATE DATABASE shop')
  })
  const url = new URL(serverUrl)
  url.pathname = '/shop'
  await withClient(url.href, async (client) => {
    const { rows } = await client.query<{ exists: boolean }>("SELECT to_regclass('public.customers') IS NOT NULL AS exists")
    if (rows[0]?.exists !== true) await client.query(sampleSql)
  })
  return url.href
}

/** One simple query, so one transaction. */
const sampleSql = `
  CREATE TABLE customers (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    email text,
    created_at timestamptz NOT NULL DEFAULT now()
  );
  CREATE TABLE orders (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id bigint NOT NULL REFERENCES customers,
    status text NOT NULL DEFAULT 'new',
    amount numeric(12, 2) NOT NULL,
    placed_at timestamptz NOT NULL DEFAULT now()
  );
  INSERT INTO customers (name, email) VALUES
    ('Ada Lovelace', 'ada@example.com'), ('Edgar Codd', 'edgar@example.com'), ('Grace Hopper', NULL);
  INSERT INTO orders (customer_id, status, amount) VALUES
    (1, 'paid', 19.90), (1, 'new', 7.25), (2, 'shipped', 120.00), (3, 'new', 0.99);
`

async function withClient(url: string, use: (client: pg.Client) => Promise<void>): Promise<void> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    await use(client)
  } finally {
    await client.end()
  }
}
