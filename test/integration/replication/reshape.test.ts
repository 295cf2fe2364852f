import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest'
import type { OrderedShapes } from '../../../src/model/replication.ts'
import { modesOf, shapesOf, type Shaping } from '../../../src/model/shapes.ts'
import type { ReplicationSpec, WriteMode } from '../../../src/model/spec.ts'
import { KilledDestination, survive } from '../../support/killed-destination.ts'
import { specOf, TestPipeline } from '../../support/pipeline.ts'
import { compare, type ComparedTable, record } from '../../support/random-scenario.ts'
import { createDatabase, type TestDatabase } from '../../support/servers.ts'

/** Long mode: each step is killed at each of its commits. */
const IS_WHOLE = process.env['KILLS'] === 'all'
/** So many there are in a step, or a few more. */
const USUAL_COMMITS = 7

let database: TestDatabase

beforeAll(async () => {
  database = await createDatabase(inject('postgresUrl'))
})

afterAll(async () => {
  await database.drop()
})

interface Walked {
  readonly name: string
  readonly key: readonly string[]
  readonly walk: readonly (readonly [modes: readonly WriteMode[], deleteMode?: 'soft' | 'hard'])[]
}

/** Each shape from and to each other, with histories that change their names, come and go. */
const KEYED: Walked = {
  name: 'orders',
  key: ['id'],
  walk: [[['append']], [['scd2']], [['merge', 'scd2']], [['scd2', 'append', 'merge']], [['append', 'scd2'], 'hard'], [['merge'], 'soft'], [['scd2', 'merge']], [['merge'], 'hard']],
}
const KEYLESS: Walked = { name: 'plain', key: [], walk: [[['scd2']], [['append', 'scd2']], [['merge', 'append']], [['merge']]] }

/** A table that is brought from shape to shape, and what was seen of it. */
class Walk {
  readonly #table: Walked
  readonly #pipeline: TestPipeline
  readonly #killer: KilledDestination
  shaping: Shaping = { writeMode: 'merge' }
  #past: ComparedTable['past'] = []
  #round = 0
  /** Rows that were in shapes which are not wanted any more. */
  #asideRows = 0

  constructor(table: Walked, pipeline: TestPipeline, killer: KilledDestination) {
    this.#table = table
    this.#pipeline = pipeline
    this.#killer = killer
  }

  async #write(): Promise<void> {
    const { name } = this.#table
    const round = String(++this.#round)
    const changes = [`INSERT INTO ${name} VALUES (${round}, 'n${round}', repeat('long', 700))`, `UPDATE ${name} SET v = v || '.' WHERE id % 7 = ${round} % 7`, `DELETE FROM ${name} WHERE id = ${round} - 20`]
    await this.#pipeline.sql(`BEGIN; ${changes.join('; ')}; COMMIT`)
    await this.#pipeline.sql(this.#round % 9 === 0 ? `TRUNCATE ${name}; INSERT INTO ${name} VALUES (${round}, 'after', NULL)` : `UPDATE ${name} SET id = id + 1000 WHERE id = ${round} - 3`)
  }

  async #surviving(work: () => Promise<unknown>): Promise<void> {
    await survive(this.#killer, this.#pipeline, work)
  }

