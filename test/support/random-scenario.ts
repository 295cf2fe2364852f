import { setTimeout as sleep } from 'node:timers/promises'
import fc from 'fast-check'
import type pg from 'pg'
import { expect } from 'vitest'
import { closeIdleDatabases } from '../../src/destinations/duckdb/database.ts'
import { DomainError } from '../../src/model/errors.ts'
import { shapesOf } from '../../src/model/shapes.ts'
import type { WriteMode } from '../../src/model/spec.ts'
import { appendRows, countVersions, destinationRows, differences, doubledChanges, falseVersions, foldAppendRows, NO_DIFFERENCES, readFile, repeatedChanges, sourceRows } from './comparison.ts'
import { KilledDestination } from './killed-destination.ts'
import { specOf, TestPipeline } from './pipeline.ts'
import { type Burst, burst, type ChangeTally, RANDOM_TABLES, runBurst } from './random-operations.ts'
import { sourcePool } from './source-pool.ts'

/** What the replication does while, or after, writers work. */
export type Interruption =
  | { readonly tag: 'none' }
  /** Lets go of slot and file: the next slice is another process's, as far as it can tell. */
  | { readonly tag: 'release' }
  /** The slice is told to end at a random moment. */
  | { readonly tag: 'abort'; readonly afterMs: number }
  /** The source ends our connections at a random moment. */
  | { readonly tag: 'disconnect'; readonly afterMs: number }
  /** The process does not survive a commit at the destination, which came about or did not. */
  | { readonly tag: 'kill'; readonly afterCommits: number; readonly isCommitted: boolean }
  /** All tables are copied anew, over what is there; it may be that the process does not survive that. */
  | { readonly tag: 'resync'; readonly kill: { readonly afterCommits: number; readonly isCommitted: boolean } | null }

export interface Round {
  readonly writers: Burst
  /** Does the stream run while they write? */
  readonly isBeside: boolean
  readonly interruption: Interruption
  /** Are both sides compared after it? */
  readonly isCompared: boolean
}

export interface Scenario {
  readonly tables: readonly { readonly index: number; readonly modes: readonly WriteMode[] }[]
  /** `deleteMode: "soft"`, where each table's rows can be marked. */
  readonly isSoft: boolean
  /** Committed before init. */
  readonly first: Burst
  /** Goes on while init runs. */
  readonly besideInit: Burst
  /** Is everything copied before the rounds, with no writer? Then every later change is counted. */
  readonly isCopiedFirst: boolean
  readonly rounds: readonly Round[]
  /** Are transactions over 64 kB streamed while they are in progress? */
  readonly isStreamed: boolean
}

const MODES: WriteMode[] = ['merge', 'append', 'scd2']

const moment = fc.nat(120)

const interruption: fc.Arbitrary<Interruption> = fc.oneof(
  { arbitrary: fc.constant({ tag: 'none' } as const), weight: 3 },
  { arbitrary: fc.constant({ tag: 'release' } as const), weight: 2 },
  { arbitrary: fc.record({ tag: fc.constant('abort' as const), afterMs: moment }), weight: 2 },
  { arbitrary: fc.record({ tag: fc.constant('disconnect' as const), afterMs: moment }), weight: 1 },
  { arbitrary: fc.record({ tag: fc.constant('kill' as const), afterCommits: fc.nat(4), isCommitted: fc.boolean() }), weight: 3 },
  { arbitrary: fc.record({ tag: fc.constant('resync' as const), kill: fc.option(fc.record({ afterCommits: fc.nat(10), isCommitted: fc.boolean() })) }), weight: 2 },
)

