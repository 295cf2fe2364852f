import type { AddedColumn, ColumnsChange, TargetColumn } from '../../model/destination.ts'
import { hasHistory, type Shaping } from '../../model/shapes.ts'
import { isHintable, mapType } from './type-mapping.ts'

/** A table's columns after a change at the source. The order is the destination's: what is added comes last. */
export function alteredColumns(columns: readonly TargetColumn[], change: ColumnsChange, shaping: Shaping): readonly TargetColumn[] {
  const newNames = new Set([...change.added.map(({ name }) => name), ...change.renamed.map(({ to }) => to)].map((name) => name.toLowerCase()))
  const kept = columns.flatMap((column): TargetColumn[] => {
    if (column.isDropped) {
      const again = change.added.find(({ attributeNumber }) => attributeNumber === column.attributeNumber)
      return [again === undefined ? asDropped(column, newNames) : present(column, added(again))]
    }
    if (change.dropped.includes(column.name)) return hasHistory(shaping) ? [asDropped(column, newNames)] : []
    const name = change.renamed.find(({ from }) => from === column.name)?.to ?? column.name
    const retyped = change.retyped.find((now) => now.name === name)
    if (retyped === undefined) return [{ ...column, name }]
    const isSame = column.isPinned ? isHintable(column.type, retyped.shape) : mapType(retyped.shape).type === column.type
    return [{ ...column, ...retyped, type: isSame ? column.type : 'VARCHAR', ...(isSame || column.type === 'VARCHAR' ? {} : { widenedFrom: column.type }) }]
  })
  return [...kept, ...change.added.filter(({ attributeNumber }) => !kept.some((column) => column.attributeNumber === attributeNumber)).map(added)]
}

function added({ valueOfOlderRows: _, ...column }: AddedColumn): TargetColumn {
  return { ...column, type: mapType(column.shape).type, isPinned: false, isDropped: false }
}

/**
 * A table's columns once it has those that are there `now`, told by attribute number, where rows of the earlier ones stay: a column of another type
 * becomes text, in which old values have a place beside new ones. The same again when it is done again.
 */
export function carriedColumns(columns: readonly TargetColumn[], now: readonly TargetColumn[], shaping: Shaping): readonly TargetColumn[] {
  const live = now.filter(({ isDropped }) => !isDropped)
  const newNames = new Set(live.map(({ name }) => name.toLowerCase()))
  const presentOf = ({ attributeNumber }: TargetColumn): TargetColumn | undefined => live.find((column) => column.attributeNumber === attributeNumber)
  const kept = columns.flatMap((column): TargetColumn[] => {
    const now = presentOf(column)
    if (now !== undefined) return [present(column, now)]
    return hasHistory(shaping) ? [asDropped(column, newNames)] : []
  })
  return [...kept, ...live.filter(({ attributeNumber }) => !columns.some((column) => column.attributeNumber === attributeNumber))]
}

/**
 * A column that is there, as it is `now`. It may have been taken for dropped: by a look at the catalog that was older than what the stream had told by
 * then, or as a list left it out. PostgreSQL gives no attribute number twice.
 */
function present(column: TargetColumn, now: TargetColumn): TargetColumn {
  if (now.type === column.type) return { ...now, ...(column.widenedFrom === undefined ? {} : { widenedFrom: column.widenedFrom }) }
  return { ...now, type: 'VARCHAR', isPinned: false, widenedFrom: column.widenedFrom ?? column.type }
}

/** A column that is gone at the source; a name that is used again there belongs to the newer column. */
function asDropped(column: TargetColumn, newNames: ReadonlySet<string>): TargetColumn {
  const name = newNames.has(column.name.toLowerCase()) ? `${column.name}__dropped_${String(column.attributeNumber)}` : column.name
  return { ...column, name, isDropped: true }
}
