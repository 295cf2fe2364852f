import { randomBytes } from 'node:crypto'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Client, Connection } from '@temporalio/client'
import { bundleWorkflowCode, DefaultLogger, NativeConnection, Worker, type WorkerOptions } from '@temporalio/worker'
import { pino } from 'pino'
import { afterAll, beforeAll, expect, inject, it } from 'vitest'
import { type Config, loadConfig, PgReplicationPlugin } from '../../src/index.ts'
import { syncChanges } from '../../src/workflows/index.ts'
import { quietRuntime } from '../support/workflow-harness.ts'

const HOST_WORKFLOWS = fileURLToPath(new URL('../support/host-workflows.ts', import.meta.url))
const INPUT = { slotName: 's', publicationName: 'p', tableNames: 'orders' }

let connection: Connection
let native: NativeConnection
beforeAll(async () => {
  quietRuntime()
  const address = inject('temporalAddress')
  connection = await Connection.connect({ address })
  native = await NativeConnection.connect({ address })
})
afterAll(async () => {
  await native.close()
  await connection.close()
})

const config: Config = loadConfig({
  env: {
    REPLICATION_CONFIG: join(tmpdir(), 'there-is-no-such-file.toml'),
    // Nobody listens there, with a wrong certificate file: an error that no retry mends.
    SOURCES__SHOP__CREDENTIALS: 'postgresql://u:hunter2@127.0.0.1:1/shop?sslmode=verify-full&sslrootcert=/nowhere/root.crt',
    DESTINATIONS__WAREHOUSE__PATH: join(tmpdir(), 'never-made.duckdb'),
  },
})
const plugin = new PgReplicationPlugin({ config, logger: pino({ level: 'silent' }) })

/** Runs `use` beside a worker of somebody's own. */
async function withWorker(options: Partial<WorkerOptions>, use: (client: Client, taskQueue: string) => Promise<void>): Promise<void> {
  const taskQueue = `plugin-${randomBytes(6).toString('hex')}`
  const worker = await Worker.create({ connection: native, taskQueue, ...options })
  await worker.runUntil(use(new Client({ connection }), taskQueue))
}

async function expectOurs(client: Client, taskQueue: string): Promise<void> {
  // Its activities run on the same queue: else this would wait for ever.
  const failure: unknown = await client.workflow
    .execute(syncChanges, { taskQueue, workflowId: `sync-${taskQueue}`, args: [INPUT] })
    .catch((error: unknown) => error)
  expect(failure).toMatchObject({ cause: { type: 'InvalidConfig' } })
}

it('brings workflows and activities to a worker that has none', async () => {
  await withWorker({ plugins: [plugin] }, expectOurs)
})

it("adds them to a worker's own workflows and activities", async () => {
  await withWorker({ plugins: [plugin], workflowsPath: HOST_WORKFLOWS, activities: { own: async () => 1 } }, async (client, taskQueue) => {
    expect(await client.workflow.execute('greet', { taskQueue, workflowId: `greet-${taskQueue}`, args: ['you'] })).toBe('hello you')
    await expectOurs(client, taskQueue)
  })
})

it('takes part in a bundle that is made beforehand', async () => {
  const workflowBundle = await bundleWorkflowCode({ workflowsPath: HOST_WORKFLOWS, plugins: [plugin], logger: new DefaultLogger('ERROR') })
  await withWorker({ plugins: [plugin], workflowBundle }, async (client, taskQueue) => {
    expect(await client.workflow.execute('greet', { taskQueue, workflowId: `greet-${taskQueue}`, args: ['you'] })).toBe('hello you')
    await expectOurs(client, taskQueue)
  })
})