export const scenario: fc.Arbitrary<Scenario> = fc
  .subarray(
    RANDOM_TABLES.map((_, index) => index),
    { minLength: 1 },
  )
  .chain((indexes) => fc.tuple(...indexes.map((index) => fc.record({ index: fc.constant(index), modes: fc.shuffledSubarray(MODES, { minLength: 1 }) }))))
  .chain((tables) => {
    // No change tells an append table the value that a new column gives to the rows that are there: its history is without it.
    const worked = tables.map(({ index, modes }) => ({ index, hasDefaults: modes.some((mode) => mode !== 'append') }))
    return fc.record({
      tables: fc.constant(tables),
      isSoft: tables.every(({ index, modes }) => !modes.includes('merge') || RANDOM_TABLES[index]?.key.length !== 0) ? fc.boolean() : fc.constant(false),
      first: burst(worked, { writers: 2, transactions: 4 }),
      besideInit: burst(worked, { writers: 2, transactions: 3 }),
      isCopiedFirst: fc.boolean(),
      rounds: fc.array(
        fc.record({ writers: burst(worked, { writers: 3, transactions: 5 }), isBeside: fc.boolean(), interruption, isCompared: fc.boolean() }),
        { minLength: 1, maxLength: 5 },
      ),
      isStreamed: fc.oneof({ arbitrary: fc.constant(true), weight: 3 }, { arbitrary: fc.constant(false), weight: 1 }),
    })
  })

/** What was tried, for the closing figures of a run. */
export interface ScenarioFigures {
  scenarios: number
  rounds: number
  comparisons: number
  changes: number
  interruptions: number
  kills: number
  /** Times that all tables were copied anew. */
  copies: number
  /** Transactions that came before their commit. */
  streamed: number
}

/** Plays a scenario in a database and removes what it made there. Throws where source and destination differ. */
export async function playScenario(url: string, played: Scenario, figures: ScenarioFigures): Promise<void> {
  const tables = played.tables.flatMap(({ index, modes }) => {
    const table = RANDOM_TABLES[index]
    return table === undefined ? [] : [{ ...table, modes, past: [] }]
  })
  const spec = specOf({
    slotName: `random_${String(process.pid)}`,
    tableNames: tables.map(({ name }) => name),
    writeMode: Object.fromEntries(tables.map(({ name, modes }) => [name, modes])),
    deleteMode: played.isSoft ? 'soft' : 'hard',
  })
  const options = played.isStreamed ? `?options=${encodeURIComponent('-c logical_decoding_work_mem=64kB')}` : ''
  const killer: KilledDestination = new KilledDestination((): string => pipeline.file)
  await using pipeline: TestPipeline = new TestPipeline(`${url}${options}`, spec, { around: (destination) => killer.around(destination) })
  const writers = sourcePool({ connectionString: url, max: 4 })
  try {
    for (const { ddl } of tables) await pipeline.sql(ddl)
    await runBurst(writers, played.first, new Map())
    await Promise.all([runBurst(writers, played.besideInit, new Map()), pipeline.initialize()])
    if (played.isCopiedFirst) await pipeline.copy()
    const tally: ChangeTally = new Map()
    const isCounted = played.isCopiedFirst && !changesShape(played) && !copiesAnew(played)
    const check = async (): Promise<void> => {
      // A new column shows in the stream with the next change of its table.
      if (changesShape(played)) for (const { name, insert } of tables) await pipeline.sql(`INSERT INTO ${name} ${insert(0, 1)} ON CONFLICT DO NOTHING`)
      if (changesShape(played)) for (const { name, touch, where } of tables) await pipeline.sql(`UPDATE ${name} SET ${touch(1)} WHERE ${where(0)}`)
      await catchUpAfterFaults(pipeline)
      figures.comparisons += 1
      await compare(pipeline, tables, { isSoft: played.isSoft, tally: isCounted ? tally : null })
    }
    for (const round of played.rounds) {
      figures.rounds += 1
      await playRound({ pipeline, killer }, writers, round, tally)
      if (isCounted) await record(pipeline, tables)
      if (round.interruption.tag === 'resync') figures.copies += 1
      if (round.interruption.tag !== 'none') figures.interruptions += 1
      if (round.isCompared) await check()
    }
    await check()
    figures.scenarios += 1
    figures.kills += killer.kills
    for (const count of tally.values()) figures.changes += count
  } finally {
    await writers.end()
    await pipeline.release()
    const { slotName, publicationName } = spec
    const { rows: [statistics] } = (await pipeline.sql('SELECT stream_txns::int AS count FROM pg_stat_replication_slots WHERE slot_name = $1', [slotName])) as { rows: { count: number }[] }
    figures.streamed += statistics?.count ?? 0
    await pipeline.engine.drop({ source: 'shop', destination: 'warehouse', slotName, publicationName, dropDestination: true }, pipeline.context())
    await pipeline.sql(`DROP TABLE IF EXISTS ${tables.map(({ name }) => name).join(', ')}`)
  }
}

