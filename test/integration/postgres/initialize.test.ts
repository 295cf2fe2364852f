import pg from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { toDomainError } from '../../../src/postgres/sqlstate.ts'
import { dropSource } from '../../../src/postgres/drop.ts'
import { applySource } from '../../../src/postgres/initialize.ts'
import { inspectSource, requireReady } from '../../../src/postgres/preflight.ts'
import { connect, endQuietly } from '../../../src/postgres/session.ts'
import type { SourceRequest } from '../../../src/postgres/source-request.ts'
import type { SqlClient } from '../../../src/postgres/sql.ts'
import { deferred, openSourceFixture, type SourceFixture } from './source-fixture.ts'
import { testServers } from '../../support/test-servers.ts'

describe.each(testServers())('init of the source, $name', ({ url }) => {
  let source: SourceFixture
  beforeAll(async () => {
    source = await openSourceFixture(url)
    await source.admin.query(`
      CREATE TABLE a (id int PRIMARY KEY, v text, w text);
      CREATE TABLE b (id int PRIMARY KEY, v text);
      CREATE SCHEMA sales;
      CREATE TABLE sales."Order Items" (id int PRIMARY KEY, total numeric(10, 2));
      CREATE TABLE sales.parts (id int, region text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
      CREATE TABLE sales.parts_eu PARTITION OF sales.parts FOR VALUES IN ('eu');
      CREATE SCHEMA whole;
      CREATE TABLE whole.one (id int PRIMARY KEY);
      CREATE UNLOGGED TABLE whole.fast (id int PRIMARY KEY);
      CREATE SCHEMA family;
      CREATE TABLE family.parent (id int PRIMARY KEY);
      CREATE TABLE family.child (extra text) INHERITS (family.parent);
    `)
  })
  afterAll(async () => {
    await source.close()
  })

  /** A column list in SQL, where the server has them (15). */
  const columnList = (names: string): string => (source.serverVersion >= 150_000 ? `(${names})` : '')

  const published = async (request: SourceRequest): Promise<string[]> => {
    const { rows } = await source.admin.query<{ name: string }>(
      `SELECT schemaname || '.' || tablename AS name FROM pg_publication_tables WHERE pubname = $1 ORDER BY 1`,
      [request.publicationName],
    )
    return rows.map((row) => row.name)
  }
  const slotExists = async (name: string): Promise<boolean> =>
    (await source.admin.query('SELECT 1 FROM pg_replication_slots WHERE slot_name = $1', [name])).rowCount === 1
  const comment = async (request: SourceRequest): Promise<string | null> =>
    (
      await source.admin.query<{ comment: string | null }>(
        `SELECT obj_description(oid, 'pg_publication') AS comment FROM pg_publication WHERE pubname = $1`,
        [request.publicationName],
      )
    ).rows[0]?.comment ?? null

  it('creates publication, note and slot, and finds them the next time', async () => {
    const request = source.request({ tableNames: ['a', 'sales.Order Items', '"sales"."parts"'] })
    const first = await source.initialize(request)
    expect(first.created).toEqual({ slot: true, publication: true })
    expect(first.slotAdopted).toBe(false)
    expect(first.wholeSchema).toBe(false)
    expect(first.warnings).toEqual([])
    expect(first.tables.map((table) => [`${table.schema}.${table.name}`, table.key])).toEqual([
      ['public.a', ['id']],
      ['sales.Order Items', ['id']],
      ['sales.parts', ['id', 'region']],
    ])
    expect(first.tables[2]?.isPartitioned).toBe(true)
    expect(first.identity.databaseName).toBe(source.databaseName)
    expect(first.consistentPoint).toMatch(/^[0-9A-F]+\/[0-9A-F]+$/)
    expect(await published(request)).toEqual(['public.a', 'sales.Order Items', 'sales.parts'])
    expect(await comment(request)).toBe(`temporal-pg-replication destination=destination-1 slot=${request.slotName}`)

    const second = await source.initialize({ ...request, destinationHasState: true })
    // Which transactions ran meanwhile is of no account.
    const tables = first.tables.map((table) => ({ ...table, storage: { ...table.storage, horizon: expect.any(String) as string } }))
    expect(second).toEqual({ ...first, tables, created: { slot: false, publication: false } })
  })

  it('adds missing tables to the publication, and leaves others of it out with a warning', async () => {
    const request = source.request({ tableNames: ['a'] })
    await source.initialize(request)
    const next = await source.initialize({ ...request, tableNames: ['b'], destinationHasState: true })
    expect(await published(request)).toEqual(['public.a', 'public.b'])
    expect(next.tables.map((table) => table.name)).toEqual(['b'])
    expect(next.warnings).toEqual([expect.stringContaining('stay out: public.a')])
  })

  it('publishes the whole schema with its future tables as a superuser', async () => {
    const request = source.request({ schemaName: 'whole' })
    const init = await source.initialize(request)
    const isPossible = source.serverVersion >= 150_000
    expect(init.wholeSchema).toBe(isPossible)
    expect(init.tables.map((table) => table.name)).toEqual(['one'])
    expect(init.warnings).toEqual([
      'left out, being unlogged: whole.fast',
      ...(isPossible ? [] : [expect.stringContaining('future ones are not replicated') as string]),
    ])
    await source.admin.query('CREATE TABLE whole.later (id int PRIMARY KEY)')
    const later = await source.initialize({ ...request, destinationHasState: true })
    expect(later.tables.map((table) => table.name)).toEqual(['later', 'one'])
    await source.admin.query('DROP TABLE whole.later')
  })

  it('lists the present tables of the schema without superuser, and says so', async () => {
    const role = await source.createRole('REPLICATION')
    await source.admin.query(`GRANT CREATE ON DATABASE ${source.databaseName} TO ${role.name}; CREATE SCHEMA own AUTHORIZATION ${role.name};
      CREATE TABLE own.one (id int PRIMARY KEY); ALTER TABLE own.one OWNER TO ${role.name}`)
    const request = source.request({ schemaName: 'own' })
    const init = await source.initialize(request, { credentials: role.credentials })
    expect(init.wholeSchema).toBe(false)
    expect(init.created).toEqual({ slot: true, publication: true })
    expect(init.warnings).toEqual([expect.stringContaining('future ones are not replicated')])
    expect(await comment(request)).toContain('destination-1')
    expect(await dropSource(role.credentials, request)).toEqual([`slot ${request.slotName}`, `publication ${request.publicationName}`])
  })

  it('keeps tables that inherit from a listed one out', async () => {
    const request = source.request({ tableNames: ['family.parent'] })
    await source.initialize(request)
    expect(await published(request)).toEqual(['family.parent'])
  })

  it('publishes included columns and the key', async () => {
    const request = source.request({ tableNames: ['a', 'b'], includeColumns: { 'public.a': ['w'] } })
    const init = await source.initialize(request)
    expect(init.tables.map((table) => table.columns.map((column) => column.name))).toEqual([
      ['id', 'w'],
      ['id', 'v'],
    ])
    const { rows } = await source.admin.query(
      `SELECT to_jsonb(p)->'attnames' AS names FROM pg_publication_tables p WHERE pubname = $1 AND tablename = 'a'`,
      [request.publicationName],
    )
    expect(rows).toEqual([{ names: source.serverVersion >= 150_000 ? ['id', 'w'] : null }])
  })

  it('does not limit the publication of a FULL table, whose UPDATEs PostgreSQL would then refuse', async () => {
    await source.admin.query('CREATE TABLE full_row (id int, v text, w text); ALTER TABLE full_row REPLICA IDENTITY FULL')
    const init = await source.initialize(source.request({ tableNames: ['full_row'], includeColumns: { full_row: ['v'] } }))
    await source.admin.query(`INSERT INTO full_row VALUES (1, 'a', 'b'); UPDATE full_row SET v = 'c'`)
    expect(init.tables[0]?.columns.map((column) => column.name)).toEqual(['v'])
    expect(init.tables[0]?.key).toEqual([])
  })

  it('uses a publication that exists as it is, and warns where it differs', async () => {
    const request = source.request({ tableNames: ['a'] })
    const filter = source.serverVersion >= 150_000 ? 'WHERE (id > 5)' : ''
    await source.admin.query(
      `CREATE PUBLICATION ${request.publicationName} FOR TABLE a ${columnList('id, v')} ${filter}, b WITH (publish = 'insert')`,
    )
    const init = await source.initialize(request)
    expect(init.created).toEqual({ slot: true, publication: false })
    expect(init.publishedOperations).toEqual(['insert'])
    expect(init.tables[0]?.columns.map((column) => column.name)).toEqual(source.serverVersion >= 150_000 ? ['id', 'v'] : ['id', 'v', 'w'])
    expect(init.warnings).toEqual([
      expect.stringContaining('publishes insert, not insert, update, delete, truncate'),
      expect.stringContaining('stay out: public.b'),
      ...(source.serverVersion >= 150_000
        ? [expect.stringContaining('match its filter') as string, expect.stringContaining('left out: w') as string]
        : []),
    ])
  })

  it("warns where somebody's publication makes the owner's updates and deletes fail, and does not where it does not", async () => {
    if (source.serverVersion < 150_000) return
    await source.admin.query('CREATE TABLE filtered (id int PRIMARY KEY, v int, w int); INSERT INTO filtered VALUES (1, 2, 3)')
    const warningsOf = async (member: string, publish = 'update, delete'): Promise<readonly string[]> => {
      const request = source.request({ tableNames: ['filtered'] })
      await source.admin.query(`CREATE PUBLICATION ${request.publicationName} FOR TABLE filtered ${member} WITH (publish = '${publish}')`)
      const { warnings } = await source.initialize(request)
      const found = warnings.filter((warning) => warning.includes('fail at the source'))
      const update = source.admin.query('UPDATE filtered SET v = v')
      await (found.length === 0 || !publish.includes('update') ? update : expect(update).rejects.toMatchObject({ code: '42P10' }))
      await source.admin.query(`DROP PUBLICATION ${request.publicationName}`)
      return found
    }
    const name = expect.stringMatching(/^publication "[^"]+" makes every UPDATE and DELETE of "public.filtered" fail at the source, for whoever writes there: its row filter looks at v, which is not in the replica identity$/) as string
    expect(await warningsOf('WHERE (v > 1 AND id > 0)')).toEqual([name])
    expect(await warningsOf('(id, v) WHERE (v > 1)')).toEqual([name])
    expect(await warningsOf('(id, v) WHERE (v > 1)', 'delete')).toEqual([expect.stringContaining('makes every DELETE of')])
    expect(await warningsOf('(v, w)')).toEqual([expect.stringContaining('its column list leaves out id of the replica identity')])
    for (const member of ['', 'WHERE (id > 1)', '(id, v) WHERE (id > 1)', '(id, w)']) expect([member, await warningsOf(member)]).toEqual([member, []])
    expect(await warningsOf('(v) WHERE (w > 1)', 'insert')).toEqual([])
    await source.admin.query('ALTER TABLE filtered REPLICA IDENTITY FULL')
    expect(await warningsOf('WHERE (v > 1)')).toEqual([])
    expect(await warningsOf('(id, v) WHERE (v > 1)')).toEqual([expect.stringContaining('its column list leaves out w')])
  })

  it('replicates generated columns where PostgreSQL publishes them, else warns', async () => {
    await source.admin.query(`CREATE TABLE computed (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED)`)
    const init = await source.initialize(source.request({ tableNames: ['computed'] }))
    const columns = init.tables[0]?.columns.map((column) => column.name)
    if (source.serverVersion >= 180_000) {
      expect(columns).toEqual(['id', 'twice'])
      expect(init.warnings).toEqual([])
      // 18's default: computed when read.
      await source.admin.query('CREATE TABLE virtually (id int PRIMARY KEY, half int GENERATED ALWAYS AS (id / 2), twice int GENERATED ALWAYS AS (id * 2) STORED)')
      const other = await source.initialize(source.request({ tableNames: ['virtually'] }))
      expect(other.tables[0]?.columns.map((column) => column.name)).toEqual(['id', 'twice'])
      expect(other.warnings.filter((warning) => warning.includes('"public.virtually"'))).toEqual([expect.stringMatching(/^generated columns of "public\.virtually" are left out, .*: half$/)])
    } else {
      expect(columns).toEqual(['id'])
      expect(init.warnings).toEqual([expect.stringContaining('generated columns of "public.computed" are left out')])
    }
  })

  it('warns of a key that is not sent, as long as rows are told by it', async () => {
    await source.admin.query('CREATE TABLE keyed (id int NOT NULL, twice int GENERATED ALWAYS AS (id * 2) STORED PRIMARY KEY)')
    const isSent = source.serverVersion >= 180_000
    const warnings = async (): Promise<readonly string[]> => (await source.initialize(source.request({ tableNames: ['keyed'] }))).warnings.filter((warning) => warning.includes('the key of "public.keyed"'))
    expect(await warnings()).toHaveLength(isSent ? 0 : 1)
    await source.admin.query('ALTER TABLE keyed REPLICA IDENTITY FULL')
    expect(await warnings()).toEqual([])
  })

  it('adopts a slot without our note: initial moves it on to the publication, never goes on at its position', async () => {
    for (const snapshotMode of ['initial', 'never'] as const) {
      const request = source.request({ tableNames: ['a'], snapshotMode })
      if (snapshotMode === 'never')
        await source.admin.query(`CREATE PUBLICATION ${request.publicationName} FOR TABLE a WITH (publish_via_partition_root)`)
      const { rows } = await source.admin.query<{ lsn: string }>(
        `SELECT lsn::text FROM pg_create_logical_replication_slot($1, 'pgoutput')`,
        [request.slotName],
      )
      await source.admin.query('INSERT INTO b VALUES (1) ON CONFLICT (id) DO UPDATE SET v = b.v')
      const init = await source.initialize(request)
      expect(init.slotAdopted).toBe(true)
      expect(init.created.slot).toBe(false)
      expect(init.consistentPoint === rows[0]?.lsn).toBe(snapshotMode === 'never')
      expect(init.warnings.join()).toContain(snapshotMode === 'never' ? 'goes on at its position' : 'copied anew')
      expect(await comment(request)).toContain(`destination=destination-1 slot=${request.slotName}`)
      expect((await source.initialize({ ...request, destinationHasState: true })).slotAdopted).toBe(false)
      // The stream can be read from there: the publication is as old as the slot's position.
      const stream = await source.admin.query(
        `SELECT * FROM pg_logical_slot_peek_binary_changes($1, NULL, NULL, 'proto_version', '1', 'publication_names', $2)`,
        [request.slotName, request.publicationName],
      )
      expect(stream.rowCount).toBeGreaterThanOrEqual(0)
    }
  })

  it('refuses another destination for the slot, and a publication lost under it', async () => {
    const request = source.request({ tableNames: ['a'] })
    await source.initialize(request)
    await expect(source.initialize({ ...request, destinationId: 'destination-2' })).rejects.toMatchObject({ kind: 'DestinationLost' })
    const reset = await source.initialize({ ...request, destinationId: 'destination-2', reset: true })
    expect(reset.created).toEqual({ slot: true, publication: true })
    expect(await comment(request)).toContain('destination=destination-2')
    await source.admin.query(`DROP PUBLICATION ${request.publicationName}`)
    await expect(source.initialize({ ...request, destinationId: 'destination-2', destinationHasState: true })).rejects.toMatchObject({
      kind: 'SlotLost',
    })
    await source.admin.query('SELECT pg_drop_replication_slot($1)', [request.slotName])
    await expect(source.initialize({ ...request, destinationHasState: true })).rejects.toMatchObject({ kind: 'SlotLost' })
    expect((await source.initialize(request)).created).toEqual({ slot: true, publication: true })
  })

  it('serves two slots from one publication, and neither drop nor reset of one breaks the other', async () => {
    const one = source.request({ tableNames: ['a'] })
    const two = { ...source.request({ tableNames: ['a'] }), publicationName: one.publicationName, destinationId: 'destination-2' }
    await source.initialize(one)
    await source.initialize(two)
    await expect(source.initialize({ ...one, reset: true })).rejects.toMatchObject({ kind: 'InvalidInput' })
    expect(await dropSource(source.credentials, one)).toEqual([`slot ${one.slotName}`])
    expect(await comment(two)).toBe(`temporal-pg-replication destination=destination-2 slot=${two.slotName}`)
    expect(await dropSource(source.credentials, two)).toEqual([`slot ${two.slotName}`, `publication ${two.publicationName}`])
    expect(await dropSource(source.credentials, two)).toEqual([])
  })

  it('keeps what others wrote in the comment', async () => {
    const request = source.request({ tableNames: ['a'] })
    await source.admin.query(
      `CREATE PUBLICATION ${request.publicationName} FOR TABLE a; COMMENT ON PUBLICATION ${request.publicationName} IS 'owned by team ''x'''`,
    )
    await source.initialize(request)
    expect(await comment(request)).toBe(`owned by team 'x'\ntemporal-pg-replication destination=destination-1 slot=${request.slotName}`)
  })

  it.each(['new', 'extended', 'adopted', 'reset'] as const)(
    'comes to the same end after a crash at any statement (%s)',
    async (situation) => {
      let crashes = 0
      for (let crashAt = 1; ; crashAt += 1) {
        const request = source.request({ tableNames: ['a', 'b'], reset: situation === 'reset' })
        if (situation === 'extended') await source.admin.query(`CREATE PUBLICATION ${request.publicationName} FOR TABLE a`)
        if (situation === 'reset') await source.admin.query(`CREATE PUBLICATION ${request.publicationName} FOR TABLE a ${columnList('id')}`)
        if (situation === 'adopted' || situation === 'reset')
          await source.admin.query(`SELECT pg_create_logical_replication_slot($1, 'pgoutput')`, [request.slotName])
        const crashed = await initializeCrashing(source, request, crashAt)
        if (crashed) crashes += 1
        const init = await source.initialize(request)
        expect(await published(request)).toEqual(['public.a', 'public.b'])
        expect(await comment(request)).toBe(`temporal-pg-replication destination=destination-1 slot=${request.slotName}`)
        expect(init.tables.map((table) => table.columns.length)).toEqual([3, 2])
        // Decoding looks the publication up as it was at each change: from the slot's position on it must be there.
        await source.admin.query('UPDATE a SET v = v; INSERT INTO b VALUES (1) ON CONFLICT (id) DO UPDATE SET v = b.v')
        const changes = await source.admin.query(
          `SELECT * FROM pg_logical_slot_peek_binary_changes($1, NULL, NULL, 'proto_version', '1', 'publication_names', $2)`,
          [request.slotName, request.publicationName],
        )
        expect(changes.rowCount).toBeGreaterThan(0)
        await dropSource(source.credentials, request)
        if (!crashed) break
      }
      expect(crashes).toBeGreaterThan(3)
    },
  )

  it('tells which open transactions hold up the slot, and gives up when aborted', async () => {
    const request = source.request({ tableNames: ['a'] })
    const writer = new pg.Client({ ...connectionOf(source) })
    await writer.connect()
    await writer.query(`BEGIN; INSERT INTO b VALUES (100)`)
    const { rows } = await writer.query<{ pid: number }>('SELECT pg_backend_pid() AS pid')
    await source.admin.query(`BEGIN; INSERT INTO b VALUES (101); PREPARE TRANSACTION 'held-${request.slotName}'`)
    const aborting = new AbortController()
    const seen = deferred<[readonly number[], readonly string[]]>()
    const attempt = source.initialize(request, {
      onWaiting: (pids, prepared) => {
        seen.resolve([pids, prepared])
      },
      signal: aborting.signal,
    })
    const rejected = expect(attempt).rejects.toThrow('enough')
    expect(await seen.promise).toEqual([[rows[0]?.pid], [`held-${request.slotName}`]])
    aborting.abort(new Error('enough'))
    await rejected
    expect(await slotExists(request.slotName)).toBe(false)

    const waited = deferred<undefined>()
    const again = source.initialize(request, {
      onWaiting: () => {
        waited.resolve(undefined)
      },
    })
    await waited.promise
    await writer.query('COMMIT')
    await source.admin.query(`COMMIT PREPARED 'held-${request.slotName}'`)
    expect((await again).created).toEqual({ slot: true, publication: false })
    await writer.end()
  })

  it('drops nothing where a right is missing, and says which SQL helps', async () => {
    const role = await source.createRole('REPLICATION')
    await source.admin.query(`GRANT SELECT ON a TO ${role.name}`)
    const request = source.request({ tableNames: ['a'] })
    await source.admin.query(`CREATE PUBLICATION ${request.publicationName} FOR TABLE a`)
    await source.initialize(request, { credentials: role.credentials })
    const refusal = async () => dropSource(role.credentials, request).then(() => null, (error: unknown) => error)
    expect(await refusal()).toMatchObject({ kind: 'PrivilegeMissing', remedy: expect.stringMatching(`\nDROP PUBLICATION "${request.publicationName}";$`) as string })
    expect(await slotExists(request.slotName)).toBe(true)

    await source.admin.query(`DROP PUBLICATION ${request.publicationName}; ALTER ROLE ${role.name} NOREPLICATION`)
    expect(await refusal()).toMatchObject({ kind: 'PrivilegeMissing', remedy: expect.stringMatching(/\n(ALTER ROLE|GRANT) .*;$/) as string })
    expect(await slotExists(request.slotName)).toBe(true)

    await source.admin.query(`ALTER ROLE ${role.name} REPLICATION`)
    expect(await dropSource(role.credentials, request)).toEqual([`slot ${request.slotName}`])
    await source.admin.query(`DROP OWNED BY ${role.name}`)
  })

  it('does not drop a slot that is not one of ours', async () => {
    const request = source.request()
    await source.admin.query('SELECT pg_create_physical_replication_slot($1)', [request.slotName])
    await expect(dropSource(source.credentials, request)).rejects.toMatchObject({ kind: 'InvalidInput' })
    expect(await slotExists(request.slotName)).toBe(true)
    await source.admin.query('SELECT pg_drop_replication_slot($1)', [request.slotName])
  })
})

