import { expect, it } from 'vitest'
import type { TargetColumn } from '../../../../src/model/destination.ts'
import { lineEncodings } from '../../../../src/destinations/duckdb/line-encoding.ts'
import { mapType, TYPE_ROWS } from '../../../../src/destinations/duckdb/type-mapping.ts'

const ID = columnOf('int8')

function columnOf(name: string, given: Partial<TargetColumn> = {}): TargetColumn {
  const shape = { tag: 'base', oid: 1, name, typeModifier: -1 } as const
  return {
    name, attributeNumber: 1, typeOid: 1, typeModifier: -1, typeName: name, shape, isNotNull: false, isGenerated: false, hasDefault: false,
    type: mapType(shape).type, isPinned: false, isDropped: false, ...given,
  } // prettier-ignore
}

it('takes rows as the source writes them for every type but intervals', () => {
  const names = [...TYPE_ROWS.flatMap((row) => row.names), 'numeric', 'inet']
  expect(names.filter((name) => lineEncodings([ID, columnOf(name)]) === null)).toEqual(['interval'])
})

it('looks at the cells of arrays, and of columns that a hint makes another number', () => {
  const element = { tag: 'base', oid: 1, name: 'int4', typeModifier: -1 } as const
  expect(lineEncodings([ID, columnOf('_int4', { shape: { tag: 'array', oid: 2, element, delimiter: ',' }, type: 'INTEGER[]' })])).toBeNull()
  expect(lineEncodings([ID, columnOf('numeric', { type: 'BIGINT', isPinned: true })])).toBeNull()
  expect(lineEncodings([ID, columnOf('text', { type: 'DOUBLE', isPinned: true })])).toBeNull()
})

it('looks at the cells of a single column: its NULLs would be empty lines', () => {
  expect(lineEncodings([ID])).toBeNull()
})