interface Victim {
  readonly pipeline: TestPipeline
  readonly killer: KilledDestination
}

async function playRound(victim: Victim, writers: pg.Pool, round: Round, tally: ChangeTally): Promise<void> {
  const writing = runBurst(writers, round.writers, tally)
  if (!round.isBeside) await writing
  await Promise.all([writing, interruptedSlice(victim, round.interruption)])
  if (round.interruption.tag === 'release') await victim.pipeline.release()
}

/** One slice that catches up, or is broken off on the way. */
async function interruptedSlice({ pipeline, killer }: Victim, interruption: Interruption): Promise<void> {
  switch (interruption.tag) {
    case 'none':
    case 'release':
      await catchUpAfterFaults(pipeline)
      return
    case 'abort': {
      const context = { ...pipeline.context(), signal: AbortSignal.timeout(interruption.afterMs) }
      await pipeline.engine.runSlice({ spec: pipeline.spec, mode: 'stream', tableNames: null, untilLsn: null, maxBusyMs: 60_000, maxIdleMs: 60_000 }, context).catch((e: unknown) => { if (!context.signal.aborted) throw e })
      return
    }
    case 'disconnect': {
      const ends = async (): Promise<void> => {
        await sleep(interruption.afterMs)
        await pipeline.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'temporal-pg-replication'")
      }
      // Whether the slice had ended before, or fails by it: the next one goes on. A backend ends some time after it was told to.
      await Promise.all([ends(), catchUpAfterFaults(pipeline)])
      await catchUpAfterFaults(pipeline)
      return
    }
    case 'kill':
      killer.arm(interruption.afterCommits, interruption.isCommitted)
      await untilKilled({ pipeline, killer }, async () => catchUpAfterFaults(pipeline))
      killer.revive()
      return
    case 'resync':
      if (interruption.kill !== null) killer.arm(interruption.kill.afterCommits, interruption.kill.isCommitted)
      // An order that was killed may have come about, or not.
      await untilKilled({ pipeline, killer }, async () => pipeline.order({ tag: 'resync', tableNames: pipeline.spec.tableNames ?? [] }))
      await untilKilled({ pipeline, killer }, async () => catchUpAfterFaults(pipeline))
      killer.revive()
      return
    default:
      interruption satisfies never
  }
}

/** Does it, and lets go; what did not survive it is as the kill left it. */
async function untilKilled({ pipeline, killer }: Victim, work: () => Promise<unknown>): Promise<void> {
  const orDead = (error: unknown): void => { if (!killer.isDead) throw error }
  await work().catch(orDead)
  // What is alive lets go: of nothing, where it was killed.
  await pipeline.release().catch(orDead)
  await closeIdleDatabases()
  if (killer.isDead) killer.revive()
}

/** Tries again what time mends, as the workflows do: a connection that the source has ended is noticed when it is used. */
async function catchUpAfterFaults(pipeline: TestPipeline): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      const { progress } = await pipeline.catchUp()
      expect(Object.entries(progress.tables).flatMap(([name, { error }]) => (error === undefined ? [] : [{ name, ...error }])), 'tables that have stopped').toEqual([])
      return
    } catch (error) {
      if (!(error instanceof DomainError) || error.kind !== 'SourceUnavailable' || attempt === 5) throw error
    }
  }
}

export interface ComparedTable {
  readonly name: string
  readonly key: readonly string[]
  readonly modes: readonly WriteMode[]
  /** What stood at the source at some moments, of which the last ones are compared. */
  readonly past: { readonly lsn: string; readonly moment: string; readonly rows: readonly string[] }[]
}

/** Notes what stands at the source now. Nobody may be writing. */
export async function record(pipeline: TestPipeline, tables: readonly ComparedTable[]): Promise<void> {
  const client = await pipeline.source.connect()
  try {
    for (const { name, modes, past } of tables) {
      if (!modes.includes('scd2')) continue
      const rows = await sourceRows(client, name)
      const { rows: places } = await client.query<{ lsn: string; moment: string }>("SELECT pg_current_wal_insert_lsn()::text AS lsn, to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US+00') AS moment")
      for (const { lsn, moment: time } of places) past.push({ lsn, moment: time, rows })
    }
  } finally {
    client.release()
  }
}

