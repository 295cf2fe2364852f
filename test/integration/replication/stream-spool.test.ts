import { appendFileSync, existsSync, mkdirSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, inject, it, vi } from 'vitest'
import type { LiveProgress, SliceResult } from '../../../src/model/replication.ts'
import { SegmentWriter } from '../../../src/replication/stream-spool.ts'
import { CommitKiller, Killed, survive } from '../../support/commit-killer.ts'
import { differences, specOf, TestPipeline, type TestPipelineOptions } from '../../support/pipeline.ts'
import { createDatabase } from '../../support/servers.ts'
import { randomNumbers } from '../../support/worker-harness.ts'

let database: Awaited<ReturnType<typeof createDatabase>>

beforeAll(async () => {
  database = await createDatabase(inject('postgresUrl'))
})

afterAll(async () => {
  await database.drop()
})

type Given = Partial<Parameters<typeof specOf>[0]>

/** A schema called like the slot, with a table `m` of current rows and a history `h`; any WAL is too much. */
async function spooling(slotName: string, given: Given = {}, options: TestPipelineOptions = {}): Promise<TestPipeline> {
  const spec = specOf({ slotName, schemaName: slotName, tableNames: ['m', 'h'], writeMode: { m: ['merge'], h: ['append'] }, walBudgetBytes: 1, ...given })
  const pipeline = new TestPipeline(database.url, spec, options)
  await pipeline.sql(`CREATE SCHEMA ${slotName}; CREATE TABLE ${slotName}.m (id int PRIMARY KEY, v text); ALTER TABLE ${slotName}.m ALTER v SET STORAGE EXTERNAL; CREATE TABLE ${slotName}.h (id int PRIMARY KEY, v text)`)
  await pipeline.sql(`INSERT INTO ${slotName}.m SELECT g, 'copied' FROM generate_series(1, 20) g`)
  await pipeline.initialize()
  await pipeline.catchUp()
  await pipeline.release()
  return pipeline
}

async function drop(pipeline: TestPipeline): Promise<void> {
  const { slotName, publicationName } = pipeline.spec
  await pipeline.engine.drop({ source: 'shop', destination: 'warehouse', slotName, publicationName, dropDestination: true }, pipeline.context())
  await pipeline[Symbol.asyncDispose]()
}

async function write(pipeline: TestPipeline, from: number): Promise<void> {
  const { slotName } = pipeline.spec
  const range = `generate_series(${String(from)}, ${String(from + 9)}) g`
  await pipeline.sql(`BEGIN; INSERT INTO ${slotName}.m SELECT g, repeat('x' || g, 1500) FROM ${range}; INSERT INTO ${slotName}.h SELECT g, 'h' || g FROM ${range}; UPDATE ${slotName}.m SET id = id + 100000 WHERE id = ${String(from)}; COMMIT`)
  await pipeline.sql(`UPDATE ${slotName}.m SET v = 'changed' WHERE id = ${String(from + 1)}; DELETE FROM ${slotName}.m WHERE id = ${String(from + 2)}; UPDATE ${slotName}.h SET v = 'u' WHERE id = ${String(from + 3)}`)
}

async function requireEqual(pipeline: TestPipeline): Promise<void> {
  const { schemaName } = pipeline.spec
  expect(differences(await pipeline.destinationRows('m', schemaName), await pipeline.sourceRows('m', schemaName))).toEqual({ missing: [], extra: [] })
  // Each change once: ten inserts and an update for each `write`.
  const [[count, distinct] = []] = await pipeline.query(`SELECT count(*), count(DISTINCT (_lsn, _seq)) FROM ${schemaName}.h`)
  expect(count).toBe(distinct)
  const current = await pipeline.query(`SELECT id, v FROM (SELECT id, v, _op, row_number() OVER (PARTITION BY id ORDER BY _lsn DESC, _seq DESC) AS n FROM ${schemaName}.h) WHERE n = 1 AND _op <> 'delete' ORDER BY id`)
  const { rows } = await pipeline.source.query({ text: `SELECT id, v FROM ${schemaName}.h ORDER BY id`, rowMode: 'array' })
  expect(current).toEqual(rows)
}

