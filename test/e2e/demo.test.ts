import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { Client, Connection } from '@temporalio/client'
import pg from 'pg'
import { afterAll, beforeAll, expect, inject, it } from 'vitest'
import { createDatabase, type TestDatabase } from '../support/servers.ts'

const DEMO = fileURLToPath(new URL('../../src/demo.ts', import.meta.url))

let database: TestDatabase

beforeAll(async () => {
  database = await createDatabase(inject('postgresUrl'))
})
afterAll(async () => {
  await database.drop()
})

interface DemoOutcome {
  readonly exitCode: number | null
  readonly output: string
}

/** Runs the demo on given servers to its end, or until it has printed `interruptAt`. */
async function runDemo(interruptAt?: RegExp): Promise<DemoOutcome> {
  const demo = spawn(process.execPath, ['--import', import.meta.resolve('tsx'), DEMO, '--postgres', database.url], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, TEMPORAL_ADDRESS: inject('temporalAddress'), TEMPORAL_NAMESPACE: 'default' },
  })
  let output = ''
  let isInterrupted = false
  for (const stream of [demo.stdout, demo.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      output += text
      if (interruptAt?.test(output) !== true || isInterrupted) return
      isInterrupted = true
      demo.kill('SIGINT')
    })
  }
  await once(demo, 'close')
  return { exitCode: demo.exitCode, output }
}

async function leftAtSource(): Promise<readonly string[]> {
  const client = new pg.Client({ connectionString: database.url })
  await client.connect()
  try {
    const { rows } = await client.query<{ name: string }>(`
      SELECT slot_name AS name FROM pg_replication_slots WHERE database = current_database()
      UNION ALL SELECT pubname FROM pg_publication UNION ALL SELECT nspname FROM pg_namespace WHERE nspname = 'shop'`)
    return rows.map(({ name }) => name)
  } finally {
    await client.end()
  }
}

/** The demo's workflows that are still open on a server that is not its own. */
async function openWorkflows(): Promise<readonly string[]> {
  const connection = await Connection.connect({ address: inject('temporalAddress') })
  try {
    const open: string[] = []
    for await (const { workflowId } of new Client({ connection }).workflow.list({ query: "WorkflowId STARTS_WITH 'demo-shop-'" })) {
      const { status } = await new Client({ connection }).workflow.getHandle(workflowId).describe()
      if (status.name === 'RUNNING') open.push(workflowId)
    }
    return open
  } finally {
    await connection.close()
  }
}

it('ends on Ctrl-C, and begins anew after it', async () => {
  const interrupted = await runDemo(/worker ready/)
  expect([interrupted.exitCode, interrupted.output]).toEqual([130, expect.stringContaining('stopping …')])
  expect(await openWorkflows()).toEqual([])

  const { exitCode, output } = await runDemo()
  expect([exitCode, output]).toEqual([0, output])
  expect(output).toMatch(/kill -9 \d+: the worker is gone \(SIGKILL\)/)
  expect(output).toMatch(/the new worker \(pid \d+\) has it/)
  for (const table of ['customers', 'products', 'orders', 'order_items']) expect(output).toMatch(new RegExp(`equal +shop\\.${table}: [\\d,]+ rows`))
  expect(output).toContain('Source and destination are equal')
  expect(await leftAtSource()).toEqual([])
})
