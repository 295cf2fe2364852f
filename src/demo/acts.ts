import { setTimeout as sleep } from 'node:timers/promises'
import type pg from 'pg'
import { describeExit, type WorkerProcess } from '../embedded/worker-process.ts'
import { parseLsn } from '../model/lsn.ts'
import type { ReplicationStatus } from '../workflows/index.ts'
import type { Replication } from './replication.ts'
import { changeShopSchema, countShopRows, deleteCancelledOrders, readSourceLsn, SHOP_SCHEMA, SHOP_TABLES } from './shop.ts'
import { formatCount, heading, say, sayTable, showProgress } from './terminal.ts'
import type { ShopTraffic } from './traffic.ts'

/** What the acts play with. */
export interface Scene {
  readonly shop: pg.Client
  readonly replication: Replication
  readonly signal: AbortSignal
}

const COPY_LIMIT_MS = 120_000
const CATCH_UP_LIMIT_MS = 90_000
/** How long an activity may be without a sign of life before Temporal gives it to another worker (activity-proxies.ts). */
const HEARTBEAT_TIMEOUT_MS = 15_000

/** Initial load: waits until every table streams, with a bar each. */
export async function watchSnapshot({ replication }: Scene, sourceRows: ReadonlyMap<string, number>): Promise<void> {
  const startMs = performance.now()
  const progress = showProgress()
  const status = await replication.follow((now) => now.phase === 'streaming', {
    limitMs: COPY_LIMIT_MS,
    onStatus: (now) => {
      progress.update(
        SHOP_TABLES.map(({ name }) => {
          const total = sourceRows.get(name) ?? 0
          const rows = now.tables[`${SHOP_SCHEMA}.${name}`]?.snapshotRows ?? 0
          return { name, value: rows, total, note: `${formatCount(rows)} of ${formatCount(total)} rows` }
        }),
      )
    },
  })
  progress.end()
  for (const warning of status.warnings) say(`warning: ${warning}`)
  say(`slot ${status.slotName}, publication ${status.publicationName}: all tables are loaded after ${seconds(startMs)}; applied LSN ${status.appliedLsn ?? '–'}`)
}

/** Lets changes flow for a while, with the two positions side by side. */
export async function watchChanges(scene: Scene, forMs: number): Promise<void> {
  const positions = new Positions()
  const endMs = performance.now() + forMs
  while (performance.now() < endMs) {
    positions.show(await scene.replication.readStatus(), await readSourceLsn(scene.shop))
    await sleep(300, undefined, { signal: scene.signal })
  }
  positions.end()
}

/** `kill -9` of the worker while changes flow, a new worker, and the wait until Temporal gives it the work. Returns the new worker. */
export async function killWorker(
  scene: Scene,
  options: { readonly worker: WorkerProcess; readonly traffic: ShopTraffic; readonly startWorker: () => Promise<WorkerProcess> },
): Promise<WorkerProcess> {
  const { replication, shop, signal } = scene
  const { worker, traffic } = options
  const before = traffic.transactions
  const killedMs = performance.now()
  await worker.kill()
  const killed = (await replication.observe()).activity?.attempt
  say(`kill -9 ${worker.pid}: the worker is gone (${describeExit(await worker.exited)}); the shop goes on selling, and a new worker starts`)
  say(`Temporal gives it the work when the old one has been silent for ${HEARTBEAT_TIMEOUT_MS / 1_000} s and the new one has started`)
  const waiting = showProgress()
  const takenOver = async (): Promise<void> => {
    for (;;) {
      const { activity } = await replication.observe()
      const silentMs = activity?.lastHeartbeatMs == null ? 0 : Date.now() - activity.lastHeartbeatMs
      if (activity?.lastHeartbeatMs != null && activity.attempt !== killed && silentMs < 2_000) return
      if (performance.now() - killedMs > CATCH_UP_LIMIT_MS) throw new Error('no new worker took the work over')
      const texts = [`silent for ${Math.floor(silentMs / 1_000)} s`, `source ${await readSourceLsn(shop)}`, `${formatCount(traffic.transactions - before)} transactions`]
      waiting.update([{ name: 'waiting', value: Math.min(silentMs, HEARTBEAT_TIMEOUT_MS - 1), total: HEARTBEAT_TIMEOUT_MS, note: texts.join(' · ') }])
      await sleep(500, undefined, { signal })
    }
  }
  const [next] = await Promise.all([options.startWorker(), takenOver()])
  waiting.end()
  say(`the new worker (pid ${next.pid}) has it after ${seconds(killedMs)}, and goes on at the position that the destination committed with its rows`)
  return next
}

