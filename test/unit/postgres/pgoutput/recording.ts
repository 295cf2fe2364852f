import type { ChangeHandler, TupleView } from '../../../../src/model/change.ts'
import { CELL_BINARY, CELL_NULL, CELL_TEXT, CELL_UNCHANGED } from '../../../../src/model/change.ts'
import { formatLsn } from '../../../../src/model/lsn.ts'

export type Cell = string | null | { readonly unchanged: true } | { readonly binary: string }

/** The cells of a view as JS values; for tests only. */
export function cellsOf(tuple: TupleView): Cell[] {
  return Array.from({ length: tuple.columnCount }, (_, column) => {
    const bytes = tuple.buffer.subarray(tuple.starts[column], tuple.ends[column])
    switch (tuple.kinds[column] ?? -1) {
      case CELL_NULL:
        return null
      case CELL_TEXT:
        return bytes.toString('utf8')
      case CELL_UNCHANGED:
        return { unchanged: true }
      case CELL_BINARY:
        return { binary: bytes.toString('hex') }
      default:
        throw new Error('a cell without a kind')
    }
  })
}

/** A handler that notes every call as a JSON-like event. */
export function createRecorder(): { readonly handler: ChangeHandler; readonly events: unknown[][] } {
  const events: unknown[][] = []
  const handler: ChangeHandler = {
    begin: (commitLsn, commitTimeMicros, xid) => events.push(['begin', formatLsn(commitLsn), commitTimeMicros, xid]),
    commit: (commitLsn, endLsn, commitTimeMicros) => events.push(['commit', formatLsn(commitLsn), formatLsn(endLsn), commitTimeMicros]),
    relation: (relation) => events.push(['relation', relation]),
    insert: (oid, tuple) => events.push(['insert', oid, cellsOf(tuple)]),
    update: (oid, oldKind, oldTuple, newTuple) => events.push(['update', oid, oldKind, oldKind === 'none' ? null : cellsOf(oldTuple), cellsOf(newTuple)]),
    delete: (oid, oldKind, oldTuple) => events.push(['delete', oid, oldKind, cellsOf(oldTuple)]),
    truncate: (oids, cascade, restartIdentity) => events.push(['truncate', [...oids], cascade, restartIdentity]),
    type: (oid, schema, name) => events.push(['type', oid, schema, name]),
    origin: (commitLsn, name) => events.push(['origin', formatLsn(commitLsn), name]),
    message: (isTransactional, messageLsn, prefix, content) => events.push(['message', isTransactional, formatLsn(messageLsn), prefix, content.toString('utf8')]),
  }
  return { handler, events }
}