const folderOf = (pipeline: TestPipeline): string => join(`${pipeline.file}.spool`, `shop.${pipeline.spec.slotName}`, 'stream')
const filesOf = (pipeline: TestPipeline): string[] => (existsSync(folderOf(pipeline)) ? readdirSync(folderOf(pipeline)) : [])

describe('the spool of the stream', () => {
  it('takes what the slot holds back, without the destination, and gives it back in its order, once, before the rest', async () => {
    const pipeline = await spooling('s_way')
    try {
      const before = statSync(pipeline.file).mtimeMs
      await write(pipeline, 100)
      const first = await pipeline.spool()
      expect(first.ended).toBe('aborted')
      expect(first.warnings.join()).toContain('are in the spool beside the destination')
      await write(pipeline, 200)
      await pipeline.spool()
      await write(pipeline, 300)
      expect(filesOf(pipeline)).toHaveLength(2)
      expect(statSync(pipeline.file).mtimeMs).toBe(before)
      await pipeline.initialize()
      const { changes } = await pipeline.catchUp()
      expect(changes['s_way.h']).toEqual({ inserts: 30, updates: 3, deletes: 0, truncates: 0 })
      await requireEqual(pipeline)
      await write(pipeline, 400)
      await pipeline.catchUp()
      await requireEqual(pipeline)
      expect(filesOf(pipeline)).toEqual([])
    } finally {
      await drop(pipeline)
    }
  })

  it('is drained through schema changes and TRUNCATE, and beside a table that was added while it lay there', async () => {
    const pipeline = await spooling('s_ddl')
    try {
      await write(pipeline, 100)
      await pipeline.sql("ALTER TABLE s_ddl.m ADD COLUMN w int DEFAULT 3; UPDATE s_ddl.m SET w = 4 WHERE id = 1; TRUNCATE s_ddl.h; INSERT INTO s_ddl.h VALUES (1, 'after'); CREATE TABLE s_ddl.late (id int PRIMARY KEY); INSERT INTO s_ddl.late VALUES (1)")
      await pipeline.spool()
      await pipeline.order({ tag: 'add', tableNames: ['late'] })
      await pipeline.release()
      await pipeline.sql('INSERT INTO s_ddl.late VALUES (2); UPDATE s_ddl.m SET w = 5 WHERE id = 2')
      await pipeline.spool()
      await pipeline.sql('INSERT INTO s_ddl.late VALUES (3)')
      await pipeline.catchUp()
      for (const table of ['m', 'late']) expect(differences(await pipeline.destinationRows(table, 's_ddl'), await pipeline.sourceRows(table, 's_ddl'))).toEqual({ missing: [], extra: [] })
      expect((await pipeline.query("SELECT count(*) FILTER (WHERE _op = 'truncate') FROM s_ddl.h"))[0]?.[0]).toBe('1')
    } finally {
      await drop(pipeline)
    }
  })

  it('is missed, loudly, where its folder is gone or a part of it is', async () => {
    const pipeline = await spooling('s_lost')
    try {
      await write(pipeline, 100)
      await pipeline.spool()
      await write(pipeline, 200)
      await pipeline.spool()
      const [first] = filesOf(pipeline)
      rmSync(join(folderOf(pipeline), first ?? ''))
      await expect(pipeline.catchUp()).rejects.toMatchObject({ kind: 'SlotLost' })
      rmSync(folderOf(pipeline), { recursive: true })
      await expect(pipeline.catchUp()).rejects.toMatchObject({ kind: 'SlotLost' })
      pipeline.spec = { ...pipeline.spec, reset: true }
      await pipeline.initialize()
      pipeline.spec = { ...pipeline.spec, reset: false }
      await pipeline.catchUp()
      expect(differences(await pipeline.destinationRows('m', 's_lost'), await pipeline.sourceRows('m', 's_lost'))).toEqual({ missing: [], extra: [] })
    } finally {
      await drop(pipeline)
    }
  })

  it('waits when it is full, with whole transactions only, and leaves the rest to the slot', async () => {
    const pipeline = await spooling('s_full', { spoolBudgetBytes: 150_000 })
    try {
      await write(pipeline, 100)
      await pipeline.sql(`INSERT INTO s_full.h SELECT g, repeat('y', 100) FROM generate_series(1000, 3000) g`)
      let looks = 0
      const { warnings } = await pipeline.spool(() => filesOf(pipeline).length > 0 && looks++ > 40)
      expect(warnings.join()).toContain('the spool is full (spoolBudgetBytes 150000)')
      const bytes = filesOf(pipeline).reduce((sum, name) => sum + statSync(join(folderOf(pipeline), name)).size, 0)
      expect(bytes).toBeGreaterThan(60_000)
      expect(bytes).toBeLessThan(150_000)
      await pipeline.catchUp()
      await requireEqual(pipeline)
    } finally {
      await drop(pipeline)
    }
  })

  it('is told of for as long as it is so: raised, the budget warns no more', async () => {
    const pipeline = await spooling('s_raised', { spoolBudgetBytes: 1_000 })
    try {
      await write(pipeline, 100)
      let looks = 0
      expect((await pipeline.spool(() => looks++ > 60)).warnings.join()).toContain('the spool is full (spoolBudgetBytes 1000)')
      pipeline.spec = { ...pipeline.spec, spoolBudgetBytes: 10 ** 9 }
      expect((await pipeline.spool()).warnings.join()).not.toContain('is full')
      await pipeline.catchUp()
      await requireEqual(pipeline)
    } finally {
      await drop(pipeline)
    }
  })

  it('that cannot be written is told of, with what to do, until it can', async () => {
    const pipeline = await spooling('s_denied')
    const folder = dirname(folderOf(pipeline))
    try {
      rmSync(folder, { recursive: true, force: true })
      mkdirSync(dirname(folder), { recursive: true })
      writeFileSync(folder, 'no folder')
      await write(pipeline, 100)
      const denied = await pipeline.engine.spool({ spec: pipeline.spec, maxMs: 6_000 }, pipeline.context())
      expect(denied.ended).toBe('time')
      expect(denied.warnings.filter((warning) => warning.startsWith('the slot cannot be spooled'))).toEqual([expect.stringMatching(/cannot keep changes in the spool file .*: E(NOTDIR|EXIST); see that the folder beside the destination is writable and has room/)])
      rmSync(folder)
      expect((await pipeline.spool()).warnings.join()).not.toContain('cannot be spooled')
      await pipeline.catchUp()
      await requireEqual(pipeline)
    } finally {
      await drop(pipeline)
    }
  })

  it('what a stream warns of its slot is there in the live figures beside the workflow\'s warnings, and ends the slice when it is over', { timeout: 300_000 }, async () => {
    const pipeline = await spooling('s_warned', { walBudgetBytes: 400_000 })
    const told: (readonly string[])[] = []
    const context = { ...pipeline.context(), report: ({ progress }: LiveProgress) => { if (progress !== undefined) told.push(progress.warnings) } }
    const slice = async (maxIdleMs: number): Promise<SliceResult> =>
      pipeline.engine.runSlice({ spec: pipeline.spec, mode: 'stream', tableNames: null, untilLsn: null, maxBusyMs: maxIdleMs, maxIdleMs, warnings: ['of the workflow'] }, context)
    const isOfSlot = (warning: string): boolean => warning.startsWith('the slot holds back')
    const holder = await pipeline.source.connect()
    try {
      // An open transaction: the slot cannot let go of what came since.
      await holder.query("BEGIN; INSERT INTO s_warned.h VALUES (1, 'held')")
      await pipeline.sql('CREATE TABLE s_warned.noise AS SELECT g, md5(g::text) FROM generate_series(1, 20000) g')
      let held: SliceResult
      do { held = await slice(1_000) } while (held.slotWarnings?.some(isOfSlot) !== true)
      expect(held.progress.warnings.filter(isOfSlot)).toEqual([])
      await slice(3_000)
      expect(told.some((warnings) => warnings.includes('of the workflow') && warnings.filter(isOfSlot).length === 1)).toBe(true)
      expect(told.filter((warnings) => warnings.filter(isOfSlot).length > 1)).toEqual([])
      await holder.query('COMMIT')
      await pipeline.sql('CHECKPOINT')
      const startMs = performance.now()
      // The slot lets go once no transaction of the whole server is older than this, and other tests have some of a minute or two.
      const over = await slice(240_000)
      expect(over.slotWarnings).toEqual([])
      expect(performance.now() - startMs).toBeLessThan(220_000)
    } finally {
      await holder.query('ROLLBACK')
      holder.release()
      await drop(pipeline)
    }
  })

  it('is of no use without a budget, nor where nothing is confirmed to the slot; and is not begun below the budget', async () => {
    const pipeline = await spooling('s_none', { walBudgetBytes: null })
    try {
      await write(pipeline, 100)
      expect((await pipeline.spool()).ended).toBe('noBudget')
      pipeline.spec = { ...pipeline.spec, walBudgetBytes: 1, flushSlot: false }
      expect((await pipeline.spool()).ended).toBe('noBudget')
      pipeline.spec = { ...pipeline.spec, walBudgetBytes: 2 ** 40, flushSlot: true }
      let looks = 0
      expect((await pipeline.spool(() => looks++ > 20)).ended).toBe('aborted')
      expect(filesOf(pipeline)).toEqual([])
    } finally {
      await drop(pipeline)
    }
  })
})

