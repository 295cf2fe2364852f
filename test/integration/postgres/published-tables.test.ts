import type pg from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { lookAtCatalog } from '../../../src/postgres/catalog-look.ts'
import { connect, endQuietly } from '../../../src/postgres/session.ts'
import { testServers } from '../../support/test-servers.ts'
import { openSourceFixture, type SourceFixture } from './source-fixture.ts'

describe.each(testServers())('a look at what a publication sends, $name', ({ url }) => {
  let source: SourceFixture
  let client: pg.Client
  beforeAll(async () => {
    source = await openSourceFixture(url)
    client = await connect(source.credentials)
    await source.admin.query(`
      CREATE SCHEMA one; CREATE SCHEMA two;
      CREATE TABLE one.plain (id int PRIMARY KEY); CREATE TABLE one.parent (id int PRIMARY KEY); CREATE TABLE two.child () INHERITS (one.parent); CREATE UNLOGGED TABLE one.fast (id int PRIMARY KEY);
      CREATE VIEW one.shown AS SELECT 1 AS id; CREATE MATERIALIZED VIEW one.kept AS SELECT 1 AS id; CREATE SEQUENCE one.numbers; CREATE TEMPORARY TABLE passing (id int);
      CREATE TABLE one.root (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE one.leaf PARTITION OF one.root FOR VALUES FROM (0) TO (10);
      CREATE TABLE two.sub PARTITION OF one.root FOR VALUES FROM (10) TO (20) PARTITION BY RANGE (id); CREATE TABLE two.deep PARTITION OF two.sub FOR VALUES FROM (10) TO (15); CREATE TABLE one.deep PARTITION OF two.sub FOR VALUES FROM (15) TO (20);
      CREATE TABLE two.alone (id int PRIMARY KEY); CREATE TABLE two.empty (id int PRIMARY KEY) PARTITION BY RANGE (id)`)
  })
  afterAll(async () => {
    await endQuietly(client)
    await source.close()
  })

  const oidsOf = async (query: string, values: unknown[] = []): Promise<readonly number[]> => (await source.admin.query<{ oid: number }>(query, values)).rows.map(({ oid }) => oid).sort((a, b) => a - b)

  it('agrees with PostgreSQL, whatever the publication is of', async () => {
    // 14 names a partition twice that is listed beside its root.
    const everything = await oidsOf('SELECT oid FROM pg_class')
    const schemas = source.serverVersion < 150_000 ? [] : ['TABLES IN SCHEMA one', 'TABLES IN SCHEMA two', 'TABLES IN SCHEMA one, two', 'TABLES IN SCHEMA two, TABLE one.root', 'TABLES IN SCHEMA one, TABLE two.sub, two.deep']
    const members = ['ALL TABLES', 'TABLE one.plain', 'TABLE one.parent', 'TABLE ONLY one.parent', 'TABLE one.root', 'TABLE two.sub', 'TABLE one.root, two.deep', 'TABLE two.sub, one.deep, one.leaf', 'TABLE two.empty, two.alone', ...schemas]
    const sizes = new Set<number>()
    for (const of of ['', ...members.map((member) => `FOR ${member}`)]) {
      for (const viaRoot of [true, false]) {
        await source.admin.query(`CREATE PUBLICATION looked ${of} WITH (publish_via_partition_root = ${String(viaRoot)})`)
        const { tables } = await lookAtCatalog(client, 'looked', { oids: everything, wholeSchema: null })
        const seen = tables.filter(({ isPublished }) => isPublished).map(({ oid }) => oid).sort((a, b) => a - b)
        expect([of, viaRoot, seen]).toEqual([of, viaRoot, await oidsOf("SELECT DISTINCT relid AS oid FROM pg_get_publication_tables('looked')")])
        sizes.add(seen.length)
        await source.admin.query('DROP PUBLICATION looked')
      }
    }
    expect(sizes.size).toBeGreaterThan(4)
  })

  // Cause: pg_get_publication_tables (16+) and pg_partition_tree open what they tell of.
  it('does not wait for whoever rewrites a published table or a partition', async () => {
    await source.admin.query(`CREATE PUBLICATION looked FOR ALL TABLES WITH (publish_via_partition_root)`)
    const oids = await oidsOf("SELECT unnest(ARRAY['one.plain', 'one.root']::regclass[])::oid AS oid")
    const before = await lookAtCatalog(client, 'looked', { oids, wholeSchema: 'two' })
    await source.admin.query('BEGIN; LOCK TABLE one.plain, one.root, two.alone IN ACCESS EXCLUSIVE MODE')
    await client.query("SET lock_timeout = '1ms'")
    const during = await lookAtCatalog(client, 'looked', { oids, wholeSchema: 'two' })
    await client.query('RESET lock_timeout')
    await source.admin.query('ROLLBACK; DROP PUBLICATION looked')
    expect([during.tables.map(({ isPublished }) => isPublished), during.newcomers]).toEqual([[true, true], before.newcomers])
    expect(Object.keys(during.tables.find(({ name }) => name === 'root')?.storage.files ?? {})).toHaveLength(4)
  })
})
