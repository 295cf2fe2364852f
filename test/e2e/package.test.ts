import { randomUUID } from 'node:crypto'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'

import { Client, Connection } from '@temporalio/client'
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest'

import { type ConsumerProject, environmentOutsideNpm, installPackedPackage } from '../support/packed-package.ts'

const MINUTES = 60_000

/** Somebody's own worker, with a workflow-less life of its own, to which our plugin is added. */
const WORKER = `
import { NativeConnection, Worker } from '@temporalio/worker';
import { loadConfig, PgReplicationPlugin } from 'temporal-pg-replication';

const connection = await NativeConnection.connect({ address: process.env.TEMPORAL_ADDRESS });
const config = loadConfig({ env: process.env });
const worker = await Worker.create({
  connection,
  taskQueue: process.env.REPLICATION_TASK_QUEUE,
  plugins: [new PgReplicationPlugin({ config })],
});
process.once('SIGTERM', () => worker.shutdown());
console.log('ready');
await worker.run();
await connection.close();
`

describe('the packed package in an empty project', () => {
  let consumer: ConsumerProject
  beforeAll(async () => {
    consumer = await installPackedPackage(['@temporalio/worker'])
  }, 10 * MINUTES)
  afterAll(async () => {
    await consumer.close()
  })

  it("adds its workflows and activities to somebody's own worker", async () => {
    const taskQueue = `package-${randomUUID()}`
    const address = inject('temporalAddress')
    await consumer.write('worker.js', WORKER)
    const worker = spawn(process.execPath, ['worker.js'], {
      cwd: consumer.directory,
      env: {
        ...environmentOutsideNpm(),
        TEMPORAL_ADDRESS: address,
        REPLICATION_TASK_QUEUE: taskQueue,
        SOURCES__SHOP__CREDENTIALS: 'postgresql://nobody@127.0.0.1:1/shop',
        DESTINATIONS__WAREHOUSE__PATH: './warehouse.duckdb',
      },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    const exited = once(worker, 'exit')
    let stderr = ''
    worker.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()))
    try {
      const ready = once(createInterface(worker.stdout), 'line').then(([line]: unknown[]) => line)
      expect(await Promise.race([ready, exited.then(() => stderr)])).toBe('ready')

      const connection = await Connection.connect({ address })
      try {
        // Refused before any source is touched, which shows that our workflow ran in that worker.
        const input = { slotName: 'shop', publicationName: 'shop', tableName: 'orders' }
        const refused = new Client({ connection }).workflow.execute('initReplication', {
          taskQueue,
          workflowId: taskQueue,
          args: [input],
        })
        await expect(refused).rejects.toMatchObject({
          cause: { type: 'InvalidInput', message: expect.stringContaining('tableNames') as string },
        })
      } finally {
        await connection.close()
      }
    } finally {
      worker.kill('SIGTERM')
    }
    expect(await exited).toEqual([0, null])
  })
})
