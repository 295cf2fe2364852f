import { describe, expect, it } from 'vitest'
import type { SourceColumn } from '../../../src/model/table-schema.ts'
import type { CatalogTable } from '../../../src/postgres/catalog.ts'
import { planPublication, type PlanInput } from '../../../src/postgres/publication-plan.ts'
import type { PublicationState } from '../../../src/postgres/publication.ts'

function table(name: string, overrides: Partial<CatalogTable> = {}): CatalogTable {
  const columns = ['id', 'a', 'b'].map((column, index): SourceColumn => ({
    name: column, attributeNumber: index + 1, typeOid: 25, typeModifier: -1, typeName: 'text', shape: { tag: 'base', oid: 25, name: 'text', typeModifier: -1 }, isNotNull: false, isGenerated: false, hasDefault: false,
  }))
  return { schema: 'public', name, oid: name.length, columns, key: ['id'], replicaIdentity: 'default', hasIdentity: true, identityColumns: ['id'], unreadableColumns: [], virtualColumns: [], ...overrides }
}

function input(overrides: { version?: number; isSuperuser?: boolean; tableNames?: string[] | null } & Partial<Omit<PlanInput, 'request' | 'server'>> = {}): PlanInput {
  const { version = 180_000, isSuperuser = false, tableNames = ['t'], ...rest } = overrides
  return {
    request: {
      slotName: 's', publicationName: 'P', schemaName: 'public', tableNames, publish: ['insert', 'update', 'delete', 'truncate'], includeColumns: {}, snapshotMode: 'initial', reset: false,
      destinationId: 'd', destinationHasState: false,
    },
    server: {
      identity: { systemIdentifier: '1', timeline: 1, databaseName: 'db', serverVersion: version }, isInRecovery: false, walLevel: 'logical', maxReplicationSlots: 10, usedReplicationSlots: 0,
      maxWalSenders: 10, usedWalSenders: 0, role: { name: 'r', isSuperuser, canReplicate: true, replicationRole: null, canCreateInDatabase: true },
    },
    publication: null, tables: [table('t')], includeColumns: new Map(), ...rest,
  }
}

function publication(overrides: Partial<PublicationState> = {}): PublicationState {
  return { name: 'P', xmin: 3, owner: 'r', isOwned: true, isForAllTables: false, schemas: [], operations: ['insert', 'update'], isViaPartitionRoot: true, hasGeneratedColumns: true, tables: [], comment: null, notes: new Map(), ...overrides }
}

const include = new Map([['public.t', ['b']]])
const full = table('t', { replicaIdentity: 'full', identityColumns: ['id', 'a', 'b'], key: [] })

describe('the publication\'s DDL', () => {
  it.each<[string, PlanInput, string]>([
    ['lists tables', input(), `CREATE PUBLICATION "P" FOR TABLE ONLY "public"."t" WITH (publish = 'insert, update, delete, truncate', publish_via_partition_root = true, publish_generated_columns = stored)`],
    ['asks older servers for nothing that they do not know', input({ version: 170_000 }), `CREATE PUBLICATION "P" FOR TABLE ONLY "public"."t" WITH (publish = 'insert, update, delete, truncate', publish_via_partition_root = true)`],
    ['names a partitioned table without ONLY', input({ version: 140_000, tables: [table('t', { isPartitioned: true })] }), `CREATE PUBLICATION "P" FOR TABLE "public"."t" WITH (publish = 'insert, update, delete, truncate', publish_via_partition_root = true)`],
    ['publishes a schema whole as a superuser', input({ version: 150_000, isSuperuser: true, tableNames: null }), `CREATE PUBLICATION "P" FOR TABLES IN SCHEMA "public" WITH (publish = 'insert, update, delete, truncate', publish_via_partition_root = true)`],
    ['lists the schema\'s tables before 15', input({ version: 140_000, isSuperuser: true, tableNames: null }), `CREATE PUBLICATION "P" FOR TABLE ONLY "public"."t" WITH (publish = 'insert, update, delete, truncate', publish_via_partition_root = true)`],
    ['makes an empty publication of an empty schema', input({ version: 150_000, tableNames: null, tables: [] }), `CREATE PUBLICATION "P" WITH (publish = 'insert, update, delete, truncate', publish_via_partition_root = true)`],
    ['lists included columns and the key', input({ version: 150_000, includeColumns: include }), `CREATE PUBLICATION "P" FOR TABLE ONLY "public"."t" ("id", "b") WITH (publish = 'insert, update, delete, truncate', publish_via_partition_root = true)`],
    ['leaves columns to us before 15', input({ version: 140_000, includeColumns: include }), `CREATE PUBLICATION "P" FOR TABLE ONLY "public"."t" WITH (publish = 'insert, update, delete, truncate', publish_via_partition_root = true)`],
    ['leaves columns of a FULL table to us', input({ version: 150_000, includeColumns: include, tables: [full] }), `CREATE PUBLICATION "P" FOR TABLE ONLY "public"."t" WITH (publish = 'insert, update, delete, truncate', publish_via_partition_root = true)`],
    ['adds a missing table', input({ publication: publication() }), `ALTER PUBLICATION "P" ADD TABLE ONLY "public"."t"`],
    ['adds a missing table without columns beside a schema', input({ publication: publication({ schemas: ['other'] }), includeColumns: include }), `ALTER PUBLICATION "P" ADD TABLE ONLY "public"."t"`],
    ['adds the schema as a superuser', input({ publication: publication(), isSuperuser: true, tableNames: null }), `ALTER PUBLICATION "P" ADD TABLES IN SCHEMA "public"`],
  ])('%s', (_name, plan, statement) => {
    expect(planPublication(plan).statements).toEqual([statement])
  })

  it.each<[string, PlanInput]>([
    ['of a publication that has the table', input({ publication: publication({ tables: [{ schema: 'public', name: 't', oid: 1, columns: null, hasColumnList: false, rowFilter: null, filterColumns: [], isListed: true }] }) })],
    ['of one for all tables', input({ publication: publication({ isForAllTables: true }) })],
    ['of one for the schema', input({ publication: publication({ schemas: ['public'], tables: [{ schema: 'public', name: 't', oid: 1, columns: null, hasColumnList: false, rowFilter: null, filterColumns: [], isListed: true }] }), isSuperuser: true, tableNames: null })],
  ])('changes nothing %s', (_name, plan) => {
    expect(planPublication(plan).statements).toEqual([])
  })
})
