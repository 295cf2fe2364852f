import { describe, expect, it } from 'vitest'
import type { SourceColumn, TableSchema } from '../../../src/model/table-schema.ts'
import { diffColumns } from '../../../src/pipeline/schema-diff.ts'

function column(name: string, attributeNumber: number): SourceColumn {
  return { name, attributeNumber, typeOid: 23, typeModifier: -1, typeName: 'integer', shape: { tag: 'base', oid: 23, name: 'int4', typeModifier: -1 }, isNotNull: false, isGenerated: false, hasDefault: false }
}

const storage = { isPartitioned: false, files: {}, attached: [], columns: {}, labels: {}, gone: [] }
const target = (source: SourceColumn) => ({ ...source, type: 'INTEGER', isPinned: false, isDropped: false })
const KNOWN = [column('id', 1), column('v', 3)]

describe('a new column', () => {
  const added = (columns: readonly SourceColumn[], given: { readonly gone?: readonly number[]; readonly generated?: readonly number[] }): readonly string[] | null => {
    const catalog: TableSchema = { schema: 'public', name: 't', oid: 7, key: ['id'], replicaIdentity: 'default', columns, storage: { ...storage, generated: given.generated ?? [] } }
    const known = { columns: KNOWN.map(target), key: ['id'], gone: given.gone ?? [] }
    return diffColumns(known, columns.map((sent) => ({ ...sent, isKey: false })), catalog)?.added.map(({ name }) => name) ?? null
  }

  it.each([
    ['has the next number', [column('c', 4)], { gone: [2] }, ['c']],
    ['comes with another', [column('c', 4), column('d', 5)], { gone: [2] }, ['c', 'd']],
    ['comes after one that had gone by then', [column('c', 5)], { gone: [2, 4] }, ['c']],
    ['comes after one that is generated, and not sent', [column('c', 5)], { gone: [2], generated: [4] }, ['c']],
    ['may have been another one when the rows came', [column('c', 5)], { gone: [2] }, null],
    ['comes where nothing is known of what has gone', [column('c', 4)], {}, null],
  ] as const)('%s', (_, news, given, expected) => {
    expect(added([...KNOWN, ...news], given)).toEqual(expected)
  })
})