/** Lets the process die when the spool is made durable: before it or after it and before it is confirmed. What lies behind the last mark is whatever a kill leaves there. */
function spoolKiller(random: () => number): { moment: 'before' | 'after' | null; kills: number } {
  const killer = { moment: null as 'before' | 'after' | null, kills: 0 }
  const save = Reflect.get<SegmentWriter, 'save'>(SegmentWriter.prototype, 'save')
  const close = Reflect.get<SegmentWriter, 'close'>(SegmentWriter.prototype, 'close')
  const dead = new WeakSet<SegmentWriter>()
  const die = (writer: SegmentWriter): never => {
    dead.add(writer)
    killer.kills++
    killer.moment = null
    throw new Killed()
  }
  vi.spyOn(SegmentWriter.prototype, 'save').mockImplementation(async function (this: SegmentWriter) {
    if (killer.moment === 'before') die(this)
    const saved = await save.call(this)
    if (killer.moment === 'after' && saved > this.startLsn) die(this)
    return saved
  })
  vi.spyOn(SegmentWriter.prototype, 'close').mockImplementation(function (this: SegmentWriter) {
    if (dead.has(this)) appendFileSync(this.path, Buffer.alloc(Math.floor(random() * 3_000), Math.floor(random() * 256)))
    else close.call(this)
  })
  return killer
}

