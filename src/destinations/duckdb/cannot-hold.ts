import type { TargetColumn } from '../../model/destination.ts'
import type { TypeShape } from '../../model/table-schema.ts'
import { mapType, TYPE_ROWS } from './type-mapping.ts'

/** Which values of its source type a column cannot hold, in words for people; empty where it holds them all. */
export function cannotHold({ shape, type }: Pick<TargetColumn, 'shape' | 'type'>): string {
  if (type === 'VARCHAR') return ''
  return type === mapType(shape).type ? unheldOf(shape) : `what is not exactly a ${type}`
}

/** The same of the type that a source type is mapped to without a hint. */
function unheldOf(shape: TypeShape): string {
  switch (shape.tag) {
    case 'base': {
      if (shape.name !== 'numeric') return TYPE_ROWS.find(({ names }) => names.includes(shape.name ?? ''))?.cannotHold ?? ''
      return shape.typeModifier < 4 ? 'NaN, ±Infinity, and numbers that need more digits before or behind the point' : 'NaN, ±Infinity'
    }
    case 'array':
      return 'several dimensions, a lower bound other than 1, or an element that its type cannot hold'
    case 'enum':
    case 'other':
      return ''
    default:
      return shape satisfies never
  }
}
