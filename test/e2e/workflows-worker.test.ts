import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Client, Connection } from '@temporalio/client'
import { afterAll, afterEach, beforeAll, describe, expect, inject, it } from 'vitest'
import { replicate, stopUpdate } from '../../src/workflows/index.ts'
import { untilStatus } from '../support/workflow-harness.ts'

const WORKER = fileURLToPath(new URL('../../src/worker.ts', import.meta.url))
const SECRET = 'hunter2-Zq9'

let connection: Connection
let directory: string
const running = new Set<ChildProcess>()
beforeAll(async () => {
  connection = await Connection.connect({ address: inject('temporalAddress') })
  directory = await mkdtemp(join(tmpdir(), 'worker-'))
})
afterAll(async () => {
  await connection.close()
  await rm(directory, { recursive: true, force: true })
})
afterEach(() => {
  for (const child of running) child.kill('SIGKILL')
  running.clear()
})

interface WorkerRun {
  readonly child: ChildProcess
  /** Both outputs so far. */
  readonly output: () => string
  /** Waits for a text in the output, or the end of the process. */
  until(text: string): Promise<void>
  readonly exit: Promise<unknown[]>
}

/** `npm start` without npm. */
function startWorker(env: Record<string, string>): WorkerRun {
  const child = spawn(process.execPath, ['--import', import.meta.resolve('tsx'), WORKER], {
    cwd: directory,
    env: {
      ...process.env,
      TEMPORAL_ADDRESS: inject('temporalAddress'),
      // Nobody listens there.
      SOURCES__SHOP__CREDENTIALS: `postgresql://u:${SECRET}@127.0.0.1:1/shop`,
      DESTINATIONS__WAREHOUSE__PATH: './warehouse.duckdb',
      ...env,
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  running.add(child)
  let output = ''
  const listeners = new Set<() => void>()
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk: Buffer) => {
      output += chunk.toString()
      for (const listener of listeners) listener()
    })
  }
  const exit = once(child, 'exit')
  return {
    child,
    output: () => output,
    exit,
    until: (text) =>
      new Promise((resolve, reject) => {
        const look = (): void => {
          if (!output.includes(text)) return
          listeners.delete(look)
          resolve()
        }
        listeners.add(look)
        void exit.then(() => {
          reject(new Error(`ended without "${text}": ${output}`))
        })
        look()
      }),
  }
}

describe('npm start', () => {
  it('is ready whatever the source is doing, shows its fault in the status, and drains on SIGTERM', async () => {
    const taskQueue = `worker-${randomBytes(6).toString('hex')}`
    const worker = startWorker({ REPLICATION_TASK_QUEUE: taskQueue })
    await worker.until('worker ready')
    expect(worker.output()).toContain(`task queues ${taskQueue}, ${taskQueue}-warehouse`)

    const client = new Client({ connection })
    const handle = await client.workflow.start(replicate, {
      taskQueue,
      workflowId: taskQueue,
      args: [{ slotName: 'shop', publicationName: 'shop', tableNames: 'orders' }],
    })
    const status = await untilStatus(handle, ({ lastError }) => lastError !== undefined)
    expect(status.phase).toBe('initializing')
    expect(status.lastError?.type).toBe('SourceUnavailable')
    expect((await handle.executeUpdate(stopUpdate, { args: [{}] })).phase).toBe('stopped')
    expect(JSON.stringify(await handle.fetchHistory()) + worker.output()).not.toContain(SECRET)

    worker.child.kill('SIGTERM')
    expect(await worker.exit).toEqual([0, null])
  })

  it('waits for Temporal, says so, and ends on SIGINT', async () => {
    const worker = startWorker({ TEMPORAL_ADDRESS: '127.0.0.1:1' })
    await worker.until('trying again in 2 s')
    expect(worker.output()).toContain('no Temporal at 127.0.0.1:1')
    worker.child.kill('SIGINT')
    expect(await worker.exit).toEqual([0, null])
    expect(worker.output()).not.toContain('worker ready')
  })

  it('ends at a wrong configuration with the error and its remedy', async () => {
    const worker = startWorker({ DESTINATIONS__WAREHOUSE__PAHT: 'x' })
    expect(await worker.exit).toEqual([1, null])
    expect(worker.output()).toContain('InvalidConfig: ')
    expect(worker.output()).not.toContain(SECRET)
  })
})
