/**
 * `npm run demo`: a shop in PostgreSQL arrives in DuckDB, through Temporal and through a `kill -9` of the worker, and is compared row by
 * row at the end. Exits 0 when both sides are equal, 1 when anything is not, 130 on Ctrl-C; nothing is left running.
 *
 * Options: `--keep` keeps servers, worker and replication running until Ctrl-C; `--postgres <major or URL>` (or `DEMO_POSTGRES`) chooses the
 * version of the embedded PostgreSQL (14 to 18) or a database to use. `TEMPORAL_ADDRESS` names a running Temporal server.
 */
import { relative } from 'node:path'
import { parseArgs } from 'node:util'
import colors from './terminal-colors.ts'
import { catchUp, changeSchemaAndDelete, killWorker, type Scene, showBeforeAndAfter, watchChanges, watchSnapshot } from './demo/acts.ts'
import { compareTable, Warehouse } from './demo/comparison.ts'
import { Replication } from './demo/replication.ts'
import { connectShop, countShopRows, createShop, dropShop, SHOP_SCHEMA, SHOP_TABLES } from './demo/shop.ts'
import { keepResults, readWorkerLog, removeRun, setStage, type Stage, startWorker, workflowUrl } from './demo/stage.ts'
import { endProgress, formatCount, heading, say, sayTable, showProgress } from './demo/terminal.ts'
import { ShopTraffic } from './demo/traffic.ts'
import { shellWord } from './model/remedy.ts'
import type { WorkerProcess } from './embedded/worker-process.ts'

/** What has been started, in order; stopped the other way round. */
const started: { stop(): Promise<unknown> }[] = []
const interrupted = new AbortController()
/** What Ctrl-C ends with: after the comparison it has all been shown. */
let exitCodeOfSignal = 130
/** What becomes of the run's folder when all has stopped; after a failure it stays to be looked at. */
let tidy: (() => Promise<unknown>) | undefined
let stopping: Promise<void> | undefined