interface Compared {
  readonly isSoft: boolean
  /** How many changes there were; null where not each stands in the histories. */
  readonly tally: ChangeTally | null
}

/** Throws where a shape is not what the source has, or a history is not whole, or has what nobody wrote. Each write must have changed its row. Nobody may be writing. */
export async function compare(pipeline: TestPipeline, tables: readonly ComparedTable[], { isSoft, tally }: Compared): Promise<void> {
  await pipeline.release()
  const client = await pipeline.source.connect()
  try {
    await readFile(pipeline.file, async (query) => {
      for (const table of tables) {
        const { name, key, modes, past } = table
        const source = await sourceRows(client, name)
        const shapes = shapesOf({ writeMode: modes[0] ?? 'merge', otherModes: modes.slice(1), isSoft }, { schema: 'public', name })
        const nameOf = (mode: WriteMode): string => shapes[modes.indexOf(mode)]?.table.name ?? ''
        if (modes.includes('merge')) {
          expect(differences(await destinationRows(query, nameOf('merge'), 'public', { where: isSoft ? '_deleted_at IS NULL' : 'true' }), source), `merge table ${name}`).toEqual(NO_DIFFERENCES)
        }
        if (modes.includes('scd2')) {
          const versions = nameOf('scd2')
          expect(differences(await destinationRows(query, versions, 'public', { where: '_is_current' }), source), `current versions of ${name}`).toEqual(NO_DIFFERENCES)
          expect(await query(`SELECT * FROM public.${versions} WHERE _is_current <> (_valid_to IS NULL) OR _is_current <> (_closed_lsn IS NULL) OR _closed_lsn <= _lsn`), `intervals of ${name}`).toEqual([])
          expect(await falseVersions(query, versions, key), `versions of ${name} that nobody made`).toEqual([])
          for (const { lsn, moment: time, rows } of past.slice(-3)) {
            expect(differences(await destinationRows(query, versions, 'public', { from: `public.${versions}_as_of(lsn := '${lsn}')` }), rows), `${name} as of ${lsn}`).toEqual(NO_DIFFERENCES)
            expect(differences(await destinationRows(query, versions, 'public', { from: `public.${versions}_as_of('${time}')` }), rows), `${name} as of ${time}`).toEqual(NO_DIFFERENCES)
          }
        }
        if (!modes.includes('append')) continue
        const changes = await appendRows(query, nameOf('append'))
        expect(doubledChanges(changes, key), `doubled changes of ${name}`).toEqual([])
        expect(repeatedChanges(changes, key), `changes of ${name} that nobody made`).toEqual([])
        expect(differences(foldAppendRows(changes, key), source), `append table ${name}, folded`).toEqual(NO_DIFFERENCES)
        if (tally === null) continue
        expect(changes.filter(({ op }) => op !== 'snapshot').length, `changes of append table ${name}`).toBe(tally.get(name) ?? 0)
        if (key.length === 0) continue
        const expected = countVersions(changes, key)
        const count = async (mode: WriteMode): Promise<unknown> => (await query(`SELECT count(*)::INTEGER FROM public.${nameOf(mode)}`))[0]?.[0]
        if (modes.includes('scd2')) expect(await count('scd2'), `versions of ${name}`).toBe(expected.versions)
        if (modes.includes('merge') && isSoft) expect(await count('merge'), `rows of ${name}, with the marked ones`).toBe(expected.keys)
      }
    })
  } finally {
    client.release()
  }
}

/** What a copy has seen before it came in the stream stands in the histories as the copy's. */
function copiesAnew({ rounds }: Scenario): boolean {
  return rounds.some(({ interruption: { tag } }) => tag === 'resync')
}

/** A table whose shape changes may be copied anew: then not every change stands in it. */
function changesShape({ first, besideInit, rounds }: Scenario): boolean {
  return [first, besideInit, ...rounds.map(({ writers }) => writers)].flat(2).some(({ statements }) => statements.some(({ kind }) => kind === 'addColumn'))
}
