import pg from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startPostgres, type PostgresServer } from '../../../src/embedded/postgres-server.ts'
import { parseCredentials, type SourceCredentials } from '../../../src/postgres/credentials.ts'
import type { PreflightFinding } from '../../../src/postgres/findings.ts'
import { preflightSource, runPreflight } from '../../../src/postgres/preflight.ts'
import type { SourceRequest } from '../../../src/postgres/source-request.ts'
import { openSourceFixture, type SourceFixture } from './source-fixture.ts'
import { testServers } from '../../support/test-servers.ts'

describe.each(testServers())('checks before anything is changed, $name', ({ url }) => {
  let source: SourceFixture
  beforeAll(async () => {
    source = await openSourceFixture(url)
  })
  afterAll(async () => {
    await source.close()
  })

  const failures = async (request: SourceRequest, credentials?: SourceCredentials): Promise<readonly PreflightFinding[]> =>
    (await source.inspect(request, credentials)).findings.filter((finding) => finding.state === 'failure')

  /** The failure of this name; running its SQL as a superuser must mend it. */
  async function expectMendable(name: string, request: SourceRequest, credentials?: SourceCredentials): Promise<PreflightFinding> {
    const finding = (await failures(request, credentials)).find((failure) => failure.name === name)
    if (finding === undefined) throw new Error(`no failure of ${name}`)
    expect(finding.sql.length).toBeGreaterThan(0)
    for (const statement of finding.sql) {
      // On a line of its own: it is pasted.
      expect(finding.remedy?.split('\n')).toContain(`${statement};`)
      await source.admin.query(statement)
    }
    for (const line of finding.remedy?.split('\n') ?? []) expect(line).toMatch(/^[^;]*[.:]$|^(ALTER|CREATE|GRANT|SELECT) .*;$/)
    expect((await failures(request, credentials)).filter((failure) => failure.name === name)).toEqual([])
    return finding
  }

  it('names every privilege that a bare role lacks, with the SQL that grants it', async () => {
    const owner = await source.createRole()
    const role = await source.createRole()
    await source.admin.query(`CREATE SCHEMA closed; CREATE TABLE closed.t (id int PRIMARY KEY); ALTER TABLE closed.t OWNER TO ${owner.name};
      REVOKE CREATE ON DATABASE ${source.databaseName} FROM PUBLIC`)
    const request = source.request({ tableNames: ['closed.t'] })
    const error: unknown = await preflightSource(role.credentials, request).catch((reason: unknown) => reason)
    expect(error).toMatchObject({ kind: 'PrivilegeMissing' })
    for (const name of ['REPLICATION attribute', 'publication', 'USAGE on schema', 'SELECT', 'table ownership']) {
      const finding = await expectMendable(name, request, role.credentials)
      expect(finding.kind).toBe('PrivilegeMissing')
    }
    expect(await failures(request, role.credentials)).toEqual([])
    expect((await source.initialize(request, { credentials: role.credentials })).created).toEqual({ slot: true, publication: true })
  })

  it('asks for SELECT on the included columns only, and with never only warns', async () => {
    const role = await source.createRole('REPLICATION')
    await source.admin
      .query(`CREATE TABLE part (id int PRIMARY KEY, open text, hidden text); GRANT SELECT (id, open) ON part TO ${role.name};
      GRANT CREATE ON DATABASE ${source.databaseName} TO ${role.name}; ALTER TABLE part OWNER TO ${role.name}; REVOKE SELECT ON part FROM ${role.name}; GRANT SELECT (id, open) ON part TO ${role.name}`)
    const request = source.request({ tableNames: ['part'] })
    expect((await failures({ ...request, includeColumns: { part: ['open'] } }, role.credentials)).map((finding) => finding.name)).toEqual(
      [],
    )
    expect((await failures({ ...request, snapshotMode: 'never' }, role.credentials)).map((finding) => finding.name)).toEqual([])
    await expectMendable('SELECT', request, role.credentials)
  })

  it('refuses a copy that row-level security would thin out', async () => {
    const role = await source.createRole('REPLICATION')
    await source.admin
      .query(`CREATE TABLE guarded (id int PRIMARY KEY); ALTER TABLE guarded ENABLE ROW LEVEL SECURITY; GRANT SELECT ON guarded TO ${role.name};
      CREATE PUBLICATION guarded_pub FOR TABLE guarded`)
    await expectMendable('row security', source.request({ tableNames: ['guarded'], publicationName: 'guarded_pub' }), role.credentials)
  })

  it("lets a role without ownership use a publication that has all tables, and gives the owner's statement where not", async () => {
    const role = await source.createRole('REPLICATION')
    await source.admin
      .query(`CREATE TABLE dba_a (id int PRIMARY KEY); CREATE TABLE dba_b (id int PRIMARY KEY); GRANT SELECT ON dba_a, dba_b TO ${role.name};
      CREATE PUBLICATION dba FOR TABLE dba_a WITH (publish_via_partition_root)`)
    const request = source.request({ tableNames: ['dba_a'], publicationName: 'dba' })
    const init = await source.initialize(request, { credentials: role.credentials })
    expect(init.created).toEqual({ slot: true, publication: false })
    expect(init.warnings).toEqual([expect.stringContaining('cannot be noted')])
    const finding = await expectMendable('publication', { ...request, tableNames: ['dba_a', 'dba_b'] }, role.credentials)
    expect(finding.sql).toEqual(['ALTER PUBLICATION "dba" ADD TABLE ONLY "public"."dba_b"'])
  })

  it('refuses what is no table with changes of its own', async () => {
    await source.admin.query(`
      CREATE SCHEMA odd; CREATE TABLE odd.base (id int PRIMARY KEY);
      CREATE VIEW odd.a_view AS SELECT * FROM odd.base; CREATE MATERIALIZED VIEW odd.a_matview AS SELECT * FROM odd.base; CREATE SEQUENCE odd.a_sequence;
      CREATE UNLOGGED TABLE odd.fast (id int PRIMARY KEY); CREATE TEMPORARY TABLE fleeting (id int PRIMARY KEY);
      CREATE FOREIGN DATA WRAPPER nowhere; CREATE SERVER nowhere FOREIGN DATA WRAPPER nowhere; CREATE FOREIGN TABLE odd.far (id int) SERVER nowhere;
      CREATE TABLE odd.parts (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE odd.parts_1 PARTITION OF odd.parts FOR VALUES FROM (1) TO (9)`)
    for (const [name, message] of [
      ['odd.a_view', 'is a view'],
      ['odd.a_matview', 'is a materialized view'],
      ['odd.a_sequence', 'is a sequence'],
      ['odd.far', 'is a foreign table'],
      ['fleeting', 'is a temporary table'],
      ['odd.parts_1', 'is a partition of "odd.parts"'],
    ] as const) {
      const [finding] = await failures(source.request({ tableNames: [name] }))
      expect(finding).toMatchObject({ kind: 'TableNotReplicable', message: expect.stringContaining(message) as string })
    }
    await expectMendable('tables', source.request({ tableNames: ['odd.fast'] }))
  })

  it('names the near miss of a missing table, column or key of includeColumns', async () => {
    await source.admin.query('CREATE TABLE customers (id int PRIMARY KEY, email text)')
    const first = async (overrides: Partial<SourceRequest>): Promise<PreflightFinding | undefined> =>
      (await failures(source.request(overrides)))[0]
    expect(await first({ tableNames: ['custmers'] })).toMatchObject({ kind: 'InvalidInput', remedy: 'Did you mean "public.customers"?' })
    expect(await first({ tableNames: ['Customers'] })).toMatchObject({ kind: 'InvalidInput', remedy: 'Did you mean "public.customers"?' })
    expect(await first({ tableNames: ['customers'], includeColumns: { customers: ['emial'] } })).toMatchObject({
      kind: 'InvalidInput',
      remedy: 'Did you mean "email"?',
    })
    expect(await first({ tableNames: ['customers'], includeColumns: { custmer: ['email'] } })).toMatchObject({
      kind: 'InvalidInput',
      remedy: 'Did you mean "public.customers"?',
    })
    expect(await first({ schemaName: 'pulbic' })).toMatchObject({ kind: 'InvalidInput', remedy: 'Did you mean "public"?' })
    expect(await first({ slotName: 'Not-a-slot', tableNames: ['customers'] })).toMatchObject({ kind: 'InvalidInput' })
  })

  it('follows a renamed table, and refuses a dropped one', async () => {
    await source.admin.query('CREATE TABLE old_name (id int PRIMARY KEY)')
    const { rows } = await source.admin.query<{ oid: number }>(`SELECT 'old_name'::regclass::oid AS oid`)
    await source.admin.query('ALTER TABLE old_name RENAME TO new_name')
    const knownTables = [{ schema: 'public', name: 'old_name', oid: rows[0]?.oid ?? 0 }]
    const inspection = await source.inspect(source.request({ tableNames: ['old_name'], knownTables }))
    expect(inspection.tables.map((table) => table.name)).toEqual(['new_name'])
    expect(inspection.findings.filter((finding) => finding.state === 'warning').map((finding) => finding.message)).toEqual([
      'table "old_name" is named "public.new_name" now; it is followed',
    ])
    await source.admin.query('DROP TABLE new_name')
    expect((await failures(source.request({ tableNames: ['old_name'], knownTables })))[0]).toMatchObject({
      kind: 'InvalidInput',
      message: expect.stringContaining('was dropped') as string,
    })
  })

  it('refuses names that differ only in case', async () => {
    await source.admin.query(
      `CREATE SCHEMA cases; CREATE TABLE cases.t (id int PRIMARY KEY); CREATE TABLE cases."T" (id int PRIMARY KEY); CREATE TABLE cases.c (id int PRIMARY KEY, "ID" int)`,
    )
    expect((await failures(source.request({ tableNames: ['cases.t', 'cases.T'] })))[0]).toMatchObject({
      kind: 'InvalidInput',
      message: 'tables differ only in case: "cases.t", "cases.T"',
    })
    expect(await failures(source.request({ tableNames: ['cases.T'] }))).toEqual([])
    expect((await failures(source.request({ tableNames: ['cases.c'] })))[0]).toMatchObject({
      kind: 'InvalidInput',
      message: expect.stringContaining('"id", "ID"') as string,
    })
    expect(await failures(source.request({ tableNames: ['cases.c'], includeColumns: { 'cases.c': ['id'] } }))).toEqual([])
  })

  it('refuses a table without identity while updates or deletes are published, with both ways out', async () => {
    await source.admin.query(`
      CREATE SCHEMA bare; CREATE TABLE bare.none (id int); CREATE TABLE bare.later (id int PRIMARY KEY DEFERRABLE);
      CREATE TABLE bare.nothing (id int PRIMARY KEY); ALTER TABLE bare.nothing REPLICA IDENTITY NOTHING;
      CREATE TABLE bare.lost (id int NOT NULL); CREATE UNIQUE INDEX lost_id ON bare.lost (id); ALTER TABLE bare.lost REPLICA IDENTITY USING INDEX lost_id; DROP INDEX bare.lost_id`)
    for (const name of ['none', 'later', 'nothing', 'lost']) {
      const request = source.request({ tableNames: [`bare.${name}`] })
      expect(await failures({ ...request, publish: ['insert', 'truncate'] })).toEqual([])
      const finding = await expectMendable('replica identity', request)
      expect(finding).toMatchObject({ kind: 'TableNotReplicable', remedy: expect.stringContaining('"publish": "insert"') as string })
    }
  })

  it('refuses partitions that write less of the old row than the root promises', async () => {
    await source.admin.query(`
      CREATE TABLE tree (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE tree_1 PARTITION OF tree FOR VALUES FROM (1) TO (9);
      ALTER TABLE tree REPLICA IDENTITY FULL`)
    await expectMendable('replica identity', source.request({ tableNames: ['tree'] }))
    await source.admin.query('ALTER TABLE tree REPLICA IDENTITY DEFAULT')
    expect(await failures(source.request({ tableNames: ['tree'] }))).toEqual([])
  })

  it('refuses a publication that sends partitions under their own names', async () => {
    await source.admin
      .query(`CREATE TABLE leafy (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE leafy_1 PARTITION OF leafy FOR VALUES FROM (1) TO (9);
      CREATE PUBLICATION leafy_pub FOR TABLE leafy`)
    expect((await failures(source.request({ tableNames: ['leafy'], publicationName: 'leafy_pub' }))).length).toBeGreaterThan(0)
    await expectMendable('publication', source.request({ tableNames: ['leafy'], publicationName: 'leafy_pub' }))
  })

  it('refuses a slot that is physical, of another plugin or database, or in use', async () => {
    const request = source.request({ schemaName: 'public', tableNames: [] })
    const slotFailure = async (slotName: string): Promise<PreflightFinding | undefined> =>
      (await failures({ ...request, slotName })).find((finding) => finding.name === 'slot')
    const name = (suffix: string): string => `${source.databaseName}_${suffix}`
    await source.admin.query(
      `SELECT pg_create_physical_replication_slot('${name('physical')}'), pg_create_logical_replication_slot('${name('plugin')}', 'test_decoding')`,
    )
    const other = await openSourceFixture(url)
    await other.admin.query(`SELECT pg_create_logical_replication_slot('${name('elsewhere')}', 'pgoutput')`)
    expect(await slotFailure(name('physical'))).toMatchObject({
      kind: 'InvalidInput',
      message: expect.stringContaining('physical') as string,
    })
    expect(await slotFailure(name('plugin'))).toMatchObject({
      kind: 'InvalidInput',
      message: expect.stringContaining('test_decoding') as string,
    })
    expect(await slotFailure(name('elsewhere'))).toMatchObject({
      kind: 'InvalidInput',
      message: expect.stringContaining(other.databaseName) as string,
    })
    await other.close()

    await source.admin.query(`SELECT pg_create_logical_replication_slot('${name('busy')}', 'pgoutput'); CREATE PUBLICATION busy`)
    const { host, port, database, username, password } = source.credentials
    const walsender = new pg.Client({
      host,
      port,
      database,
      user: username,
      password: password ?? '',
      application_name: 'other reader',
      ...({ replication: 'database' } as object),
    })
    await walsender.connect()
    walsender.on('error', () => undefined)
    const streaming = walsender
      .query(`START_REPLICATION SLOT ${name('busy')} LOGICAL 0/0 (proto_version '1', publication_names 'busy')`)
      .catch(() => undefined)
    await expect
      .poll(
        async () =>
          (await source.admin.query<{ active: boolean }>(`SELECT active FROM pg_replication_slots WHERE slot_name = '${name('busy')}'`))
            .rows,
      )
      .toEqual([{ active: true }])
    const finding = await slotFailure(name('busy'))
    const { rows } = await source.admin.query<{ pid: number }>(
      `SELECT active_pid AS pid FROM pg_replication_slots WHERE slot_name = '${name('busy')}'`,
    )
    expect(finding).toMatchObject({
      kind: 'SlotInUse',
      message: expect.stringContaining(`pid ${rows[0]?.pid ?? 0} (application_name "other reader")`) as string,
    })
    await source.admin.query('SELECT pg_terminate_backend($1)', [rows[0]?.pid])
    await streaming
    await source.admin.query(`SELECT pg_drop_replication_slot('${name('physical')}')`)
  })

  it('lists its checks for doctor, the connection among them', async () => {
    const listed = (await runPreflight(source.credentials, { request: null, makesFailoverSlots: false })).findings
    // Slots of other tests may be in any state.
    expect(listed.filter(({ name }) => name !== 'slot health').map((finding) => `${finding.name}: ${finding.state}`)).toEqual([
      'connection: ok',
      'version: ok',
      'primary: ok',
      'wal_level: ok',
      'replication slots: ok',
      'walsenders: ok',
      'REPLICATION attribute: ok',
      'WAL bound: warning',
      'slots: ok',
      'version features: ok',
    ])
    const nobody = parseCredentials({ host: '127.0.0.1', port: 1, username: 'nobody', password: 'hunter2' })
    const { findings } = await runPreflight(nobody, { request: null, makesFailoverSlots: false })
    expect(findings).toEqual([expect.objectContaining({ name: 'connection', state: 'failure', kind: 'SourceUnavailable' })])
    expect(JSON.stringify(findings)).not.toContain('hunter2')
  })
})