/** Stops everything and ends the process. Signals that come while it does change nothing. */
async function finish(exitCode: number): Promise<void> {
  stopping ??= (async () => {
    interrupted.abort()
    endProgress()
    for (const part of started.reverse()) {
      await part.stop().catch((error: unknown) => console.error(error instanceof Error ? error.message : String(error)))
    }
    if (exitCode !== 1) await tidy?.().catch(() => undefined)
    process.exit(exitCode)
  })()
  await stopping
}

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { keep: { type: 'boolean' }, postgres: { type: 'string' } } })
  const startMs = performance.now()

  heading('Servers')
  const stage = await setStage({ postgres: values.postgres ?? process.env['DEMO_POSTGRES'], onStarted: (part) => started.push(part), onProgress: say })
  tidy = async () => removeRun(stage)
  const shop = await connectShop(stage.postgres.url)
  started.push({ stop: async () => shop.end() })
  const trafficClient = await connectShop(stage.postgres.url)
  started.push({ stop: async () => trafficClient.end() })
  say(`PostgreSQL ${stage.postgres.version}, Temporal at ${stage.temporal.address}`)

  heading('A shop in PostgreSQL')
  await prepareSource(stage, shop)
  const before = await countShopRows(shop)
  sayTable(['table', 'rows'], SHOP_TABLES.map(({ name }) => [`${SHOP_SCHEMA}.${name}`, before.get(name) ?? 0]))

  const names = await slotNames(shop)
  const replication = new Replication({
    client: stage.client,
    workflowId: `demo-shop-${stage.taskQueue.slice('demo-'.length)}`,
    taskQueue: stage.taskQueue,
    input: { ...names, schemaName: SHOP_SCHEMA, tableNames: SHOP_TABLES.map(({ name }) => name) },
    signal: interrupted.signal,
  })
  started.push({ stop: async () => replication.terminate() })
  const scene: Scene = { shop, replication, signal: interrupted.signal }
  const worker = await startSupervisedWorker(stage)
  say(`worker ready (pid ${worker.current.pid})`)

  heading('Workflow replicate: init and snapshot')
  const url = workflowUrl(stage, replication.workflowId)
  try {
    await replication.start()
    say(`workflow ${replication.workflowId}${url === null ? '' : `: ${url}`}`)
    await watchSnapshot(scene, before)

    heading('Changes: orders are placed, paid, shipped and cancelled')
    const traffic = new ShopTraffic(trafficClient)
    await watchChanges(scene, 5_000)

    heading('In the middle of it: kill -9 of the worker')
    worker.current = await killWorker(scene, { worker: worker.current, traffic, startWorker: async () => startWorker(stage) })
    await watchChanges(scene, 2_000)
    await traffic.stop()
    say(`the traffic ends: ${formatCount(traffic.transactions)} transactions`)
    await catchUp(scene)

    await changeSchemaAndDelete(scene)

    heading('Before and after')
    await showBeforeAndAfter(scene, before)
    const result = await replication.stop()
    say(`workflow stopped: phase ${result.phase}, applied LSN ${result.appliedLsn ?? '–'}`)
    await worker.stop()
  } catch (error) {
    if (!interrupted.signal.aborted) console.error(`\nThe worker's log ends:\n${await readWorkerLog(stage)}\n`)
    throw error
  }

  const isEqual = await compareAll(stage, scene)
  if (isEqual && values.keep === true) {
    await keepRunning({ stage, scene, trafficClient, startMs })
    return
  }
  if (!stage.postgres.owned) await cleanSource(stage, scene)
  if (!isEqual) throw new Error(`the two sides differ; the destination is ${relative(process.cwd(), stage.warehousePath)}`)
  const kept = relative(process.cwd(), await keepResults(stage))
  console.log(`\n${colors.green('Source and destination are equal')}, after ${((performance.now() - startMs) / 1_000).toFixed(0)} s. The DuckDB file: ${kept}`)
  if (url !== null) {
    const isOver = stage.temporal.owned ? ' (its server ends with the demo; npm run demo -- --keep keeps it)' : ''
    console.log(`The workflow in the Temporal UI${isOver}: ${url}`)
  }
  await finish(0)
}

/** The worker of the moment; a worker that ends unasked ends the demo. */
async function startSupervisedWorker(stage: Stage): Promise<{ current: WorkerProcess; stop(): Promise<void> }> {
  const holder = {
    current: await startWorker(stage),
    stop: async (): Promise<void> => {
      await holder.current.stop()
    },
  }
  started.push(holder)
  return holder
}

/** Makes the shop; on a given server first removes what an earlier demo left there. */
async function prepareSource(stage: Stage, shop: Scene['shop']): Promise<void> {
  if (!stage.postgres.owned) await dropLeftovers(shop)
  await createShop(shop)
}

/** Slot and publication are the database's own: one demo at a time in each. */
async function slotNames(shop: Scene['shop']): Promise<{ readonly slotName: string; readonly publicationName: string }> {
  const { rows } = await shop.query<{ oid: number }>('SELECT oid FROM pg_database WHERE datname = current_database()')
  return { slotName: `demo_shop_${rows[0]?.oid ?? 0}`, publicationName: 'demo_shop' }
}

async function dropLeftovers(shop: Scene['shop']): Promise<void> {
  const { slotName, publicationName } = await slotNames(shop)
  const { rows } = await shop.query<{ active_pid: number | null }>('SELECT active_pid FROM pg_replication_slots WHERE slot_name = $1', [slotName])
  const [slot] = rows
  if (slot?.active_pid != null) throw new Error(`slot ${slotName} is in use: another demo runs on this database`)
  if (slot !== undefined) await shop.query('SELECT pg_drop_replication_slot($1)', [slotName])
  await shop.query(`DROP PUBLICATION IF EXISTS ${publicationName}`)
}