  /** Changes before, between and after the order; then all shapes are as at the source. */
  async step([modes, deleteMode]: Walked['walk'][number], arm: () => void): Promise<void> {
    const { name, key } = this.#table
    // What the copy sees, and the stream has not brought, stands at the position that is applied: past all that was recorded.
    await this.#write()
    await this.#pipeline.catchUp()
    const before = this.shaping
    const order: OrderedShapes = { writeMode: { [name]: modes }, ...(deleteMode === undefined ? {} : { deleteMode }) }
    const isSoft = modes.includes('merge') && (deleteMode ?? (modesOf(before).includes('merge') && before.isSoft === true ? 'soft' : 'hard')) === 'soft'
    const [writeMode = 'merge', ...otherModes] = modes
    this.shaping = { writeMode, ...(otherModes.length === 0 ? {} : { otherModes }), ...(isSoft ? { isSoft } : {}) }
    const left = shapesOf(before, { schema: 'public', name }).filter(({ kind }) => kind !== 'merge' && !shapesOf(this.shaping, { schema: 'public', name }).some((other) => other.kind === kind))
    for (const { table } of left) this.#asideRows += await this.#count(table.name)
    await this.#write()
    arm()
    await this.#surviving(async () => this.#pipeline.order({ tag: 'resync', tableNames: [name], shapes: order }))
    await this.#write()
    await this.#surviving(async () => this.#pipeline.catchUp())
    await this.#write()
    await this.#surviving(async () => this.#pipeline.catchUp())
    this.#killer.revive()
    // A history that is begun anew knows nothing of what was before it.
    const keepsVersions = modesOf(before).includes('scd2')
    const table: ComparedTable = { name, key, modes, past: keepsVersions ? this.#past : [] }
    await compare(this.#pipeline, [table], { isSoft, tally: null })
    await record(this.#pipeline, [table])
    this.#past = table.past
    const wanted = shapesOf(this.shaping, { schema: 'public', name }).map(({ table: { name: wantedName } }) => wantedName)
    expect(await this.#tables('NOT LIKE')).toEqual([...wanted].sort())
    let rows = 0
    for (const aside of await this.#tables('LIKE')) rows += await this.#count(aside)
    expect(rows, 'rows of former shapes').toBe(this.#asideRows)
  }

  async #tables(like: 'LIKE' | 'NOT LIKE'): Promise<readonly string[]> {
    const found = await this.#pipeline.query(`SELECT table_name FROM duckdb_tables() WHERE schema_name = 'public' AND starts_with(table_name, '${this.#table.name}') AND table_name ${like} '%@_@_former@_%' ESCAPE '@' ORDER BY 1`)
    return found.map(([name]) => String(name))
  }

  async #count(table: string): Promise<number> {
    const [row] = await this.#pipeline.query(`SELECT count(*)::INTEGER FROM public.${table}`)
    return Number(row?.[0])
  }
}

describe('resyncTables with other shapes', () => {
  for (const table of [KEYED, KEYLESS]) {
    it(`brings ${table.name} from shape to shape while the stream goes on, killed at each commit: histories that are wanted go on, others stay aside`, { timeout: 900_000 }, async () => {
      const slotName = `reshape_${table.name}`
      const killer: KilledDestination = new KilledDestination((): string => pipeline.file)
      const pipeline: TestPipeline = new TestPipeline(database.url, specOf({ slotName, tableNames: [table.name] }), { around: (destination) => killer.around(destination) })
      try {
        await pipeline.sql(`CREATE TABLE ${table.name} (id int, v text, big text${table.key.length > 0 ? ', PRIMARY KEY (id)' : ''}); ALTER TABLE ${table.name} ALTER big SET STORAGE EXTERNAL`)
        if (table.key.length === 0) await pipeline.sql(`ALTER TABLE ${table.name} REPLICA IDENTITY FULL`)
        await pipeline.sql(`INSERT INTO ${table.name} SELECT -g, 'v' || g, repeat('x', g * 300) FROM generate_series(1, 20) g`)
        await pipeline.initialize()
        await pipeline.catchUp()
        const walk = new Walk(table, pipeline, killer)
        for (let pass = 0, isOver = false; !isOver; pass++) {
          const killsBefore = killer.kills
          for (const [place, step] of table.walk.entries()) {
            const commits = IS_WHOLE ? pass : (2 * place + pass) % USUAL_COMMITS
            await walk.step(step, () => { killer.arm(commits, (pass + place) % 2 === 0) })
          }
          isOver = IS_WHOLE ? killer.kills === killsBefore : pass === 1
        }
        expect(killer.kills).toBeGreaterThan(table.walk.length)
        await pipeline.engine.drop({ source: 'shop', destination: 'warehouse', slotName, publicationName: pipeline.spec.publicationName, dropDestination: true }, pipeline.context())
      } finally {
        await pipeline.release().catch(() => undefined)
        await pipeline[Symbol.asyncDispose]()
      }
    })
  }

  it('stands while the input is the same, ends with an input of the same shapes, and a start with others is refused with the way to do it', async () => {
    await using pipeline = new TestPipeline(database.url, specOf({ slotName: 'reshape_input', tableNames: ['inputs'] }))
    await pipeline.sql("CREATE TABLE inputs (id int PRIMARY KEY, v text); INSERT INTO inputs VALUES (1, 'one')")
    await pipeline.initialize()
    await pipeline.catchUp()
    const tables = async (): Promise<unknown> => pipeline.query("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'public' AND table_name LIKE 'inputs%' ORDER BY 1")
    pipeline.spec = { ...pipeline.spec, writeMode: 'scd2' }
    await expect(pipeline.initialize()).rejects.toMatchObject({ kind: 'InvalidInput', remedy: expect.stringContaining('resyncTables {"tableNames":["public.inputs"],"writeMode":{"public.inputs":["scd2"]},"deleteMode":"hard"}') as unknown })
    pipeline.spec = { ...pipeline.spec, writeMode: 'merge' }
    await pipeline.order({ tag: 'resync', tableNames: ['inputs'], shapes: { writeMode: { inputs: ['merge', 'scd2'] } } })
    // Until the copy is whole, readers see what was there.
    expect(await tables()).toEqual([['inputs']])
    await pipeline.initialize()
    await pipeline.catchUp()
    expect(await tables()).toEqual([['inputs'], ['inputs__history']])
    await pipeline.sql("UPDATE inputs SET v = 'two'")
    await pipeline.initialize()
    await pipeline.order({ tag: 'resync', tableNames: ['inputs'] })
    await pipeline.catchUp()
    expect(await pipeline.query('SELECT v, _is_current FROM public.inputs__history ORDER BY _lsn')).toEqual([['one', false], ['two', true]])
    // The input says the same as the order: it is the newer word.
    pipeline.spec = { ...pipeline.spec, writeMode: { inputs: ['merge', 'scd2'] } }
    await pipeline.initialize()
    await pipeline.catchUp()
    pipeline.spec = { ...pipeline.spec, writeMode: 'merge' }
    await expect(pipeline.initialize()).rejects.toMatchObject({ kind: 'InvalidInput', message: expect.stringContaining('cannot become merge') as unknown })
  })

  it('refuses shapes that a table cannot have, and those of tables that are not meant, before anything is changed', async () => {
    await using pipeline = new TestPipeline(database.url, specOf({ slotName: 'reshape_refused', tableNames: ['refused', 'other', 'keyless'] }))
    await pipeline.sql('CREATE TABLE refused (id int PRIMARY KEY, _op text); CREATE TABLE other (id int PRIMARY KEY); CREATE TABLE keyless (v text); ALTER TABLE keyless REPLICA IDENTITY FULL; INSERT INTO refused VALUES (1)')
    await pipeline.initialize()
    await pipeline.catchUp()
    const refused = async (tableNames: readonly string[], shapes: OrderedShapes, message: RegExp): Promise<void> => {
      await expect(pipeline.order({ tag: 'resync', tableNames, shapes })).rejects.toMatchObject({ kind: 'InvalidInput', message: expect.stringMatching(message) as unknown })
    }
    await refused(['refused'], { writeMode: 'append' }, /"_op" has the name of a column that writeMode append adds/)
    await refused(['keyless'], { deleteMode: 'soft' }, /has no key/)
    await refused(['refused'], { writeMode: { other: ['scd2'] } }, /other/)
    await refused(['other'], { writeMode: 'scd2', deleteMode: 'soft' }, /is held as scd2/)
    await pipeline.write('CREATE TABLE public.other__history (mine int)')
    await refused(['other'], { writeMode: { other: ['merge', 'scd2'] } }, /other__history that no replication has filled/)
    expect(Object.values((await pipeline.catchUp()).progress.tables).map(({ state }) => state)).toEqual(['streaming', 'streaming', 'streaming'])
    expect(await pipeline.query("SELECT count(*)::INTEGER FROM duckdb_tables() WHERE contains(table_name, '__replication_copy')")).toEqual([[0]])
  })

  it('leaves what was there where the table leaves before it is whole, and drops all of it on request', async () => {
    await using pipeline = new TestPipeline(database.url, specOf({ slotName: 'reshape_left', tableNames: ['left_one', 'left_two'], writeMode: 'scd2' }))
    await pipeline.sql('CREATE TABLE left_one (id int PRIMARY KEY); CREATE TABLE left_two (id int PRIMARY KEY); INSERT INTO left_one VALUES (1); INSERT INTO left_two VALUES (1)')
    await pipeline.initialize()
    await pipeline.catchUp()
    const tables = async (): Promise<unknown> => pipeline.query("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'public' AND table_name LIKE 'left%' ORDER BY 1")
    await pipeline.order({ tag: 'resync', tableNames: ['left_one', 'left_two'], shapes: { writeMode: 'append' } })
    await pipeline.order({ tag: 'remove', tableNames: ['left_one'], dropDestination: false })
    await pipeline.order({ tag: 'remove', tableNames: ['left_two'], dropDestination: true })
    expect(await tables()).toEqual([['left_one']])
    expect(await pipeline.query('SELECT id, _is_current FROM public.left_one')).toEqual([[1, true]])
    expect(await pipeline.query("SELECT write_mode, state FROM _replication.tables WHERE source_table LIKE 'left%'")).toEqual([['scd2', 'removed']])
  })

  /** A table with one row, loaded in these shapes; further tables as `ddl` makes them. */
  async function loaded(tableNames: readonly string[], writeMode: ReplicationSpec['writeMode'], given: Partial<ReplicationSpec> = {}): Promise<TestPipeline> {
    const [name = ''] = tableNames
    const pipeline = new TestPipeline(database.url, specOf({ slotName: `reshape_${name}`, tableNames, writeMode, ...given }))
    for (const table of tableNames) await pipeline.sql(`CREATE TABLE ${table} (id int PRIMARY KEY, v text); INSERT INTO ${table} VALUES (1, 'one')`)
    await pipeline.initialize()
    await pipeline.catchUp()
    return pipeline
  }

  const reshape = async (pipeline: TestPipeline, tableName: string, shapes: OrderedShapes): Promise<unknown> => pipeline.order({ tag: 'resync', tableNames: [tableName], shapes })

  // Cause: its record had the columns of the shapes that were ordered, so a new column could not get the name of one that had been dropped.
  it('knows what a history has whose table left before other shapes were there, when the table comes back to it', async () => {
    await using pipeline = await loaded(['comes'], 'append')
    await pipeline.sql("INSERT INTO comes VALUES (2, 'two'); ALTER TABLE comes DROP COLUMN v; INSERT INTO comes VALUES (3)")
    await pipeline.catchUp()
    const history = async (columns: string): Promise<unknown> => pipeline.query(`SELECT ${columns}, _op FROM public.comes ORDER BY _lsn, _seq, id`)
    expect(await history('id, v')).toEqual([[1, 'one', 'snapshot'], [2, 'two', 'insert'], [3, null, 'insert']])
    await reshape(pipeline, 'comes', { writeMode: 'merge' })
    await pipeline.order({ tag: 'remove', tableNames: ['comes'], dropDestination: false })
    await pipeline.sql('ALTER TABLE comes ADD COLUMN v int; INSERT INTO comes VALUES (4, 4)')
    await pipeline.order({ tag: 'add', tableNames: ['comes'] })
    await pipeline.catchUp()
    await pipeline.sql('INSERT INTO comes VALUES (5, 5)')
    expect((await pipeline.catchUp()).progress.tables['public.comes']?.state).toBe('streaming')
    expect(await history('id, v__dropped_2, v')).toEqual([[1, 'one', null, 'snapshot'], [2, 'two', null, 'insert'], [3, null, null, 'insert'], [4, null, 4, 'snapshot'], [5, null, 5, 'insert']])
  })

  // Cause: only the copy followed the source's columns, and the former history counted as kept again: the swap failed each time.
  it('refuses the way back to a history that a running order leaves, and does it once the table is streaming', async () => {
    await using pipeline = await loaded(['back'], 'append')
    await reshape(pipeline, 'back', { writeMode: 'merge' })
    await expect(reshape(pipeline, 'back', { writeMode: { back: ['scd2', 'append'] } })).rejects.toMatchObject({ kind: 'InvalidInput', message: expect.stringContaining('cannot come back to the append') as unknown, remedy: expect.stringContaining('streaming') as unknown })
    await pipeline.sql("ALTER TABLE back RENAME COLUMN v TO w; INSERT INTO back VALUES (2, 'two')")
    await reshape(pipeline, 'back', { writeMode: { back: ['merge', 'scd2'] } })
    await pipeline.catchUp()
    await reshape(pipeline, 'back', { writeMode: 'append' })
    const { progress } = await pipeline.catchUp()
    expect(progress.tables['public.back']?.state).toBe('streaming')
    expect(await pipeline.query('SELECT id, w, _op FROM public.back ORDER BY id')).toEqual([[1, 'one', 'snapshot'], [2, 'two', 'snapshot']])
  })

  // Cause: a table that another replication had left may be filled anew at a first load, but a shape that is kept moves there by a rename.
  it('refuses a name at which somebody’s table stands; one that comes there meanwhile stops the table, and stays', async () => {
    await using pipeline = await loaded(['taken', 'taken__history'], 'scd2')
    await pipeline.order({ tag: 'remove', tableNames: ['taken__history'], dropDestination: false })
    await expect(reshape(pipeline, 'taken', { writeMode: { taken: ['merge', 'scd2'] } })).rejects.toMatchObject({ kind: 'InvalidInput', message: expect.stringContaining('a table public.taken__history already') as unknown, remedy: expect.stringContaining('DROP TABLE') as unknown })
    for (const [writeMode, name] of [[['append', 'merge'], 'taken__current'], [['merge', 'append'], 'taken__changes']] as const) {
      await reshape(pipeline, 'taken', { writeMode: { taken: writeMode } })
      await pipeline.write(`CREATE TABLE public.${name} (mine int); INSERT INTO public.${name} VALUES (7)`)
      const { progress } = await pipeline.catchUp()
      expect(progress.tables['public.taken']).toMatchObject({ state: 'failed', error: { message: expect.stringContaining(`a table public.${name} already`) as unknown, remedy: expect.stringContaining('DROP TABLE') as unknown } })
      expect(await pipeline.query(`SELECT mine FROM public.${name}`)).toEqual([[7]])
      await pipeline.write(`DROP TABLE public.${name}`)
      await pipeline.engine.retryTables({ spec: pipeline.spec, owner: pipeline.owner, tableNames: null })
      expect((await pipeline.catchUp()).progress.tables['public.taken']?.state).toBe('streaming')
    }
    expect(await pipeline.query('SELECT id, _op FROM public.taken__changes')).toEqual([[1, 'snapshot']])
  })

  // Cause: only the names of the shapes that are wanted were asked for, but those that are there are renamed too; that failed, and with it the stream.
  it('follows no rename to a name at which a stranger has the place of a former shape, and goes on with all others', async () => {
    await using pipeline = await loaded(['renamed', 'beside'], { renamed: ['merge', 'scd2'] })
    await reshape(pipeline, 'renamed', { writeMode: 'append' })
    await pipeline.write('CREATE TABLE public.newer__history (mine int)')
    await pipeline.sql("ALTER TABLE renamed RENAME TO newer; INSERT INTO newer VALUES (2, 'two'); INSERT INTO beside VALUES (2, 'two')")
    const { progress } = await pipeline.catchUp()
    // Where the copy was whole before the stream told of the name, the history stands aside already, and nothing is in the way.
    const stoppedTables = Object.values(progress.tables).filter(({ state }) => state === 'failed')
    for (const { error } of stoppedTables) expect(error?.message).toContain('newer__history')
    expect(await pipeline.query('SELECT * FROM public.newer__history')).toEqual([])
    expect(await pipeline.query('SELECT count(*)::INTEGER FROM public.beside')).toEqual([[2]])
  })

  // Cause: the order was taken for one of a table that is being copied already, and its copy waited for an approval.
  it('copies the table as it is now where schema changes wait for approval', async () => {
    await using pipeline = await loaded(['asked'], 'merge', { schemaChanges: 'ask' })
    await pipeline.sql("ALTER TABLE asked ADD COLUMN more int DEFAULT 5; INSERT INTO asked VALUES (2, 'two', 6)")
    expect((await pipeline.catchUp()).progress.tables['public.asked']?.state).toBe('failed')
    await reshape(pipeline, 'asked', { writeMode: 'append' })
    expect((await pipeline.catchUp()).progress.tables['public.asked']?.state).toBe('streaming')
    expect(await pipeline.query('SELECT id, more FROM public.asked ORDER BY id')).toEqual([[1, 5], [2, 6]])
  })

  // Cause: the count stayed with the table, whatever became of the history that it told of.
  it('warns no more of changes without a value once no past is kept', async () => {
    await using pipeline = await loaded(['unknown'], 'append')
    await pipeline.write("UPDATE _replication.tables SET definition = json_merge_patch(definition, '{\"unknownChanges\": 3}')")
    expect((await pipeline.catchUp()).progress.warnings).toContainEqual(expect.stringContaining('3 of its changes have NULL'))
    await reshape(pipeline, 'unknown', { writeMode: { unknown: ['append', 'merge'] } })
    expect((await pipeline.catchUp()).progress.warnings).toContainEqual(expect.stringContaining('3 of its changes have NULL'))
    await reshape(pipeline, 'unknown', { writeMode: 'merge' })
    expect((await pipeline.catchUp()).progress.warnings).not.toContainEqual(expect.stringContaining('have NULL'))
  })
})
