import { setTimeout as sleep } from 'node:timers/promises'
import type pg from 'pg'
import { SHOP_SCHEMA } from './shop.ts'

/** Transactions a second: enough to see it work, and nothing that two cores notice. */
const TRANSACTIONS_PER_SECOND = 250
const TICK_MS = 50

const PLACE_ORDER = `
  WITH placed AS (
    INSERT INTO ${SHOP_SCHEMA}.orders (customer_id, note) SELECT 1 + floor(random() * 5000), CASE WHEN random() < 0.3 THEN 'from the demo''s traffic' END RETURNING id
  )
  INSERT INTO ${SHOP_SCHEMA}.order_items (order_id, line_no, product_id, quantity, unit_price, discounts)
  SELECT id, line_no, 1 + floor(random() * 1000), 1 + floor(random() * 5), round((random() * 100)::numeric, 2), CASE WHEN random() < 0.2 THEN ARRAY[0.1, 0.0375] END
  FROM placed, generate_series(1, 3) line_no`
const ADVANCE_ORDERS = `
  UPDATE ${SHOP_SCHEMA}.orders SET status = CASE status WHEN 'new' THEN 'paid' WHEN 'paid' THEN 'shipped' ELSE status END::${SHOP_SCHEMA}.order_status,
    shipped_at = CASE WHEN status = 'paid' THEN clock_timestamp() ELSE shipped_at END
  WHERE id = (SELECT floor(random() * max(id)) FROM ${SHOP_SCHEMA}.orders)`
const CHANGE_PRICE = `UPDATE ${SHOP_SCHEMA}.products SET price = round(price * 1.01, 2), is_active = NOT is_active WHERE id = 1 + floor(random() * 1000)`
const EDIT_CUSTOMER = `
  UPDATE ${SHOP_SCHEMA}.customers SET email = CASE WHEN email IS NULL THEN 'back@example.com' END, preferences = preferences || jsonb_build_object('edits', random())
  WHERE id = 1 + floor(random() * 5000)`
const CANCEL_ORDER = `DELETE FROM ${SHOP_SCHEMA}.orders WHERE id = (SELECT floor(random() * max(id)) FROM ${SHOP_SCHEMA}.orders)`

/** One transaction each; how often is told by repetition. */
const TRANSACTIONS = [PLACE_ORDER, PLACE_ORDER, PLACE_ORDER, ADVANCE_ORDERS, ADVANCE_ORDERS, CHANGE_PRICE, EDIT_CUSTOMER, CANCEL_ORDER]

/** Customers who order, pay, edit and cancel, until they are told to stop. Uses its client alone. */
export class ShopTraffic {
  readonly #client: pg.Client
  readonly #stopping = new AbortController()
  readonly #running: Promise<void>
  #transactions = 0

  constructor(client: pg.Client) {
    this.#client = client
    this.#running = this.#run()
    // Told by `stop`; a server that goes away at Ctrl-C is nobody's loss.
    this.#running.catch(() => undefined)
  }

  /** Committed so far. */
  get transactions(): number {
    return this.#transactions
  }

  /** Ends after the running transaction. Throws what went wrong on the way. */
  async stop(): Promise<void> {
    this.#stopping.abort()
    await this.#running
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopping
    const startMs = performance.now()
    while (!signal.aborted) {
      const due = ((performance.now() - startMs) / 1_000) * TRANSACTIONS_PER_SECOND
      if (this.#transactions >= due) {
        await sleep(TICK_MS, undefined, { signal }).catch(() => undefined)
        continue
      }
      await this.#client.query(TRANSACTIONS[this.#transactions % TRANSACTIONS.length] ?? PLACE_ORDER)
      this.#transactions += 1
    }
  }
}
