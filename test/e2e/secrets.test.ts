import { randomBytes } from 'node:crypto'
import { appendFile } from 'node:fs/promises'
import { WorkflowFailedError } from '@temporalio/client'
import pg from 'pg'
import { afterAll, beforeAll, expect, inject, it, vi } from 'vitest'
import { dropReplication, initReplication, retryFailedUpdate, statusQuery, stopUpdate, syncChanges } from '../../src/workflows/index.ts'
import { run } from '../support/command-line.ts'
import { createDatabase, type TestDatabase } from '../support/servers.ts'
import { WorkerHarness } from '../support/worker-harness.ts'
import { until, untilStatus } from '../support/workflow-harness.ts'

/** Stands in every credential and in every row value of this file, and may stand nowhere else than there. */
const MARK = `planted${randomBytes(6).toString('hex')}`
const role = `role_${randomBytes(6).toString('hex')}`

let database: TestDatabase
let admin: pg.Client

beforeAll(async () => {
  database = await createDatabase(inject('postgresUrl'))
  admin = new pg.Client({ connectionString: database.url })
  await admin.connect()
  await admin.query(`
    CREATE ROLE ${role} LOGIN SUPERUSER PASSWORD '${MARK}password'; CREATE TYPE mood AS ENUM ('fine');
    CREATE TABLE held (key text PRIMARY KEY, note text, data jsonb); CREATE TABLE misfit (key text PRIMARY KEY, note text);
    INSERT INTO held SELECT '${MARK}key' || g, '${MARK}note' || g, jsonb_build_object('${MARK}name', '${MARK}value' || g) FROM generate_series(1, 50) g;
    INSERT INTO misfit VALUES ('${MARK}1', '17')`)
})
afterAll(async () => {
  await admin.end()
  await database.drop()
  const server = new pg.Client({ connectionString: inject('postgresUrl') })
  await server.connect()
  await server.query(`DROP ROLE ${role}`)
  await server.end()
})

/** Temporal's JSON shows payloads in base64: their text, too. */
function payloadsOf(json: string): readonly string[] {
  return [...json.matchAll(/"data":\s*"([A-Za-z0-9+/=]{4,})"/g)].map(([, data = '']) => Buffer.from(data, 'base64').toString('utf8'))
}

it('repeats no credential and no value of a row in histories, status, logs and answers, also where things fail', async () => {
  const credentials = (port: string, password: string): string => JSON.stringify(Object.assign(new URL(database.url), { username: role, password, port }).href)
  const { port } = new URL(database.url)
  await using harness = await WorkerHarness.open({ temporalAddress: inject('temporalAddress'), sourceUrl: JSON.parse(credentials(port, `${MARK}password`)) as string })
  await appendFile(harness.configFile, `[sources.wrong]\ncredentials = ${credentials(port, `${MARK}wrong`)}\n[sources.down]\ncredentials = ${credentials('1', `${MARK}down`)}\n`)
  await harness.startWorker()
  const { client, taskQueue } = harness
  const input = { source: 'shop', slotName: `secrets_${database.name}`, publicationName: 'secrets' }
  const answers: unknown[] = []
  const failure = async (ending: Promise<unknown>): Promise<void> => {
    const error: unknown = await ending.then(() => null, (reason: unknown) => reason)
    if (!(error instanceof Error)) throw new Error('did not fail')
    answers.push(error.message, error instanceof WorkflowFailedError ? error.cause : null, error.stack)
  }

  // Init, snapshot and stream, with a value in each that does not fit its hint.
  const handle = await harness.startReplicate({ ...input, tableNames: ['held', 'misfit'], columns: { misfit: { note: { dataType: 'bigint' } } } }, `replicate-${taskQueue}`)
  await untilStatus(handle, ({ phase }) => phase === 'streaming', 60_000)
  await admin.query(`
    INSERT INTO misfit VALUES ('${MARK}2', '${MARK}misfit'); UPDATE held SET note = '${MARK}changed', key = key || 'moved' WHERE key LIKE '%1';
    INSERT INTO held VALUES ('${MARK}late', '${MARK}', '"${MARK}"'); DELETE FROM held WHERE key LIKE '%2'`)
  answers.push(await untilStatus(handle, ({ tables }) => tables['public.misfit']?.state === 'failed', 60_000))
  // Columns with a default, and one of a type made here: both are looked up at the source.
  await admin.query(`ALTER TABLE held ADD COLUMN more text DEFAULT '${MARK}default', ADD COLUMN feels mood; INSERT INTO held VALUES ('${MARK}last')`)
  answers.push(await handle.executeUpdate(retryFailedUpdate, { args: [{}] }))
  await untilStatus(handle, ({ tables }) => tables['public.misfit']?.state === 'failed', 60_000)
  answers.push(await handle.query(statusQuery), (await handle.describe()).raw)

  // The command line, with what it makes of configuration, source and file.
  for (const [name, value] of Object.entries(harness.env)) vi.stubEnv(name, value)
  const commands = [['status'], ['status', handle.workflowId], ['doctor', '--source', 'shop', '--slot', input.slotName, '--publication', 'secrets', '--tables', 'held,misfit'], ['config'], ['show']]
  for (const command of commands) for (const format of [[], ['--json']]) answers.push(await run(...command, ...format))
  await handle.executeUpdate(stopUpdate, { args: [{}] })
  answers.push(await run('show', '--json'), await run('status', handle.workflowId))

  // A wrong password, a source that is down, a table that cannot be replicated, a text in the place of a number.
  const options = (name: string) => ({ taskQueue, workflowId: `${name}-${taskQueue}` })
  const elsewhere = { ...input, slotName: `elsewhere_${database.name}`, publicationName: 'elsewhere', tableNames: ['held'] }
  await failure(client.workflow.execute(initReplication, { ...options('wrong'), args: [{ ...elsewhere, source: 'wrong' }] }))
  await failure(client.workflow.execute(syncChanges, { ...options('misfit'), args: [{ ...input, tableNames: ['held', 'misfit'], reset: true, columns: { misfit: { note: { dataType: 'bigint' } } } }] }))
  const down = await client.workflow.start(syncChanges, { ...options('down'), args: [{ ...elsewhere, source: 'down' }] })
  const pending = await until(async () => (await down.describe()).raw.pendingActivities?.[0], (activity) => activity?.lastFailure != null, 60_000)
  answers.push(pending)
  await down.terminate()
  await client.workflow.execute(dropReplication, { ...options('drop'), args: [{ ...input, confirm: input.slotName, dropDestination: true }] })
  expect(await harness.stopWorker()).toBe(0)

  let eventCount = 0
  for (const workflowId of [handle.workflowId, ...['wrong', 'misfit', 'down', 'drop'].map((name) => options(name).workflowId)]) {
    const { events } = await client.workflow.getHandle(workflowId).fetchHistory()
    eventCount += events?.length ?? 0
    answers.push(events)
  }
  expect(eventCount).toBeGreaterThan(50)
  expect(harness.lines.length).toBeGreaterThan(10)
  const texts = [...harness.lines, ...answers.map((answer) => (typeof answer === 'string' ? answer : JSON.stringify(answer, null, 1)))]
  const whole = [...texts, ...texts.flatMap(payloadsOf)].join('\n')
  expect(whole.split('\n').filter((line) => line.includes(MARK))).toEqual([])
  // What was looked at is what it should be: errors that name things, and no empty texts.
  const shown = [`"slotName":"${input.slotName}"`, '"appliedLsn":"', 'UnrepresentableValue', 'AuthenticationFailed', 'SourceUnavailable'].filter((text) => whole.includes(text))
  expect(shown).toHaveLength(5)
})
