import { randomUUID } from 'node:crypto'
import pg from 'pg'
import { expect, inject, it } from 'vitest'
import {
  addTablesUpdate,
  approveSchemaChangeUpdate,
  dropReplication,
  type EmptyInput,
  pauseUpdate,
  recoverUpdate,
  removeTablesUpdate,
  resumeUpdate,
  resyncTablesUpdate,
  retryFailedUpdate,
  setOptionsUpdate,
  stopUpdate,
} from '../../src/workflows/index.ts'
import { readFile } from '../support/comparison.ts'
import { FileSource } from '../support/file-source.ts'
import { KillLane, type KillPoint, type LaneOptions, untilKept } from '../support/kill-lane.ts'
import { slotHolder, untilConfirmed } from '../support/worker-harness.ts'
import { until } from '../support/workflow-harness.ts'

/** `KILLS=all` (long mode): before and after each step; else one of the two. */
const HAS_ALL = process.env['KILLS'] === 'all'

const source = new FileSource()

type Step = Omit<KillPoint, 'moment'> & { readonly name: string; readonly moments?: readonly KillPoint['moment'][] }

const statement = (name: string, matching: string, moments: Step['moments'] = ['before', 'after']): Step => ({ name, on: 'source', matching, moments })
const commit = (name: string, matching: string): Step => ({ name, on: 'destination', matching })
const onFile = (name: string, matching: string): Step => ({ name, on: 'file', matching })
/** What the workflow answers to Temporal: before it, nobody has heard of it; after it, nothing of it has been done. */
const answer = (name: string, matching: string, moments: Step['moments'] = ['after']): Step => ({ name, on: 'workflow', matching, moments })

const ACCEPTED = answer('update accepted', 'updateResponse accepted', ['before', 'after'])
const ACKNOWLEDGED = answer('update acknowledged', 'updateResponse completed')
/** A table's record with this in it. */
const record = (name: string, what: string): Step => commit(name, `INSERT INTO _replication\\.tables.*${what}`)
/** A table gets a column: in place, or written anew where rows came before in the same batch. */
const CHANGED = commit('changed', 'ALTER TABLE .* ADD COLUMN|CREATE TABLE .*__rewritten')
const COPIED = commit('copied range', 'UPDATE _replication\\.chunks SET snapshot')

/** Each step with each of its moments; outside of long mode with one of them, another one from step to step. */
function pointsOf(steps: readonly Step[]): readonly (readonly [string, KillPoint])[] {
  return steps.flatMap(({ name, moments = ['before', 'after'], ...where }, index) => {
    const chosen = HAS_ALL ? moments : [moments[index % moments.length] ?? 'after']
    return chosen.map((moment) => [name, { ...where, moment }] as const)
  })
}

/** Lanes are one after the other within, and beside each other: most of their time is waiting for the killed worker's heartbeats to be missed. */
async function inLane(options: Pick<LaneOptions, 'name' | 'input' | 'modes'>, work: (lane: KillLane) => Promise<void>): Promise<void> {
  await using lane = await KillLane.open({ ...options, temporalAddress: inject('temporalAddress'), sourceUrl: source.database.url })
  try {
    await work(lane)
  } catch (error) {
    process.stderr.write(`${options.name}: after ${lane.kills.join('; ')}:\n${lane.harness.lines.slice(-20).join('\n')}\n`)
    throw error
  }
  process.stderr.write(`${options.name}: ${String(lane.kills.length)} kills: ${lane.kills.join('; ')}\n`)
}

/** Starts, lets `work` kill, and requires equality and that nothing is left over. */
async function inStartedLane(options: Pick<LaneOptions, 'name' | 'input' | 'modes'>, work: (lane: KillLane) => Promise<void>, hasGaps = false): Promise<void> {
  await inLane(options, async (lane) => {
    await lane.start()
    await lane.untilWell()
    await work(lane)
    await lane.untilWell()
    await lane.finish(hasGaps)
  })
}