function connectionOf(source: SourceFixture): pg.ClientConfig {
  const { host, port, database, username, password } = source.credentials
  return { host, port, database, user: username, ...(password === null ? {} : { password }) }
}

/** Runs init on a session whose `crashAt`-th statement of applying kills it before it runs; true where it came to that. */
async function initializeCrashing(source: SourceFixture, request: SourceRequest, crashAt: number): Promise<boolean> {
  const client = await connect(source.credentials, { lockTimeoutMs: 0 })
  let count = 0
  const crash = async (): Promise<never> => {
    await endQuietly(client)
    throw toDomainError(new Error('Connection terminated'), { subject: 'crash' })
  }
  const crashing = {
    query: async (...args: [string, unknown[]]): Promise<unknown> => {
      count += 1
      return count >= crashAt ? await crash() : await client.query(...args)
    },
  } as unknown as SqlClient
  try {
    const inspection = await inspectSource(client, request)
    requireReady(inspection)
    await applySource(
      crashing,
      { request, inspection },
      { onWaiting: () => undefined, signal: new AbortController().signal, openSession: () => connect(source.credentials), openWalsender: () => connect(source.credentials, { replication: true }) },
    )
    return false
  } catch (error) {
    if (!(error instanceof Error) || !error.message.startsWith('crash')) throw error
    return true
  } finally {
    await endQuietly(client)
  }
}