it('loses and doubles nothing, whatever a process did last: keeping the stream, or applying what was kept', { timeout: 600_000 }, async () => {
  const random = randomNumbers(Number(process.env['SPOOL_SEED'] ?? '1'))
  const killer = spoolKiller(random)
  const commitKiller = new CommitKiller()
  const pipeline = await spooling('s_kill', {}, { around: (destination) => commitKiller.around(destination) })
  try {
    const states = new Set<string>()
    let rounds = 0
    while (rounds < 14 || (rounds < 60 && (killer.kills < 6 || commitKiller.victims.length < 3))) {
      rounds++
      await write(pipeline, 100 * rounds)
      if (random() < 0.75) {
        killer.moment = random() < 0.35 ? 'before' : random() < 0.6 ? 'after' : null
        await survive(async () => pipeline.spool())
        killer.moment = null
        states.add('kept')
        continue
      }
      commitKiller.arm(Math.floor(random() * 4), random() < 0.5)
      await survive(async () => pipeline.catchUp())
      commitKiller.disarm()
      states.add('applied')
      await pipeline.release()
    }
    await pipeline.catchUp()
    expect([...states].sort()).toEqual(['applied', 'kept'])
    await requireEqual(pipeline)
    expect((await pipeline.query('SELECT count(*) FROM s_kill.h'))[0]?.[0]).toBe(String(11 * rounds))
  } finally {
    vi.restoreAllMocks()
    await drop(pipeline)
  }
})