const NOTHING: { args: [EmptyInput] } = { args: [{}] }

it.concurrent('adding a table', async () => {
  await inStartedLane({ name: 'adding' }, async (lane) => {
    const steps = [ACCEPTED, statement('published', '^ALTER PUBLICATION .* ADD'), record('registered', "'pending'"), ACKNOWLEDGED, COPIED]
    let count = 0
    const add = async (step: string, point: KillPoint): Promise<string> => {
      const table = `t${String(++count)}`
      await lane.create(table)
      await lane.kill(step, point, async () => lane.handle.executeUpdate(addTablesUpdate, { args: [{ tableNames: table }] }))
      return lane.key(table)
    }
    const untilCopied = async (table: string): Promise<unknown> => lane.until(({ tables }) => tables[table]?.state === 'streaming')
    for (const [step, point] of pointsOf(steps)) await untilCopied(await add(step, point))
    // Somebody has been at work since before the table was published.
    const early = new pg.Client({ connectionString: source.database.url })
    await early.connect()
    try {
      await early.query('BEGIN; SELECT pg_current_xact_id()')
      const table = await add('transactions waited for', { on: 'source', matching: 'FROM pg_locks l JOIN pg_stat_activity', moment: 'during' })
      expect((await lane.status()).tables[table]?.state).not.toBe('streaming')
      await early.query('COMMIT')
      await untilCopied(table)
    } finally {
      await early.end()
    }
  })
})

it.concurrent('copying a table anew', async () => {
  await inStartedLane({ name: 'copying', modes: { m: ['merge', 'scd2', 'append'], v: ['scd2'], h: ['append'] } }, async (lane) => {
    const steps = [record('ordered', "'pending'"), ACKNOWLEDGED, commit('table beside', 'CREATE TABLE .*__replication_copy'), COPIED, commit('swapped', 'RENAME TO')]
    for (const [step, point] of pointsOf(steps)) {
      await lane.kill(step, point, async () => lane.handle.executeUpdate(resyncTablesUpdate, { args: [{ tableNames: ['m', 'v'] }] }))
      await lane.untilWell()
    }
  })
})

it.concurrent('removing a table', async () => {
  await inStartedLane({ name: 'removing' }, async (lane) => {
    const steps = [ACCEPTED, commit('taken out', 'SET amendment'), statement('out of the publication', '^ALTER PUBLICATION .* DROP'), ACKNOWLEDGED]
    const points = pointsOf(steps)
    const names = points.map((_, index) => `t${String(index)}`)
    for (const name of names) await lane.create(name)
    await lane.handle.executeUpdate(addTablesUpdate, { args: [{ tableNames: names }] })
    await lane.untilWell()
    for (const [index, [step, point]] of points.entries()) {
      const table = `t${String(index)}`
      const dropDestination = index % 2 === 0
      await lane.kill(step, point, async () => lane.handle.executeUpdate(removeTablesUpdate, { args: [{ tableNames: table, dropDestination }] }))
      lane.tables.delete(table)
      if (!dropDestination) lane.left.add(table)
      await lane.untilWell()
    }
  })
})

