import { randomBytes } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Client, Connection, WorkflowFailedError } from '@temporalio/client'
import { NativeConnection, Worker } from '@temporalio/worker'
import { pino } from 'pino'
import { afterAll, beforeAll, expect, inject, it } from 'vitest'
import { EncryptionCodec } from '../../examples/encryption/codec.ts'
import { loadConfig, PgReplicationPlugin } from '../../src/index.ts'
import { addTablesUpdate, pauseUpdate, replicate, resumeUpdate, statusQuery, stopUpdate, syncChanges } from '../../src/workflows/index.ts'
import { FileSource } from '../support/file-source.ts'
import { quietRuntime, untilStatus } from '../support/workflow-harness.ts'

const source = new FileSource()
const taskQueue = `encrypted-${randomBytes(6).toString('hex')}`
/** Of a table, in its name: no history may have it in the clear. */
const SECRET = 'classified'
const failureConverterPath = fileURLToPath(new URL('../../examples/encryption/failure-converter.ts', import.meta.url))

let directory: string
let connection: Connection
let native: NativeConnection
beforeAll(async () => {
  quietRuntime()
  const address = inject('temporalAddress')
  connection = await Connection.connect({ address })
  native = await NativeConnection.connect({ address })
  directory = await mkdtemp(join(tmpdir(), 'encrypted-'))
})
afterAll(async () => {
  await native.close()
  await connection.close()
  await rm(directory, { recursive: true, force: true })
})

/** Everything that the server keeps of a workflow, bytes as text. */
async function kept(workflowId: string): Promise<string> {
  const { history } = await connection.workflowService.getWorkflowExecutionHistory({ namespace: 'default', execution: { workflowId } })
  const described = await connection.workflowService.describeWorkflowExecution({ namespace: 'default', execution: { workflowId } })
  const json = JSON.stringify({ history, described })
  // Bytes are shown in base 64.
  const bytes = [...json.matchAll(/"([A-Za-z0-9+/]{8,}=*)"/g)].map(([, text]) => Buffer.from(text ?? '', 'base64').toString('latin1'))
  return [json, ...bytes].join('\n')
}

it('a whole replication, its orders and its failures work under an encrypting codec, and nothing of them is kept in the clear', async () => {
  await source.pool.query(`CREATE TABLE ${SECRET}_a (id int PRIMARY KEY, v text); CREATE TABLE ${SECRET}_b (LIKE ${SECRET}_a INCLUDING ALL);
    INSERT INTO ${SECRET}_a SELECT g, 'x' FROM generate_series(1, 500) g; INSERT INTO ${SECRET}_b SELECT * FROM ${SECRET}_a`)
  const file = join(directory, 'warehouse.duckdb')
  const config = loadConfig({ env: { REPLICATION_CONFIG: join(directory, 'replication.toml'), SOURCES__SHOP__CREDENTIALS: source.database.url, DESTINATIONS__WAREHOUSE__PATH: file } })
  const dataConverter = { payloadCodecs: [new EncryptionCodec({ old: randomBytes(32), new: randomBytes(32) }, 'new')], failureConverterPath }
  const client = new Client({ connection, dataConverter })
  const worker = await Worker.create({ connection: native, taskQueue, dataConverter, plugins: [new PgReplicationPlugin({ config, logger: pino({ level: 'silent' }) })] })
  const workflowIds = [`r-${taskQueue}`, `f-${taskQueue}`, `s-${taskQueue}`] as const
  const input = { slotName: `e_${source.database.name}`, publicationName: 'e', tableNames: `${SECRET}_a` }
  await worker.runUntil(async () => {
    const handle = await client.workflow.start(replicate, { taskQueue, workflowId: workflowIds[0], args: [input] })
    await untilStatus(handle, ({ phase }) => phase === 'streaming')
    await handle.executeUpdate(addTablesUpdate, { args: [{ tableNames: `${SECRET}_b` }] })
    await untilStatus(handle, ({ tables }) => tables[`public.${SECRET}_b`]?.state === 'streaming')
    const refused: unknown = await handle.executeUpdate(addTablesUpdate, { args: [{ tableNames: `${SECRET}_c` }] }).catch((error: unknown) => error)
    expect(refused).toMatchObject({ cause: { type: 'InvalidInput', message: expect.stringContaining(`${SECRET}_c`) as string } })
    // What a slice has done on a cancel comes back by its result, what it is doing by heartbeats: both through the codec.
    await source.pool.query(`UPDATE ${SECRET}_a SET v = 'y' WHERE id < 10`)
    expect((await handle.executeUpdate(pauseUpdate, { args: [{}] })).phase).toBe('paused')
    expect(await kept(workflowIds[0])).not.toContain(SECRET)
    await handle.executeUpdate(resumeUpdate, { args: [{}] })
    const failure: unknown = await client.workflow.execute(syncChanges, { taskQueue, workflowId: workflowIds[1], args: [input] }).catch((error: unknown) => error)
    expect(failure).toBeInstanceOf(WorkflowFailedError)
    expect(failure).toMatchObject({ cause: { type: 'AlreadyReplicating' } })
    await handle.executeUpdate(stopUpdate, { args: [{}] })
    expect((await handle.query(statusQuery)).phase).toBe('stopped')
    const synced = await client.workflow.execute(syncChanges, { taskQueue, workflowId: workflowIds[2], args: [input] })
    expect(Object.keys(synced.tables)).toEqual([`public.${SECRET}_a`, `public.${SECRET}_b`])
  })
  for (const workflowId of workflowIds) {
    const text = await kept(workflowId)
    expect(text).toContain('binary/encrypted')
    expect(text).not.toContain(SECRET)
  }
  await source.expectEqual(file, `${SECRET}_a`)
  await source.expectEqual(file, `${SECRET}_b`)
})
