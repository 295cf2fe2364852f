import { expect, it } from 'vitest'
import { binaryEncodings } from '../../../../src/destinations/duckdb/binary-encoding.ts'
import { TYPE_ROWS } from '../../../../src/destinations/duckdb/type-mapping.ts'
import type { TypeShape } from '../../../../src/model/table-schema.ts'
import { columnOf } from '../../../support/binary-rows.ts'

function base(name: string, typeModifier = -1): TypeShape {
  return { tag: 'base', oid: 1, name, typeModifier }
}

function numeric(precision: number, scale: number): TypeShape {
  return base('numeric', ((precision << 16) | (scale & 0x7ff)) + 4)
}

it('has a way for every type but those whose bytes say less, or more, than a Parquet value', () => {
  const names = [...TYPE_ROWS.flatMap((row) => row.names), 'numeric', 'inet', 'money']
  expect(names.filter((name) => binaryEncodings([columnOf(base(name))]) === null)).toEqual(['char', 'timetz', 'interval', 'inet', 'money'])
})

it('has one for enums, and none for lists and types of others', () => {
  expect(binaryEncodings([columnOf({ tag: 'enum', oid: 1 })])?.map(({ type }) => type)).toEqual([{ tag: 'text' }])
  expect(binaryEncodings([columnOf({ tag: 'array', oid: 2, element: base('int4'), delimiter: ',' })])).toBeNull()
  expect(binaryEncodings([columnOf({ tag: 'other', oid: 1 })])).toBeNull()
})

it('takes numbers of more than 18 digits by way of 18, of which none stands behind the scale', () => {
  const typesOf = (shape: TypeShape): unknown => binaryEncodings([columnOf(shape)])?.map(({ type, cell }) => [type, cell.fromCsv('v')])
  expect(typesOf(numeric(12, 2))).toEqual([[{ tag: 'decimal', precision: 12, scale: 2 }, 'v']])
  expect(typesOf(numeric(30, 5))).toEqual([[{ tag: 'decimal', precision: 18, scale: 5 }, 'CAST(v AS DECIMAL(30,5))']])
  expect(typesOf(base('numeric'))).toEqual([[{ tag: 'decimal', precision: 18, scale: 9 }, 'CAST(v AS DECIMAL(38,9))']])
  expect(typesOf(numeric(18, 18))).toEqual([[{ tag: 'decimal', precision: 18, scale: 18 }, 'v']])
  // Cause: 1 as numeric(38,18) is 10^18, so that every table with such a column was read twice.
  for (const scale of [10, 18, 19]) expect(typesOf(numeric(38, scale))).toBeUndefined()
  expect(typesOf(numeric(40, 2))).toBeUndefined()
})

it('has none where a column is of another type here, or there is no column', () => {
  expect(binaryEncodings([columnOf(base('int4')), columnOf(base('numeric'), { type: 'VARCHAR' })])).toBeNull()
  expect(binaryEncodings([columnOf(base('int4'), { type: 'BIGINT', isPinned: true })])).toBeNull()
  expect(binaryEncodings([columnOf(base('int4'), { isPinned: true })])).not.toBeNull()
  expect(binaryEncodings([])).toBeNull()
})