describe('a server that is not set up for logical replication', () => {
  let server: PostgresServer
  beforeAll(async () => {
    server = await startPostgres({ settings: { wal_level: 'replica', max_replication_slots: 1, max_wal_senders: 1 } })
  })
  afterAll(async () => {
    await server.stop()
  })

  it('names wal_level and the limits with the SQL that mends them after a restart', async () => {
    const credentials = parseCredentials(server.url)
    const admin = new pg.Client({ connectionString: server.url })
    await admin.connect()
    await admin.query(`SELECT pg_create_physical_replication_slot('taken', true)`)
    const { host, port, database, username, password } = credentials
    const sender = new pg.Client({ host, port, database, user: username, password: password ?? '', ...({ replication: 'true' } as object) })
    sender.on('error', () => undefined)
    await sender.connect()
    const failed = (await runPreflight(credentials, { request: null, makesFailoverSlots: false })).findings.filter((finding) => finding.state === 'failure')
    expect(failed.map((finding) => [finding.name, finding.kind])).toEqual([
      ['wal_level', 'SourceNotReady'],
      ['replication slots', 'SourceNotReady'],
      ['walsenders', 'SourceNotReady'],
    ])
    await sender.end()
    expect(failed.flatMap((finding) => finding.sql)).toEqual([
      `ALTER SYSTEM SET wal_level = 'logical'`,
      `ALTER SYSTEM SET max_replication_slots = '5'`,
      `ALTER SYSTEM SET max_wal_senders = '5'`,
    ])
    await admin.end()
  })
})
