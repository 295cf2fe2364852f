import { mapType } from '../../src/destinations/duckdb/type-mapping.ts'
import type { BinaryRows } from '../../src/model/binary-rows.ts'
import type { TargetColumn } from '../../src/model/destination.ts'
import type { TypeShape } from '../../src/model/table-schema.ts'

/** A column of this type, as a new table has it. */
export function columnOf(shape: TypeShape, given: Partial<TargetColumn> = {}): TargetColumn {
  return {
    name: 'v', attributeNumber: 1, typeOid: 1, typeModifier: -1, typeName: '', shape, isNotNull: false, isGenerated: false, hasDefault: false,
    type: mapType(shape).type, isPinned: false, isDropped: false, ...given,
  } // prettier-ignore
}

/** A row as PostgreSQL sends it, of values in binary form. */
export function rowOf(values: readonly (Buffer | null)[]): Buffer {
  const parts = values.flatMap((value) => (value === null ? [Buffer.from([255, 255, 255, 255])] : [int32(value.length), value]))
  return Buffer.concat([int32(values.length).subarray(2), ...parts])
}

export function int32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeInt32BE(value)
  return bytes
}

/** Rows as a copy gives them at once. */
export function rowsOf(rows: readonly Buffer[]): BinaryRows {
  const bounds = new Int32Array(2 * rows.length)
  let at = 0
  for (const [index, row] of rows.entries()) {
    bounds.set([at, at + row.length], 2 * index)
    at += row.length
  }
  return { buffer: Buffer.concat(rows), bounds, rowCount: rows.length }
}