/** Waits until everything that is committed at the source now is in the destination. */
export async function catchUp(scene: Scene): Promise<ReplicationStatus> {
  const startMs = performance.now()
  const target = await readSourceLsn(scene.shop)
  const positions = new Positions()
  const status = await scene.replication.follow((now) => scene.replication.hasApplied(now, target) && now.phase === 'streaming', {
    limitMs: CATCH_UP_LIMIT_MS,
    onStatus: (now) => positions.show(now, target),
  })
  positions.end()
  say(`committed at the source up to ${target}, applied up to ${status.appliedLsn ?? '–'} after ${seconds(startMs)}`)
  return status
}

/** Columns come and rows go while the stream runs. */
export async function changeSchemaAndDelete(scene: Scene): Promise<void> {
  heading('Schema change: columns are added while the stream runs')
  for (const statement of await changeShopSchema(scene.shop)) say(statement)
  await catchUp(scene)
  heading('Delete: one transaction, with everything that hangs on it')
  const { statement, count } = await deleteCancelledOrders(scene.shop)
  say(`${statement} → ${formatCount(count)} orders, and their items`)
  await catchUp(scene)
}

/** Rows before and after, and what the destination's own counters say came in between. */
export async function showBeforeAndAfter(scene: Scene, before: ReadonlyMap<string, number>): Promise<void> {
  const after = await countShopRows(scene.shop)
  const { tables } = await scene.replication.readStatus()
  sayTable(
    ['table', 'before', 'copied', 'inserts', 'updates', 'deletes', 'after', 'last commit'],
    SHOP_TABLES.map(({ name }) => {
      const table = tables[`${SHOP_SCHEMA}.${name}`]
      const counts = [table?.snapshotRows ?? 0, table?.inserts ?? 0, table?.updates ?? 0, table?.deletes ?? 0]
      return [name, before.get(name) ?? 0, ...counts, after.get(name) ?? 0, table?.lastCommitLsn ?? '–']
    }),
  )
}

/** How far the applied LSN is on its way from where it was first seen to the source's. */
class Positions {
  /** The furthest that was ever shown: a position never goes back. */
  static #shownLsn = 0n
  readonly #progress = showProgress()
  #firstLsn: bigint | null = null

  show(status: ReplicationStatus, sourceLsn: string): void {
    if (status.appliedLsn === null) return
    const applied = parseLsn(status.appliedLsn)
    // After a kill the workflow knows less than the lost activity's heartbeats said, until the next one reports.
    if (applied < Positions.#shownLsn) return
    Positions.#shownLsn = applied
    const source = parseLsn(sourceLsn)
    this.#firstLsn ??= applied
    const total = Math.max(1, Number(source - this.#firstLsn))
    const lagBytes = source > applied ? Number(source - applied) : 0
    const texts = [`applied ${status.appliedLsn}`, `source ${sourceLsn}`, `${formatCount(lagBytes)} bytes behind`]
    this.#progress.update([{ name: 'LSN', value: Number(applied - this.#firstLsn), total: lagBytes === 0 ? Math.max(1, Number(applied - this.#firstLsn)) : total, note: texts.join(' · ') }])
  }

  end(): void {
    this.#progress.end()
  }
}

function seconds(sinceMs: number): string {
  return `${((performance.now() - sinceMs) / 1_000).toFixed(1)} s`
}