/** Leaves a given server as it was. */
async function cleanSource(stage: Stage, { shop, replication }: Scene): Promise<void> {
  heading('Workflow dropReplication: the given server is left as it was')
  const worker = await startSupervisedWorker(stage)
  for (const dropped of await replication.drop()) say(`dropped ${dropped}`)
  await dropShop(shop)
  await worker.stop()
}

async function compareAll(stage: Stage, { shop }: Scene): Promise<boolean> {
  heading('Source = destination? Every row, every column')
  const rows = await countShopRows(shop)
  const warehouse = await Warehouse.open(stage.warehousePath)
  const results = []
  try {
    const progress = showProgress()
    for (const table of SHOP_TABLES) {
      const total = rows.get(table.name) ?? 0
      const note = (compared: number): string => `${formatCount(compared)} of ${formatCount(total)} rows compared`
      results.push(await compareTable({ source: shop, warehouse }, table, (compared) => progress.update([{ name: table.name, value: compared, total, note: note(compared) }])))
    }
    progress.end()
  } finally {
    warehouse.close()
  }
  for (const { table, compared, firstDifference } of results) {
    if (firstDifference === null) say(`${colors.green('equal')}   ${SHOP_SCHEMA}.${table}: ${formatCount(compared)} rows`)
    else say(`${colors.red('differs')} ${SHOP_SCHEMA}.${table}: ${firstDifference}`)
  }
  return results.every(({ different }) => different === 0)
}

/** Replication and traffic go on until Ctrl-C. */
async function keepRunning(kept: { readonly stage: Stage; readonly scene: Scene; readonly trafficClient: Scene['shop']; readonly startMs: number }): Promise<void> {
  const { stage, scene, trafficClient } = kept
  heading('Going on (--keep): the same workflow id again, from the position that the destination holds')
  const worker = await startSupervisedWorker(stage)
  await scene.replication.start()
  await scene.replication.follow(({ phase }) => phase === 'streaming', { limitMs: 60_000 })
  const traffic = new ShopTraffic(trafficClient)
  const url = workflowUrl(stage, scene.replication.workflowId)
  const names = ['REPLICATION_TASK_QUEUE', 'TEMPORAL_ADDRESS', 'TEMPORAL_NAMESPACE', ...(url === null ? [] : ['TEMPORAL_UI_URL'])]
  const exported = [['REPLICATION_CONFIG', relative(process.cwd(), stage.configPath)], ...names.map((name) => [name, stage.environment[name] ?? ''])]
  exitCodeOfSignal = 0
  tidy = async () => {
    const path = await keepResults(stage)
    say(`stopped; the DuckDB file: ${relative(process.cwd(), path)}`)
    return path
  }
  const lines = [
    ...(url === null ? [] : [`Temporal UI  ${url}`]),
    `PostgreSQL   psql ${shellWord(stage.postgres.url)}`,
    `worker       pid ${worker.current.pid}, log ${relative(process.cwd(), stage.workerLogPath)}`,
    '',
    'In another terminal, in this folder:',
    `  export ${exported.map(([name, value]) => `${name}=${shellWord(value ?? '')}`).join(' ')}`,
    `  npm run cli -- status --watch`,
    `  npm run cli -- pause`,
    `  npm run cli -- resume`,
    '',
    'Ctrl-C stops everything and leaves the DuckDB file in .dev/demo.',
  ]
  for (const line of lines) say(line)
  await new Promise((resolve) => {
    interrupted.signal.addEventListener('abort', resolve, { once: true })
  })
  await traffic.stop()
}

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(signal, () => {
    if (stopping === undefined) console.log('\nstopping …')
    void finish(exitCodeOfSignal)
  })
}

main().catch(async (error: unknown) => {
  if (stopping !== undefined) return
  endProgress()
  console.error(error instanceof Error ? error.message : String(error))
  await finish(1)
})