it.concurrent('a table that stops, and goes on', async () => {
  const input = { columns: { m: { v: { dataType: 'decimal', precision: 9, scale: 2 } } }, schemaChanges: 'ask' } as const
  await inStartedLane({ name: 'stopping', input }, async (lane) => {
    const state = async (wanted: string): Promise<unknown> => lane.until(({ tables }) => tables[lane.key('m')]?.state === wanted)
    let id = 1_000_000
    const spoil = async (): Promise<unknown> => lane.source.query(`INSERT INTO m VALUES (${String(++id)}, 1.234567)`)
    const retry = async (): Promise<void> => {
      await lane.source.query(`DELETE FROM m WHERE id = ${String(id)}`)
      await lane.handle.executeUpdate(retryFailedUpdate, { args: [{ tableNames: 'm' }] })
    }
    for (const [step, point] of pointsOf([record('stopped', "'failed'")])) {
      await lane.kill(step, point, spoil)
      await state('failed')
      await retry()
      await lane.untilWell()
    }
    for (const [step, point] of pointsOf([ACCEPTED, record('told to go on', "'pending'"), ACKNOWLEDGED, record('joined again', "'streaming'"), onFile('kept changes removed', 'rm .*\\.spool$')])) {
      await spoil()
      await state('failed')
      await lane.kill(step, point, retry)
      await lane.untilWell()
    }
    for (const [step, point] of pointsOf([ACCEPTED, record('approved', "'pending'"), ACKNOWLEDGED, CHANGED])) {
      await lane.source.query(`ALTER TABLE m ADD COLUMN w${String(++id)} int DEFAULT 7`)
      await state('failed')
      await lane.kill(step, point, async () => lane.handle.executeUpdate(approveSchemaChangeUpdate, { args: [{ table: 'm' }] }))
      await lane.untilWell()
    }
  })
})

it.concurrent('a paused stream that is kept beside the destination', async () => {
  await inStartedLane({ name: 'spooling', input: { walBudgetBytes: 1 } }, async (lane) => {
    const mark = onFile('marked', 'write .*stream/.*\\.wal at (0|512)$')
    const pause = async (): Promise<unknown> => lane.handle.executeUpdate(pauseUpdate, NOTHING)
    const resume = async (): Promise<unknown> => lane.handle.executeUpdate(resumeUpdate, NOTHING)
    for (const [step, point] of pointsOf([onFile('synced', 'sync .*stream/.*\\.wal$'), mark])) {
      await lane.kill(step, point, pause)
      await untilKept(lane)
      await resume()
      await lane.untilWell()
    }
    for (const [step, point] of pointsOf([commit('applied', 'applied_lsn = greatest'), onFile('removed', 'rm .*stream/.*\\.wal$')])) {
      await pause()
      await untilKept(lane)
      await lane.kill(step, point, resume)
      await lane.untilWell()
      await untilConfirmed(lane.source, lane.slotName)
    }
  })
})

it.concurrent('recovering from a lost slot', async () => {
  await inStartedLane({ name: 'recovering' }, async (lane) => {
    const steps = [
      record('gap marked', '"gap"'),
      statement('slot made', 'pg_create_logical_replication_slot', ['during', 'before', 'after']),
      commit('position', 'UPDATE _replication\\.checkpoints SET identity'),
      ACKNOWLEDGED,
      commit('gap closed', 'INSERT INTO _replication\\.tables(?!.*"gap")'),
    ]
    for (const [step, point] of pointsOf(steps)) {
      await lane.handle.executeUpdate(pauseUpdate, NOTHING)
      await until(() => slotHolder(lane.source, lane.slotName), (pid) => pid === null)
      await lane.source.query('SELECT pg_drop_replication_slot($1)', [lane.slotName])
      await lane.source.query('UPDATE m SET v = -v WHERE id % 20 = 0; DELETE FROM m WHERE id % 47 = 0')
      await lane.handle.executeUpdate(resumeUpdate, NOTHING)
      await lane.until(({ phase }) => phase === 'failed')
      await lane.kill(step, point, async () => lane.handle.executeUpdate(recoverUpdate, NOTHING))
      await lane.untilWell()
    }
  }, true)
})

it.concurrent('the workflow itself', async () => {
  await inStartedLane({ name: 'continuing' }, async (lane) => {
    for (const [step, point] of pointsOf([answer('options acknowledged', 'updateResponse completed')])) {
      let batch = 1_000
      await lane.kill(step, point, async () => lane.handle.executeUpdate(setOptionsUpdate, { args: [{ targetBatchSize: ++batch }] }))
      await lane.untilWell()
    }
    for (const [step, point] of pointsOf([ACCEPTED, ACKNOWLEDGED])) {
      await lane.kill(`pause: ${step}`, point, async () => lane.handle.executeUpdate(pauseUpdate, NOTHING))
      await lane.until(({ phase }) => phase === 'paused')
      await lane.kill(`resume: ${step}`, point, async () => lane.handle.executeUpdate(resumeUpdate, NOTHING))
      await lane.untilWell()
    }
    for (const [step, point] of pointsOf([answer('continue-as-new', 'continueAsNewWorkflowExecution', ['before', 'after'])])) {
      const { runId } = await lane.handle.describe()
      const isOther = async (): Promise<boolean> => (await lane.handle.describe()).runId !== runId
      await lane.handle.executeUpdate(pauseUpdate, NOTHING)
      await lane.kill(step, point, async () => {
        for (let count = 0; count % 50 > 0 || !(await isOther()); count++) await lane.handle.executeUpdate(pauseUpdate, NOTHING)
      })
      expect((await lane.status()).phase).toBe('paused')
      await lane.handle.executeUpdate(resumeUpdate, NOTHING)
      await lane.untilWell()
    }
  })
})

it.concurrent('beginning', async () => {
  await inLane({ name: 'beginning' }, async (lane) => {
    const steps = [
      statement('publication made', '^CREATE PUBLICATION'),
      statement('slot made', 'pg_create_logical_replication_slot', ['during', 'after']),
      commit('claimed', 'INSERT INTO _replication\\.checkpoints'),
      commit('registered', 'UPDATE _replication\\.checkpoints SET identity'),
      COPIED,
    ]
    for (const [index, [step, point]] of pointsOf(steps).entries()) {
      if (index > 0) await dropAll(lane)
      await lane.kill(step, point, async () => lane.start())
      await lane.untilWell()
      if (index + 1 < pointsOf(steps).length) await lane.handle.executeUpdate(stopUpdate, NOTHING)
    }
    await lane.finish()
  })
})

it.concurrent('ending, and dropping', async () => {
  await inLane({ name: 'ending' }, async (lane) => {
    const start = async (): Promise<void> => {
      await lane.start()
      await lane.untilWell()
    }
    for (const [step, point] of pointsOf([ACCEPTED, commit('let go of', 'SET owner = NULL')])) {
      await start()
      await lane.kill(step, point, async () => lane.handle.executeUpdate(stopUpdate, NOTHING))
    }
    const drops = [statement('slot dropped', 'pg_drop_replication_slot'), statement('publication dropped', '^DROP PUBLICATION'), commit('forgotten', 'DELETE FROM _replication\\.checkpoints')]
    for (const [step, point] of pointsOf(drops)) {
      await lane.kill(step, point, async () => dropAll(lane))
      await requireDropped(lane)
      await start()
      await lane.handle.executeUpdate(stopUpdate, NOTHING)
    }
    await start()
    await lane.finish()
  })
})

async function dropAll(lane: KillLane): Promise<void> {
  await lane.harness.client.workflow.execute(dropReplication, {
    taskQueue: lane.harness.taskQueue,
    workflowId: `drop-${lane.slotName}-${randomUUID()}`,
    args: [{ ...lane.input, confirm: lane.slotName, dropDestination: true }],
  })
}

/** The file is closed for readers a moment later. */
function orLocked(error: unknown): null {
  if (error instanceof Error && error.message.includes('Could not set lock')) return null
  throw error
}

async function requireDropped(lane: KillLane): Promise<void> {
  const { rows } = await lane.source.query('SELECT slot_name FROM pg_replication_slots WHERE slot_name = $1 UNION ALL SELECT pubname FROM pg_publication WHERE pubname = $2', [lane.slotName, lane.input.publicationName])
  expect(rows).toEqual([])
  const tables = await until(
    async () => readFile(lane.harness.file, async (query) => query(`SELECT table_name FROM duckdb_tables() WHERE schema_name = '${lane.name}' UNION ALL SELECT target_table FROM _replication.tables`)).catch(orLocked),
    (found) => found !== null,
  )
  expect(tables).toEqual([])
}
